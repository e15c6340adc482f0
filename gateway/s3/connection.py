"""One HTTP/1.1 exchange with a node, over a bare socket.

A `Connection` sends bytes and reads one answer at a time. Its parser takes what servers of S3 send
and nothing else: an answer that isn't HTTP/1.1 to the letter, or of which nobody could tell whether
it was cut, is an error, and the connection isn't used again. A client library would cost several
times as much (bench/README.md).

Every server gives an object its length. Some send documents (errors, listings) in chunks: those are
read as a whole, up to `DOCUMENT_MAX`, and have a length from then on.

All that can go wrong comes as an UpstreamError. `answered` says whether a byte of an answer had
come by then, and the error's cause whether the node was silent. From that others decide whether the
request is sent again, and what a client is told.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

from gateway.readable import readable
from gateway.s3.body import Upload
from gateway.s3.chunks import read_chunks
from gateway.s3.headers import DOCUMENT_MAX, IF_MATCH
from gateway.s3.reply import Reply, parse_reply

# Bytes of an answer that are read at once: an object of 64 KiB comes whole, with its headers.
ANSWER_FIRST = (64 + 4) * 1024
ANSWER_HEAD_MAX = 64 * 1024  # bytes of a node's status line and headers
ERROR_BODY_MAX = 64 * 1024  # bytes of a node's error document
STATUS_BEGIN = b"HTTP/1."
SPEAKS_TLS = "it speaks TLS, and the gateway speaks plain HTTP"


def wants_tls(data: bytes) -> bool:
    """Whether this is what a server of TLS says to plain HTTP.

    It is an alert (RFC 8446, 5.1 and 6), or a 400 that says so, as of Go's server and nginx.
    """
    return data.startswith(b"\x15\x03") or b"HTTPS" in data[:2000]


class UpstreamError(Exception):
    """A node broke off, was silent for too long, or sent what isn't HTTP.

    The text is for the log, not for clients. The cause is a TimeoutError where it was silent.
    """


class BadAnswer(UpstreamError):
    """What came isn't HTTP/1.1 as S3 speaks it. `told` says what it is, for clients too."""

    def __init__(self, text: str, data: bytes) -> None:
        super().__init__(text)
        self.told = (
            SPEAKS_TLS if wants_tls(data) else "what it sends isn't HTTP/1.1 as S3 speaks it"
        )


class Request(NamedTuple):
    """What is asked of a node.

    The names of headers are in lower case. The path has nothing that would need to be escaped. A
    query after it is sorted by its names.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    upload: Upload | None = None
    request_id: str = ""  # for the node's own log
    trace: str = ""  # header lines (W3C Trace Context), each with its end

    @property
    def careful(self) -> bool:
        """Whether the body is sent only after the node's `100 Continue` (RFC 9110, 10.1.1).

        So a dead connection or a rejected key shows while the body can still be sent elsewhere.
        That matters for a body that can't be sent twice, and for one that mustn't be: a second
        create-only PUT would fail on the first. An empty body is never waited for: RFC 9110
        forbids it.
        """
        if self.upload is None or not self.upload.length:
            return False
        return not self.upload.replayable or not self.headers.keys().isdisjoint(IF_MATCH)

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again where nobody knows whether the node has read it.

        Its effect is the same twice, or the node hasn't asked for the body yet. A create-only PUT
        would fail on itself, and its client be told that it failed.
        """
        return self.upload is None or self.careful or self.headers.keys().isdisjoint(IF_MATCH)


