"""A connection to a node on which a request may be sent.

It is good where the node's record was read a moment ago, and where the connection is proved to lead to that node.
"""

from __future__ import annotations

from gateway.answers import unavailable
from gateway.nodes.discovery import Discovery
from gateway.nodes.member import Member
from gateway.nodes.records import Records
from gateway.s3.connection import Connection


def acquire(node: Member, records: Records) -> Connection | None:
    """A connection to the node, kept or new; None where the node has changed, so that the next look finds another.

    Raises Refusal (503) where the node doesn't give its record, or can't be reached; its breaker knows of it.
    """
    node.connecting += 1
    try:
        if not (node.leased or records.vouch(node)):
            if node.closed:
                return None
            node.broke(TimeoutError("it doesn't give its record"))
            raise unavailable("The node of this id doesn't answer.")
        return node.kept() or _connect(node, records.discovery)
    finally:
        node.connecting -= 1


def _connect(node: Member, discovery: Discovery) -> Connection | None:
    """A new connection to the node, or None where Docker, asked while it is open, says that the node has changed.

    Only this order proves that it leads to the node and not to a container which got its address since. An answer
    of the node to a request that was sent while it was open proves the same.
    """
    try:
        connection = node.connect()
    except OSError as error:
        if not discovery.current(node):
            return None
        node.broke(error)
        raise unavailable("The node of this id can't be reached.") from None
    if discovery.confirm(node):
        return connection
    connection.close()
    return None
