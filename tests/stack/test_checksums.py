"""Checksums: an upload that isn't what its checksum says stores nothing."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import code, pattern, store
from tests.harness.waiting import random_id


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "Content-MD5": lambda body: hashlib.md5(body).digest(),
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4),
    "x-amz-checksum-sha1": lambda body: hashlib.sha1(body).digest(),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
}

sized = pytest.mark.parametrize("size", [0, 5, 100_000])


@sized
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_an_upload_that_is_what_its_checksum_says_is_stored(
    gateway: Gateway, name: str, size: int, chunks: bool
) -> None:
    id, body = random_id(), pattern(size)
    headers = {name: b64(CHECKSUMS[name](body))}
    assert gateway.put(id, iter([body]) if chunks else body, headers=headers).status == 200
    assert gateway.get(id).body == body


@sized
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_an_upload_that_is_not_what_its_checksum_says_leaves_the_old_object(
    gateway: Gateway, name: str, size: int, chunks: bool
) -> None:
    id, body, headers = (
        store(gateway),
        pattern(size),
        {name: b64(CHECKSUMS[name](b"something else"))},
    )
    assert code(gateway.put(id, iter([body]) if chunks else body, headers=headers)) == 400
    assert gateway.get(id).body == b"an object"


@pytest.mark.parametrize("value", ["garbage", "!!!!", "AAAA", "\xe4", "A" * 5000])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_of_garbage_is_400_and_stores_nothing(
    gateway: Gateway, name: str, value: str
) -> None:
    id = random_id()
    assert code(gateway.put(id, b"body", headers={name: value})) == 400
    assert gateway.get(id).status == 404
