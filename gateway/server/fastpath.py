"""The short way of a plain request past gunicorn's parser.

A plain request is `GET`, `HEAD` or `DELETE` without a body, on a connection that has had a request.
What is short about its way is the request line, by one strict expression, and that headers which
are byte for byte those of the request before aren't parsed again; all others, and every request
that is in any way odd, go to gunicorn's parser, unread. So there is one judge of what is HTTP.
"""

from __future__ import annotations

import copy
import io
import re
from contextlib import AbstractContextManager
from typing import Any, Protocol

import gevent
from gunicorn.http import errors

from gateway.readable import Readable
from gateway.server.closing import Closes
from gateway.server.response import Response

# A plain request: nothing of its line has to be decoded, its method needs no body, and it has no
# header by which a request ends elsewhere than after its headers, or its connection goes on
# otherwise.
PLAIN = re.compile(rb"(GET|HEAD|DELETE) (/[0-9A-Za-z/]{0,1000}) HTTP/1\.1\r\n")
PLAIN_MAX = 8192  # bytes that are read at once, and so of a plain request
# A name or an address, and a port (RFC 9112, 3.2; RFC 3986, 3.2.2). Without the comma that a list
# of hosts would have.
HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
FRAMING = frozenset({"CONNECTION", "CONTENT-LENGTH", "EXPECT", "TRANSFER-ENCODING", "UPGRADE"})


class Serves(Protocol):
    """What the short way needs of the worker."""

    alive: bool
    client_timeout: float

    def waiting(self, sock: Any) -> AbstractContextManager[Any]: ...

    def environ(self, req: Any, addr: Any, listener_name: Any) -> dict[str, Any]: ...

    def respond(self, environ: dict[str, Any], response: Response) -> None: ...


def handle_plain(worker: Serves, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
    """Serves the plain requests that follow.

    The first other one it leaves to gunicorn's parser, unread.

    Clients send the same headers again and again, so those of the request before are kept with what
    came of them.
    """
    readable = Readable(sock)
    idle = worker.waiting(sock)
    known, environ = b"", None
    data = req.unreader.take_buffered()
    try:
        while True:
            if data:
                # A connection that always has a next request would keep the others waiting.
                gevent.sleep(0)
            else:
                with idle:
                    readable.wait()  # before trying to read: it is the others' turn, too
                    data = sock.recv(PLAIN_MAX)
                if not data:
                    raise StopIteration
            line, end = PLAIN.match(data), data.find(b"\r\n\r\n")
            if not line or end < 0:
                return
            block = data[line.end() : end]
            if block != known:
                alike = plain(req, block)
                known, environ = block, alike and worker.environ(alike, addr, listener_name)
            if environ is None:
                return
            data = data[end + 4 :]
            method, path = line[1].decode(), line[2].decode()
            own = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO()}
            response = Response(sock, worker.client_timeout, method, None, closes=not worker.alive)
            worker.respond({**environ, **own}, response)
            if response.closes:
                raise Closes
    finally:
        readable.close()
        sock.settimeout(None)
        req.unreader.unread(data)


def plain(req: Any, block: bytes) -> Any:
    """A plain request with these header lines, on the connection of `req`; None where it isn't one.

    gunicorn's parser judges the lines, as it does those of all requests.
    """
    alike = copy.copy(req)
    alike.method, alike.version, alike.path, alike.query, alike.body = "GET", (1, 1), "/", "", None
    try:
        alike.headers = alike.parse_headers(block)
        check_request(alike)
    except errors.ParseException:
        return None
    return alike if FRAMING.isdisjoint(name for name, _ in alike.headers) else None


def check_request(req: Any) -> None:
    """What gunicorn's parser leaves open.

    Raises errors.InvalidHeader and errors.InvalidRequestLine.
    """
    hosts = [value for name, value in req.headers if name == "HOST"]
    # A Host header is needed (RFC 9112, 3.2).
    if not all(map(HOST.fullmatch, hosts)) or (req.version >= (1, 1) and not hosts):
        raise errors.InvalidHeader("HOST", req=req)
    if "#" in req.uri:  # RFC 9112, 3.2: a target has no fragment, which the parser would cut off
        raise errors.InvalidRequestLine(req.uri)
    options = (
        ",".join(value for name, value in req.headers if name == "CONNECTION").lower().split(",")
    )
    if "close" in [option.strip() for option in options]:  # RFC 9112, 9.6: also among others
        req.force_close()
