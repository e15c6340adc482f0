"""The gunicorn worker: what a gateway needs of a server and gunicorn's gevent worker leaves open.

- `100 Continue` is sent when the application first reads the body, not before it has seen the request, so that an
  upload that is refused is never sent (RFC 9110, 10.1.1).
- After an answer that left some of the request's body unread, the connection closes, and says so: gunicorn would
  read on, without end, to find the next request. It closes in two steps, so that the client gets the answer
  (RFC 9112, 9.6).
- A client that is silent for too long in the middle of a request or an answer loses its connection.
- Requests that aren't HTTP are refused with problem details (RFC 9457), as all others are.

Nothing in here knows of objects; the application runs under any other WSGI server as well.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn.http import errors, wsgi
from gunicorn.http.body import LengthReader
from gunicorn.workers.ggevent import GeventWorker

LINGER_SECONDS = 2.0  # that a client may take to read an answer to an upload it hasn't finished
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

    def __init__(self, body: Any, sock: Any, expects_continue: bool) -> None:
        self._body = body
        self._sock = sock
        self._expects_continue = expects_continue

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
        if self._expects_continue:
            self._expects_continue = False
            self._sock.sendall(CONTINUE)
        return self._body.read(size)  # type: ignore[no-any-return]


class Response(wsgi.Response):  # type: ignore[misc]
    """An answer which says that the connection closes when the request's body wasn't read to its end."""

    def should_close(self) -> bool:
        return bool(super().should_close() or self.req.body.failed or self.req.body.unread)


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker with the differences that the module's text names."""

    client_timeout = 30.0  # seconds; set in gunicorn.conf.py

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        client.settimeout(self.client_timeout)
        super(GeventWorker, self).handle(listener, client, addr)  # its own would take the time-out away

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serves one request. Raises StopIteration when the connection is to be closed."""
        req.body = RequestBody(req.body, sock, req._expected_100_continue)
        req._expected_100_continue = False
        response, environ = wsgi.create(req, sock, addr, listener_name, self.cfg, response_class=Response)
        if not self.alive:
            response.force_close()
        try:
            blocks = self.wsgi(environ, response.start_response)
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
        if response.should_close():
            if req.body.unread or req.body.failed:
                linger(sock)
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers a request that isn't HTTP, or on which the application failed; the connection closes."""
        status = next((status for kind, status in STATUS if isinstance(exc, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.exception("Error handling request")
            detail = "The gateway failed; its log says why."
        else:
            self.log.info("Invalid request from %s: %r", addr[0] if addr else "-", exc)
            detail = "The request isn't valid HTTP/1.1."
        document = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
        body = json.dumps(document) + "\n"
        try:
            client.sendall(
                f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
                f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            linger(client)
        except OSError as error:
            self.log.debug("Connection broken off: %s", error)


def linger(sock: Any) -> None:
    """Closes the sending side and lets the client read: closing with bytes unread would reset what was sent."""
    try:
        sock.shutdown(1)  # SHUT_WR
        with gevent.Timeout(LINGER_SECONDS, False):
            while sock.recv(65536):
                pass
    except OSError:
        pass  # it has gone by itself
