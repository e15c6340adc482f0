"""Requests to one node, by one thread, over one kept connection.

A node is who its record says: what Docker names is only where to look. So the first request on a
connection reads the node's record, mostly answered by 304, and other requests are sent only where
it is the record of this node. A container that took over the address of another is never mistaken
for it, because an open connection can't change to another peer. Where a node has no record, its
record can be read and written, and nothing else is asked of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from gateway.ctl.errors import ClosesConnections, CommandError, NodeError
from gateway.nodes.store import NO_RECORD, Record, UnexpectedAnswer, read_record
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.endpoint import Endpoint
from gateway.s3.node import KEPT_SECONDS, Node
from gateway.s3.reply import Reply
from gateway.settings import Settings


class NodeClient:
    """Requests to the node at one endpoint. It belongs to one thread.

    `failed` is called where the node can't be reached, breaks off, or isn't who it should be.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        failed: Callable[[], None],
    ) -> None:
        self.endpoint, self.name = endpoint, endpoint.name
        self._records_bucket = settings.records_bucket
        self._node = Node(endpoint, settings)
        self._failed = failed
        self._record = NO_RECORD  # what was read last
        self._connection: Connection | None = None
        self._proved = False  # the node's own record was read over the connection
        self._used = 0.0  # monotonic time of its last use

    def ask(self, request: Request) -> Reply:
        """The whole answer to a request, of the node that was proved. Raises NodeError."""
        return self._finish(self.begin(request))

    def ask_briefly(self, request: Request, seconds: float, maximum: int) -> Reply:
        """As `ask`; the node may be silent for so many seconds, and the answer has a maximum.

        Raises NodeError.
        """
        self._ready(proved=True)[0].sock.settimeout(seconds)
        reply = self.begin(request)
        if self._connection is None:  # it closed after an empty answer
            return reply
        if reply.left > maximum:
            raise self._error("gives an answer that is too long")
        try:
            self._connection.finish(reply)
        except UpstreamError as error:
            raise self._error(f"broke off: {error}") from None
        self._connection.sock.settimeout(self._node.node_timeout)
        self._answered(reply)
        return reply

    def ask_anyone(self, request: Request) -> Reply:
        """The whole answer of whoever is there. It is for the records alone. Raises NodeError."""
        return self._finish(self.begin(request, proved=False))

    def read_record(self) -> Record:
        """What the node holds as its record, read now. Raises CommandError."""
        self._proved = False
        try:
            record = read_record(self.ask_anyone, self._records_bucket, self._record)
        except UnexpectedAnswer as error:  # for one, of another node, which has other keys
            self.close()
            self._failed()
            raise unexpected(self.name, error.reply) from None
        self._record, self._proved = record, record.own(self.name) is not None
        return record

    def begin(self, request: Request, *, proved: bool = True) -> Reply:
        """A request and the head of its answer, whose body `receive` reads. Raises NodeError.

        A kept connection that turns out to be closed is replaced; what is sent again has the same
        effect twice, or a condition that tells.
        """
        upload = request.upload
        while True:
            connection, kept = self._ready(proved=proved)
            connection.answered = False
            try:
                reply = self._node.ask(connection, request)
            except UpstreamError as error:
                self.close()
                if kept and not connection.answered and not (upload and upload.spent):
                    continue
                raise self._error(f"broke off: {error}") from None
            except BaseException:
                self.close()
                raise
            self._answered(reply)
            return reply

    def receive(self, reply: Reply, size: int) -> bytes:
        """The next bytes of an answer's body, at most `size`; none at its end.

        Raises NodeError.
        """
        if reply.body:
            block, reply.body = reply.body[:size], reply.body[size:]
            return block
        if not reply.left:
            return b""
        if self._connection is None:
            raise self._error("broke off")
        try:
            block = self._connection.receive(min(reply.left, size))
        except UpstreamError as error:
            raise self._error(f"broke off: {error}") from None
        reply.left -= len(block)
        self._answered(reply)
        return block

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        self._proved = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answered(self, reply: Reply) -> None:
        """Gives up the connection after its last answer, which may say that it is the last one."""
        self._used = time.monotonic()
        if self._connection and not self._connection.usable and not reply.left:
            self.close()

    def _finish(self, reply: Reply) -> Reply:
        """Reads what is left of an answer."""
        reply.body = b"".join(iter(lambda: self.receive(reply, 65536), b""))
        return reply

    def _ready(self, *, proved: bool) -> tuple[Connection, bool]:
        """A connection that is `proved` where it has to be, and whether it may have been closed."""
        while True:
            kept = was_open = self._open()
            if proved and not self._proved:
                record, kept = self.read_record(), False
                if not self._proved:
                    raise self._error(record.trouble(self.name) or "has no record of the layout")
            if self._connection is not None:
                return self._connection, kept
            self.close()
            if not was_open:
                raise ClosesConnections(str(self._error(ClosesConnections.what)))

    def _open(self) -> bool:
        """Opens a connection where there is none; whether there was one."""
        if self._connection is not None and time.monotonic() - self._used < KEPT_SECONDS:
            return True
        self.close()
        try:
            self._connection = self._node.connect()
        except OSError as error:
            raise self._error(f"can't be reached: {error}") from None
        return False

    def _error(self, what: str) -> NodeError:
        """Gives up the connection; the error that says why."""
        self.close()
        self._failed()
        return NodeError(f"{self.name} {what}")


@contextlib.contextmanager
def expecting(name: str) -> Iterator[None]:
    """Turns an UnexpectedAnswer of this node, of `gateway.nodes.store`, into a CommandError."""
    try:
        yield
    except UnexpectedAnswer as error:
        raise unexpected(name, error.reply) from None


def unexpected(name: str, reply: Reply) -> CommandError:
    """What is said of an answer that nobody asked for."""
    if reply.full:
        return CommandError(f"{name} has no room left: its disk is full, or its quota is used up")
    return NodeError(f"{name} gave an unexpected answer: {reply.status} {reply.code}")
