"""The gunicorn worker: what a gateway needs of a server and gunicorn's gevent worker leaves open.

- The body of a request and that of an answer have rules of their own: `body`, `response`.
- A client must keep a pace: `client_timeout` seconds for each 64 KiB of a body, either way, or for
  what is left of it. One that is slower loses its connection; until then it costs a greenlet and no
  more than a block of memory.
- A large body needn't pass through the process: `objgw.relay` in the environment, a function of a
  pipe and a number, sends the next so many bytes of the answer out of the pipe.
- One address can't have all connections.
- When the worker is told to stop, connections that wait for a request close at once; only requests
  are waited for.
- Requests that aren't HTTP are refused with problem details (RFC 9457), as all others are.
- Plain requests take a short way past gunicorn's parser: `fastpath`.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.server import StreamServer
from gunicorn.http import errors, wsgi
from gunicorn.workers.ggevent import GeventWorker

from gateway.answers import Refusal, unavailable
from gateway.server.body import RequestBody
from gateway.server.fastpath import check_request, handle_plain
from gateway.server.response import Response, linger

ACCEPTED = 8  # connections at once

# What gunicorn's parser raises for what isn't HTTP; everything else that a request makes it raise
# is 400.
STATUS_OF_ERROR = (
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
    (errors.InvalidChunkSize, HTTPStatus.BAD_REQUEST),
)


class Idle:
    """The time in which a request must come.

    The worker wakes whoever is in it for too long with StopIteration.

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
        # The greenlets whose connections wait for a request, and until when.
        self.idle: dict[Any, float] = {}
        self.connections: Counter[str] = Counter()  # by the client's address
        self.server_class = self.server
        self.base_environ = {
            **wsgi.base_environ(self.cfg),
            "SCRIPT_NAME": "",
            "wsgi.multithread": True,
        }

    def server(self, listener: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """What accepts connections.

        gunicorn's own takes one connection in each round of the event loop, which is slow under
        load. This one takes several, but not all that wait, because the workers share them.
        """
        ssl_args = {name: options[name] for name in ("ssl_context",) if name in options}
        server = StreamServer(listener, partial(self.handle, listener), spawn=spawn, **ssl_args)
        server.max_accept = ACCEPTED
        return server

    def run(self) -> None:
        # A client that doesn't speak TLS isn't worth a stack trace.
        gevent.get_hub().NOT_ERROR += (ssl.SSLError,)
        gevent.spawn(self.close_idle)
        super().run()

    def timeout_ctx(self) -> Idle:
        """What gunicorn waits for a request in."""
        return Idle(self.cfg.keepalive, self.idle)

    def close_idle(self) -> None:
        """Closes connections whose request doesn't come in time.

        Once the worker is to stop, it closes all that wait for a request.
        """
        loop: Any = gevent.get_hub().loop
        while True:
            now = time.monotonic()
            for greenlet, deadline in list(self.idle.items()):
                if deadline < now or not self.alive:
                    loop.run_callback(self.end_wait, greenlet, deadline)
            gevent.sleep(0.5 if self.alive else 0.1)

    def end_wait(self, greenlet: Any, deadline: float) -> None:
        """Ends a wait, if it is still that one.

        gevent.kill() would hit the request which has come in between. This is called by the event
        loop, so that nothing comes in between (gevent.Greenlet.throw).
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
        """Serves a request, and the plain ones after it.

        Raises StopIteration when the connection is to be closed.
        """
        gevent.sleep(0)  # a connection that always has a next request would keep the others waiting
        check_request(req)
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
            handle_plain(self, listener_name, req, sock, addr)

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
        """The request as PEP 3333 wants it.

        gunicorn's own function also makes an error stream and more for each request.
        """
        unix = isinstance(listener_name, str)  # then the client has no address
        environ = {
            **self.base_environ,
            "REQUEST_METHOD": req.method,
            "PATH_INFO": unquote_to_bytes(req.path).decode("latin-1"),
            "QUERY_STRING": req.query,
            "SERVER_PROTOCOL": "HTTP/1.1" if req.version >= (1, 1) else "HTTP/1.0",
            "SERVER_NAME": listener_name if unix else listener_name[0],
            "SERVER_PORT": "" if unix else str(listener_name[1]),
            "REMOTE_ADDR": "" if unix else addr[0],
            "wsgi.input": req.body,
            "wsgi.url_scheme": req.scheme,
        }
        for name, value in req.headers:
            key = name.replace("-", "_")
            if "_" in name:  # the same key as that of another header, which it mustn't be taken for
                environ["objgw.underscored"] = [
                    *environ.get("objgw.underscored", ()),
                    f"HTTP_{key}",
                ]
                continue
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def handle_error(self, _req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that isn't HTTP, or on which the application failed.

        The connection closes then.
        """
        status = next(
            (status for kind, status in STATUS_OF_ERROR if isinstance(exc, kind)),
            HTTPStatus.INTERNAL_SERVER_ERROR,
        )
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
