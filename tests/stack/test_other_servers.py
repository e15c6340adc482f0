"""Servers of S3 of other makes than MinIO's: the contract, what they decide, and a growth.

It is collected for those whose image is on this machine (`tests.harness.servers`). docs/servers.md
has what was found with which release.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from test_objgw import (  # noqa: F401 - the contract, which runs here again with this `shared`
    stored,
    test_300_ids_are_each_on_their_owner_only_and_shared_out_evenly,
    test_a_bad_path_is_refused_without_a_redirect_and_stores_nothing,
    test_a_good_path_stores_and_returns_under_its_decoded_id,
    test_a_put_replaces_the_whole_object_and_its_content_type,
    test_a_request_line_that_is_no_http_is_refused_and_stores_nothing,
    test_an_object_that_was_never_put_is_404,
    test_an_upload_without_a_length_is_stored_like_any_other,
    test_another_method_is_405_and_says_which_are_allowed,
    test_delete_is_204_whether_or_not_the_object_was_there,
    test_gateways_beside_each_other_restarted_and_with_four_workers_have_one_mapping,
    test_one_connection_serves_requests_of_all_kinds_and_outcomes,
    test_what_is_put_is_what_get_returns_with_its_headers,
)
from tests.harness.engine import Lab
from tests.harness.fixtures import MAKES, SHARED
from tests.harness.gateway import Gateway, put_file
from tests.harness.http import code
from tests.harness.layout import ABSENT, Model, assert_at_home, rebalance, wait_in_force
from tests.harness.objects import assert_same, change_some, seen, store_all_sizes
from tests.harness.servers import Make, OtherStack
from tests.harness.stack import Stack
from tests.harness.waiting import random_id, together
from tests.stack.test_cut_transfers import (  # noqa: F401 - the same
    test_an_upload_that_is_cut_short_leaves_the_old_object_whole,
)
from tests.stack.test_node_list import NODES_FILE

each_make = pytest.mark.parametrize("make", MAKES, ids=lambda make: make.name)


@pytest.fixture(scope="module", params=MAKES, ids=lambda make: make.name)
def shared(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Three nodes of another make and a gateway with two workers, which no test changes."""
    stack = OtherStack(lab, request.param)
    SHARED.append(stack)
    try:
        stack.add_others("123")
        gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"})
        gateway.wait_ready()
        gateway.wait_workers(["/health"], lambda answer: b'"stores_cut": null' not in answer.body)
        yield stack
    finally:
        SHARED.remove(stack)
        stack.close()


def health(gateway: Gateway) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads(gateway.request("GET", "/health").body)["nodes"]
    return nodes


def test_what_the_server_ignores_is_shown_and_refused_and_all_else_is_decided(
    gateway: Gateway,
) -> None:
    ignored = {name for node in health(gateway) for name in node["ignores"]}
    report = gateway.layout()
    assert {name for node in report["nodes"] for name in node["ignores"]} == ignored
    body, id = b"a body", random_id()
    assert code(gateway.put(id, body, headers={"If-None-Match": "*"})) == 200
    etag = gateway.get(id).headers["ETag"]
    wrong = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
    for headers, status in {
        ("If-None-Match", "*"): 412,
        ("If-Match", '"another"'): 412,
        ("If-Match", "*"): 501 if "if-match: *" in ignored else 200,
        ("If-Match", etag): 200,
        ("x-amz-checksum-sha256", wrong): 501 if "x-amz-checksum-sha256" in ignored else 400,
        ("Content-MD5", wrong[:22] + "=="): 501 if "content-md5" in ignored else 400,
    }.items():
        assert code(gateway.put(id, body, headers=dict([headers]))) == status, headers
        assert gateway.get(id).body == body
    missing = random_id()
    assert code(gateway.put(missing, body, headers={"If-Match": etag})) == 412
    assert gateway.get(missing).status == 404
    for conditions, status in {
        ("If-None-Match", etag): 304,
        ("If-Match", '"another"'): 412,
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"): 200,
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"): 412,
    }.items():
        assert code(gateway.get(id, headers=dict([conditions]))) == status, conditions
    described = {"Content-Type": "text/x-a", "x-amz-meta-note": "kept"}
    assert gateway.put(id, body, headers=described).status == 200
    part = gateway.get(id, headers={"Range": "bytes=2-3"})
    assert described.items() <= dict(part.headers).items()
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"bo", "bytes 2-3/6")
    assert code(gateway.get(id, headers={"Range": "bytes=6-"})) == 416


def test_of_30_racing_writes_on_one_condition_one_succeeds(gateway: Gateway) -> None:
    id = random_id()

    def race(headers: dict[str, str]) -> list[int]:
        bodies = [secrets.token_bytes(20) for _ in range(30)]
        done = together(partial(gateway.put, id, body, headers=headers) for body in bodies)
        return sorted(code(answer) for answer in done)

    assert race({"If-None-Match": "*"}) == [200, *[412] * 29]
    for _ in range(3):
        assert race({"If-Match": gateway.get(id).headers["ETag"]}) == [200, *[412] * 29]


@each_make
def test_two_nodes_become_three_and_every_object_is_as_it_was_stored(lab: Lab, make: Make) -> None:
    stack = OtherStack(lab, make)
    try:
        stack.add_others("12")
        env = {"OBJGW_NODES_FILE": NODES_FILE, "OBJGW_DISCOVERY_SECONDS": "0.5"}
        gateway = stack.add_gateway(env, start=False)
        put_file(gateway.container, NODES_FILE, stack.lines.encode())
        gateway.start()
        gateway.wait_up()
        gateway.wait_ready()
        grow(stack, gateway)
    finally:
        stack.close()


def grow(stack: OtherStack, gateway: Gateway) -> None:
    before = store_all_sizes(gateway)
    owners = {id: stack.owner(id) for id in before}

    stack.add_others("3")
    put_file(gateway.container, NODES_FILE, stack.lines.encode())
    wait_in_force(gateway, stack.nodes)
    deleted, _ = change_some(gateway, before, lambda id: stack.owner(id) is not owners[id])
    changed = seen(gateway, before)
    assert all(code == 404 for code, _, _ in (changed[id] for id in deleted))
    moved = sum(stack.owner(id) is not owners[id] for id in before)
    assert moved > 0

    rebalance(gateway)
    assert_at_home(
        gateway, [Model(id, ABSENT if id in deleted else 1) for id in before], stack.nodes
    )
    assert_same(seen(gateway, before), changed, but=["last-modified"])
