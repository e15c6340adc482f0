"""The body of an upload, on its way from the client.

An `Upload` keeps its first bytes, so that a request which a dead connection lost can be sent again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import tempfile
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import IO

from gateway.answers import Refusal

log = logging.getLogger("objgw")

BLOCK = 256 * 1024  # bytes that an upload is read and sent in
# Bytes of an upload that are kept until its answer, so that they can be sent again.
REPLAY_BYTES = 64 * 1024


class BodyError(Exception):
    """The request's body can't be read to its end; the text is for the client."""

    def __init__(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(detail)
        self.status = status


def read_client(stream: IO[bytes], size: int) -> bytes:
    """The next bytes of a client's body, at most `size`; none at its end.

    Raises BodyError for whatever the server raises where a body is malformed, too slow or cut.
    """
    try:
        return getattr(stream, "read1", stream.read)(size)
    except TimeoutError:
        raise BodyError("The body came too slowly.", HTTPStatus.REQUEST_TIMEOUT) from None
    except Exception as error:
        raise BodyError(f"The body can't be read: {type(error).__name__}.") from error


class Upload:
    """A request's body.

    Its first bytes, `head`, are kept, so that they can be sent again. The rest passes once.
    """

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self.length = length
        self.spent = False  # bytes after the head have been read, so that it can't be sent again
        self._stream = stream
        self.head = b"".join(self._read(min(length, REPLAY_BYTES)))

    @property
    def replayable(self) -> bool:
        """Whether `head` is all of it, so that it can be sent again."""
        return len(self.head) == self.length

    def rest(self) -> Iterator[bytes]:
        """The blocks after `head`. Raises BodyError when the client breaks off."""
        self.spent = not self.replayable
        return self._read(self.length - len(self.head))

    def _read(self, size: int) -> Iterator[bytes]:
        """Blocks of `size` bytes in all."""
        while size:
            block = read_client(self._stream, min(size, BLOCK))
            if not block:
                raise BodyError("The body ended before its Content-Length.")
            size -= len(block)
            yield block


def upload_of(body: bytes) -> Upload:
    """The upload of a body that is in memory."""
    return Upload(io.BytesIO(body), len(body))


def content_md5(body: bytes) -> dict[str, str]:
    """The header by which a server of S3 refuses what isn't these bytes (RFC 1864)."""
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(md5).decode()}


def spool_whole(stream: IO[bytes], length: int) -> tuple[IO[bytes], str]:
    """Reads a body of this length (bytes) into a temporary file.

    Gives the file, and the body's Content-MD5 (RFC 1864). Raises BodyError where it ends early, and
    Refusal (507) where the disk is full.
    """
    file, came = (stream, length) if is_spooled(stream) else spool(stream, length)
    if came < length:
        raise BodyError("The body ended before its Content-Length.")
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(BLOCK):
        digest.update(block)
        time.sleep(0)  # the turn of other requests
    file.seek(0)
    return file, base64.b64encode(digest.digest()).decode()


def is_spooled(stream: IO[bytes]) -> bool:
    """Whether it is what `spool` gave."""
    return isinstance(stream, tempfile.SpooledTemporaryFile)


def spool(stream: IO[bytes], maximum: int) -> tuple[IO[bytes], int]:
    """Reads a body into a temporary file.

    S3 wants the length before the body, and some servers want all of it.

    Gives the file (small ones stay in memory) and its length; reads no further than one block above
    `maximum` bytes. Raises Refusal (507) where the disk is full.
    """
    file = tempfile.SpooledTemporaryFile(max_size=BLOCK)  # noqa: SIM115 - it lives as long as the request
    length = 0
    try:
        while length <= maximum and (block := read_client(stream, BLOCK)):
            length += len(block)
            file.write(block)
        file.seek(0)
    except OSError as error:
        log.warning("an upload can't be spooled: %s", error)
        detail = "The gateway has no room for this upload, which has to wait on its disk."
        raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, detail) from None
    return file, length
