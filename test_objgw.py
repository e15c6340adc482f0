"""Tests of the gateway against real MinIO containers, through real sockets. The harness is in conftest.py.

Sections: ids and paths; objects; which node; nodes that come, go and change; Docker that comes and goes; keys; one
request upstream; in-process; the image. A test's name is the sentence it proves.

`shared` is a stack of three nodes that no test changes, `faulty` one whose faults are undone after each test, `stack`
an empty one of the test's own. Where a node is at fault, `steady` uses ids of the other nodes all the while: each
request for them must succeed. Where it must be known what reached which node, MinIO's own audit says so.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import webtest  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]

from conftest import (
    BUCKET,
    CHECKOUT,
    MINIO,
    Answer,
    Call,
    DockerRelay,
    Gateway,
    Lab,
    Node,
    Stack,
    always,
    eventually,
    owner,
    random_id,
    together,
)

KIB, MIB = 1024, 1024 * 1024
PROMPT = 20  # seconds within which a node is found (again)
METHODS = ("GET", "HEAD", "PUT", "DELETE")


def assert_unavailable(answer: Answer, body: bool = True) -> None:
    """It is a 503 that says when to try again and why."""
    assert answer.status == 503, answer
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    if body:
        assert answer.problem["title"] == "Service Unavailable"


def assert_unavailable_for_all_methods(gateway: Gateway, id: str) -> None:
    for method in METHODS:
        body = b"x" if method == "PUT" else None
        assert_unavailable(gateway.request(method, f"/object/{id}", body), body=method != "HEAD")


def store(stack: Stack, nodes: list[Node]) -> dict[Node, str]:
    """Puts one object, whose bytes are its id, on each of the nodes."""
    ids = {node: stack.id_of(node) for node in nodes}
    for id in ids.values():
        assert stack.gateways[0].put(id, id.encode()).status == 200
    return ids


def has(gateway: Gateway, id: str) -> bool:
    """Whether the gateway returns the object that `store` put there."""
    answer = gateway.get(id)
    return answer.status == 200 and answer.body == id.encode()


def stores(gateway: Gateway, id: str, body: bytes = b"") -> bool:
    """Whether a PUT of it succeeds."""
    return gateway.put(id, body).status == 200


def assert_only_own_ids_reached(stack: Stack) -> None:
    """No node was ever asked for an id that isn't its own."""
    for node in stack.nodes:
        strays = [call for call in node.calls() if call.key and stack.owner(call.key) is not node]
        assert not strays, f"{node.name} was asked for ids of another node: {strays}"


# ---------------------------------------------------------------------------------------------------------------------
# Ids and paths
# ---------------------------------------------------------------------------------------------------------------------
GOOD_PATHS = {  # path as sent: id
    "/object/a": "a",
    "/object/0": "0",
    "/object/Az09": "Az09",
    "/object/" + "a" * 32: "a" * 32,
    "/object/" + "9" * 32: "9" * 32,
    "/object/%61bc": "abc",
    "/object/%61%62%63": "abc",
    "/object/%4a": "J",
    "/object/%4A": "J",
    "/object/" + "%41" * 32: "A" * 32,
    "/object/abc?": "abc",
    "/object/abc?id=xyz": "abc",
    "/object/abc?/../../x%00": "abc",
    "/object/object": "object",
    "/object/null": "null",
    "/%6fbject/abc": "abc",
    "http://gateway.example:3000/object/abc": "abc",  # absolute form: RFC 9112, 3.2.2
}

BAD_PATHS = {  # path as sent: status
    "/object/": 400,
    "/object/?": 400,
    "/object/" + "a" * 33: 400,
    "/object/" + "a" * 32 + "%61": 400,
    "/object/" + "a" * 4000: 400,
    "/object/abc%0A": 400,
    "/object/%0Aabc": 400,
    "/object/abc%0D": 400,
    "/object/abc%0d%0aLocation:%20x": 400,
    "/object/abc%00": 400,
    "/object/%00": 400,
    "/object/a%20b": 400,
    "/object/abc%20": 400,
    "/object/abc%09": 400,
    "/object/a+b": 400,
    "/object/a-b": 400,
    "/object/a_b": 400,
    "/object/a.b": 400,
    "/object/~": 400,
    "/object/abc;x=1": 400,
    "/object/abc%3Bx": 400,
    "/object/abc%3Fx": 400,
    "/object/%2561bc": 400,  # decoded once it's %61bc
    "/object/%": 400,
    "/object/%zz": 400,
    "/object/%6": 400,
    "/object/.": 400,
    "/object/..": 400,
    "/object/...": 400,
    "/object/%2e%2e": 400,
    "/object/%2E%2E%2Fetc": 400,
    "/object/../object/abc": 400,
    "/object/a/b": 400,
    "/object/a%2Fb": 400,
    "/object/a%2fb": 400,
    "/object/a%5Cb": 400,
    "/object/abc/": 400,
    "/object/abc%2F": 400,
    "/object//abc": 400,
    "/object/%2Fabc": 400,
    "/object/caf%C3%A9": 400,  # é
    "/object/%D9%A1": 400,  # Arabic-Indic digit one, a \d for Python
    "/object/%EF%BC%91": 400,  # full-width digit one
    "/object/%C2%B2": 400,  # superscript two, isdigit() for Python
    "/object/%E2%84%AA": 400,  # Kelvin sign, which is k without case
    "/object/%FF": 400,  # no UTF-8
    "/object/\xe9": 400,  # a raw byte
    "/object": 404,
    "/Object/abc": 404,
    "/objects/abc": 404,
    "/objectabc": 404,
    "/abc": 404,
    "/health/": 404,
    "//object/abc": 404,
    "/./object/abc": 404,
    "/x/../object/abc": 404,
    "/object%2Fabc/": 400,
    "/favicon.ico": 404,
}


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_a_good_path_stores_and_returns_under_its_decoded_id(shared: Stack, gateway: Gateway, path: str) -> None:
    id, body = GOOD_PATHS[path], secrets.token_bytes(20)
    writable, _, query = path.partition("?")  # which reading ignores, and writing refuses
    if query:
        for method in ("PUT", "DELETE"):
            assert gateway.request(method, path, body).status == 400
    assert gateway.request("PUT", writable, body).status == 200
    for same in (path, f"/object/{id}"):
        answer = gateway.request("GET", same)
        assert (answer.status, answer.body) == (200, body)
        assert gateway.request("HEAD", same).status == 200
    assert shared.holders(id) == [shared.owner(id)]
    assert gateway.request("DELETE", writable).status == 204
    answer = gateway.request("GET", path)
    assert (answer.status, answer.problem["title"]) == (404, "Not Found")


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_bad_path_is_refused_without_a_redirect_and_stores_nothing(
    shared: Stack, gateway: Gateway, path: str
) -> None:
    before = [node.ids() for node in shared.nodes]
    for method in METHODS:
        answer = gateway.request(method, path, b"body" if method == "PUT" else None)
        assert answer.status == BAD_PATHS[path], method
        assert "Location" not in answer.headers
        if method != "HEAD":
            assert answer.problem["status"] == BAD_PATHS[path]
        else:
            assert answer.body == b""
    assert [node.ids() for node in shared.nodes] == before


