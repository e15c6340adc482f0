"""What requests go by: the nodes by their names, and the `View` of them that is in force.

A `Directory` brings together what two others find out: `gateway.nodes.discovery` says which nodes
there are and where, `gateway.nodes.records` says which layout counts. It makes a view of both. A
request takes the view once and looks at nothing else, so that it needs no lock. A view is never
changed: when there is something new, another view replaces it. So a request that took long can see
by identity whether it still has the view that is in force.

A node is a name. Its address and keys may change, and its name keeps its place in the layout, also
while its container is stopped or gone.

Worst case for a request: around a switch it waits for the next view, `HOLD_SECONDS` before the
switch to as much after it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import NamedTuple

from gateway.nodes.layout import HOLD_SECONDS, Layout
from gateway.nodes.member import Member
from gateway.nodes.merging import Conflict
from gateway.nodes.placement import Placement, position
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

log = logging.getLogger("objgw")


class View(NamedTuple):
    """What requests go by: the layout, as it is in force, with its nodes.

    It is replaced as a whole.
    """

    current: Placement[Member] = Placement()  # by the newest membership in force
    # By the memberships before that one, newest first; None is a node that was given up.
    older: tuple[Placement[Member | None], ...] = ()
    anywhere: tuple[Member, ...] = ()  # all nodes, where nobody knows over which ids were spread
    epoch: int = 0
    moved: bool = False  # every object is with its owner, so that a miss there is a miss
    until: float = math.inf  # Unix time from which on requests wait for the next view

    @property
    def nodes(self) -> tuple[Member, ...]:
        """The nodes that ids are spread over, sorted by name."""
        return self.current.nodes

    @property
    def settled(self) -> bool:
        """Whether every object is with its owner, and nobody else is asked."""
        return not (self.older or self.anywhere)

    def owner(self, object_id: str) -> Member:
        """The node that owns an id, where there are nodes."""
        return self.current.owner(object_id)

    def candidates(self, object_id: str) -> Candidates:
        """The nodes that may have an object; while the layout is settled, its owner alone."""
        place = position(object_id)
        owner = self.current.at(place)
        if not (self.older or self.anywhere):  # as `settled`, and quicker
            return Candidates(owner)
        others: list[Member] = []
        newest = True
        for earlier in self.older:
            node = earlier.at(place)
            if node is owner:
                # The owner had the id before others had it, so that its copy may be an old one.
                newest = newest and not others
            elif node and node not in others:
                others.append(node)
        others += [node for node in self.anywhere if node is not owner and node not in others]
        return Candidates(owner, tuple(others), newest)


class Candidates(NamedTuple):
    """The nodes that may have an object: its owner, and the others, where it may still be.

    The owner's copy may be an old one where the id came back to a node that had owned it before
    others did. Otherwise nobody else has a newer copy (`owner_has_newest`).
    """

    owner: Member
    others: tuple[Member, ...] = ()
    owner_has_newest: bool = True  # where the owner has a copy, no other is newer


class Directory:
    """The nodes that there are, the layout, and the view of both that is in force.

    What Docker lists comes from `discovery`, the layout from `records`; both change it while they
    hold `changed`.

    >>> directory = Directory(Settings())
    >>> directory.view.nodes    # sorted by name
    ()
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.view = View()
        self.layout: Layout | None = None
        # The nodes that Docker lists and those of the layout, sorted by name.
        self.by_name: dict[str, Member] = {}
        self.changed = threading.Condition()
        self.due = threading.Event()  # a node's record may have to be looked at
        self.conflict: Conflict | None = None  # why there is no layout although there are nodes
        # How the nodes are on different networks, where they needn't belong together therefore.
        self.separate = ""

    @property
    def nodes(self) -> tuple[Member, ...]:
        """The nodes that ids are spread over, sorted by name."""
        return self.view.nodes

    @property
    def settled(self) -> bool:
        """Whether every object is with its owner."""
        return self.view.settled

    def named(self, name: str) -> Member | None:
        """The node of a name that Docker lists or the layout has."""
        return self.by_name.get(name)

    def role(self, node: Member) -> str:
        """What a node is in the layout: member, joining, leaving, or outside.

        A member has ids now. A joining one is about to get some. A leaving one has given its ids to
        others, which still look for objects there.
        """
        layout, name = self.layout, node.name
        if layout is None:
            return "outside"
        if name in layout.in_force(time.time())[0].names and name not in layout.lost:
            return "member"
        if name in layout.names:
            return "joining"
        if name in layout.all_names:
            return "leaving"
        return "joining" if node.standing.new and name not in layout.removed else "outside"

    def current_view(self) -> View:
        """The view, after a wait where it is just about to be replaced."""
        if time.time() >= self.view.until:
            with self.changed:
                self.changed.wait_for(lambda: time.time() < self.view.until)
        return self.view

    def find(self, endpoints: list[Endpoint]) -> None:
        """Takes what Docker says of the nodes.

        A name of the layout keeps its place when Docker doesn't list it.
        """
        found = {endpoint.name: endpoint for endpoint in endpoints}
        kept = self.layout.mentioned if self.layout else self.by_name
        after = {}
        for name in sorted(found.keys() | set(kept)):
            endpoint, node = found.get(name, Endpoint(name)), self.by_name.get(name)
            if node is None or node.endpoint != endpoint:
                log.info("node %s, was %s", endpoint, node.endpoint if node else "not there")
                if node:
                    node.close()
                node = Member(endpoint, self.settings)
                self.due.set()
            after[name] = node
        for name in self.by_name.keys() - after.keys():
            self.by_name[name].close()
        self.by_name = after
        self.arrange()

    def arrange(self) -> None:
        """Makes the view that is in force."""
        layout, before = self.layout, self.view
        if layout is None:
            return
        for name in layout.mentioned:
            self.by_name.setdefault(name, Member(Endpoint(name), self.settings))
        for node in self.by_name.values():
            node.standing.expect(layout)
        view = self._view_of(layout, time.time() - HOLD_SECONDS)
        if view == before:
            return  # requests compare views by identity, so that an equal one isn't replaced
        self.view = view
        names, before_names = ([node.name for node in each.nodes] for each in (view, before))
        if names != before_names or view.current.slots != before.current.slots:
            log.info("ids are spread over %s", ", ".join(names))
            for node in before.nodes:
                node.end_uploads(view.owner)
        self.changed.notify_all()

    def _view_of(self, layout: Layout, now: float) -> View:
        """The view of a layout at this Unix time."""
        newest, *older = layout.in_force(now)
        left = {name: None if name in layout.lost else self.by_name[name] for name in self.by_name}
        anywhere = any(not membership.names for membership in older)
        switches = [each.since for each in layout.memberships if each.since > now]
        nodes = tuple(self.by_name[name] for name in newest.names)
        return View(
            current=Placement(nodes, newest.placement.slots),
            older=tuple(
                Placement(tuple(left[name] for name in each.names), each.placement.slots)
                for each in older
                if each.names
            ),
            anywhere=tuple(self.by_name[name] for name in layout.all_names if anywhere),
            epoch=newest.epoch,
            moved=layout.moved,
            until=min(switches) - HOLD_SECONDS if switches else math.inf,
        )
