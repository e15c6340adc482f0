"""Moving one object: GET from where its newest copy is, PUT to its owner, DELETE of other copies.

Why that can be killed at any point, run twice at once, and run while clients go on:

- **The owner's copy is never replaced unseen.** A PUT to the owner is create-only, or it has a
  condition on the ETag of the older copy that was seen there. If a client writes or deletes the
  object in between, the PUT fails (412), and all is looked at again.
- **A PUT takes effect at once**, however large the object is (`gateway.ctl.transfer`).
- **Other copies are deleted last**, when the owner has answered that it holds the newest one
  (`gateway.ctl.deletions`). So the process may die at any moment: each object is in at least one
  place, and the next run removes what is there twice.
- **Nothing is written after the layout has changed** (`gateway.ctl.lock`).

An object that is with one node only, as most are, takes a GET, a PUT, and its part of a deletion.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

from gateway.ctl.client import unexpected
from gateway.ctl.cluster import MOVE_ATTEMPTS
from gateway.ctl.copies import StoredCopy
from gateway.ctl.deletions import Deletions
from gateway.ctl.errors import NodeError, Stopped
from gateway.ctl.lock import WorkLock
from gateway.ctl.source import Source, get_request, stored_headers
from gateway.ctl.transfer import Transfer
from gateway.nodes.layout import DELETED, EXPIRING_TOMBSTONE, is_expiring
from gateway.nodes.store import is_other_than_seen
from gateway.s3.body import BLOCK, content_md5, upload_of
from gateway.s3.connection import Request
from gateway.s3.headers import NOTHING_LEFT

LARGE = 256 * 1024  # bytes of an object from which on few are moved at a time, for the memory
LARGE_JOBS = 8


class Throttle:
    """A bandwidth limit that all threads share; no limit where it is 0 bytes a second."""

    def __init__(self, rate: float, jobs: int) -> None:
        self.rate = rate
        # So small that a node never waits long for the next one: MinIO gives up after 30 seconds.
        self.block = min(BLOCK, max(1024, int(rate / jobs))) if rate else BLOCK
        self._lock = threading.Lock()
        self._free = time.monotonic()  # when all that was asked for so far has passed

    def take(self, size: int, stop: threading.Event) -> None:
        """Waits until so many bytes may pass."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - 0.1) + size / self.rate
            delay = self._free - now
        if delay > 0 and stop.wait(delay):
            raise Stopped


class Mover:
    """Brings objects to their owner."""

    def __init__(self, lock: WorkLock, throttle: Throttle, passed: Callable[[int], None]) -> None:
        """`passed` is told of bytes that were read, by any thread."""
        self.lock, self.cluster, self.throttle, self.passed = lock, lock.cluster, throttle, passed
        self.deletions = Deletions(lock)
        self._large = threading.BoundedSemaphore(LARGE_JOBS)
        self.owner = lock.layout.owner  # by id the name that an object belongs to
        self.all_names = lock.layout.all_names  # that objects may be on

    def move(self, key: str, listed: Mapping[str, StoredCopy]) -> int:
        """Sees to it that an object's newest copy is with its owner, and nowhere else.

        The other copies go with the next `deletions`. `listed` may be out of date. Gives the bytes
        that were moved. Raises CommandError where it can't be done, Stopped, LayoutChanged.
        """
        owner, pause, copies = self.owner(key), 0.5, listed
        for attempt in range(MOVE_ATTEMPTS):
            last = attempt == MOVE_ATTEMPTS - 1
            try:
                if attempt or len(listed) > 1:
                    copies = self.copies_now(key, owner, listed)
                if not copies:
                    return 0
                newest = max(copies.values(), key=lambda copy: (*copy.age, copy.node == owner))
                if newest.node == owner or self.copy(newest, owner, copies.get(owner)):
                    for name in copies.keys() - {owner}:
                        self.deletions.add(name, key)
                    return 0 if newest.node == owner else newest.size
            except NodeError:
                if last:
                    raise
                if self.lock.stop.wait(pause):
                    raise Stopped from None
                pause *= 2
        raise NodeError(f"{key} changes all the time")

    def copies_now(
        self, key: str, owner: str, listed: Mapping[str, StoredCopy]
    ) -> dict[str, StoredCopy]:
        """All copies as they are now. Only the owner can have got one since they were listed.

        HEAD says whole seconds, so the time is the listing's where the copy is the same.
        """
        copies = {}
        for name in {owner, *listed}:
            copy = self.cluster.head(name, key)
            if copy:
                known = listed.get(name)
                same_second = known and int(known.modified) == int(copy.modified)
                if known and same_second and known.etag == copy.etag:
                    copy = copy._replace(modified=known.modified)
                copies[name] = copy
        return copies

    def copy(self, newest: StoredCopy, owner: str, older: StoredCopy | None) -> bool:
        """Copies to the owner if it still has `older`; False where anything has changed."""
        client = self.cluster.client(newest.node)
        with self._large if newest.size > LARGE else nullcontext():
            reply = client.begin(get_request(self.cluster.path(newest.key), newest.etag))
            if reply.status in (404, 412):
                return False
            if reply.status != 200:
                raise unexpected(newest.node, reply)
            source = Source(client, reply, self._passed)
            try:
                return Transfer(
                    self.cluster,
                    newest,
                    owner,
                    older,
                    source,
                    self.throttle.block,
                    ready=lambda: self._ready(owner, older),
                ).run()
            finally:
                source.close()

    def _passed(self, block: bytes) -> None:
        """Waits until a block may pass. Raises Stopped."""
        self.throttle.take(len(block), self.lock.stop)
        if self.lock.stop.is_set():
            raise Stopped
        self.passed(len(block))

    def _ready(self, owner: str, older: StoredCopy | None) -> None:
        """What has to hold before an upload takes effect.

        An ETag doesn't tell when a client has just written what was there before, so that time and
        epoch are compared as well. Raises NodeError, and what `check` does.
        """
        self.lock.check(owner)
        if older:
            now = self.cluster.head(owner, older.key)
            if now is None or version(now) != version(older):
                raise NodeError(f"{older.key} was written meanwhile")

    def sweep(self, copy: StoredCopy) -> bool:
        """Removes a tombstone, when nothing is moved any more; False where there is none by now.

        No gateway writes onto EXPIRING_TOMBSTONE, it waits until that is gone; so the DELETE can't
        meet an object. It doesn't wait for others, because clients may wait for it.
        """
        path, client = self.cluster.path(copy.key), self.cluster.client(copy.node)
        head = client.ask(Request("HEAD", path))
        if head.status == 404 or DELETED not in head.headers:
            return False
        self.lock.check(copy.node)
        if not is_expiring(head.headers):
            headers = {**stored_headers(head.headers), "if-match": head.headers["etag"]}
            headers |= content_md5(EXPIRING_TOMBSTONE)
            reply = client.ask(Request("PUT", path, headers, upload_of(EXPIRING_TOMBSTONE)))
            if reply.status == 404 or is_other_than_seen(reply):
                return False
            if reply.status != 200:
                raise unexpected(copy.node, reply)
            self.lock.check(copy.node)
        reply = client.ask(Request("DELETE", path))
        if reply.status not in NOTHING_LEFT:
            raise unexpected(copy.node, reply)
        return True


def version(copy: StoredCopy) -> tuple[str, int, int]:
    """What differs between two versions of an object, as far as HEAD says it."""
    return copy.etag, int(copy.modified), copy.epoch
