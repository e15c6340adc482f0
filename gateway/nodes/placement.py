"""Which node owns an id: SHA-256 of the id, modulo the number of nodes, which are sorted by name.

Why an id has exactly one owner. The gateways share no memory and don't talk to each other, and a
node knows nothing of the others. If an id could be with one node or another, depending on which of
them is up, a write during an outage would go elsewhere, and after it two nodes would hold two
versions, with nobody to say which one is right. So the owner follows from the id and the list of
names alone: every gateway computes the same, without asking anyone. While a node is down, its ids
are refused with 503, and all other ids go on.

Why a hash. Clients choose ids, and chosen ids are alike: `photo1`, `photo2`. SHA-256 spreads any
set of them evenly, it is the same on each machine and in each version of Python (`hash()` isn't),
and a client that picks ids can't aim at one node cheaply.

Why the names are sorted. The source lists containers in any order, and addresses change. A name
stays, so that the list is the same wherever and whenever it is made.

What a change of names does. The number of nodes is part of the formula, so that of three nodes and
a fourth three quarters of all ids get another owner. Their objects don't move by themselves:
`gateway.nodes.layout` has what makes that safe.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

OBJECT_ID = re.compile(r"[A-Za-z0-9]{1,32}")


def position(object_id: str) -> int:
    """SHA-256 of an id, as a big-endian number.

    The id's owner among n sorted nodes is the one at index `position % n`.
    """
    return int.from_bytes(hashlib.sha256(object_id.encode("ascii")).digest())


def owner[N](nodes: Sequence[N], object_id: str) -> N:
    """The one of these sorted nodes that owns an id.

    >>> owner(("node-1", "node-2", "node-3"), "abc")
    'node-2'
    """
    return nodes[position(object_id) % len(nodes)]


def owner_name(names: Sequence[str], object_id: str) -> str:
    """The same by name."""
    return owner(names, object_id)
