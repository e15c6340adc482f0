"""Bodies of all sizes come back as they were, in constant memory."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import GIB, MIB, pattern
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

SIZES = [0, 1, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 5 * MIB + 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_bodies_of_any_size_come_back_as_they_were(
    gateway: Gateway, size: int, chunks: bool
) -> None:
    id, body = random_id(), pattern(size)
    sent = (body[at : at + 99_999] for at in range(0, size, 99_999)) if chunks else body
    put, answer, seen = gateway.put(id, sent), gateway.get(id), gateway.head(id)
    assert put.status == answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
    assert put.headers["ETag"] == answer.headers["ETag"] == seen.headers["ETag"]
    assert seen.headers["Content-Length"] == str(size)


BLOCK = pattern(MIB)


def blocks(size: int, digest: Any) -> Iterator[bytes]:
    """So many bytes in numbered blocks; `digest` gets them too."""
    for n in range(size // MIB):
        block = n.to_bytes(8) + BLOCK[8:]
        digest.update(block)
        yield block


def upload(gateway: Gateway, id: str, size: int, headers: Mapping[str, str]) -> bytes:
    """Upload so many bytes in constant memory; their digest."""
    digest = hashlib.sha256()
    assert gateway.put(id, blocks(size, digest), headers=headers, timeout=300).status == 200
    return digest.digest()


def download(gateway: Gateway, id: str) -> tuple[int, bytes]:
    """Download in constant memory; size and digest."""
    connection, size, digest = (
        http.client.HTTPConnection(gateway.address, 3000, timeout=300),
        0,
        hashlib.sha256(),
    )
    connection.request("GET", f"/object/{id}")
    with connection.getresponse() as response:
        while block := response.read(MIB):
            size += len(block)
            digest.update(block)
    connection.close()
    return size, digest.digest()


@pytest.fixture(scope="module")
def small(shared: Stack) -> Gateway:
    """A gateway whose container is killed when it takes more than 200 MiB."""
    gateway = shared.add_gateway(start=False)
    gateway.container.update(mem_limit="200m", memswap_limit="200m")
    gateway.start()
    gateway.wait_up()
    gateway.wait_ready()
    return gateway


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_300_mib_pass_through_a_gateway_of_200_mib(
    shared: Stack, small: Gateway, chunks: bool
) -> None:
    id, size = random_id(), 300 * MIB
    digest = upload(small, id, size, {} if chunks else {"Content-Length": str(size)})
    assert download(small, id) == (size, digest)
    shared.owner(id).client().remove_object(BUCKET, id)


@pytest.mark.large
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_6_gib_pass_through_a_gateway_of_200_mib(
    shared: Stack, small: Gateway, chunks: bool
) -> None:
    id, size = random_id(), 6 * GIB
    digest = upload(small, id, size, {} if chunks else {"Content-Length": str(size)})
    try:
        assert download(small, id) == (size, digest)
    finally:
        shared.owner(id).client().remove_object(BUCKET, id)
