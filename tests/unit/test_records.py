"""Which layout a gateway goes by, by its own and what the nodes' records say."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.nodes.acquire import prove
from gateway.nodes.discovery import Discovery
from gateway.nodes.layout import Layout
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.record_json import dump, load
from gateway.nodes.records import Records
from gateway.nodes.view import Directory
from gateway.s3.endpoint import Endpoint
from gateway.s3.reply import Reply
from gateway.settings import Settings
from tests.harness.fakes import serving

NAMES = ("node-1", "node-2")
OURS = replace(Layout.first(NAMES, unrecorded=NAMES), origin="0123456789abcdef")
THEIRS = replace(OURS, origin="fedcba9876543210")
ONE_KNOWN = OURS.known(["node-1"])
# The layout that the gateway has, what node-1 and node-2 hold, and what it goes by then.
SIGHTS: dict[str, tuple[Layout | None, list[Layout | None], Layout | None]] = {
    "none yet": (None, [THEIRS, None], THEIRS),
    "made while no node took it, and another gateway's was taken": (OURS, [THEIRS, None], THEIRS),
    "nobody has one": (OURS, [None, None], OURS),
    "a node has it": (OURS, [THEIRS, OURS], OURS),
    "a node had it": (ONE_KNOWN, [THEIRS, THEIRS], ONE_KNOWN),
    "one has a newer one": (OURS, [ONE_KNOWN, None], ONE_KNOWN),
    "each has another one": (None, [OURS, THEIRS], None),
}
# Two that gateways made at the same moment, one of which had found a third node.
TWO = Layout.first(NAMES, unrecorded=NAMES)
THREE = Layout.first((*NAMES, "node-3"), unrecorded=(*NAMES, "node-3"))
PATH = "/objgw-layout/layout"
SERVER = """
BUSY = threading.Event()  # it takes no record
keep = keep_record
def keep_record(method, *rest):
    if method == "PUT" and BUSY.is_set():
        return b"HTTP/1.1 503 S3\\r\\nContent-Length: 0\\r\\n\\r\\n"
    return keep(method, *rest)
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _ in requests(self):
            pass
"""


@pytest.mark.parametrize("row", SIGHTS)
def test_a_gateway_goes_by_what_its_nodes_hold(row: str, tmp_path: Path) -> None:
    before, held, after = SIGHTS[row]
    directory = Directory(Settings())
    records = Records(directory, Discovery(directory), Leader(tmp_path))
    directory.layout = before
    for name, layout in zip(NAMES, held, strict=True):
        node = Member(Endpoint(name, "id", "127.0.0.1", 9, "key", "secret"), Settings())
        directory.by_name[name] = node
        if before:
            node.standing.expect(before)
        body = dump(layout, name) if layout else b"<Error><Code>NoSuchKey</Code></Error>"
        status, headers = (200, {"etag": '"1"'}) if layout else (404, {})
        node.standing.take(time.monotonic(), Reply(status, headers, body, 0))
    records._keep()
    assert directory.layout == after


def test_a_record_is_replaced_only_after_it_was_merged(tmp_path: Path) -> None:
    with serving(SERVER) as (port, first), serving(SERVER) as (other_port, second):
        directory = Directory(Settings())
        records = Records(directory, Discovery(directory), Leader(tmp_path))
        servers = {"node-1": (port, first, TWO), "node-2": (other_port, second, THREE)}
        for name, (at, script, layout) in servers.items():
            directory.by_name[name] = Member(
                Endpoint(name, "id", "127.0.0.1", at, "key", "secret"), Settings()
            )
            script["RECORDS"] |= {"/objgw-layout": b"", PATH: dump(layout, name)}
        directory.layout = TWO

        def keep() -> list[Layout]:
            """What the nodes hold after one round."""
            with directory.changed:
                directory.arrange()
            for node in [directory.by_name[name] for name in NAMES]:
                node.release(prove(node, 5))
            records._keep()
            return [load(script["RECORDS"][PATH])[0] for script in (first, second)]

        first["BUSY"].set()
        assert keep() == keep() == [TWO, THREE]
        first["BUSY"].clear()
        one, other = keep()
        assert one == other == directory.layout
        assert set(one.memberships) > {*TWO.memberships, *THREE.memberships}