@pytest.mark.parametrize("path", ["/object/a b", "/object/abc\t", "/object/a\x00b", "/object/abc\x7f", "object/abc"])
def test_a_request_line_that_is_no_http_is_refused_and_stores_nothing(
    shared: Stack, gateway: Gateway, path: str
) -> None:
    before = [node.ids() for node in shared.nodes]
    answer = gateway.request("PUT", path, b"body")
    assert answer.status in (400, 404)
    assert "Location" not in answer.headers
    assert [node.ids() for node in shared.nodes] == before


@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "PURGE"])
def test_another_method_is_405_and_says_which_are_allowed(gateway: Gateway, method: str) -> None:
    answer = gateway.request(method, "/object/abc", b"body" if method in ("POST", "PATCH") else None)
    assert answer.status == 405
    assert sorted(answer.headers["Allow"].split(", ")) == ["DELETE", "GET", "HEAD", "PUT"]
    assert answer.problem["title"] == "Method Not Allowed"


# ---------------------------------------------------------------------------------------------------------------------
# Objects
# ---------------------------------------------------------------------------------------------------------------------
SIZES = (0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 5 * MIB)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_what_get_returns_with_its_headers(gateway: Gateway, size: int) -> None:
    id, body = random_id(), secrets.token_bytes(size)
    etag = f'"{hashlib.md5(body).hexdigest()}"'

    put = gateway.put(id, body, headers={"Content-Type": "text/x-test; charset=utf-8"})
    assert (put.status, put.headers["ETag"], put.body) == (200, etag, b"")

    got, head = gateway.get(id), gateway.head(id)
    assert got.body == body
    assert head.body == b""
    for answer in (got, head):
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(size)
        assert answer.headers["Content-Type"] == "text/x-test; charset=utf-8"
        assert answer.headers["ETag"] == etag
        assert answer.headers["Accept-Ranges"] == "bytes"
        stored = email.utils.parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
        assert abs(stored - time.time()) < 30
        leaked = [name for name in answer.headers if name.lower().startswith(("x-amz", "x-minio", "x-ratelimit"))]
        assert not leaked


@pytest.mark.parametrize("size", [0, 1, 64 * KIB + 1, 12 * MIB])
def test_an_upload_without_a_length_is_stored_like_any_other(gateway: Gateway, size: int) -> None:
    id, body = random_id(), secrets.token_bytes(size)
    put = gateway.put(id, (body[start : start + 100_000] for start in range(0, size, 100_000)))
    assert (put.status, put.headers["ETag"]) == (200, f'"{hashlib.md5(body).hexdigest()}"')
    got = gateway.get(id)
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, body, str(size))


def test_a_put_replaces_the_whole_object_and_its_content_type(shared: Stack, gateway: Gateway) -> None:
    id = random_id()
    for size in (5 * MIB, 3, 64 * KIB + 1, 0, 1):
        body, kind = secrets.token_bytes(size), f"text/x-{size}"
        assert gateway.put(id, body, headers={"Content-Type": kind}).status == 200
        got = gateway.get(id)
        assert (got.status, got.body, got.headers["Content-Type"]) == (200, body, kind)
    assert shared.holders(id) == [shared.owner(id)]


def test_an_object_that_was_never_put_is_404(gateway: Gateway) -> None:
    id = random_id()
    got, head = gateway.get(id), gateway.head(id)
    assert (got.status, got.problem["title"]) == (404, "Not Found")
    assert (head.status, head.body) == (404, b"")
    assert "Retry-After" not in got.headers


def test_delete_is_204_whether_or_not_the_object_was_there(gateway: Gateway) -> None:
    id = random_id()
    gateway.put(id, b"x")
    for _ in range(2):
        answer = gateway.delete(id)
        assert (answer.status, answer.body) == (204, b"")
        assert gateway.get(id).status == 404


