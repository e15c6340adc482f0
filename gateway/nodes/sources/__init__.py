"""Where nodes are listed: Docker, or a setting. A source says where to look, not who is there."""

from __future__ import annotations

from typing import Protocol

from gateway.nodes.sources.docker import DockerReader
from gateway.nodes.sources.events import Events
from gateway.nodes.sources.listed import NodeList
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings


class Source(Protocol):
    """What nodes are read from."""

    what: str  # in a sentence of the log
    events_suffice: bool  # the events tell of all changes
    separate: str  # how the nodes are on different networks, so that they needn't belong together

    @property
    def events(self) -> Events | None:
        """What tells of changes, where there is such a thing."""

    def trouble(self, error: Exception) -> str:
        """Why the nodes can't be read, and what to do about it; without anything secret."""

    def read(self) -> list[Endpoint]:
        """The nodes by name. Raises whatever says why they can't be read."""


def source_of(settings: Settings) -> Source:
    """The source that the settings name."""
    if settings.nodes:
        return NodeList(settings)
    return DockerReader(
        settings.node_name, settings.node_port, settings.docker_timeout, settings.network
    )
