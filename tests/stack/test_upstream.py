"""One request is one request upstream, by the nodes' own count."""

from __future__ import annotations

import pytest

from tests.harness.engine import Call
from tests.harness.http import MIB
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

ONE_REQUEST: dict[
    str, tuple[str, bytes | list[bytes] | None, str, int]
] = {  # method, body, MinIO's name, status
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
    # The first look at a node that was made anew may still make the bucket.
    assert [call for call in calls if call.api != "PutBucket"] == [Call(api, id, status)] * 3


def test_renewing_the_node_list_asks_the_nodes_nothing(stack: Stack) -> None:
    relay = stack.add_relay()
    relay.events = False  # so that the list is read again and again
    node = stack.add_node("1")
    gateway = stack.add_gateway({"OBJGW_DISCOVERY_SECONDS": "0.1"}, relay=relay)
    gateway.wait_ready()
    assert gateway.put(random_id()).status == 200

    def calls() -> list[Call]:
        """But for those that make the bucket: the first look at the node may still do so, too."""
        found = node.calls()
        assert [call.api for call in found].count("PutBucket") <= 2
        return [call for call in found if call.api != "PutBucket"]

    before, requests = calls(), relay.requests
    eventually(lambda: relay.requests > requests + 20)
    assert calls() == before