def test_one_connection_serves_requests_of_all_kinds_and_outcomes(gateway: Gateway) -> None:
    connection, id, body = http.client.HTTPConnection(gateway.address, 3000, timeout=30), random_id(), b"x" * 70_000
    statuses = []
    for method, path in [
        ("GET", id), ("PUT", id), ("GET", "a.b"), ("HEAD", id), ("GET", id), ("POST", id), ("DELETE", id), ("HEAD", id),
    ]:  # fmt: skip
        connection.request(method, f"/object/{path}", body if method in ("PUT", "POST") else None)
        response = connection.getresponse()
        received = response.read()
        statuses.append(response.status)
        assert (received == body) == (method == "GET" and response.status == 200)
    connection.close()
    assert statuses == [404, 200, 400, 200, 200, 405, 204, 404]


# ---------------------------------------------------------------------------------------------------------------------
# Which node
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def spread(shared: Stack) -> dict[str, bytes]:
    """300 objects that were put through the shared gateway."""
    objects = {random_id(): secrets.token_bytes(16) for _ in range(300)}
    for id, body in objects.items():
        assert shared.gateways[0].put(id, body).status == 200
    return objects


def test_300_ids_are_each_on_their_owner_only_and_shared_out_evenly(shared: Stack, spread: dict[str, bytes]) -> None:
    for node in shared.nodes:
        mine = node.ids() & spread.keys()
        assert mine == {id for id in spread if shared.owner(id) is node}
        assert 0.20 * len(spread) <= len(mine) <= 0.47 * len(spread)


def test_gateways_beside_each_other_restarted_and_with_four_workers_have_one_mapping(
    shared: Stack, spread: dict[str, bytes]
) -> None:
    other = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    other.wait_ready()
    assert {id: other.get(id).body for id in spread} == spread

    changed = {id: secrets.token_bytes(16) for id in spread}
    for id, body in changed.items():
        assert other.put(id, body).status == 200
    other.restart()
    other.wait_ready()
    for gateway in (shared.gateways[0], other):
        assert {id: gateway.get(id).body for id in changed} == changed
    spread.update(changed)
    for node in shared.nodes:
        assert node.ids() & spread.keys() == {id for id in spread if shared.owner(id) is node}


def test_one_two_five_and_twelve_nodes_each_hold_what_the_formula_says(stack: Stack) -> None:
    counts = (1, 2, 5, 12)  # a node's name ends in the counts that it is one of: -of5-of12
    stack.add_nodes(f"{n:02}{''.join(f'-of{count}' for count in counts if n <= count)}-" for n in range(1, 13))
    markers = {count: f"-of{count}-" if count < 12 else stack.marker for count in counts}
    buckets = {count: f"{BUCKET}-of{count}" for count in counts}  # so that no two gateways have a layout in common
    gateways = together(
        partial(stack.add_gateway, {"OBJGW_NODE_NAME": markers[count], "OBJGW_BUCKET": buckets[count]})
        for count in counts
    )
    for count, gateway in zip(counts, gateways, strict=True):
        chosen = {node.name: node for node in stack.nodes if markers[count] in node.name}
        assert len(chosen) == count
        ids = [random_id() for _ in range(300)]
        gateway.wait_ready(ids[:60])
        for id in ids:
            assert gateway.put(id, id.encode()).status == 200
        assert all(has(gateway, id) for id in ids[:60])
        for node in stack.nodes:
            mine = {id for id in ids if owner(id, chosen) == node.name} if node.name in chosen else set()
            assert node.ids(buckets[count]) == mine


# ---------------------------------------------------------------------------------------------------------------------
# Nodes that come, go and change
# ---------------------------------------------------------------------------------------------------------------------
def test_ids_of_a_stopped_node_get_503_until_it_is_back_and_all_others_are_untouched(faulty: Stack) -> None:
    gateway, (lost, *others) = faulty.gateways[0], faulty.nodes
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[node] for node in others]):
        lost.stop()
        began = time.monotonic()
        assert_unavailable_for_all_methods(gateway, ids[lost])
        assert time.monotonic() - began < 15
        always(lambda: gateway.get(ids[lost]).status == 503, seconds=3)  # renewals of the node list don't change it
        lost.start()
        eventually(has, gateway, ids[lost], within=PROMPT)
        assert gateway.put(ids[lost], b"new").status == 200
    assert faulty.holders(ids[lost]) == [lost]
    assert_only_own_ids_reached(faulty)


def test_ids_of_a_removed_node_get_503_until_it_is_made_anew_and_all_others_are_untouched(faulty: Stack) -> None:
    gateway, (one, lost, three) = faulty.gateways[0], faulty.nodes
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[one], ids[three]]):
        lost.remove()
        assert_unavailable_for_all_methods(gateway, ids[lost])
        always(lambda: gateway.get(ids[lost]).status == 503, seconds=3)
        lost.create(lost.address)
        eventually(has, gateway, ids[lost], within=PROMPT)
    assert_only_own_ids_reached(faulty)


@pytest.mark.parametrize("change", ["nothing new", "address", "keys", "address and keys"])
def test_a_node_made_anew_is_found_without_a_restart_of_the_gateway(faulty: Stack, change: str) -> None:
    gateway, (*others, anew) = faulty.gateways[0], faulty.nodes
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[node] for node in others]):
        anew.recreate(
            user=f"user{secrets.token_hex(6)}" if "keys" in change else None,
            password=f"pass{secrets.token_hex(12)}" if "keys" in change else None,
            address=faulty.new_address() if "address" in change else None,
        )
        eventually(has, gateway, ids[anew], within=PROMPT)
        assert gateway.put(ids[anew], b"new").status == 200
        assert gateway.get(ids[anew]).body == b"new"
    assert faulty.holders(ids[anew]) == [anew]
    assert_only_own_ids_reached(faulty)


