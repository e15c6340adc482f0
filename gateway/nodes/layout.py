"""The layout: the node names that objects are spread over, and where else they may still be. Records and rules, no I/O.

With a plain modulo most ids change their node when one is added. So every node carries a record, a `Layout`: a chain
of `Spread`s, newest first. An id's *owner* is the one by the newest spread in force; its *homes* are its owners by all
of them. One spread in the chain: the layout is settled, an id has one home, and a miss there is a miss.

Why nothing is lost while it grows or shrinks, with any number of gateways and workers:

- **One switch for all.** A new spread is recorded with the time `since` which it counts, `SWITCH_SECONDS` ahead. A
  gateway uses a node only while it has read the node's record within the last `LEASE_SECONDS`; so each one that can
  still write has read of the switch before it comes. From `HOLD_SECONDS` before to as much after it, requests wait, so
  that clocks may differ by that much. Uploads that are then still on their way to a node that isn't the owner any more
  are broken off, and not acknowledged. So at no time two owners take writes of one id.
- **Newest wins.** While the layout isn't settled, each write carries the number of its spread, the *era*. Of two copies
  the one of the higher era is newer, then the one with the later Last-Modified; an object written while the layout was
  settled has no era, and no other copy either.
- **Deleted is deleted.** A DELETE leaves a marker with the owner until everything is moved: what `rebalance` had read
  by then can't come back, because it writes to the owner only if nothing is there, or still what it saw.
- **Unknown is 503.** A miss counts only when all homes were asked, and the owner once more, in case the object was
  moved in between. A home that can't be asked makes it 503.

The record is an object in a bucket of its own. It is changed first on one node, with a condition on what was there,
then on the others; whoever finds a node with an older one writes the newer there. Records of different origin (two
gateways that began at once, nodes of two installations) are merged; where their spreads differ, that means all names,
and objects may be anywhere.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

RECORD = "layout"  # the record's key, in the bucket <bucket>-layout
POLL_SECONDS = 1.0  # between two looks at a node's record
LEASE_SECONDS = 3.0  # for which a look is good
WRITE_SECONDS = 3.0  # that a node may take to take a record
SWITCH_SECONDS = 8.0  # from making a new spread to its use: time to write it, a look, a lease, and to spare
HOLD_SECONDS = 0.25  # by which the clocks of gateways may differ

ERA = "x-amz-meta-objgw-era"  # of an object that was written while the layout wasn't settled
DELETED = "x-amz-meta-objgw-deleted"  # of a marker: there is no object
# A marker's body: first that of the DELETE; then that of `rebalance`, which is about to remove the marker.
# No object of a client has such bytes by chance: they are found in listings by their ETag.
MARKER = b"objgw: deleted 7d7b4a5c64b84b9c9d5e0e1f2a3c6b88\n"
SWEPT = b"objgw: deleted, and about to be forgotten 1f0c9a52e3d84f6f8a7b5c4d3e2f1a00\n"
MARKER_ETAG, SWEPT_ETAG = (f'"{hashlib.md5(body).hexdigest()}"' for body in (MARKER, SWEPT))


@dataclass(frozen=True, slots=True)
class Spread:
    """Names that ids are spread over. No names: nobody knows over which, an object may be anywhere."""

    era: int
    since: float  # Unix time, seconds; 0: it always was so
    names: tuple[str, ...]  # sorted


ANYWHERE = Spread(0, 0.0, ())


@dataclass(frozen=True, slots=True)
class Layout:
    """What the nodes' records say. It is replaced, never changed; each change makes its `version` higher.

    >>> Layout.first(["b", "a"]).joined(["c"], now=100.0).spreads[0]
    Spread(era=2, since=108.0, names=('a', 'b', 'c'))
    """

    origin: str  # random, made with the first record: tells installations apart
    version: int
    spreads: tuple[Spread, ...]  # newest first, each in force since its time until the one before it
    moved: bool = False  # every object is with its owner; only markers of deleted ones are to be removed
    fresh: tuple[str, ...] = ()  # names whose node may have no record yet, or an old one: that means nothing
    removed: tuple[str, ...] = ()  # names that were taken out, and don't join by themselves
    lost: tuple[str, ...] = ()  # names that were given up with what they held; nobody is asked for it

    # -- what it says

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the newest spread, in force or about to be."""
        return self.spreads[0].names

    @property
    def settled(self) -> bool:
        """Whether every object is with its owner, so that nobody else has to be asked."""
        return len(self.spreads) == 1

    @property
    def mentioned(self) -> frozenset[str]:
        """The names of all spreads."""
        return frozenset(name for spread in self.spreads for name in spread.names)

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names of all spreads, sorted, but for those given up."""
        return tuple(sorted(self.mentioned - set(self.lost)))

    @property
    def state(self) -> str:
        """The same in words, for a log."""
        return "settled" if self.settled else "everything moved" if self.moved else "not settled"

    def in_force(self, now: float) -> tuple[Spread, ...]:
        """The spreads that count at this Unix time, newest first; never none."""
        return tuple(spread for spread in self.spreads if spread.since <= now) or self.spreads[-1:]

    # -- what can become of it

    @classmethod
    def first(cls, names: Iterable[str], fresh: Iterable[str] = (), anywhere: bool = False) -> Layout:
        """The layout where no node has a record. `anywhere`: objects were found where they don't belong."""
        spreads = [Spread(1, 0.0, tuple(sorted(names)))]
        if anywhere:
            spreads.append(ANYWHERE)
        return cls(secrets.token_hex(8), 1, tuple(spreads), fresh=tuple(sorted(fresh)))

    def joined(self, names: Iterable[str], now: float) -> Layout:
        """With more names, from `SWITCH_SECONDS` after `now` (Unix time) on."""
        new = set(names) - set(self.names)
        layout = self._spread(set(self.names) | new, now)
        return replace(
            layout,
            fresh=tuple(sorted(set(self.fresh) | new)),
            removed=tuple(name for name in self.removed if name not in new),
            lost=tuple(name for name in self.lost if name not in new),
        )

    def without(self, name: str, now: float, *, lost: bool = False) -> Layout:
        """Without a name. What it holds is still looked for, unless it is `lost`, with the node.

        Raises ValueError where there is no such name, or no other.
        """
        if name not in self.names:
            raise ValueError(f"{name} isn't in the layout")
        if len(self.names) == 1:
            raise ValueError(f"{name} is the only node")
        layout = self._spread(set(self.names) - {name}, now)
        fresh = tuple(each for each in self.fresh if each != name)
        if lost:  # a new node of that name may join by itself
            return replace(layout, fresh=fresh, lost=tuple(sorted({*self.lost, name})))
        return replace(layout, fresh=fresh, removed=tuple(sorted({*self.removed, name})))

    def readmitted(self, name: str) -> Layout:
        """A name that was taken out, or given up, may join again, whatever its node holds."""
        return replace(
            self,
            version=self.version + 1,
            fresh=tuple(sorted({*self.fresh, name})),
            removed=tuple(each for each in self.removed if each != name),
        )

    def emptied(self, name: str) -> Layout:
        """What the node of a name held is given up; it is used again as it is, empty."""
        return replace(self, version=self.version + 1, fresh=tuple(sorted({*self.fresh, name})))

    def known(self, names: Iterable[str]) -> Layout:
        """These names' nodes have a record now. A name that is about to join again may do so with its old one."""
        known = set(names) & set(self.names)
        fresh = tuple(name for name in self.fresh if name not in known)
        return self if fresh == self.fresh else replace(self, version=self.version + 1, fresh=fresh)

    def anywhere(self) -> Layout:
        """The same names, and objects may be anywhere."""
        return replace(self, version=self.version + 1, spreads=(*self.spreads, ANYWHERE), moved=False)

    def all_moved(self) -> Layout:
        """Every object is with its owner."""
        return replace(self, version=self.version + 1, moved=True)

    def settle(self) -> Layout:
        """Every object is with its owner, and nothing else is left."""
        return replace(self, version=self.version + 1, spreads=self.spreads[:1], moved=False, lost=())

    def _spread(self, names: Iterable[str], now: float) -> Layout:
        newest = Spread(self.spreads[0].era + 1, max(now + SWITCH_SECONDS, self.spreads[0].since), tuple(sorted(names)))
        return replace(self, version=self.version + 1, spreads=(newest, *self.spreads), moved=False)

    # -- the record

    def dump(self, node: str) -> bytes:
        """The record for this node."""
        return json.dumps({**asdict(self), "node": node}, indent=1).encode()

    @classmethod
    def load(cls, data: bytes) -> tuple[Layout, str]:
        """The layout of a record, and the name of the node that it was written to. Raises ValueError."""
        try:
            document: dict[str, Any] = json.loads(data)
            node = document.pop("node")
            spreads = tuple(Spread(s["era"], s["since"], tuple(s["names"])) for s in document.pop("spreads"))
            lists: dict[str, Any] = {name: tuple(document.pop(name)) for name in ("fresh", "removed", "lost")}
            layout = cls(**document, **lists, spreads=spreads)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        names = [name for spread in spreads for name in spread.names] + [n for each in lists.values() for n in each]
        if not (spreads and spreads[0].names and all(isinstance(name, str) for name in [node, layout.origin, *names])):
            raise ValueError("no names")
        if not all(isinstance(s.era, int) and isinstance(s.since, int | float) for s in spreads):
            raise ValueError("no spreads")
        if not isinstance(layout.version, int):
            raise ValueError("no version")
        return layout, node


def merge(one: Layout, other: Layout, now: float) -> Layout:
    """What two records say together: the newer, and where they can't both be true, all names and objects anywhere."""
    if one.origin == other.origin and one.version != other.version:
        return max(one, other, key=lambda layout: layout.version)
    if one == other:
        return one
    first, second = sorted((one, other), key=lambda layout: (layout.version, layout.origin, str(layout)), reverse=True)
    spreads, alike = first.spreads, first.spreads == second.spreads
    if not alike:
        newest = Spread(
            max(first.spreads[0].era, second.spreads[0].era) + 1, now + SWITCH_SECONDS,
            tuple(sorted({*first.names, *second.names})),
        )  # fmt: skip
        spreads = (newest, *first.spreads, *(spread for spread in second.spreads if spread not in first.spreads))
        if spreads[-1].names:
            spreads += (ANYWHERE,)
    names = set(spreads[0].names)
    return Layout(
        first.origin, max(first.version, second.version) + 1, spreads,
        moved=alike and first.moved and second.moved,
        fresh=tuple(sorted({*first.fresh, *second.fresh})),
        removed=tuple(sorted({*first.removed, *second.removed} - names)),
        lost=tuple(sorted({*first.lost, *second.lost} - names)),
    )  # fmt: skip
