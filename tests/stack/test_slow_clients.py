"""Slow clients: each has its time, and the others notice nothing."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

import pytest

from slow import NORMAL, slow
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, Wire, code, head, held_by, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, meanwhile, random_id, together

PATIENCE, SLACK = 2, 8  # seconds that a client has; seconds more within which it must be gone


@pytest.fixture(scope="module")
def hasty(shared: Stack) -> Gateway:
    """A gateway to the shared nodes that has little patience with clients."""
    gateway = shared.add_gateway({
        "OBJGW_CLIENT_TIMEOUT": str(PATIENCE), "GUNICORN_CMD_ARGS": f"--keep-alive {PATIENCE}"
    })  # fmt: skip
    gateway.wait_ready()
    return gateway


@contextmanager
def dripping(wire: Wire) -> Iterator[None]:
    """While the block runs, a byte a second goes out, for as long as the other side takes it."""

    def drip(over: threading.Event) -> None:
        with suppress(OSError):
            while not over.wait(1):
                wire.send(b"x")

    with meanwhile(drip):
        yield


FRAMES = {
    "with a length": ("Content-Length: 1000000", b""),
    "chunked": ("Transfer-Encoding: chunked", b"f4240\r\n"),
}


def test_an_upload_that_comes_too_slowly_is_408_in_time_and_leaves_the_old_object(
    shared: Stack, hasty: Gateway
) -> None:
    cases = [
        (frame, begun, pace)
        for frame in FRAMES
        for begun in (0, 100_000)
        for pace in ("nothing", "a drip")
    ]
    ids = [store(hasty, b"the old object") for _ in cases]

    def upload(frame: str, begun: int, pace: str, id: str) -> tuple[int, float]:
        header, first = FRAMES[frame]
        with Wire(hasty) as wire:
            began = time.monotonic()
            wire.send(head("PUT", id, header), first + bytes(begun))
            with dripping(wire) if pace == "a drip" else nullcontext():
                answer = wire.answer()
            seconds = time.monotonic() - began
            assert answer.headers["Connection"] == "close"
            assert wire.rest() == b""
            return code(answer), seconds

    with shared.steady(hasty, [shared.id_of(node) for node in shared.nodes]):
        ended = together(partial(upload, *case, id) for case, id in zip(cases, ids, strict=True))
    for case, (status, seconds) in zip(cases, ended, strict=True):
        assert status == 408, case
        assert PATIENCE - 0.1 < seconds < PATIENCE + SLACK, case
    assert [hasty.get(id).body for id in ids] == [b"the old object"] * len(ids)


def test_an_upload_that_is_slow_but_keeps_the_pace_is_stored(hasty: Gateway) -> None:
    id, body = random_id(), pattern(400_000)
    with Wire(hasty) as wire:
        wire.send(head("PUT", id, f"Content-Length: {len(body)}"))
        for at in range(0, len(body), 40_000):
            time.sleep(PATIENCE / 8)  # 64 KiB within a quarter of the time, and all of it not
            wire.send(body[at : at + 40_000])
        assert wire.answer().status == 200
    assert hasty.get(id).body == body


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /obj", head("GET", "abc", "X-A: b")[:-2]],
    ids=["nothing", "path", "headers"],
)
def test_headers_that_do_not_come_in_time_end_the_connection(hasty: Gateway, sent: bytes) -> None:
    began = time.monotonic()
    with Wire(hasty) as wire:
        wire.send(sent)
        with dripping(wire) if sent else nullcontext():
            assert wire.rest() == b""
        assert PATIENCE - 0.1 < time.monotonic() - began < PATIENCE + SLACK


def test_a_client_that_does_not_read_its_download_is_dropped_in_time(hasty: Gateway) -> None:
    size = 24 * MIB
    id = store(hasty, pattern(size))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect((hasty.address, 3000))
        port = sock.getsockname()[1]
        sock.sendall(head("GET", id))
        assert sock.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: port not in held_by(hasty))
        received = 0
        with suppress(ConnectionResetError):
            while data := sock.recv(MIB):
                received += len(data)
    assert received < size
    (line,) = eventually(
        lambda: re.findall(rf" GET {id} .* seconds=(\S+) .* broken off", hasty.logs())
    )
    assert PATIENCE - 0.1 < float(line) < PATIENCE + SLACK


def test_600_slow_clients_of_all_kinds_at_once_cost_20_normal_ones_no_request(stack: Stack) -> None:
    report = slow(stack, each=200, seconds=6, client_timeout=3)
    assert report["failed"] == report["failed in quiet"] == {}, str(report)
    # On a machine without a core to spare a node's lease may run out for a moment, in which each of
    # the normal clients is refused.
    assert report["refused at first"] <= NORMAL + report["requests"] / 20, str(report)
    assert report["slow clients"] >= 550, str(report)
    assert report["dropped"] > 200, str(report)
    assert report["requests"] >= 200, str(report)
    assert report["workers replaced"] == 0
    assert not report["something stored"]
