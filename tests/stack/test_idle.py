"""A gateway that nobody asks: one of its workers looks at the nodes, and none misses a change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.nodes.layout import HOLD_SECONDS
from tests.harness.gateway import Gateway
from tests.harness.layout import JOIN, record_of
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id, together

WORKERS = 4
WINDOW = (
    6.0  # seconds, in which the leader looks at each node 3 times, and each worker once at most
)
# Prints the process that holds the lock of the leader.
LEADER = """
import glob, os
[file] = glob.glob("/dev/shm/objgw-*/leader")
locks = [line.split() for line in open("/proc/locks")]
print(next(lock[4] for lock in locks if lock[5].endswith(f":{os.stat(file).st_ino}")))
"""


def rests(stack: Stack) -> bool:
    """Whether the nodes are asked as by one worker that looks at them, and others that rest."""
    looks = stack.lab.audit.looks
    before = {node.name: looks[node.name] for node in stack.nodes}
    time.sleep(WINDOW)
    seen = [looks[node.name] - before[node.name] for node in stack.nodes]
    assert all(1 <= count <= 3 + WORKERS for count in seen), seen
    return True


@contextmanager
def leader_hanging(gateway: Gateway) -> Iterator[None]:
    """While the block runs, the leader does nothing, and keeps its lock."""
    leader = gateway.read("python", "-c", LEADER).strip()
    gateway.run("sh", "-c", f"kill -STOP {leader}")
    try:
        yield
    finally:
        gateway.run("sh", "-c", f"kill -CONT {leader}")


def in_force(node: Node, names: int) -> bool:
    """Whether a layout of so many names counts, by the record of this node."""
    newest = record_of(node).memberships[0]
    assert len(newest.names) == names
    return time.time() > newest.since + HOLD_SECONDS


@pytest.mark.parametrize("hangs", [False, True], ids=["the leader works", "the leader hangs"])
def test_workers_that_rested_go_by_a_new_node_from_their_first_request_on(
    stack: Stack, hangs: bool
) -> None:
    first, _ = stack.add_nodes("12")
    settings = {
        "WEB_CONCURRENCY": str(WORKERS),
        "GUNICORN_CMD_ARGS": "--timeout 300",  # a worker that hangs for so long is killed
    }
    gateway = stack.add_gateway(settings)
    gateway.wait_ready()
    eventually(rests, stack)
    asked, workers = set[str](), set[str]()

    def put() -> None:
        id = random_id()
        answer = gateway.put(id, b"x")
        assert answer.status == 200, answer
        asked.add(id)
        workers.add(answer.worker)

    def all_asked() -> bool:
        together([put] * 16)
        return len(workers) >= WORKERS - hangs

    def grow() -> None:
        stack.add_node("3")
        eventually(in_force, first, 3, within=JOIN)
        eventually(all_asked)

    if hangs:
        with leader_hanging(gateway):
            grow()
    else:
        grow()
    check = gateway.ask_ctl("check").report
    assert (check["objects"], check["misplaced"], check["strays"]) == (len(asked), 0, 0)
