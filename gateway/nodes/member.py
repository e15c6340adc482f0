"""A node as the layout sees it: what its record says, and whether it was read a moment ago."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from gateway.nodes.layout import LEASE_SECONDS, Layout
from gateway.nodes.placement import owner
from gateway.s3.connection import Reply
from gateway.s3.endpoint import NodeRecord
from gateway.s3.node import Node
from gateway.settings import Settings

log = logging.getLogger("objgw")


class Member(Node):
    """A node with what is known of its record."""

    def __init__(self, record: NodeRecord, settings: Settings) -> None:
        super().__init__(record, settings)
        self.layout: Layout | None = None  # what its record says, and the record's ETag and node
        self.etag = self.holder = ""
        self.serves = False  # it answered like S3 when it was last asked for its record
        self.keeps_conditions: bool | None = None  # its server decides a PUT's conditions; None before it was tried
        self.fresh = False  # the layout says that it was never given a record
        self.blank = self.was_blank = False  # it isn't what the layout takes it for, see `trouble`
        self.visiting = self.tried = False  # its record is being read; was tried to be read
        self.visit_due = 0.0  # monotonic time at which it is read again
        self.checked = -math.inf  # monotonic time of the last request for the record that was answered

    @property
    def leased(self) -> bool:
        """Whether its record was read so lately that no other layout can be in force."""
        return time.monotonic() < self.checked + LEASE_SECONDS

    @property
    def whole(self) -> bool:
        """Whether what it doesn't have was never there: its record is its own, or it was never given one."""
        return self.fresh or (self.layout is not None and self.holder == self.name)

    @property
    def if_changed(self) -> dict[str, str]:
        """The condition with which its record is asked for."""
        return {"if-none-match": self.etag} if self.etag else {}

    @property
    def trouble(self) -> str:
        """What is wrong with it although it answers; empty where nothing is."""
        if not self.blank:
            return ""
        if self.layout and self.holder != self.name:
            return f"it holds the objects of {self.holder}"
        return f"it lost what it held; bring that back, or give it up: objgwctl.py remove --lost {self.name}"

    def take_record(self, sent: float, reply: Reply) -> None:
        """Notes the answer to a request for its record, which was sent then."""
        if reply.status >= 500:
            return
        self.serves = reply.status in (200, 304) or reply.code in ("NoSuchKey", "NoSuchBucket")
        if reply.status == 200:
            try:
                self.layout, self.holder = Layout.load(reply.body)
                self.etag = reply.headers["etag"]
            except (ValueError, KeyError) as error:
                self.serves = False
                if not self.tried:
                    log.warning("node %s: its record can't be read: %s", self.name, error)
        elif reply.status == 404:
            self.layout, self.etag = None, ""
        self.checked = self.proved = sent
        self.wake()

    def end_uploads(self, nodes: Sequence[Member]) -> None:
        """Ends the uploads under way whose object's id has another owner among `nodes`."""
        for connection, request in list(self._waiting.items()):
            if request.upload is not None and owner(nodes, request.path.rpartition("/")[2]).name != self.name:
                connection.end()
