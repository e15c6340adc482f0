"""When a worker looks at a node's record: each second, or seldom while another worker does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.nodes.acquire import acquire
from gateway.nodes.discovery import Discovery
from gateway.nodes.layout import POLL_SECONDS, Layout
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.poller import ASKED_SECONDS, CALM_SECONDS, REST_SECONDS, Poller
from gateway.nodes.record_json import dump
from gateway.nodes.view import Directory
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings
from tests.harness.fakes import serving

LAYOUT = Layout.first(["node-1"])
NEXT = LAYOUT.joined(["node-2"], now=time.time())
SERVER = """
LOOKS = []
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := read_head(self.rfile):
            body = self.rfile.read(int(head[2].get("content-length", 0)))
            if head[:2] == ("GET", BUCKET + "/layout"):
                LOOKS.append(head)
            done = b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"
            self.wfile.write(keep_record(*head, body) or done)
"""


class Worker:
    """A worker of a gateway, of which only the poller is at work, and its one node."""

    def __init__(self, port: int, looks: list[Any], folder: Path) -> None:
        self.directory, self.leader = Directory(Settings()), Leader(folder)
        self.all_looks = looks
        self.poller = Poller(self.directory, Discovery(self.directory), self.leader)
        endpoint = Endpoint("node-1", "id", "127.0.0.1", port, "key", "secret")
        self.node = self.directory.by_name["node-1"] = Member(endpoint, Settings())
        self.directory.layout = LAYOUT
        with self.directory.changed:
            self.directory.arrange()

    def looks(self, passed: float) -> bool:
        """Whether the poller looks at the node, so many seconds after it did the last time."""
        self.node.looked_from = time.monotonic() - passed
        before = len(self.all_looks)
        self.poller.start_looks()
        with self.directory.changed:
            assert self.directory.changed.wait_for(lambda: not self.node.being_looked_at, 10)
        return len(self.all_looks) > before

    def become_in_order(self) -> bool:
        """Whether all is known of the node after it was looked at each second for a while."""
        while self.looks(POLL_SECONDS) and not self.node.in_order:
            time.sleep(POLL_SECONDS / 10)  # a later look tells what became of a cut upload
        return self.node.in_order and self.node.standing.ignores == []


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """It has looked at its node, which has its record, and doesn't lead."""
    with serving(SERVER) as (port, script):
        script["RECORDS"] |= {"/objgw-layout": b"", "/objgw-layout/layout": dump(LAYOUT, "node-1")}
        other = Leader(tmp_path)
        assert other.elect()
        worker = Worker(port, script["LOOKS"], tmp_path)
        assert worker.become_in_order()
        other.tell(LAYOUT, time.monotonic())
        yield worker
        worker.node.close()


def test_a_worker_that_nobody_asks_looks_seldom_while_the_leader_goes_by_its_layout(
    worker: Worker,
) -> None:
    assert not worker.looks(POLL_SECONDS)
    assert not worker.looks(REST_SECONDS - 1)
    assert worker.looks(REST_SECONDS)
    assert not worker.poller.informed


@pytest.mark.parametrize("told", [None, NEXT])
def test_a_worker_looks_at_once_where_the_leader_falls_silent_or_has_another_layout(
    worker: Worker, tmp_path: Path, told: Layout | None
) -> None:
    assert not worker.looks(POLL_SECONDS)
    (tmp_path / "word").unlink()
    Leader(tmp_path).tell(told, time.monotonic())
    assert worker.looks(0.0)
    assert worker.looks(CALM_SECONDS)
    assert worker.poller.informed


def test_a_worker_changes_nothing_before_it_has_looked_anew_after_a_rest(
    worker: Worker, tmp_path: Path
) -> None:
    assert not worker.looks(POLL_SECONDS)
    (tmp_path / "word").unlink()
    worker.node.being_looked_at = True  # the look takes long
    worker.poller.start_looks()
    assert not worker.poller.informed


def test_a_worker_looks_itself_where_the_folder_of_the_workers_is_gone(
    worker: Worker, tmp_path: Path
) -> None:
    first = Worker(worker.node.endpoint.port, worker.all_looks, tmp_path / "gone")
    assert first.looks(POLL_SECONDS)
    assert first.looks(CALM_SECONDS)
    first.node.close()


def test_the_leader_looks_at_a_node_that_nobody_asks_every_other_second(
    worker: Worker, tmp_path: Path
) -> None:
    folder = tmp_path / "another gateway's"
    folder.mkdir()
    first = Worker(worker.node.endpoint.port, worker.all_looks, folder)
    assert first.become_in_order()
    assert not first.looks(POLL_SECONDS)
    assert first.looks(CALM_SECONDS)
    assert (first.leader.leads, first.poller.informed) == (True, True)
    first.poller.start_looks()
    assert Leader(folder).agrees(LAYOUT)
    first.node.close()


def test_a_request_has_its_node_looked_at_each_second_for_some_time(worker: Worker) -> None:
    worker.node.standing.checked -= REST_SECONDS  # its lease is over
    assert not worker.looks(POLL_SECONDS)
    worker.node.release(acquire(worker.node))
    assert worker.node.standing.leased
    assert worker.looks(POLL_SECONDS)
    worker.node.asked -= ASKED_SECONDS
    assert not worker.looks(POLL_SECONDS)


def test_a_node_that_is_not_in_order_is_looked_at_each_second_by_each_worker(
    worker: Worker,
) -> None:
    assert not worker.looks(POLL_SECONDS)
    worker.node.standing.failed(ConnectionRefusedError())
    assert worker.looks(POLL_SECONDS)  # and it answers again
    assert not worker.looks(POLL_SECONDS)
    worker.node.standing.usable = False
    assert worker.looks(POLL_SECONDS)
