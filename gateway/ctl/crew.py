"""Threads that work off what a listing brings, while it goes on.

One thread lists, others work, and the main thread looks on: once a second it has as many threads as
the pace says. The listing goes ahead of the work by `AHEAD` items, so that it soon knows how much
there is to do, and memory doesn't grow with that. What any thread raises ends all, and is raised.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable

from gateway.ctl.errors import Stopped
from gateway.ctl.pace import WINDOW, Pace

AHEAD = 20_000  # items that wait at most; one takes less than a kilobyte


class Crew[Item]:
    """The threads of one pass."""

    def __init__(self, work: Callable[[Item], None], pace: Pace, stop: threading.Event) -> None:
        """`stop` is set where the work is given up, so that nobody waits any more."""
        self._work, self._pace, self._stop = work, pace, stop
        self._items: queue.Queue[Item] = queue.Queue(AHEAD)
        self._threads: dict[int, threading.Thread] = {}
        self._over = False  # nothing is left to be taken
        self._error: BaseException | None = None  # the first

    def run(self, items: Iterable[Item], look: Callable[[float], None]) -> None:
        """Works off all items.

        `look` is called about once a second, with the seconds since the last time. Raises what
        `work`, `items` or `look` raises.
        """
        try:
            self._start(-1, self._list, items)
            looked = time.monotonic()
            while self._staff():
                next(iter(self._threads.values())).join(
                    max(0.0, looked + WINDOW - time.monotonic())
                )
                now = time.monotonic()
                if now >= looked + WINDOW:
                    look(now - looked)
                    looked = now
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            for thread in self._threads.values():
                thread.join()
        if self._error:
            raise self._error

    def _staff(self) -> bool:
        """Starts the threads that are missing; whether there are any at all."""
        for number, thread in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[number]
        if not self._over:
            for number in range(self._pace.jobs):
                if number not in self._threads:
                    self._start(number, self._take, number)
        return bool(self._threads)

    def _start[Argument](
        self, number: int, target: Callable[[Argument], None], argument: Argument
    ) -> None:
        thread = threading.Thread(target=self._guarded, args=(target, argument), daemon=True)
        self._threads[number] = thread
        thread.start()

    def _guarded[Argument](self, target: Callable[[Argument], None], argument: Argument) -> None:
        try:
            target(argument)
        except queue.ShutDown:
            self._over = True
        except BaseException as error:
            self._fail(error)

    def _list(self, items: Iterable[Item]) -> None:
        """The thread that lists."""
        for item in items:
            self._items.put(item)
        self._items.shutdown()  # what waits is still worked off

    def _take(self, number: int) -> None:
        """A thread that works, until there are fewer jobs or nothing is left."""
        while number < self._pace.jobs:
            self._work(self._items.get())

    def _fail(self, error: BaseException) -> None:
        """Ends all. A thread that was only told to stop has no error of its own."""
        if self._error is None or isinstance(self._error, Stopped):
            self._error = error
        self._stop.set()
        self._items.shutdown(immediate=True)