@pytest.mark.parametrize("change", ["address", "keys", "address and keys"])
def test_the_first_request_after_a_node_was_made_anew_succeeds_though_no_renewal_is_due(
    stack: Stack, change: str
) -> None:
    node, other = stack.add_nodes("12")
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600", "OBJGW_CONNECT_TIMEOUT": "0.5"})
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
        ids = store(stack, [node, other])
        node.recreate(
            user=f"user{secrets.token_hex(6)}" if "keys" in change else None,
            password=f"pass{secrets.token_hex(12)}" if "keys" in change else None,
            address=stack.new_address() if "address" in change else None,
        )
        statuses.append(request(ids[node]).status)
        assert has(gateway, ids[other])
    assert statuses == [200, 200, 200, 200, 200, 204]


def swap_addresses(one: Node, two: Node) -> None:
    """Both nodes are made anew, each at the other's address."""
    first, second = one.address, two.address
    together([one.remove, two.remove])
    one.create(second)
    two.create(first)


@pytest.mark.parametrize("delay", [0, 0.2, 0.6])
def test_nodes_with_equal_keys_that_swapped_addresses_unseen_never_get_each_others_requests(
    stack: Stack, delay: float
) -> None:
    relay = stack.add_relay()
    nodes = [stack.add_node(suffix, "samesame", "samesamesecret") for suffix in "12"]
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600"}, relay=relay)
    gateway.wait_ready()
    ids = store(stack, nodes)
    swap_addresses(*nodes)
    relay.delay = delay  # to each of the handful of requests that one look at the nodes takes
    at_once = [  # more requests than there are kept connections, so that some make new ones
        request
        for node in nodes * 4
        for request in (partial(gateway.get, ids[node]), partial(gateway.put, stack.id_of(node), b"new"))
    ]
    statuses = [answer.status for answer in together(at_once)]
    relay.delay = 0
    assert_only_own_ids_reached(stack)
    assert set(statuses) <= {200, 503}
    for node in nodes:
        eventually(has, gateway, ids[node], within=PROMPT)
        assert node.ids() == {id for each in nodes for id in each.ids() if stack.owner(id) is node}
    assert_only_own_ids_reached(stack)


@pytest.mark.parametrize("delay", [0, 0.3])
def test_while_nodes_with_equal_keys_swap_addresses_no_request_reaches_the_wrong_one(
    stack: Stack, delay: float
) -> None:
    relay = stack.add_relay()
    one, two = (stack.add_node(suffix, "samesame", "samesamesecret") for suffix in "12")
    gateway = stack.add_gateway(relay=relay)
    gateway.wait_ready()
    ids = store(stack, stack.nodes)
    over, statuses = threading.Event(), set[int]()

    def use() -> None:
        while not over.is_set():
            for node in (one, two):
                statuses.update((gateway.get(ids[node]).status, gateway.put(stack.id_of(node), b"new").status))

    thread = threading.Thread(target=use)
    thread.start()
    try:
        relay.delay = delay
        swap_addresses(one, two)
        eventually(lambda: all(has(gateway, id) for id in ids.values()), within=20)
    finally:
        over.set()
        thread.join()
    assert_only_own_ids_reached(stack)
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


def test_a_node_that_is_silent_for_too_long_gets_503_for_its_request(stack: Stack) -> None:
    silent, other = stack.add_nodes("12")
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600", "OBJGW_NODE_TIMEOUT": "3"})
    gateway.wait_ready()
    ids = store(stack, stack.nodes)
    silent.pause()
    for request in (gateway.get, gateway.put, gateway.get):
        began = time.monotonic()
        assert_unavailable(request(ids[silent]))
        assert time.monotonic() - began < 15
        assert has(gateway, ids[other])


def test_a_node_that_moves_to_another_address_while_it_runs_is_found_again(stack: Stack) -> None:
    moved, other = stack.add_nodes("12")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = store(stack, stack.nodes)
    with stack.steady(gateway, [ids[other]]):
        stack.network.disconnect(moved.container)
        stack.network.connect(moved.container, ipv4_address=stack.new_address())
        eventually(lambda: gateway.get(ids[moved], timeout=2).status == 200, within=PROMPT)


def test_while_all_nodes_are_stopped_every_id_gets_503_and_all_is_good_once_they_are_back(faulty: Stack) -> None:
    gateway, ids = faulty.gateways[0], store(faulty, faulty.nodes)
    together([node.stop for node in faulty.nodes])
    for id in ids.values():
        assert_unavailable_for_all_methods(gateway, id)
    assert gateway.get("no-id").status == 400
    together([node.start for node in faulty.nodes])
    eventually(lambda: all(has(gateway, id) for id in ids.values()), within=PROMPT)
    assert_only_own_ids_reached(faulty)


def test_a_gateway_without_any_node_answers_503_and_finds_nodes_that_come_five_seconds_later(stack: Stack) -> None:
    gateway, id = stack.add_gateway(), random_id()
    assert_unavailable_for_all_methods(gateway, id)
    assert gateway.get("no-id").status == 400
    assert gateway.request("GET", "/other").status == 404
    always(lambda: gateway.get(id).status == 503, seconds=5)
    stack.add_nodes("123")

    def good() -> bool:
        ids = [stack.id_of(node) for node in stack.nodes]
        return all(gateway.put(id, b"x").status == 200 and stack.holders(id) == [stack.owner(id)] for id in ids)

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


