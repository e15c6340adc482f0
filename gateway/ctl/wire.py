"""A connection to a node, for one thread.

It is used only when Docker, asked while it is open, says that the node still has this address: a container that took
over the address of another is never mistaken for it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.ctl.errors import NodeTrouble, Trouble
from gateway.s3.body import Upload
from gateway.s3.connection import Connection, Reply, Request, UpstreamError
from gateway.s3.endpoint import NodeRecord
from gateway.s3.node import KEPT_SECONDS, Node
from gateway.settings import Settings


class Wire:
    """A connection to a node, for one thread. It is opened when it is needed, and proved then."""

    def __init__(self, record: NodeRecord, settings: Settings, prove: Callable[[NodeRecord], None]) -> None:
        self.record = record
        self._node = Node(record, settings)
        self._prove = prove
        self._connection: Connection | None = None
        self._used = 0.0

    def begin(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, upload: Upload | None = None
    ) -> Reply:
        """A request and the head of its answer, whose body is read by `receive`. Raises NodeTrouble.

        A kept connection that turns out to be closed is replaced; what is sent again has the same effect twice, or a
        condition that tells.
        """
        request = Request(method, path, headers or {}, upload)
        while True:
            connection, reused = self._open()
            try:
                reply = self._node.ask(connection, request)
            except UpstreamError as error:
                self.close()
                if reused and not connection.answered and not (upload and upload.spent):
                    continue
                raise NodeTrouble(f"{self.record.name} broke off: {error}") from None
            except BaseException:
                self.close()
                raise
            self._used = time.monotonic()
            if not connection.usable and not reply.left:
                self.close()
            return reply

    def receive(self, reply: Reply, size: int) -> bytes:
        """The next bytes of an answer's body, at most `size`; none at its end. Raises NodeTrouble."""
        if reply.body:
            block, reply.body = reply.body[:size], reply.body[size:]
            return block
        if not reply.left:
            return b""
        if self._connection is None:
            raise NodeTrouble(f"{self.record.name} broke off")
        try:
            block = self._connection.receive(min(reply.left, size))
        except UpstreamError as error:
            self.close()
            raise NodeTrouble(f"{self.record.name} broke off: {error}") from None
        reply.left -= len(block)
        self._used = time.monotonic()
        return block

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Any:
        """A request with a small body, and its whole answer."""
        upload = None if body is None else Upload(io.BytesIO(body), len(body))
        reply = self.begin(method, path, headers, upload)
        reply.body = b"".join(iter(lambda: self.receive(reply, 65536), b""))
        return reply

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> tuple[Connection, bool]:
        if self._connection is not None and time.monotonic() - self._used < KEPT_SECONDS:
            self._connection.answered = False
            return self._connection, True
        self.close()
        try:
            connection = self._node.connect()
        except OSError as error:
            raise NodeTrouble(f"{self.record.name} can't be reached: {error}") from None
        try:
            self._prove(self.record)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection, False


def unexpected(name: str, reply: Reply) -> Trouble:
    """What is said of an answer that nobody asked for."""
    if reply.full:
        return Trouble(f"{name} has no room left: its disk is full, or its quota is used up")
    return NodeTrouble(f"{name} gave an unexpected answer: {reply.status} {reply.code}")
