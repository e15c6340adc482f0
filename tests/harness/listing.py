"""The list of objects as a client reads it: `/objects`, in pages and as a stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.harness.gateway import Gateway
from tests.harness.waiting import meanwhile

NDJSON = {"Accept": "application/x-ndjson"}


def page(gateway: Gateway, query: str = "") -> dict[str, Any]:
    answer = gateway.request("GET", f"/objects{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    document: dict[str, Any] = json.loads(answer.body)
    assert set(document) == {"objects", "next"}
    return document


def stream(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = gateway.request("GET", f"/objects{query}", headers=NDJSON)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    return [json.loads(line) for line in answer.body.splitlines()]


def pages(gateway: Gateway, prefix: str = "", limit: int = 1000) -> list[dict[str, Any]]:
    """The objects of all pages."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        document = page(gateway, f"?prefix={prefix}&limit={limit}&after={after}")
        found += document["objects"]
        if document["next"] is None:
            return found
        assert len(document["objects"]) == limit
        assert document["next"] == found[-1]["id"]
        after = document["next"]


@contextmanager
def listed_meanwhile(gateway: Gateway, there: Mapping[str, bytes | None]) -> Iterator[None]:
    """While the block runs, lists are read again and again, each of which has every object that is
    there all the while, once, and none that isn't (None).
    """
    wrong, rounds = list[object](), 0
    wanted = sorted(id for id, body in there.items() if body is not None)

    def read(over: threading.Event) -> None:
        nonlocal rounds
        while not over.is_set():
            for limit in (0, 37, 1000):
                try:
                    found = pages(gateway, limit=limit) if limit else stream(gateway)
                    ids = [each["id"] for each in found if each["id"] in there]
                    wrong.extend([(limit, len(ids), {*wanted} ^ {*ids})] if ids != wanted else [])
                except Exception as error:
                    wrong.append(error)
            rounds += 1

    with meanwhile(read):
        yield
    assert rounds
    assert not wrong, f"{len(wrong)} lists of {rounds} times 3 are wrong, first {wrong[0]}"
