"""Moving one object: GET from where its newest copy is, PUT to its owner, DELETE of the other copies.

Why that can be killed at any point, run twice at once, and run while clients read, write and delete:

- **The owner's copy is never replaced unseen.** A PUT to the owner is create-only, or on the ETag of the older copy
  that was seen there; a client's write or DELETE marker in between makes it fail (412), and all is looked at again.
- **It takes effect at once.** One PUT that carries the MD5 of the source; of a large object a multipart upload, whose
  end has the condition, because MinIO locks an object while a conditional PUT lasts, also for readers. What a killed
  one has left, the next run removes.
- **A copy goes last.** The others are deleted only when the owner has answered that it holds the newest: whatever
  moment the process dies at, each object is in at least one place, and the next run removes what is there twice.
- **No write after the layout has changed**: `gateway.ctl.lock`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import minio
import urllib3
from minio.error import MinioException, S3Error

from gateway.ctl.cluster import ATTEMPTS, Copy
from gateway.ctl.errors import NodeTrouble, Stopped, Trouble
from gateway.ctl.lock import Shift
from gateway.ctl.wire import Wire, unexpected
from gateway.nodes.layout import DELETED, MARKER_ETAG, SWEPT, SWEPT_ETAG
from gateway.nodes.placement import owner_name
from gateway.s3.body import BLOCK
from gateway.s3.connection import FULL, Reply
from gateway.s3.headers import STORED

SINGLE = 5 * 1024 * 1024  # bytes up to which an object is moved with one PUT, and of a part (MinIO: at least so many)
PARTS = 10_000  # of a multipart upload, at most
PLAIN_MD5 = re.compile(r'"[0-9a-f]{32}"')


class Throttle:
    """A bandwidth limit that all threads share; no limit where it is 0 bytes a second."""

    def __init__(self, rate: float, jobs: int) -> None:
        self.rate = rate
        # Small enough that a node never waits long for the next one: MinIO gives up after 30 seconds.
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

    def __init__(self, shift: Shift, throttle: Throttle, passed: Callable[[int], None] = lambda _: None) -> None:
        """`passed` is told of bytes that were read, by any thread."""
        self.shift, self.cluster, self.throttle, self.passed = shift, shift.cluster, throttle, passed
        self.names = shift.layout.names
        self.places = shift.layout.all_names

    def place(self, key: str, listed: dict[str, Copy]) -> int:
        """Sees to it that an object's newest copy is with its owner, and nowhere else; the bytes that were moved.

        `listed` may be out of date. Raises Trouble where it can't be done, Stopped, LayoutChanged.
        """
        owner, pause, copies = owner_name(self.names, key), 0.5, listed
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                if attempt or len(listed) > 1:
                    copies = self.look(key, listed)
                if not copies:
                    return 0
                newest = max(copies.values(), key=lambda copy: (*copy.age, copy.node == owner))
                if newest.node == owner or self.copy(newest, owner, copies.get(owner)):
                    self.drop(key, [name for name in copies if name != owner])
                    return 0 if newest.node == owner else newest.size
            except NodeTrouble:
                if last:
                    raise
                if self.shift.stop.wait(pause):
                    raise Stopped from None
                pause *= 2
                with contextlib.suppress(NodeTrouble):
                    self.cluster.refresh()
        raise NodeTrouble(f"{key} changes all the time")

    def look(self, key: str, listed: Mapping[str, Copy]) -> dict[str, Copy]:
        """All copies as they are now. HEAD says whole seconds, so the time is the listing's where it is the same."""
        copies = {}
        for name in self.places:
            copy = self.cluster.head(name, key)
            if copy:
                known = listed.get(name)
                if known and known.etag == copy.etag and int(known.modified) == int(copy.modified):
                    copy = copy._replace(modified=known.modified)
                copies[name] = copy
        return copies

    def copy(self, newest: Copy, owner: str, older: Copy | None) -> bool:
        """Copies to the owner if it still has what was seen; False where something has changed meanwhile."""
        wire = self.cluster.wire(newest.node)
        reply = wire.begin("GET", self.cluster.path(newest.key))
        try:
            if reply.status == 404 or (reply.status == 200 and reply.headers.get("etag") != newest.etag):
                return False
            if reply.status != 200:
                raise unexpected(newest.node, reply)
            headers = moved_headers(reply.headers)
            condition = {"if-match": older.etag} if older else {"if-none-match": "*"}
            store = self._store if newest.size <= SINGLE else self._store_parts
            return store(newest, owner, older, headers, condition, partial(self._read, wire, reply))
        finally:
            if reply.body or reply.left:
                wire.close()

    def _read(self, wire: Wire, reply: Reply, size: int) -> bytes:
        """The next `size` bytes of an object, fewer at its end, no faster than the limit allows."""
        blocks = []
        while size and (block := wire.receive(reply, min(size, self.throttle.block))):
            self.throttle.take(len(block), self.shift.stop)
            if self.shift.stop.is_set():
                raise Stopped
            self.passed(len(block))
            blocks.append(block)
            size -= len(block)
        return b"".join(blocks)

    def _store(
        self, newest: Copy, owner: str, older: Copy | None,
        headers: dict[str, str], condition: dict[str, str], read: Callable[[int], bytes],
    ) -> bool:  # fmt: skip
        """One PUT, of an object that was read before: MinIO locks an object from the beginning of a conditional PUT to
        its end, also for readers."""
        body = read(newest.size + 1)
        if PLAIN_MD5.fullmatch(newest.etag):
            headers["content-md5"] = base64.b64encode(bytes.fromhex(newest.etag.strip('"'))).decode()
        headers["x-minio-source-mtime"] = datetime.fromtimestamp(newest.modified, UTC).isoformat()
        self._ready(owner, older)
        wire = self.cluster.wire(owner)
        stored = wire.ask("PUT", self.cluster.path(newest.key), headers | condition, body)
        if stored.status == 200:
            self._verify(newest, owner, hashlib.md5(body, usedforsecurity=False).hexdigest(), stored.headers["etag"])
            return True
        if stored.code == "NoSuchBucket":
            wire.ask("PUT", f"/{self.cluster.bucket}", body=b"")
            return False
        if stored.status == 412 or stored.code == "NoSuchKey":
            return False
        raise unexpected(owner, stored)

    def _store_parts(
        self, newest: Copy, owner: str, older: Copy | None,
        headers: dict[str, str], condition: dict[str, str], read: Callable[[int], bytes],
    ) -> bool:  # fmt: skip
        """A multipart upload, so that the lock is short for a large object too: its end is what has the condition.

        MinIO keeps the ETag that it is told, which is the source's; so clients see the same as before. No other node
        can be mistaken for the owner: it doesn't know the upload.
        """
        client, bucket, key = self.cluster.client(owner)[0], self.cluster.bucket, newest.key
        plain = bool(PLAIN_MD5.fullmatch(newest.etag))
        if plain:
            headers["x-minio-source-etag"] = newest.etag.strip('"')
        upload = ""
        try:
            upload = self._begin_parts(owner, key, headers)
            if not upload:
                client.make_bucket(bucket)
                return False
            size, md5, etags = max(SINGLE, -(-newest.size // PARTS)), hashlib.md5(usedforsecurity=False), list[str]()
            while block := read(size):
                md5.update(block)
                etags.append(client._upload_part(bucket, key, block, None, upload, len(etags) + 1))
                self._verify(newest, owner, hashlib.md5(block, usedforsecurity=False).hexdigest(), f'"{etags[-1]}"')
            if plain and newest.etag != f'"{md5.hexdigest()}"':
                raise Trouble(f"its bytes on {newest.node} aren't those of its ETag")
            self._ready(owner, older)
            titled = {name.title(): value for name, value in condition.items()}
            titled["X-Minio-Source-Mtime"] = datetime.fromtimestamp(newest.modified, UTC).isoformat()
            complete_upload(client, bucket, key, upload, etags, titled)
            upload = ""
        except S3Error as error:
            if error.code in ("PreconditionFailed", "NoSuchKey"):
                return False
            if error.code in FULL:
                raise Trouble(f"{owner} has no room left: its disk is full, or its quota is used up") from None
            raise NodeTrouble(f"{owner} gave an unexpected answer: {error.code}") from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeTrouble(f"{owner} broke off: {error}") from None
        finally:
            if upload:
                with contextlib.suppress(MinioException, urllib3.exceptions.HTTPError, OSError):
                    client._abort_multipart_upload(bucket, key, upload)
        return True

    def _begin_parts(self, owner: str, key: str, headers: Mapping[str, str]) -> str:
        """The id of a new multipart upload; empty where there is no bucket. Raises Trouble.

        minio-py would sign these headers in UTF-8 and send them in Latin-1.
        """
        reply = self.cluster.wire(owner).ask("POST", f"{self.cluster.path(key)}?uploads=", headers, b"")
        found = re.search(rb"<UploadId>([^<]+)</UploadId>", reply.body)
        if reply.status == 200 and found:
            return found[1].decode()
        if reply.code == "NoSuchBucket":
            return ""
        raise unexpected(owner, reply)

    def _ready(self, owner: str, older: Copy | None) -> None:
        """Before an upload takes effect. An ETag doesn't tell when a client has just written what was there before, so
        that is looked at as well. Raises NodeTrouble, and what `check` does."""
        self.shift.check(owner)
        if older:
            now = self.cluster.head(owner, older.key)
            if now is None or (now.etag, int(now.modified), now.era) != (older.etag, int(older.modified), older.era):
                raise NodeTrouble(f"{older.key} was written meanwhile")

    def _verify(self, newest: Copy, owner: str, md5: str, etag: str) -> None:
        """Raises Trouble unless the owner has the bytes that were read."""
        if PLAIN_MD5.fullmatch(etag) and etag != f'"{md5}"':
            raise Trouble(f"{owner} has stored something else than {newest.node} has sent")

    def drop(self, key: str, names: Iterable[str]) -> None:
        """Deletes copies that aren't needed any more."""
        for name in names:
            self.shift.check(name)
            reply = self.cluster.wire(name).ask("DELETE", self.cluster.path(key))
            if reply.status not in (204, 404):
                raise unexpected(name, reply)

    def sweep(self, copy: Copy) -> bool:
        """Removes a marker, when nothing is moved any more; False where it is none (any more).

        No gateway writes onto SWEPT, it waits until that is gone; so the DELETE can't meet an object.
        """
        path, wire = self.cluster.path(copy.key), self.cluster.wire(copy.node)
        head = wire.ask("HEAD", path)
        if head.status == 404 or DELETED not in head.headers:
            return False
        self.shift.check(copy.node)
        if head.headers["etag"] != SWEPT_ETAG:
            headers = {**moved_headers(head.headers), "if-match": MARKER_ETAG}
            reply = wire.ask("PUT", path, headers, SWEPT)
            if reply.status in (404, 412):
                return False
            if reply.status != 200:
                raise unexpected(copy.node, reply)
            self.shift.check(copy.node)
        self.drop(copy.key, [copy.node])
        return True


def moved_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with which an object is stored elsewhere as it is here."""
    return {name: value for name, value in headers.items() if name in STORED or name.startswith("x-amz-meta-")}


def complete_upload(
    client: minio.Minio, bucket: str, key: str, upload: str, etags: Iterable[str], headers: dict[str, str]
) -> None:
    """Ends a multipart upload on conditions, which minio-py has no call for. Raises S3Error.

    MinIO may begin with 200 to a long one, and say in the body that it failed.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    """
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    query = {"uploadId": upload}
    response = client._execute(
        "POST", bucket, key, body=body, headers=cast(Any, headers), query_params=cast(Any, query)
    )
    if b"<Error>" in response.data:
        raise S3Error.fromxml(cast(Any, response))
