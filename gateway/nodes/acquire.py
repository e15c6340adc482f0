"""A connection to a node on which a request may be sent: one call, `acquire`.

The problem. A source (Docker, for one) names an address. By the time a connection to it is open,
the container behind may be another: it was made anew and its neighbour got its address, its disk
was swapped, or the layout has changed while this gateway was held up. Whoever sends a request then
asks the wrong node, and takes its 404 for the truth, or stores an object where nobody looks for it.

The answer. Nothing that a source says proves who is at the other end. The node itself says so: its
record of the layout names it (`gateway.nodes.layout`). So the first request on every new
connection is a conditional GET of the record, mostly answered by 304. The same look renews the
node's lease. An open TCP connection can't change to another peer, so that a kept connection needs
no second look while the lease lasts; when the lease is over, the next request looks again.

    kept connection, lease lasts     the connection, at once
    kept connection, lease is over   a look over it, then the connection
    no kept connection               connect, a look over it, then the connection
    a kept one turns out closed      the others are as old: all are closed, and a new one is made
    a kept one that the look closes  another one
    a new one that the look closes   no connection: nothing that comes later is proved
    not serving yet, or no record    again, for a second
      yet, and nothing wrong
    no record, or another's          no connection: `Unusable`, which says why

What it costs: one small request for each new connection, and one for the first request of a worker
that nobody has asked for some seconds. In a pool that is warm and a gateway that isn't held up,
nothing: `gateway.nodes.poller` renews the leases every second while requests come.

Worst case for a request: the connect time-out and the node time-out, once each. For a node
that left the gateway's own last look without an answer, or gave no record, it waits a second only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.nodes.member import Member
from gateway.nodes.store import record_request
from gateway.s3.connection import Connection, UpstreamError
from gateway.s3.headers import DOCUMENT_MAX

# A server that has just started accepts connections a moment before it can serve, and a node of the
# first layout may get its record a moment after the gateway has begun to go by that layout.
STARTING_SECONDS = 1.0  # for which a request waits for either
STARTING_PAUSE = 0.05  # seconds between two looks
SILENT_SECONDS = 1.0  # for which a request waits for a node that was silent, or none, just now


class Unusable(Exception):
    """No request may be sent to the node; the text is for the client."""


def acquire(node: Member) -> Connection:
    """A connection over which the node's own record was read, with a lease that lasts.

    Raises Unusable where the node answers and isn't who it has to be, OSError where it can't be
    reached, and UpstreamError where it breaks off or is silent.
    """
    node.asked = time.monotonic()
    connection = node.kept() if node.standing.leased else None
    if connection is not None:
        return connection
    node.connecting += 1
    try:
        return _proved(node)
    finally:
        node.connecting -= 1


def _proved(node: Member) -> Connection:
    """The same where there is no connection, or its lease is over."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        standing = node.standing
        patient = (standing.usable and not standing.silent) or not standing.tried
        connection = prove(
            node, node.node_timeout if patient else min(SILENT_SECONDS, node.node_timeout)
        )
        if node.standing.leased and connection.usable:
            return connection
        node.release(connection)
        if not node.standing.coming or time.monotonic() > deadline:
            raise Unusable(node.standing.refusal)
        time.sleep(STARTING_PAUSE)


def prove(node: Member, seconds: float) -> Connection:
    """A connection over which the node's record was read just now.

    What the record says is in `node.standing`.

    `seconds` is the longest that the node may be silent. Raises OSError and UpstreamError.
    """
    while True:
        try:
            connection = node.kept() or node.connect()
        except OSError as error:
            node.standing.failed(error)
            raise
        try:
            look(node, connection, seconds)
        except UpstreamError as error:
            connection.close()
            if connection.reused and not connection.answered:
                node.forget()
                continue
            node.standing.failed(error)
            raise
        if not connection.usable and connection.reused:
            connection.close()
            continue
        connection.reused, connection.answered = True, False
        return connection


@contextmanager
def proved(node: Member, seconds: float) -> Iterator[Connection]:
    """The same for the time of the block, in which the node may be silent for so many seconds.

    It is given back then, and closed where the block fails.
    """
    connection = prove(node, seconds)
    try:
        connection.sock.settimeout(seconds)
        yield connection
        connection.sock.settimeout(node.node_timeout)
    except BaseException:
        connection.close()
        raise
    node.release(connection)


def look(node: Member, connection: Connection, seconds: float) -> None:
    """Reads the node's record over this connection. Raises UpstreamError."""
    connection.sock.settimeout(seconds)
    sent = time.monotonic()
    reply = node.ask(connection, record_request(node.records_bucket, node.standing.record))
    connection.finish(reply, DOCUMENT_MAX)
    connection.sock.settimeout(node.node_timeout)
    if not connection.usable and connection.reused:
        return  # a server may close one after so many answers: the next one tells
    if not node.standing.take(sent, reply, closes=not connection.usable):
        connection.usable = connection.reused = False  # it proves nothing: nothing goes over it
