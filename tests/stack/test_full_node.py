"""A node without room: 507, and the old object stays."""

from __future__ import annotations

import minio
from minio.credentials.providers import StaticProvider

from tests.harness.engine import BUCKET
from tests.harness.http import MIB, code, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually


def test_a_full_disk_and_a_used_up_quota_are_507_and_leave_the_old_object(stack: Stack) -> None:
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=40m"}
    stack.lab.docker.volumes.create(f"{stack.marker}-1", labels=stack.labels, driver_opts=small)
    full, limited = stack.add_nodes("12")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = {node.name: store(gateway, id=stack.id_of(node)) for node in stack.nodes}
    keys = StaticProvider(limited.user, limited.password)
    admin = minio.MinioAdmin(endpoint=f"{limited.address}:9000", credentials=keys, secure=False)
    admin.bucket_quota_set(BUCKET, 5 * MIB)

    eventually(lambda: code(gateway.put(ids[limited.name], bytes(10 * MIB))) == 507)
    assert gateway.get(ids[limited.name]).body == b"an object"
    filled = [stack.id_of(full) for _ in range(4)]
    answers = [gateway.put(id, bytes(12 * MIB)) for id in filled]
    assert {code(answer) for answer in answers} == {200, 507}
    assert code(gateway.put(ids[full.name], bytes(12 * MIB))) == 507
    assert gateway.get(ids[full.name]).body == b"an object"
    assert " 502 " not in gateway.logs()
