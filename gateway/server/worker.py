"""The gunicorn worker: what a gateway needs of a server and gunicorn's gevent worker leaves open.

- The body of a request and that of an answer have rules of their own: `body`, `response`.
- A client must keep a pace: `client_timeout` seconds for each 64 KiB of a body, either way, or for
  what is left of it. One that is slower loses its connection; until then it costs a greenlet and no
  more than a block of memory.
- A large body needn't pass through the process: `objgw.relay` in the environment, a function of a
  pipe and a number, sends the next so many bytes of the answer out of the pipe.
- One address can't have all connections. The log says once that it has too many (`crowd`).
- A stop loses nothing. When the worker is told to stop, connections that have waited for a request
  for a second close, and the others within one; requests, and clients that still take an answer,
  are waited for (`closing`). What isn't done a second before the end of `graceful_timeout`, when
  gunicorn kills the worker, is broken off.
- Requests that aren't HTTP are refused with problem details (RFC 9457), as all others are.
- Plain requests take a short way past gunicorn's parser: `fastpath`.
"""

from __future__ import annotations

import math
import ssl
import time
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors, get_parser, wsgi
from gunicorn.workers.ggevent import GeventWorker

from gateway.answers import Headers, Refusal, unavailable
from gateway.cors import Cors
from gateway.server.body import RequestBody
from gateway.server.closing import LINGER_SECONDS, Broken, Closes, linger, reset, unsent
from gateway.server.crowd import Crowd
from gateway.server.fastpath import check_request, handle_plain
from gateway.server.idle import Idle
from gateway.server.refusing import as_bytes, refusal_of
from gateway.server.response import Response
from gateway.status.observation import STOPPED, current

ACCEPTED = 8  # connections at once


