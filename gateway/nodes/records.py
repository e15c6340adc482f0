"""What keeps the layout current: the nodes' records are read, and changed as needed.

Each worker of each gateway does that for itself:

- The poller starts looks at the nodes' records, which renew the nodes' leases and bring what the
  records say (`gateway.nodes.poller`). It also takes a membership into use when its time has come.
- The keeper does what follows from the looks. It makes the first layout, adopts a newer one, writes
  the record where a node has none or an older one, merges two records of one installation, lets
  new nodes join, and settles a layout when it finds every object in place. Nodes of another
  installation, and those that hold what nobody knows of, it leaves alone. In a worker for which
  another one looks at the nodes, it only adopts.

Several keepers act at once. They agree because a layout is changed by compare-and-swap on one node
(`gateway.nodes.store`): whoever comes second reads the other's record a second later, and goes on
from that. What a layout is, and why nothing is lost while it changes, is in `gateway.nodes.layout`.

Requests don't wait for these threads, but for uploads of which it isn't known yet what the node's
server does with them: `Poller.decides_conditions` and `Poller.ignored`.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from gateway.background import forever
from gateway.nodes.discovery import Discovery
from gateway.nodes.holdings import first_conflict
from gateway.nodes.layout import (
    DELETED,
    HOLD_SECONDS,
    LEASE_SECONDS,
    POLL_SECONDS,
    WRITE_SECONDS,
    Layout,
)
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.merging import (
    Conflict,
    conflict_of,
    installations,
    is_mostly_in_sight,
    is_nowhere,
    merge,
    newest_of,
    own_installation,
    split_off,
)
from gateway.nodes.poller import Poller
from gateway.nodes.store import UnexpectedAnswer, write_record, writing_order
from gateway.nodes.view import Directory
from gateway.s3.connection import Request, UpstreamError

log = logging.getLogger("objgw")

QUIET_SECONDS = 10.0  # from the last change of the layout to looking whether it is settled
# For which a gateway that begins waits for listed nodes that don't answer: one may have the record.
UNHEARD_SECONDS = 20.0


class Records:
    """The keeper of the layout, and what starts all threads that it needs."""

    def __init__(self, directory: Directory, discovery: Discovery, leader: Leader) -> None:
        self.directory, self.discovery = directory, discovery
        self.settings = directory.settings
        self._changed = directory.changed
        self.poller = Poller(directory, discovery, leader)
        self._merged: set[Layout] = set()  # what the layout has taken in
        self._troubles: dict[str, str] = {}  # what was logged of a node, by its name
        # Monotonic time of the last change of the layout, or attempt to settle it.
        self._quiet_since = -math.inf
        self._unheard_since = math.inf  # monotonic time from which it has waited for such nodes
        self._started = False

    def start(self) -> None:
        """Starts the threads, also the one that reads Docker. A second call does nothing."""
        with self._changed:
            if not self._started:
                self._started = True
                for target in (
                    self.discovery.watch,
                    self.discovery.follow,
                    self.poller.poll,
                    self._keep_records,
                ):
                    name = f"objgw-{target.__name__}"
                    threading.Thread(target=target, name=name, daemon=True).start()

    def _keep_records(self) -> None:
        """The thread that keeps the layout, and the nodes' records of it."""
        forever(self._keep_when_looked, "the keeping of the layout's record")

    def _keep_when_looked(self) -> None:
        self.poller.looked.wait(POLL_SECONDS)
        self.poller.looked.clear()
        try:
            self._keep()
        except (OSError, UpstreamError) as error:
            # A node went away, or is busy. The next round tells.
            log.debug("whether objects are in place isn't known: %s", error)

    def _keep(self) -> None:
        """Adopts the newest record, and writes records where that is needed.

        It is where a node has none, or an older one, and where the layout has to change.
        """
        running = [node for node in self.directory.by_name.values() if node.host]
        serving = [node for node in running if node.standing.serves and node.standing.recent]
        records = {
            node.name: node.standing.layout
            for node in running
            if node.standing.layout and node.standing.serves
        }
        if self.directory.layout is None or is_nowhere(self.directory.layout, records.values()):
            # A node that is slow may be of another installation, or have the only record.
            if not all(node.standing.tried for node in running):
                return
            if not records:
                asked = any(node.standing.recent for node in running)
                none_serves = asked and not any(node.standing.serves for node in running)
                if none_serves or (serving and not self._waits_for(self._unheard(serving))):
                    self._begin(serving)
                return
            records = self._choose(records, serving)
            if records:
                self._adopt(newest_of(records))
        layout = self.directory.layout
        for record in records.values():
            if layout and layout.origin == record.origin and layout.version < record.version:
                self._adopt(layout := record)
        if layout is None or not self.poller.informed:
            return
        usable = [node.name for node in running if node.standing.usable]
        if parted := split_off(layout, records, usable):
            self._adopt(layout := parted)
        for node in serving:
            self._tell_trouble(node)
        if self._merge(layout, serving):  # before a record that is to be merged is replaced
            return
        for node in serving:
            if node.standing.may_be_given(layout):
                self._write(node, layout)
        if change := self._change(layout, serving):
            self._record(change, serving)

    def _choose(self, records: dict[str, Layout], serving: list[Member]) -> dict[str, Layout]:
        """The records of this gateway's own installation, of those in sight when it begins.

        None where that isn't clear. Then nothing is written and nothing is served, until an
        operator has the gateway see one installation only. None also for a while, where most of an
        installation isn't in sight: nodes that don't answer yet may be of another one.
        """
        found = installations(records.items())
        own = own_installation(found)
        if own and not is_mostly_in_sight(own):
            names = newest_of(own).all_names
            if self._waits_for([each for each in self._unheard(serving) if each not in names]):
                return {}
        self._tell_conflict(None if own else conflict_of(found))
        return own

    def _unheard(self, serving: list[Member]) -> list[str]:
        """The listed nodes that can't be asked now what they hold."""
        heard = {node.name for node in serving}
        return [name for name in self.directory.by_name if name not in heard]

    def _waits_for(self, unheard: list[str]) -> bool:
        """Whether a decision waits until these nodes answer, which it does for UNHEARD_SECONDS."""
        if not unheard:
            return False
        now = time.monotonic()
        if self._unheard_since == math.inf:
            self._unheard_since = now
            log.info("%s may have the layout's record: waiting for an answer", ", ".join(unheard))
        return now < self._unheard_since + UNHEARD_SECONDS

    def _tell_conflict(self, conflict: Conflict | None) -> None:
        """Notes why there is no layout, and logs it once."""
        if conflict != self.directory.conflict:
            self.directory.conflict = conflict
            if conflict:
                log.error("nothing is served: %s", conflict.text)

    def _tell_trouble(self, node: Member) -> None:
        """Logs what is wrong with a node, once."""
        trouble, told = node.standing.trouble, self._troubles.get(node.name, "")
        if trouble != told:
            self._troubles[node.name] = trouble
            log.warning("node %s: %s", node.name, trouble or "it has its record again")

    def _merge(self, layout: Layout, serving: list[Member]) -> bool:
        """Records what the layout and a node's record say together, if neither says it alone.

        Whether there was such a record: then no node's may be replaced in this round.
        """
        records = [node.standing.layout for node in serving if node.standing.usable]
        for record in (each for each in records if each and each not in self._merged):
            merged = merge(layout, record, time.time())
            if merged.version > max(layout.version, record.version):
                if self._record(merged, serving):
                    self._merged |= {layout, record}
                return True
        return False

    def _change(self, layout: Layout, serving: list[Member]) -> Layout | None:
        """What the layout has to become, if anything."""
        now = time.time()
        if new := self._joining(layout, serving):
            return layout.joined(new, now, anew=self._nothing_stored(layout))
        known = layout.known(
            node.name for node in serving if node.standing.record.is_of(node.name, layout)
        )
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

    def _nothing_stored(self, layout: Layout) -> bool:
        """Whether no node of the layout has an object: it has only begun to come up."""
        nodes = [self.directory.by_name[name] for name in layout.all_names]
        return all(node.standing.usable and self.poller.holdings(node).empty for node in nodes)

    def _joining(self, layout: Layout, serving: list[Member]) -> list[str]:
        """The names that join by themselves now: those of empty nodes without a record.

        None does where nodes share no network, because it may be another installation's that has
        just begun; nor where a server ignores conditions or metadata, because no layout can be
        changed there.
        """
        if self.directory.separate:
            return []
        members = [self.directory.by_name[name].standing for name in layout.mentioned]
        if any(each.can_grow is False for each in members):
            return []
        outside = [node for node in serving if node.name not in {*layout.names, *layout.removed}]
        return [node.name for node in outside if node.standing.new and node.standing.can_grow]

    def _begin(self, serving: list[Member]) -> None:
        """Makes the first layout: Docker's list of names, unless their nodes hold other objects."""
        names = tuple(self.directory.by_name)
        held = {node.name: node.standing.holdings for node in serving}
        holdings = {name: each for name, each in held.items() if each is not None}
        if len(holdings) < len(held):
            return
        conflict = first_conflict(names, holdings, self.directory.separate)
        self._tell_conflict(conflict)
        if conflict:
            return
        layout = Layout.first(names, unrecorded=names)
        if serving:
            self._record(layout, serving)
        else:  # no node that runs is a server of S3 and takes our keys: requests will say so
            self._adopt(layout)

    def _in_place(self, node: Member, layout: Layout) -> bool:
        """Whether a node has only a few objects, all of them its own.

        Raises OSError or UpstreamError.
        """
        held = self.poller.holdings(node)
        if not (held.complete and held.in_place(node.name, layout.owner)):
            return False
        path = f"/{self.settings.bucket}"
        heads = (
            self.poller.ask(node, Request("HEAD", f"{path}/{id}")) for id in held.like_tombstones
        )
        return all(head.status == 200 and DELETED not in head.headers for head in heads)

    def _record(self, layout: Layout, serving: list[Member]) -> bool:
        """Writes a new layout to its nodes, and adopts it. Whether that was done.

        The first of them decides between gateways that do so at once; then the others get it.
        """
        nodes = {node.name: node for node in serving if node.standing.may_be_given(layout)}
        records = {name: node.standing.record for name, node in nodes.items()}
        first, *others = writing_order(records, self.directory.layout, layout) or [""]
        if not (first and self._write(nodes[first], layout)):
            return False
        self._adopt(layout)
        for name in others:
            self._write(nodes[name], layout)
        return True

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
                lambda request: self.poller.ask(node, request, WRITE_SECONDS),
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
        for membership in layout.memberships:
            _ = membership.placement  # computed before the lock is held, and before it counts
        with self._changed:
            if self.directory.layout is None:  # only now the nodes may be written to
                for node in self.directory.by_name.values():
                    node.looked_from = -math.inf
                self.directory.due.set()
            log.info("layout %d: %s, %s", layout.version, ", ".join(layout.names), layout.state)
            self.directory.layout = layout
            self._quiet_since = time.monotonic()
            self.directory.arrange()
        self.poller.looked.set()  # there may be more to do
        self.directory.due.set()  # the other workers are told