def test_what_compose_does_to_names_while_it_recreates_a_container_changes_nothing(stack: Stack) -> None:
    relay = stack.add_relay()
    *_, node = stack.add_nodes("123")  # the last, which a name that begins with a digit would make the first
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "0.1"}, relay=relay)
    gateway.wait_ready()
    ids = store(stack, stack.nodes)

    def renewed() -> bool:
        before = relay.requests
        return bool(eventually(lambda: relay.requests > before + 5))

    old = node.container
    with stack.steady(gateway, [id for each, id in ids.items() if each is not node]):
        with stack.steady(gateway, [ids[node]]):
            old.rename(f"0123456789ab_{node.name}")
            assert renewed()
        old.stop(timeout=3)
        assert renewed()
        assert_unavailable_for_all_methods(gateway, ids[node])
        node.create(stack.new_address())  # both are there now, the old one stopped
        eventually(has, gateway, ids[node], within=PROMPT)
        with stack.steady(gateway, [ids[node]]):
            old.remove()
            assert renewed()
    assert_only_own_ids_reached(stack)


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


# ---------------------------------------------------------------------------------------------------------------------
# Docker that comes and goes
# ---------------------------------------------------------------------------------------------------------------------
def test_a_gateway_that_starts_before_the_docker_socket_is_there_finds_it(stack: Stack) -> None:
    stack.add_nodes("12")
    gateway = stack.add_gateway({"DOCKER_HOST": "unix:///tmp/docker.sock"}, socket_at="/real.sock")
    assert_unavailable_for_all_methods(gateway, random_id())
    assert gateway.get("no-id").status == 400
    always(lambda: gateway.get("abc").status == 503, seconds=3)
    gateway.run("ln", "-s", "/real.sock", "/tmp/docker.sock")
    eventually(lambda: all(gateway.put(stack.id_of(node)).status == 200 for node in stack.nodes), within=PROMPT)
    assert_only_own_ids_reached(stack)


def test_a_gateway_whose_docker_refuses_and_then_hangs_at_the_start_answers_503_and_recovers(stack: Stack) -> None:
    relay = stack.add_relay()
    relay.close()
    stack.add_nodes("12")
    gateway = stack.add_gateway({"OBJGW_DOCKER_TIMEOUT": "1"}, relay=relay)
    assert_unavailable_for_all_methods(gateway, random_id())
    relay.hang()
    relay.open()
    relay.hang()
    eventually(lambda: relay.connections > 0)
    assert_unavailable_for_all_methods(gateway, random_id())
    relay.open()
    eventually(lambda: all(gateway.put(stack.id_of(node)).status == 200 for node in stack.nodes), within=PROMPT)
    assert_only_own_ids_reached(stack)


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_without_docker_requests_go_on_and_once_it_is_back_a_node_made_anew_is_found(stack: Stack, fault: str) -> None:
    relay = stack.add_relay()
    one, anew, three = stack.add_nodes("123")
    # What was sent to a container that is gone isn't always refused: then it has its time-out.
    timeouts = {"OBJGW_DOCKER_TIMEOUT": "1", "OBJGW_CONNECT_TIMEOUT": "0.5", "OBJGW_NODE_TIMEOUT": "5"}
    gateway = stack.add_gateway(timeouts, relay=relay)
    gateway.wait_ready()
    ids = store(stack, stack.nodes)
    with stack.steady(gateway, [ids[one], ids[three]]):
        relay.close() if fault == "refuses" else relay.hang()
        for node in (one, anew, three):
            always(has, gateway, ids[node], seconds=1)
        anew.recreate(password=f"pass{secrets.token_hex(12)}", address=stack.new_address())
        assert_unavailable_for_all_methods(gateway, ids[anew])
        relay.open()
        eventually(has, gateway, ids[anew], within=PROMPT)
    assert_only_own_ids_reached(stack)


def test_docker_is_asked_no_more_often_because_of_requests(stack: Stack) -> None:
    relay = stack.add_relay()
    node = stack.add_node("1")
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "3600"}, relay=relay)
    gateway.wait_ready()
    id = store(stack, [node])[node]
    together([partial(has, gateway, id)] * 4)  # each on a connection of its own, which Docker is asked about

    def calm() -> bool:
        before = relay.requests
        time.sleep(2)
        return relay.requests == before

    eventually(calm)
    before = relay.requests
    for _ in range(100):
        assert has(gateway, id)
    assert relay.requests == before


# ---------------------------------------------------------------------------------------------------------------------
# Keys
# ---------------------------------------------------------------------------------------------------------------------
def of_rustfs(user: str, password: str) -> dict[str, Any]:
    """A MinIO that takes its keys from the variables of RustFS."""
    server = 'MINIO_ROOT_USER="$RUSTFS_ACCESS_KEY" MINIO_ROOT_PASSWORD="$RUSTFS_SECRET_KEY" exec minio server /data'
    env = {"RUSTFS_ACCESS_KEY": user, "RUSTFS_SECRET_KEY": password}
    return {"user": user, "password": password, "env": env, "entrypoint": ["sh", "-c", server]}


KEYS: dict[str, dict[str, Any]] = {
    "MINIO_ROOT_USER": {},
    "MINIO_ACCESS_KEY": {
        "user": "access-user",
        "password": "access-password",
        "env": {"MINIO_ACCESS_KEY": "access-user", "MINIO_SECRET_KEY": "access-password"},
    },
    "MINIO_ROOT_USER before MINIO_ACCESS_KEY": {
        "user": "winning-user",
        "password": "winning-password",
        "env": {
            "MINIO_ACCESS_KEY": "losing-user",
            "MINIO_SECRET_KEY": "losing-password",
            "MINIO_ROOT_USER": "winning-user",
            "MINIO_ROOT_PASSWORD": "winning-password",
        },
    },
    "RUSTFS_ACCESS_KEY": of_rustfs("rust-user", "rust-password"),
    "nothing set": {"user": "minioadmin", "password": "minioadmin", "env": {}},
    "values with an equals sign": {"user": "user+a/b.c", "password": "pass=word==with/signs+&%41 and blank"},
    "a site region": {"region": "eu-central-7"},
}


