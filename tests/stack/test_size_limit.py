"""A maximum size of objects, OBJGW_MAX_OBJECT_BYTES."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import EXPECT, TE, Wire, chunk, code, head, pattern, refused_early, store
from tests.harness.stack import Stack
from tests.harness.waiting import random_id


@pytest.fixture(scope="module")
def limited(shared: Stack) -> Gateway:
    """A second gateway to the shared nodes, which takes at most 100,000 bytes an object."""
    gateway = shared.add_gateway({"OBJGW_MAX_OBJECT_BYTES": "100000"})
    gateway.wait_ready()
    return gateway


# --------------------------------------------------------------------------------------------------
# A maximum size
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_an_object_of_just_the_maximum_size_is_stored(limited: Gateway, chunks: bool) -> None:
    id, body = random_id(), pattern(100_000)
    assert limited.put(id, iter([body]) if chunks else body).status == 200
    assert limited.get(id).body == body


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_an_object_of_more_than_the_maximum_size_is_413(limited: Gateway, chunks: bool) -> None:
    id, body = store(limited), pattern(100_001)
    assert code(limited.put(id, iter([body]) if chunks else body)) == 413
    assert limited.get(id).body == b"an object"


def test_a_length_above_the_maximum_is_413_before_any_of_the_body(limited: Gateway) -> None:
    with Wire(limited) as wire:
        wire.send(head("PUT", random_id(), "Content-Length: 100001"))
        assert code(wire.answer()) == 413


def test_chunks_above_the_maximum_are_413_before_their_end(limited: Gateway) -> None:
    id = random_id()
    with Wire(limited) as wire:
        wire.send(head("PUT", id, TE), chunk(b"x" * 400_000))
        assert code(wire.answer()) == 413
    assert limited.get(id).status == 404


# --------------------------------------------------------------------------------------------------
# Expect: 100-continue, RFC 9110, 10.1.1
# --------------------------------------------------------------------------------------------------


def test_what_is_too_large_is_refused_without_100(
    limited: Gateway, landmark: tuple[str, bytes]
) -> None:
    refused_early(
        limited, head("PUT", random_id(), EXPECT, "Content-Length: 100001"), 413, landmark
    )
