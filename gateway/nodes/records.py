"""The nodes' records of the layout: read every second, kept, and changed.

One thread has each node's record read, another keeps the layout and writes records. The rules are in
`gateway.nodes.layout`.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
import time

from gateway.nodes.conditions import keeps_conditions
from gateway.nodes.discovery import Discovery
from gateway.nodes.layout import (
    HOLD_SECONDS,
    LEASE_SECONDS,
    MARKER_ETAG,
    POLL_SECONDS,
    RECORD,
    SWEPT_ETAG,
    WRITE_SECONDS,
    Layout,
    merge,
)
from gateway.nodes.member import Member
from gateway.nodes.placement import owner_name
from gateway.nodes.view import Directory
from gateway.s3.body import Upload
from gateway.s3.connection import Reply, Request, UpstreamError

log = logging.getLogger("objgw")

VISIT_SECONDS = 5.0  # that a node may take to give its record
QUIET_SECONDS = 10.0  # from the last change of the layout to looking whether it is settled
LISTED = 1000  # keys in one listing, as many as S3 gives at once


class Records:
    """The layout, kept current by threads: for visits to the nodes, and for what follows from their records."""

    def __init__(self, directory: Directory, discovery: Discovery) -> None:
        self.directory, self.discovery = directory, discovery
        self.settings = directory.settings
        self._changed = directory.changed
        self._bucket = f"/{self.settings.records_bucket}"
        self._visited = threading.Event()  # there may be something to do for the record
        self._absorbed: set[Layout] = set()  # records that were merged already
        self._adopted = -math.inf  # monotonic time of the last change of the layout
        self._quiet_since = -math.inf  # the same, or of the last attempt to settle it
        self._started = False

    def start(self) -> None:
        """Starts the threads, also the one that reads Docker; once is enough, more does no harm."""
        with self._changed:
            if not self._started:
                self._started = True
                for target in (self.discovery.watch, self._tend, self._keep_records):
                    threading.Thread(target=target, name=f"objgw-{target.__name__}", daemon=True).start()

    def vouch(self, node: Member) -> bool:
        """Whether the node's record was read within the last `LEASE_SECONDS`; where not, it may be within a moment."""
        node.visit_due = 0.0
        self.directory.due.set()
        if not node.wait_for(lambda: node.leased or node.closed, POLL_SECONDS) and self.discovery.current(node):
            node.wait_for(lambda: node.leased or node.closed, self.settings.node_timeout)
        return node.leased and not node.closed

    def _tend(self) -> None:
        """The thread that has each node visited, and spreads taken into use. It never waits for a node."""
        while True:
            self.directory.due.clear()
            for node in list(self.directory.by_name.values()):
                if node.host and not node.visiting and time.monotonic() >= node.visit_due:
                    node.visiting, node.visit_due = True, time.monotonic() + POLL_SECONDS
                    threading.Thread(target=self._visit, args=(node,), name="objgw-visit", daemon=True).start()
            with self._changed:
                self.directory.arrange()
                switch = self.directory.view.until + 2 * HOLD_SECONDS
            self.directory.due.wait(min(POLL_SECONDS, max(switch - time.time(), 0.01)))

    def _keep_records(self) -> None:
        """The thread that keeps the layout, and the nodes' records of it."""
        while True:
            self._visited.wait(POLL_SECONDS)
            self._visited.clear()
            try:
                self._keep()
            except (OSError, UpstreamError) as error:  # a node went away, or is busy: the next round knows
                log.debug("whether objects are in place isn't known: %s", error)
            except Exception:  # requests go by the view that there is
                log.exception("the layout's record can't be kept")

    def _visit(self, node: Member) -> None:
        """Reads a node's record, and makes the buckets of one that was just found, before they are needed."""
        try:
            sent, reply = self._ask_node(node, Request("GET", f"{self._bucket}/{RECORD}", node.if_changed))
            if reply.code == "NoSuchBucket":
                self._ask_node(node, Request("PUT", self._bucket, upload=Upload(io.BytesIO(), 0)))
            if node.keeps_conditions is None and reply.status in (200, 304, 404):
                self._try_conditions(node)
            node.take_record(sent, reply)
            if not node.ready:
                self._ask_node(node)
        except (OSError, UpstreamError) as error:  # it is starting, or down; the next visit tries again
            log.debug("node %s gives no record: %s", node.name, error)
            if node.leased:
                self.discovery.ask()  # it may have another address
        finally:
            node.tried, node.visiting = True, False
            self._visited.set()

    def _try_conditions(self, node: Member) -> None:
        """Finds out whether the node's server decides conditions. Raises OSError or UpstreamError."""
        kept = keeps_conditions(lambda request: self._ask_node(node, request)[1], self.settings.records_bucket)
        if kept is False:
            log.warning(
                "node %s: its server ignores conditions on PUT; such uploads are 501, and no node joins", node.name
            )
        node.keeps_conditions = kept

    def _ask_node(
        self, node: Member, request: Request | None = None, seconds: float = VISIT_SECONDS
    ) -> tuple[float, Reply]:
        """One request for the layout's sake, with its whole answer and when it was sent; without one, for the bucket.

        Raises OSError or UpstreamError.
        """
        while True:
            connection = node.kept() or node.connect()
            connection.sock.settimeout(seconds)
            try:
                if not connection.reused and not self.discovery.confirm(node):
                    raise UpstreamError("it has changed")
                sent = time.monotonic()
                reply = node.ask(connection, request) if request else node.make_bucket(connection)
                connection.finish(reply)
            except UpstreamError:
                connection.close()
                if connection.reused and not connection.answered:
                    node.forget()
                    continue
                raise
            connection.sock.settimeout(self.settings.node_timeout)
            node.release(connection)
            return sent, reply

    def _keep(self) -> None:
        """Adopts the newest record, and writes one where there is none, an older one, or something to change."""
        running = [node for node in self.directory.by_name.values() if node.host]
        serving = [node for node in running if node.serves and node.leased]
        records = [node.layout for node in running if node.layout and node.serves]
        if not (self.directory.layout or records):
            asked = all(node.tried for node in running) and any(node.leased for node in running)
            if asked and (serving or not any(node.serves for node in running)):  # else one is slow, and will say
                self._begin(serving)
            return
        for record in records:
            if self.directory.layout is None or (
                record.origin == self.directory.layout.origin and record.version > self.directory.layout.version
            ):
                self._adopt(record)
        layout = self.directory.layout
        assert layout
        for node in serving:
            if node.layout:
                node.blank = node.holder != node.name
            elif node.checked > self._adopted:  # what was seen before may be older than this layout
                node.blank = node.name in layout.all_names and node.name not in layout.fresh
            if node.blank != node.was_blank:
                node.was_blank = node.blank
                log.warning("node %s: %s", node.name, node.trouble or "it has its record again")
            if self._may_have(node, layout):
                self._write(node, layout)
        change = self._change(layout, serving)
        if change:
            self._record(change, serving)

    def _change(self, layout: Layout, serving: list[Member]) -> Layout | None:
        """What the layout has to become, if anything."""
        now = time.time()
        for record in (node.layout for node in serving if node.layout and node.layout not in self._absorbed):
            merged = merge(layout, record, now)
            if merged.version > max(layout.version, record.version):
                self._absorbed |= {layout, record}
                return merged
        # A node that was in the layout once, so that it has a record, may hold what was deleted or replaced since.
        new = {node.name for node in serving if not node.layout or node.name in layout.fresh}
        new -= {*layout.names, *layout.removed}
        known_nodes = self.directory.by_name
        if new and not any(known_nodes[name].keeps_conditions is False for name in {*new, *layout.mentioned}):
            return layout.joined(new, now)
        known = layout.known(node.name for node in serving if node.layout)
        if known is not layout:
            return known
        in_use = now > layout.spreads[0].since + HOLD_SECONDS + LEASE_SECONDS
        if layout.settled or not in_use or time.monotonic() - self._quiet_since < QUIET_SECONDS:
            return None
        self._quiet_since = time.monotonic()
        holders = [self.directory.by_name[name] for name in layout.all_names]
        if not all(node.serves and not node.blank and self._in_place(node, layout) for node in holders):
            return None
        return layout.settle() if layout.moved else layout.all_moved()

    def _begin(self, serving: list[Member]) -> None:
        """The first layout: Docker's list."""
        names = tuple(self.directory.by_name)
        layout = Layout.first(names, fresh=names)
        if not all(self._in_place(node, layout) for node in serving):
            layout = Layout.first(names, fresh=names, anywhere=True)
        if serving:
            self._record(layout, serving)
        else:  # none that runs is S3, or takes our keys: requests will say so
            self._adopt(layout)

    def _in_place(self, node: Member, layout: Layout) -> bool:
        """Whether a node has only a few objects, all of them its own. Raises OSError or UpstreamError."""
        _, reply = self._ask_node(node, Request("GET", f"/{self.settings.bucket}"))  # lists the first 1,000
        if reply.status == 404:
            return True
        ids = re.findall(rb"<Key>([^<]*)</Key>", reply.body)
        return (
            reply.status == 200
            and (len(ids) < LISTED or layout.version == 1)
            and MARKER_ETAG.strip('"').encode() not in reply.body
            and SWEPT_ETAG.strip('"').encode() not in reply.body
            and all(owner_name(layout.names, each.decode()) == node.name for each in ids if each.isalnum())
        )

    @staticmethod
    def _may_have(node: Member, layout: Layout) -> bool:
        """Whether a node may be given the record: it has an older one, or never had any."""
        return not node.blank and node.name in (layout.all_names if node.layout else layout.fresh)

    def _record(self, layout: Layout, serving: list[Member]) -> None:
        """Writes a new layout: to the first of its nodes, which decides between gateways, then to the others."""
        nodes = [node for node in serving if self._may_have(node, layout)]
        nodes.sort(
            key=lambda node: (self.directory.layout is None or node.name not in self.directory.layout.names, node.name)
        )
        if nodes and self._write(nodes[0], layout):
            self._adopt(layout)
            for node in nodes[1:]:
                self._write(node, layout)

    def _write(self, node: Member, layout: Layout) -> bool:
        """Writes the record to a node, unless another was written there since it was last read."""
        if node.layout == layout:
            return True
        if node.layout and node.layout.origin == layout.origin and node.layout.version >= layout.version:
            return False
        body = layout.dump(node.name)
        condition = {"if-match": node.etag} if node.etag else {"if-none-match": "*"}
        request = Request("PUT", f"{self._bucket}/{RECORD}", condition, Upload(io.BytesIO(body), len(body)))
        try:
            _, reply = self._ask_node(node, request, WRITE_SECONDS)
        except (OSError, UpstreamError) as error:
            log.debug("node %s doesn't take the record: %s", node.name, error)
            return False
        if reply.status != 200:
            log.debug("node %s doesn't take the record: %d %s", node.name, reply.status, reply.code)
            return False
        node.layout, node.etag, node.holder = layout, reply.headers.get("etag", ""), node.name
        return True

    def _adopt(self, layout: Layout) -> None:
        with self._changed:
            log.info("layout %d: %s, %s", layout.version, ", ".join(layout.names), layout.state)
            self.directory.layout = layout
            self._adopted = self._quiet_since = time.monotonic()
            self.directory.arrange()
        self._visited.set()  # there may be more to do
