"""Records of different origins: whether they are of one installation, and what they say together.

An installation is what one layout is about: its origin is made with the first record. Nodes of two
installations may come in sight of one gateway: a disk was moved, or a gateway runs beside two
stacks. Their layouts are never merged. Each says where its own objects are, and a layout over the
nodes of both would look for most objects of either in the wrong place.

Two kinds of two origins are one installation:

- Gateways that find the same empty nodes at the same moment may each make a first layout, on
  different nodes. Whoever sees both merges them, and all who merge the same two must get the same
  layout, whichever of them they knew first. Only one of them can have all nodes that it began with;
  where each had, these were other disks, of two installations that were set up at the same time.
- Two installations that were made one by mistake are parted again by `Layout.split`. Each gets an
  origin of its own then. On its nodes the records of the common origin are its older ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gateway.nodes.layout import SWITCH_SECONDS, Layout
from gateway.nodes.membership import ANYWHERE, Membership

# Within so many seconds gateways that begin at once make their first layouts.
BEGINNING_SECONDS = 60
ORIGIN = re.compile(r"([0-9a-f]{8,10})-[0-9a-f]{16}")
DECIDING = "OBJGW_NETWORK and OBJGW_NODE_NAME decide which nodes are this gateway's"


class Conflict(NamedTuple):
    """Why there is no layout although there are nodes: an operator has to decide something."""

    what: str  # for a client, without any names; a sentence without its full stop
    text: str  # for the operator, with the names and what to do


def one_installation(one: Layout, other: Layout) -> bool:
    """Whether two layouts are of one installation.

    They have one origin; or they were begun at the same time, with a name in common, and one of
    them doesn't say that all nodes that it began with took its record. A name that came later says
    nothing: it may have been taken over from the other one.
    """
    if one.origin == other.origin:
        return True
    if one.split_from or other.split_from:
        return False
    if began(one) and began(other):
        return False
    origins = ORIGIN.fullmatch(one.origin), ORIGIN.fullmatch(other.origin)
    if not (origins[0] and origins[1]) or first_names(one).isdisjoint(first_names(other)):
        return False
    return abs(int(origins[0][1], 16) - int(origins[1][1], 16)) <= BEGINNING_SECONDS


def first_names(layout: Layout) -> frozenset[str]:
    """The names that a layout began with, as long as its record tells."""
    firsts = (each.names for each in layout.memberships if each.epoch == 1)
    return frozenset(name for names in firsts for name in names)


def began(layout: Layout) -> bool:
    """Whether each node that a layout began with is known to have had a record of it."""
    return first_names(layout).isdisjoint(layout.unrecorded)


def precedes(record: Layout, name: str, layout: Layout) -> bool:
    """Whether the record of the node of this name is from before this layout was split off."""
    return bool(layout.split_from) and record.origin == layout.split_from and name in layout.names


def is_nowhere(layout: Layout, records: Collection[Layout]) -> bool:
    """Whether a layout was made while no node took it, and nodes have another one by now.

    `records` has what the nodes hold that are in sight.
    """
    untaken = set(layout.all_names) <= set(layout.unrecorded)
    return untaken and bool(records) and layout.origin not in {each.origin for each in records}


def split_off(layout: Layout, records: dict[str, Layout], usable: Iterable[str]) -> Layout | None:
    """What this layout was split into, by what nodes hold, where a gateway has to go along.

    It has to where no node that it can use is left to the others. Else somebody looks at the nodes
    of both, or the gateway is one of the others'.
    """
    for record in records.values():
        if record.split_from == layout.origin and set(usable) <= set(record.names):
            return record
    return None


def installations(layouts: Iterable[tuple[str, Layout]]) -> list[dict[str, Layout]]:
    """The layouts that nodes hold as their own, by installation and node."""
    found = _by_origin(layouts)
    for parted in [each for each in found if newest_of(each).split_from]:
        layout = newest_of(parted)
        for each in found:
            for name in [name for name in each if precedes(each[name], name, layout)]:
                parted[name] = each.pop(name)
    return [each for each in found if each]


def newest_of(installation: dict[str, Layout]) -> Layout:
    """The newest layout that nodes of one installation hold."""
    layouts = installation.values()
    before = {layout.split_from for layout in layouts}
    return max(layouts, key=lambda layout: (layout.origin not in before, layout.version))


def _by_origin(layouts: Iterable[tuple[str, Layout]]) -> list[dict[str, Layout]]:
    found: list[dict[str, Layout]] = []
    for name, layout in layouts:
        for each in found:
            if one_installation(layout, next(iter(each.values()))):
                each[name] = layout
                break
        else:
            found.append({name: layout})
    return found


def own_installation(found: list[dict[str, Layout]]) -> dict[str, Layout]:
    """The one of `installations` that a gateway serves which has just begun; empty where none.

    It is the only one in sight, or else the only one of which more than half of the nodes are in
    sight: a disk of another installation, or a few, are the exception then.
    """
    if len(found) == 1:
        return found[0]
    most = [each for each in found if is_mostly_in_sight(each)]
    return most[0] if len(most) == 1 else {}


def is_mostly_in_sight(installation: dict[str, Layout]) -> bool:
    """Whether more than half of the nodes of one of `installations` are in sight."""
    names = newest_of(installation).all_names
    return 2 * len(installation.keys() & set(names)) > len(names)


def conflict_of(found: list[dict[str, Layout]]) -> Conflict:
    """What an operator is told where none of `installations` is clearly the own one."""
    names = "; ".join(", ".join(sorted(each)) for each in found)
    return Conflict(
        "Nodes of two installations are in sight",
        f"nodes of {len(found)} installations are in sight: {names}. {DECIDING}",
    )


def merge(one: Layout, other: Layout, now: float) -> Layout:
    """What two records say together.

    They are of one installation. Of one origin that is the newer one. Two of one version, or of
    two origins, were made without knowledge of each other. Where their memberships differ, both
    can't be true: then all names of both count from `SWITCH_SECONDS` after `now` (Unix time) on,
    without a history, and objects may be anywhere.
    """
    if one.origin == other.origin and one.version != other.version:
        return max(one, other, key=lambda layout: layout.version)
    if one == other or one.split_from == other.origin:
        return one
    if other.split_from == one.origin:
        return other
    # Whoever merges the same two gets the same, whichever it knew first.
    second, first = sorted((one, other), key=_merge_order)
    alike = first.memberships == second.memberships
    memberships = first.memberships if alike else _all_memberships(first, second, now)
    names = set(memberships[0].names)
    return Layout(
        first.origin,
        max(first.version, second.version) + 1,
        memberships,
        moved=alike and first.moved and second.moved,
        unrecorded=tuple(sorted({*first.unrecorded, *second.unrecorded})),
        removed=tuple(sorted({*first.removed, *second.removed} - names)),
        lost=tuple(sorted({*first.lost, *second.lost} - names)),
    )


def _merge_order(layout: Layout) -> tuple[int, str, str]:
    return layout.version, layout.origin, str(layout)


def _all_memberships(first: Layout, second: Layout, now: float) -> tuple[Membership, ...]:
    """A new membership with the names of both, then those of both, and at last ANYWHERE."""
    epoch = max(first.memberships[0].epoch, second.memberships[0].epoch) + 1
    names = tuple(sorted({*first.names, *second.names}))
    newest = Membership(epoch, now + SWITCH_SECONDS, names)
    others = [each for each in second.memberships if each not in first.memberships]
    memberships = (newest, *first.memberships, *others)
    return memberships if not memberships[-1].names else (*memberships, ANYWHERE)
