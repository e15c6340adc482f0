"""The breaker of a node: after a failure nobody asks it for a while, then one request tries.

    CLOSED      every request goes to the node
    OPEN        no request does: less than `pause` seconds ago the node couldn't be reached, or it
                didn't answer
    HALF_OPEN   one request, the trial, is on its way to it; until its end the others are refused

                failed                       pause is over
    CLOSED ──────────────────▶ OPEN ─────────────────────────▶ HALF_OPEN
       ▲                        ▲  ▲                             │   │
       │                        │  └──── the trial failed ───────┘   │
       └────────────────────────┴─────── any request succeeded ──────┘

A trial that ends without telling anything (its client left) leaves the breaker OPEN with no pause.
So does one of which nothing is heard for as long as a request may take.
"""

from __future__ import annotations

import logging
import time
from enum import Enum

from gateway.answers import unavailable

log = logging.getLogger("objgw")


class State(Enum):
    """The states of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of one node, in one worker."""

    def __init__(self, name: str, pause: float, longest: float) -> None:
        """`pause` is the seconds from a failure to a trial.

        `longest` is the seconds that a request may take to fail.
        """
        self.state = State.CLOSED
        self._name, self._pause, self._longest = name, pause, longest
        self._why = ""  # it failed last, in words
        self._until = 0.0  # monotonic time at which the state, other than CLOSED, is over

    def admit(self) -> bool:
        """Whether this request is the trial. Raises Refusal (503) where it may not ask the node."""
        if self.state is State.CLOSED:
            return False
        now = time.monotonic()
        if now < self._until:
            raise unavailable(f"The node of this id can't be asked: {self._why}.")
        self.state, self._until = State.HALF_OPEN, now + self._longest
        return True

    def succeeded(self) -> None:
        """The node answered a request."""
        if self.state is not State.CLOSED:
            log.info("node %s answers again", self._name)
            self.state = State.CLOSED

    def failed(self, why: str) -> None:
        """The node couldn't be reached, or didn't answer; or it broke off the trial."""
        if self.state is State.CLOSED:
            log.warning("node %s is refused for a while: %s", self._name, why)
        self._why = why
        self.state, self._until = State.OPEN, time.monotonic() + self._pause

    def abandoned(self) -> None:
        """The trial ended before the node could answer: the next request is one."""
        if self.state is State.HALF_OPEN:
            self.state, self._until = State.OPEN, time.monotonic()
