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
    problem: str = ""  # why it can't be reached although its container runs
    tls: bool = False
    hostname: str = ""  # as the source has it; for TLS and the Host header, where it is a name

    @property
    def authority(self) -> str:
        """Host and port as a URL and the Host header have them (RFC 3986, 3.2.2)."""
        host = self.hostname or self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __repr__(self) -> str:  # the keys must not reach a log
        place = self.host or ("can't be used" if self.problem else "not running")
        if self.hostname:
            place = self.hostname if self.host else f"{self.hostname}, which has no address"
        return f"{self.name} ({', '.join(filter(None, (self.container[:12], place)))})"
