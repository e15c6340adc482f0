"""A request's body, at the pace that a client must keep.

`100 Continue` is sent when the application first reads the body, not before it has seen the
request, so that an upload that is refused is never sent (RFC 9110, 10.1.1).
"""

from __future__ import annotations

import ssl
import time
from contextlib import nullcontext
from typing import Any

import gevent
from gunicorn.http.body import LengthReader

PACE = 64 * 1024  # bytes for which a client has its time-out
TURN_SECONDS = 0.01  # for which a body that comes fast may keep the other connections waiting
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """A request's body as `wsgi.input`. It asks the client for the body when it is first read."""

    def __init__(self, req: Any, sock: Any, patience: float) -> None:
        self._body = req.body
        self._sock = sock
        self._patience = patience
        self._expects_continue = req._expected_100_continue
        # Within a record of TLS, each byte that comes would begin the socket's own time-out anew.
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._turn = time.monotonic()  # when others last had theirs
        self._deadline = 0.0
        self._due = 0  # bytes that must have come by then
        self._unreader = req.unreader
        self._unreader.sock = self  # until done() the server reads through recv()

    def done(self) -> None:
        """Has the server read from the socket again."""
        self._unreader.sock = self._sock

    def recv(self, size: int) -> bytes:
        """Receives from the client. Raises TimeoutError when it doesn't keep the pace."""
        now = time.monotonic()
        if now > self._turn + TURN_SECONDS:  # gevent lets others go on only where nothing has come
            gevent.sleep(0)
            self._turn = now = time.monotonic()
        if self._due <= 0:
            self._due, self._deadline = PACE, now + self._patience
        seconds = max(self._deadline - now, 0.001)
        self._sock.settimeout(seconds)
        with gevent.Timeout(seconds, TimeoutError) if self._tls else nullcontext():
            data = self._sock.recv(size)
        self._due -= len(data)
        return bytes(data)

    @property
    def failed(self) -> bool:
        """Whether it was malformed, so that nobody knows where the next request begins."""
        return bool(self._body.failed)

    @property
    def unread(self) -> bool:
        """Whether bytes of it may still be on their way."""
        reader = self._body.reader
        return bool(reader.length if isinstance(reader, LengthReader) else reader.parser)

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the body; without a size all of it."""
        self._ask()
        return bytes(self._body.read(size))

    def read1(self, size: int) -> bytes:
        """What has come of the body, at most `size` bytes.

        It is empty only at the body's end, or when the client has gone.

        A body with a length goes straight from the socket to the application. gunicorn's own `read`
        copies each byte through three buffers, of up to 1 MiB.
        """
        self._ask()
        reader = self._body.reader
        if not isinstance(reader, LengthReader):
            return bytes(self._body.read(size))
        size = min(size, reader.length)
        if not size:
            return b""
        data = reader.unreader.take_buffered()
        if data:
            reader.unreader.unread(data[size:])
            data = data[:size]
        else:
            data = self.recv(size)
        reader.length -= len(data)
        return bytes(data)

    def _ask(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._sock.sendall(CONTINUE)
