"""Docker networks for stacks.

To make a network, to attach the tests to it and to take it away costs more than a node does. So one
that a stack has done with is the next stack's, in the same process of the run, and all of them are
removed when the run ends. Addresses that were given are never given again.

Docker chooses from some thirty subnets, which a few runs beside each other use up, and gives fixed
addresses only on a subnet that it was told. So the tests choose: of those that are set aside for
tests (RFC 2544, appendix C.2.2), which nobody reaches anything on.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import docker
import docker.errors
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from tests.harness.waiting import eventually, still_network

SUBNETS = list(ipaddress.ip_network("198.18.0.0/15").subnets(new_prefix=21))

FIRST = 512  # the number of the first address for nodes; below it are those that Docker gives


@dataclass(eq=False)
class Bridge:
    """A bridge network that the tests are attached to."""

    network: Network
    tests_address: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(FIRST))

    @property
    def name(self) -> str:
        return str(self.network.name)

    def new_address(self) -> str:
        """An address that nothing had before."""
        subnet = ipaddress.ip_network(self.network.attrs["IPAM"]["Config"][0]["Subnet"])
        return str(subnet[next(self._numbers)])


class Networks:
    """Those of one process of a run."""

    def __init__(
        self, client: docker.DockerClient, container: str, labels: Mapping[str, str], prefix: str
    ) -> None:
        """`container` is the id of the one that the tests run in."""
        self._docker, self._container, self._labels = client, container, dict(labels)
        self._names = (f"{prefix}-net-{number}" for number in itertools.count(1))
        self._free: list[Bridge] = []

    def take(self, ipv6: str = "") -> Bridge:
        """One with nothing on it but the tests; `ipv6` is its subnet of IPv6, if it has one."""
        if self._free and not ipv6:
            return self._free.pop()
        return self._make(next(self._names), ipv6)

    def give_back(self, network: Bridge) -> None:
        """What was on it is removed; where something is left, nobody gets it any more."""
        network.network.reload()
        attrs = network.network.attrs
        if set(attrs["Containers"]) == {self._container} and not attrs["EnableIPv6"]:
            self._free.append(network)

    def _make(self, name: str, ipv6: str) -> Bridge:
        def create() -> Network:
            subnets = [str(random.choice(SUBNETS)), *filter(None, [ipv6])]
            pools = [IPAMPool(subnet=subnet) for subnet in subnets]
            try:
                return self._docker.networks.create(
                    name,
                    labels=self._labels,
                    enable_ipv6=bool(ipv6),
                    ipam=IPAMConfig(pool_configs=pools),
                )
            except docker.errors.APIError as error:  # another run has this one
                raise AssertionError("subnet taken") from error

        network: Network = eventually(create)
        with still_network():
            network.connect(self._container)
        network.reload()
        address = network.attrs["Containers"][self._container]["IPv4Address"]
        return Bridge(network, address.split("/")[0])
