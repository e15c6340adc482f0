"""Metrics: what Prometheus reads."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.status import requests, samples, send
from tests.harness.waiting import eventually

# What a client asks for an object of its own, and the answers.
LIFE = (
    ("PUT", "200"),
    ("GET", "200"),
    ("GET", "200"),
    ("HEAD", "200"),
    ("DELETE", "204"),
    ("GET", "404"),
)

# What has no node, with its labels.
ASTRAY = {
    ("GET", "/object/no-id"): ("GET", "none", "400"),
    ("GET", "/nowhere"): ("GET", "none", "404"),
    ("BREW", "/object/abc"): ("other", "none", "405"),
    ("POST", "/"): ("other", "none", "405"),
}


def test_across_four_workers_the_metrics_are_exactly_the_requests_that_were_answered(
    shared: Stack, four: Gateway
) -> None:
    clients = 12
    expected = Counter(
        {(method, node.name, status): 0 for node in shared.nodes for method, status in LIFE}
    )
    for node in shared.nodes:
        expected.update({(method, node.name, status): clients for method, status in {*LIFE}})
        expected[("GET", node.name, "200")] += clients
    expected.update(
        dict.fromkeys(list(ASTRAY.values())[:3], clients)
    )  # the last one is about the gateway itself
    workers, rounds = set[str](), 0
    while rounds < 5 or len(workers) < 4:
        assert rounds < 100, "not each worker takes part"
        rounds += 1
        work = [
            [
                (method, f"/object/{id}")
                for id in map(shared.id_of, shared.nodes)
                for method, _ in LIFE
            ]
            + [*ASTRAY]
            for _ in range(clients)
        ]
        before, bodies = requests(four), samples(four, "objgw_object_bytes_sum")
        with ThreadPoolExecutor(clients) as pool:
            workers.update(*pool.map(partial(send, four), work))
        counted, after = requests(four), samples(four, "objgw_object_bytes_sum")
        assert counted - before == expected
        for node in shared.nodes:
            assert after[("PUT", node.name)] - bodies.get(("PUT", node.name), 0) == clients * 5
            assert after[("GET", node.name)] - bodies.get(("GET", node.name), 0) == clients * 10
    files = four.read("sh", "-c", "ls /dev/shm/objgw-*").split()
    assert len([file for file in files if re.fullmatch(r"histogram_\d+\.db", file)]) == 4


def test_a_large_download_is_counted_when_its_last_byte_is_there(
    shared: Stack, four: Gateway
) -> None:
    id, body = shared.id_of(shared.nodes[0]), os.urandom(3_000_000)
    assert four.put(id, body).status == 200
    for _ in range(10):
        before = samples(four, "objgw_object_bytes_sum").get(("GET", shared.nodes[0].name), 0)
        assert four.get(id).body == body
        assert samples(four, "objgw_object_bytes_sum")[
            ("GET", shared.nodes[0].name)
        ] - before == len(body)


def test_what_a_worker_had_counted_stays_when_it_ends(shared: Stack) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2"})
    gateway.wait_ready()
    for _ in range(20):
        gateway.get("a-b")
    before, workers = requests(gateway), set(gateway.workers())
    for worker in workers:
        gateway.run("sh", "-c", f"kill -9 {worker}")
    eventually(lambda: len(gateway.workers()) == 2 and not workers & set(gateway.workers()))
    assert requests(gateway) - before == Counter()
    assert before - requests(gateway) == Counter()
    gateway.get("a-b")
    assert requests(gateway) - before == Counter({("GET", "none", "400"): 1})
    files = gateway.read("sh", "-c", "ls /dev/shm/objgw-*").split()
    assert {file.rsplit("_", 1)[1] for file in files if file.endswith(".db")} == {
        "0.db",
        "1.db",
    }  # as many as workers


def test_a_silent_node_is_in_the_metrics_and_in_the_log_once(faulty: Stack) -> None:
    gateway = faulty.add_gateway(
        {"OBJGW_NODE_TIMEOUT": "5", "OBJGW_CONNECT_TIMEOUT": "5", "OBJGW_BREAKER_SECONDS": "60"}
    )
    gateway.wait_ready()
    node = faulty.nodes[2]
    id = faulty.id_of(node)
    node.container.kill("SIGSTOP")
    try:
        eventually(lambda: gateway.get(id).status == 503)  # it may answer for a moment
        before = requests(gateway)
        assert [gateway.get(id).status for _ in range(20)] == [503] * 20
        assert samples(gateway, "objgw_upstream_errors_total")[(node.name,)] >= 1
        assert samples(gateway, "objgw_breaker_open")[(node.name,)] == 1
        assert requests(gateway) - before == Counter({("GET", node.name, "503"): 20})
        assert len(gateway.lines(f"node {node.name} is refused for a while")) == 1
    finally:
        node.container.kill("SIGCONT")


def test_the_exposition_keeps_to_the_conventions(shared: Stack, four: Gateway) -> None:
    four.put(
        shared.id_of(shared.nodes[0]), b"12345"
    )  # a metric is there from the first time that it counts something
    answer = four.request("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    names, methods = (
        {node.name for node in shared.nodes} | {"none", "all"},
        {"GET", "HEAD", "PUT", "DELETE", "LIST", "other"},
    )
    for family in parse_text(answer.body.decode()):
        assert re.fullmatch(r"objgw_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert set(sample.labels) <= {
                "method",
                "status",
                "node",
                "state",
                "le",
                "version",
                "python",
            }
            assert sample.labels.get("node", "none") in names
            assert sample.labels.get("method", "GET") in methods
            assert re.fullmatch(r"\d{3}", sample.labels.get("status", "200"))
    openmetrics = four.request(
        "GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    parsed = parse_openmetrics(openmetrics.body.decode())  # type: ignore[no-untyped-call]
    families = {family.name for family in parsed}
    assert families >= {
        "objgw_request_seconds", "objgw_object_bytes", "objgw_node_up", "objgw_breaker_open",
        "objgw_upstream_connections", "objgw_discovery_last_success_timestamp_seconds",
        "objgw_layout_settled",
        "objgw_build_info",
    }  # fmt: skip
