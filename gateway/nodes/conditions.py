"""Whether a node's server decides the conditions of a PUT.

It is found out when the node is first seen, so that no request pays for it.

A MinIO of January 2024 takes no notice of If-None-Match and If-Match, one before September 2025
none of If-Match where there is no object (minio/minio#21526). On such a server a create-only upload
would replace an object and be called a success. So it gets no upload with a condition, and the
layout, which is changed by compare-and-swap, doesn't grow.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway.s3.body import upload_of
from gateway.s3.connection import Reply, Request

CREATED = "conditions"  # a key beside the layout's record, which is created only once
# What the status of the answer to a condition that fails says.
DECIDED = {200: False, 404: True, 409: True, 412: True, 501: False}


def keeps_conditions(ask: Callable[[Request], Reply], bucket: str) -> bool | None:
    """Whether a server decides If-None-Match and If-Match of a PUT.

    It is None where the server gives no answer that would say.

    `ask` makes one request to the server, and raises what it raises; `bucket` is one that is there.
    """
    kept = decides_condition(ask, f"/{bucket}/{CREATED}", {"if-none-match": "*"})
    if kept is False:  # it created the object, or replaced it: the second time tells
        kept = decides_condition(ask, f"/{bucket}/{CREATED}", {"if-none-match": "*"})
    if not kept:
        return kept
    missing = f"/{bucket}/{CREATED}-{secrets.token_hex(8)}"
    kept = decides_condition(ask, missing, {"if-match": '"none"'})
    if kept is False:
        ask(Request("DELETE", missing))
    return kept


def decides_condition(
    ask: Callable[[Request], Reply], path: str, condition: dict[str, str]
) -> bool | None:
    """Whether a PUT fails on its condition; None where it fails otherwise."""
    reply = ask(Request("PUT", path, condition, upload_of(b"")))
    return DECIDED.get(reply.status) if reply.code != "NoSuchBucket" else None
