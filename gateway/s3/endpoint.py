"""Where a node is reached, and with which keys."""

from __future__ import annotations

from typing import NamedTuple


class Endpoint(NamedTuple):
    """The address and the keys of one node, as the source of nodes (Docker, for one) has them.

    `host` is None where the node's container doesn't run, or isn't there. `region` is what requests
    are signed for.
    """

    name: str
    container: str = ""  # the id of its container or task
    host: str | None = None
    port: int = 0
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def __repr__(self) -> str:  # the keys must not reach a log
        return (
            f"{self.name} ({self.container[:12] or 'no container'}, {self.host or 'not running'})"
        )
