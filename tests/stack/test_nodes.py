"""Nodes that come, go and change while the gateway runs."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from gateway.nodes.discovery import RECENT_SECONDS
from tests.harness.checks import (
    PROMPT,
    assert_only_own_ids_reached,
    assert_unavailable,
    assert_unavailable_for_all_methods,
    has,
    store,
    stores,
)
from tests.harness.engine import BUCKET, DockerRelay, Lab
from tests.harness.fixtures import empty_stack
from tests.harness.gateway import Answer, Gateway
from tests.harness.http import MIB
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import health
from tests.harness.waiting import always, eventually, meanwhile, random_id, together


@pytest.mark.parametrize("change", ["address", "keys", "address and keys"])
def test_the_first_request_after_a_node_was_made_anew_succeeds_though_no_renewal_is_due(
    faulty: Stack, change: str
) -> None:
    node, other = faulty.nodes[:2]
    relay = faulty.add_relay()
    relay.events = False
    settings = {"OBJGW_DISCOVERY_SECONDS": "3600", "OBJGW_CONNECT_TIMEOUT": "2"}
    gateway = faulty.add_gateway(settings, relay=relay)
    gateway.wait_ready()
    large = secrets.token_bytes(MIB)
    requests: list[Callable[[str], Answer]] = [
        lambda id: gateway.get(id),
        lambda id: gateway.head(id),
        lambda id: gateway.put(id, b"new"),
        lambda id: gateway.put(id, large),
        lambda id: gateway.put(id, iter([b"chunk", b"chunk"])),
        lambda id: gateway.delete(id),
    ]
    statuses = []
    for request in requests:
        ids = store(faulty, [node, other])
        node.recreate(
            user=f"user{secrets.token_hex(6)}" if "keys" in change else None,
            password=f"pass{secrets.token_hex(12)}" if "keys" in change else None,
            address=faulty.new_address() if "address" in change else None,
        )
        # A list that was just read is good enough for a request, and may be older than the node.
        eventually(lambda: health(gateway)["docker"]["seconds_ago"] > 2 * RECENT_SECONDS)
        statuses.append(request(ids[node]).status)
        assert has(gateway, ids[other])
    assert statuses == [200, 200, 200, 200, 200, 204]


def swap_addresses(one: Node, two: Node) -> None:
    """Both nodes are made anew, each at the other's address."""
    first, second = one.address, two.address
    together([one.remove, two.remove])
    one.create(second)
    two.create(first)


@pytest.fixture(scope="module")
def twins(lab: Lab) -> Iterator[Stack]:
    """Two nodes with equal keys."""
    with empty_stack(lab) as stack:
        for suffix in "12":
            stack.add_node(suffix, "samesame", "samesamesecret")
        yield stack


@contextmanager
def gateway_of(
    twins: Stack, events: bool = True, **env: str
) -> Iterator[tuple[Gateway, DockerRelay]]:
    """One with these settings that finds Docker through a relay, which may cut its events."""
    relay = twins.add_relay()
    relay.events = events
    gateway = twins.add_gateway(env, relay=relay)
    try:
        gateway.wait_ready()
        yield gateway, relay
    finally:
        gateway.remove()
        relay.close()


@pytest.mark.parametrize("delay", [0, 0.2, 0.6])
def test_nodes_with_equal_keys_that_swapped_addresses_unseen_never_get_each_others_requests(
    twins: Stack, delay: float
) -> None:
    nodes = twins.nodes
    with gateway_of(twins, events=False, OBJGW_DISCOVERY_SECONDS="3600") as (gateway, relay):
        ids = store(twins, nodes)
        swap_addresses(*nodes)
        relay.delay = delay  # to each of the handful of requests that one look at the nodes takes
        at_once = [  # more requests than there are kept connections, so that some make new ones
            request
            for node in nodes * 4
            for request in (
                partial(gateway.get, ids[node]),
                partial(gateway.put, twins.id_of(node), b"new"),
            )
        ]
        statuses = [answer.status for answer in together(at_once)]
        relay.delay = 0
        assert_only_own_ids_reached(twins)
        assert set(statuses) <= {200, 503}
        for node in nodes:
            eventually(has, gateway, ids[node], within=PROMPT)
            held = {id for each in nodes for id in each.ids() if twins.owner(id) is node}
            assert node.ids() == held
        assert_only_own_ids_reached(twins)


