"""Whether somebody moves objects, by the lock on a node, which is a real server on a socket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.nodes.acquire import prove
from gateway.nodes.layout import Layout
from gateway.nodes.member import Member
from gateway.nodes.record_json import dump
from gateway.nodes.view import Directory
from gateway.nodes.work import LOCK
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings
from gateway.status.rebalancing import Rebalancing
from tests.harness.fakes import serving
from tests.harness.waiting import eventually

SETTLED = Layout.first(["node-1", "node-2"])
UNSETTLED = SETTLED.without(["node-2"], now=time.time() - 60)
SERVER = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := read_head(self.rfile):
            self.wfile.write(keep_record(*head, b""))
"""


def lock(until: float) -> bytes:
    return json.dumps({"holder": "x", "since": until - 20, "until": until}).encode()


LOCKS: dict[str, tuple[bytes | None, bool]] = {
    "there is none": (None, False),
    "somebody has it": (lock(time.time() + 3600), True),
    "nobody has renewed it": (lock(time.time() - 1), False),
    "it can't be read": (b"<html>", False),
    "it has no end": (b'{"since": 1}', False),
}


@pytest.fixture
def records() -> Iterator[dict[str, bytes]]:
    """What the node holds, by path."""
    with serving(SERVER) as (port, script):
        held: dict[str, Any] = script["RECORDS"]
        held.update({"/objgw-layout": b"", "port": port})
        yield held


def moving(records: dict[str, Any], layout: Layout) -> Rebalancing:
    """What is known after one look, of a gateway that goes by this layout."""
    directory = Directory(Settings())
    endpoint = Endpoint("node-1", "id", "127.0.0.1", records.pop("port"), "key", "secret")
    records["/objgw-layout/layout"] = dump(layout, "node-1")
    node = directory.by_name["node-1"] = Member(endpoint, Settings())
    directory.layout = layout
    with directory.changed:
        directory.arrange()
    node.ready = node.standing.keeps_conditions = True
    node.standing.ignored, node.standing.stores_cut = frozenset(), False
    node.release(prove(node, 5))
    assert node.in_order
    found = Rebalancing(directory)
    found.start()
    eventually(lambda: not found._looking)
    return found


@pytest.mark.parametrize("row", LOCKS)
def test_objects_are_being_moved_while_somebody_has_the_lock(
    records: dict[str, bytes], row: str
) -> None:
    held, known = LOCKS[row]
    if held is not None:
        records[f"/objgw-layout/{LOCK}"] = held
    assert moving(records, UNSETTLED).known is known


def test_of_a_settled_layout_nothing_is_moved_and_nobody_is_asked(
    records: dict[str, bytes],
) -> None:
    records[f"/objgw-layout/{LOCK}"] = LOCKS["somebody has it"][0] or b""
    assert moving(records, SETTLED).known is False


def test_it_is_not_known_while_the_node_with_the_lock_does_not_answer(
    records: dict[str, bytes],
) -> None:
    found = moving(records, UNSETTLED)
    found._directory.by_name["node-1"].standing.error = "it refuses connections"
    found._due = 0.0
    found.start()
    eventually(lambda: not found._looking)
    assert found.known is None
