"""Uploads that end early store nothing, downloads that end early break the client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, Wire, chunk, code, head, held_by, pattern, store
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

# --------------------------------------------------------------------------------------------------
# Uploads that end early
# --------------------------------------------------------------------------------------------------

DECLARED = 13_000_000

CUTS = [0, 1, 65_536, 12_000_000]

# How an upload of DECLARED bytes is framed, and what goes out until so many bytes of the body have.
FRAMINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "with a length": (f"Content-Length: {DECLARED}", lambda sent: sent),
    "within a chunk": ("Transfer-Encoding: chunked", lambda sent: b"%x\r\n%b" % (DECLARED, sent)),
    "between chunks": ("Transfer-Encoding: chunked", lambda sent: chunk(sent) if sent else b""),
}

cut_short = pytest.mark.parametrize("sent", CUTS)

framed = pytest.mark.parametrize("framing", FRAMINGS)


def begin_upload(wire: Wire, id: str, framing: str, sent: int) -> None:
    header, framed = FRAMINGS[framing]
    wire.send(head("PUT", id, header), framed(pattern(sent)))


def leave_upload(gateway: Gateway, id: str, framing: str, sent: int) -> None:
    """Begin an upload and go away; returns when the gateway is done with it."""
    with Wire(gateway) as wire:
        begin_upload(wire, id, framing, sent)
    eventually(lambda: wire.port not in held_by(gateway))


def unfinished(node: Node, id: str) -> list[Any]:
    """The multipart uploads of this id that nobody finished."""
    uploads = node.client()._list_multipart_uploads(BUCKET, prefix=id).uploads
    return list(uploads)


@cut_short
@framed
def test_an_upload_that_is_cut_short_leaves_the_old_object_whole(
    shared: Stack, gateway: Gateway, framing: str, sent: int
) -> None:
    id = store(gateway, b"the old object", content_type="text/old")
    leave_upload(gateway, id, framing, sent)
    answer = gateway.get(id)
    assert (answer.body, answer.headers["Content-Type"]) == (b"the old object", "text/old")
    assert unfinished(shared.owner(id), id) == []


@cut_short
@framed
def test_an_upload_that_is_cut_short_makes_no_object(
    shared: Stack, gateway: Gateway, framing: str, sent: int, landmark: tuple[str, bytes]
) -> None:
    id = random_id()
    leave_upload(gateway, id, framing, sent)
    assert gateway.get(id).status == 404
    assert unfinished(shared.owner(id), id) == []
    assert gateway.get(landmark[0]).body == landmark[1]


@cut_short
@framed
def test_a_client_that_half_closes_after_too_few_bytes_gets_400(
    gateway: Gateway, framing: str, sent: int
) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        begin_upload(wire, id, framing, sent)
        wire.half_close()
        answer = wire.answer()
        assert code(answer) == 400
        assert answer.headers["Connection"] == "close"
        assert wire.rest() == b""
    assert gateway.get(id).status == 404


def test_the_list_of_unfinished_uploads_would_show_one(shared: Stack, gateway: Gateway) -> None:
    id = store(gateway)
    client = shared.owner(id).client()
    upload = client._create_multipart_upload(BUCKET, id, {})
    assert len(unfinished(shared.owner(id), id)) == 1
    client._abort_multipart_upload(BUCKET, id, upload)


# --------------------------------------------------------------------------------------------------
# Downloads that end early
# --------------------------------------------------------------------------------------------------


def test_a_download_whose_node_dies_breaks_the_connection(faulty: Stack) -> None:
    node, size = faulty.nodes[0], 64 * MIB
    gateway = faulty.add_gateway(
        {"OBJGW_NODE_TIMEOUT": "8"}
    )  # a node without a network can't say that it is gone
    gateway.wait_ready()
    id = store(gateway, pattern(size), faulty.id_of(node))
    with Wire(gateway, timeout=40) as wire:
        wire.send(head("GET", id))
        assert len(wire.file.read(MIB)) == MIB
        node.container.kill()
        assert len(wire.rest()) < size - MIB
    for other in faulty.nodes[1:]:
        store(gateway, id=faulty.id_of(other))


def test_a_node_connection_that_a_client_left_half_read_serves_nobody_else(
    shared: Stack, gateway: Gateway
) -> None:
    node = shared.nodes[0]
    large = store(gateway, pattern(24 * MIB), shared.id_of(node))
    small = [store(gateway, pattern(1000 + n), shared.id_of(node)) for n in range(4)]
    for _ in range(6):
        with Wire(gateway) as wire:
            wire.send(head("GET", large))
            wire.file.read(100_000)
        for n, id in enumerate(small):
            assert gateway.get(id).body == pattern(1000 + n)
    eventually(lambda: not held_by(gateway))
