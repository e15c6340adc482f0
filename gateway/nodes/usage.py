"""How full a node is, and what it holds, by its own count.

S3 has no question for that. MinIO has two, in its admin interface, which the root keys may ask: the
disks, and the count of its scanner, which is made anew every minute or so where there is little to
count, and more slowly where there is much. Both are answered from memory, in a millisecond. They
are signed as all requests are, so that no token has to be given away as for MinIO's metrics.

Of several disks with erasure code those count that hold data and no parity, as MinIO itself counts
them. A server of another make knows neither question, and keys without the right get 403: then it
isn't known.

Nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from gateway.s3.connection import Request
from gateway.s3.reply import Reply

DISKS = Request("GET", "/minio/admin/v3/storageinfo")
COUNT = Request("GET", "/minio/admin/v3/datausageinfo")
ANSWER_MAX = 1 << 20  # bytes of an answer; a disk takes about 1,200


class Usage(NamedTuple):
    """How full a node is. The objects are those that the node itself has counted, if it has."""

    total: int  # bytes that its disks can hold
    free: int  # bytes of them that are free
    objects: int | None = None  # in the bucket of the objects
    bytes: int | None = None  # that they have
    counted: float | None = None  # Unix time of that count


class NotTold(Exception):
    """The node doesn't say how full it is; the text says why, without anything of its answer."""


def usage_of(ask: Callable[[Request], Reply], bucket: str) -> Usage:
    """How full a node is; `bucket` is that of the objects.

    `ask` sends one request to the node, and gives the whole answer. Raises NotTold, and what `ask`
    raises.
    """
    total, free = space_in(ask(DISKS))
    return Usage(total, free, *count_in(ask(COUNT), bucket))


def space_in(reply: Reply) -> tuple[int, int]:
    """Total and free bytes, by the answer to `DISKS`. Raises NotTold."""
    if reply.status == 403:
        raise NotTold("its keys have no right to ask MinIO's admin interface")
    if reply.status in (404, 405, 501):
        raise NotTold("its server has no admin interface as MinIO has")
    if reply.status != 200:
        raise NotTold(f"it answers {reply.status} {reply.code}".rstrip())
    total = free = 0
    try:
        told = json.loads(reply.body)
        data = dict(enumerate(told["Backend"]["StandardSCData"]))  # disks of a set, by the pool
        for disk in told["Disks"]:
            if 0 <= disk["disk_index"] < data.get(disk["pool_index"], 0):
                # An empty number is left out: a full disk has nothing free, a lost one no size.
                total += _natural(disk.get("totalspace", 0))
                free += _natural(disk.get("availspace", 0))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise NotTold("what it answers can't be read") from None
    if not 0 <= free <= total or not total:
        raise NotTold("what it answers can't be")
    return total, free


def count_in(reply: Reply, bucket: str) -> tuple[int | None, int | None, float | None]:
    """Objects, their bytes and when they were counted, by the answer to `COUNT`.

    They are None where the node doesn't say, or hasn't counted yet.
    """
    try:
        told = json.loads(reply.body) if reply.status == 200 else {}
        counted = datetime.fromisoformat(told["lastUpdate"])
        held: dict[str, Any] = (told["bucketsUsageInfo"] or {}).get(bucket, {})
        if counted.year > 1:  # the year 1 is Go's zero time: never
            objects, size = held.get("objectsCount", 0), held.get("size", 0)
            return _natural(objects), _natural(size), counted.timestamp()
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        pass
    return None, None, None


def _natural(value: object) -> int:
    """A number of bytes or objects. Raises ValueError where it is none."""
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(value)
    return value
