"""Storing an object at its owner, as it is on the node with its newest copy.

It takes effect at once and on a condition: that the owner still has what was seen there. MinIO
locks an object while a conditional PUT lasts, also for readers. So a small object is read before
its PUT begins. A large one is a multipart upload, of which only the end has a condition; what a
killed process has left of one, the next rebalance removes.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html

The owner compares what it stores with a digest that is made here of what was read (Content-MD5),
which every server of S3 does, whatever its ETags are.

An object keeps its ETag, and its time, where the owner is MinIO (`x-minio-source-…`). An ETag of S3
says whether the object was stored in parts: it ends with their number then. A node that encrypts
relies on that, and can't read an object whose ETag says otherwise; there such an object gets a new
ETag instead.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import minio
import urllib3
from minio.error import MinioException, S3Error

from gateway.ctl.client import unexpected
from gateway.ctl.cluster import PROBE, Cluster
from gateway.ctl.copies import StoredCopy
from gateway.ctl.errors import CommandError, NodeError
from gateway.ctl.source import Source
from gateway.nodes.store import is_other_than_seen
from gateway.s3.body import REPLAY_BYTES, content_md5, upload_of
from gateway.s3.connection import Request
from gateway.s3.listing import iso_time, parse_document, query, text
from gateway.s3.node import tls_context
from gateway.s3.reply import Reply

SINGLE = 5 * 1024 * 1024  # bytes of an object that is moved with one PUT, at most; also of a part
PARTS = 10_000  # of a multipart upload, at most


class AtOnce(Request):
    """A request whose body is sent without asking for it first.

    A small create-only PUT may fail on itself where a connection breaks and it is sent again. Here
    that does no harm, because all is looked at again then.
    """

    __slots__ = ()

    @property
    def careful(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Transfer:
    """One object on its way to its owner."""

    cluster: Cluster
    newest: StoredCopy
    owner: str
    older: StoredCopy | None  # what the owner has; it is replaced only while it is still that
    source: Source
    block_size: int  # bytes that are read at a time
    ready: Callable[[], None]  # called before it takes effect; raises where it must not

    def run(self) -> bool:
        """Stores the object; False where something has changed meanwhile. Raises CommandError."""
        if self.source.size <= SINGLE:
            return self._put()
        upload = self._begin()
        if not upload:
            return False
        try:
            etags = self._send_parts(upload)
            self.source.verify()
            self.ready()
            if self._complete(upload, etags):
                upload = ""
        finally:
            if upload:
                with contextlib.suppress(CommandError):
                    self.cluster.abort_upload(self.owner, self.newest.key, upload)
        return not upload

    def _put(self) -> bool:
        body = self.source.read(self.source.size, self.block_size)
        self.source.verify()
        headers = self.source.headers | self._kept_etag(parts=False) | self._replacing
        self.ready()
        reply = self._ask("PUT", "", headers | content_md5(body), body)
        if reply.status == 200:
            return True
        if reply.code == "NoSuchBucket":
            self.cluster.make_bucket(self.owner)
            return False
        if is_other_than_seen(reply):
            return False
        raise self._unexpected(reply)

    # -- a multipart upload; no other node can be mistaken for the owner: it doesn't know the upload

    def _begin(self) -> str:
        """The new upload's id; empty where there was no bucket, which is made then.

        Raises CommandError.
        """
        headers = self.source.headers | self._kept_etag(parts=True)
        reply = self._ask("POST", query(uploads=""), headers, b"")
        if reply.code == "NoSuchBucket":
            self.cluster.make_bucket(self.owner)
            return ""
        if reply.status != 200:
            raise unexpected(self.owner, reply)
        try:
            return text(parse_document(reply.body, "InitiateMultipartUploadResult"), "UploadId")
        except ValueError as error:
            raise NodeError(f"{self.owner} began no multipart upload: {error}") from None

    def _send_parts(self, upload: str) -> list[str]:
        """Sends what is read, and gives the parts' ETags, without quotes. Raises CommandError."""
        etags: list[str] = []
        size = max(SINGLE, -(-self.source.size // PARTS))
        while block := self.source.read(size, self.block_size):
            part = query(partNumber=len(etags) + 1, uploadId=upload)
            reply = self._ask("PUT", part, content_md5(block), block)
            if reply.status != 200:
                raise self._unexpected(reply)
            etags.append(reply.headers["etag"].strip('"'))
        return etags

    def _complete(self, upload: str, etags: list[str]) -> bool:
        """Has the upload take effect; False where the condition fails. Raises CommandError.

        minio-py does it, because MinIO may answer a long one in chunks, and begin with 200 and say
        in the body that it failed. It has no call with a condition.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
        """
        part = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>".format
        parts = "".join(map(part, itertools.count(1), etags))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        headers = {name.title(): value for name, value in self._replacing.items()}
        arguments: Any = {"headers": headers, "query_params": {"uploadId": upload}, "body": body}
        client, bucket = self._minio(), self.cluster.bucket
        try:
            response = client._execute("POST", bucket, self.newest.key, **arguments)
            if b"<Error>" in response.data:
                raise S3Error.fromxml(cast(Any, response))
        except S3Error as error:
            if error.code in ("PreconditionFailed", "NoSuchKey", "ConditionalRequestConflict"):
                return False
            answer = error.response
            raise unexpected(self.owner, Reply(answer.status, {}, answer.data, 0)) from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeError(f"{self.owner} broke off: {error}") from None
        return True

    def _minio(self) -> minio.Minio:
        endpoint, settings = self.cluster.client(self.owner).endpoint, self.cluster.settings
        timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.node_timeout)
        context = tls_context(settings.nodes_ca) if endpoint.tls else None
        return minio.Minio(
            endpoint.authority,
            endpoint.access_key,
            endpoint.secret_key,
            secure=endpoint.tls,
            region=endpoint.region,
            http_client=urllib3.PoolManager(timeout=timeout, retries=False, ssl_context=context),
        )

    # -- both

    @property
    def _replacing(self) -> dict[str, str]:
        """The headers on what the owner has to have, and on the time, which MinIO takes over."""
        condition = {"if-match": self.older.etag} if self.older else {"if-none-match": "*"}
        return condition | {"x-minio-source-mtime": iso_time(self.newest.modified)}

    def _kept_etag(self, *, parts: bool) -> dict[str, str]:
        """The header by which MinIO keeps the object's ETag, unless that made it unreadable there.

        Raises CommandError.
        """
        etag = self.newest.etag.strip('"')
        if ("-" in etag) is not parts and self._owner_encrypts():
            return {}
        return {"x-minio-source-etag": etag}

    def _owner_encrypts(self) -> bool:
        """Whether the owner encrypts what it is given now. Raises CommandError.

        Only the answer to a PUT says so, so that an empty object is stored for it.
        """
        client, path = self.cluster.client(self.owner), self.cluster.path(PROBE)
        reply = client.ask(Request("PUT", path, upload=upload_of(b"")))
        if reply.code == "NoSuchBucket":  # which will be seen again
            return False
        if reply.status != 200:
            raise unexpected(self.owner, reply)
        client.ask(Request("DELETE", path))
        return "x-amz-server-side-encryption" in reply.headers

    def _ask(self, method: str, query: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Asks the owner for what `query` says of the object. Raises NodeError."""
        path = self.cluster.path(self.newest.key) + query
        kind = AtOnce if len(body) <= REPLAY_BYTES else Request
        return self.cluster.client(self.owner).ask(kind(method, path, headers, upload_of(body)))

    def _unexpected(self, reply: Reply) -> CommandError:
        """What is said of an answer that refuses what was sent."""
        if reply.code == "BadDigest":
            source = f"{self.newest.node} has sent"
            return NodeError(f"{self.owner} has got something else than {source}")
        return unexpected(self.owner, reply)
