"""Nodes of two installations in sight of one gateway: neither is ever made part of the other."""

from __future__ import annotations

import json

from gateway.nodes.layout import LEASE_SECONDS, SWITCH_SECONDS
from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.layout import names_of, record_of
from tests.harness.stack import Stack
from tests.harness.waiting import always, eventually, random_id

LONG = SWITCH_SECONDS + 2 * LEASE_SECONDS  # seconds in which a layout would have changed


def begin(stack: Stack, suffixes: str) -> tuple[Gateway, list[str]]:
    """An installation with a gateway, and an object on each of its nodes."""
    stack.add_nodes(suffixes)
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [store(gateway, id=stack.id_of(node)) for node in stack.nodes]
    eventually(lambda: all(record_of(node).unrecorded == () for node in stack.nodes))
    return gateway, ids


def add_seeing_both(stack: Stack, other: Stack) -> Gateway:
    """A gateway on the networks of both stacks, to which the nodes of both are nodes by name."""
    assert stack.lab.process in stack.marker
    seeing = {"OBJGW_NODE_NAME": f"objgwt-{stack.lab.process}"}
    return stack.add_gateway(seeing, networks=[stack.network, other.network])


def states(gateway: Gateway) -> dict[str, str]:
    told = json.loads(gateway.request("GET", "/health").body)
    return {node["name"]: node["state"] for node in told["nodes"]}


def test_a_gateway_beside_two_installations_serves_neither_and_leaves_both_as_they_are(
    stack: Stack, other: Stack
) -> None:
    gateways = {of: begin(of, "12") for of in (stack, other)}
    before = [record_of(node) for of in gateways for node in of.nodes]
    seeing = add_seeing_both(stack, other)
    eventually(lambda: "2 installations are in sight" in seeing.logs())
    always(lambda: seeing.get(random_id()).status == 503, seconds=LONG)
    assert "two installations" in seeing.put(random_id(), b"x").problem["detail"]
    assert seeing.request("GET", "/health/ready").status == 503
    lines = [line for line in seeing.logs().splitlines() if "installations are in sight" in line]
    assert len(lines) == 1
    assert all(
        name in lines[0] for of in gateways for name in [*names_of(of.nodes), "OBJGW_NODE_NAME"]
    )
    done = seeing.ctl("rebalance")
    assert (done.code, "2 installations are in sight" in done.errors) == (2, True)
    assert [record_of(node) for of in gateways for node in of.nodes] == before
    for gateway, ids in gateways.values():
        assert [gateway.get(id).status for id in ids] == [200] * len(ids)


def test_a_node_of_another_installation_that_comes_in_sight_is_left_alone(
    stack: Stack, other: Stack
) -> None:
    _, theirs = begin(other, "12")
    strange = other.nodes[0]
    stack.add_nodes("12")
    gateway = add_seeing_both(stack, stack)
    gateway.wait_ready()
    ids = [store(gateway, id=stack.id_of(node)) for node in stack.nodes]
    eventually(lambda: all(record_of(node).unrecorded == () for node in stack.nodes))
    before = [record_of(node) for node in (*stack.nodes, strange)]
    held = strange.ids()
    with stack.steady(gateway, ids):
        stack.network.connect(strange.container)
        wrong = f"node {strange.name}: it belongs to another installation"
        eventually(lambda: wrong in gateway.logs())
        always(lambda: set(states(gateway).values()) == {"up"}, seconds=LONG)
    rows = {row["name"]: row for row in gateway.layout()["nodes"]}
    assert (rows[strange.name]["state"], rows[strange.name]["objects"]) == ("foreign", None)
    done = gateway.ctl("add", strange.name)
    assert (done.code, "another installation" in done.errors) == (2, True)
    gateway.restart()  # so that it begins with all three in sight
    gateway.wait_ready(ids)
    assert [gateway.get(id).status for id in ids] == [200] * len(ids)
    assert gateway.layout()["names"] == names_of(stack.nodes)
    assert [record_of(node) for node in (*stack.nodes, strange)] == before
    assert strange.ids() == held
    assert other.gateways[0].get(theirs[0]).status == 200
