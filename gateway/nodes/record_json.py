"""A layout as JSON: in the nodes' records, and in what `objgwctl --json` prints.

Existing installations have such records, and scripts read them. So the keys stay, also where the
code has other words by now: `spreads` are the memberships, `era` is the epoch, `fresh` are the
unrecorded names. The histories of the memberships are in `steps`, and only where there are any: a
release that doesn't know of them would compute other owners. So a record with an unknown key is
refused, and that release serves nothing, rather than to misread it.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.nodes.layout import Layout
from gateway.nodes.membership import Membership


def document(layout: Layout) -> dict[str, Any]:
    """The layout as JSON has it."""
    steps = [[list(names) for names in each.history] for each in layout.memberships]
    split = {"split_from": layout.split_from} if layout.split_from else {}
    return {
        "origin": layout.origin,
        "version": layout.version,
        "spreads": [
            {"era": each.epoch, "since": each.since, "names": list(each.names)}
            for each in layout.memberships
        ],
        **({"steps": steps} if any(steps) else {}),
        "moved": layout.moved,
        "fresh": list(layout.unrecorded),
        "removed": list(layout.removed),
        "lost": list(layout.lost),
        **split,
    }


def dump(layout: Layout, node: str) -> bytes:
    """The record for the node of this name."""
    return json.dumps({**document(layout), "node": node}, indent=1).encode()


def load(data: bytes) -> tuple[Layout, str]:
    """The layout of a record, and the name of the node that it was written to.

    Raises ValueError where it is no record, or has what this version doesn't know.
    """
    try:
        record: dict[str, Any] = json.loads(data)
        node = record.pop("node")
        spreads = record.pop("spreads")
        steps = record.pop("steps", [()] * len(spreads))
        layout = Layout(
            origin=record.pop("origin"),
            version=record.pop("version"),
            memberships=tuple(
                Membership(
                    each["era"], each["since"], tuple(each["names"]), tuple(map(tuple, history))
                )
                for each, history in zip(spreads, steps, strict=True)
            ),
            moved=record.pop("moved", False),
            unrecorded=tuple(record.pop("fresh")),
            removed=tuple(record.pop("removed")),
            lost=tuple(record.pop("lost")),
            split_from=record.pop("split_from", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if record:
        raise ValueError(f"unknown: {', '.join(record)}")
    _require_types(layout, node)
    return layout, node


def _require_types(layout: Layout, node: object) -> None:
    """Raises ValueError where what was read has other types than a record has."""
    lists = [names for each in layout.memberships for names in (each.names, *each.history)]
    names = [name for each in lists for name in each]
    names += [*layout.unrecorded, *layout.removed, *layout.lost]
    if not all(isinstance(name, str) for name in (node, layout.origin, layout.split_from, *names)):
        raise ValueError("a name is no text")
    if not (layout.memberships and layout.names):
        raise ValueError("no names")
    for membership in layout.memberships:
        if not isinstance(membership.epoch, int):
            raise ValueError("an era is no number")
        if not isinstance(membership.since, int | float):
            raise ValueError("a time is no number")
        if membership.history and not all((membership.names, *membership.history)):
            raise ValueError("a step without names")
    if not isinstance(layout.version, int):
        raise ValueError("no version")
