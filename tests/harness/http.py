"""HTTP byte for byte: requests as a test wants them, on a connection of its own, and what objects
are compared with.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
from contextlib import suppress
from email.utils import formatdate, parsedate_to_datetime

import pytest

from tests.harness.gateway import Answer, Gateway
from tests.harness.waiting import random_id

KIB, MIB, GIB = 1024, 1024**2, 1024**3

BROKEN = (
    http.client.HTTPException,
    ConnectionError,
)  # what a client sees of a connection that broke


class Wire:
    """One client connection to the gateway: what is sent is sent as it is, answers are read one
    after the other.
    """

    def __init__(self, gateway: Gateway, timeout: float = 20) -> None:
        self.sock = socket.create_connection((gateway.address, 3000), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.sock.getsockname()[1]
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises what is in BROKEN when there is none, or only a part of one."""
        line = self.file.readline()
        if not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            raise http.client.BadStatusLine(repr(line))
        status, headers = int(line.split()[1]), http.client.parse_headers(self.file)
        bodyless = method == "HEAD" or status in (204, 304) or status < 200
        length = 0 if bodyless else int(headers["Content-Length"])
        body = self.file.read(length)
        if len(body) < length:
            raise http.client.IncompleteRead(body, length - len(body))
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """All that comes until the gateway closes. Raises TimeoutError when it doesn't."""
        with suppress(ConnectionResetError):
            return self.file.read()
        return b""

    def assert_in_step(self, answer: Answer, id: str, body: bytes) -> None:
        """After `answer` the connection either serves another request rightly, or is closed, as
        announced.
        """
        if answer.headers["Connection"] == "close":
            assert self.rest() == b""
        else:
            self.send(head("GET", id))
            assert (second := self.answer()).status == 200
            assert second.body == body


def head(method: str, id: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """A request's head; the headers may hold any Latin-1."""
    return "\r\n".join(
        [f"{method} /object/{id} {version}", "Host: objgw", *headers, "", ""]
    ).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(data: bytes, size: int = 10_000) -> bytes:
    return b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + b"0\r\n\r\n"


def pattern(size: int) -> bytes:
    """So many bytes of which no two stretches look the same."""
    return hashlib.shake_256(b"%d" % size).digest(size)


def store(
    gateway: Gateway, body: bytes = b"an object", id: str | None = None, **headers: str
) -> str:
    """Store an object; the answer is its id."""
    id = id or random_id()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert gateway.put(id, body, headers=named).status == 200
    return id


def code(answer: Answer) -> int:
    """The answer's status, which is that of its problem details too where it is a refusal."""
    if answer.status >= 400 and answer.body:
        assert answer.problem
    return answer.status


def opaque(body: bytes) -> str:
    """The ETag that S3 gives to these bytes."""
    return f'"{hashlib.md5(body).hexdigest()}"'


MD5 = opaque(b"an object")


def held_by(gateway: Gateway) -> set[int]:
    """The client ports that the gateway still has a connection with, also where the client has
    left.
    """
    rows = [line.split() for line in gateway.read("cat", "/proc/net/tcp").splitlines()[1:]]
    return {
        int(row[2].split(":")[1], 16)
        for row in rows
        if row[1].endswith(":0BB8") and row[3] in ("01", "08")
    }


TE = "Transfer-Encoding: chunked"


def moved(date: str, seconds: int) -> str:
    """An HTTP date that is so many seconds later."""
    return formatdate(parsedate_to_datetime(date).timestamp() + seconds, usegmt=True)


def fill(template: str, etag: str, date: str) -> str:
    """A condition's value about an object with this ETag and this Last-Modified."""
    when = parsedate_to_datetime(date)
    return template.format(
        etag=etag,
        bare=etag.strip('"'),
        other=OTHER,
        before=moved(date, -10),
        date=date,
        after=moved(date, 10),
        rfc850=f"{when:%A, %d-%b-%y %H:%M:%S} GMT",
        asctime=time.asctime(when.timetuple()),
    )


OTHER = opaque(b"another object")

EXPECT = "Expect: 100-continue"


def refused_early(
    gateway: Gateway, request: bytes, status: int, landmark: tuple[str, bytes]
) -> None:
    """Assert that the first answer is this refusal, and that the connection is in step after it."""
    with Wire(gateway) as wire:
        wire.send(request)
        answer = wire.answer()
        assert code(answer) == status
        if answer.headers["Connection"] == "close":
            assert wire.rest() == b""
        else:  # the client sends the body nevertheless, or it doesn't: the gateway can't know
            pytest.fail("kept a connection on which the body may or may not come")
    assert gateway.get(landmark[0]).body == landmark[1]


NO_DATES = [
    "Sun, 99 Nov 1994 08:49:37 GMT",
    "Thu, 31 Feb 1994 08:49:37 GMT",
    "Tue, 29 Feb 2023 08:49:37 GMT",
    "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 23:59:60 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT",
    "Mon, 06 Nov 1994 08:49:37 GMT",
    "Xyz, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Abc 1994 08:49:37 GMT",
    "Sun, 6 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 +0900",
    "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "0",
    "-1",
    "",
]


HELLO = b"5\r\nhello\r\n0\r\n\r\n"  # a chunked body


def put(*headers: str, body: bytes = b"hello", version: str = "HTTP/1.1") -> bytes:
    """A PUT whose id is to be put in the place of {id}."""
    return head("PUT", "{id}", *headers, version=version) + body
