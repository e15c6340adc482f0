"""The contract as a client sees it: what a PUT stores is what a GET returns, on the node that the
id says.

These run against real MinIO containers, through real sockets; tests/harness makes them. The fixture
`gateway` is a gateway with three nodes (`shared`) that no test changes; `faulty` is a stack whose
faults are undone after each test; `stack` is an empty one of the test's own. Where a node is at
fault, `steady` uses ids of the other nodes all the while: each request for them must succeed. What
more is promised is in tests/stack, a file for each subject.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import secrets
import time
from collections.abc import Iterable
from functools import partial

import pytest

from gateway.links import make_link
from tests.harness.checks import (
    METHODS,
    PROMPT,
    assert_only_own_ids_reached,
    assert_unavailable_for_all_methods,
    has,
    store,
)
from tests.harness.engine import BUCKET
from tests.harness.fixtures import LINK_KEY
from tests.harness.gateway import Gateway
from tests.harness.http import KIB, MIB
from tests.harness.stack import Stack
from tests.harness.waiting import always, eventually, owner, random_id, together

# --------------------------------------------------------------------------------------------------
# Ids and paths
# --------------------------------------------------------------------------------------------------

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
def test_a_good_path_stores_and_returns_under_its_decoded_id(
    shared: Stack, gateway: Gateway, path: str
) -> None:
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


@pytest.mark.parametrize(
    "path", ["/object/a b", "/object/abc\t", "/object/a\x00b", "/object/abc\x7f", "object/abc"]
)
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
    answer = gateway.request(
        method, "/object/abc", b"body" if method in ("POST", "PATCH") else None
    )
    assert answer.status == 405
    assert sorted(answer.headers["Allow"].split(", ")) == ["DELETE", "GET", "HEAD", "PUT"]
    assert answer.problem["title"] == "Method Not Allowed"


# --------------------------------------------------------------------------------------------------
# Objects
# --------------------------------------------------------------------------------------------------

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
        leaked = [
            name
            for name in answer.headers
            if name.lower().startswith(("x-amz", "x-minio", "x-ratelimit"))
        ]
        assert not leaked


@pytest.mark.parametrize("size", [0, 1, 64 * KIB + 1, 12 * MIB])
def test_an_upload_without_a_length_is_stored_like_any_other(gateway: Gateway, size: int) -> None:
    id, body = random_id(), secrets.token_bytes(size)
    put = gateway.put(id, (body[start : start + 100_000] for start in range(0, size, 100_000)))
    assert (put.status, put.headers["ETag"]) == (200, f'"{hashlib.md5(body).hexdigest()}"')
    got = gateway.get(id)
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, body, str(size))


def test_a_put_replaces_the_whole_object_and_its_content_type(
    shared: Stack, gateway: Gateway
) -> None:
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


def test_the_list_has_what_is_stored_sorted_by_id_in_pages_and_as_lines(gateway: Gateway) -> None:
    prefix, body = f"list{secrets.token_hex(6)}", b"an object"
    ids = sorted(f"{prefix}{end}" for end in "09AZaz")
    for id in ids:
        assert gateway.put(id, body).status == 200
    gateway.delete(ids.pop())
    first = json.loads(gateway.request("GET", f"/objects?prefix={prefix}&limit=3").body)
    assert first["next"] == ids[2]
    rest = json.loads(gateway.request("GET", f"/objects?prefix={prefix}&after={ids[2]}").body)
    assert rest["next"] is None
    objects = first["objects"] + rest["objects"]
    assert [each["id"] for each in objects] == ids
    for each in objects:
        assert (each["size"], each["etag"]) == (len(body), gateway.get(each["id"]).headers["ETag"])
        assert each["modified"].endswith("Z")
    lines = gateway.request(
        "GET", f"/objects?prefix={prefix}", headers={"Accept": "application/x-ndjson"}
    )
    assert [json.loads(line) for line in lines.body.splitlines()] == objects


def test_one_connection_serves_requests_of_all_kinds_and_outcomes(gateway: Gateway) -> None:
    connection, id, body = (
        http.client.HTTPConnection(gateway.address, 3000, timeout=30),
        random_id(),
        b"x" * 70_000,
    )
    statuses = []
    for method, path in [
        ("GET", id), ("PUT", id), ("GET", "a.b"), ("HEAD", id), ("GET", id), ("POST", id), ("DELETE", id), ("HEAD", id),  # noqa: E501
    ]:  # fmt: skip
        connection.request(method, f"/object/{path}", body if method in ("PUT", "POST") else None)
        response = connection.getresponse()
        received = response.read()
        statuses.append(response.status)
        assert (received == body) == (method == "GET" and response.status == 200)
    connection.close()
    assert statuses == [404, 200, 400, 200, 200, 405, 204, 404]


# --------------------------------------------------------------------------------------------------
# Links that expire
# --------------------------------------------------------------------------------------------------


def test_a_link_stores_and_reads_one_object_until_it_expires(gateway: Gateway) -> None:
    id, body, hour = random_id(), secrets.token_bytes(1000), int(time.time()) + 3600
    store, read = make_link(LINK_KEY, id, hour, 1000), make_link(LINK_KEY, id, hour)
    assert gateway.request("PUT", store, body).status == 200
    assert gateway.request("PUT", store, body + b"x").status == 413
    assert gateway.request("GET", read).body == body
    assert gateway.request("HEAD", read).headers["Content-Length"] == "1000"
    other, expired = make_link(LINK_KEY, id[1:], hour), make_link(LINK_KEY, id, 1)
    for method, link, reason in (
        ("GET", expired, "expired at 1970-01-01T00:00:01Z"),
        ("GET", other.replace(id[1:], id), "signature isn't that of"),
        ("GET", store, "A link for GET has"),
        ("PUT", read, "A link for PUT has"),
        ("DELETE", read, "no links for DELETE"),
    ):
        answer = gateway.request(method, link, b"other" if method == "PUT" else None)
        assert (answer.status, reason in answer.problem["detail"]) == (403, True), link
    assert gateway.get(id).body == body


# --------------------------------------------------------------------------------------------------
# Which node
# --------------------------------------------------------------------------------------------------


def put_all(gateway: Gateway, objects: dict[str, bytes]) -> None:
    """Stores the objects, several at a time."""
    answers = together(partial(gateway.put, id, body) for id, body in objects.items())
    assert [answer.status for answer in answers] == [200] * len(objects)


def get_all(gateway: Gateway, ids: Iterable[str]) -> dict[str, bytes]:
    """What is returned for the ids, read several at a time."""
    ids = list(ids)
    return {
        id: answer.body
        for id, answer in zip(ids, together(partial(gateway.get, id) for id in ids), strict=True)
    }


@pytest.fixture(scope="module")
def stored(shared: Stack) -> dict[str, bytes]:
    """300 objects that were put through the shared gateway."""
    objects = {random_id(): secrets.token_bytes(16) for _ in range(300)}
    put_all(shared.gateways[0], objects)
    return objects


def test_300_ids_are_each_on_their_owner_only_and_shared_out_evenly(
    shared: Stack, stored: dict[str, bytes]
) -> None:
    for node in shared.nodes:
        mine = node.ids() & stored.keys()
        assert mine == {id for id in stored if shared.owner(id) is node}
        assert 0.20 * len(stored) <= len(mine) <= 0.47 * len(stored)


def test_gateways_beside_each_other_restarted_and_with_four_workers_have_one_mapping(
    shared: Stack, stored: dict[str, bytes]
) -> None:
    other = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    other.wait_ready()
    assert get_all(other, stored) == stored

    changed = {id: secrets.token_bytes(16) for id in stored}
    put_all(other, changed)
    other.restart()
    other.wait_ready()
    for gateway in (shared.gateways[0], other):
        assert get_all(gateway, changed) == changed
    stored.update(changed)
    for node in shared.nodes:
        assert node.ids() & stored.keys() == {id for id in stored if shared.owner(id) is node}


def test_one_two_five_and_twelve_nodes_each_hold_what_the_formula_says(stack: Stack) -> None:
    counts = (1, 2, 5, 12)  # a node's name ends in the counts that it is one of: -of5-of12
    stack.add_nodes(
        f"{n:02}{''.join(f'-of{count}' for count in counts if n <= count)}-" for n in range(1, 13)
    )
    markers = {count: f"-of{count}-" if count < 12 else stack.marker for count in counts}
    buckets = {
        count: f"{BUCKET}-of{count}" for count in counts
    }  # so that no two gateways have a layout in common
    gateways = together(
        partial(
            stack.add_gateway, {"OBJGW_NODE_NAME": markers[count], "OBJGW_BUCKET": buckets[count]}
        )
        for count in counts
    )
    for count, gateway in zip(counts, gateways, strict=True):
        chosen = {node.name: node for node in stack.nodes if markers[count] in node.name}
        assert len(chosen) == count
        ids = [random_id() for _ in range(300)]
        gateway.wait_ready(ids[:60])
        put_all(gateway, {id: id.encode() for id in ids})
        assert all(has(gateway, id) for id in ids[:60])
        for node in stack.nodes:
            mine = (
                {id for id in ids if owner(id, chosen) == node.name}
                if node.name in chosen
                else set()
            )
            assert node.ids(buckets[count]) == mine


# --------------------------------------------------------------------------------------------------
# Nodes that come, go and change
# --------------------------------------------------------------------------------------------------


def test_ids_of_a_stopped_node_get_503_until_it_is_back_and_all_others_are_untouched(
    faulty: Stack,
) -> None:
    gateway, (lost, *others) = faulty.gateways[0], faulty.nodes
    ids = store(faulty, faulty.nodes)
    with faulty.steady(gateway, [ids[node] for node in others]):
        lost.stop()
        began = time.monotonic()
        assert_unavailable_for_all_methods(gateway, ids[lost])
        assert time.monotonic() - began < 15
        always(
            lambda: gateway.get(ids[lost]).status == 503, seconds=3
        )  # renewals of the node list don't change it
        lost.start()
        eventually(has, gateway, ids[lost], within=PROMPT)
        assert gateway.put(ids[lost], b"new").status == 200
    assert faulty.holders(ids[lost]) == [lost]
    assert_only_own_ids_reached(faulty)


def test_ids_of_a_removed_node_get_503_until_it_is_made_anew_and_all_others_are_untouched(
    faulty: Stack,
) -> None:
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
def test_a_node_made_anew_is_found_without_a_restart_of_the_gateway(
    faulty: Stack, change: str
) -> None:
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


def test_while_all_nodes_are_stopped_every_id_gets_503_and_all_is_good_once_they_are_back(
    faulty: Stack,
) -> None:
    gateway, ids = faulty.gateways[0], store(faulty, faulty.nodes)
    together([node.stop for node in faulty.nodes])
    for id in ids.values():
        assert_unavailable_for_all_methods(gateway, id)
    assert gateway.get("no-id").status == 400
    together([node.start for node in faulty.nodes])
    eventually(lambda: all(has(gateway, id) for id in ids.values()), within=PROMPT)
    assert_only_own_ids_reached(faulty)
