"""Deleting copies that aren't needed any more, many with one request.

Why that may wait. A copy is deleted when the owner has answered that it holds the newest one. Until
then, and after that, it is only in the way: no gateway writes to a node that isn't the owner, and a
read prefers the owner's copy, which is as new. So a copy can't become a newer one between the two,
as long as the layout is the same, and `WorkLock.check` sees to that before each request. If the
process dies in between, the object is there twice, and the next run deletes the one that isn't with
the owner.

Why not more at once. A request that is under way can't be called back. So it must be short against
`SWITCH_SECONDS`, within which no other layout can come into force.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gateway.ctl.client import unexpected
from gateway.ctl.cluster import MOVE_ATTEMPTS
from gateway.ctl.errors import NodeError, Stopped
from gateway.ctl.lock import WorkLock
from gateway.s3.body import content_md5, upload_of
from gateway.s3.connection import Request
from gateway.s3.headers import NOTHING_LEFT
from gateway.s3.listing import parse_document, query

KEYS = 250  # that are deleted with one request, at most; S3 takes 1,000
WAIT_SECONDS = 0.5  # from which on no copy waits for others


class Deletions:
    """The copies that wait to be deleted. Any thread may use it."""

    def __init__(self, lock: WorkLock) -> None:
        self._lock, self._cluster = lock, lock.cluster
        self._guard = threading.Lock()
        self._waiting: dict[str, list[str]] = {}  # keys by the name of their node
        self._since: dict[str, float] = {}  # monotonic time of the first of them

    def add(self, name: str, key: str) -> None:
        """Has a node's copy deleted, soon or now.

        Raises CommandError, for this copy or others, and what `WorkLock.check` does.
        """
        with self._guard:
            keys = self._waiting.setdefault(name, [])
            began = self._since.setdefault(name, time.monotonic())
            keys.append(key)
            if len(keys) < KEYS and time.monotonic() - began < WAIT_SECONDS:
                return
            del self._waiting[name], self._since[name]
        self._delete(name, keys)

    def flush(self) -> None:
        """Deletes all that waits. Raises what `add` does."""
        with self._guard:
            waiting, self._waiting = self._waiting, {}
            self._since.clear()
        for name, keys in waiting.items():
            self._delete(name, keys)

    def _delete(self, name: str, keys: Sequence[str]) -> None:
        """Deletes a node's copies. Where it breaks off for some seconds, tries again."""
        pause = 0.5
        for attempt in range(MOVE_ATTEMPTS):
            self._lock.check(name)
            try:
                self._ask(name, keys)
                return
            except NodeError:
                if attempt == MOVE_ATTEMPTS - 1:
                    raise
                if self._lock.stop.wait(pause):
                    raise Stopped from None
                pause *= 2

    def _ask(self, name: str, keys: Sequence[str]) -> None:
        """One request for all. Raises CommandError where one of them isn't deleted."""
        entries = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)  # all are ids
        body = f"<Delete><Quiet>true</Quiet>{entries}</Delete>".encode()
        path = f"/{self._cluster.bucket}{query(delete='')}"
        request = Request("POST", path, content_md5(body), upload_of(body))
        reply = self._cluster.client(name).ask(request)
        if reply.code == "NoSuchBucket":
            return
        if reply.status in (405, 501):  # it knows no deletion of many
            self._delete_each(name, keys)
            return
        if reply.status != 200:
            raise unexpected(name, reply)
        try:
            failed = parse_document(reply.body, "DeleteResult").findall("{*}Error")
        except ValueError as error:
            raise NodeError(f"{name} gives no answer of S3 to a deletion: {error}") from None
        codes = {entry.findtext("{*}Code") or "" for entry in failed} - {"NoSuchKey"}
        if codes:
            raise NodeError(f"{name} doesn't delete copies: {', '.join(sorted(codes))}")

    def _delete_each(self, name: str, keys: Sequence[str]) -> None:
        """A request for each. Raises CommandError where one of them isn't deleted."""
        for key in keys:
            self._lock.check(name)
            reply = self._cluster.client(name).ask(Request("DELETE", self._cluster.path(key)))
            if reply.status not in NOTHING_LEFT:
                raise unexpected(name, reply)