@pytest.fixture(scope="module")
def keyed(lab: Lab) -> Iterator[Stack]:
    """A node for each way to set keys, in the order of KEYS."""
    stack = Stack(lab)
    try:
        together(partial(stack.add_node, str(number), **keys) for number, keys in enumerate(KEYS.values()))
        stack.nodes.sort(key=lambda node: node.name)
        stack.add_gateway().wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.mark.parametrize("number", range(len(KEYS)), ids=list(KEYS))
def test_a_node_is_used_with_the_keys_and_region_that_its_environment_sets(keyed: Stack, number: int) -> None:
    gateway, node = keyed.gateways[0], keyed.nodes[number]
    id = keyed.id_of(node)
    assert gateway.put(id, id.encode()).status == 200
    assert has(gateway, id)
    assert keyed.holders(id) == [node]
    assert gateway.delete(id).status == 204


def test_a_node_that_refuses_the_keys_of_its_environment_gets_502_and_others_are_untouched(stack: Stack) -> None:
    server = "MINIO_ROOT_USER=other-user MINIO_ROOT_PASSWORD=other-password exec minio server /data"
    wrong = {"MINIO_ROOT_USER": "told-user", "MINIO_ROOT_PASSWORD": "told-password"}
    bad = stack.add_node("1", "other-user", "other-password", env=wrong, entrypoint=["sh", "-c", server])
    good = stack.add_node("2")
    stack.secrets |= {"told-user", "told-password"}
    gateway = stack.add_gateway()
    gateway.wait_ready([stack.id_of(good)])
    with stack.steady(gateway, [stack.id_of(good)]):
        for request in (gateway.get, gateway.put, gateway.delete):
            answer = request(stack.id_of(bad))
            assert (answer.status, answer.problem["title"]) == (502, "Bad Gateway")
        assert gateway.head(stack.id_of(bad)).status == 502
    assert bad.ids() == set()
    assert "told-password" not in gateway.logs()


def test_neither_answers_nor_the_log_show_keys_and_answers_show_no_address(stack: Stack) -> None:
    node, other = stack.add_nodes("12")
    gateway = stack.add_gateway({"OBJGW_NODE_TIMEOUT": "3"})
    gateway.wait_ready()
    ids = store(stack, stack.nodes)
    answers = [gateway.get(ids[node]), gateway.get(random_id()), gateway.get("no-id"), gateway.request("POST", "/x")]
    for fault in (node.pause, node.unpause, node.stop, node.remove):
        fault()
        answers += [gateway.request(method, f"/object/{ids[node]}") for method in METHODS]
        answers += [gateway.request(method, f"/object/{ids[other]}") for method in METHODS]
    assert {answer.status for answer in answers} >= {200, 204, 400, 404, 503}
    shown = "".join(f"{answer.headers}{answer.body!r}" for answer in answers)
    for each in (node, other):
        for secret in (each.user, each.password, each.address):
            assert secret not in shown
        assert each.user not in gateway.logs()
        assert each.password not in gateway.logs()
    assert "Traceback" not in shown


# ---------------------------------------------------------------------------------------------------------------------
# One request upstream, by the nodes' own count
# ---------------------------------------------------------------------------------------------------------------------
ONE_REQUEST: dict[str, tuple[str, bytes | list[bytes] | None, str, int]] = {  # method, body, MinIO's name, status
    "GET": ("GET", None, "GetObject", 200),
    "HEAD": ("HEAD", None, "HeadObject", 200),
    "PUT of 0 bytes": ("PUT", b"", "PutObject", 200),
    "PUT": ("PUT", b"x" * 1000, "PutObject", 200),
    "PUT of 5 MiB": ("PUT", b"x" * 5 * MIB, "PutObject", 200),
    "PUT in chunks": ("PUT", [b"x", b"y"], "PutObject", 200),
    "DELETE": ("DELETE", None, "DeleteObject", 204),
    "GET of nothing": ("GET", None, "GetObject", 404),
    "HEAD of nothing": ("HEAD", None, "HeadObject", 404),
}


@pytest.mark.parametrize("what", ONE_REQUEST)
def test_one_request_is_one_request_upstream(faulty: Stack, what: str) -> None:
    method, body, api, status = ONE_REQUEST[what]
    gateway, id = faulty.gateways[0], random_id()
    if "nothing" not in what:
        assert gateway.put(id, b"here").status == 200
    before = {node: len(node.calls()) for node in faulty.nodes}
    for _ in range(3):
        assert gateway.request(method, f"/object/{id}", body).status == status
    calls = [call for node in faulty.nodes for call in node.calls()[before[node] :]]
    assert calls == [Call(api, id, status)] * 3


def test_renewing_the_node_list_asks_the_nodes_nothing(stack: Stack) -> None:
    relay = stack.add_relay()
    node = stack.add_node("1")
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "0.1"}, relay=relay)
    gateway.wait_ready()
    assert gateway.put(random_id()).status == 200
    calls, requests = node.calls(), relay.requests
    eventually(lambda: relay.requests > requests + 20)
    assert node.calls() == calls


# ---------------------------------------------------------------------------------------------------------------------
# In-process: webtest checks each answer against the WSGI specification
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def app(shared: Stack) -> webtest.TestApp:
    """The WSGI callable in this process, with the shared stack's nodes."""
    os.environ["OBJGW_NODE_NAME"] = shared.marker
    import objgw

    app = webtest.TestApp(objgw.app)
    for node in shared.nodes:
        path = f"/object/{shared.id_of(node)}"
        eventually(lambda path=path: app.get(path, expect_errors=True).status_int == 404)
    return app


