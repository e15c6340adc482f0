"""The wait for a request: it is over when nothing has come for so long."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.server.idle import Idle

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("waited", "came", "over"), [(0, b"", False), (5, b"", True), (5, b"G", False)]
)
def test_a_wait_is_over_after_its_seconds_unless_something_has_come_that_is_not_read_yet(
    pair: Pair, waited: float, came: bytes, over: bool
) -> None:
    idle = Idle(pair[0], {})
    with idle:
        pair[1].sendall(came)
        idle.since -= waited
        assert idle.over(3) is over


def test_a_client_that_has_closed_is_not_waited_for(pair: Pair) -> None:
    with Idle(pair[0], {}) as idle:
        pair[1].close()
        idle.since -= 5
        assert idle.over(3)


def test_only_who_waits_is_found_and_each_wait_begins_anew(pair: Pair) -> None:
    waiting: dict[Any, Idle] = {}
    idle = Idle(pair[0], waiting)
    idle.since -= 5
    with idle:
        assert list(waiting.values()) == [idle]
        assert not idle.over(3)
    assert waiting == {}
