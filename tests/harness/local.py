"""A stack without containers: S3 servers in memory and the gateway, as processes on loopback.

It has of `tests.harness.stack` what the contract uses. Each gateway has port 3000 of a loopback
address of its own (RFC 1122, 3.2.1.3: all of 127.0.0.0/8), so that they run beside each other and
beside whatever else has that port. Linux lets a process use such an address as it is.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import minio

from gateway.ctl.memory import CHECKOUT, MemoryNode, end, start
from tests.harness.engine import BUCKET
from tests.harness.gateway import Client
from tests.harness.waiting import owner, random_id


class LocalNode(MemoryNode):
    """One server, and what it holds."""

    def ids(self, bucket: str = BUCKET) -> set[str]:
        """The ids that it holds."""
        client = minio.Minio(f"127.0.0.1:{self.port}", *self.keys, secure=False, region="us-east-1")
        if not client.bucket_exists(bucket):
            return set()
        return {str(entry.object_name) for entry in client.list_objects(bucket, recursive=True)}


def loopback_address() -> str:
    """One that nobody else has, in all likelihood."""
    return ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])


def start_gateway(
    address: str, env: Mapping[str, str], errors: int | None = None
) -> subprocess.Popen[bytes]:
    """A gateway in a process, at port 3000 of this address; `errors` as for `start`."""
    options = ["--config", "gunicorn.conf.py", "-b", f"{address}:3000", "objgw:app"]
    return start(options, folder=CHECKOUT, env=env, errors=errors)


@dataclass(eq=False)
class LocalGateway(Client):
    """A gateway, a process and its workers."""

    stack: LocalStack
    env: Mapping[str, str]

    def __post_init__(self) -> None:
        self.concurrency = int(self.env["WEB_CONCURRENCY"])
        self.address = loopback_address()
        self._process = start_gateway(self.address, self.env)

    def restart(self) -> None:
        end(self._process)
        self._process = start_gateway(self.address, self.env)
        self.wait_up()

    def remove(self) -> None:
        self.stack.gateways.remove(self)
        end(self._process)


class LocalStack:
    """Three nodes, and the gateways before them."""

    def __init__(self) -> None:
        self.gateways: list[LocalGateway] = []
        self.nodes = [LocalNode(f"node-{number}") for number in (1, 2, 3)]
        self.secrets = {key for node in self.nodes for key in node.keys}

    def add_gateway(self, env: Mapping[str, str] | None = None) -> LocalGateway:
        nodes = "\n".join(node.line for node in self.nodes)
        gateway = LocalGateway(self, {"OBJGW_NODES": nodes, "WEB_CONCURRENCY": "1", **(env or {})})
        self.gateways.append(gateway)
        gateway.wait_up()
        return gateway

    def owner(self, id: str) -> LocalNode:
        """The node that the id belongs to."""
        name = owner(id, [node.name for node in self.nodes])
        return next(node for node in self.nodes if node.name == name)

    def id_of(self, node: LocalNode) -> str:
        """A new id that belongs to this node."""
        return next(id for id in iter(random_id, None) if self.owner(id) is node)

    def holders(self, id: str) -> list[LocalNode]:
        """The nodes that hold the id."""
        return [node for node in self.nodes if id in node.ids()]

    def condition(self, _since: float) -> str:
        """The gateways' logs are in what pytest captured."""
        return "\n".join(f"{gateway.address}" for gateway in self.gateways)

    def close(self) -> None:
        for gateway in list(self.gateways):
            gateway.remove()
        for node in self.nodes:
            node.close()
