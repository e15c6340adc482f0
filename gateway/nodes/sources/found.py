"""What Docker says of a container or a task, before it is known whether it becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from gateway.nodes.sources.keys import Config
from gateway.nodes.sources.labels import Labels, WrongLabel, labels_of


class Found(NamedTuple):
    """A container or a task with a node's name.

    Of several with one name, one that runs and can be used counts, then the newest.
    """

    name: str
    id: str
    host: str | None  # None where it doesn't run
    created: float  # seconds since the epoch
    config: Callable[[], Config]
    problem: str = ""  # why it can't be used although it is there
    networks: Collection[str] = ()  # that it shares with this process
    labels: Labels = Labels()

    @property
    def rank(self) -> tuple[bool, float, str]:
        """The highest one of a name counts; the id, so that all workers choose the same one."""
        return self.host is not None and not self.problem, self.created, self.id

    def labelled(self, labels: Mapping[str, str]) -> Found:
        """The same with what its labels say; it can't be used where one of them is wrong."""
        try:
            return self._replace(labels=labels_of(labels))
        except WrongLabel as error:
            return self._replace(problem=self.problem or str(error))


class LeftOut(Exception):
    """A container with a node's name is none; the text says why, for an operator."""


class Own(NamedTuple):
    """What this process runs in. Without networks every container can be reached."""

    image: str | None = None
    service: str | None = None  # the id, as that of the task: none where it isn't one of a Swarm
    task: str | None = None
    networks: Mapping[str, str] | None = None  # their ids by their names
    # The address of what runs in the network of the host; None where that isn't ours, too.
    host: str | None = None