class Worker(GeventWorker):
    """gunicorn's gevent worker with the differences that the module's text names."""

    client_timeout = 30.0  # seconds; this and the next three are set in gunicorn.conf.py
    client_connections = 1024  # of one address
    cors: Cors | None = None
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: dict[Any, Idle] = {}  # by the greenlets whose connections wait for a request
        # Of those that had a large answer, until when a proxy on the way may still hold some of it.
        self.settling: dict[Any, float] = {}
        self.crowd = Crowd()
        # Seconds at a stop: for which a connection that has just come, or had an answer, may still
        # send a request, because its client doesn't know of the stop; and before the end of
        # `graceful_timeout`, in which what is left is broken off.
        self.moment = min(1.0, self.cfg.graceful_timeout / 4)
        self.stop_at = math.inf  # monotonic time at which what is left is broken off
        self.base_environ = {
            **wsgi.base_environ(self.cfg),
            "SCRIPT_NAME": "",
            "wsgi.multithread": True,
        }

    def run(self) -> None:
        """Accepts connections until the worker is told to stop, and waits for those that there are.

        gunicorn's own accepts one connection in each round of the event loop, which is slow under
        load, and has no time left to end what isn't done. This one takes several, but not all that
        wait, because the workers share them.
        """
        # A client that doesn't speak TLS isn't worth a stack trace.
        gevent.get_hub().NOT_ERROR += (ssl.SSLError,)
        tls: dict[str, Any] = {}
        if self.tls:
            tls = {"ssl_context": self.tls, "do_handshake_on_connect": False}
        pool = Pool(self.worker_connections)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            server = StreamServer(listener, partial(self.handle, listener), spawn=pool, **tls)
            server.max_accept = ACCEPTED
            server.start()
            servers.append(server)
        while self.alive:
            self.close_idle()
            self.notify()
            gevent.sleep(0.5)
        for server in servers:
            server.close()
        while len(pool) and time.monotonic() < self.stop_at:
            self.close_idle()
            self.notify()
            gevent.sleep(0.1)
        if len(pool):
            self.log.warning("%d connections aren't done in time and are broken off", len(pool))
            pool.kill(timeout=0.5)

    def handle_exit(self, _sig: int, _frame: Any) -> None:
        """SIGTERM. gunicorn kills the worker when `graceful_timeout` is over."""
        self.stop_at = time.monotonic() + self.cfg.graceful_timeout - self.moment
        self.alive = False

    def waiting(self, sock: Any) -> Idle:
        """What a connection waits for its next request in."""
        return Idle(sock, self.idle)

    def close_idle(self) -> None:
        """Closes connections whose request doesn't come in time."""
        loop: Any = gevent.get_hub().loop
        seconds = self.cfg.keepalive if self.alive else self.moment
        for greenlet, idle in list(self.idle.items()):
            if idle.over(seconds):
                loop.run_callback(self.end_wait, greenlet, idle, seconds)

    def end_wait(self, greenlet: Any, idle: Idle, seconds: float) -> None:
        """Ends a wait, if it is still that one.

        gevent.kill() would hit the request which has come in between. This is called by the event
        loop, so that nothing comes in between (gevent.Greenlet.throw).
        """
        if self.idle.get(greenlet) is idle and idle.over(seconds):
            greenlet.throw(StopIteration)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serves one connection."""
        address = addr[0] if addr else ""  # none on a Unix socket
        few = self.crowd.came(address, self.client_connections)
        try:
            if few:
                self.serve(listener, client, addr)
            else:
                client.settimeout(self.moment)
                self.refuse(client, unavailable("Too many connections from this address."))
        except (Broken, OSError, gevent.GreenletExit) as error:
            self.log.debug("Connection broken off: %r", error)
            reset(client)
        finally:
            if unsent(client):  # whoever waited for it has given up
                reset(client)
            client.close()
            self.settling.pop(gevent.getcurrent(), None)
            self.crowd.went(address, self.client_connections)

    def serve(self, listener: Any, client: Any, addr: Any) -> None:
        """Serves the requests of a connection until it ends. Raises Broken and OSError."""
        client.setblocking(1)
        parser, listener_name = get_parser(self.cfg, client, addr), listener.getsockname()
        req, closes = None, False
        try:
            if self.tls:
                with self.waiting(client):
                    client.do_handshake()
            while True:
                req = None
                with self.waiting(client):
                    req = next(parser)
                self.handle_request(listener_name, req, client, addr)
        except Closes:
            closes = True
        except (StopIteration, errors.NoMoreData):  # the client has closed, or its time is over
            pass
        except (Broken, OSError):
            raise
        except Exception as error:
            self.handle_error(req, client, addr, error)
            return
        settling = self.settling.get(gevent.getcurrent(), 0.0) - time.monotonic()
        if closes or settling > 0 or unsent(client):
            linger(client, self.client_timeout, max(settling, LINGER_SECONDS))

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serves a request, and the plain ones after it.

        Raises Closes, Broken or StopIteration when the connection is to be closed.
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
            raise Closes
        if not self.tls:
            handle_plain(self, listener_name, req, sock, addr)

    def respond(self, environ: dict[str, Any], response: Response) -> None:
        """Has the application answer. Raises Broken where the client doesn't get all of it."""
        environ["objgw.delivered"] = response.delivered
        if not self.tls:
            environ["objgw.relay"] = response.relay
        try:
            blocks = self.wsgi(environ, response.start_response)
            try:
                for block in blocks:
                    response.write(block)
                response.end()
            except gevent.GreenletExit:  # the time to stop is over
                current.get().reason = STOPPED
                raise
            finally:
                if hasattr(blocks, "close"):
                    blocks.close()
        except OSError as error:  # the client has gone or is too slow, or the application broke off
            raise Broken from error
        except Exception:
            if not response.begun:
                raise  # handle_error() answers
            self.log.exception("Error within an answer")
            raise Broken from None
        if response.broken:
            raise Broken
        if response.large:
            self.settling[gevent.getcurrent()] = time.monotonic() + self.cfg.graceful_timeout

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

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that isn't HTTP, or on which the application failed.

        The connection closes then.
        """
        refusal = refusal_of(exc)
        if refusal.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling request", exc_info=exc)
        else:
            # Its text has what the client sent, which may be a token.
            self.log.info(
                "Invalid request from %s: %s", addr[0] if addr else "-", type(exc).__name__
            )
        self.refuse(client, refusal, req)

    def refuse(self, client: Any, refusal: Refusal, req: Any = None) -> None:
        """Answers on a connection, and closes its sending side.

        `req` is None where no request could be read.
        """
        more: Headers = []
        if self.cors:
            origin = self.cors.only if req is None else dict(req.headers).get("ORIGIN", "")
            more = self.cors.headers(origin)
        client.sendall(as_bytes(refusal, more))
        linger(client, self.client_timeout)
