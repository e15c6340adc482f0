"""Two records of different origins: what they say together.

Two gateways that find empty nodes at the same moment may both make a first layout, on different
nodes. Nodes of two layouts may also be brought together on purpose. Each such layout has an origin
of its own, and neither knows of the other. Whoever sees both merges them, and all who merge the
same two must get the same layout, whichever of them they knew first.
"""

from __future__ import annotations

from gateway.nodes.layout import ANYWHERE, SWITCH_SECONDS, Layout, Membership


def merge(one: Layout, other: Layout, now: float) -> Layout:
    """What two records say together.

    Of one origin that is the newer one. Two of one version, or of two origins, were made without
    knowledge of each other. Where their memberships differ, both can't be true: then all names of
    both count from `SWITCH_SECONDS` after `now` (Unix time) on, and objects may be anywhere.
    """
    if one.origin == other.origin and one.version != other.version:
        return max(one, other, key=lambda layout: layout.version)
    if one == other:
        return one
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
