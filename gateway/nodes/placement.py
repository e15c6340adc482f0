"""Which node owns an id: SHA-256 of the id, modulo the number of slots, each of which is a node's.

Why an id has exactly one owner. The gateways share no memory and don't talk to each other, and a
node knows nothing of the others. If an id could be with one node or another, depending on which of
them is up, a write during an outage would go elsewhere, and after it two nodes would hold two
versions, with nobody to say which one is right. So the owner follows from the id and the lists of
names alone: every gateway computes the same, without asking anyone. While a node is down, its ids
are refused with 503, and all other ids go on.

Why a hash. Clients choose ids, and chosen ids are alike: `photo1`, `photo2`. SHA-256 spreads any
set of them evenly, it is the same on each machine and in each version of Python (`hash()` isn't),
and a client that picks ids can't aim at one node cheaply.

Why the names are sorted. The source lists containers in any order, and addresses change. A name
stays, so that the list is the same wherever and whenever it is made.

What the slots are. Until the names change for the first time, each name has one slot, in the order
of the names: the owner is `nodes[sha256(id) % len(nodes)]`. That formula alone would give three
quarters of all ids another owner when a fourth node joins three, because the number of nodes is
part of it. So the first change makes the n slots into n * `SLOTS_EACH`, of which slot i is the
node's that had slot i % n. That gives no id another owner, since x % (n * 4096) % n is x % n. From
then on the number of slots is fixed, and a change only hands some of them over:

    a name joins     it takes slots, one after another, from whoever has most, until no two names
                     differ by more than one slot; a fourth node takes a quarter of all slots
    a name leaves    each of its slots goes to whoever has fewest

No slot moves that needn't, and all names have the same number of slots, or one more. Where several
names have most or fewest, the first by name is meant, and slots go in the order of their numbers:
the same lists of names, one after another, always give the same slots.

Objects don't move by themselves when a slot does: `gateway.nodes.layout` has what makes that safe.

Worst case: 64 nodes that were 64 already at the first change have 262,144 slots, and each change
since then takes less than a tenth of a second to compute. That is done once for each new list of
names, by the thread that keeps the records, and not by requests.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from functools import lru_cache
from heapq import heapify, heapreplace
from typing import NamedTuple

OBJECT_ID = re.compile(r"[A-Za-z0-9]{1,32}")
# Of each node of the first list, once the names have changed. Names differ by one slot at most: of
# four thousand, or of 41 where a hundred nodes have grown from one.
SLOTS_EACH = 4096

Names = tuple[str, ...]  # sorted


def position(object_id: str) -> int:
    """SHA-256 of an id, as a big-endian number. The id's slot is `position % len(slots)`."""
    return int.from_bytes(hashlib.sha256(object_id.encode("ascii")).digest())


class Placement[N](NamedTuple):
    """Some nodes, and which slots each of them has.

    >>> Placement(("node-1", "node-2", "node-3"), (0, 1, 2)).owner("abc")
    'node-2'
    """

    nodes: tuple[N, ...] = ()  # sorted by name
    slots: tuple[int, ...] = ()  # by slot its node, as an index of `nodes`

    def owner(self, object_id: str) -> N:
        """The node that owns an id."""
        return self.at(position(object_id))

    def at(self, place: int) -> N:
        """The node that owns the ids of this `position`."""
        return self.nodes[self.slots[place % len(self.slots)]]


@lru_cache(maxsize=16)  # so many lists of names may count at once, and be asked for again and again
def slots_of(history: tuple[Names, ...], names: Names) -> tuple[int, ...]:
    """By slot the node that has it, as an index of `names`.

    `history` has the lists of names before this one, oldest first.

    >>> slots_of((), ("a", "b", "c"))
    (0, 1, 2)
    >>> [slots_of((("a", "b"),), ("a", "b", "c")).count(node) for node in range(3)]
    [2731, 2731, 2730]
    """
    if not history:
        return tuple(range(len(names)))
    owners = list(history[0]) * SLOTS_EACH
    for later in (*history[1:], names):
        _hand_over(owners, later)
    index = {name: number for number, name in enumerate(names)}
    return tuple(index[name] for name in owners)


def _hand_over(owners: list[str], names: Names) -> None:
    """Changes the owners of slots, so that they are these names."""
    held = Counter(owners)
    fewest = [(held[name], name) for name in names]
    heapify(fewest)
    if left := held.keys() - set(names):
        for slot, name in enumerate(owners):
            if name in left:
                count, owners[slot] = fewest[0]
                heapreplace(fewest, (count + 1, owners[slot]))
    # Nobody who gives takes as well: who gives had most, so that it never has fewest later.
    most = [(-count, name) for count, name in fewest]
    heapify(most)
    takers: dict[str, deque[str]] = {name: deque() for name in names}  # by the name that gives
    while -most[0][0] - fewest[0][0] > 1:
        (less, giver), (count, taker) = most[0], fewest[0]
        takers[giver].append(taker)
        heapreplace(most, (less + 1, giver))
        heapreplace(fewest, (count + 1, taker))
    for slot, name in enumerate(owners):
        if takers[name]:
            owners[slot] = takers[name].popleft()
