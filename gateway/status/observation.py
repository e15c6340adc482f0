"""One request as an outsider sees it: how long it took, which node it went to, how it ended.

An `Observation` is made when the request comes, and ends with the answer. Meanwhile it is in a
context variable, so that whoever meets an event on the way (an upstream error, a retry) notes it
there.

A client that has its answer finds it in the metrics, whichever worker it asks: an answer that needs
no more of the node is counted before its first byte is sent, a download before its last block is.
The log's line of a download comes when the client has taken it, or won't: it says what arrived.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from gateway.answers import Answer

if TYPE_CHECKING:  # gunicorn.conf.py imports this, in the process that serves nothing
    from gateway.s3.connection import Connection, Request
    from gateway.s3.node import Node
    from gateway.s3.reply import Reply

STOPPED = "The gateway stopped."  # why a request was broken off
NO_NODE = "none"  # the label where a request got to no node
ALL_NODES = "all"  # the label of a listing, for which each node is asked
# What may be the signature of a link, in the path of who encoded the `?` before it.
SIGNATURE = re.compile(r"(?<=signature).+", re.IGNORECASE | re.DOTALL)


class Sink(Protocol):
    """Where an observation goes, to be counted and logged."""

    def counted(self, observation: Observation, seconds: float) -> None: ...

    def logged(self, observation: Observation, seconds: float, complete: bool) -> None: ...

    def retried(self, node: str) -> None: ...

    def failed(self, node: str) -> None: ...


class Trace(Protocol):
    """The trace that a request belongs to."""

    id: str

    def exchange(self, node: Node, connection: Connection, request: Request, attempt: int) -> Reply:
        """As `Node.exchange`, with the headers by which the node's part belongs to the trace."""

    def end(self, observation: Observation, complete: bool) -> None:
        """The request is over; `complete` as for `Observation.log`."""


class Observation:
    """A request from its first line to the last byte of its answer."""

    __slots__ = (
        "_sink",
        "authorization",
        "began",
        "bytes",
        "client",
        "counted",
        "link",
        "method",
        "node",
        "path",
        "reason",
        "received",
        "request_id",
        "status",
        "trace",
        "upstream",
    )

    def __init__(
        self,
        sink: Sink | None = None,
        method: str = "",
        path: str = "",
        request_id: str = "",
        client: str = "",
        authorization: str = "",
    ) -> None:
        self._sink = sink
        self.method, self.path, self.request_id = method, path, request_id
        self.client, self.authorization = client, authorization
        self.began = time.monotonic()
        self.node = NO_NODE
        self.status = ""
        self.bytes = 0  # of the body, received by PUT or sent
        self.received = 0  # bytes of an upload that have come, whatever becomes of it
        self.reason = ""  # why the request is refused, or broken off
        self.upstream = 0.0  # seconds from sending the node a request to the head of its answer
        self.trace: Trace | None = None
        self.counted = True  # False where it is about the gateway itself
        self.link = False  # whether it goes by a link, and not by a token

    @property
    def shown_path(self) -> str:
        """The beginning of a path that can be any text, without what may be a link's signature."""
        return SIGNATURE.sub("...", self.path[:1000])[:80]

    def asks(self, node: str, attempt: int, length: int) -> None:
        """Notes that a node is to be asked, for the first time (attempt 0) or again.

        `length` is the bytes that it is to store.
        """
        self.node, self.bytes = node, length
        if attempt and self._sink:
            self._sink.retried(node)

    def part(self) -> Observation:
        """The observation of what is asked of one node where several are asked at once."""
        part = Observation(self._sink, self.method, self.path, self.request_id)
        part.trace = self.trace
        return part

    def failed(self, node: str) -> None:
        """Notes that a node couldn't be reached, broke off or was silent."""
        if self._sink:
            self._sink.failed(node)

    def end(self, answer: Answer, delivered: Callable[[], int] | None = None) -> Answer:
        """The answer, with the headers that say how it came about.

        The request is counted and logged now, or by `ObservedBody` when the body is sent.
        `delivered` is the server's way to say how many bytes of the body the client has.
        """
        headers, body = answer.headers, answer.body
        headers.append(("X-Request-Id", self.request_id))
        if self.upstream:
            headers.append(("Server-Timing", f"upstream;dur={self.upstream * 1000:.1f}"))
        if not self.counted:
            return answer
        self.status, self.reason = answer.status[:3], answer.reason
        if self.method == "HEAD" or isinstance(body, (list, tuple)):
            if self.method == "GET":
                self.bytes = sum(map(len, body))
            elif self.method == "PUT" and self.reason:
                self.bytes = self.received
            self.count()
            self.log(complete=True)
            return answer
        length = next((int(value) for name, value in headers if name == "Content-Length"), -1)
        return answer._replace(body=ObservedBody(self, body, length, delivered))

    def cut(self) -> None:
        """Counts and logs a request to which the server gives no more time, as 503.

        The client gets no answer, because its connection breaks.
        """
        if self.counted:
            self.status, self.reason = "503", STOPPED
            self.count()
            self.log(complete=False)

    def count(self) -> None:
        """Counts the request."""
        if self._sink:
            self._sink.counted(self, time.monotonic() - self.began)

    def log(self, *, complete: bool) -> None:
        """Logs the request.

        It isn't `complete` where client or node broke off within the body.
        """
        if not complete and not self.reason:
            self.reason = "The client went away, or took the answer too slowly."
        if self._sink:
            self._sink.logged(self, time.monotonic() - self.began, complete)


class ObservedBody:
    """The blocks of a body on their way to the client.

    The observation is counted before the last one goes out, and logged at the end. A body without a
    length (-1) is counted when it has no more blocks, before its end goes out.
    """

    __slots__ = ("_blocks", "_body", "_counted", "_delivered", "_length", "_logged", "_observation")

    def __init__(
        self,
        observation: Observation,
        body: Iterable[bytes],
        length: int,
        delivered: Callable[[], int] | None,
    ) -> None:
        self._observation, self._body, self._length = observation, body, length
        self._delivered = delivered
        self._blocks = iter(body)
        self._counted = self._logged = False
        observation.bytes = 0

    def __iter__(self) -> ObservedBody:
        return self

    def __next__(self) -> bytes:
        try:
            block = next(self._blocks)
        except StopIteration:
            if self._length < 0:
                self._length = self._observation.bytes
                self._count()
            raise
        self._observation.bytes += len(block)
        if self._observation.bytes == self._length:
            self._count()
        return block

    def _count(self) -> None:
        self._counted = True
        self._observation.count()

    def close(self) -> None:
        """WSGI's: called when the answer is sent, or won't be any further."""
        if self._logged:
            return
        self._logged = True
        if hasattr(self._body, "close"):
            self._body.close()
        observation = self._observation
        if self._delivered:
            observation.bytes = self._delivered()
        if not self._counted:
            observation.count()
        observation.log(complete=observation.bytes == self._length)


class CountedBody:
    """`wsgi.input` of an upload, whose bytes are counted as they come."""

    __slots__ = ("_observation", "_read", "_read1")

    def __init__(self, observation: Observation, stream: Any) -> None:
        self._observation = observation
        self._read = stream.read
        self._read1 = getattr(stream, "read1", stream.read)

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._read(size)
        self._observation.received += len(block)
        return block

    def read1(self, size: int = -1) -> bytes:
        """What has come, at most `size` bytes, where the server has such a method."""
        block: bytes = self._read1(size)
        self._observation.received += len(block)
        return block


# The request that this thread, or greenlet, works on.
current: ContextVar[Observation] = ContextVar("current", default=Observation())  # noqa: B039 - it is never changed
