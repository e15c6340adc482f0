"""Nodes that accept and never answer, or can't be reached; what is sent twice, and what never.

`FAKE_NODE` is a node that keeps count of what it got and answers, closes or hangs as the id says;
`BLACK_HOLE` is one that can't be connected to and doesn't say so.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import pytest
from docker.models.containers import Container

from tests.harness.engine import BUCKET, Lab, read_in
from tests.harness.fakes import RECORDS
from tests.harness.gateway import Answer, Gateway
from tests.harness.http import KIB, MIB, Wire, code, head
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner


class Timed(NamedTuple):
    answer: Answer
    seconds: float


def timed(request: Callable[[], Answer]) -> Timed:
    began = time.monotonic()
    answer = request()
    return Timed(answer, time.monotonic() - began)


def at_once(request: Callable[[], Answer], times: int) -> list[Timed]:
    """The same request so many times at once; the answers with the seconds that they took, the
    quickest first.
    """
    with ThreadPoolExecutor(times) as pool:
        done = [pool.submit(timed, request) for _ in range(times)]
        return sorted((each.result() for each in done), key=lambda each: each.seconds)


# --------------------------------------------------------------------------------------------------
# Nodes that accept and never answer, or can't be reached
# --------------------------------------------------------------------------------------------------

# Writes down what it has received to its end. On a connection that has served a request before, it
# closes instead of an answer to an id "unanswered…", and even before the body of "closed…".
# "hangs…" hangs until /tmp/well exists.
FAKE_NODE = r"""
import os, time
log = os.open("/tmp/received", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        served = False
        while head := read_head(self.rfile):
            method, path, headers = head
            id = path.rpartition("/")[2]
            if served and id.startswith("closed"):
                return
            if "expect" in headers:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self.rfile.read(int(headers.get("content-length", 0)))
            if kept := keep_record(*head, body):
                self.wfile.write(kept)
                continue
            os.write(log, f"{method} {id}\n".encode())
            if served and id.startswith("unanswered"):
                return
            while id.startswith("hangs") and not os.path.exists("/tmp/well"):
                time.sleep(0.05)
            rest = b"204 No Content" if method == "DELETE" else b'200 OK\r\nETag: "0"\r\nContent-Length: 0'
            self.wfile.write(b"HTTP/1.1 " + rest + b"\r\n\r\n")
            served = True
serve(Handler, queue=128)
"""  # noqa: E501

# One connection fills its queue. From then on Linux drops whatever wants to connect
# (tcp_abort_on_overflow is 0).
BLACK_HOLE = """
import socket, threading
server = socket.create_server(("0.0.0.0", 9000), backlog=0)
client = socket.create_connection(("127.0.0.1", 9000))
threading.Event().wait()
"""


def received(fake: Container) -> list[str]:
    """Method and id of each request that a FAKE_NODE has received to its end, that for the bucket
    aside.
    """
    return [
        line
        for line in read_in(fake, "cat", "/tmp/received").splitlines()
        if not line.endswith(f" {BUCKET}")
    ]


class Beset(NamedTuple):
    """Two nodes, a fake one and a black hole, behind a gateway that waits some seconds."""

    stack: Stack
    gateway: Gateway
    fake: Container
    names: list[str]

    def id_of(self, name: str, prefix: str = "") -> str:
        return next(
            id
            for _ in iter(int, 1)
            if owner(id := prefix + secrets.token_hex(8), self.names) == name
        )

    @property
    def others(self) -> list[str]:
        """Ids of the nodes that work."""
        return [self.id_of(node.name) for node in self.stack.nodes]


NODE_TIMEOUT, CONNECT_TIMEOUT, BREAKER, WAITING = 5, 1, 3, 40


@pytest.fixture(scope="module")
def beset(lab: Lab) -> Iterator[Beset]:
    stack = Stack(lab)
    try:
        stack.add_nodes("12")
        fake, hole = stack.add_fake("3", RECORDS + FAKE_NODE), stack.add_fake("4", BLACK_HOLE)
        names = [*(node.name for node in stack.nodes), str(fake.name), str(hole.name)]
        gateway = stack.add_gateway({
            "OBJGW_NODE_TIMEOUT": str(NODE_TIMEOUT), "OBJGW_CONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
            "OBJGW_BREAKER_SECONDS": str(BREAKER), "OBJGW_NODE_REQUESTS": str(WAITING),
        })  # fmt: skip
        beset = Beset(stack, gateway, fake, names)
        gateway.wait_ready([*beset.others, beset.id_of(str(fake.name))])
        yield beset
    finally:
        stack.close()


def test_a_node_that_never_answers_is_waited_for_once_and_costs_other_ids_nothing(
    beset: Beset,
) -> None:
    gateway, id = beset.gateway, beset.id_of(str(beset.fake.name), "hangs")

    with beset.stack.steady(gateway, beset.others):
        answers = at_once(partial(gateway.get, id), 50)
        assert {code(each.answer) for each in answers} == {503}
        assert NODE_TIMEOUT - 0.1 < answers[-1].seconds < 2 * NODE_TIMEOUT - 0.1
        assert (
            answers[50 - WAITING - 1].seconds < NODE_TIMEOUT - 0.5
        )  # more than may wait are refused at once

        again = at_once(partial(gateway.get, id), 20)
        assert {code(each.answer) for each in again} == {503}
        assert again[-1].seconds < NODE_TIMEOUT - 0.5

        over, slow_ones = time.monotonic() + BREAKER + NODE_TIMEOUT, 0  # in which one request tries
        while time.monotonic() < over:
            slow_ones += sum(
                each.seconds > NODE_TIMEOUT - 0.1 for each in at_once(partial(gateway.get, id), 5)
            )
        assert slow_ones == 1
        assert received(beset.fake).count(f"GET {id}") == WAITING + 1

        beset.fake.exec_run(["touch", "/tmp/well"])
        eventually(lambda: gateway.get(id).status == 200)


def test_a_hung_node_costs_one_time_out_and_once_well_no_slow_upload_keeps_others_from_it(
    beset: Beset,
) -> None:
    gateway, id = beset.gateway, beset.id_of(str(beset.fake.name), "hangs")
    beset.fake.exec_run(["touch", "/tmp/well"])
    eventually(lambda: gateway.get(id).status == 200)  # on a connection that is kept
    beset.fake.exec_run(["rm", "/tmp/well"])
    first = timed(lambda: gateway.get(id))
    assert first.answer.status == 503
    assert first.seconds < 2 * NODE_TIMEOUT - 0.1
    beset.fake.exec_run(["touch", "/tmp/well"])
    time.sleep(BREAKER)  # to ask would be to try
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, "Content-Length: 1000000"), bytes(100_000))
        eventually(lambda: gateway.get(id).status == 200, within=20)  # while the upload waits
        wire.send(bytes(900_000))
        assert wire.answer().status == 200


def test_a_node_that_can_not_be_reached_is_tried_once_and_costs_other_ids_nothing(
    beset: Beset,
) -> None:
    gateway, id = beset.gateway, beset.id_of(beset.names[3])
    with beset.stack.steady(gateway, beset.others):
        eventually(
            lambda: timed(lambda: gateway.get(id)).seconds < CONNECT_TIMEOUT / 2
        )  # whatever came before
        eventually(
            lambda: timed(lambda: gateway.get(id)).seconds >= CONNECT_TIMEOUT
        )  # the one that tries
        answers = at_once(partial(gateway.get, id), 50)
        assert {code(each.answer) for each in answers} == {503}
        assert answers[-1].seconds < NODE_TIMEOUT
        for method in ("PUT", "DELETE", "HEAD"):
            assert (
                gateway.request(method, f"/object/{id}", b"x" if method == "PUT" else None).status
                == 503
            )


# --------------------------------------------------------------------------------------------------
# What is sent twice, and what never
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_fake(lab: Lab) -> Iterator[tuple[Gateway, Container]]:
    """A gateway whose one node is FAKE_NODE."""
    stack = Stack(lab)
    try:
        fake = stack.add_fake("1", RECORDS + FAKE_NODE)
        gateway = stack.add_gateway({"OBJGW_BREAKER_SECONDS": "0.001"})
        gateway.wait_ready(["good"])
        yield gateway, fake
    finally:
        stack.close()


SENT: dict[
    str, tuple[str, bytes | None, dict[str, str], bool]
] = {  # method, body, headers, whether twice is the same
    "GET": ("GET", None, {}, True),
    "a range": ("GET", None, {"Range": "bytes=0-1"}, True),
    "HEAD": ("HEAD", None, {}, True),
    "DELETE": ("DELETE", None, {}, True),
    "PUT": ("PUT", b"whole", {}, True),
    "PUT of 64 KiB": ("PUT", bytes(64 * KIB), {}, True),
    "PUT of 64 KiB and a byte": ("PUT", bytes(64 * KIB + 1), {}, False),
    "PUT of 1 MiB": ("PUT", bytes(MIB), {}, False),
    "create": ("PUT", b"whole", {"If-None-Match": "*"}, False),
    "create empty": ("PUT", b"", {"If-None-Match": "*"}, False),
    "replace": ("PUT", b"whole", {"If-Match": '"0"'}, False),
}


def ask_on_a_kept_connection(gateway: Gateway, row: str, behaviour: str) -> tuple[int, str]:
    """The status that a request gets, and how FAKE_NODE writes it down."""
    method, body, headers, _ = SENT[row]
    id = f"{behaviour}{secrets.token_hex(6)}"
    assert gateway.get("good").status == 200
    return gateway.request(method, f"/object/{id}", body, headers).status, f"{method} {id}"


@pytest.mark.parametrize("row", SENT)
def test_a_request_that_a_node_has_read_is_sent_again_only_where_twice_is_the_same(
    with_fake: tuple[Gateway, Container], row: str
) -> None:
    gateway, fake = with_fake
    done = 204 if row == "DELETE" else 200
    for _ in range(5):
        status, line = ask_on_a_kept_connection(gateway, row, "unanswered")
        if (seen := (status, received(fake).count(line))) != (done, 1):
            # else the look at the node's record had the kept connection just then, and this was a
            # new one
            break
    assert seen == ((done, 2) if SENT[row][3] else (503, 1))


@pytest.mark.parametrize("row", [row for row in SENT if SENT[row][1]])
def test_an_upload_whose_kept_connection_was_closed_before_its_body_is_sent_on_another(
    with_fake: tuple[Gateway, Container], row: str
) -> None:
    gateway, fake = with_fake
    status, line = ask_on_a_kept_connection(gateway, row, "closed")
    assert (status, received(fake).count(line)) == (200, 1)
