"""The lock of those who move objects, as it is on a node: whether anybody does.

`gateway.ctl.lock` takes it and renews it, and gateways show what it says. It is a small JSON object
beside the record of one node, the first by name.
"""

from __future__ import annotations

import json
import math
from typing import NamedTuple

from gateway.s3.reply import Reply

LOCK = "lock"  # the lock's key, beside the record


class LockState(NamedTuple):
    """The lock as it is on its node."""

    since: float  # Unix time at which its holder took it
    until: float  # Unix time until which it is good
    etag: str  # empty where there is no lock


FREE = LockState(0.0, -math.inf, "")


def lock_of(reply: Reply | None) -> LockState:
    """What the lock's object says; `reply` is None where there is none (`store.read_object`)."""
    if reply is None:
        return FREE
    etag = reply.headers.get("etag", "")
    try:
        document = json.loads(reply.body)
        return LockState(float(document["since"]), float(document["until"]), etag)
    except (ValueError, KeyError, TypeError):
        return FREE._replace(etag=etag)
