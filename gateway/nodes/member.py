"""A `Member`: a node as gateways know it.

It adds to a `gateway.s3.node.Node`, which only sends requests to one address, what the gateway has
to know before it may send any: who the node is by its record (`standing`), and when that record was
looked at, and for whom. `objgwctl`, which reads the record itself, uses the plain `Node`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

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
        self.looked_from = -math.inf  # monotonic time at which its last look began
        self.asked = -math.inf  # monotonic time of the last request that wanted a connection to it
        self.found = time.monotonic()  # when the source named this endpoint
        self.cut: tuple[str, float] | None = None  # the key of a cut upload, and when it was sent

    @property
    def in_order(self) -> bool:
        """Whether it answers, requests may go to it, and nothing is to be found out first."""
        standing = self.standing
        known = standing.ignores is not None and standing.stores_cut is not None
        return self.ready and known and standing.usable and not standing.error

    def end_uploads(self, owner: Callable[[str], Member]) -> None:
        """Ends the uploads under way whose object has another owner: `owner` gives an id's.

        Who sends such an upload gets an UpstreamError, and its client 503.
        """
        for connection, request in list(self._waiting.items()):
            upload, object_id = request.upload, request.path.rpartition("/")[2]
            if upload is not None and owner(object_id).name != self.name:
                connection.end()
