"""One node: a MinIO container, and what it has been asked."""

from __future__ import annotations

import secrets
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import minio
from docker.models.containers import Container
from docker.models.networks import Network

from tests.harness.engine import BUCKET, MINIO, Call, Lab
from tests.harness.waiting import eventually


class NodeStack(Protocol):
    """What a node uses of the stack that it is on."""

    lab: Lab
    labels: dict[str, str]
    secrets: set[str]

    def tests_address(self, network: Network | None = None) -> str: ...


@dataclass(eq=False)
class Node:
    """A MinIO container with a volume of its own: what happens to the container, the objects stay.

    `env` replaces the variables with the keys (MINIO_ROOT_USER, MINIO_ROOT_PASSWORD) that it's
    given otherwise; `entrypoint` is for a node that doesn't take its keys from them. A node whose
    name is a label, one of `node_labels`, has a `container_name` of its own.
    """

    stack: NodeStack
    name: str
    network: Network
    user: str
    password: str
    env: Mapping[str, str] | None = None
    region: str = "us-east-1"
    entrypoint: list[str] | None = None
    port: int = 9000
    node_labels: Mapping[str, str] = field(default_factory=dict)
    container_name: str = ""
    container: Container = field(init=False)
    address: str = field(init=False, default="")

    @property
    def line(self) -> str:
        """The node in a list of nodes (`gateway.node_list`)."""
        return f"{self.name}=http://{self.user}:{self.password}@{self.address}:{self.port}"

    def create(self, address: str | None = None, start: bool = True) -> None:
        """Make and start the container; returns when MinIO answers."""
        lab, stack, network = self.stack.lab, self.stack, str(self.network.name)
        keys = {"MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.password}
        hook = f"http://{stack.tests_address(self.network)}:{lab.audit.port}/{self.name}"
        lab.docker.volumes.create(self.name, labels=stack.labels)
        self.container = lab.docker.containers.create(
            MINIO,
            None if self.entrypoint else f"server --address :{self.port} /data",
            entrypoint=self.entrypoint,
            name=self.container_name or self.name,
            labels={**stack.labels, **self.node_labels},
            environment={
                **({"MINIO_SITE_REGION": self.region} if self.region != "us-east-1" else {}),
                **(keys if self.env is None else self.env),
                # its console may find its port taken, and the server ends then
                "MINIO_BROWSER": "off",
                # a request costs it a fifth less, and it takes no more than one core from the rest
                "GOMAXPROCS": "1",
                "MINIO_AUDIT_WEBHOOK_ENABLE_tests": "on",
                "MINIO_AUDIT_WEBHOOK_ENDPOINT_tests": hook,
            },
            volumes={self.name: {"bind": "/data", "mode": "rw"}},
            network=network,
            networking_config={
                network: lab.docker.api.create_endpoint_config(ipv4_address=address)
            },
            restart_policy={
                "Name": "on-failure"
            },  # of its own; Docker leaves alone what it was told to stop or kill
        )
        if start:
            self.start()

    def start(self) -> None:
        self.container.start()
        self.container.reload()
        self.address = self.container.attrs["NetworkSettings"]["Networks"][self.network.name][
            "IPAddress"
        ]
        self.stack.secrets |= {self.user, self.password, self.address}
        self.wait_live()

    def wait_live(self) -> None:
        url = f"http://{self.address}:{self.port}/minio/health/live"
        eventually(lambda: urllib.request.urlopen(url, timeout=2).status == 200, within=120)

    def stop(self) -> None:
        self.container.stop(timeout=3)

    def pause(self) -> None:
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()

    def remove(self) -> None:
        """Remove the container; the volume with the objects stays."""
        self.container.remove(v=True, force=True)

    def lose(self) -> None:
        """Remove the container and the volume with all that it holds."""
        self.remove()
        self.stack.lab.docker.volumes.get(self.name).remove()

    def recreate(
        self, user: str | None = None, password: str | None = None, address: str | None = None
    ) -> None:
        """A new container of the same name; keys and address are as before where not given."""
        self.remove()
        self.user, self.password = user or self.user, password or self.password
        self.create(address or self.address)

    def condition(self) -> str:
        """How its container is, and what it printed last where that ended or was started again."""
        self.container.reload()
        state, restarts = self.container.attrs["State"], self.container.attrs["RestartCount"]
        told = f"---- {self.name}: {state['Status']}, started again {restarts} times"
        if state["Running"] and not restarts:
            return told
        log: Any = self.container.logs(tail=30)
        return f"{told}, exit code {state['ExitCode']}\n{bytes(log).decode(errors='replace')}"

    def client(self) -> minio.Minio:
        """A client for this node past the gateway; what it does isn't in `calls`."""
        client = minio.Minio(
            f"{self.address}:{self.port}",
            self.user,
            self.password,
            secure=False,
            region=self.region,
        )
        client.set_app_info("objgw-tests", "1")
        return client

    def ids(self, bucket: str = BUCKET) -> set[str]:
        """The ids that this node holds (in an unsettled layout, the tombstones of deleted
        ones too).
        """
        try:
            return {
                str(entry.object_name)
                for entry in self.client().list_objects(bucket, recursive=True)
            }
        except minio.error.S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            return set()

    def calls(self) -> list[Call]:
        """What this node was asked since it was first made, by anybody but `client()`, refused
        requests included.

        The layout's record, which gateways look at every second, is left out.
        """
        # records come in order: after this one, all before it are here
        mark = f"mark-{secrets.token_hex(8)}"
        self.client().bucket_exists(mark)
        audit = self.stack.lab.audit
        eventually(audit.has, self.name, mark)
        return [
            Call(
                record["api"].get("name", ""),
                record["api"].get("object", ""),
                record["api"].get("statusCode", 0),
            )
            for record in audit.of(self.name)
            if "objgw-tests" not in record.get("userAgent", "")
        ]
