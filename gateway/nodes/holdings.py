"""What a node without a record holds, and whether it may be taken into a layout by itself.

The problem. A node without a record may be new, or its disk may be anybody's: one that was in use
before there were records, one of another installation whose record was deleted, or one with a
bucket that has nothing to do with this gateway. To take the last ones in would put objects under
ids that aren't theirs, and to write to them would change what belongs to somebody else.

The answer. The first page of the node's listing is read before anything is written to it:

    nothing is there                            it is new, and joins by itself
    objects, and there is a layout              it is *unknown*: left alone until `objgwctl.py add`
    objects of each node are where plain        the nodes are in use since before there were
    modulo over all nodes in sight puts them,   records: they get the first layout
    and there is no layout
    other objects, and there is no layout       no first layout, until `objgwctl.py add`

Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from gateway.nodes.layout import TOMBSTONE_SIZES, Layout
from gateway.nodes.merging import DECIDING, Conflict
from gateway.nodes.placement import OBJECT_ID, Placement, slots_of
from gateway.nodes.store import Record, may_take
from gateway.s3.connection import Request
from gateway.s3.headers import LISTING_PAGE
from gateway.s3.reply import Reply

KEY = re.compile(rb"<Key>([^<]*)</Key>")
ENTRY = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)  # its elements come in any order
SIZE = re.compile(rb"<Size>(\d+)</Size>")


class Holdings(NamedTuple):
    """What a node holds, by the first page of its listing."""

    ids: tuple[str, ...] = ()
    other_keys: bool = False  # keys that no gateway wrote
    like_tombstones: tuple[str, ...] = ()  # the ids of what is as long as a tombstone
    complete: bool = True  # the first page is all
    problem: str = ""  # why it can't be listed

    @property
    def empty(self) -> bool:
        """Whether nothing is there at all."""
        return not (self.ids or self.other_keys or self.problem)

    def in_place(self, name: str, owner_of: Callable[[str], str]) -> bool:
        """Whether all that was found is the own one of the node of this name."""
        if self.problem:
            return False
        return all(owner_of(object_id) == name for object_id in self.ids)


def holdings_request(bucket: str) -> Request:
    """The request for the first page of a node's listing: S3 lists 1,000 keys."""
    return Request("GET", f"/{bucket}")


def holdings_of(reply: Reply) -> Holdings:
    """What the answer to `holdings_request` says."""
    if reply.code == "NoSuchBucket":
        return Holdings()
    if reply.status != 200:
        return Holdings(problem=f"its objects can't be listed: {reply.status} {reply.code}".strip())
    keys = [key.decode(errors="replace") for key in KEY.findall(reply.body)]
    ids = tuple(key for key in keys if OBJECT_ID.fullmatch(key))
    return Holdings(
        ids,
        other_keys=len(ids) < len(keys),
        like_tombstones=tuple(filter(None, map(like_tombstone, ENTRY.findall(reply.body)))),
        complete=len(keys) < LISTING_PAGE,
    )


def like_tombstone(entry: bytes) -> str:
    """The id of an entry of a listing that is as long as a tombstone; empty for others.

    >>> like_tombstone(b"<Size>48</Size><Key>a</Key>")
    'a'
    """
    key, size = KEY.search(entry), SIZE.search(entry)
    if not key or not size or int(size[1]) not in TOMBSTONE_SIZES:
        return ""
    return key[1].decode() if OBJECT_ID.fullmatch(key[1].decode(errors="replace")) else ""


def is_unknown(name: str, record: Record, held: Holdings | None, layout: Layout | None) -> bool:
    """Whether a node holds objects without a record, and the layout doesn't say that it may."""
    if record.etag or held is None or held.empty:
        return False
    return layout is None or not _is_taken_in(name, held, layout)


def _is_taken_in(name: str, held: Holdings, layout: Layout) -> bool:
    if name not in layout.unrecorded or name not in layout.names:
        return False
    if not layout.memberships[-1].names:  # objects may be anywhere
        return True
    return held.in_place(name, layout.owner)


def may_be_given(name: str, record: Record, held: Holdings | None, layout: Layout) -> bool:
    """Whether a node may be given this layout as its record, by what is known of what it holds."""
    if not may_take(name, record, layout):
        return False
    return bool(record.etag) or (held is not None and not is_unknown(name, record, held, layout))


def first_conflict(
    names: Iterable[str], holdings: Mapping[str, Holdings], separate: str
) -> Conflict | None:
    """Why no first layout can be made of these names; None where it can.

    `holdings` has what the nodes hold that answer, none of which has a record. `separate` says how
    the nodes are on different networks, where that means that they needn't belong together.
    """
    if separate:
        return Conflict(
            "The nodes share no Docker network, so that it isn't clear which belong together",
            f"the nodes share no Docker network, so that they may be of two installations: "
            f"{separate}. {DECIDING}",
        )
    names = tuple(sorted(names))
    placement = Placement(names, slots_of((), names))

    def in_place(name: str) -> bool:
        return holdings[name].in_place(name, placement.owner)

    if all(map(in_place, holdings)):
        return None
    holding = [name for name in sorted(holdings) if not holdings[name].empty]
    return Conflict(
        "Nodes hold objects, and no node has a record of where they belong",
        f"no node has a record of the layout, and objects of {', '.join(holding)} aren't where "
        f"{', '.join(names)} would have them. If they belong to this gateway: "
        f"objgwctl.py add {' '.join(holding)}. Otherwise {DECIDING}",
    )
