"""A node at one address: its pool of kept connections, and one signed, streamed request to it.

The pool has connections that wait for a next request. They are used again within `KEPT_SECONDS`;
where one turns out to be closed, the others are as old and are closed as well. When the source
names another endpoint for the node, everything is closed, also what is in use: from a container
that was stopped nothing more comes.

Nothing here decides whether a request is sent again, or what a client is told: that is for
`gateway.objects`. Whether the node may be asked at all is for `gateway.nodes.acquire`.
"""

from __future__ import annotations

import functools
import socket
import ssl
import time

from gateway.answers import unavailable
from gateway.s3.body import upload_of
from gateway.s3.breaker import Breaker
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.endpoint import Endpoint
from gateway.s3.reply import Reply
from gateway.s3.signing import Signer
from gateway.settings import Settings

KEPT_SECONDS = 20.0  # that a connection may wait in a pool; MinIO closes it after 30 by default


@functools.lru_cache(maxsize=4)
def tls_context(certificates: str) -> ssl.SSLContext:
    """What TLS to nodes trusts: these certificates (PEM), or the system's where there are none."""
    return ssl.create_default_context(cadata=certificates or None)


class Node:
    """A node at one endpoint: its pool of connections, its signatures and its breaker.

    It knows nothing of layouts. `gateway.nodes.member.Member` is the same with what the node's
    record says, and is what gateways use; `objgwctl` uses this class as it is.
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.host = endpoint.host
        self.ready = False  # its bucket is known to be there
        longest = settings.connect_timeout + settings.node_timeout
        self.breaker = Breaker(endpoint.name, settings.breaker_seconds, longest)
        self.node_timeout = settings.node_timeout  # seconds
        self.records_bucket = settings.records_bucket
        self._settings = settings
        self._signer = Signer(endpoint)
        # The last one used is used next, so that others can grow old and go.
        self._idle: list[Connection] = []
        self._waiting: dict[Connection, Request] = {}  # those in use on which no answer has come
        self.downloads: set[Connection] = set()  # those in use by the body of an answer
        self.connecting = 0  # requests that have no connection yet
        self.closed = False  # the source names another endpoint for its name by now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.endpoint == other.endpoint

    def __hash__(self) -> int:
        return hash(self.endpoint)

    # -- connections

    def kept(self) -> Connection | None:
        """A connection from the pool, if there is one."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if connection.since < time.monotonic() - KEPT_SECONDS:
            connection.close()
            self.forget()  # the others are older
            return None
        connection.reused = True
        connection.answered = False
        return connection

    def connect(self) -> Connection:
        """A new connection. Raises OSError, also where the node isn't running."""
        if self.host is None:
            raise ConnectionRefusedError("it isn't running")
        # create_connection() would ask a resolver, in a thread, for an address.
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        try:
            sock.settimeout(self._settings.connect_timeout)
            sock.connect((self.host, self.endpoint.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.endpoint.tls:
                context = tls_context(self._settings.nodes_ca)
                sock = context.wrap_socket(sock, server_hostname=self.endpoint.hostname)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(self._settings.node_timeout)
        return Connection(sock)

    def admit(self) -> bool:
        """Whether this request is the one that tries a node which was broken.

        Raises Refusal where too many wait for the node already, and while it is broken.
        """
        if len(self._waiting) + self.connecting >= self._settings.node_requests:
            raise unavailable("Too many requests wait for the node of this id.")
        return self.breaker.admit()

    def release(self, connection: Connection) -> None:
        """Gives a connection back whose answer was read to its end."""
        if not connection.usable or self.closed:
            connection.close()
            return
        connection.since = time.monotonic()
        self._idle.append(connection)
        if self._idle[0].since < connection.since - KEPT_SECONDS:
            self._idle.pop(0).close()

    def leave(self, connection: Connection, reply: Reply) -> None:
        """Gives up an answer; its connection is kept only if nothing more comes on it."""
        if reply.left:
            connection.close()
        else:
            self.release(connection)

    def close(self) -> None:
        """Closes the kept connections and ends those in use.

        From a container that was stopped nothing more comes.
        """
        self.closed = True
        self.forget()
        for connection in [*self._waiting, *self.downloads]:
            connection.end()

    def forget(self) -> None:
        """Closes the kept connections.

        One of them was found dead, and the others are as old.
        """
        while self._idle:
            self._idle.pop().close()

    # -- requests

    def exchange(self, connection: Connection, request: Request) -> Reply:
        """One request and its answer, whose body may still have to be received.

        Before the first upload it makes the bucket; where that is refused, the answer is that.
        Raises UpstreamError, and BodyError when the client breaks off.
        """
        self._waiting[connection] = request
        try:
            if request.upload is not None and not self.ready:
                reply = self.make_bucket(connection)
                if not self.ready:
                    return reply
            early = self._send(connection, request, self._signer.head(request))
            return early or connection.reply(request.method, after_upload=bool(request.upload))
        finally:
            del self._waiting[connection]

    def ask(self, connection: Connection, request: Request) -> Reply:
        """The exchange itself, which is all for requests about the layout.

        It isn't counted among those that wait, and doesn't make the bucket.
        """
        early = self._send(connection, request, self._signer.head(request))
        return early or connection.reply(request.method, after_upload=bool(request.upload))

    def _send(self, connection: Connection, request: Request, head: bytes) -> Reply | None:
        """Sends the request. The answer where it came too early: then the rest isn't sent."""
        upload = request.upload
        if upload is None:
            connection.send(head)
            return None
        if request.careful:
            connection.send(head)
            reply = connection.reply(request.method, until_continue=True)
            if reply.status != 100:
                connection.usable = False  # the node may or may not wait for the body
                return reply
            self.breaker.succeeded()  # the others need not wait for a client's body
            head = b""
        try:
            connection.send(head + upload.head)
            for block in upload.rest():
                connection.send(block)
        except UpstreamError as error:
            if isinstance(error.__cause__, TimeoutError):  # it doesn't read, so it won't answer
                raise
            return self._early_reply(connection, request.method)
        return None

    def _early_reply(self, connection: Connection, method: str) -> Reply:
        """A node that refuses an upload may answer and close before it has read everything."""
        reply = connection.reply(method)
        connection.usable = False
        if reply.status < 400:
            raise UpstreamError("the node answered before it had the whole body")
        return reply

    def make_bucket(self, connection: Connection) -> Reply:
        """Makes the bucket unless it is there; `ready` says whether it is. Raises UpstreamError."""
        reply = self.ask(
            connection, Request("PUT", f"/{self._settings.bucket}", upload=upload_of(b""))
        )
        self.ready = reply.status == 200 or reply.code in (
            "BucketAlreadyOwnedByYou",
            "BucketAlreadyExists",
        )
        return reply
