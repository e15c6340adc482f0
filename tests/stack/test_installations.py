"""Nodes of two installations in sight of one gateway: neither is ever made part of the other."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from minio.error import S3Error

from gateway.nodes.layout import LEASE_SECONDS, SWITCH_SECONDS, Layout
from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.layout import names_of, record_of, write_record
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import health, states
from tests.harness.waiting import always, eventually, random_id, together

LONG = SWITCH_SECONDS + 2 * LEASE_SECONDS  # seconds in which a layout would have changed


def add_both(*stacks: Stack) -> dict[str, str]:
    """Adds two nodes to each stack; the setting with which all of them are nodes by name."""
    token = random_id()
    together(partial(stack.add_nodes, [f"{token}-1", f"{token}-2"]) for stack in stacks)
    return {"OBJGW_NODE_NAME": token}


def recorded(stack: Stack) -> None:
    eventually(lambda: all(record_of(node).unrecorded == () for node in stack.nodes))


def begin(stack: Stack) -> tuple[Gateway, list[str]]:
    """A gateway to a stack's nodes, and an object on each of them."""
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [store(gateway, id=stack.id_of(node)) for node in stack.nodes]
    recorded(stack)
    return gateway, ids


def refused_lines(gateway: Gateway) -> list[str]:
    return gateway.lines("nothing is served")


def test_a_gateway_on_the_host_beside_two_installations_serves_neither_and_leaves_both_as_they_are(
    stack: Stack, other: Stack
) -> None:
    seeing_both = add_both(stack, other)
    names = [*names_of(stack.nodes), *names_of(other.nodes)]
    settings = ["OBJGW_NETWORK", "OBJGW_NODE_NAME"]

    # Before either has begun: nodes that share no network aren't taken for one installation.
    host = stack.add_gateway_on_host(seeing_both)
    eventually(lambda: "share no Docker network" in host.logs())
    always(lambda: host.put(random_id(), b"x").status == 503, seconds=LONG)
    assert host.request("GET", "/health/ready").status == 503
    assert "share no Docker network" in health(host)["conflict"]
    assert all(each in refused_lines(host)[0] for each in [*names, *settings])
    assert [node.client().list_buckets() for of in (stack, other) for node in of.nodes] == [[]] * 4
    done = host.ctl("rebalance")
    assert (done.code, "share no Docker network" in done.errors) == (2, True)

    # When both have begun.
    gateways = {of: begin(of) for of in (stack, other)}
    before = [record_of(node) for of in gateways for node in of.nodes]
    host.restart()
    eventually(lambda: "2 installations are in sight" in host.logs())
    always(lambda: host.get(random_id()).status == 503, seconds=20)
    assert "two installations" in host.put(random_id(), b"x").problem["detail"]
    assert host.request("GET", "/health/ready").status == 503
    assert len(refused_lines(host)) == 2
    assert all(each in refused_lines(host)[1] for each in [*names, *settings])
    done = host.ctl("rebalance")
    assert (done.code, "2 installations are in sight" in done.errors) == (2, True)
    assert [record_of(node) for of in gateways for node in of.nodes] == before
    for gateway, ids in gateways.values():
        assert [gateway.get(id).status for id in ids] == [200] * len(ids)

    # The setting decides.
    named = {**seeing_both, "OBJGW_NETWORK": str(other.network.name)}
    ours = stack.add_gateway_on_host(named)
    ids = gateways[other][1]
    eventually(lambda: [ours.get(id).status for id in ids] == [200] * len(ids))
    assert set(states(ours)) == set(names_of(other.nodes))


def test_a_foreign_node_is_left_alone_until_it_is_taken_in_and_then_its_objects_are_found(
    stack: Stack, other: Stack
) -> None:
    stack, other = sorted((stack, other), key=lambda each: each.marker)
    seeing_both = add_both(stack, other)
    foreign_gateway, theirs = begin(stack)
    strange = stack.nodes[0]  # first by name of all that come in sight
    assert strange.name < other.nodes[0].name
    gateway = other.add_gateway(seeing_both)
    gateway.wait_ready()
    ids = [store(gateway, id=other.id_of(node)) for node in other.nodes]
    recorded(other)
    before = [record_of(node) for node in (*other.nodes, strange)]
    held, members = strange.ids(), names_of(other.nodes)

    with other.steady(gateway, ids):
        other.network.connect(strange.container)
        wrong = f"node {strange.name}: it belongs to another installation"
        eventually(lambda: wrong in gateway.logs())
        always(lambda: {states(gateway)[name] for name in members} == {"up"}, seconds=LONG)
    eventually(lambda: states(gateway)[strange.name] == "foreign")
    gateway.restart()  # so that it begins with all three in sight
    gateway.wait_ready(ids)
    eventually(lambda: states(gateway) == {**dict.fromkeys(members, "up"), strange.name: "foreign"})
    assert health(gateway)["status"] == "ok"
    rows = {row["name"]: row for row in gateway.layout()["nodes"]}
    assert (rows[strange.name]["state"], rows[strange.name]["objects"]) == ("foreign", None)
    told = gateway.ctl("nodes").output
    assert f"{strange.name} belongs to another installation" in told
    assert "The layout is settled; " not in told
    done = gateway.ctl("add", strange.name)
    assert (done.code, "--yes" in done.errors, stack.nodes[1].name in done.output) == (
        2,
        True,
        True,
    )
    assert [record_of(node) for node in (*other.nodes, strange)] == before
    assert strange.ids() == held

    assert gateway.ctl("add", "--yes", strange.name).code == 0
    moved = [id for id in theirs if id in held]
    eventually(lambda: [gateway.get(id).status for id in moved] == [200] * len(moved))
    assert gateway.ctl("rebalance").code == 0
    assert gateway.layout()["names"] == sorted([*members, strange.name])
    assert {gateway.get(id).status for id in [*moved, *ids]} == {200}
    eventually(lambda: states(foreign_gateway)[strange.name] == "foreign")
    assert foreign_gateway.get(theirs[0]).status == 503
    assert foreign_gateway.get(theirs[1]).status == 200