@pytest.mark.parametrize("delay", [0, 0.3])
def test_while_nodes_with_equal_keys_swap_addresses_no_request_reaches_the_wrong_one(
    twins: Stack, delay: float
) -> None:
    one, two = twins.nodes
    statuses = set[int]()
    with gateway_of(twins) as (gateway, relay):
        ids = store(twins, twins.nodes)

        def use(over: threading.Event) -> None:
            while not over.is_set():
                for node in (one, two):
                    got, put = gateway.get(ids[node]), gateway.put(twins.id_of(node), b"new")
                    statuses.update((got.status, put.status))

        with meanwhile(use):
            relay.delay = delay
            swap_addresses(one, two)
            eventually(lambda: all(has(gateway, id) for id in ids.values()), within=PROMPT)
        assert_only_own_ids_reached(twins)
        assert statuses <= {200, 503}


def test_ids_of_a_paused_node_get_503_at_once_and_all_others_are_untouched(faulty: Stack) -> None:
    gateway, (one, paused, three) = faulty.gateways[0], faulty.nodes
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[one], ids[three]]):
        paused.pause()
        eventually(lambda: gateway.get(ids[paused], timeout=1).status == 503, within=PROMPT)
        began = time.monotonic()
        for _ in range(5):
            assert_unavailable_for_all_methods(gateway, ids[paused])
        assert time.monotonic() - began < 10  # waiting for the node would take 30
        paused.unpause()
        eventually(has, gateway, ids[paused], within=PROMPT)
    assert_only_own_ids_reached(faulty)


def test_a_node_that_is_silent_for_too_long_gets_503_for_its_request(faulty: Stack) -> None:
    silent, other = faulty.nodes[:2]
    gateway = faulty.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600", "OBJGW_NODE_TIMEOUT": "3"})
    gateway.wait_ready()
    ids = store(faulty, faulty.nodes)
    silent.pause()
    for request in (gateway.get, gateway.put, gateway.get):
        began = time.monotonic()
        assert_unavailable(request(ids[silent]))
        assert time.monotonic() - began < 15
        assert has(gateway, ids[other])


def test_a_node_that_moves_to_another_address_while_it_runs_is_found_again(faulty: Stack) -> None:
    gateway, (moved, *others), network = faulty.gateways[0], faulty.nodes, faulty.network
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[other] for other in others]):
        network.disconnect(moved.container)
        moved.address = faulty.new_address()
        network.connect(moved.container, ipv4_address=moved.address)
        eventually(lambda: gateway.get(ids[moved], timeout=2).status == 200, within=PROMPT)


def test_a_gateway_without_any_node_answers_503_and_finds_nodes_that_come_five_seconds_later(
    stack: Stack,
) -> None:
    gateway, id = stack.add_gateway(), random_id()
    assert_unavailable_for_all_methods(gateway, id)
    assert gateway.get("no-id").status == 400
    assert gateway.request("GET", "/other").status == 404
    always(lambda: gateway.get(id).status == 503, seconds=5)
    stack.add_nodes("123")
    gateway.wait_layout([node.name for node in stack.nodes])  # they may join one after another

    def good() -> bool:
        ids = [stack.id_of(node) for node in stack.nodes]
        return all(
            gateway.put(id, b"x").status == 200 and stack.holders(id) == [stack.owner(id)]
            for id in ids
        )

    eventually(good, within=PROMPT)
    for id in [random_id() for _ in range(30)]:
        assert gateway.put(id, id.encode()).status == 200
        assert has(gateway, id)
        assert stack.holders(id) == [stack.owner(id)]


