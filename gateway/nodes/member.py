"""A `Member`: a node as gateways know it.

It adds to a `gateway.s3.node.Node`, which only sends requests to one address, what the gateway has
to know before it may send any: who the node is by its record (`standing`), and when that record is
looked at next. `objgwctl`, which reads the record itself, uses the plain `Node`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.nodes.placement import owner
from gateway.nodes.standing import Standing
from gateway.s3.endpoint import Endpoint
from gateway.s3.node import Node
from gateway.settings import Settings


class Member(Node):
    """A node that has a place in the layout, or wants one.

    One `Member` has one endpoint. When the source names another address or other keys for the same
    name, the member is closed, and a new one takes its place.
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        super().__init__(endpoint, settings)
        self.standing = Standing(endpoint.name)
        self.being_looked_at = False  # the poller is looking at its record
        self.look_due = 0.0  # monotonic time at which it looks again
        self.found = time.monotonic()  # when the source named this endpoint

    def end_uploads(self, nodes: Sequence[Member]) -> None:
        """Ends the uploads under way whose object has another owner among `nodes`.

        Who sends such an upload gets an UpstreamError, and its client 503.
        """
        for connection, request in list(self._waiting.items()):
            if (
                request.upload is not None
                and owner(nodes, request.path.rpartition("/")[2]).name != self.name
            ):
                connection.end()