def test_a_foreign_disk_under_a_members_name_is_left_alone_until_it_is_taken_in(
    stack: Stack,
) -> None:
    one, swapped, _ = stack.add_nodes("123")
    gateway, ids = begin(stack)
    others, theirs = [ids[0], ids[2]], ["theirs1", "theirs2", "theirs3"]
    with stack.steady(gateway, others):
        swapped.lose()
        swapped.create(swapped.address)
        gone = record_of(one)
        record = replace(Layout.first([swapped.name, "x"]), origin="0123456789abcdef")
        write_record(swapped, record)
        put_plainly(dict.fromkeys(theirs, swapped))
        eventually(lambda: states(gateway).get(swapped.name) == "foreign")
        assert {gateway.get(stack.id_of(swapped)).status for _ in range(20)} == {503}
        assert record_of(swapped) == record
        assert record_of(one) == gone
    gateway.restart()
    gateway.wait_ready(others)
    eventually(lambda: states(gateway).get(swapped.name) == "foreign")
    assert gateway.get(ids[1]).status == 503
    done = gateway.ctl("add", "--yes", swapped.name)
    assert (done.code, "what that held is given up" in done.output) == (0, True), done
    eventually(found, gateway, theirs)
    assert gateway.ctl("rebalance").code == 0
    assert found(gateway, theirs)
    assert {gateway.get(id).status for id in others} == {200}
    assert gateway.get(ids[1]).status == 404
    assert gateway.layout()["problems"] == []


def test_a_disk_of_an_installation_set_up_at_the_same_time_is_foreign_too(
    stack: Stack,
) -> None:
    one, swapped, three = stack.add_nodes("123")
    names = names_of(stack.nodes)
    ours, theirs = Layout.first(names), Layout.first(names)
    for node, record in ((one, ours), (swapped, theirs), (three, ours)):
        write_record(node, record)
    put_plainly({stack.id_of(swapped): swapped})
    gateway = stack.add_gateway()
    wanted = {one.name: "up", swapped.name: "foreign", three.name: "up"}
    eventually(lambda: states(gateway) == wanted)
    assert gateway.get(stack.id_of(swapped)).status == 503
    assert gateway.get(stack.id_of(one)).status == 404
    assert [row["state"] for row in gateway.layout()["nodes"]] == ["running", "foreign", "running"]
    assert record_of(swapped) == theirs


def put_plainly(places: dict[str, Node]) -> None:
    """Stores objects past the gateway, by their ids."""
    for id, node in places.items():
        client = node.client()
        with contextlib.suppress(S3Error):  # a gateway has made it
            client.make_bucket(BUCKET)
        client.put_object(BUCKET, id, io.BytesIO(id.encode()), len(id))


def found(gateway: Gateway, ids: Iterable[str]) -> bool:
    return all(gateway.get(id).body == id.encode() for id in ids)


def test_nodes_with_objects_in_place_begin_without_records_and_one_with_others_is_unknown(
    stack: Stack,
) -> None:
    nodes = stack.add_nodes("12")
    places = {stack.id_of(node): node for node in nodes for _ in range(5)}
    put_plainly(places)
    gateway = stack.add_gateway()
    eventually(found, gateway, places)
    recorded(stack)
    assert record_of(nodes[0]).settled

    strange = stack.add_node("3", network=stack.add_network())
    theirs = {stack.id_of(node): strange for node in nodes}
    put_plainly(theirs)
    with stack.steady(gateway, places):
        stack.network.connect(strange.container)
        eventually(lambda: states(gateway).get(strange.name) == "unknown")
        always(lambda: gateway.get(next(iter(theirs))).status == 404, seconds=LONG)
    assert [bucket.name for bucket in strange.client().list_buckets()] == [BUCKET]
    assert record_of(nodes[0]).names == tuple(names_of(nodes))
    lines = gateway.lines(f"add {strange.name}")
    assert [line for line in lines if " WARNING objgw node" in line] == lines[:1]
    assert f"{strange.name} holds objects without a record" in gateway.ctl("nodes").output
    assert gateway.ctl("add", strange.name).code == 0
    eventually(found, gateway, theirs)
    assert gateway.ctl("rebalance").code == 0
    assert found(gateway, [*places, *theirs])
    assert gateway.layout()["names"] == names_of([*nodes, strange])


def test_nodes_without_records_whose_objects_are_elsewhere_wait_until_they_are_taken_in(
    stack: Stack,
) -> None:
    nodes = stack.add_nodes("12")
    empty = stack.add_node("3")
    places = {stack.id_of(other): node for node in nodes for other in stack.nodes}
    put_plainly(places)
    gateway = stack.add_gateway()
    names = names_of(nodes)
    eventually(lambda: f"objgwctl.py add {' '.join(names)}" in gateway.logs())
    always(lambda: gateway.get(random_id()).status == 503, seconds=LONG)
    assert gateway.request("GET", "/health/ready").status == 503
    assert health(gateway)["conflict"]
    assert {states(gateway)[name] for name in names} == {"unknown"}
    assert empty.client().list_buckets() == []
    assert gateway.ctl("add", names[0]).code == 2  # the other one holds objects, too
    assert gateway.ctl("add", *names).code == 0
    eventually(found, gateway, places)
    assert gateway.ctl("rebalance").code == 0
    assert found(gateway, places)
    assert gateway.layout()["names"] == names_of(stack.nodes)
