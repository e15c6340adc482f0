"""Which layout a gateway goes by, by its own and what the nodes' records say."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.nodes.acquire import prove
from gateway.nodes.discovery import Discovery
from gateway.nodes.holdings import Holdings
from gateway.nodes.layout import Layout
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.record_json import dump, load
from gateway.nodes.records import UNHEARD_SECONDS, Records
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


# What the node that answers first holds, the name of another one that is listed and doesn't answer
# yet, what that holds when it does, and by what a gateway goes then that has just begun.
BIG = replace(Layout.first(("node-1", "node-2", "node-3")), origin="0123456789abcdef")
OTHER = replace(Layout.first(["other"]), origin="fedcba9876543210")
LATE: dict[str, tuple[Layout | None, str, Layout, Layout]] = {
    "an empty node is first, of which the others don't know": (None, "node-1", OURS, OURS),
    "a node that lost its disk is first": (None, "node-2", OURS, OURS),
    "one of another installation is first": (BIG, "other", OTHER, OTHER),
}


@pytest.mark.parametrize("row", LATE)
def test_what_decides_a_beginning_waits_for_nodes_that_do_not_answer_yet(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds, late, comes, after = LATE[row]
    clock = [1000.0]
    directory = Directory(Settings())
    records = Records(directory, Discovery(directory), Leader(tmp_path))
    with serving(SERVER) as (port, script):
        names = [name for name in ("node-1", "node-2", "node-3") if name != late]
        first = names[0] if late == "other" else names[-1]
        script["RECORDS"] |= {"/objgw-layout": b""}
        for name in (first, late):
            at = port if name == first else 9
            node = Member(Endpoint(name, "id", "127.0.0.1", at, "key", "secret"), Settings())
            directory.by_name[name] = node
            node.standing.tried = True  # and what doesn't answer was asked in vain
        found = dump(holds, first) if holds else b"<Error><Code>NoSuchKey</Code></Error>"
        told = Reply(200, {"etag": '"1"'}, found, 0) if holds else Reply(404, {}, found, 0)

        def keep() -> Layout | None:
            standing = directory.by_name[first].standing
            standing.take(time.monotonic(), told)
            standing.lists(Holdings())
            records._keep()
            return directory.layout

        monkeypatch.setattr("gateway.nodes.records.time.monotonic", lambda: clock[0])
        assert keep() is None
        clock[0] += UNHEARD_SECONDS - 1
        assert keep() is None
        assert script["RECORDS"] == {"/objgw-layout": b""}  # nothing was written
        body = dump(comes, late)
        directory.by_name[late].standing.take(
            time.monotonic(), Reply(200, {"etag": '"2"'}, body, 0)
        )
        assert keep() == after


def test_a_gateway_begins_without_a_node_that_goes_on_not_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    directory = Directory(Settings())
    records = Records(directory, Discovery(directory), Leader(tmp_path))
    for name in NAMES:
        node = Member(Endpoint(name, "id", "127.0.0.1", 9, "key", "secret"), Settings())
        directory.by_name[name] = node
        node.standing.tried = True
    begun = list[list[str]]()
    monkeypatch.setattr(records, "_begin", lambda nodes: begun.append([n.name for n in nodes]))
    monkeypatch.setattr("gateway.nodes.records.time.monotonic", lambda: clock[0])
    for _ in range(2):
        missing = Reply(404, {}, b"<Error><Code>NoSuchKey</Code></Error>", 0)
        directory.by_name["node-1"].standing.take(time.monotonic(), missing)
        records._keep()
        clock[0] += UNHEARD_SECONDS
    assert begun == [["node-1"]]


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
