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
# What servers say of themselves with each answer, and neither the gateway nor a client needs.
UNUSED = frozenset(
    {
        "date",
        "server",
        "strict-transport-security",
        "vary",
        "x-amz-id-2",
        "x-amz-request-id",
        "x-content-type-options",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-xss-protection",
    }
)
FIELDS_MAX = 4096  # header lines that are kept
FIELD_MAX = 200  # characters of a line that is kept
ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")
# What servers say where there is no room: MinIO on a large disk, MinIO and Ceph at the end of a
# quota.
FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})


@dataclass(slots=True)
class Reply:
    """A node's answer.

    The names of its headers are in lower case, and those in `UNUSED` are left out. `body` is what
    has come of the body so far.
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


class Fields(dict[str, tuple[str, str] | None]):
    """The header lines that nodes have sent, parsed. None stands for one that nobody needs.

    Most lines of an answer are those of an answer before.
    """

    def __missing__(self, line: str) -> tuple[str, str] | None:
        """Parses a new line: the name in lower case, and the value.

        Raises ValueError where it isn't a header.
        """
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")  # RFC 9110, 5.5: other bytes are the value's
        good = NAME.fullmatch(name) and not CONTROL.search(line)
        if not colon or not good or (name == "content-length" and not DIGITS.fullmatch(value)):
            raise ValueError(line)
        field = None if name in UNUSED else (name, value)
        if len(line) <= FIELD_MAX and name != "x-amz-request-id":  # which no two answers share
            if len(self) >= FIELDS_MAX:
                self.clear()
            self[line] = field
        return field


fields = Fields()


@functools.lru_cache(maxsize=64)
def parse_status(line: str) -> int:
    """The status of a status line (RFC 9112, 4). Raises ValueError where it isn't one."""
    found = STATUS_LINE.fullmatch(line)
    if not found or CONTROL.search(line):
        raise ValueError(line)
    return int(found[1])


def parse_reply(data: bytes, method: str) -> Reply | None:
    """Parses an HTTP/1.1 status line, headers and what follows them (RFC 9112).

    None where the headers haven't come to their end. Raises ValueError on anything else.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    body = data[end + 4 :]
    status = parse_status(first)
    headers: dict[str, str] = {}
    for line in lines:
        field = fields[line]
        if field is None:
            continue
        name, value = field
        if name in headers:
            if name == "content-length":
                raise ValueError("two lengths")
            value = f"{headers[name]}, {value}"  # RFC 9110, 5.3
        headers[name] = value
    if status == 101:  # nobody has asked for another protocol (RFC 9110, 15.2.2)
        raise ValueError(first)
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
