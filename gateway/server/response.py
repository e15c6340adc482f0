"""An answer on its way to the client, at the pace that the client must keep.

A large body needn't pass through the process: `Response.relay` sends it out of a pipe. After an
answer that left some of the request's body unread, the connection closes in two steps, so that the
client gets the answer (RFC 9112, 9.6).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from email.utils import formatdate
from socket import SHUT_WR
from typing import Any

import gevent
from gevent.socket import wait_write

from gateway.server.body import PACE, RequestBody

LINGER_SECONDS = 2.0  # that a client may take to read an answer to an upload it hasn't finished


class Response:
    """An answer on its way to the client: PEP 3333's `start_response` and `write`.

    It must have a Content-Length.

    Its headers are sent together with the first block of its body: one packet less for a small
    object. It says that the connection closes when the request's body wasn't read to its end.
    """

    def __init__(
        self, sock: Any, patience: float, method: str, body: RequestBody | None, *, closes: bool
    ) -> None:
        self.closes = closes  # the connection does after this answer
        self.begun = False
        self._sock = sock
        self._patience = patience
        self._method = method
        self._body = body  # of the request
        self._status = self._fields = ""
        self._left = 0  # bytes of the answer's body still to come

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[..., None]:
        """As in PEP 3333.

        Raises ValueError where there is no length, or a header would end its line.
        """
        if exc_info and self.begun:
            raise exc_info[1].with_traceback(exc_info[2])
        length = None
        for name, value in headers:
            if name == "Content-Length" or name.lower() == "content-length":
                length = int(value)
        if self._method == "HEAD" or status.startswith(("204", "304")):
            length = 0
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if (
            length is None
            or not fields.count("\r") == fields.count("\n") == len(headers)
            or "\0" in fields
        ):
            raise ValueError(f"no answer that can be sent: {status} {headers}")
        self._status, self._fields, self._left = status, fields, length
        return self.write

    def write(self, data: bytes) -> None:
        """Sends a block, and no more of it than the length has room for."""
        data = data[: self._left]
        self._left -= len(data)
        if not self.begun:
            data = self._head() + data
        if data:
            self._send(data)

    def relay(self, pipe: int, size: int) -> None:
        """Sends so many bytes of the body out of a pipe, without copying them (splice(2)).

        Raises TimeoutError when the client doesn't keep the pace.
        """
        if not self.begun:
            self._send(self._head())
        self._left -= size
        sock, due = self._sock.fileno(), 0
        while size:
            if due <= 0:
                due, deadline = PACE, time.monotonic() + self._patience
            try:
                sent = os.splice(pipe, sock, size, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                wait_write(sock, max(deadline - time.monotonic(), 0.001))
                continue
            size -= sent
            due -= sent

    def end(self) -> None:
        """Sends what is still to be sent.

        After an answer that is too short the connection closes.
        """
        if not self.begun:
            self._send(self._head())
        self.closes = self.closes or self._left > 0 or self._cut

    @property
    def _cut(self) -> bool:
        """Whether the request's body wasn't read to its end."""
        return self._body is not None and (self._body.unread or self._body.failed)

    def _head(self) -> bytes:
        self.begun = True
        self.closes = self.closes or self._cut
        connection = "close" if self.closes else "keep-alive"
        head = (
            f"HTTP/1.1 {self._status}\r\nDate: {http_date()}\r\n"
            f"Connection: {connection}\r\n{self._fields}\r\n"
        )
        return head.encode("latin-1")

    def _send(self, data: bytes) -> None:
        """Raises TimeoutError when the client doesn't keep the pace."""
        self._sock.settimeout(self._patience)  # sendall() takes it for all that it is given
        try:
            # Mostly it takes all. The third argument is gevent's, and says not to wait.
            sent = self._sock.send(data, 0, 0.0)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            with memoryview(data) as view:
                for start in range(sent, len(data), PACE):
                    self._sock.sendall(view[start : start + PACE])


def http_date() -> str:
    """The time as a Date header (RFC 9110, 6.6.1), made once a second."""
    now = int(time.time())
    if now != _date[0]:
        _date[:] = now, formatdate(now, usegmt=True)
    return str(_date[1])


_date: list[Any] = [0, ""]


def linger(sock: Any) -> None:
    """Closes the sending side and lets the client read.

    To close with bytes unread would reset the connection, and what was sent would be lost.
    """

    def discard() -> None:
        while sock.recv(65536):
            pass

    try:
        sock.shutdown(SHUT_WR)
        gevent.with_timeout(LINGER_SECONDS, discard, timeout_value=None)
    except OSError:
        pass  # it has gone by itself
