"""The command `list`: what is stored, as `GET /objects` has it, or what one node holds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

from gateway.answers import Refusal
from gateway.ctl.cluster import Cluster
from gateway.ctl.console import amount
from gateway.ctl.copies import StoredCopy
from gateway.ctl.errors import FINE, CommandError, NodeError
from gateway.ctl.layout_store import LayoutStore
from gateway.ctl.rebalance import is_tombstone
from gateway.nodes.layout import POLL_SECONDS
from gateway.nodes.member import Member
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.view import Candidates, Directory, View
from gateway.nodes.walk import Walk, shown
from gateway.s3.listing import Entry, Page


def list_objects(cluster: Cluster, args: argparse.Namespace) -> int:
    """Prints the objects, sorted by id: with `--json` one JSON object a line."""
    if args.prefix and not OBJECT_ID.fullmatch(args.prefix):
        raise CommandError("a prefix is 1 to 32 ASCII letters and digits, as ids are")
    found = held_by(cluster, args.node, args.prefix) if args.node else stored(cluster, args.prefix)
    for entry in found:
        row = shown(entry)
        if args.json:
            print(json.dumps(row))
        else:
            print(f"{row['modified']}  {amount(entry.size):>10}  {row['etag']}  {row['id']}")
    return FINE


def held_by(cluster: Cluster, name: str, prefix: str) -> Iterator[Entry]:
    """What a node holds, also where it isn't the owner, but for tombstones. Raises NodeError."""
    settled = LayoutStore(cluster).survey().layout.settled
    for copy in cluster.listing(name, prefix):
        # A settled layout has no tombstones.
        deleted = not settled and is_tombstone(cluster, copy)
        if OBJECT_ID.fullmatch(copy.key) and not deleted:
            yield Entry(copy.key, copy.size, copy.etag, copy.modified)


def stored(cluster: Cluster, prefix: str) -> Iterator[Entry]:
    """What is stored, each object once. Raises CommandError where a node can't be asked."""
    walk = Walk(ByRecords(cluster), prefix)
    try:
        while not walk.done:
            yield from walk.step()
    except Refusal as refusal:
        raise NodeError(refusal.detail) from None


class ByRecords:
    """What a walk asks of nodes (`gateway.nodes.walk.Nodes`), by what their records say now."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._store = cluster, LayoutStore(cluster)
        self._directory = Directory(cluster.settings)
        self._read = float("-inf")  # monotonic time at which the records were read last

    def view(self) -> View:
        """The view that is in force, as a gateway would have it: by records of a second ago.

        Raises CommandError unless every node that may have objects can be relied upon.
        """
        directory = self._directory
        while True:
            with directory.changed:
                if time.monotonic() - self._read > POLL_SECONDS:
                    began = time.monotonic()
                    survey = self._store.survey()
                    survey.require_all()
                    directory.layout, self._read = survey.layout, began
                    directory.find(list(self._cluster.endpoints.values()))
                directory.arrange()
            if time.time() < directory.view.until:
                return directory.view
            time.sleep(POLL_SECONDS / 10)  # a switch is at hand, for which gateways wait, too

    def page(self, node: Member, query: str) -> Page:
        """A page of a node's listing. Raises NodeError."""
        return self._cluster.page(node.name, query)

    def newest(self, object_id: str, view: View, candidates: Candidates) -> Entry | None:
        """The newest copy by HEADs, as `gateway.objects.moving` finds it. Raises NodeError."""

        def head(node: Member) -> StoredCopy | None:
            return self._cluster.head(node.name, object_id)

        newest = head(candidates.owner)
        if not (view.moved or (newest and candidates.owner_has_newest)):
            found = [newest, *map(head, candidates.others)]
            copies = [copy for copy in found if copy]
            # Where there is none, it may have been moved while they were asked.
            newest = max(copies, key=lambda copy: copy.age) if copies else head(candidates.owner)
        if newest is None or newest.deleted:
            return None
        return Entry(object_id, newest.size, newest.etag, newest.modified)

    def unlistable(self, node: Member, error: ValueError) -> NodeError:
        """What is raised where a node's answer is no listing."""
        return NodeError(f"{node.name} gives no listing of S3: {error}")
