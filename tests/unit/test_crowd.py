"""The connections of an address: how many there may be, and what the log says of more."""

from __future__ import annotations

import logging

import pytest

from gateway.server.crowd import Crowd

MOST = 4


def test_it_is_said_once_of_an_address_and_again_when_it_had_half_as_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd()

    def said() -> int:
        return len(caplog.records)

    assert [crowd.came("10.0.0.1", MOST) for _ in range(7)] == [True] * 4 + [False] * 3
    assert said() == 1
    line = caplog.records[0]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "10.0.0.1 has more connections to one worker than OBJGW_CLIENT_CONNECTIONS=4 allows; "
        "others of it are refused with 503"
    )
    assert crowd.came("10.0.0.2", MOST)
    for _ in range(4):  # it goes up and down around what is allowed
        crowd.went("10.0.0.1", MOST)
    assert crowd.came("10.0.0.1", MOST)
    assert not crowd.came("10.0.0.1", MOST)
    assert said() == 1
    for _ in range(3):
        crowd.went("10.0.0.1", MOST)
    assert [crowd.came("10.0.0.1", MOST) for _ in range(3)] == [True, True, False]
    assert said() == 2


def test_an_address_that_is_gone_takes_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd()
    for number in range(100):
        address = f"10.0.0.{number}"
        for _ in range(2):
            crowd.came(address, 1)
        for _ in range(2):
            crowd.went(address, 1)
    assert (crowd._connections, crowd._refused) == ({}, set())
    assert len(caplog.records) == 100


def test_a_client_without_an_address_is_named_as_what_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd()
    for _ in range(2):
        crowd.came("", 1)
    assert caplog.records[0].getMessage().startswith("a Unix socket has more connections ")
