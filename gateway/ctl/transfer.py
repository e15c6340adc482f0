"""Storing an object at its owner, as it is on the node with its newest copy.

It takes effect at once and on a condition: that the owner still has what was seen there. MinIO
locks an object while a conditional PUT lasts, also for readers. So a small object is read before
its PUT begins. A large one is a multipart upload, of which only the end has a condition; what a
killed process has left of one, the next rebalance removes.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import minio
import urllib3
from minio.error import MinioException, S3Error

from gateway.ctl.client import unexpected
from gateway.ctl.cluster import Cluster
from gateway.ctl.errors import CommandError, NodeError
from gateway.ctl.listing import StoredCopy, iso_time, parse_document, query, text
from gateway.s3.body import upload_of
from gateway.s3.connection import Reply, Request
from gateway.s3.headers import STORED

SINGLE = 5 * 1024 * 1024  # bytes of an object that is moved with one PUT, at most; also of a part
PARTS = 10_000  # of a multipart upload, at most
PLAIN_MD5 = re.compile(r'"[0-9a-f]{32}"')


@dataclass(frozen=True)
class Transfer:
    """One object on its way to its owner."""

    cluster: Cluster
    newest: StoredCopy
    owner: str
    older: StoredCopy | None  # what the owner has; it is replaced only while it is still that
    headers: Mapping[str, str]  # that are stored with the object
    read: Callable[[int], bytes]  # the next bytes, as many as are asked for, fewer at the end
    ready: Callable[[], None]  # called before it takes effect; raises where it must not

    def run(self) -> bool:
        """Stores the object; False where something has changed meanwhile. Raises CommandError."""
        if self.newest.size <= SINGLE:
            return self._put()
        upload = self._begin()
        if not upload:
            return False
        try:
            etags = self._send_parts(upload)
            self.ready()
            if self._complete(upload, etags):
                upload = ""
        finally:
            if upload:
                with contextlib.suppress(CommandError):
                    self.cluster.abort_upload(self.owner, self.newest.key, upload)
        return not upload

    def _put(self) -> bool:
        body, headers = self.read(self.newest.size + 1), dict(self.headers)
        if self._plain_md5:
            md5 = bytes.fromhex(self._plain_md5)
            headers["content-md5"] = base64.b64encode(md5).decode()
        self.ready()
        reply = self._ask("PUT", "", headers | self._replacing, body)
        if reply.status == 200:
            self._verify(body, reply.headers["etag"])
            return True
        if reply.code == "NoSuchBucket":
            self.cluster.make_bucket(self.owner)
            return False
        if reply.status == 412 or reply.code == "NoSuchKey":
            return False
        raise unexpected(self.owner, reply)

    # -- a multipart upload; no other node can be mistaken for the owner: it doesn't know the upload

    def _begin(self) -> str:
        """The new upload's id; empty where there was no bucket, which is made then.

        Raises CommandError.
        """
        headers = dict(self.headers)
        if self._plain_md5:
            headers["x-minio-source-etag"] = self._plain_md5  # MinIO keeps it, as clients know it
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
        md5, etags = hashlib.md5(usedforsecurity=False), list[str]()
        size = max(SINGLE, -(-self.newest.size // PARTS))
        while block := self.read(size):
            md5.update(block)
            part = query(partNumber=len(etags) + 1, uploadId=upload)
            reply = self._ask("PUT", part, {}, block)
            if reply.status != 200:
                raise unexpected(self.owner, reply)
            self._verify(block, reply.headers["etag"])
            etags.append(reply.headers["etag"].strip('"'))
        if self._plain_md5 not in ("", md5.hexdigest()):
            raise CommandError(f"its bytes on {self.newest.node} aren't those of its ETag")
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
            if error.code in ("PreconditionFailed", "NoSuchKey"):
                return False
            answer = error.response
            raise unexpected(self.owner, Reply(answer.status, {}, answer.data, 0)) from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeError(f"{self.owner} broke off: {error}") from None
        return True

    def _minio(self) -> minio.Minio:
        endpoint, settings = self.cluster.client(self.owner).endpoint, self.cluster.settings
        timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.node_timeout)
        return minio.Minio(
            endpoint.authority,
            endpoint.access_key,
            endpoint.secret_key,
            secure=False,
            region=endpoint.region,
            http_client=urllib3.PoolManager(timeout=timeout, retries=False),
        )

    # -- both

    @property
    def _plain_md5(self) -> str:
        """The object's MD5 in hex, where its ETag is that; else empty."""
        return self.newest.etag.strip('"') if PLAIN_MD5.fullmatch(self.newest.etag) else ""

    @property
    def _replacing(self) -> dict[str, str]:
        """The headers on what the owner has to have, and on the time, which MinIO takes over."""
        condition = {"if-match": self.older.etag} if self.older else {"if-none-match": "*"}
        return condition | {"x-minio-source-mtime": iso_time(self.newest.modified)}

    def _ask(self, method: str, query: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Asks the owner for what `query` says of the object. Raises NodeError."""
        path = self.cluster.path(self.newest.key) + query
        request = Request(method, path, headers, upload_of(body))
        return self.cluster.client(self.owner).ask(request)

    def _verify(self, sent: bytes, etag: str) -> None:
        """Raises CommandError unless the owner has what was sent, by the ETag of its answer."""
        md5 = hashlib.md5(sent, usedforsecurity=False).hexdigest()
        if PLAIN_MD5.fullmatch(etag) and etag != f'"{md5}"':
            source = f"{self.newest.node} has sent"
            raise CommandError(f"{self.owner} has stored something else than {source}")


def moved_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with which an object is stored elsewhere as it is here."""
    kept = (name for name in headers if name in STORED or name.startswith("x-amz-meta-"))
    return {name: headers[name] for name in kept}
