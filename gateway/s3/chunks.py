"""A body in chunks, as some servers of S3 send their documents (RFC 9112, 7.1)."""

from __future__ import annotations

import re
from collections.abc import Callable

LINE_MAX = 4096  # bytes of the line before a chunk, and of one of a trailer
TRAILER_MAX = 64  # lines
# A size, and extensions, which mean nothing here (7.1.1).
SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


def read_chunks(begun: bytes, receive: Callable[[], bytes], maximum: int) -> bytes:
    """The whole body, of at most `maximum` bytes.

    `begun` is what has come of it; `receive` gives more, never nothing. Raises ValueError for what
    isn't a body in chunks, is longer, or has something after its end; and what `receive` raises.

    >>> read_chunks(b"5\\r\\nhel", iter([b"lo\\r", b"\\n0\\r\\n\\r\\n"]).__next__, 9)
    b'hello'
    """
    rest, body = bytearray(begun), bytearray()
    while size := _size(_line(rest, receive)):
        if len(body) + size > maximum:
            raise ValueError("it is too long")
        while len(rest) < size + 2:
            rest += receive()
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk doesn't end where its size says")
        body += rest[:size]
        del rest[: size + 2]
    for _ in range(TRAILER_MAX):
        if not _line(rest, receive):
            break
    else:
        raise ValueError("its trailer is too long")
    if rest:
        raise ValueError("more than its end")
    return bytes(body)


def _line(rest: bytearray, receive: Callable[[], bytes]) -> bytes:
    """Takes the next line."""
    while (end := rest.find(b"\r\n")) < 0:
        if len(rest) > LINE_MAX:
            raise ValueError("a line is too long")
        rest += receive()
    line = bytes(rest[:end])
    del rest[: end + 2]
    return line


def _size(line: bytes) -> int:
    """The size of the chunk after this line, in bytes."""
    found = SIZE.fullmatch(line)
    if not found:
        raise ValueError("no size of a chunk")
    return int(found[1], 16)
