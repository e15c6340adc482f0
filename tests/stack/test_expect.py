"""Expect: 100-continue, RFC 9110, 10.1.1."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import EXPECT, TE, Wire, chunked, code, head, pattern, refused_early, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id


@pytest.mark.parametrize("size", [1, 65_536, 1_000_000])
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_the_body_is_asked_for_once_and_then_stored(
    gateway: Gateway, size: int, chunks: bool, value: str
) -> None:
    id, body = random_id(), pattern(size)
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, f"Expect: {value}", TE if chunks else f"Content-Length: {size}"))
        assert wire.answer().status == 100
        wire.send(chunked(body) if chunks else body)
        answer = wire.answer()
        assert answer.status == 200
        wire.assert_in_step(answer, id, body)


def test_a_client_that_does_not_wait_for_100_is_served_too(
    gateway: Gateway, landmark: tuple[str, bytes]
) -> None:
    with Wire(gateway) as wire:
        wire.send(head("PUT", random_id(), EXPECT, "Content-Length: 5"), b"hello")
        while (answer := wire.answer()).status == 100:
            pass
        assert answer.status == 200
        wire.assert_in_step(answer, *landmark)


@pytest.mark.parametrize(
    ("method", "id", "status"),
    [
        ("PUT", "bad_id", 400),
        ("PUT", "x" * 33, 400),
        ("PUT", "../other", 404),
        ("POST", "good", 405),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 1000", TE])
def test_what_is_known_to_be_refused_is_refused_without_100(
    gateway: Gateway, method: str, id: str, status: int, framing: str, landmark: tuple[str, bytes]
) -> None:
    path = head(method, id, EXPECT, framing).replace(b"/object/../", b"/")
    refused_early(gateway, path, status, landmark)


def test_an_upload_to_a_dead_node_is_refused_without_100(faulty: Stack) -> None:
    gateway, node, other = faulty.gateways[0], faulty.nodes[0], faulty.id_of(faulty.nodes[1])
    store(gateway, b"there", other)
    node.stop()
    eventually(lambda: gateway.get(faulty.id_of(node)).status == 503)
    for framing in ("Content-Length: 1000", TE):
        refused_early(
            gateway, head("PUT", faulty.id_of(node), EXPECT, framing), 503, (other, b"there")
        )


@pytest.mark.parametrize("value", ["200-ok", "100-continue, x", "x"])
def test_an_unknown_expectation_is_417(gateway: Gateway, value: str) -> None:
    id = random_id()
    answer = gateway.put(id, b"body", headers={"Expect": value})
    assert code(answer) == 417
    assert gateway.get(id).status == 404
