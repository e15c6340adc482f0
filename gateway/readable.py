"""Waiting until a connection can be read, with a watcher that stays armed from wait to wait.

gevent's sockets try to read first, and start and stop a watcher and a timer for each wait. On a
kept connection, on which nothing can have come yet, that is a read in vain, and a system call that
arms what the kernel still has (https://github.com/gevent/gevent/issues/1523). Here the watcher is
disarmed only where something comes while nobody waits for it. A timer isn't stopped either: where
it ends within a later wait, it goes on for what is left of that one.
"""

from __future__ import annotations

import math
import time
from typing import Any

import gevent
from gevent.socket import socket

READ = 1  # libev's EV_READ


class Readable:
    """Waits until a connection can be read, for one greenlet at a time.

    It has to be closed before the connection is.
    """

    __slots__ = ("_armed", "_deadline", "_due", "_hub", "_io", "_sock", "_timer", "_waiting")

    def __init__(self, sock: Any) -> None:
        self._hub: Any = gevent.get_hub()
        self._sock = sock  # so that it isn't closed by being forgotten while its number is watched
        self._io = self._hub.loop.io(sock.fileno(), READ)
        self._armed = False
        self._waiting: Any = None  # the greenlet that waits
        self._deadline = math.inf  # monotonic time until which it may
        self._timer: Any = None
        self._due = math.inf  # monotonic time at which the timer ends, where it is on

    def wait(self, seconds: float | None = None) -> None:
        """Waits until there is something to be read, or the connection's end.

        Raises TimeoutError after so many seconds, and what others throw into the greenlet.
        """
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        if self._deadline < self._due:
            self._start_timer()
        if not self._armed:
            self._armed = True
            self._io.start(self._came)
        self._waiting = gevent.getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiting = None

    def close(self) -> None:
        """Has the event loop forget the connection."""
        self._io.close()
        if self._timer is not None:
            self._timer.close()

    def _came(self) -> None:
        """Something can be read. The event loop says so again until it is, or the watcher stops."""
        if self._waiting is None:
            self._io.stop()
            self._armed = False
        else:
            self._waiting.switch()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
        self._due = self._deadline
        self._timer = self._hub.loop.timer(max(self._due - time.monotonic(), 0.0))
        self._timer.start(self._over)

    def _over(self) -> None:
        """The timer has ended, which was started for this wait or an earlier one."""
        self._due = math.inf
        if self._waiting is None or self._deadline == math.inf:
            return
        if self._deadline > time.monotonic():
            self._start_timer()
        else:
            self._waiting.throw(TimeoutError("timed out"))


def readable(sock: Any) -> Readable | None:
    """What waits for this socket.

    It is None where threads do and no greenlets, and with TLS, which may have read on already.
    """
    return Readable(sock) if type(sock) is socket else None
