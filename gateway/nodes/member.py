"""A node that has a place in the layout, or wants one: its pool, and what its record says."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.nodes.placement import owner
from gateway.nodes.standing import Standing
from gateway.s3.endpoint import NodeRecord
from gateway.s3.node import Node
from gateway.settings import Settings


class Member(Node):
    """A node with its standing. It is replaced, not changed, when its source names another address or other keys."""

    def __init__(self, record: NodeRecord, settings: Settings) -> None:
        super().__init__(record, settings)
        self.standing = Standing(record.name)
        self.being_looked_at = False  # the poller is looking at its record
        self.look_due = 0.0  # monotonic time at which it looks again

    def end_uploads(self, nodes: Sequence[Member]) -> None:
        """Ends the uploads under way whose object's id has another owner among `nodes`."""
        for connection, request in list(self._waiting.items()):
            if request.upload is not None and owner(nodes, request.path.rpartition("/")[2]).name != self.name:
                connection.end()
