"""Servers of S3 of other makes than MinIO, as nodes: those whose image is on this machine.

A `Make` says how its container is started. Its nodes are given to gateways by a list
(OBJGW_NODES), so that nothing is found by Docker. Nothing is pulled: `here` has what is on this
machine; the header of a run of the tests names the others (`tests.harness.fixtures`).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import docker
import docker.errors
import minio
import requests

from tests.harness.engine import Lab
from tests.harness.gateway import Gateway
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, together


@dataclass(frozen=True)
class Make:
    """A server of S3, and how its container is started."""

    name: str
    repository: str
    port: int
    env: Callable[[str, str], Mapping[str, str]]  # of access key and secret key
    command: str | None = None
    image: str = ""  # the one that is on this machine


ALL = (
    Make(
        "rustfs",
        "rustfs/rustfs",
        9000,
        lambda user, password: {"RUSTFS_ACCESS_KEY": user, "RUSTFS_SECRET_KEY": password},
    ),
    Make(
        "seaweedfs",
        "chrislusf/seaweedfs",
        8333,
        lambda user, password: {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": password},
        "server -dir=/data -s3 -ip.bind=0.0.0.0 -master.volumeSizeLimitMB=64 -volume.max=0",
    ),
    Make(
        "versitygw",
        "versity/versitygw",
        7070,
        lambda user, password: {
            "ROOT_ACCESS_KEY": user,
            "ROOT_SECRET_KEY": password,
            "VGW_BACKEND": "posix",
            "VGW_BACKEND_ARG": "/data",
            "VGW_KEEP_ALIVE": "true",
        },
    ),
)


def here() -> list[Make]:
    """Those of `ALL` whose image is on this machine, of whatever release."""
    try:
        tags = [tag for image in docker.from_env().images.list() for tag in image.tags]
    except (docker.errors.DockerException, requests.RequestException):
        return []
    found = ((make, [tag for tag in tags if tag.startswith(f"{make.repository}:")]) for make in ALL)
    return [replace(make, image=max(images)) for make, images in found if images]


class OtherNode(Node):
    """A node of another make."""

    def __init__(self, stack: OtherStack, suffix: str) -> None:
        user, password = f"user{secrets.token_hex(6)}", f"pass{secrets.token_hex(12)}"
        super().__init__(stack, f"{stack.marker}-{suffix}", stack.network, user, password)
        self.make, self.port = stack.make, stack.make.port

    def create(self, address: str | None = None, start: bool = True) -> None:
        lab, network = self.stack.lab, str(self.network.name)
        lab.docker.volumes.create(self.name, labels=self.stack.labels)
        self.container = lab.docker.containers.create(
            self.make.image,
            self.make.command,
            name=self.name,
            labels=self.stack.labels,
            environment=dict(self.make.env(self.user, self.password)),
            volumes={self.name: {"bind": "/data", "mode": "rw"}},
            network=network,
            networking_config={
                network: lab.docker.api.create_endpoint_config(ipv4_address=address)
            },
        )
        if start:
            self.start()

    def wait_live(self) -> None:
        def answers() -> bool:
            with suppress(OSError, minio.error.MinioException):
                with socket.create_connection((self.address, self.port), 2):
                    pass
                self.client().list_buckets()
                return True
            return False

        eventually(answers, within=120)


class OtherStack(Stack):
    """A stack whose nodes are of one other make, and are listed."""

    def __init__(self, lab: Lab, make: Make) -> None:
        super().__init__(lab)
        self.make = make

    def add_others(self, suffixes: str) -> None:
        """Nodes that answer, one for each letter."""

        def add(suffix: str) -> OtherNode:
            node = OtherNode(self, suffix)
            node.create(self.new_address())
            return node

        self.nodes += together(partial(add, suffix) for suffix in suffixes)
        self.nodes.sort(key=lambda node: node.name)

    @property
    def lines(self) -> str:
        """The list of the nodes that there are."""
        return "\n".join(node.line for node in self.nodes if isinstance(node, OtherNode))

    def add_gateway(
        self, env: Mapping[str, str] | None = None, *args: Any, **options: Any
    ) -> Gateway:
        """One that has the list, and no Docker to ask; `env` may have another list."""
        listed = {"OBJGW_NODES": self.lines} if "OBJGW_NODES_FILE" not in (env or {}) else {}
        return super().add_gateway({**listed, **(env or {})}, *args, **{"volumes": {}, **options})
