"""Which Docker networks count: the one that a setting names, or those that nodes share."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.nodes.sources.containers import address_of
from gateway.nodes.sources.docker import DockerReader, separate_networks
from gateway.nodes.sources.found import Found, LeftOut, Own
from gateway.nodes.sources.keys import Config


def found(name: str, *networks: str) -> Found:
    return Found(name, name, None, 0.0, lambda: Config([], "", {}), networks=networks)


# Nodes by the networks that they are on, and what is said where there is none that all are on.
NETWORKS: dict[str, tuple[list[Found], str]] = {
    "none at all": ([], ""),
    "one": ([found("a", "x")], ""),
    "one for all": ([found("a", "x"), found("b", "x")], ""),
    "one for all, and others": ([found("a", "x", "y"), found("b", "z", "x")], ""),
    "two": ([found("b", "y"), found("a", "x"), found("c", "y")], "a on x; b, c on y"),
    "a chain": ([found("a", "x"), found("b", "x", "y"), found("c", "y")], "a, b on x; c on y"),
}


@pytest.mark.parametrize("row", NETWORKS)
def test_nodes_are_separate_where_there_is_no_network_that_all_are_on(row: str) -> None:
    nodes, separate = NETWORKS[row]
    assert separate_networks(nodes) == separate


CONTAINER: dict[str, Any] = {
    "State": "running",
    "NetworkSettings": {
        "Networks": {"x": {"IPAddress": "10.0.0.2"}, "y": {"IPAddress": "10.1.0.2"}}
    },
}
# The setting, the networks of the gateway's own container (None: it has none), and the address at
# which the container above is reached.
ADDRESSES: dict[str, tuple[str, dict[str, str] | None, str | None]] = {
    "on the host": ("", None, "10.0.0.2"),
    "on the host, with the setting": ("y", None, "10.1.0.2"),
    "in a container": ("", {"y": "1"}, "10.1.0.2"),
    "in a container on both, with the setting": ("y", {"x": "0", "y": "1"}, "10.1.0.2"),
    "in a container that isn't on the network": ("y", {"x": "0"}, None),
    "the node isn't on the network": ("z", None, None),
}


@pytest.mark.parametrize("row", ADDRESSES)
def test_a_node_is_reached_by_its_address_on_the_network_that_counts(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, networks, address = ADDRESSES[row]
    reader: Any = DockerReader("node", 9000, 5, network)
    monkeypatch.setattr(reader, "_own_container", lambda *_: Own(networks=networks))
    own = reader._own(None, None)
    if address is None:
        with pytest.raises(LeftOut):
            address_of(CONTAINER, own)
    else:
        shared, host, problem = address_of(CONTAINER, own)
        assert (host, problem) == (address, "")
        assert shared
