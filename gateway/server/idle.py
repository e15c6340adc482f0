"""The wait of a connection for its next request, which the worker ends when it takes too long."""

from __future__ import annotations

import time
from typing import Any

import gevent

from gateway.server.closing import unread


class Idle:
    """The time in which a request must come.

    The worker wakes whoever is in it for too long with StopIteration.

    A timer for each request would do the same and cost more: bench/README.md.
    """

    def __init__(self, sock: Any, idle: dict[Any, Idle]) -> None:
        self.sock = sock
        self.idle = idle
        self.greenlet = gevent.getcurrent()
        self.since = 0.0  # monotonic time

    def __enter__(self) -> Idle:
        self.since = time.monotonic()
        self.idle[self.greenlet] = self
        return self

    def __exit__(self, *_error: object) -> None:
        del self.idle[self.greenlet]

    def over(self, seconds: float) -> bool:
        """Whether nothing has come for so long; what has come is about to be read."""
        return time.monotonic() > self.since + seconds and not unread(self.sock)
