"""How full a node is, by its answers: those that MinIO gives, and all that aren't that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.nodes.usage import COUNT, DISKS, NotTold, Usage, count_in, space_in, usage_of
from gateway.s3.connection import Request
from gateway.s3.reply import Reply

GIB = 1 << 30
NEVER = (None, None, None)


def disk(index: int, free: int | None = GIB, pool: int = 0, total: int = 4 * GIB) -> dict[str, Any]:
    """A disk as MinIO tells of it: a number that is 0 is left out."""
    sizes = {"totalspace": total, "usedspace": total - (free or 0), "availspace": free}
    told = {"state": "ok", "pool_index": pool, "set_index": 0, "disk_index": index}
    return told | {name: size for name, size in sizes.items() if size}


def disks(data: list[int], *all_disks: dict[str, Any]) -> bytes:
    return json.dumps({"Disks": all_disks, "Backend": {"StandardSCData": data}}).encode()


def count(objects: Any = 3, size: Any = 5, at: Any = "2026-11-28T21:29:00.911124112Z") -> bytes:
    held = {"objgw": {"objectsCount": objects, "size": size}, "other": {"objectsCount": 9}}
    return json.dumps({"lastUpdate": at, "bucketsUsageInfo": held}).encode()


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status, {}, body, 0)


SPACES: dict[str, tuple[bytes, tuple[int, int]]] = {
    "one disk": (disks([1], disk(0)), (4 * GIB, GIB)),
    "a full one": (disks([1], disk(0, None)), (4 * GIB, 0)),
    "four, of which two have parity": (disks([2], *map(disk, range(4))), (8 * GIB, 2 * GIB)),
    "one of them lost": (disks([2], disk(0, None, total=0), *map(disk, (1, 2, 3))), (4 * GIB, GIB)),
    "two pools": (
        disks([1, 2], disk(0), *(disk(index, pool=1) for index in range(3))),
        (12 * GIB, 3 * GIB),
    ),
    "one that has no place yet": (disks([1], disk(0), disk(-1, pool=-1)), (4 * GIB, GIB)),
}


@pytest.mark.parametrize("row", SPACES)
def test_the_disks_that_hold_data_are_added_up(row: str) -> None:
    body, space = SPACES[row]
    assert space_in(reply(body)) == space


NOT_SPACES: dict[str, tuple[int, bytes, str]] = {
    "another make": (404, b"<Error><Code>NoSuchBucket</Code></Error>", "no admin interface"),
    "no right": (403, b'{"Code":"AccessDenied"}', "its keys have no right"),
    "starting": (503, b"", "it answers 503"),
    "nothing": (200, b"", "can't be read"),
    "a page": (200, b"<html>", "can't be read"),
    "not UTF-8": (200, b"\xff\xfe{", "can't be read"),
    "a list": (200, b"[1, 2]", "can't be read"),
    "no disks": (200, b"{}", "can't be read"),
    "null": (200, b'{"Disks": null, "Backend": {"StandardSCData": null}}', "can't be read"),
    "disks that are none": (200, b'{"Disks": [7], "Backend": {"StandardSCData": [1]}}', "be read"),
    "a size in words": (200, disks([1], {**disk(0), "totalspace": "4 GiB"}), "can't be read"),
    "a size below 0": (200, disks([1], {**disk(0), "totalspace": -1}), "can't be read"),
    "an endless size": (200, disks([1], {**disk(0), "totalspace": 10**30}), "can't be read"),
    "deeper than anything": (200, b"[" * 100_000, "can't be read"),
    "nothing at all": (200, disks([1]), "can't be"),
    "more free than there is": (200, disks([1], disk(0, 5 * GIB)), "can't be"),
}


@pytest.mark.parametrize("row", NOT_SPACES)
def test_what_says_nothing_of_the_disks_is_not_told(row: str) -> None:
    status, body, why = NOT_SPACES[row]
    with pytest.raises(NotTold, match=why):
        space_in(reply(body, status))


COUNTS: dict[str, tuple[bytes, tuple[int | None, int | None, float | None]]] = {
    "counted": (count(), (3, 5, 1795901340.911124)),
    "not counted yet": (count(at="0001-01-01T00:00:00Z"), NEVER),
    "no bucket yet": (b'{"lastUpdate": "2026-11-28T21:29:00Z", "bucketsUsageInfo": null}', (0, 0, 1795901340.0)),  # noqa: E501
    "a count in words": (count("three"), NEVER),
    "a count below 0": (count(-3), NEVER),
    "a time that is none": (count(at="today"), NEVER),
    "a time of another kind": (count(at=7), NEVER),
    "a page": (b"<html>", NEVER),
    "a list": (b"[]", NEVER),
    "a list of buckets": (b'{"lastUpdate": "2026-11-28T21:29:00Z", "bucketsUsageInfo": [1]}', NEVER),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("row", COUNTS)
def test_the_objects_are_those_of_the_bucket_if_the_node_has_counted_them(row: str) -> None:
    body, counted = COUNTS[row]
    assert count_in(reply(body), "objgw") == counted


def test_a_node_that_counts_nothing_still_says_how_full_it_is() -> None:
    answers = {DISKS.path: reply(disks([1], disk(0))), COUNT.path: reply(b"", 403)}
    assert usage_of(lambda request: answers[request.path], "objgw") == Usage(4 * GIB, GIB)


def test_a_node_that_doesnt_say_how_full_it_is_is_asked_nothing_more() -> None:
    asked: list[Request] = []

    def ask(request: Request) -> Reply:
        asked.append(request)
        return reply(b"", 404)

    with pytest.raises(NotTold):
        usage_of(ask, "objgw")
    assert asked == [DISKS]