def test_a_node_that_was_stopped_before_the_gateway_came_has_its_place(stack: Stack) -> None:
    one, stopped, three = stack.add_nodes("123")
    stopped.stop()
    gateway = stack.add_gateway()
    gateway.wait_ready([stack.id_of(one), stack.id_of(three)])
    lost = stack.id_of(stopped)
    for id in [random_id() for _ in range(60)]:
        answer = gateway.put(id, id.encode())
        if stack.owner(id) is stopped:
            assert_unavailable(answer)
        else:
            assert answer.status == 200
    assert_unavailable_for_all_methods(gateway, lost)
    stopped.start()
    eventually(lambda: gateway.put(lost, lost.encode()).status == 200, within=PROMPT)
    assert stack.holders(lost) == [stopped]
    assert_only_own_ids_reached(stack)


def test_a_look_alike_on_another_network_is_no_node(stack: Stack) -> None:
    one, _ = stack.add_nodes("13")
    elsewhere = stack.add_network()
    look_alike = stack.add_node("2", one.user, one.password, network=elsewhere)
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [random_id() for _ in range(60)]
    for id in ids:
        assert gateway.put(id, id.encode()).status == 200
        assert has(gateway, id)
    for node in stack.nodes:
        assert node.ids() >= {id for id in ids if stack.owner(id) is node}
    assert look_alike.calls() == []
    assert_only_own_ids_reached(stack)


def test_a_gateway_on_several_networks_finds_the_nodes_of_each(stack: Stack) -> None:
    other = stack.add_network()
    node = stack.add_node("1")
    there = stack.add_node("2", network=other)
    stack.nodes.append(there)
    gateway = stack.add_gateway(networks=[other, stack.network])
    gateway.wait_ready()
    for each in (node, there):
        id = stack.id_of(each)
        assert gateway.put(id, b"x").status == 200
        assert stack.holders(id) == [each]


def test_what_compose_does_to_names_while_it_recreates_a_container_changes_nothing(
    faulty: Stack,
) -> None:
    relay = faulty.add_relay()
    relay.events = False  # so that the list is read again and again
    node = faulty.nodes[-1]  # which a name that begins with a digit would make the first
    gateway = faulty.add_gateway({"OBJGW_DISCOVERY_SECONDS": "0.1"}, relay=relay)
    gateway.wait_ready()
    ids = store(faulty, faulty.nodes)

    def renewed() -> bool:
        before = relay.requests
        return bool(eventually(lambda: relay.requests > before + 5))

    old = node.container
    with faulty.steady(gateway, [id for each, id in ids.items() if each is not node]):
        with faulty.steady(gateway, [ids[node]]):
            old.rename(f"0123456789ab_{node.name}")
            assert renewed()
        old.stop(timeout=3)
        assert renewed()
        assert_unavailable_for_all_methods(gateway, ids[node])
        node.create(faulty.new_address())  # both are there now, the old one stopped
        eventually(has, gateway, ids[node], within=PROMPT)
        with faulty.steady(gateway, [ids[node]]):
            old.remove()
            assert renewed()
    assert_only_own_ids_reached(faulty)


def test_a_bucket_that_is_gone_is_made_again(stack: Stack) -> None:
    node = stack.add_node("1")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    id = random_id()
    for body in (b"small", secrets.token_bytes(MIB)):
        assert gateway.put(id, body).status == 200
        node.client().remove_object(BUCKET, id)
        node.client().remove_bucket(BUCKET)
        assert gateway.get(id).status == 404
        answer = gateway.put(id, body)  # 503 where the body can't be sent again
        assert answer.status == 200 or (answer.status == 503 and len(body) == MIB)
        eventually(stores, gateway, id, body, within=PROMPT)
        assert gateway.get(id).body == body
