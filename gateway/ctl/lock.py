"""The right to write: a lock, and a look at each node's record every second.

DELETE can't be conditional in MinIO, so each write needs what a gateway needs: the node's record, read within the last
`LEASE_SECONDS`, that still says the same. A changed one, say because a node joins, makes the work start over. The lock
keeps others from the same work; its holder stops before its next write when it couldn't renew it in time.
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
from typing import Any

from gateway.ctl.errors import IGNORES_CONDITIONS, Busy, LayoutChanged, LockLost, NodeTrouble, Stopped, Trouble
from gateway.ctl.records import Records
from gateway.ctl.wire import unexpected
from gateway.nodes.layout import LEASE_SECONDS, POLL_SECONDS, Layout

LOCK = "lock"  # the lock's key, beside the record
LOCK_SECONDS = 20.0  # for which a lock is good
LOCK_RENEWED = 5.0  # seconds after which it is renewed
LOCK_MARGIN = 5.0  # seconds before its end from which nothing is written any more


class Shift:
    """The right to write: a lock that keeps others from the same work, and a look at each node's record every second.

    As a context manager it takes the lock and gives it back. `check` is called before each write.
    """

    def __init__(self, records: Records, say: Callable[[str], None], *, waiting: bool) -> None:
        self.records, self.cluster, self._say, self._waiting = records, records.cluster, say, waiting
        self.layout = Layout.first(["none"])
        self.stop = threading.Event()
        self._news: Layout | None = None  # the newest record that a node was seen with
        self._emptied = ""  # a node that has lost its record
        self._seen: dict[str, float] = {}  # node -> monotonic time at which the last good look at its record began
        self._who = secrets.token_hex(8)
        self._place = ""  # the node that has the lock
        self._path = f"/{self.cluster.records_bucket}/{LOCK}"
        self._etag: str | None = None
        self._since = time.time()
        self._good_until = -math.inf  # monotonic
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Shift:
        self.layout = self.records.change(lambda layout: layout)
        layout, found, silent = self.records.current()
        self.records.whole(layout, found, silent)
        if ignorant := [name for name in layout.all_names if self.cluster.keeps_conditions(name) is False]:
            raise Trouble(f"{ignorant[0]} {IGNORES_CONDITIONS}, so objects can't be moved while clients write")
        self._place = layout.all_names[0]
        self._take()
        try:
            self.layout = self.records.change(lambda layout: layout)
            self._seen = dict.fromkeys(self.layout.all_names, -math.inf)
            self._start(self._renewing)
            for name in self.layout.all_names:
                self._start(partial(self._watching, name))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(self.cluster.settings.connect_timeout)
        if self._etag:
            with contextlib.suppress(Trouble):
                lock = json.dumps({"who": self._who, "since": self._since, "until": 0}).encode()
                if self.records.put(self._place, self._path, lock, self._etag):  # it is still ours
                    self.cluster.wire(self._place).ask("DELETE", self._path)
            self._etag = None

    def check(self, *names: str) -> None:
        """Raises unless these nodes may be written to now: Stopped, LayoutChanged, LockLost, NodeTrouble."""
        patience = time.monotonic() + self.cluster.settings.node_timeout
        while True:
            if self.stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now > self._good_until:
                raise LockLost
            if self._emptied or (self._news is not None and outdated(self.layout, self._news)):
                raise LayoutChanged
            late = [name for name in names if now - self._seen[name] > LEASE_SECONDS]
            if not late:
                return
            if now > patience:
                raise NodeTrouble(f"{late[0]}'s record can't be read in time")
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Waits, and raises what `check` does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self.stop.wait(min(left, 0.2))

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Changes the layout that the work was begun with, or raises LayoutChanged."""

        def guarded(layout: Layout) -> Layout:
            if same_work(layout, self.layout):
                return step(layout)
            raise LayoutChanged

        self.check()
        self.layout = self.records.change(guarded)
        return self.layout

    # -- the lock

    def _take(self) -> None:
        """Takes the lock. One that isn't renewed is taken over when it is over. Raises Busy."""
        renewed = ""
        while True:
            holder, etag = self._holder()
            if holder is None or holder["until"] < time.time():
                if self._write(etag):
                    return
                continue
            if renewed and etag != renewed and not self._waiting:
                since = datetime.fromtimestamp(holder["since"]).astimezone().isoformat(" ", "seconds")
                raise Busy(f"another rebalance is at work (since {since})")
            if not renewed:
                self._say("there is a lock; waiting to see whether its holder is alive")
            renewed = etag or ""
            time.sleep(0.5)

    def _holder(self) -> tuple[dict[str, Any] | None, str | None]:
        reply = self.cluster.wire(self._place).ask("GET", self._path)
        if reply.status == 404:
            return None, None
        if reply.status != 200:
            raise unexpected(self._place, reply)
        try:
            holder = json.loads(reply.body)
            return {"until": float(holder["until"]), "since": float(holder["since"])}, reply.headers["etag"]
        except (ValueError, KeyError, TypeError):
            return None, reply.headers["etag"]

    def _write(self, etag: str | None) -> bool:
        began, now = time.monotonic(), time.time()
        lock = {"who": self._who, "since": self._since, "until": now + LOCK_SECONDS}
        new = self.records.put(self._place, self._path, json.dumps(lock).encode(), etag)
        if new is None:
            return False
        self._etag, self._good_until = new, began + LOCK_SECONDS - LOCK_MARGIN
        return True

    def _renewing(self) -> None:
        pause = LOCK_RENEWED
        while not self.stop.wait(pause):
            pause = LOCK_RENEWED
            try:
                if not self._write(self._etag):
                    self._good_until, self._etag = -math.inf, None  # somebody else's
                    return
            except Trouble:
                pause = 0.5

    # -- the lease

    def _watching(self, name: str) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            with contextlib.suppress(Trouble):
                layout = self.records.read_one(name).layout
                if layout is None and name not in self.layout.fresh:
                    self._emptied = name
                elif layout is not None and outdated(self.layout, layout):
                    self._news = layout
                else:
                    self._seen[name] = began
            self.stop.wait(max(0.0, began + POLL_SECONDS - time.monotonic()))

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self._threads.append(thread)


def outdated(layout: Layout, other: Layout) -> bool:
    """Whether a record says that the work is another than with this layout."""
    newer = other.origin != layout.origin or other.version > layout.version
    return newer and not same_work(layout, other)


def same_work(one: Layout, other: Layout) -> bool:
    """Whether two layouts say the same of where objects belong, and of how far the work is."""
    fields = ("origin", "spreads", "lost", "moved")
    return all(getattr(one, name) == getattr(other, name) for name in fields)
