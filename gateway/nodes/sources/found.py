"""What Docker says of a container or a task, before it is known whether it becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from gateway.nodes.sources.keys import Config


class Found(NamedTuple):
    """A container or a task with a node's name.

    Of several with one name, one that runs counts, then the newest.
    """

    name: str
    id: str
    host: str | None  # None where it doesn't run
    created: float  # seconds since the epoch
    config: Callable[[], Config]
    problem: str = ""  # why it can't be reached although it runs
    networks: Collection[str] = ()  # that it shares with this process

    @property
    def rank(self) -> tuple[bool, float]:
        return self.host is not None, self.created


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
