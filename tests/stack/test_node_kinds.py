"""Nodes whose ETags are no MD5s: objects move from them and to them as they were stored.

MinIO gives random ETags where it encrypts, and with `--no-compat`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence

import pytest

from gateway.nodes.layout import EXPIRING_TOMBSTONE, HOLD_SECONDS, TOMBSTONE
from tests.harness.gateway import Answer, Gateway
from tests.harness.http import MIB, code
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
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

SINGLE = 5 * MIB  # bytes that are moved with one request, at most
# Two sizes are those of tombstones: an object of such a size is an object.
SIZES = [0, 1, len(TOMBSTONE), len(EXPIRING_TOMBSTONE), 4096, 70_000, SINGLE, SINGLE + 1, 12 * MIB]
SMALL = [size for size in SIZES if size < MIB]
HEADERS = {
    "Content-Type": "text/x-first; charset=utf-8",
    "Cache-Control": "max-age=60",
    "Content-Disposition": 'attachment; filename="a b.txt"',
    "x-amz-meta-note": "kept as  it is",
}
OF_AN_ANSWER = ("date", "x-request-id", "connection", "server-timing", "age")

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


def checksum(number: int, body: bytes) -> Mapping[str, str]:
    """Each third object is stored with one of these checksums, or with none."""
    sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return [{}, {"x-amz-checksum-sha256": sha256}, {"Content-MD5": md5}][number % 3]


def seen(gateway: Gateway, ids: Sequence[str]) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """All that a client gets of these objects, but for what is about the answer itself."""

    def shown(answer: Answer) -> tuple[int, dict[str, str], bytes]:
        kept = {name.lower(): value for name, value in answer.headers.items()}
        return (
            answer.status,
            {name: kept[name] for name in kept if name not in OF_AN_ANSWER},
            answer.body,
        )

    return {id: shown(gateway.get(id)) for id in ids}


@pytest.mark.parametrize(("old", "new"), KINDS.values(), ids=KINDS)
def test_objects_move_between_nodes_whose_etags_are_no_md5s_as_they_were_stored(
    stack: Stack, old: list[str], new: str
) -> None:
    for suffix, kind in zip("12", old, strict=True):
        add_node(stack, suffix, kind)
    gateway = stack.add_gateway()
    gateway.wait_ready()
    bodies = {random_id(): secrets.token_bytes(size) for size in SMALL * 12}
    bodies |= {random_id(): secrets.token_bytes(size) for size in SIZES * 2}
    for number, (id, body) in enumerate(bodies.items()):
        assert gateway.put(id, body, headers={**HEADERS, **checksum(number, body)}).status == 200
    before = seen(gateway, list(bodies))
    assert {id: body for id, (_, _, body) in before.items()} == bodies
    assert_listed(gateway, before)

    owners = {id: stack.owner(id) for id in bodies}
    two, third = list(stack.nodes), add_node(stack, "3", new)
    wait_in_force(gateway, stack.nodes)
    # First those that move, since of what is deleted only they leave tombstones.
    small = sorted(
        (id for id in bodies if len(bodies[id]) < MIB),
        key=lambda id: stack.owner(id) is owners[id],
    )
    gone, replaced, swapped = small[:12], small[12:24], small[24:36]
    for id in gone:
        assert gateway.delete(id).status == 204
    for number, id in enumerate(gone[:4]):  # made again onto the tombstone
        assert gateway.put(id, b"again%d" % number, headers={"If-None-Match": "*"}).status == 200
    for id in replaced:
        assert gateway.put(id, TOMBSTONE, headers=HEADERS).status == 200
        assert code(gateway.put(id, b"", headers={"If-None-Match": "*"})) == 412
    for id in swapped:
        etag = before[id][1]["etag"]
        assert code(gateway.put(id, b"no", headers={"If-Match": '"another"'})) == 412
        assert gateway.put(id, b"swapped", headers={"If-Match": etag}).status == 200
    changed = seen(gateway, list(bodies))
    untouched = set(bodies) - {*gone, *replaced, *swapped}
    assert {id: changed[id] for id in untouched} == {id: before[id] for id in untouched}
    assert_listed(gateway, changed)
    models = [Model(id, ABSENT if id in gone[4:] else 1) for id in bodies]

    report, held = gateway.ask_ctl("check").report, {id for n in stack.nodes for id in n.ids()}
    assert 0 < report["markers"] <= len(gone) - 4  # an id that keeps its owner needs none
    assert report["objects"] == len(held) - report["markers"]
    rebalance(gateway)
    assert_at_home(gateway, models, stack.nodes)
    moved = seen(gateway, list(bodies))
    assert_same(moved, changed)
    assert_listed(gateway, moved)
    for id in gone[4:]:
        assert gateway.put(id, b"once more", headers={"If-None-Match": "*"}).status == 200
        assert gateway.delete(id).status == 204

    take_out(gateway, third)  # and back
    wait_in_force(gateway, two, [third])
    rebalance(gateway)
    assert_at_home(gateway, models, two, [third])
    assert_same(seen(gateway, list(bodies)), changed)
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


def assert_listed(gateway: Gateway, shown: Mapping[str, tuple[int, dict[str, str], bytes]]) -> None:
    """The list says of each of these objects what a GET says, and has none that isn't there."""
    listed = {
        each["id"]: (each["size"], each["etag"]) for each in stream(gateway) if each["id"] in shown
    }
    assert listed == {
        id: (len(body), headers["etag"])
        for id, (status, headers, body) in shown.items()
        if status == 200
    }


def assert_same(
    now: dict[str, tuple[int, dict[str, str], bytes]],
    before: dict[str, tuple[int, dict[str, str], bytes]],
) -> None:
    """Of a large object the ETag may have changed, where a node encrypts; of others nothing has."""
    for id, (status, headers, body) in before.items():
        expected = dict(headers)
        if len(body) > SINGLE and "-" in now[id][1]["etag"]:
            expected["etag"] = now[id][1]["etag"]
        assert now[id] == (status, expected, body), id