def test_the_callable_keeps_to_wsgi_whatever_it_answers(app: webtest.TestApp) -> None:
    id, body = random_id(), secrets.token_bytes(200_000)
    assert app.get(f"/object/{id}", status=404).content_type == "application/problem+json"
    assert app.put(f"/object/{id}", body, content_type="text/plain", status=200).headers["ETag"]
    assert app.get(f"/object/{id}", status=200).body == body
    assert app.head(f"/object/{id}", status=200).content_length == len(body)
    app.delete(f"/object/{id}", status=204)
    assert app.get("/object/a.b", status=400).json["status"] == 400
    assert app.get("/other", status=404).json["status"] == 404
    assert app.get("/", status=200).content_type == "text/html"
    eventually(lambda: app.get("/health", expect_errors=True).status_int == 200)
    assert app.get("/health", status=200).json["layout"]["settled"]
    assert "objgw_request_seconds_count" in app.get("/metrics", status=200)
    assert app.post("/metrics", b"x", status=405).headers["Allow"]
    assert app.post(f"/object/{id}", b"x", status=405).headers["Allow"]


def test_importing_the_module_starts_nothing_and_asks_docker_nothing() -> None:
    relay = DockerRelay()
    script = "import objgw, threading; assert callable(objgw.app); print(threading.active_count())"
    env = {**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{relay.port}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, env=env, capture_output=True, text=True)
    relay.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert relay.connections == 0


WRONG_SETTINGS = {
    "OBJGW_NODE_PORT": ("abc", "0", "-1", "65536", "9000.5"),
    "OBJGW_BUCKET": ("No", "a", "has space", "x" * 64, "../up"),
    "OBJGW_DISCOVERY_SECONDS": ("soon", "-1", "0", "nan", "inf"),
    "OBJGW_DOCKER_TIMEOUT": ("0",),
    "OBJGW_CONNECT_TIMEOUT": ("x",),
    "OBJGW_NODE_TIMEOUT": ("-5",),
    "OBJGW_CLIENT_TIMEOUT": ("nan",),
    "OBJGW_LOG_FORMAT": ("xml",),
    "OBJGW_ACCESS_LOG": ("yes",),
    "OBJGW_PAGE": ("0",),
    "OBJGW_TOKENS": (" ", "\t\n", "first,second", '"first"', "first seco=nd", "naïve"),
    "OBJGW_READ_TOKENS": ("  ", "'first'"),
}
# Variables that are no settings, and those that are meant.
MISSPELT = {
    "OBJGW_TOKEN": "OBJGW_TOKENS",
    "OBJGW_READ_TOKEN": "OBJGW_READ_TOKENS",
    "OBJGW_TOKEN_FILE": "OBJGW_TOKENS_FILE",
    "OBJGW_TOKENS_FIEL": "OBJGW_TOKENS_FILE",
    "OBJGW_TOKENS_": "OBJGW_TOKENS",
    "OBJGW_READTOKENS": "OBJGW_READ_TOKENS",
    "OBJGW_MAX_BYTES": "OBJGW_MAX_OBJECT_BYTES",
    "OBJGW__PAGE": "OBJGW_PAGE",
    "OBJGWTOKENS": "OBJGW_TOKENS",
    "objgw_tokens": "OBJGW_TOKENS",
    "Objgw_Tokens_File": "OBJGW_TOKENS_FILE",
}
STOPPED = 4  # gunicorn's APP_LOAD_ERROR


def python(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Python makes of the script with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OBJGW_")}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=CHECKOUT, env=clean | env, capture_output=True, text=True)


def assert_stops(env: dict[str, str], *named: str) -> str:
    """The start stops with one line, which names these; the line."""
    done = python("import objgw", env)
    assert (done.returncode, done.stdout) == (STOPPED, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert [name for name in named if not re.search(rf"\b{name}\b", done.stderr)] == [], done.stderr
    return done.stderr


def variables() -> set[str]:
    """All that objgw.py takes for settings."""
    script = "import dataclasses, gateway.settings as s; print(*(each.name for each in dataclasses.fields(s.Settings)))"
    done = python(script, {})
    assert done.returncode == 0, done.stderr
    return {f"OBJGW_{name.upper()}" for name in done.stdout.split()}


def handed_over(file: str) -> set[str]:
    """The names of the variables that a compose file hands over to the gateway."""
    services = yaml.safe_load((CHECKOUT / file).read_text())["services"]
    return {entry.partition("=")[0] for entry in services["gateway-container"]["environment"]}


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in WRONG_SETTINGS for value in WRONG_SETTINGS[n]])
def test_a_setting_that_can_not_be_used_stops_the_start_with_one_line_that_names_it(name: str, value: str) -> None:
    line = assert_stops({name: value}, name)
    assert "TOKENS" not in name or not value.strip() or value not in line  # a token is in no log


@pytest.mark.parametrize(("name", "nearest"), MISSPELT.items())
def test_a_variable_that_is_no_setting_stops_the_start_with_one_line_that_names_the_nearest_one(
    name: str, nearest: str
) -> None:
    assert "treepotato" not in assert_stops({name: "treepotato"}, name, nearest)


@pytest.mark.parametrize("name", ["OBJGW_TOKENS", "OBJGW_READ_TOKENS", "OBJGW_NODE_PORT"])
@pytest.mark.parametrize("text", ["", " ", "\n\t\n"])
def test_a_file_that_holds_nothing_stops_the_start(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "setting").write_text(text)
    assert_stops({f"{name}_FILE": str(tmp_path / "setting")}, f"{name}_FILE")


def test_a_setting_that_is_a_variable_and_a_file_at_once_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "setting").write_text("second")
    for name in sorted(variables()):
        assert "second" not in assert_stops(
            {name: "9", f"{name}_FILE": str(tmp_path / "setting")}, name, f"{name}_FILE"
        )


