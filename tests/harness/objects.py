"""Objects of all sizes, with all that is stored with them: as clients see them, and what clients do
to some of them while objects move.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.nodes.layout import EXPIRING_TOMBSTONE, TOMBSTONE
from tests.harness.gateway import Answer, Gateway
from tests.harness.http import MIB, code
from tests.harness.waiting import random_id

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

Seen = dict[str, tuple[int, dict[str, str], bytes]]  # status, headers and body, by id


def checksum(number: int, body: bytes) -> Mapping[str, str]:
    """Each third object is stored with one of these checksums, or with none."""
    sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return [{}, {"x-amz-checksum-sha256": sha256}, {"Content-MD5": md5}][number % 3]


def seen(gateway: Gateway, ids: Iterable[str]) -> Seen:
    """All that a client gets of these objects, but for what is about the answer itself."""

    def shown(answer: Answer) -> tuple[int, dict[str, str], bytes]:
        kept = {name.lower(): value for name, value in answer.headers.items()}
        return (
            answer.status,
            {name: kept[name] for name in kept if name not in OF_AN_ANSWER},
            answer.body,
        )

    return {id: shown(gateway.get(id)) for id in ids}


def store_all_sizes(gateway: Gateway) -> Seen:
    """Stores objects of all sizes; what a client gets of them."""
    bodies = {random_id(): secrets.token_bytes(size) for size in SMALL * 12}
    bodies |= {random_id(): secrets.token_bytes(size) for size in SIZES * 2}
    for number, (id, body) in enumerate(bodies.items()):
        assert gateway.put(id, body, headers={**HEADERS, **checksum(number, body)}).status == 200
    before = seen(gateway, bodies)
    assert {id: body for id, (_, _, body) in before.items()} == bodies
    return before


class Changes(NamedTuple):
    """What clients did: the ids of what they deleted, and of all that they wrote or deleted."""

    deleted: Sequence[str]
    touched: set[str]


def change_some(gateway: Gateway, before: Seen, moves: Callable[[str], bool]) -> Changes:
    """Deletes, replaces and swaps some of the small objects while they move.

    First those that move, since of what is deleted only they leave tombstones.
    """
    small = sorted((id for id in before if len(before[id][2]) < MIB), key=lambda id: not moves(id))
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
    return Changes(gone[4:], {*gone, *replaced, *swapped})


def assert_same(now: Seen, before: Seen, but: Sequence[str] = ()) -> None:
    """Nothing has changed of these objects, `but` for headers of these names.

    Of a large one the ETag may have, where it was moved in parts.
    """
    for id, (status, headers, body) in before.items():
        got, expected = dict(now[id][1]), dict(headers)
        if len(body) > SINGLE and "-" in got.get("etag", ""):
            expected["etag"] = got["etag"]
        for name in but:
            got.pop(name, None)
            expected.pop(name, None)
        assert (now[id][0], got, now[id][2]) == (status, expected, body), id
