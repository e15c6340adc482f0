"""An answer on its way to the client, at the pace that the client must keep.

A large body needn't pass through the process: `Response.relay` sends it out of a pipe. How the
connection ends after an answer, and within one, is in `closing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from email.utils import formatdate
from socket import SHUT_WR
from typing import Any

from gevent.socket import wait_write

from gateway.server.body import PACE, RequestBody
from gateway.server.closing import unsent, wait_taken


class Response:
    """An answer on its way to the client: PEP 3333's `start_response` and `write`.

    One without a Content-Length is chunked (RFC 9112, 7.1), which HTTP/1.0 doesn't know. Its last
    chunk is sent only at its end, so that what was broken off is recognised.

    Its headers are sent together with the first block of its body: one packet less for a small
    object. It says that the connection closes when the request's body wasn't read to its end.
    """

    def __init__(
        self, sock: Any, patience: float, method: str, body: RequestBody | None, *, closes: bool
    ) -> None:
        self.closes = closes  # the connection does after this answer
        self.begun = False
        self.ended = False  # all that it says was sent
        self.broken = False  # the client doesn't get all of it
        self.large = False  # a proxy on the way may hold some of it for seconds
        self._sock = sock
        self._patience = patience
        self._method = method
        self._body = body  # of the request
        self._status = self._fields = ""
        self._left = 0  # bytes of the answer's body still to come
        self._chunked = False
        self._framing = 0  # bytes that were sent around the chunks
        self._sent = 0  # bytes that the kernel has taken, without the head

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[..., None]:
        """As in PEP 3333.

        Raises ValueError where a header would end its line.
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
        if not fields.count("\r") == fields.count("\n") == len(headers) or "\0" in fields:
            raise ValueError(f"no answer that can be sent: {status} {headers}")
        if length is None:
            self._chunked, length = True, 0
            fields += "Transfer-Encoding: chunked\r\n"
        self._status, self._fields, self._left = status, fields, length
        self.large = length > PACE
        return self.write

    def write(self, data: bytes) -> None:
        """Sends a block, and no more of it than the length has room for."""
        if self._chunked:
            if data:
                self._send_chunk(b"%x\r\n%b\r\n" % (len(data), data), len(data))
            return
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
            self._sent += sent

    def end(self) -> None:
        """Sends what is still to be sent, and the FIN where the connection closes.

        An answer that is too short is a broken one.
        """
        if self._chunked:
            self._send_chunk(b"0\r\n\r\n", 0)
            self.large = self._sent > PACE
        elif not self.begun:
            self._send(self._head())
        self.broken = self._left > 0
        self.closes = self.closes or self.broken or self._cut
        self.ended = not self.broken
        if self.ended and self.closes:
            self._sock.shutdown(SHUT_WR)

    def delivered(self) -> int:
        """Bytes of the body that the client has, as far as the kernel knows.

        After a whole answer it first waits for the client to take them. Where it doesn't, the
        answer is broken. This is `objgw.delivered` in the environment.
        """
        left = wait_taken(self._sock, self._patience) if self.ended else unsent(self._sock)
        left -= self.ended and self.closes and left > 0  # the FIN
        self.broken = self.broken or left > 0
        return max(self._sent - self._framing - left, 0)

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
        self._sent = -len(head)
        return head.encode("latin-1")

    def _send_chunk(self, data: bytes, size: int) -> None:
        """Sends a chunk with so many bytes of the body."""
        head = b"" if self.begun else self._head()
        self._framing += len(data) - size
        self._send(head + data)

    def _send(self, data: bytes) -> None:
        """Raises TimeoutError when the client doesn't keep the pace."""
        self._sock.settimeout(self._patience)
        try:
            # Mostly it takes all. The third argument is gevent's, and says not to wait. TLS ignores
            # it, and waits.
            sent = self._sock.send(data, 0, 0.0)
        except BlockingIOError:
            sent = 0
        self._sent += sent
        if sent < len(data):
            with memoryview(data) as view:
                for start in range(sent, len(data), PACE):
                    self._send_all(view[start : start + PACE])

    def _send_all(self, data: memoryview) -> None:
        """Sends a piece within `patience` seconds, and counts what of it the kernel takes."""
        deadline = time.monotonic() + self._patience
        while data:
            self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
            sent = self._sock.send(data)
            self._sent += sent
            data = data[sent:]


def http_date() -> str:
    """The time as a Date header (RFC 9110, 6.6.1), made once a second."""
    now = int(time.time())
    if now != _date[0]:
        _date[:] = now, formatdate(now, usegmt=True)
    return str(_date[1])


_date: list[Any] = [0, ""]
