"""Moving all objects to their owners, and settling the layout.

First everything is moved, until a full pass over all listings finds nothing to move. Within a pass
objects are moved while the listings go on (`gateway.ctl.crew`). That nothing is left is
recorded (`Layout.moved`). A lease later all gateways know of it, and nothing is moved any more, so
that no older copy can come back. Only then the tombstones go: each is replaced by an expiring one,
on the condition that it is still there, and then deleted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Listed, Progress, Work, duration, say
from gateway.ctl.copies import StoredCopy
from gateway.ctl.crew import Crew
from gateway.ctl.deletions import Deletions
from gateway.ctl.errors import CommandError
from gateway.ctl.lock import WorkLock
from gateway.ctl.mover import Mover, Throttle
from gateway.ctl.pace import MOST, Pace
from gateway.nodes.layout import HOLD_SECONDS, LEASE_SECONDS, POLL_SECONDS, Layout
from gateway.nodes.placement import OBJECT_ID

FAILURES = 20  # objects that couldn't be moved, from which on it gives up


@dataclass
class Counts:
    """What is where, by the listings of all nodes."""

    objects: int = 0
    misplaced: int = 0  # objects that their owner hasn't got
    strays: int = 0  # copies beside the owner's
    tombstones: int = 0
    other_keys: int = 0  # keys that are no ids: no gateway wrote them
    work: Work = field(default_factory=Work)


def count_objects(cluster: Cluster, layout: Layout) -> Counts:
    """Counts what is where. Raises NodeError."""
    counts = Counts()
    for key, copies in Listed().each(cluster.ids(layout.all_names)):
        if not OBJECT_ID.fullmatch(key):
            counts.other_keys += 1
            continue
        owner = layout.owner(key)
        if owner in copies and is_tombstone(cluster, copies[owner]):
            counts.tombstones += 1
        else:
            counts.objects += 1
        if copies.keys() == {owner}:
            continue
        counts.work.objects += 1
        counts.strays += len(copies) - 1
        if owner not in copies:
            counts.misplaced += 1
            counts.work.bytes += max(copies.values(), key=lambda copy: copy.age).size
    return counts


def is_tombstone(cluster: Cluster, copy: StoredCopy, *, anyone: bool = False) -> bool:
    """Whether a copy is a tombstone. What doesn't look like one in a listing costs no request.

    `anyone` says that the node needn't be of the layout.
    """
    if not copy.like_tombstone:
        return False
    head = cluster.head(copy.node, copy.key, anyone=anyone)
    return head is not None and head.deleted


@dataclass(frozen=True)
class Options:
    """How it is moved."""

    jobs: int = MOST  # objects that are moved at a time, at most
    limit: float = 0.0  # bytes a second; 0: no limit
    waiting: bool = False  # for another rebalance to end


def not_all_moved(layout: Layout) -> Layout:
    """A layout of which something is found to be elsewhere after all."""
    return replace(layout, version=layout.version + 1, moved=False)


class Rebalance:
    """One run, with one layout."""

    def __init__(self, lock: WorkLock, options: Options, moved: Work) -> None:
        """`moved` is added to."""
        self.lock, self.cluster, self.options, self.moved = lock, lock.cluster, options, moved
        self.failures: list[str] = []

    def run(self) -> bool:
        """Moves everything and settles the layout.

        False where some objects couldn't be moved; `failures` says why. Raises CommandError,
        LayoutChanged, LockLost.
        """
        for name in self.lock.layout.all_names:
            self.cluster.abort_uploads(name)
        if self.lock.layout.settled:
            counts = self._count()
            if counts.strays:
                self._delete_strays()
                counts = self._count()
            if not counts.work.objects and not counts.tombstones:
                return True
            say("objects aren't with their owners; gateways look everywhere until they are")
            self.lock.change(Layout.anywhere)
            self._pause_for_gateways()
        self._wait_for_switch()
        if self.lock.layout.moved and self._count().work.objects:
            self.lock.change(not_all_moved)
            self._pause_for_gateways()
        while not self.lock.layout.moved and self._pass():
            if self.failures:
                return False
        if not self.lock.layout.moved:
            self.lock.change(Layout.all_moved)
        self._pause_for_gateways()
        while self._sweep():
            self.lock.check()
        self.lock.change(Layout.settle)
        return True

    def _count(self) -> Counts:
        return count_objects(self.cluster, self.lock.layout)

    def _delete_strays(self) -> None:
        """Deletes, in a settled layout, the copies of objects that their owner has as well.

        All that was written since the layout was settled went to the owner, so that its copy is the
        newest. Another one is older, whatever its epoch and time are: for one, it has come back
        with the backup of a node. Once objects may be anywhere, nobody could tell that any more.
        """
        deletions, layout, deleted = Deletions(self.lock), self.lock.layout, 0
        for key, copies in self.cluster.ids(layout.all_names):
            owner = layout.owner(key)
            if OBJECT_ID.fullmatch(key) and owner in copies:
                for name in copies.keys() - {owner}:
                    deletions.add(name, key)
                    deleted += 1
        deletions.flush()
        say(f"{deleted} copies were deleted whose objects are with their owners")

    def _pause_for_gateways(self) -> None:
        """Until all gateways know the layout."""
        self.lock.pause(LEASE_SECONDS + POLL_SECONDS + 1)

    def _wait_for_switch(self) -> None:
        """Until no gateway writes by an older membership."""
        left = self.lock.layout.memberships[0].since + HOLD_SECONDS + LEASE_SECONDS - time.time()
        if left > 0:
            say(f"the layout changes for all gateways in {duration(left)}")
            self.lock.pause(left)

    def _pass(self) -> int:
        """Moves what isn't with its owner; how many objects that were."""
        began, progress = time.monotonic(), Progress()
        throttle = Throttle(self.options.limit, self.options.jobs)
        mover = Mover(self.lock, throttle, progress.passed)

        def move(item: tuple[str, dict[str, StoredCopy]]) -> None:
            key, copies = item
            with self._noting(key):
                progress.moved(mover.move(key, copies))

        try:
            self._work_off(self._misplaced(mover, progress), move, progress, progress.show)
            with self._noting("copies that were moved"):
                mover.deletions.flush()
        finally:
            progress.close()
            self.moved.objects += progress.done.objects
            self.moved.bytes += progress.moved_bytes
            self.moved.seconds += time.monotonic() - began
        return progress.total.objects

    def _misplaced(
        self, mover: Mover, progress: Progress
    ) -> Iterator[tuple[str, dict[str, StoredCopy]]]:
        """The objects that aren't with their owner alone, with all their copies."""
        for key, copies in self.cluster.ids(mover.all_names):
            owner = mover.owner(key)
            if OBJECT_ID.fullmatch(key) and copies.keys() != {owner}:
                if not progress.total.objects:
                    say("moving objects, while others are being listed")
                newest = max(copies.values(), key=lambda copy: copy.age)
                progress.found(0 if owner in copies else newest.size)
                yield key, copies
        progress.listed()
        if progress.total.objects:
            say(f"{progress.total} to be moved")

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Notes what can't be done, and goes on. Raises CommandError when that is too much."""
        try:
            yield
        except CommandError as error:
            self.failures.append(f"{what}: {error}")
            if len(self.failures) > FAILURES:
                last = f"the last one is {what}: {error}"
                raise CommandError(f"too many objects can't be moved; {last}") from None

    def _sweep(self) -> int:
        """Removes the tombstones that there are; how many."""
        progress = Progress()
        mover = Mover(self.lock, Throttle(0, 1), progress.passed)

        def tombstones() -> Iterator[StoredCopy]:
            for key, copies in self.cluster.ids(mover.all_names):
                if OBJECT_ID.fullmatch(key):
                    yield from (copy for copy in copies.values() if copy.like_tombstone)

        def sweep(copy: StoredCopy) -> None:
            if mover.sweep(copy):
                progress.moved(0)

        self._work_off(tombstones(), sweep, progress, lambda: None)
        return progress.done.objects

    def _work_off[Item](
        self,
        items: Iterator[Item],
        work: Callable[[Item], None],
        progress: Progress,
        show: Callable[[], None],
    ) -> None:
        """Works off all items, as many at a time as the nodes bear."""
        pace, before = Pace(self.options.jobs), 0

        def look(seconds: float) -> None:
            nonlocal before
            done = progress.done.weight
            pace.adjust((done - before) / seconds, self.lock.answer)
            before = done
            show()

        Crew(work, pace, self.lock.stop).run(items, look)
