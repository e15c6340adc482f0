"""Nodes: what Docker lists and what the nodes' records say, made into the `View` that requests go by.

Three threads keep it current: one reads Docker every few seconds, one has each node's record read every second, one
keeps the records. Requests only read the last view, which is replaced as a whole; where they have to know more (is a
connection still the node's, was its record read lately), they wait here, any number of them for the same answer.

A node is a name: its address and keys may change, and its name keeps its place in the layout. The rules are in
`objgwlayout`, Docker is in `objgwdocker`.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

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
    owner,
    owner_name,
)
from gateway.nodes.sources.docker import DockerReader, NodeRecord
from gateway.s3.node import Node, Reply, Request, Upload, UpstreamError

if TYPE_CHECKING:
    from objgw import Settings

log = logging.getLogger("objgw")

RECENT_SECONDS = 0.25  # for which a node that wasn't running is taken not to be
PROOF_SECONDS = 0.2  # that a new connection waits for an answer on another one before Docker is asked
VISIT_SECONDS = 5.0  # that a node may take to give its record
QUIET_SECONDS = 10.0  # from the last change of the layout to looking whether it is settled
LISTED = 1000  # keys in one listing, as many as S3 gives at once


class View(NamedTuple):
    """What requests go by: the layout, as it is in force, with its nodes. It is replaced as a whole."""

    nodes: tuple[Node, ...] = ()  # that ids are spread over, sorted by name
    older: tuple[tuple[Node | None, ...], ...] = ()  # those of earlier spreads, newest first; None: given up
    anywhere: tuple[Node, ...] = ()  # all nodes, where nobody knows over which ids were spread
    era: int = 0
    moved: bool = False  # every object is with its owner, so that a miss there is a miss
    until: float = math.inf  # Unix time from which on requests wait for the next view

    def moving(self, object_id: str) -> Homes | None:
        """The nodes that may have an object; None where only its owner may."""
        homes = self.homes(object_id) if self.older or self.anywhere else None
        return homes if homes and homes.others else None

    def homes(self, object_id: str) -> Homes:
        """The nodes that may have an object."""
        first = owner(self.nodes, object_id)
        others: list[Node] = []
        sure = True
        for nodes in self.older:
            node = owner(nodes, object_id)
            if node is first:
                sure = sure and not others  # it had the object before others had, so its copy may be an old one
            elif node and node not in others:
                others.append(node)
        others += [node for node in self.anywhere if node is not first and node not in others]
        return Homes(first, others, sure)


class Homes(NamedTuple):
    """The nodes that may have an object: its owner, and the others, where it may still be."""

    owner: Node
    others: list[Node]
    sure: bool  # what the owner has is the newest


class Discovery:
    """The view of the nodes, kept current by threads: for Docker, for visits to the nodes, for the layout's record.

    >>> discovery = Discovery(Settings())   # starts nothing
    >>> discovery.view.nodes                # the last result, sorted by name
    ()
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.view = View()
        self.layout: Layout | None = None
        self.healthy = True  # the last reading of Docker came, and in time
        self._reader = DockerReader(settings.node_name, settings.node_port, settings.docker_timeout)
        self._nodes: dict[str, Node] = {}  # those that Docker lists and those of the layout, sorted by name
        self._changed = threading.Condition()
        self._wanted = False
        self._begun = self._done = 0  # readings of Docker
        self._read = -math.inf  # monotonic time at which the last good one ended
        self._bucket = f"/{settings.records_bucket}"
        self._due = threading.Event()  # a node may have to be visited
        self._visited = threading.Event()  # there may be something to do for the record
        self._absorbed: set[Layout] = set()  # records that were merged already
        self._adopted = -math.inf  # monotonic time of the last change of the layout
        self._quiet_since = -math.inf  # the same, or of the last attempt to settle it
        self._started = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that ids are spread over, sorted by name."""
        return self.view.nodes

    @property
    def settled(self) -> bool:
        """Whether every object is with its owner."""
        return not (self.view.older or self.view.anywhere)

    def start(self) -> None:
        """Starts the threads; once is enough, more does no harm."""
        with self._changed:
            if not self._started:
                self._started = True
                for target in (self._watch, self._tend, self._keep_records):
                    threading.Thread(target=target, name=f"objgw{target.__name__}", daemon=True).start()

    # -- for requests

    def named(self, name: str) -> Node | None:
        """The node of a name that Docker lists or the layout has."""
        return self._nodes.get(name)

    def current_view(self) -> View:
        """The view, after a wait where it is just about to be replaced."""
        if time.time() >= self.view.until:
            with self._changed:
                self._changed.wait_for(lambda: time.time() < self.view.until)
        return self.view

    def renew(self) -> bool:
        """Has Docker read and waits for it: True once a reading that began after this call has succeeded.

        False as soon as one fails, and while Docker is known not to answer. Any number of callers share a reading.
        """
        ticket = self._ask()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= ticket or not self.healthy)
            return self.healthy

    @property
    def age(self) -> float:
        """Seconds since the last good reading of Docker ended; infinite before the first."""
        return time.monotonic() - self._read

    def refresh(self) -> None:
        """Has Docker read unless it just was, or can't be; at the start, waits for the first view."""
        if time.monotonic() - self._read > RECENT_SECONDS:
            self.renew()
        self.wait_begun(self.settings.connect_timeout)

    def wait_begun(self, seconds: float) -> None:
        """Where this worker has just begun, waits until it has a view, or knows that there is none; at most so long."""
        if not self.nodes:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.nodes or (self._done and not any(node.host for node in self._nodes.values())), seconds
                )

    def current(self, node: Node) -> bool:
        """Whether Docker, read now, still has this node at its address with its keys (or can't be read)."""
        return not self.renew() or not node.closed

    def confirm(self, node: Node) -> bool:
        """Whether a connection to the node that is open already leads to it, and not to another with its old address.

        Docker, read from now on, says so. An answer to a request that another connection sends from now on says the
        same; under load it comes sooner.
        """
        opened = time.monotonic()
        if node.busy and node.wait_for(lambda: node.proved > opened or node.closed, PROOF_SECONDS):
            return not node.closed
        ticket = self._ask()
        node.wait_for(lambda: node.proved > opened or node.closed or self._done >= ticket or not self.healthy)
        return not node.closed

    def vouch(self, node: Node) -> bool:
        """Whether the node's record was read within the last `LEASE_SECONDS`; where not, it may be within a moment."""
        node.visit_due = 0.0
        self._due.set()
        if not node.wait_for(lambda: node.leased or node.closed, POLL_SECONDS) and self.current(node):
            node.wait_for(lambda: node.leased or node.closed, self.settings.node_timeout)
        return node.leased and not node.closed

    # -- Docker

    def _ask(self) -> int:
        """Wakes the thread, and gives the number of the first reading that begins from now on."""
        with self._changed:
            self._wanted = self._wanted or self.healthy
            self._changed.notify_all()
            return self._begun + 1

    def _watch(self) -> None:
        """The thread that reads Docker."""
        while True:
            with self._changed:
                self._begun += 1
                self._wanted = False
            failure = None
            try:
                records = self._reader.read()
            except Exception as error:  # whatever Docker does, the last good list stays
                failure = error
            with self._changed:
                if failure is None:
                    self._find(records)
                    self._read = time.monotonic()
                if failure and self.healthy:
                    log.warning("Docker can't be read, the last list stays: %s", failure)
                elif not failure and not self.healthy:
                    log.info("Docker answers again")
                self.healthy = failure is None
                self._done = self._begun
                self._changed.notify_all()
            for node in list(self._nodes.values()):
                node.wake()
            time.sleep(0.02)  # callers that come in a burst share the next reading
            with self._changed:
                calm = self.healthy and self._nodes and all(node.ready for node in self._nodes.values())
                pause = self.settings.discovery_seconds
                self._changed.wait_for(lambda: self._wanted, pause if calm else min(pause, 1.0))

    def _find(self, records: list[NodeRecord]) -> None:
        """Takes what Docker says of the nodes. A name of the layout keeps its place when Docker doesn't list it."""
        found = {record.name: record for record in records}
        kept = self.layout.mentioned if self.layout else self._nodes
        after = {}
        for name in sorted(found.keys() | set(kept)):
            record, node = found.get(name, NodeRecord(name)), self._nodes.get(name)
            if node is None or node.record != record:
                log.info("node %s, was %s", record, node.record if node else "not there")
                if node:
                    node.close()
                node = Node(record, self.settings)
                self._due.set()
            after[name] = node
        for name in self._nodes.keys() - after.keys():
            self._nodes[name].close()
        self._nodes = after
        self._arrange()

    def _arrange(self) -> None:
        """Makes the view that is in force."""
        layout, now, before = self.layout, time.time(), self.view
        if layout is None:
            return
        for name in layout.mentioned:
            self._nodes.setdefault(name, Node(NodeRecord(name), self.settings))
        for node in self._nodes.values():
            node.fresh = node.name in layout.fresh
        newest, *older = layout.in_force(now - HOLD_SECONDS)
        switches = [spread.since for spread in layout.spreads if spread.since > now - HOLD_SECONDS]
        view = View(
            tuple(self._nodes[name] for name in newest.names),
            tuple(
                tuple(None if name in layout.lost else self._nodes[name] for name in spread.names)
                for spread in older
                if spread.names
            ),
            tuple(self._nodes.values()) if any(not spread.names for spread in older) else (),
            newest.era,
            layout.moved,
            min(switches) - HOLD_SECONDS if switches else math.inf,
        )
        if view == before:
            return
        self.view = view
        if [node.name for node in view.nodes] != [node.name for node in before.nodes]:
            log.info("ids are spread over %s", ", ".join(newest.names))
            for node in before.nodes:
                node.end_uploads(view.nodes)
        self._changed.notify_all()

    # -- the nodes' records

    def _tend(self) -> None:
        """The thread that has each node visited, and spreads taken into use. It never waits for a node."""
        while True:
            self._due.clear()
            for node in list(self._nodes.values()):
                if node.host and not node.visiting and time.monotonic() >= node.visit_due:
                    node.visiting, node.visit_due = True, time.monotonic() + POLL_SECONDS
                    threading.Thread(target=self._visit, args=(node,), name="objgw-visit", daemon=True).start()
            with self._changed:
                self._arrange()
                switch = self.view.until + 2 * HOLD_SECONDS
            self._due.wait(min(POLL_SECONDS, max(switch - time.time(), 0.01)))

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

    def _visit(self, node: Node) -> None:
        """Reads a node's record, and makes the buckets of one that was just found, before they are needed."""
        try:
            sent, reply = self._ask_node(node, Request("GET", f"{self._bucket}/{RECORD}", node.if_changed))
            if reply.code == "NoSuchBucket":
                self._ask_node(node, Request("PUT", self._bucket, upload=Upload(io.BytesIO(), 0)))
            node.take_record(sent, reply)
            if not node.ready:
                self._ask_node(node)
        except (OSError, UpstreamError) as error:  # it is starting, or down; the next visit tries again
            log.debug("node %s gives no record: %s", node.name, error)
            if node.leased:
                self._ask()  # it may have another address
        finally:
            node.tried, node.visiting = True, False
            self._visited.set()

    def _ask_node(
        self, node: Node, request: Request | None = None, seconds: float = VISIT_SECONDS
    ) -> tuple[float, Reply]:
        """One request for the layout's sake, with its whole answer and when it was sent; without one, for the bucket.

        Raises OSError or UpstreamError.
        """
        while True:
            connection = node.kept() or node.connect()
            connection.sock.settimeout(seconds)
            try:
                if not connection.reused and not self.confirm(node):
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
        running = [node for node in self._nodes.values() if node.host]
        serving = [node for node in running if node.serves and node.leased]
        records = [node.layout for node in running if node.layout and node.serves]
        if not (self.layout or records):
            asked = all(node.tried for node in running) and any(node.leased for node in running)
            if asked and (serving or not any(node.serves for node in running)):  # else one is slow, and will say
                self._begin(serving)
            return
        for record in records:
            if self.layout is None or (record.origin == self.layout.origin and record.version > self.layout.version):
                self._adopt(record)
        layout = self.layout
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

    def _change(self, layout: Layout, serving: list[Node]) -> Layout | None:
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
        if new:
            return layout.joined(new, now)
        known = layout.known(node.name for node in serving if node.layout)
        if known is not layout:
            return known
        in_use = now > layout.spreads[0].since + HOLD_SECONDS + LEASE_SECONDS
        if layout.settled or not in_use or time.monotonic() - self._quiet_since < QUIET_SECONDS:
            return None
        self._quiet_since = time.monotonic()
        holders = [self._nodes[name] for name in layout.all_names]
        if not all(node.serves and not node.blank and self._in_place(node, layout) for node in holders):
            return None
        return layout.settle() if layout.moved else layout.all_moved()

    def _begin(self, serving: list[Node]) -> None:
        """The first layout: Docker's list."""
        names = tuple(self._nodes)
        layout = Layout.first(names, fresh=names)
        if not all(self._in_place(node, layout) for node in serving):
            layout = Layout.first(names, fresh=names, anywhere=True)
        if serving:
            self._record(layout, serving)
        else:  # none that runs is S3, or takes our keys: requests will say so
            self._adopt(layout)

    def _in_place(self, node: Node, layout: Layout) -> bool:
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
    def _may_have(node: Node, layout: Layout) -> bool:
        """Whether a node may be given the record: it has an older one, or never had any."""
        return not node.blank and node.name in (layout.all_names if node.layout else layout.fresh)

    def _record(self, layout: Layout, serving: list[Node]) -> None:
        """Writes a new layout: to the first of its nodes, which decides between gateways, then to the others."""
        nodes = [node for node in serving if self._may_have(node, layout)]
        nodes.sort(key=lambda node: (self.layout is None or node.name not in self.layout.names, node.name))
        if nodes and self._write(nodes[0], layout):
            self._adopt(layout)
            for node in nodes[1:]:
                self._write(node, layout)

    def _write(self, node: Node, layout: Layout) -> bool:
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
            self.layout = layout
            self._adopted = self._quiet_since = time.monotonic()
            self._arrange()
        self._visited.set()  # there may be more to do