class Connection:
    """A kept connection to a node. OSErrors and bad answers come as UpstreamError."""

    __slots__ = ("_ahead", "_readable", "answered", "reused", "since", "sock", "usable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._readable = readable(sock)
        self.reused = False
        self.since = 0.0  # when it was put into the pool
        self.answered = False  # a byte of an answer came since it was taken from the pool
        self.usable = True  # for another request, once the answer to this one is read
        self._ahead = b""  # what came together with an interim answer, and follows it

    def send(self, data: bytes) -> None:
        try:
            sent = self.sock.send(data)  # all, mostly; sendall() costs more, bench/README.md
            if sent < len(data):
                self.sock.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise UpstreamError(f"sending: {error}") from error

    def receive(self, size: int) -> bytes:
        """The next bytes, at most `size`; never none."""
        try:
            data = self.sock.recv(size)
        except OSError as error:
            raise UpstreamError(f"receiving: {error}") from error
        if not data:
            raise UpstreamError("the node closed the connection")
        self.answered = True
        return data

    def _first(self) -> bytes:
        """The first bytes of an answer. To try before they have come would be in vain, mostly."""
        try:
            if self._readable:
                self._readable.wait(self.sock.gettimeout())
        except OSError as error:
            raise UpstreamError(f"receiving: {error}") from error
        return self.receive(ANSWER_FIRST)

    def receive_into(self, pipe: int, size: int) -> int:
        """Moves the next bytes, at most `size`, into an empty pipe, and says how many.

        They aren't copied (splice(2)).
        """
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    moved = os.splice(self.sock.fileno(), pipe, size, flags=os.SPLICE_F_NONBLOCK)
                    break
                # These wait for them, as long as receive() would.
                if self._readable:
                    self._readable.wait(self.sock.gettimeout())
                else:
                    self.sock.recv(1, socket.MSG_PEEK)
        except OSError as error:
            raise UpstreamError(f"receiving: {error}") from error
        if not moved:
            raise UpstreamError("the node closed the connection")
        return moved

    def reply(
        self, method: str, *, until_continue: bool = False, after_upload: bool = False
    ) -> Reply:
        """Reads status, headers and what came with them.

        Interim answers are passed over, however many there are (RFC 9110, 15.2), but for a `100
        Continue` where that is waited for. Of an error, of an empty answer and of one in chunks it
        reads everything. What comes bit by bit may take as long as the socket's time-out, once
        more. Raises BadAnswer, and UpstreamError.
        """
        data, deadline = self._ahead or self._first(), 0.0
        while True:
            try:
                reply = parse_reply(data, method)
            except ValueError as error:
                raise BadAnswer(f"not an HTTP answer: {data[:80]!r}", data) from error
            if reply and (reply.status >= 200 or (until_continue and reply.status == 100)):
                break
            deadline = deadline or self._deadline()
            if reply:  # an interim one
                data = reply.body or self._receive_by(deadline, 65536)
            else:
                data += self._rest_of_head(data, deadline)
        self._ahead = b""
        if reply.status < 200:
            self._ahead, reply.body = reply.body, b""
        options = reply.headers.get("connection")  # RFC 9112, 9.6
        if options and "close" in [each.strip(" \t") for each in options.lower().split(",")]:
            self.usable = False
        if after_upload and reply.status >= 400:
            self.usable = False  # MinIO closes it after a 412, and doesn't say so
        if "transfer-encoding" in reply.headers and reply.left:
            self._collect(reply)
        elif reply.status >= 300 and reply.left:
            self.finish(reply, ERROR_BODY_MAX)
        return reply

    def _rest_of_head(self, data: bytes, deadline: float) -> bytes:
        """More of an answer of which this has come, and it isn't its whole head."""
        if not data.startswith(STATUS_BEGIN[: len(data)]):  # it may wait for us to say more
            raise BadAnswer(f"not an HTTP answer: {data[:80]!r}", data)
        if len(data) > ANSWER_HEAD_MAX:
            raise BadAnswer("the answer's headers are too long", data)
        return self._receive_by(deadline, 65536)

    def _collect(self, reply: Reply) -> None:
        """Reads a body in chunks. From then on the answer is as if it had come with a length."""
        deadline, begun = self._deadline(), reply.body
        maximum = ERROR_BODY_MAX if reply.status >= 300 else DOCUMENT_MAX
        try:
            receive = functools.partial(self._receive_by, deadline, 65536)
            reply.body, reply.left = read_chunks(begun, receive, maximum), 0
        except ValueError as error:
            raise BadAnswer(f"not HTTP's chunks: {error}: {begun[:80]!r}", begun) from error
        del reply.headers["transfer-encoding"]
        reply.headers["content-length"] = str(len(reply.body))

    def finish(self, reply: Reply, maximum: int | None = None) -> None:
        """Reads what is left of an answer's body, within the socket's time-out, once more.

        It isn't one that is sent on to a client. Raises UpstreamError, also for one that is longer
        than the `maximum`.
        """
        blocks, size, deadline = [reply.body], len(reply.body), self._deadline()
        while reply.left:
            if maximum is not None and size > maximum:
                raise UpstreamError("the answer's body is too long")
            blocks.append(self._receive_by(deadline, min(reply.left, 65536)))
            size += len(blocks[-1])
            reply.left -= len(blocks[-1])
        reply.body = b"".join(blocks)

    def _deadline(self) -> float:
        """The monotonic time until which what has begun to come may take."""
        return time.monotonic() + (self.sock.gettimeout() or math.inf)

    def _receive_by(self, deadline: float, size: int) -> bytes:
        """As `receive`. Raises UpstreamError, as for silence, where the time is over."""
        if time.monotonic() > deadline:
            raise UpstreamError("receiving: it comes too slowly") from TimeoutError()
        return self.receive(size)

    def end(self) -> None:
        """Makes whoever waits on it get an UpstreamError."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._readable:
            self._readable.close()
        self.sock.close()
