"""The gunicorn worker: what a gateway needs of a server and gunicorn's gevent worker leaves open.

- `100 Continue` is sent when the application first reads the body, not before it has seen the request, so that an
  upload that is refused is never sent (RFC 9110, 10.1.1).
- After an answer that left some of the request's body unread, the connection closes, and says so: gunicorn would
  read on, without end, to find the next request. It closes in two steps, so that the client gets the answer
  (RFC 9112, 9.6).
- A client must keep a pace: `client_timeout` seconds for each 64 KiB of a body, either way, or for what is left of it.
  One that is slower loses its connection; until then it costs a greenlet and no more than a block of memory.
- One address can't have all connections.
- When the worker is told to stop, connections that wait for a request close at once; only requests are waited for.
- Requests that aren't HTTP are refused with problem details (RFC 9457), as all others are.

Nothing in here knows of objects; the application runs under any other WSGI server as well.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from email.utils import formatdate
from http import HTTPStatus
from socket import SHUT_WR
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gunicorn.http import errors, wsgi
from gunicorn.http.body import LengthReader
from gunicorn.workers.ggevent import GeventWorker

from objgwhttp import Refusal, unavailable

LINGER_SECONDS = 2.0  # that a client may take to read an answer to an upload it hasn't finished
PACE = 64 * 1024  # bytes for which a client has its time-out
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# What gunicorn's parser raises for what isn't HTTP; everything else that a request makes it raise is 400.
STATUS = (
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
    (errors.InvalidChunkSize, HTTPStatus.BAD_REQUEST),
)


class RequestBody:
    """A request's body as `wsgi.input`. It asks the client for the body when it is first read."""

    def __init__(self, req: Any, sock: Any, patience: float) -> None:
        self._body = req.body
        self._sock = sock
        self._patience = patience
        self._expects_continue = req._expected_100_continue
        self._deadline = 0.0
        self._due = 0  # bytes that must have come by then
        req.unreader.sock = self  # until done() the server reads through recv()
        self.done = lambda: setattr(req.unreader, "sock", sock)

    def recv(self, size: int) -> bytes:
        """Receives from the client. Raises TimeoutError when it doesn't keep the pace."""
        now = time.monotonic()
        if self._due <= 0:
            self._due, self._deadline = PACE, now + self._patience
        self._sock.settimeout(max(self._deadline - now, 0.001))
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
        """What has come of the body, at most `size` bytes; none only at its end, or when the client has gone.

        A body with a length goes straight from the socket to the application. gunicorn's own `read` copies each byte
        through three buffers, of up to 1 MiB.
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


class Response(wsgi.Response):
    """An answer which says that the connection closes when the request's body wasn't read to its end.

    Its headers are sent together with the first block of its body: one packet less for a small object.
    """

    headers_sent: bool
    pending = b""  # headers that wait for that block

    def __init__(self, req: Any, sock: Any, cfg: Any, patience: float) -> None:
        super().__init__(req, sock, cfg)
        self.patience = patience

    def should_close(self) -> bool:
        return bool(super().should_close() or self.req.body.failed or self.req.body.unread)

    def default_headers(self) -> list[str]:
        version = self.req.version
        connection = "close" if self.should_close() else "keep-alive"
        lines = [f"HTTP/{version[0]}.{version[1]} {self.status}\r\nDate: {http_date()}\r\nConnection: {connection}\r\n"]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        return lines

    def send_headers(self) -> None:
        if not self.headers_sent:
            lines = self.default_headers() + [f"{name}: {value}\r\n" for name, value in self.headers]
            self.pending = f"{''.join(lines)}\r\n".encode("latin-1")
            self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        self._send(data)

    def close(self) -> None:
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _send(self, data: bytes) -> None:
        """Sends what is pending and `data`. Raises TimeoutError when the client doesn't keep the pace."""
        if self.pending:
            data = self.pending + data
            self.pending = b""
        self.sock.settimeout(self.patience)  # sendall() takes it for all that it is given
        if len(data) <= PACE:
            self.sock.sendall(data)
            return
        with memoryview(data) as view:
            for start in range(0, len(data), PACE):
                self.sock.sendall(view[start : start + PACE])


def http_date() -> str:
    """The time as a Date header (RFC 9110, 6.6.1), made once a second."""
    now = int(time.time())
    if now != _date[0]:
        _date[:] = now, formatdate(now, usegmt=True)
    return str(_date[1])


_date: list[Any] = [0, ""]


class Idle:
    """The time in which a request must come. The worker wakes whoever is in it for too long with StopIteration.

    A timer for each request would do the same and cost more: bench/README.md.
    """

    def __init__(self, seconds: float, idle: dict[Any, float]) -> None:
        self.seconds = seconds
        self.idle = idle

    def __enter__(self) -> None:
        self.idle[gevent.getcurrent()] = time.monotonic() + self.seconds

    def __exit__(self, *_error: object) -> None:
        del self.idle[gevent.getcurrent()]


