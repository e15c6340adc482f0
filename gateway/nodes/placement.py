"""Which node an id belongs to: SHA-256 of the id, modulo the number of nodes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

OBJECT_ID = re.compile(r"[A-Za-z0-9]{1,32}")


def position(object_id: str) -> int:
    """SHA-256 of an id, as a big-endian number: its owner among n sorted nodes is number `position % n`."""
    return int.from_bytes(hashlib.sha256(object_id.encode("ascii")).digest())


def owner[N](nodes: Sequence[N], object_id: str) -> N:
    """The one of sorted nodes that owns an id.

    >>> owner(("node-1", "node-2", "node-3"), "abc")
    'node-2'
    """
    return nodes[position(object_id) % len(nodes)]


def owner_name(names: Sequence[str], object_id: str) -> str:
    """The same by name."""
    return owner(names, object_id)
