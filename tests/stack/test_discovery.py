"""Docker that comes and goes: requests go on without it."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from tests.harness.checks import (
    PROMPT,
    assert_only_own_ids_reached,
    assert_unavailable_for_all_methods,
    has,
    store,
)
from tests.harness.stack import Stack
from tests.harness.waiting import always, eventually, random_id, together


def test_a_gateway_that_starts_before_the_docker_socket_is_there_finds_it(shared: Stack) -> None:
    gateway = shared.add_gateway({"DOCKER_HOST": "unix:///tmp/docker.sock"}, socket_at="/real.sock")
    assert_unavailable_for_all_methods(gateway, random_id())
    assert gateway.get("no-id").status == 400
    always(lambda: gateway.get("abc").status == 503, seconds=3)
    gateway.run("ln", "-s", "/real.sock", "/tmp/docker.sock")
    eventually(
        lambda: all(gateway.put(shared.id_of(node)).status == 200 for node in shared.nodes),
        within=PROMPT,
    )
    assert_only_own_ids_reached(shared)


def test_a_gateway_whose_docker_refuses_and_then_hangs_at_the_start_answers_503_and_recovers(
    shared: Stack,
) -> None:
    relay = shared.add_relay()
    relay.close()
    gateway = shared.add_gateway({"OBJGW_DOCKER_TIMEOUT": "1"}, relay=relay)
    assert_unavailable_for_all_methods(gateway, random_id())
    relay.hang()
    relay.open()
    relay.hang()
    eventually(lambda: relay.connections > 0)
    assert_unavailable_for_all_methods(gateway, random_id())
    relay.open()
    eventually(
        lambda: all(gateway.put(shared.id_of(node)).status == 200 for node in shared.nodes),
        within=PROMPT,
    )
    assert_only_own_ids_reached(shared)


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_without_docker_requests_go_on_and_once_it_is_back_a_node_made_anew_is_found(
    faulty: Stack, fault: str
) -> None:
    relay = faulty.add_relay()
    one, anew, three = faulty.nodes
    # What was sent to a container that is gone isn't always refused: then it has its time-out.
    timeouts = {
        "OBJGW_DOCKER_TIMEOUT": "1",
        "OBJGW_CONNECT_TIMEOUT": "2",
        "OBJGW_NODE_TIMEOUT": "5",
    }
    gateway = faulty.add_gateway(timeouts, relay=relay)
    gateway.wait_ready()
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[one], ids[three]]):
        relay.close() if fault == "refuses" else relay.hang()
        for node in (one, anew, three):
            always(has, gateway, ids[node], seconds=1)
        anew.recreate(password=f"pass{secrets.token_hex(12)}", address=faulty.new_address())
        assert_unavailable_for_all_methods(gateway, ids[anew])
        relay.open()
        eventually(has, gateway, ids[anew], within=PROMPT)
    assert_only_own_ids_reached(faulty)


def test_docker_is_asked_no_more_often_because_of_requests(shared: Stack) -> None:
    relay = shared.add_relay()
    gateway = shared.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600"}, relay=relay)
    gateway.wait_ready()
    id = shared.id_of(shared.nodes[0])
    assert gateway.put(id, id.encode()).status == 200
    together(
        [partial(has, gateway, id)] * 4
    )  # each on a connection of its own, which Docker is asked about

    eventually(relay.calm)
    before = relay.requests
    for _ in range(100):
        assert has(gateway, id)
    assert relay.requests == before
