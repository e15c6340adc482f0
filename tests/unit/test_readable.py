"""gateway/readable.py: a greenlet waits until its connection can be read."""

from __future__ import annotations

import socket as plain
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.socket import socket, socketpair

from gateway.readable import Readable, readable

SOON, NEVER = 0.05, 30.0  # seconds


@pytest.fixture(name="ends")
def _ends() -> Iterator[tuple[Any, Any, Readable]]:
    """Both ends of a connection, and what waits for the first one."""
    ours, theirs = socketpair()
    waits = Readable(ours)
    with ours, theirs:
        yield ours, theirs, waits
        waits.close()


def later(step: Any, *args: Any) -> None:
    gevent.spawn_later(SOON, step, *args)


def times_out(waits: Readable, seconds: float) -> None:
    began = time.monotonic()
    with gevent.Timeout(NEVER), pytest.raises(TimeoutError):
        waits.wait(seconds)
    assert time.monotonic() - began >= seconds


@pytest.mark.parametrize("seconds", [None, NEVER])
def test_wait_ends_with_each_piece_that_comes(ends: Any, seconds: float | None) -> None:
    ours, theirs, waits = ends
    for piece in (b"one", b"two", b"three"):
        later(theirs.send, piece)
        waits.wait(seconds)
        assert ours.recv(10) == piece


def test_wait_ends_with_the_connection(ends: Any) -> None:
    ours, theirs, waits = ends
    later(theirs.close)
    waits.wait(NEVER)
    assert ours.recv(10) == b""


def test_what_came_while_nobody_waited_is_found(ends: Any) -> None:
    ours, theirs, waits = ends
    later(theirs.send, b"one")
    waits.wait()
    ours.recv(10)
    for _ in range(2):  # nobody waits: what can be read mustn't keep the loop busy
        theirs.send(b"two")
        gevent.sleep(SOON)
    waits.wait(NEVER)
    assert ours.recv(10) == b"twotwo"
    times_out(waits, SOON)


def test_each_wait_has_its_own_time_out(ends: Any) -> None:
    ours, theirs, waits = ends
    later(theirs.send, b"one")
    waits.wait(NEVER)
    ours.recv(10)
    times_out(waits, SOON)  # the timer of the first wait would end much later
    theirs.send(b"two")
    waits.wait(4 * SOON)
    ours.recv(10)
    times_out(waits, 8 * SOON)  # and that of the one before this in the midst of it


def test_a_timer_ends_no_later_wait_that_has_none(ends: Any) -> None:
    ours, theirs, waits = ends
    theirs.send(b"one")
    waits.wait(2 * SOON)
    ours.recv(10)
    gevent.spawn_later(4 * SOON, theirs.send, b"two")
    waits.wait()
    assert ours.recv(10) == b"two"


def test_what_is_thrown_ends_the_wait_and_no_other(ends: Any) -> None:
    ours, theirs, waits = ends
    greenlet = gevent.getcurrent()
    later(gevent.get_hub().loop.run_callback, greenlet.throw, StopIteration)
    with pytest.raises(StopIteration):
        waits.wait(NEVER)
    theirs.send(b"one")
    gevent.sleep(SOON)  # what comes doesn't end the wait for something else
    assert ours.recv(10) == b"one"


def test_only_a_greenlets_own_plain_socket_is_waited_for_so() -> None:
    with socket() as ours, plain.socket() as theirs:
        found = readable(ours)
        assert found
        found.close()
        assert readable(theirs) is None
