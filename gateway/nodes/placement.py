"""Which node owns an id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

OBJECT_ID = re.compile(r"[A-Za-z0-9]{1,32}")


def owner[N](nodes: Sequence[N], object_id: str) -> N:
    """The one of sorted nodes that owns an id: SHA-256 of the id, as a big-endian number, modulo their number."""
    return nodes[int.from_bytes(hashlib.sha256(object_id.encode("ascii")).digest()) % len(nodes)]


def owner_name(names: Sequence[str], object_id: str) -> str:
    """The same by name.

    >>> owner_name(("node-1", "node-2", "node-3"), "abc")
    'node-2'
    """
    return owner(names, object_id)
