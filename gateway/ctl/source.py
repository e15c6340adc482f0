"""Reading an object's newest copy, and whether what was read is what had been stored.

An ETag says nothing of that: a node that encrypts gives random ones, and so does MinIO with
`--no-compat`. What holds for every node is the length, and that the copy is still the one that was
listed (If-Match). Where the object was stored with a checksum, the node gives that as well, and it
is compared. https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.ctl.client import NodeClient
from gateway.ctl.errors import CommandError
from gateway.s3.connection import Request
from gateway.s3.headers import STORED
from gateway.s3.reply import Reply

CHECKSUM_MODE = {"x-amz-checksum-mode": "ENABLED"}  # asks for the checksums of an object


class Digest(Protocol):
    """What hashlib's objects have, as far as it is used."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 as hashlib's objects are used."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """The checksum, four bytes, the highest one first."""
        return self._value.to_bytes(4)


# The checksums of S3 that the standard library has. One of an object in parts may be a checksum of
# their checksums; then it ends with their number.
DIGESTS: dict[str, Callable[[], Digest]] = {
    "x-amz-checksum-sha256": hashlib.sha256,
    "x-amz-checksum-sha1": hashlib.sha1,
    "x-amz-checksum-crc32": Crc32,
}


class Source:
    """The answer to a GET of a copy: its headers, and its bytes as they come."""

    def __init__(self, client: NodeClient, reply: Reply, passed: Callable[[bytes], None]) -> None:
        """`passed` is given each block; it may take its time, and raise."""
        self._client, self._reply, self._passed = client, reply, passed
        self.size = len(reply.body) + reply.left  # bytes
        self.headers = stored_headers(reply.headers)
        self._digests = {
            reply.headers[name]: digest()
            for name, digest in DIGESTS.items()
            if name in reply.headers and "-" not in reply.headers[name]
        }

    def read(self, size: int, block_size: int) -> bytes:
        """The next `size` bytes, in blocks of at most `block_size`; fewer at the end.

        Raises NodeError where the node breaks off, and what `passed` raises.
        """
        blocks = []
        while size and (block := self._client.receive(self._reply, min(size, block_size))):
            self._passed(block)
            for digest in self._digests.values():
                digest.update(block)
            blocks.append(block)
            size -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def verify(self) -> None:
        """Raises CommandError unless all that was read has the checksum that was stored with it."""
        for stored, digest in self._digests.items():
            if base64.b64encode(digest.digest()).decode() != stored:
                name = self._client.name
                raise CommandError(f"its bytes on {name} aren't those of the checksum there")

    def close(self) -> None:
        """Gives the answer up where not all of it was read."""
        if self._reply.body or self._reply.left:
            self._client.close()


def get_request(path: str, etag: str) -> Request:
    """The request for a copy that has to have this ETag still."""
    return Request("GET", path, {"if-match": etag, **CHECKSUM_MODE})


def stored_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with which an object is stored elsewhere as it is here."""
    kept = (name for name in headers if name in STORED or name.startswith("x-amz-meta-"))
    return {name: headers[name] for name in kept}
