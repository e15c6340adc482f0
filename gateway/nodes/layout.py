"""The layout: which node names own the ids, since when, and who may still hold objects.

This module has records and rules only. It does no I/O: `gateway.nodes.store` reads and writes the
records, `gateway.nodes.records` decides when, and `gateway.nodes.view` makes of the layout what
requests go by.

The problem. An id's owner follows from the list of node names, and from the lists before it
(`gateway.nodes.placement`). When a name is added or taken out, many ids get another owner, at once,
while their objects are still where they were. Several gateways with several workers each must agree
on which list counts, at every moment, although none of them talks to another.

The answer. The nodes themselves hold the layout: each has a copy of it, the *record*. It has a
chain of `Membership`s, newest first. A membership is a list of names with its number, the *epoch*,
and the time from which it counts. It also has its *history*, the lists before it, from which the
slots of its names follow.

    one membership       the layout is settled: an id has one owner, and a miss there is a miss
    several of them      objects move: an id has candidates, its owners by all of them
    one without names    nobody knows where objects are, so that every node is a candidate

The *owner* of an id is always the one by the newest membership in force. Only it takes writes.

What a change of names does, step by step:

    1. Someone (a gateway that found an empty new node, or `objgwctl`) writes a record with one more
       membership, which counts from `SWITCH_SECONDS` later. Until then nothing is different.
    2. All workers of all gateways read that record within a few seconds (`gateway.nodes.poller`).
       One that can't may soon not write any more, because its leases end.
    3. At that time all gateways switch. Writes go to the new owner, reads ask the candidates.
    4. `rebalance` moves each object to its owner. When it finds nothing to move, it records that
       (`moved`), and a little later removes the tombstones.
    5. It removes all memberships but the newest from the record: the layout is settled again.

Why nothing is lost or brought back meanwhile:

- **At no time do two owners take writes of one id.** A gateway uses a node only while it has a
  *lease*: it has read the node's record within the last `LEASE_SECONDS`. `SWITCH_SECONDS` is longer
  than that by far, so each gateway that can still write has read of the switch before it comes.
  A *fence* around the switch absorbs clocks that differ: from `HOLD_SECONDS` before it to as much
  after it, requests wait. An upload that is then still on its way to a node which isn't the owner
  any more is broken off and not acknowledged.
- **The newest copy wins.** While the layout isn't settled, each write carries its epoch. Of two
  copies the one of the higher epoch is newer, and within one epoch the one with the later
  Last-Modified, which is one node's clock. An object that was written while the layout was settled
  has no epoch, and there is no other copy of it either.
- **What was deleted stays deleted.** A DELETE leaves a *tombstone* with the owner until everything
  is moved. So an older copy that `rebalance` had read before the DELETE can't come back: it writes
  to the owner only if nothing is there, or still what it saw there.
- **What isn't known is 503, never 404.** A miss counts only when all candidates were asked, and
  then the owner once more, in case the object was moved in between.

The record is an object in a bucket of its own. It is changed by compare-and-swap on one node first,
then on the others; whoever finds a node with an older record writes the newer one there. Which
records are of one installation, and what two of them say together, is in `gateway.nodes.merging`.

What a record looks like, and why it has other words than the code, is in
`gateway.nodes.record_json`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.nodes.membership import ANYWHERE, Membership

RECORD = "layout"  # the record's key, in the bucket <bucket>-layout
POLL_SECONDS = 1.0  # between two looks at a node's record
LEASE_SECONDS = 3.0  # for which a look is good
WRITE_SECONDS = 3.0  # that a node may take to take a record
# From making a new membership to its use: the time to write it; a lease, for which a worker may go
# by an old word of the leader's; the time to its own look; and some to spare.
SWITCH_SECONDS = 8.0
HOLD_SECONDS = 0.25  # by which the clocks of gateways may differ

EPOCH = "x-amz-meta-objgw-era"  # of an object that was written while the layout wasn't settled
DELETED = "x-amz-meta-objgw-deleted"  # of a tombstone: there is no object
# A tombstone has one of two bodies. A DELETE writes the first one. Before `rebalance` removes a
# tombstone, it replaces it by one with the second body, onto which no gateway writes. Their lengths
# tell them apart, and say which entries of a listing may be tombstones; HEAD says which are. ETags
# wouldn't do: a node that encrypts, for one, gives each object an ETag of its own.
TOMBSTONE = b"objgw: deleted 7d7b4a5c64b84b9c9d5e0e1f2a3c6b88\n"
EXPIRING_TOMBSTONE = b"objgw: deleted, and about to be forgotten 1f0c9a52e3d84f6f8a7b5c4d3e2f1a00\n"
TOMBSTONE_SIZES = frozenset({len(TOMBSTONE), len(EXPIRING_TOMBSTONE)})  # bytes


def epoch_of(headers: Mapping[str, str]) -> int:
    """The epoch that an object was written in; 0 where the layout was settled then."""
    epoch = headers.get(EPOCH, "")
    return int(epoch) if epoch.isdecimal() else 0


def is_expiring(headers: Mapping[str, str]) -> bool:
    """Whether what a node says of an object says that it is an expiring tombstone."""
    return DELETED in headers and headers.get("content-length") == str(len(EXPIRING_TOMBSTONE))


def new_origin() -> str:
    """What a new installation is told by (`Layout.origin`)."""
    return f"{int(time.time()):08x}-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What the nodes' records say. It is replaced, never changed.

    Each change makes its `version` higher, so that of two records the newer one can be told.

    >>> Layout.first(["b", "a"]).joined(["c"], now=100.0).memberships[0]
    Membership(epoch=2, since=108.0, names=('a', 'b', 'c'), history=(('a', 'b'),))
    """

    # Made with the first record, it tells installations apart: the Unix time in hexadecimal digits,
    # and random ones. Records of the first releases have random ones only.
    origin: str
    version: int
    memberships: tuple[Membership, ...]  # newest first, each in force until the one before it is
    moved: bool = False  # every object is with its owner; only tombstones are left to be removed
    # Names whose node may have no record yet, or one from an earlier time: neither means that the
    # node lost what it held.
    unrecorded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()  # names that were taken out, and don't join by themselves
    lost: tuple[str, ...] = ()  # names that were given up with what they held; nobody asks for it
    # The origin of the installation that this one was a part of; empty where it was of none. Its
    # records on this installation's nodes are older ones of this installation (`split`).
    split_from: str = ""

    # -- what it says

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the newest membership, in force or about to be."""
        return self.memberships[0].names

    def owner(self, object_id: str) -> str:
        """The name that owns an id by the newest membership."""
        return self.memberships[0].owner(object_id)

    @property
    def settled(self) -> bool:
        """Whether every object is with its owner, so that nobody else has to be asked."""
        return len(self.memberships) == 1

    @property
    def mentioned(self) -> frozenset[str]:
        """The names of all memberships."""
        return frozenset(name for membership in self.memberships for name in membership.names)

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names of all memberships, sorted, but for those given up."""
        return tuple(sorted(self.mentioned - set(self.lost)))

    @property
    def state(self) -> str:
        """How far the objects are, in words, for a log."""
        if self.settled:
            return "settled"
        return "everything moved" if self.moved else "not settled"

    def in_force(self, now: float) -> tuple[Membership, ...]:
        """The memberships that count at this Unix time, newest first; there is always one."""
        begun = tuple(membership for membership in self.memberships if membership.since <= now)
        return begun or self.memberships[-1:]

    # -- what can become of it

    @classmethod
    def first(cls, names: Iterable[str], unrecorded: Iterable[str] = ()) -> Layout:
        """The layout where no node has a record."""
        memberships = (Membership(1, 0.0, tuple(sorted(names))),)
        return cls(new_origin(), 1, memberships, unrecorded=tuple(sorted(unrecorded)))

    def joined(
        self, names: Iterable[str], now: float, above: int = 0, *, anew: bool = False
    ) -> Layout:
        """With more names, from `SWITCH_SECONDS` after `now` (Unix time) on.

        `anew` says that nothing is stored yet, so that nothing has to stay where it is: the ids are
        spread as by a first layout.

        `above` is the highest epoch that objects of these names' nodes may have: what is written
        from then on is newer. A name that is in the layout already is to get a record once more.
        """
        new = set(names)
        layout = self._with_names(set(self.names) | new, now, above, anew=anew)
        return replace(
            layout,
            unrecorded=tuple(sorted(set(self.unrecorded) | new)),
            removed=tuple(name for name in self.removed if name not in new),
            lost=tuple(name for name in self.lost if name not in new),
        )

    def without(self, names: Iterable[str], now: float, *, lost: bool = False) -> Layout:
        """Without some names. What their nodes hold is still looked for, unless it is `lost`.

        Raises ValueError where one isn't in the layout, or no other would be left.
        """
        leaving = set(names)
        for name in sorted(leaving - set(self.names)):
            raise ValueError(f"{name} isn't in the layout")
        if leaving == set(self.names):
            raise ValueError(f"no node would be left without {', '.join(sorted(leaving))}")
        layout = self._with_names(set(self.names) - leaving, now)
        unrecorded = tuple(each for each in self.unrecorded if each not in leaving)
        if lost:  # a new node of that name may join by itself
            gone = tuple(sorted({*self.lost, *leaving}))
            return replace(layout, unrecorded=unrecorded, lost=gone)
        removed = tuple(sorted({*self.removed, *leaving}))
        return replace(layout, unrecorded=unrecorded, removed=removed)

    def split(self, foreign: Iterable[str], now: float) -> Layout:
        """Another installation, of the other names: these names' nodes belong to another one.

        That is how two are parted that were made one by mistake. Nobody knows over which names
        the objects were spread, so that they may be anywhere on the nodes that are left.

        Raises ValueError as `without` does.
        """
        layout = self.without(foreign, now, lost=True).anywhere()
        names = set(layout.names)
        removed = tuple(name for name in layout.removed if name in names)
        return replace(
            layout,
            origin=new_origin(),
            version=self.version + 1,
            removed=removed,
            split_from=self.origin,
        )

    def emptied(self, names: Iterable[str]) -> Layout:
        """What the nodes of these names held is given up; they are used as they are, empty."""
        unrecorded = tuple(sorted({*self.unrecorded, *names}))
        return replace(self, version=self.version + 1, unrecorded=unrecorded)

    def known(self, names: Iterable[str]) -> Layout:
        """These names' nodes have a record now."""
        known = set(names) & set(self.names)
        unrecorded = tuple(name for name in self.unrecorded if name not in known)
        if unrecorded == self.unrecorded:
            return self
        return replace(self, version=self.version + 1, unrecorded=unrecorded)

    def anywhere(self) -> Layout:
        """The same names, and objects may be anywhere."""
        known = self.memberships if self.memberships[-1].names else self.memberships[:-1]
        memberships = (*known, ANYWHERE)
        return replace(self, version=self.version + 1, memberships=memberships, moved=False)

    def all_moved(self) -> Layout:
        """Every object is with its owner."""
        return replace(self, version=self.version + 1, moved=True)

    def settle(self) -> Layout:
        """Every object is with its owner, and nothing else is left."""
        newest = self.memberships[:1]
        version = self.version + 1
        return replace(self, version=version, memberships=newest, moved=False, lost=())

    def _with_names(
        self, names: Iterable[str], now: float, above: int = 0, *, anew: bool = False
    ) -> Layout:
        """With one more membership, of these names, whose epoch is above the last and this one."""
        last = self.memberships[0]
        newest = last.followed_by(names, max(now + SWITCH_SECONDS, last.since), above)
        newest = replace(newest, history=()) if anew else newest
        memberships = (newest, *self.memberships)
        return replace(self, version=self.version + 1, memberships=memberships, moved=False)
