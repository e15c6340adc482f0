"""What a gateway tells of itself: /health, /metrics and its log, as tests compare it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.harness.gateway import Answer, Gateway

OPEN = ("/health/live", "/health/ready")

GUARDED = ("/health", "/metrics", "/status.json", "/status.json?id=abc")


def health(gateway: Gateway) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gateway.request("GET", "/health").body)
    return document


def told_states(answer: Answer) -> dict[str, str]:
    """The nodes' states that an answer of /health says."""
    return {node["name"]: node["state"] for node in json.loads(answer.body)["nodes"]}


def states(gateway: Gateway) -> dict[str, str]:
    return told_states(gateway.request("GET", "/health"))


def samples(gateway: Gateway, name: str, **headers: str) -> dict[tuple[str, ...], float]:
    """A metric's values by its labels' values, in the order of the labels' names."""
    text = gateway.request("GET", "/metrics", headers=headers).body.decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name
    }


def requests(gateway: Gateway) -> Counter[tuple[str, ...]]:
    """Requests by method, node and status."""
    counts = samples(gateway, "objgw_request_seconds_count")
    return Counter({labels: int(value) for labels, value in counts.items()})


def access_lines(gateway: Gateway) -> list[str]:
    return [line for line in gateway.logs().splitlines() if " objgw.access " in line]


def wait_healthy(gateway: Gateway) -> None:
    """Until each worker has found all nodes up."""
    wanted = {node.name: "up" for node in gateway.stack.nodes}
    gateway.wait_workers(["/health"], lambda answer: told_states(answer) == wanted)


def send(gateway: Gateway, work: Iterable[tuple[str, str]]) -> set[str]:
    """The requests, one after the other on one connection; the workers that took part."""
    with gateway.session() as session:
        return {
            session.request(method, path, b"12345" if method == "PUT" else None).worker
            for method, path in work
        }
