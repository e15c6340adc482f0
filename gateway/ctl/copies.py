"""A copy of an object: what a listing, or HEAD, says of it on one node."""

from __future__ import annotations

from typing import NamedTuple

from gateway.nodes.layout import TOMBSTONE_SIZES


class StoredCopy(NamedTuple):
    """An object on a node.

    A listing says neither epoch nor whether it is a tombstone; HEAD does, but says the time in
    whole seconds.
    """

    node: str
    key: str
    size: int  # bytes
    etag: str  # quoted
    modified: float  # Unix time, seconds
    epoch: int = 0
    deleted: bool = False

    @property
    def age(self) -> tuple[int, float]:
        """Of two copies the newer one has the greater."""
        return self.epoch, self.modified

    @property
    def like_tombstone(self) -> bool:
        """Whether it may be a tombstone, by a listing; HEAD says whether it is."""
        return self.size in TOMBSTONE_SIZES
