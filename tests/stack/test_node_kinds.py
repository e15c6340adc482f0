"""Nodes whose ETags are no MD5s: objects move from them and to them as they were stored.

MinIO gives random ETags where it encrypts, and with `--no-compat`.
"""

from __future__ import annotations

import base64
import secrets
import time

import pytest

from gateway.nodes.layout import HOLD_SECONDS
from tests.harness.gateway import Gateway
from tests.harness.layout import (
    ABSENT,
    Model,
    assert_at_home,
    let_in,
    rebalance,
    record_of,
    take_out,
    wait_in_force,
)
from tests.harness.listing import stream
from tests.harness.node import Node
from tests.harness.objects import Seen, assert_same, change_some, seen, store_all_sizes
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

PLAIN, ENCRYPTING, NO_COMPAT = "plain", "encrypting", "no-compat"
KINDS = {
    "encrypting": ([ENCRYPTING, ENCRYPTING], ENCRYPTING),
    "no-compat": ([NO_COMPAT, NO_COMPAT], NO_COMPAT),
    "mixed": ([PLAIN, NO_COMPAT], ENCRYPTING),
}


def add_node(stack: Stack, suffix: str, kind: str) -> Node:
    user, password = f"user{secrets.token_hex(6)}", f"pass{secrets.token_hex(12)}"
    env = {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password}
    if kind == ENCRYPTING:
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        env |= {"MINIO_KMS_SECRET_KEY": f"key:{key}", "MINIO_KMS_AUTO_ENCRYPTION": "on"}
    command = ["minio", "server", "--no-compat", "/data"] if kind == NO_COMPAT else None
    return stack.add_node(suffix, user, password, env, entrypoint=command)


@pytest.mark.parametrize(("old", "new"), KINDS.values(), ids=KINDS)
def test_objects_move_between_nodes_whose_etags_are_no_md5s_as_they_were_stored(
    stack: Stack, old: list[str], new: str
) -> None:
    for suffix, kind in zip("12", old, strict=True):
        add_node(stack, suffix, kind)
    gateway = stack.add_gateway()
    gateway.wait_ready()
    before = store_all_sizes(gateway)
    assert_listed(gateway, before)

    owners = {id: stack.owner(id) for id in before}
    two, third = list(stack.nodes), add_node(stack, "3", new)
    wait_in_force(gateway, stack.nodes)
    deleted, touched = change_some(gateway, before, lambda id: stack.owner(id) is not owners[id])
    changed = seen(gateway, before)
    untouched = set(before) - touched
    assert {id: changed[id] for id in untouched} == {id: before[id] for id in untouched}
    assert_listed(gateway, changed)
    models = [Model(id, ABSENT if id in deleted else 1) for id in before]

    report, held = gateway.ask_ctl("check").report, {id for n in stack.nodes for id in n.ids()}
    assert 0 < report["markers"] <= len(deleted)  # an id that keeps its owner needs none
    assert report["objects"] == len(held) - report["markers"]
    rebalance(gateway)
    assert_at_home(gateway, models, stack.nodes)
    moved = seen(gateway, before)
    assert_same(moved, changed)
    assert_listed(gateway, moved)
    for id in deleted:
        assert gateway.put(id, b"once more", headers={"If-None-Match": "*"}).status == 200
        assert gateway.delete(id).status == 204

    take_out(gateway, third)  # and back
    wait_in_force(gateway, two, [third])
    rebalance(gateway)
    assert_at_home(gateway, models, two, [third])
    assert_same(seen(gateway, before), changed)
    let_in(gateway, third)


def test_nodes_that_encrypt_do_not_settle_by_themselves_while_a_tombstone_is_left(
    stack: Stack,
) -> None:
    add_node(stack, "1", ENCRYPTING)
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [random_id() for _ in range(30)]
    for id in ids:
        assert gateway.put(id, b"to be deleted").status == 200
    second = add_node(stack, "2", ENCRYPTING)
    names = [node.name for node in stack.nodes]

    def switched() -> bool:
        newest = record_of(second).memberships[0]
        return list(newest.names) == names and time.time() > newest.since + 2 * HOLD_SECONDS

    eventually(switched)
    for id in ids:
        assert gateway.delete(id).status == 204
    assert second.ids()  # tombstones of those that have another owner now, and nothing else
    assert {id for node in stack.nodes for id in node.ids()} == second.ids()

    def listings() -> int:
        return sum(call.api == "ListObjectsV1" for call in second.calls())

    before = listings()
    eventually(lambda: listings() >= before + 2)  # the gateway has looked, and once more
    assert gateway.layout()["settled"] is False
    rebalance(gateway)
    assert second.ids() == set()
    assert {gateway.put(id, headers={"If-None-Match": "*"}).status for id in ids} == {200}


def assert_listed(gateway: Gateway, shown: Seen) -> None:
    """The list says of each of these objects what a GET says, and has none that isn't there."""
    listed = {
        each["id"]: (each["size"], each["etag"]) for each in stream(gateway) if each["id"] in shown
    }
    assert listed == {
        id: (len(body), headers["etag"])
        for id, (status, headers, body) in shown.items()
        if status == 200
    }
