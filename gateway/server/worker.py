"""The gunicorn worker: what a gateway needs of a server and gunicorn's gevent worker leaves open.

- `100 Continue` is sent when the application first reads the body, not before it has seen the request, so that an
  upload that is refused is never sent (RFC 9110, 10.1.1).
- After an answer that left some of the request's body unread, the connection closes, and says so: gunicorn would
  read on, without end, to find the next request. It closes in two steps, so that the client gets the answer
  (RFC 9112, 9.6).
- A client must keep a pace: `client_timeout` seconds for each 64 KiB of a body, either way, or for what is left of it.
  One that is slower loses its connection; until then it costs a greenlet and no more than a block of memory.
- A large body needn't pass through the process: `objgw.relay` in the environment, a function of a pipe and a number,
  sends the next so many bytes of the answer out of the pipe.
- One address can't have all connections.
- When the worker is told to stop, connections that wait for a request close at once; only requests are waited for.
- Requests that aren't HTTP are refused with problem details (RFC 9457), as all others are.
- A plain request (`GET`, `HEAD` or `DELETE` without a body) on a connection that has had one takes a short way past
  gunicorn's parser. What is short about it is the request line, by one strict expression, and that headers which are
  byte for byte those of the request before aren't parsed again; all others, and every request that is in any way
  odd, go to gunicorn's parser, unread. So there is one judge of what is HTTP.

Nothing in here knows of objects; the application runs under any other WSGI server as well.
"""

from __future__ import annotations

import copy
import io
import os
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from socket import SHUT_WR
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.server import StreamServer
from gevent.socket import wait_write
from gunicorn.http import errors, wsgi
from gunicorn.http.body import LengthReader
from gunicorn.workers.ggevent import GeventWorker

from gateway.objects.semantics import Refusal, unavailable

LINGER_SECONDS = 2.0  # that a client may take to read an answer to an upload it hasn't finished
ACCEPTED = 8  # connections at once
PACE = 64 * 1024  # bytes for which a client has its time-out
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# A plain request: nothing of its line has to be decoded, its method needs no body, and it has no header by which a
# request ends elsewhere than after its headers, or its connection goes on otherwise.
PLAIN = re.compile(rb"(GET|HEAD|DELETE) (/[0-9A-Za-z/]{0,1000}) HTTP/1\.1\r\n")
PLAIN_MAX = 8192  # bytes that are read at once, and so of a plain request
FRAMING = frozenset({"CONNECTION", "CONTENT-LENGTH", "EXPECT", "TRANSFER-ENCODING", "UPGRADE"})

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
        self._unreader = req.unreader
        self._unreader.sock = self  # until done() the server reads through recv()

    def done(self) -> None:
        """Has the server read from the socket again."""
        self._unreader.sock = self._sock

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


