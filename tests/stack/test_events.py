"""Docker's events: what changes is known at once, and an idle gateway hardly asks Docker."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise

from gateway.status.logs import REPEAT_SECONDS
from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id
from tests.stack.test_docker_proxy import DockerProxy

SLOW = {"OBJGW_DISCOVERY_SECONDS": "3600"}  # only an event can tell of a change
# Seconds in which a change is known, far below those after which it is known without an event. It
# is milliseconds where nothing else keeps the machine busy.
SOON = 20.0


def told(gateway: Gateway, id: str, text: str) -> bool:
    answer = gateway.get(id)
    return answer.status == 503 and text in answer.problem["detail"]


def test_a_node_that_stops_and_starts_is_known_by_docker_s_events(stack: Stack) -> None:
    relay = stack.add_relay()
    node, other = stack.add_nodes("12")
    settings = SLOW | {"WEB_CONCURRENCY": "2", "OBJGW_BREAKER_SECONDS": "60"}
    gateway = stack.add_gateway(settings, relay=relay)
    gateway.wait_ready()
    id = store(gateway, b"here", stack.id_of(node))
    eventually(relay.calm)
    with stack.steady(gateway, [stack.id_of(other)]):
        node.container.kill()
        eventually(told, gateway, id, "not running", within=SOON)
        node.container.start()
        # With a poll, or a breaker that no look closes, it would take a minute.
        eventually(lambda: gateway.get(id).body == b"here", within=30)
        node.pause()
        eventually(told, gateway, id, "not running", within=SOON)
        node.unpause()
        eventually(lambda: gateway.get(id).body == b"here", within=SOON)


def test_a_new_node_and_one_that_changes_its_network_are_known_by_events(stack: Stack) -> None:
    (node,) = stack.add_nodes("1")
    gateway = stack.add_gateway(SLOW)
    gateway.wait_ready()
    id = store(gateway, b"here", stack.id_of(node))
    stack.network.disconnect(node.container)
    stack.network.connect(node.container, ipv4_address=stack.new_address())
    eventually(lambda: gateway.get(id, timeout=2).body == b"here", within=30)
    stack.add_node("2")
    names = {each.name for each in stack.nodes}

    def joined() -> bool:
        return set(json.loads(gateway.request("GET", "/health").body)["layout"]["names"]) == names

    eventually(joined, within=30)


def test_an_idle_gateway_asks_docker_nothing_where_it_asked_every_two_seconds(
    stack: Stack,
) -> None:
    relay = stack.add_relay()
    stack.add_nodes("12")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"}, relay=relay)
    gateway.wait_ready()
    # Readings follow an event of the stack's own, and one comes every 60 to 90 seconds.
    eventually(relay.calm)
    assert gateway.get(random_id()).status == 404


def test_a_stream_that_broke_is_opened_again_and_what_happened_meanwhile_is_found(
    stack: Stack,
) -> None:
    relay = stack.add_relay()
    node, other = stack.add_nodes("12")
    gateway = stack.add_gateway(relay=relay)
    gateway.wait_ready()
    eventually(relay.calm, 3)
    ids = [store(gateway, b"here", stack.id_of(each)) for each in (node, other)]
    relay.close()
    node.container.kill()
    eventually(lambda: gateway.get(ids[0]).status == 503)
    relay.open()
    eventually(told, gateway, ids[0], "not running")
    eventually(relay.calm, 3)  # a stream again, and no poll
    other.container.kill()
    eventually(told, gateway, ids[1], "not running", within=SOON)
    assert gateway.lines("Docker can't be read, the last list stays: tcp://")
    # It refuses connections, or has ended the one on which it was asked just then.
    assert gateway.lines("see whether Docker runs there")


def test_where_a_proxy_forbids_events_the_list_is_polled_which_is_said_once(stack: Stack) -> None:
    proxy = DockerProxy()
    node, _ = stack.add_nodes("12")
    docker_host = f"tcp://{stack.tests_address()}:{proxy.server_port}"
    gateway = stack.add_gateway({"DOCKER_HOST": docker_host, "WEB_CONCURRENCY": "3"}, volumes={})
    gateway.wait_ready()
    id = store(gateway, b"here", stack.id_of(node))
    node.container.kill()
    eventually(told, gateway, id, "not running")
    node.container.start()
    eventually(lambda: gateway.get(id).body == b"here")
    lines = gateway.lines("gives no events (403")
    assert len(lines) == 1
    assert "read every 2 s; a socket proxy needs EVENTS=1" in lines[0]
    proxy.shutdown()
    proxy.server_close()


def test_with_several_workers_what_all_find_out_is_said_once(stack: Stack) -> None:
    stack.add_nodes("12")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    node = stack.nodes[0]
    node.container.kill()
    eventually(lambda: f"WARNING objgw.status node {node.name} is stopped" in gateway.logs())
    lines = [line.split(" ", 1) for line in gateway.logs().splitlines() if " objgw" in line]
    said: dict[str, list[datetime]] = {}
    for time, line in lines:
        if "request=" not in line:
            said.setdefault(line, []).append(datetime.fromisoformat(time))
    assert len([line for line in said if ", was not there" in line]) == 2
    # A worker that began late says once more what it finds out.
    moments = [pair for times in said.values() for pair in pairwise(sorted(times))]
    assert [pair for pair in moments if pair[1] - pair[0] < timedelta(seconds=REPEAT_SECONDS)] == []
