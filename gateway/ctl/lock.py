"""The right to move objects: a lock, and a look at each node's record every second.

Whoever moves objects needs two rights, and `WorkLock.check` asks for both before each write:

- **A lease of the node**, as gateways need one: its record was read within the last
  `LEASE_SECONDS` and still says the same. A condition on the write wouldn't do, because MinIO's
  DELETE takes none. When the layout has changed, say because a node joins, the work starts over.
- **The lock**, an object on one node, which keeps others from the same work. Its holder renews it
  all the time, and stops before its next write when it couldn't. A lock that isn't renewed is
  over after `LOCK_SECONDS`, and the next one takes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from gateway.ctl.client import expecting
from gateway.ctl.console import say
from gateway.ctl.errors import (
    Busy,
    CommandError,
    LayoutChanged,
    LockLost,
    NodeError,
    Stopped,
    ignoring,
)
from gateway.ctl.layout_store import LayoutStore
from gateway.nodes.abilities import TO_GROW
from gateway.nodes.layout import LEASE_SECONDS, POLL_SECONDS, Layout
from gateway.nodes.store import compare_and_swap, read_object
from gateway.nodes.work import LOCK, LockState, lock_of
from gateway.s3.connection import Request

LOCK_SECONDS = 20.0  # for which a lock is good
LOCK_RENEWED = 5.0  # seconds after which it is renewed
LOCK_MARGIN = 5.0  # seconds before its end from which nothing is written any more


class WorkLock:
    """A lock that keeps others from the same work, and a lease of each node while it is held.

    As a context manager it takes the lock and gives it back. `check` is called before each write.
    """

    def __init__(self, store: LayoutStore, *, waiting: bool) -> None:
        """`waiting` says to wait until the lock is free, where somebody else has it."""
        self.store, self.cluster, self._waiting = store, store.cluster, waiting
        self.layout = Layout.first(["none"])  # the one that the work is done for
        self.stop = threading.Event()
        self._newer: Layout | None = None  # a layout by which the work is another, found on a node
        self._emptied = False  # a node has lost its record
        self._looked: dict[str, float] = {}  # name -> monotonic time of its last good look
        self._answers: dict[str, float] = {}  # name -> seconds that its looks take of late
        self._token = secrets.token_hex(8)
        self._node = ""  # the node that has the lock
        self._path = f"/{self.cluster.records_bucket}/{LOCK}"
        self._etag = ""  # of the lock while it is ours
        self._since = time.time()
        self._good_until = -math.inf  # monotonic
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> WorkLock:
        self.store.change(lambda layout: layout)
        survey = self.store.survey()
        survey.require_all()
        names = survey.layout.all_names
        for name in names:
            if ignored := TO_GROW & (self.cluster.ignores(name) or set()):
                reason = "so objects can't be moved while clients write"
                raise CommandError(f"{name} {ignoring(ignored)}, {reason}")
        self._node = names[0]
        self._take()
        try:
            self.layout = self.store.change(lambda layout: layout)
            self._looked = dict.fromkeys(self.layout.all_names, -math.inf)
            self._start(self._keep_lock)
            for name in self.layout.all_names:
                self._start(partial(self._keep_lease, name))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(self.cluster.settings.connect_timeout)
        if self._etag:
            with contextlib.suppress(CommandError):
                if self._swap(self._etag, until=0.0):  # it is still ours
                    self.cluster.client(self._node).ask(Request("DELETE", self._path))
            self._etag = ""

    def check(self, *names: str) -> None:
        """Raises unless these nodes may be written to now.

        Raises Stopped, LayoutChanged, LockLost, and NodeError where a node gives no record.
        """
        patience = time.monotonic() + self.cluster.settings.node_timeout
        while True:
            if self.stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now > self._good_until:
                raise LockLost
            if self._emptied or (self._newer and is_other_work(self.layout, self._newer)):
                raise LayoutChanged
            late = [name for name in names if now - self._looked[name] > LEASE_SECONDS]
            if not late:
                return
            if now > patience:
                raise NodeError(f"{late[0]}'s record can't be read in time")
            time.sleep(0.05)

    @property
    def answer(self) -> float:
        """Seconds that the slowest node takes of late to answer a look, a small request."""
        return max(self._answers.values(), default=0.0)

    def pause(self, seconds: float) -> None:
        """Waits, and raises what `check` does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self.stop.wait(min(left, 0.2))

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Changes the layout that the work was begun with, or raises LayoutChanged."""

        def guarded(layout: Layout) -> Layout:
            if is_same_work(layout, self.layout):
                return step(layout)
            raise LayoutChanged

        self.check()
        self.layout = self.store.change(guarded)
        return self.layout

    # -- the lock

    def _take(self) -> None:
        """Takes the lock. One that isn't renewed is taken over when it is over. Raises Busy."""
        first = ""
        while True:
            state = self._read()
            if state.until < time.time():
                if self._write(state.etag):
                    return
                continue
            if first and state.etag != first and not self._waiting:
                since = datetime.fromtimestamp(state.since).astimezone().isoformat(" ", "seconds")
                raise Busy(f"another rebalance is at work (since {since})")
            if not first:
                say("there is a lock; waiting to see whether its holder is alive")
            first = state.etag
            time.sleep(0.5)

    def _read(self) -> LockState:
        with expecting(self._node):
            return lock_of(read_object(self.cluster.client(self._node).ask, self._path))

    def _write(self, etag: str) -> bool:
        """Writes the lock for another `LOCK_SECONDS` if it still has this ETag; whether it had."""
        began = time.monotonic()
        new = self._swap(etag, until=time.time() + LOCK_SECONDS)
        if new is None:
            return False
        self._etag, self._good_until = new, began + LOCK_SECONDS - LOCK_MARGIN
        return True

    def _swap(self, etag: str, until: float) -> str | None:
        lock = {"holder": self._token, "since": self._since, "until": until}
        body, ask = json.dumps(lock).encode(), self.cluster.client(self._node).ask
        with expecting(self._node):
            return compare_and_swap(ask, self._path, body, etag)

    def _keep_lock(self) -> None:
        """The thread that renews the lock."""
        pause = LOCK_RENEWED
        while not self.stop.wait(pause):
            pause = LOCK_RENEWED
            try:
                if not self._write(self._etag):
                    self._good_until, self._etag = -math.inf, ""  # somebody else's
                    return
            except CommandError:
                pause = 0.5

    # -- the leases

    def _keep_lease(self, name: str) -> None:
        """The thread that looks at a node's record."""
        while not self.stop.is_set():
            began = time.monotonic()
            with contextlib.suppress(CommandError):
                record = self.cluster.client(name).read_record()
                took = time.monotonic() - began
                self._answers[name] = (self._answers.get(name, took) + took) / 2
                layout = record.own(name)
                if layout is None and (record.trouble(name) or name not in self.layout.unrecorded):
                    self._emptied = True
                elif layout is not None and is_other_work(self.layout, layout):
                    self._newer = layout
                else:
                    self._looked[name] = began
            self.stop.wait(max(0.0, began + POLL_SECONDS - time.monotonic()))

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self._threads.append(thread)


def is_other_work(layout: Layout, other: Layout) -> bool:
    """Whether a record says that the work is another than with this layout."""
    newer = other.origin != layout.origin or other.version > layout.version
    return newer and not is_same_work(layout, other)


def is_same_work(one: Layout, other: Layout) -> bool:
    """Whether two layouts say the same of where objects belong, and of how far the work is."""
    fields = ("origin", "memberships", "lost", "moved")
    return all(getattr(one, name) == getattr(other, name) for name in fields)
