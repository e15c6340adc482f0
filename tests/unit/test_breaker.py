"""The breaker: its states, and what each event makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest import mock

import pytest

from gateway.answers import Refusal
from gateway.s3.breaker import Breaker, State

PAUSE, LONGEST = 1.0, 32.0


@pytest.fixture
def clock() -> Iterator[mock.Mock]:
    """The monotonic time that the breaker sees."""
    with mock.patch.object(time, "monotonic", return_value=100.0) as clock:
        yield clock


def state_of(events: str, clock: mock.Mock) -> tuple[State, str]:
    """The state after these events, and how the last `admit` ended: admitted, trial or refused.

    a: a request asks to be admitted; f: one failed; s: one succeeded; x: the trial was abandoned; a
    digit: so many seconds pass; L: as long as a request may take.
    """
    tested, admitted = Breaker("node", PAUSE, LONGEST), ""
    for event in events:
        match event:
            case "a":
                try:
                    admitted = "trial" if tested.admit() else "admitted"
                except Refusal as refusal:
                    admitted = "refused" if refusal.status == 503 else str(refusal)
            case "f":
                tested.failed("it is silent")
            case "s":
                tested.succeeded()
            case "x":
                tested.abandoned()
            case "L":
                clock.return_value += LONGEST
            case _:
                clock.return_value += int(event)
    return tested.state, admitted


EVENTS = [
    ("a", State.CLOSED, "admitted"),
    ("asa", State.CLOSED, "admitted"),
    ("afa", State.OPEN, "refused"),
    ("af1a", State.HALF_OPEN, "trial"),
    ("af1aa", State.HALF_OPEN, "refused"),
    ("af1asa", State.CLOSED, "admitted"),
    ("af1afa", State.OPEN, "refused"),
    ("af1af1a", State.HALF_OPEN, "trial"),
    ("af1axa", State.HALF_OPEN, "trial"),
    ("af1aLa", State.HALF_OPEN, "trial"),
    ("aafsa", State.CLOSED, "admitted"),
    ("ax", State.CLOSED, "admitted"),
    ("afxa", State.OPEN, "refused"),
]


@pytest.mark.parametrize(("events", "state", "admitted"), EVENTS)
def test_the_breaker_goes_from_state_to_state_as_its_table_says(
    clock: mock.Mock, events: str, state: State, admitted: str
) -> None:
    assert state_of(events, clock) == (state, admitted)
