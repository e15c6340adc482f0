"""How full nodes are; and one without room: 507, and the old object stays."""

from __future__ import annotations

import json
from typing import Any

import minio
from minio.credentials.providers import StaticProvider

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, code, store
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import health, samples, wait_healthy
from tests.harness.waiting import eventually

SMALL = 40 * MIB
# Four disks with erasure code, of which half is for parity, and a count of its objects that is made
# all the time.
FOUR_DISKS = """
export MINIO_CI_CD=1 MINIO_SCANNER_SPEED=fastest MINIO_SCANNER_CYCLE=1s  # four folders are disks
mkdir -p /data/1 /data/2 /data/3 /data/4 && exec minio server '/data/{1...4}'
"""
METRICS = {
    "size_bytes": "total_bytes",
    "free_bytes": "free_bytes",
    "objects": "objects",
    "objects_bytes": "bytes",
}
NO_ADMIN = "nobodys-admin"  # a user, and its secret key


def admin_of(node: Node) -> minio.MinioAdmin:
    keys = StaticProvider(node.user, node.password)
    return minio.MinioAdmin(
        endpoint=f"{node.address}:9000", credentials=keys, region=node.region, secure=False
    )


def data_usage(admin: Any) -> str:
    """What a node has counted; the client's function has no types."""
    told: str = admin.get_data_usage_info()
    return told


def used(gateway: Gateway) -> dict[str, Any]:
    """How full the nodes are, by their names, by /health."""
    return {node["name"]: node["usage"] for node in health(gateway)["nodes"]}


def add_small_node(stack: Stack) -> None:
    small = {"type": "tmpfs", "device": "tmpfs", "o": f"size={SMALL}"}
    stack.lab.docker.volumes.create(f"{stack.marker}-1", labels=stack.labels, driver_opts=small)
    stack.add_node("1")


def test_how_full_the_nodes_are_is_told_everywhere_as_far_as_they_tell_it(stack: Stack) -> None:
    add_small_node(stack)
    stack.add_node("2", entrypoint=["sh", "-c", FOUR_DISKS], region="eu-west-9")
    stack.add_node("3")
    small, four, silent = stack.nodes
    first = stack.add_gateway()
    first.wait_ready()
    id = store(first, id=stack.id_of(four))
    of_four, of_silent = admin_of(four), admin_of(silent)
    eventually(lambda: json.loads(data_usage(of_four))["objectsCount"])
    of_silent.user_add(NO_ADMIN, NO_ADMIN)
    of_silent.attach_policy(["readwrite"], user=NO_ADMIN)
    keys = {node: f"{node.user}:{node.password}" for node in (small, four)}
    keys[silent] = f"{NO_ADMIN}:{NO_ADMIN}"
    listed = "\n".join(
        f"{node.name}=http://{keys[node]}@{node.address}:9000?region={node.region}"
        for node in stack.nodes
    )
    gateway = stack.add_gateway({"OBJGW_NODES": listed, "WEB_CONCURRENCY": "2"}, volumes={})
    wait_healthy(gateway)
    (server,) = json.loads(of_four.info())["servers"]
    sizes = {small.name: SMALL, four.name: 2 * server["drives"][0]["totalspace"]}

    def told() -> dict[str, Any]:
        usage = used(gateway)
        assert {name for name in usage if usage[name]} == {*sizes}
        return usage

    usage = eventually(told)
    assert {name: usage[name]["total_bytes"] for name in sizes} == sizes
    assert 0.8 * SMALL < usage[small.name]["free_bytes"] < SMALL
    assert (usage[four.name]["objects"], usage[four.name]["bytes"]) == (
        1,
        len(gateway.get(id).body),
    )
    assert usage[four.name]["counted_at"]

    def shown(metric: str, key: str) -> bool:  # the other worker knows it a moment later
        values = {(name,): usage[name][key] for name in sizes if usage[name][key] is not None}
        return samples(gateway, f"objgw_node_{metric}") == values

    for metric, key in METRICS.items():
        eventually(shown, metric, key)
    refused = f"node {silent.name}: how full it is isn't known: its keys have no right"
    eventually(lambda: gateway.logs().count(refused) == 1)
    rows = {row["name"]: row["total_bytes"] for row in gateway.layout()["nodes"]}
    assert rows == {**sizes, silent.name: None}
    table = gateway.ctl("nodes").output
    assert "MiB of 40.0 MiB" in table
    assert "not known" in table


def test_a_full_disk_and_a_used_up_quota_are_507_and_leave_the_old_object(stack: Stack) -> None:
    add_small_node(stack)
    stack.add_node("2")
    full, limited = stack.nodes
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = {node.name: store(gateway, id=stack.id_of(node)) for node in stack.nodes}
    admin_of(limited).bucket_quota_set(BUCKET, 5 * MIB)

    eventually(lambda: code(gateway.put(ids[limited.name], bytes(10 * MIB))) == 507)
    assert gateway.get(ids[limited.name]).body == b"an object"
    filled = [stack.id_of(full) for _ in range(4)]
    answers = [gateway.put(id, bytes(12 * MIB)) for id in filled]
    assert {code(answer) for answer in answers} == {200, 507}
    assert code(gateway.put(ids[full.name], bytes(12 * MIB))) == 507
    assert gateway.get(ids[full.name]).body == b"an object"
    assert " 502 " not in gateway.logs()
