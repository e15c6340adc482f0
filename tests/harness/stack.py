"""A network with nodes and gateways on it."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar

import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network

from tests.harness.engine import CHECKOUT, DOCKER_SOCKET, STACK, DockerRelay, Lab
from tests.harness.gateway import Gateway
from tests.harness.networks import Bridge
from tests.harness.node import Node
from tests.harness.waiting import eventually, meanwhile, owner, random_id, together


class Stack:
    """A network of its own, and what a test puts on it.

    `marker` is in the name of each node and of nothing else.
    """

    open: ClassVar[list[Stack]] = []  # those of this process that aren't closed

    def __init__(self, lab: Lab) -> None:
        self.lab, self.name = lab, lab.new_name()
        self.marker = f"{self.name}-node"
        self.labels = lab.labels | {STACK: self.name}
        self.nodes: list[Node] = []
        self.gateways: list[Gateway] = []
        self.history: list[list[str]] = []  # the lists of names before this one, oldest first
        self.secrets: set[str] = set()
        self._relays: list[DockerRelay] = []
        self._networks: dict[str, Bridge] = {}  # by name
        self._numbers = itertools.count(1)
        self._told = False  # how it is, in the report of a test that failed
        self.open.append(self)
        self.network = self.add_network()

    def add_network(self, ipv6: str = "") -> Network:
        """One more, which the tests are attached to; `ipv6` is its subnet of IPv6, if any."""
        taken = self.lab.networks.take(ipv6)
        self._networks[taken.name] = taken
        return taken.network

    def tests_address(self, network: Network | None = None) -> str:
        """The tests' own address on it."""
        return self._networks[str((network or self.network).name)].tests_address

    def new_address(self) -> str:
        """An address on the stack's network that nothing had before."""
        return self._networks[str(self.network.name)].new_address()

    def add_node(
        self,
        suffix: str,
        user: str | None = None,
        password: str | None = None,
        env: Mapping[str, str] | None = None,
        region: str = "us-east-1",
        entrypoint: list[str] | None = None,
        address: str | None = None,
        network: Network | None = None,
        start: bool = True,
        name: str = "",
        **more: Any,
    ) -> Node:
        """A node that answers, of this name in place of the usual one; `more` are fields of `Node`.

        One that is put on another network isn't counted among the stack's `nodes`.
        """
        user, password = (
            user or f"user{secrets.token_hex(6)}",
            password or f"pass{secrets.token_hex(12)}",
        )
        node = Node(
            self,
            name or f"{self.marker}-{suffix}",
            network or self.network,
            user,
            password,
            env,
            region,
            entrypoint,
            **more,
        )
        node.create(address or (None if network else self.new_address()), start)
        if not network:
            self.nodes.append(node)
        return node

    def add_nodes(self, suffixes: Iterable[str]) -> list[Node]:
        """Nodes that Docker lists, all of them, before the first one runs."""
        nodes = together(partial(self.add_node, suffix, start=False) for suffix in suffixes)
        together(node.start for node in nodes)
        self.nodes.sort(key=lambda node: node.name)
        return sorted(nodes, key=lambda node: node.name)

    def add_gateway(
        self,
        env: Mapping[str, str] | None = None,
        relay: DockerRelay | None = None,
        socket_at: str = DOCKER_SOCKET,
        networks: Sequence[Network] = (),
        start: bool = True,
        beside: Container | None = None,
        volumes: dict[str, dict[str, str]] | None = None,
        **options: Any,
    ) -> Gateway:
        """A gateway on the stack's network (or on others, or in the network of another container),
        started and answering.

        It has one worker, where `env` says nothing else: what one worker knows, another may learn a
        moment later; and no health check, which would start a Python every ten seconds in each of
        many. It finds Docker through `relay`, else through the socket, mounted at `socket_at` where
        `volumes` isn't given.
        """
        environment = {"OBJGW_NODE_NAME": self.marker, "WEB_CONCURRENCY": "1", **(env or {})}
        if relay:
            environment["DOCKER_HOST"] = f"tcp://{self.tests_address()}:{relay.port}"
        options = {"healthcheck": {"test": ["NONE"]}, **options}
        first, *others = networks or [self.network]
        container = self.lab.docker.containers.create(
            self.lab.image,
            name=f"{self.name}-gateway-{next(self._numbers)}",
            labels=self.labels,
            environment=environment,
            volumes={}
            if relay
            else {DOCKER_SOCKET: {"bind": socket_at, "mode": "rw"}}
            if volumes is None
            else volumes,
            **({"network_mode": f"container:{beside.id}"} if beside else {"network": first.name}),
            **options,
        )
        for network in others:
            network.connect(container)
        gateway = Gateway(
            self, container, first, host=beside, concurrency=int(environment["WEB_CONCURRENCY"])
        )
        self.gateways.append(gateway)
        if start:
            gateway.start()
            gateway.wait_up()
        return gateway

    def add_gateway_on_host(self, env: Mapping[str, str]) -> Gateway:
        """A gateway that isn't in a container, as far as networks go: it has the host's.

        It listens on the host's address on the stack's network, on a port that nothing else has.
        It sees all networks, and so it gets Docker through a relay, which hides the containers that
        another test has made nodes by a label.
        """
        relay = self.add_relay()
        settings = self.nodes[0].container.attrs["NetworkSettings"]
        at = settings["Networks"][self.network.name]["Gateway"]
        port = 20000 + next(self._numbers)
        container = self.lab.docker.containers.create(
            self.lab.image,
            ["gunicorn", "-b", f"{at}:{port}", "objgw:app"],
            name=f"{self.name}-gateway-{next(self._numbers)}",
            labels=self.labels,
            environment={
                "WEB_CONCURRENCY": "1",
                "DOCKER_HOST": f"tcp://{self.tests_address()}:{relay.port}",
                **env,
            },
            network_mode="host",
            healthcheck={"test": ["NONE"]},
        )
        gateway = Gateway(self, container, self.network, port=port, at=at)
        self.gateways.append(gateway)
        gateway.start()
        gateway.wait_up()
        return gateway

    def add_host(self) -> Container:
        """A container on the stack's network with the tests' image and checkout, which does
        nothing.

        A gateway beside it has its network, also after a restart: so what runs in it reaches the
        gateway on loopback.
        """
        return self.lab.docker.containers.run(
            self.lab.docker.containers.get(self.lab.container).attrs["Image"],
            ["sleep", "infinity"],
            name=f"{self.name}-host-{next(self._numbers)}",
            labels=self.labels,
            network=self.network.name,
            volumes_from=[self.lab.container],
            working_dir=str(CHECKOUT),
            healthcheck={"test": ["NONE"]},
            init=True,
            detach=True,
        )

    def add_fake(self, suffix: str, script: str, env: Mapping[str, str] | None = None) -> Container:
        """A container that is taken for a node and isn't MinIO: it runs a Python script, see
        `tests.harness.fakes`.
        """
        return self.lab.docker.containers.run(
            "python:3.13-slim",
            ["python", "-u", "-c", script],
            name=f"{self.marker}-{suffix}",
            labels=self.labels,
            environment=dict(env or {}),
            network=self.network.name,
            detach=True,
        )

    def add_relay(self) -> DockerRelay:
        self._relays.append(DockerRelay())
        return self._relays[-1]

    def owner(self, id: str) -> Node:
        """The node that the id belongs to, by the `history` that was seen last."""
        name = owner(id, [node.name for node in self.nodes], self.history)
        return next(node for node in self.nodes if node.name == name)

    def id_of(self, node: Node) -> str:
        """A new id that belongs to this node."""
        return next(id for id in iter(random_id, None) if self.owner(id) is node)

    def holders(self, id: str) -> list[Node]:
        """The nodes that hold the id."""
        return [node for node in self.nodes if id in node.ids()]

    @contextmanager
    def steady(self, gateway: Gateway, ids: Iterable[str]) -> Iterator[None]:
        """While the block runs, these ids are read and written all the time, and each answer must
        be 200.
        """
        wrong, rounds = list[tuple[str, Any]](), 0

        def use(over: threading.Event) -> None:
            nonlocal rounds
            while not over.wait(0.05):
                for id in ids:
                    try:
                        put, got = gateway.put(id, id.encode()), gateway.get(id)
                        wrong.extend((id, each) for each in (put, got) if each.status != 200)
                        assert got.body == id.encode()
                    except Exception as error:
                        wrong.append((id, error))
                rounds += 1

        with meanwhile(use):
            yield
            before = rounds
            eventually(lambda: rounds > before + 1, within=60)
        assert not wrong, (
            f"{len(wrong)} wrong answers for ids that have nothing to do with it, first {wrong[0]}"
        )

    def condition(self, since: float) -> str:
        """What the gateways have said since then (Unix time), and how each node is: for the report
        of a test that failed.
        """
        self._told = True
        told = [gateway.condition(since) for gateway in self.gateways]
        return "\n".join([*told, self._condition_of_nodes()])

    def _condition_of_nodes(self) -> str:
        told = []
        for node in self.nodes:
            with suppress(docker.errors.APIError):
                told.append(node.condition().replace(node.password, "(its secret key)"))
        return "\n".join(told)

    def close(self) -> None:
        """Remove it all. What pytest shows where a fixture failed goes to stdout."""
        self.open.remove(self)
        try:
            told = [*map(Gateway.close, self.gateways), self._condition_of_nodes()]
            if not self._told:
                print("\n".join(told))
        finally:
            for relay in self._relays:
                relay.close()
            self.lab.sweep(f"{STACK}={self.name}")
            self.lab.audit.forget(self.marker)
            for network in self._networks.values():
                self.lab.networks.give_back(network)
