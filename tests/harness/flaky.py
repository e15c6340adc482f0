"""A proxy before a gateway, with faults for the requests that come next."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.harness.gateway import Gateway

BUSY_SECONDS = 1  # that Retry-After says
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 5\r\n"
    b"Connection: close\r\n\r\nbusy\n" % BUSY_SECONDS
)


@dataclass(frozen=True)
class Fault:
    """What becomes of one request: 503, or an answer that is cut after so many bytes."""

    cut: int | None = None
    then: Callable[[], object] = lambda: None  # has ended before the client gets the answer


@dataclass(frozen=True)
class Came:
    """A request that has come."""

    at: float  # monotonic seconds
    line: str
    headers: dict[str, str]  # their names in lower case


class Flaky(socketserver.ThreadingTCPServer):
    """The proxy, on 127.0.0.1. It has one request on each connection.

    Only requests for objects and their list are noted, and have faults.
    """

    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.faults: list[Fault] = []  # of the next requests
        self.seen: list[Came] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error."""


class Handler(socketserver.BaseRequestHandler):
    """One connection of a client."""

    server: Flaky

    def handle(self) -> None:
        came = b""
        while b"\r\n\r\n" not in came:
            if not (data := self.request.recv(65536)):
                return
            came += data
        head, _, body = came.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = [each.split(": ", 1) for each in lines]
        headers = {name.lower(): value for name, value in fields}
        fault = None
        if " /object" in line:  # and isn't for the icon that a browser wants
            self.server.seen.append(Came(time.monotonic(), line, headers))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault and fault.cut is None:
            fault.then()
            self.request.sendall(BUSY)
            self.request.shutdown(socket.SHUT_WR)
            for _ in pieces(self.request):  # else what it still sends would reset the connection
                pass
            return
        kept = [f"{name}: {value}" for name, value in fields if name.lower() != "connection"]
        sent = "\r\n".join([line, *kept, "Connection: close", "", ""]).encode("latin-1") + body
        with socket.create_connection((self.server.gateway.address, 3000)) as upstream:
            upstream.sendall(sent)
            threading.Thread(target=self._relay_body, args=[upstream], daemon=True).start()
            if fault:
                answer = b"".join(pieces(upstream))
                fault.then()
                self.request.sendall(answer[: fault.cut])
            else:
                for piece in pieces(upstream):
                    self.request.sendall(piece)
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def _relay_body(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            for piece in pieces(self.request):
                upstream.sendall(piece)
            upstream.shutdown(socket.SHUT_WR)  # the client has left


def pieces(sock: socket.socket) -> Iterator[bytes]:
    """What comes, to its end."""
    return iter(partial(sock.recv, 65536), b"")
