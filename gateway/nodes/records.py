"""What keeps the layout current: the nodes' records are read each second, and changed as needed.

Each worker of each gateway does that for itself:

- A poller starts a look at each node's record every `POLL_SECONDS`. A look renews the node's lease
  and brings what its record says (`gateway.nodes.acquire`). The poller also takes a membership into
  use when its time has come. It never waits for a node: each look has a thread of its own.
- A keeper does what follows from the looks. It adopts a newer layout, writes the record where a
  node has none or an older one, merges records of two origins, lets new nodes join, and settles a
  layout when it finds every object in place.

Several keepers act at once. They agree because a layout is changed by compare-and-swap on one node
(`gateway.nodes.store`): whoever comes second reads the other's record a second later, and goes on
from that. What a layout is, and why nothing is lost while it changes, is in `gateway.nodes.layout`.

Requests don't wait for these threads, with one exception: `decides_conditions`.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
import time

from gateway.nodes.acquire import prove
from gateway.nodes.conditions import keeps_conditions
from gateway.nodes.discovery import Discovery
from gateway.nodes.layout import (
    EXPIRING_ETAG,
    HOLD_SECONDS,
    LEASE_SECONDS,
    POLL_SECONDS,
    TOMBSTONE_ETAG,
    WRITE_SECONDS,
    Layout,
    merge,
)
from gateway.nodes.member import Member
from gateway.nodes.placement import owner_name
from gateway.nodes.store import UnexpectedAnswer, may_take, write_record, writing_order
from gateway.nodes.view import Directory
from gateway.s3.body import Upload
from gateway.s3.connection import Reply, Request, UpstreamError
from gateway.s3.headers import LISTING_PAGE

log = logging.getLogger("objgw")

LOOK_SECONDS = 5.0  # that a node may take to give its record
QUIET_SECONDS = 10.0  # from the last change of the layout to looking whether it is settled


class Records:
    """What keeps the layout current: threads that read and write the nodes' records.

    One looks at the records, one does what follows from them.
    """

    def __init__(self, directory: Directory, discovery: Discovery) -> None:
        self.directory, self.discovery = directory, discovery
        self.settings = directory.settings
        self._changed = directory.changed
        self._bucket = f"/{self.settings.records_bucket}"
        self._looked = threading.Event()  # there may be something to do for the record
        self._absorbed: set[Layout] = set()  # records that were merged already
        self._troubles: dict[str, str] = {}  # what was logged of a node, by its name
        # Monotonic time of the last change of the layout, or attempt to settle it.
        self._quiet_since = -math.inf
        self._started = False

    def start(self) -> None:
        """Starts the threads, also the one that reads Docker. A second call does nothing."""
        with self._changed:
            if not self._started:
                self._started = True
                for target in (self.discovery.watch, self._poll, self._keep_records):
                    name = f"objgw-{target.__name__}"
                    threading.Thread(target=target, name=name, daemon=True).start()

    def decides_conditions(self, node: Member) -> bool | None:
        """Whether the node's server decides the conditions of a PUT.

        It is None where that can't be found out now.
        """
        if node.standing.keeps_conditions is None:
            node.look_due = 0.0
            self.directory.due.set()
            with self._changed:
                self._changed.wait_for(
                    lambda: node.standing.keeps_conditions is not None or node.closed, LOOK_SECONDS
                )
        return node.standing.keeps_conditions

    def _poll(self) -> None:
        """The thread that has each node's record looked at, and takes memberships into use.

        It never waits for a node.
        """
        while True:
            self.directory.due.clear()
            for node in list(self.directory.by_name.values()):
                if node.host and not node.being_looked_at and time.monotonic() >= node.look_due:
                    node.being_looked_at, node.look_due = True, time.monotonic() + POLL_SECONDS
                    threading.Thread(
                        target=self._look_at, args=(node,), name="objgw-look", daemon=True
                    ).start()
            with self._changed:
                self.directory.arrange()
                switch = self.directory.view.until + 2 * HOLD_SECONDS
            self.directory.due.wait(min(POLL_SECONDS, max(switch - time.time(), 0.01)))

    def _keep_records(self) -> None:
        """The thread that keeps the layout, and the nodes' records of it."""
        while True:
            self._looked.wait(POLL_SECONDS)
            self._looked.clear()
            try:
                self._keep()
            except (OSError, UpstreamError) as error:
                # A node went away, or is busy. The next round tells.
                log.debug("whether objects are in place isn't known: %s", error)
            except Exception:  # requests go by the view that there is
                log.exception("the layout's record can't be kept")

    def _look_at(self, node: Member) -> None:
        """Looks at a node's record.

        Of a node that was just found it also makes the bucket, and finds out whether the server
        decides conditions. A client's request never has to wait for these.
        """
        was_leased = node.standing.leased
        try:
            node.release(prove(node, LOOK_SECONDS))
            if node.standing.serves and not node.ready:
                self._ask_node(node, Request("PUT", self._bucket, upload=Upload(io.BytesIO(), 0)))
                self._try_conditions(node)
                self._ask_node(node)
        except (OSError, UpstreamError) as error:  # it is starting, or down; the next look tells
            log.debug("node %s gives no record: %s", node.name, error)
            if was_leased:
                self.discovery.hurry()  # it may have another address
        except Exception:  # the next look may be luckier
            log.exception("node %s: its record can't be looked at", node.name)
        finally:
            node.being_looked_at = False
            self._looked.set()
            with self._changed:
                self._changed.notify_all()

    def _try_conditions(self, node: Member) -> None:
        """Finds out whether the node's server decides conditions.

        Raises OSError or UpstreamError.
        """
        kept = keeps_conditions(
            lambda request: self._ask_node(node, request), self.settings.records_bucket
        )
        if kept is False:
            log.warning(
                "node %s: its server ignores conditions on PUT; "
                "such uploads are 501, and no node joins",
                node.name,
            )
        node.standing.keeps_conditions = kept

    def _ask_node(
        self, node: Member, request: Request | None = None, seconds: float = LOOK_SECONDS
    ) -> Reply:
        """One request for the layout's sake, and its whole answer.

        Where no request is given, it is the one that makes the bucket of the objects.

        Raises OSError or UpstreamError.
        """
        connection = prove(node, seconds)
        connection.sock.settimeout(seconds)
        try:
            reply = node.ask(connection, request) if request else node.make_bucket(connection)
            connection.finish(reply)
        except UpstreamError:
            connection.close()
            raise
        connection.sock.settimeout(self.settings.node_timeout)
        node.release(connection)
        return reply

    def _keep(self) -> None:
        """Adopts the newest record, and writes records where that is needed.

        It is where a node has none, or an older one, and where the layout has to change.
        """
        running = [node for node in self.directory.by_name.values() if node.host]
        serving = [node for node in running if node.standing.serves and node.standing.recent]
        records = [
            node.standing.layout
            for node in running
            if node.standing.layout and node.standing.serves
        ]
        if not (self.directory.layout or records):
            asked = all(node.standing.tried for node in running)
            asked = asked and any(node.standing.recent for node in running)
            # Otherwise a node may only be slow, so that it is waited for.
            if asked and (serving or not any(node.standing.serves for node in running)):
                self._begin(serving)
            return
        for record in records:
            layout = self.directory.layout
            newer = layout and layout.origin == record.origin and layout.version < record.version
            if layout is None or newer:
                self._adopt(record)
        layout = self.directory.layout
        assert layout
        for node in serving:
            self._tell_trouble(node)
            if not node.standing.trouble and may_take(node.name, node.standing.record, layout):
                self._write(node, layout)
        change = self._change(layout, serving)
        if change:
            self._record(change, serving)

    def _tell_trouble(self, node: Member) -> None:
        """Logs what is wrong with a node, once."""
        trouble, told = node.standing.trouble, self._troubles.get(node.name, "")
        if trouble != told:
            self._troubles[node.name] = trouble
            log.warning("node %s: %s", node.name, trouble or "it has its record again")

    def _change(self, layout: Layout, serving: list[Member]) -> Layout | None:
        """What the layout has to become, if anything."""
        now = time.time()
        records = [node.standing.layout for node in serving]
        for record in (each for each in records if each and each not in self._absorbed):
            merged = merge(layout, record, now)
            if merged.version > max(layout.version, record.version):
                self._absorbed |= {layout, record}
                return merged
        # A node that has a record was in the layout once. It may hold what was deleted or replaced
        # since, so that it doesn't join by itself.
        new = {
            node.name
            for node in serving
            if not node.standing.layout or node.name in layout.unrecorded
        }
        new -= {*layout.names, *layout.removed}
        known_nodes = self.directory.by_name
        standings = [known_nodes[name].standing for name in {*new, *layout.mentioned}]
        if new and all(standing.keeps_conditions is not False for standing in standings):
            return layout.joined(new, now)
        known = layout.known(node.name for node in serving if node.standing.layout)
        if known is not layout:
            return known
        in_use = now > layout.memberships[0].since + HOLD_SECONDS + LEASE_SECONDS
        if layout.settled or not in_use or time.monotonic() - self._quiet_since < QUIET_SECONDS:
            return None
        self._quiet_since = time.monotonic()
        holders = [self.directory.by_name[name] for name in layout.all_names]
        if not all(node.standing.usable and self._in_place(node, layout) for node in holders):
            return None
        return layout.settle() if layout.moved else layout.all_moved()

    def _begin(self, serving: list[Member]) -> None:
        """Makes the first layout: Docker's list of names."""
        names = tuple(self.directory.by_name)
        layout = Layout.first(names, unrecorded=names)
        if not all(self._in_place(node, layout) for node in serving):
            layout = Layout.first(names, unrecorded=names, anywhere=True)
        if serving:
            self._record(layout, serving)
        else:  # no node that runs is a server of S3 and takes our keys: requests will say so
            self._adopt(layout)

    def _in_place(self, node: Member, layout: Layout) -> bool:
        """Whether a node has only a few objects, all of them its own.

        Raises OSError or UpstreamError.
        """
        # S3 lists the first 1,000 keys.
        reply = self._ask_node(node, Request("GET", f"/{self.settings.bucket}"))
        if reply.status == 404:
            return True
        ids = re.findall(rb"<Key>([^<]*)</Key>", reply.body)
        if reply.status != 200 or (len(ids) >= LISTING_PAGE and layout.version != 1):
            return False
        if any(etag.strip('"').encode() in reply.body for etag in (TOMBSTONE_ETAG, EXPIRING_ETAG)):
            return False
        own = [each.decode() for each in ids if each.isalnum()]
        return all(owner_name(layout.names, each) == node.name for each in own)

    def _record(self, layout: Layout, serving: list[Member]) -> None:
        """Writes a new layout to its nodes.

        The first of them decides between gateways that do so at once; then the others get it.
        """
        nodes = {node.name: node for node in serving if not node.standing.trouble}
        records = {name: node.standing.record for name, node in nodes.items()}
        first, *others = writing_order(records, self.directory.layout, layout) or [""]
        if first and self._write(nodes[first], layout):
            self._adopt(layout)
            for name in others:
                self._write(nodes[name], layout)

    def _write(self, node: Member, layout: Layout) -> bool:
        """Writes the record to a node, unless another was written there since it was last read."""
        known = node.standing.record
        if known.layout == layout:
            return True
        if (
            known.layout
            and known.layout.origin == layout.origin
            and known.layout.version >= layout.version
        ):
            return False
        try:
            etag = write_record(
                lambda request: self._ask_node(node, request, WRITE_SECONDS),
                self.settings.records_bucket,
                node.name,
                layout,
                known.etag,
            )
        except (OSError, UpstreamError, UnexpectedAnswer) as error:
            log.debug("node %s doesn't take the record: %s", node.name, error)
            return False
        if etag is None:
            return False
        node.standing.wrote(layout, etag)
        return True

    def _adopt(self, layout: Layout) -> None:
        with self._changed:
            log.info("layout %d: %s, %s", layout.version, ", ".join(layout.names), layout.state)
            self.directory.layout = layout
            self._quiet_since = time.monotonic()
            self.directory.arrange()
        self._looked.set()  # there may be more to do
