"""Moving all objects to their owners, and settling the layout.

Markers go when nothing is moved any more. First everything is moved, and a full pass finds nothing to move; that is
recorded, and all gateways know of it a lease later; then markers are replaced by SWEPT on condition, and deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from gateway.ctl.cluster import Cluster, Copy
from gateway.ctl.console import Progress, Work, duration
from gateway.ctl.errors import Trouble
from gateway.ctl.lock import Shift
from gateway.ctl.mover import Mover, Throttle
from gateway.nodes.layout import HOLD_SECONDS, LEASE_SECONDS, POLL_SECONDS, Layout
from gateway.nodes.placement import OBJECT_ID, owner_name

JOBS = 8  # objects that are moved at a time
FAILURES = 20  # objects that couldn't be moved, from which on it gives up


@dataclass
class Census:
    """What is where, by the listings of all nodes."""

    objects: int = 0
    misplaced: int = 0  # objects that their owner hasn't got
    strays: int = 0  # copies beside the owner's
    markers: int = 0
    foreign: int = 0  # keys that are no ids: not ours
    work: Work = field(default_factory=Work)


def census(cluster: Cluster, layout: Layout) -> Census:
    """Counts what is where. Raises NodeTrouble."""
    found = Census()
    for key, copies in cluster.ids(layout.all_names):
        if not OBJECT_ID.fullmatch(key):
            found.foreign += 1
            continue
        owner = owner_name(layout.names, key)
        if owner in copies and copies[owner].like_marker and is_marker(cluster, copies[owner]):
            found.markers += 1
        else:
            found.objects += 1
        if copies.keys() == {owner}:
            continue
        found.work.objects += 1
        if owner in copies:
            found.strays += len(copies) - 1
        else:
            found.misplaced += 1
            found.strays += len(copies) - 1
            found.work.bytes += max(copies.values(), key=lambda copy: copy.age).size
    return found


def is_marker(cluster: Cluster, copy: Copy) -> bool:
    """Whether what looks like a marker in a listing is one."""
    head = cluster.head(copy.node, copy.key)
    return head is not None and head.deleted


@dataclass(frozen=True)
class Options:
    """How it is moved."""

    jobs: int = JOBS
    limit: float = 0.0  # bytes a second; 0: no limit
    waiting: bool = False  # for another rebalance to end


class Rebalance:
    """One run, with one layout."""

    def __init__(self, shift: Shift, options: Options, say: Callable[[str], None], moved: Work) -> None:
        self.shift, self.cluster, self.options, self.say = shift, shift.cluster, options, say
        self.moved = moved
        self.failures: list[str] = []

    def run(self) -> bool:
        """Moves everything and settles the layout. False where some objects couldn't be moved; `failures` says why.

        Raises Trouble, LayoutChanged, LockLost.
        """
        for name in self.shift.layout.all_names:
            self.cluster.abort_uploads(name)
        if self.shift.layout.settled:
            found = census(self.cluster, self.shift.layout)
            if not found.work.objects and not found.markers:
                return True
            self.say("objects aren't where the settled layout says; gateways look everywhere until they are")
            self.shift.change(Layout.anywhere)
            self._pause_for_gateways()
        self._wait_for_switch()
        while (found := census(self.cluster, self.shift.layout)).work.objects:
            self.shift.check()
            if self.shift.layout.moved:
                self.shift.change(lambda layout: replace(layout, version=layout.version + 1, moved=False))
                self._pause_for_gateways()
            self._pass(found.work)
            if self.failures:
                return False
        if not self.shift.layout.moved:
            self.shift.change(Layout.all_moved)
        self._pause_for_gateways()
        while self._sweep():
            pass
        self.shift.change(Layout.settle)
        return True

    def _pause_for_gateways(self) -> None:
        """Until all gateways know the layout."""
        self.shift.pause(LEASE_SECONDS + POLL_SECONDS + 1)

    def _wait_for_switch(self) -> None:
        """Until no gateway writes by an older spread."""
        left = self.shift.layout.spreads[0].since + HOLD_SECONDS + LEASE_SECONDS - time.time()
        if left > 0:
            self.say(f"the layout changes for all gateways in {duration(left)}")
            self.shift.pause(left)

    def _pass(self, total: Work) -> None:
        """Moves what isn't with its owner, several objects at a time."""
        self.say(f"moving {total}")
        progress, began = Progress(total), time.monotonic()
        mover = Mover(self.shift, Throttle(self.options.limit, self.options.jobs), progress.passed)
        pending: set[Future[int]] = set()
        pool = ThreadPoolExecutor(self.options.jobs, "mover")
        try:
            for key, copies in self.cluster.ids(mover.places):
                if not OBJECT_ID.fullmatch(key) or copies.keys() == {owner_name(mover.names, key)}:
                    continue
                while len(pending) >= self.options.jobs * 8:
                    pending = self._collect(pending, progress)
                pending.add(pool.submit(self._move, mover, key, copies))
            while pending:
                pending = self._collect(pending, progress)
        except BaseException:
            self.shift.stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            progress.close()
            self.moved.seconds += time.monotonic() - began

    def _move(self, mover: Mover, key: str, copies: dict[str, Copy]) -> int:
        try:
            return mover.place(key, copies)
        except Trouble as error:
            self.failures.append(f"{key}: {error}")
            if len(self.failures) > FAILURES:
                raise Trouble(f"too many objects can't be moved; the last one is {key}: {error}") from None
            return -1

    def _collect(self, pending: set[Future[int]], progress: Progress) -> set[Future[int]]:
        finished, pending = wait(pending, 1.0, FIRST_COMPLETED)
        for future in finished:
            size = future.result()
            if size >= 0:
                progress.done.objects += 1
                self.moved.objects += 1
                self.moved.bytes += size
        progress.show()
        return pending

    def _sweep(self) -> int:
        """Removes the markers that there are; how many."""
        mover, swept = Mover(self.shift, Throttle(0, 1)), 0
        for key, copies in self.cluster.ids(mover.places):
            if OBJECT_ID.fullmatch(key):
                swept += sum(mover.sweep(copy) for copy in copies.values() if copy.like_marker)
        return swept
