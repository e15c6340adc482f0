"""Where a node is reached, and with which keys."""

from __future__ import annotations

from typing import NamedTuple


class NodeRecord(NamedTuple):
    """What Docker says of a node. `host` is None where its container doesn't run (or isn't there)."""

    name: str
    container: str = ""
    host: str | None = None
    port: int = 0
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def __repr__(self) -> str:  # the keys must not reach a log
        return f"{self.name} ({self.container[:12] or 'no container'}, {self.host or 'not running'})"