class Response:
    """An answer on its way to the client: PEP 3333's `start_response` and `write`. It must have a Content-Length.

    Its headers are sent together with the first block of its body: one packet less for a small object. It says that
    the connection closes when the request's body wasn't read to its end.
    """

    def __init__(self, sock: Any, patience: float, method: str, body: RequestBody | None, *, closes: bool) -> None:
        self.closes = closes  # the connection does after this answer
        self.begun = False
        self._sock = sock
        self._patience = patience
        self._method = method
        self._body = body  # of the request
        self._status = self._fields = ""
        self._left = 0  # bytes of the answer's body still to come

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
        """As in PEP 3333. Raises ValueError where there is no length, or a header would end its line."""
        if exc_info and self.begun:
            raise exc_info[1].with_traceback(exc_info[2])
        length = None
        for name, value in headers:
            if name == "Content-Length" or name.lower() == "content-length":
                length = int(value)
        if self._method == "HEAD" or status.startswith(("204", "304")):
            length = 0
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if length is None or not fields.count("\r") == fields.count("\n") == len(headers) or "\0" in fields:
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
        """Sends what is still to be sent; after an answer that is too short the connection closes."""
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
        head = f"HTTP/1.1 {self._status}\r\nDate: {http_date()}\r\nConnection: {connection}\r\n{self._fields}\r\n"
        return head.encode("latin-1")

    def _send(self, data: bytes) -> None:
        """Raises TimeoutError when the client doesn't keep the pace."""
        self._sock.settimeout(self._patience)  # sendall() takes it for all that it is given
        try:
            sent = self._sock.send(data, 0, 0.0)  # all, mostly; the third argument is gevent's: don't wait
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
        self.server_class = self.server
        self.base_environ = {**wsgi.base_environ(self.cfg), "SCRIPT_NAME": "", "wsgi.multithread": True}

    def server(self, listener: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """What accepts connections; gunicorn's own takes one in each round of the event loop, which is slow under load.

        It takes several, but not all that wait: the workers share them.
        """
        ssl_args = {name: options[name] for name in ("ssl_context",) if name in options}
        server = StreamServer(listener, partial(self.handle, listener), spawn=spawn, **ssl_args)
        server.max_accept = ACCEPTED
        return server

    def run(self) -> None:
        gevent.get_hub().NOT_ERROR += (ssl.SSLError,)  # a client that doesn't speak TLS isn't worth a stack trace
        gevent.spawn(self.close_idle)
        super().run()

    def timeout_ctx(self) -> Idle:
        """What gunicorn waits for a request in."""
        return Idle(self.cfg.keepalive, self.idle)

    def close_idle(self) -> None:
        """Closes connections whose request doesn't come in time; once the worker is to stop, all that wait for one."""
        loop: Any = gevent.get_hub().loop
        while True:
            now = time.monotonic()
            for greenlet, deadline in list(self.idle.items()):
                if deadline < now or not self.alive:
                    loop.run_callback(self.end_wait, greenlet, deadline)
            gevent.sleep(0.5 if self.alive else 0.1)

    def end_wait(self, greenlet: Any, deadline: float) -> None:
        """Ends a wait, if it is still that one: gevent.kill() would hit the request which has come in between.

        Called by the event loop, so that nothing comes in between here (gevent.Greenlet.throw).
        """
        if self.idle.get(greenlet) == deadline:
            greenlet.throw(StopIteration)

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
        """Serves a request, and the plain ones after it. Raises StopIteration when the connection is to be closed."""
        gevent.sleep(0)  # a connection that always has a next request would keep the others waiting
        check(req)
        body = req.body = RequestBody(req, sock, self.client_timeout)
        closes = req.should_close() or not self.alive
        response = Response(sock, self.client_timeout, req.method, body, closes=closes)
        try:
            self.respond(self.environ(req, addr, listener_name), response)
        finally:
            body.done()
            sock.settimeout(None)
        if response.closes:
            if body.unread or body.failed:
                linger(sock)
            raise StopIteration
        if not self.cfg.is_ssl:
            self.handle_plain(listener_name, req, sock, addr)

    def handle_plain(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serves the plain requests that follow; the first other one it leaves to gunicorn's parser, unread.

        Clients send the same headers again and again, so those of the request before are kept with what came of them.
        """
        hub: Any = gevent.get_hub()
        readable = hub.loop.io(sock.fileno(), 1)
        idle = self.timeout_ctx()
        known, environ = b"", None
        data = req.unreader.take_buffered()
        try:
            while True:
                if data:
                    gevent.sleep(0)  # as above
                else:
                    with idle:
                        hub.wait(readable)  # before trying to read: it is the others' turn, too
                    data = sock.recv(PLAIN_MAX)
                    if not data:
                        raise StopIteration
                line, end = PLAIN.match(data), data.find(b"\r\n\r\n")
                if not line or end < 0:
                    return
                block = data[line.end() : end]
                if block != known:
                    alike = plain(req, block)
                    known, environ = block, alike and self.environ(alike, addr, listener_name)
                if environ is None:
                    return
                data = data[end + 4 :]
                method = line[1].decode()
                own = {"REQUEST_METHOD": method, "PATH_INFO": line[2].decode(), "wsgi.input": io.BytesIO()}
                response = Response(sock, self.client_timeout, method, None, closes=not self.alive)
                self.respond({**environ, **own}, response)
                if response.closes:
                    raise StopIteration
        finally:
            readable.close()
            sock.settimeout(None)
            req.unreader.unread(data)

    def respond(self, environ: dict[str, Any], response: Response) -> None:
        """Has the application answer. Raises StopIteration where the answer can't be ended."""
        if not self.cfg.is_ssl:
            environ["objgw.relay"] = response.relay
        try:
            blocks = self.wsgi(environ, response.start_response)
            try:
                for block in blocks:
                    response.write(block)
                response.end()
            finally:
                if hasattr(blocks, "close"):
                    blocks.close()
        except OSError as error:  # the client has gone or is too slow, or the application broke off
            self.log.debug("Connection broken off: %s", error)
            raise StopIteration from None
        except Exception:
            if not response.begun:
                raise  # handle_error() answers
            self.log.exception("Error within an answer")
            raise StopIteration from None

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


def plain(req: Any, block: bytes) -> Any:
    """A plain request with these header lines, on the connection of `req`; None where it isn't one.

    gunicorn's parser judges the lines, as it does those of all requests.
    """
    alike = copy.copy(req)
    alike.method, alike.version, alike.path, alike.query, alike.body = "GET", (1, 1), "/", "", None
    try:
        alike.headers = alike.parse_headers(block)
        check(alike)
    except errors.ParseException:
        return None
    return alike if FRAMING.isdisjoint(name for name, _ in alike.headers) else None


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
