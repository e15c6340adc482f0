"""A node's answer to one request, and the parser of its head (RFC 9112).

Nothing is guessed: what isn't a status line, a header or a length to the letter is an error.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

# These are no part of a header's value (RFC 9110, 5.5); the tab is.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
DIGITS = re.compile(r"[0-9]{1,18}")
STATUS_LINE = re.compile(r"HTTP/1\.1 ([1-9][0-9]{2})(?: .*)?")  # RFC 9112, 4
NAME = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1
ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")
# What servers say where there is no room: MinIO on a large disk, MinIO and Ceph at the end of a
# quota.
FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})


@dataclass(slots=True)
class Reply:
    """A node's answer.

    The names of its headers are in lower case. `body` is what has come of the body so far.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    left: int  # bytes of the body still to be received

    @property
    def code(self) -> str:
        """S3's error code, for example NoSuchKey; empty where there is none."""
        found = ERROR_CODE.search(self.body)
        return found[1].decode() if found else self.headers.get("x-minio-error-code", "")

    @property
    def full(self) -> bool:
        """Whether the node refuses because it has no room left.

        On a small disk MinIO calls that an internal error.
        """
        return self.status == 507 or self.code in FULL or b"no space left on device" in self.body


@functools.lru_cache(maxsize=512)  # most lines of an answer are those of the one before
def parse_field(line: str) -> tuple[str, str]:
    """A header's name, in lower case, and its value. Raises ValueError where it isn't one."""
    name, colon, value = line.partition(":")
    name, value = name.lower(), value.strip(" \t")  # RFC 9110, 5.5: other bytes are the value's
    good = NAME.fullmatch(name) and not CONTROL.search(line)
    if not colon or not good or (name == "content-length" and not DIGITS.fullmatch(value)):
        raise ValueError(line)
    return name, value


def parse_reply(head: str, body: bytes, method: str) -> Reply:
    """Parses an HTTP/1.1 status line and headers (RFC 9112). Raises ValueError on anything else."""
    lines = head.split("\r\n")
    found = STATUS_LINE.fullmatch(lines[0])
    if not found or CONTROL.search(lines[0]):
        raise ValueError(lines[0])
    status = int(found[1])
    headers: dict[str, str] = {}
    for name, value in map(parse_field, lines[1:]):
        if name in headers:
            if name == "content-length":
                raise ValueError("two lengths")
            value = f"{headers[name]}, {value}"  # RFC 9110, 5.3
        headers[name] = value
    if status == 101:  # nobody has asked for another protocol (RFC 9110, 15.2.2)
        raise ValueError(lines[0])
    if status < 200:
        return Reply(status, headers, body, 0)
    if method == "HEAD" or status in (204, 304):
        length = 0
    elif "transfer-encoding" in headers:
        # Both at once is how requests are smuggled (RFC 9112, 6.3).
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise ValueError("no length")
        return Reply(status, headers, body, 1)  # of the last chunk at least
    else:
        length = int(headers["content-length"]) if "content-length" in headers else -1
    if not 0 <= len(body) <= length:
        raise ValueError("more or less than the length says")
    return Reply(status, headers, body, length - len(body))