class Worker(GeventWorker):
    """gunicorn's gevent worker with the differences that the module's text names."""

    client_timeout = 30.0  # seconds; this and the next are set in gunicorn.conf.py
    client_connections = 1024  # of one address

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: dict[Any, float] = {}  # greenlets whose connections wait for a request, and until when
        self.connections: Counter[str] = Counter()  # by the client's address
        self.base_environ = {**wsgi.base_environ(self.cfg), "SCRIPT_NAME": "", "wsgi.multithread": True}

    def run(self) -> None:
        gevent.get_hub().NOT_ERROR += (ssl.SSLError,)  # a client that doesn't speak TLS isn't worth a stack trace
        gevent.spawn(self.close_idle)
        super().run()

    def timeout_ctx(self) -> Idle:
        """What gunicorn waits for a request in."""
        return Idle(self.cfg.keepalive, self.idle)

    def close_idle(self) -> None:
        """Closes connections whose request doesn't come in time; once the worker is to stop, all that wait for one."""
        while True:
            now = time.monotonic()
            for greenlet, deadline in list(self.idle.items()):
                if deadline < now or not self.alive:
                    gevent.kill(greenlet, StopIteration)
            gevent.sleep(0.5 if self.alive else 0.1)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serves one connection."""
        address = addr[0] if addr else ""  # none on a Unix socket
        self.connections[address] += 1
        try:
            if self.connections[address] > self.client_connections:
                self.refuse(client, unavailable("Too many connections from this address."))
                client.close()
                return
            super().handle(listener, client, addr)
        finally:
            self.connections[address] -= 1
            if not self.connections[address]:
                del self.connections[address]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serves one request. Raises StopIteration when the connection is to be closed."""
        gevent.sleep(0)  # a connection that always has a next request would keep the others waiting
        check(req)
        req.body = RequestBody(req, sock, self.client_timeout)
        response = Response(req, sock, self.cfg, self.client_timeout)
        if not self.alive:
            response.force_close()
        try:
            blocks = self.wsgi(self.environ(req, addr, listener_name), response.start_response)
            try:
                for block in blocks:
                    response.write(block)
                response.close()
            finally:
                if hasattr(blocks, "close"):
                    blocks.close()
        except OSError as error:  # the client has gone or is too slow, or the application broke off
            self.log.debug("Connection broken off: %s", error)
            raise StopIteration from None
        except Exception:
            if not response.headers_sent:
                raise  # handle_error() answers
            self.log.exception("Error within an answer")
            raise StopIteration from None
        finally:
            req.body.done()
            sock.settimeout(None)
        if response.should_close():
            if req.body.unread or req.body.failed:
                linger(sock)
            raise StopIteration

    def environ(self, req: Any, addr: Any, listener_name: Any) -> dict[str, Any]:
        """The request as PEP 3333 wants it. gunicorn's own also makes an error stream and more for each request."""
        unix = isinstance(listener_name, str)  # then the client has no address
        environ = {
            **self.base_environ,
            "REQUEST_METHOD": req.method,
            "PATH_INFO": unquote_to_bytes(req.path).decode("latin-1"),
            "QUERY_STRING": req.query,
            "SERVER_PROTOCOL": "HTTP/1.1" if req.version == (1, 1) else "HTTP/1.0",
            "SERVER_NAME": listener_name if unix else listener_name[0],
            "SERVER_PORT": "" if unix else str(listener_name[1]),
            "REMOTE_ADDR": "" if unix else addr[0],
            "wsgi.input": req.body,
            "wsgi.url_scheme": req.scheme,
        }
        for name, value in req.headers:
            key = name.replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def handle_error(self, _req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that isn't HTTP, or on which the application failed; the connection closes."""
        status = next((status for kind, status in STATUS if isinstance(exc, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.exception("Error handling request")
            detail = "The gateway failed; its log says why."
        else:
            self.log.info("Invalid request from %s: %r", addr[0] if addr else "-", exc)
            detail = "The request isn't valid HTTP/1.1."
        self.refuse(client, Refusal(status, detail))

    def refuse(self, client: Any, refusal: Refusal) -> None:
        """Answers on a connection on which there is no request, and closes its sending side."""
        answer = refusal.answer()
        lines = [
            f"HTTP/1.1 {answer.status}",
            "Connection: close",
            *[f"{name}: {value}" for name, value in answer.headers],
        ]
        try:
            client.sendall("\r\n".join([*lines, "", ""]).encode() + b"".join(answer.body))
            linger(client)
        except OSError as error:
            self.log.debug("Connection broken off: %s", error)


def check(req: Any) -> None:
    """What gunicorn's parser leaves open. Raises errors.InvalidHeader."""
    names = [name for name, _ in req.headers]
    if req.version >= (1, 1) and "HOST" not in names:  # RFC 9112, 3.2
        raise errors.InvalidHeader("HOST", req=req)
    options = ",".join(value for name, value in req.headers if name == "CONNECTION").lower().split(",")
    if "close" in [option.strip() for option in options]:  # RFC 9112, 9.6: also among others
        req.force_close()


def linger(sock: Any) -> None:
    """Closes the sending side and lets the client read: closing with bytes unread would reset what was sent."""

    def discard() -> None:
        while sock.recv(65536):
            pass

    try:
        sock.shutdown(SHUT_WR)
        gevent.with_timeout(LINGER_SECONDS, discard, timeout_value=None)
    except OSError:
        pass  # it has gone by itself
