"""A `Membership`: one of the lists of names that a layout has had, and who owns an id by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from gateway.nodes.placement import Names, Placement, slots_of


@dataclass(frozen=True)
class Membership:
    """The names that ids are spread over from a time on.

    Without names it says that nobody knows over which they were spread: an object may be anywhere.
    """

    epoch: int
    since: float  # Unix time, seconds; 0: it always was so
    names: Names
    history: tuple[Names, ...] = ()  # the lists of names before, oldest first

    @cached_property
    def placement(self) -> Placement[str]:
        """Which name has which slots."""
        return Placement(self.names, slots_of(self.history, self.names))

    def owner(self, object_id: str) -> str:
        """The name that owns an id."""
        return self.placement.owner(object_id)

    def share(self, name: str) -> float:
        """The part of all ids that a name owns, from 0 to 1."""
        if name not in self.names:
            return 0.0
        slots = self.placement.slots
        return slots.count(self.names.index(name)) / len(slots)

    def followed_by(self, names: Iterable[str], since: float, above: int = 0) -> Membership:
        """The next membership, of these names, from this Unix time on.

        Its epoch is above this one's and `above`.

        A change that takes the last one back gives each slot back to whom it was taken from. That
        moves no more than any other way, and a record doesn't grow by what comes and goes.
        """
        new = tuple(sorted(names))
        history = (*self.history, self.names)
        if new == self.names:
            history = self.history
        elif self.history and new == self.history[-1]:
            history = self.history[:-1]
        return Membership(max(self.epoch, above) + 1, since, new, history)


ANYWHERE = Membership(0, 0.0, ())