def test_a_token_that_may_write_and_may_only_read_stops_the_start() -> None:
    tokens = {"OBJGW_TOKENS": "first second", "OBJGW_READ_TOKENS": "third second"}
    assert "second" not in assert_stops(tokens, *tokens)


def test_an_empty_variable_counts_as_unset_and_one_of_the_image_or_of_compose_is_let_be() -> None:
    env = {f"{name}{end}": "" for name in (*variables(), *MISSPELT) for end in ("", "_FILE")}
    env |= dict.fromkeys(("OBJGW_USER", "OBJGW_IMAGE", "OBJGW_NODE_IMAGE"), "65534")
    done = python("import objgw; assert objgw.app.settings == objgw.Settings()", env)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_gives_each_setting_the_value_that_a_variable_gives_it(tmp_path: Path) -> None:
    values = {
        "OBJGW_LOG_FORMAT": "json",
        "OBJGW_ACCESS_LOG": "off",
        "OBJGW_PAGE": "off",
        "OBJGW_TOKENS": "first\nsecond",
    }
    wanted = dict.fromkeys(variables(), "777") | values
    for name, value in wanted.items():
        (tmp_path / name).write_text(f"{value}\n")
    script = (
        "import objgw, gateway.status.logs as logs\n"
        "print(objgw.app.settings, objgw.app.settings.tokens, logs.log_settings(objgw.app.settings))"
    )
    by_file = python(script, {f"{name}_FILE": str(tmp_path / name) for name in wanted})
    assert "JsonFormatter" in by_file.stdout
    assert by_file.stdout == python(script, wanted).stdout


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-stack.yml"])
def test_a_compose_file_hands_over_every_setting_and_the_likeliest_slips(file: str) -> None:
    settings = variables()
    files = {f"{name}_FILE" for name in settings}
    if file == "docker-stack.yml":
        # It would be refused beside the variable, which has a default there.
        files.remove("OBJGW_CLIENT_CONNECTIONS_FILE")
    slips = {"OBJGW_TOKEN", "OBJGW_TOKEN_FILE", "OBJGW_READ_TOKEN", "OBJGW_READ_TOKEN_FILE"}
    assert handed_over(file) == settings | files | slips | {"WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"}


def test_the_documents_have_every_setting_and_all_files_have_one_image_of_nodes() -> None:
    settings = (CHECKOUT / "docs" / "operating.md").read_text()
    assert {name for name in variables() if f"| `{name}` |" not in settings} == set()
    chosen = set(re.findall(r"^\| `(OBJGW_\w+)` \|", (CHECKOUT / "README.md").read_text(), re.MULTILINE))
    assert chosen < variables()
    images = {
        image
        for file in ("docs/security.md", "docker-compose.yml", "docker-stack.yml")
        for image in re.findall(r"[\w./]*minio/minio:[\w.-]+", (CHECKOUT / file).read_text())
    }
    assert images == {MINIO}
    assert MINIO.startswith("quay.io/")


def test_objgwctl_gives_its_help_also_with_a_setting_that_can_not_be_used_and_names_it_only_where_it_matters() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OBJGW_NODE_PORT": "abc"}
        command = [sys.executable, "objgwctl.py", *arguments]
        return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)

    given = run("--help")
    assert (given.returncode, given.stderr) == (0, "")
    refused = run("nodes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "objgwctl: OBJGW_NODE_PORT='abc' is not a number\n"


# ---------------------------------------------------------------------------------------------------------------------
# The image
# ---------------------------------------------------------------------------------------------------------------------
def test_the_image_stops_with_a_plain_line_where_a_setting_can_not_be_used(stack: Stack) -> None:
    gateway = stack.add_gateway({"OBJGW_NODE_PORT": "abc"}, start=False)
    gateway.container.start()
    assert gateway.container.wait(timeout=20)["StatusCode"] != 0
    named = [line for line in gateway.logs().splitlines() if "OBJGW_NODE_PORT" in line]
    assert len(named) == 1
    assert "'abc'" in named[0]
    assert "Traceback" not in gateway.logs()


def test_the_image_becomes_healthy_and_stops_cleanly_though_a_client_keeps_its_connection(stack: Stack) -> None:
    stack.add_node("1")
    gateway = stack.add_gateway(healthcheck=None)  # the image's
    gateway.wait_ready()

    def health() -> str:
        gateway.container.reload()
        return str(gateway.container.attrs["State"]["Health"]["Status"])

    eventually(lambda: health() == "healthy")
    with socket.create_connection((gateway.address, 3000)) as idle:
        idle.sendall(b"GET /object/abc HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 404"
        began = time.monotonic()
        gateway.container.stop(timeout=20)
        assert time.monotonic() - began < 15
    gateway.container.reload()
    assert gateway.container.attrs["State"]["ExitCode"] == 0
    assert "Traceback" not in gateway.logs()


def test_a_request_that_is_under_way_when_the_gateway_is_told_to_stop_is_finished(stack: Stack) -> None:
    node = stack.add_node("1")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    id = random_id()

    def body() -> Iterator[bytes]:
        yield b"before "
        gateway.container.kill("SIGTERM")
        eventually(gateway.refuses)
        yield b"and after"

    assert gateway.put(id, body()).status == 200
    assert gateway.container.wait(timeout=20)["StatusCode"] == 0
    assert node.client().get_object(BUCKET, id).read() == b"before and after"


def test_the_image_holds_only_what_runs(gateway: Gateway) -> None:
    there = gateway.read("sh", "-c", "ls -A; pip list 2>/dev/null || true")
    assert "objgw.py" in there
    for unwanted in ("test_", "conftest", ".git", "README", "pytest", "webtest"):
        assert unwanted not in there
