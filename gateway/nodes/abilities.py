"""What a node's server does with what a PUT asks for.

It is found out when the node is first seen, so that no request pays for it. Whatever a server takes
no notice of is refused from then on, because it would be called a success:

- **Conditions.** A MinIO of January 2024 takes no notice of If-None-Match and If-Match, one before
  September 2025 none of If-Match where there is no object (minio/minio#21526). The layout is
  changed by compare-and-swap, so that it doesn't grow on such a server. versitygw fails each
  `If-Match: *`.
- **Checksums.** A server that doesn't compare one stores what was damaged on its way.
- **What is stored with an object.** Without its metadata (x-amz-meta-*) an object has no epoch, and
  a tombstone is an object; so the layout doesn't grow there either.
- **The length.** versitygw stores what has come of an upload that was cut. It is given the body's
  MD5, for which the whole body has to be here first (`gateway.objects.settled`).
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator

from gateway.s3.body import BodyError, Upload, upload_of
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.headers import IF_MATCH, PAYLOAD_DIGEST, STORED
from gateway.s3.node import Node
from gateway.s3.reply import Reply

Ask = Callable[[Request], Reply]

CREATED = "conditions"  # a key beside the layout's record, which is created only once
# What the status of the answer to a condition that fails says.
DECIDED = {200: False, 404: True, 409: True, 412: True, 501: False}

IF_MATCH_ANY = "if-match: *"
METADATA = "x-amz-meta-*"
# The checksums that a client may send, and how many bytes each has.
CHECKSUMS = {
    "content-md5": 16,
    "x-amz-checksum-crc32": 4,
    "x-amz-checksum-crc32c": 4,
    "x-amz-checksum-crc64nvme": 8,
    "x-amz-checksum-sha1": 20,
    "x-amz-checksum-sha256": 32,
}
WRONG = {
    **{name: base64.b64encode(bytes(size)).decode() for name, size in CHECKSUMS.items()},
    PAYLOAD_DIGEST: "0" * 64,
}
KEPT = {
    **dict.fromkeys(STORED, "x-objgw/probe"),
    "content-encoding": "gzip",
    "content-language": "en",
    "content-disposition": "attachment",
    "cache-control": "max-age=60",
    "expires": "Sun, 06 Nov 1994 08:49:37 GMT",
    "x-amz-meta-objgw-probe": "kept",
}
# What a layout needs of its nodes before objects can be moved while clients write.
TO_GROW = frozenset({*IF_MATCH, METADATA})
# The headers of which it is found out whether they are carried out; so are x-amz-meta-*. Every PUT
# has a Content-Type, so that it is only shown where that isn't kept.
FOUND_OUT = frozenset({*IF_MATCH, *WRONG, *STORED}) - {"content-type"}


def keeps_conditions(ask: Ask, bucket: str) -> bool | None:
    """Whether a server decides If-None-Match and If-Match of a PUT.

    It is None where the server gives no answer that would say.

    `ask` makes one request to the server, and raises what it raises; `bucket` is one that is there.
    """
    kept = decides_condition(ask, f"/{bucket}/{CREATED}", {"if-none-match": "*"})
    if kept is False:  # it created the object, or replaced it: the second time tells
        kept = decides_condition(ask, f"/{bucket}/{CREATED}", {"if-none-match": "*"})
    if not kept:
        return kept
    missing = new_key(bucket)
    kept = decides_condition(ask, missing, {"if-match": '"none"'})
    if kept is False:
        ask(Request("DELETE", missing))
    return kept


def decides_condition(ask: Ask, path: str, condition: dict[str, str]) -> bool | None:
    """Whether a PUT fails on its condition; None where it fails otherwise."""
    reply = ask(Request("PUT", path, condition, upload_of(b"")))
    return DECIDED.get(reply.status) if reply.code != "NoSuchBucket" else None


def ignored_headers(ask: Ask, bucket: str) -> frozenset[str] | None:
    """The headers of a PUT that a server doesn't carry out, apart from those conditions.

    x-amz-meta-* stands for all of these. It is None where the server gives no answer that would
    say; `ask` and `bucket` as above.
    """
    try:
        return frozenset(_ignored(ask, bucket))
    except ValueError:
        return None


def _ignored(ask: Ask, bucket: str) -> Iterator[str]:
    """Raises ValueError where an answer says nothing."""
    path = new_key(bucket)
    try:
        for name, value in WRONG.items():
            if _stores(ask, Request("PUT", path, {name: value}, upload_of(b"objgw"))):
                yield name
        if not _stores(ask, Request("PUT", path, KEPT, upload_of(b"objgw"))):
            raise ValueError("it stores nothing")
        if not _stores(ask, Request("PUT", path, {**KEPT, "if-match": "*"}, upload_of(b""))):
            yield IF_MATCH_ANY
        found = ask(Request("HEAD", path))
        if found.status != 200:
            raise ValueError("it doesn't give what it stored")
        for name, value in KEPT.items():
            if found.headers.get(name) != value:
                yield METADATA if name.startswith("x-amz-meta-") else name
    finally:
        ask(Request("DELETE", path))


def _stores(ask: Ask, request: Request) -> bool:
    """Whether a PUT is carried out. Raises ValueError where its failing says nothing."""
    reply = ask(request)
    if (reply.status >= 500 and reply.status != 501) or reply.code == "NoSuchBucket":
        raise ValueError(reply.status)
    return reply.status == 200


def new_key(bucket: str) -> str:
    """The path of a key that nobody else uses."""
    return f"/{bucket}/{CREATED}-{secrets.token_hex(8)}"


def stores_cut(node: Node, connection: Connection, path: str) -> bool | None:
    """Whether a server stores what has come of an upload that was cut.

    The connection, which is to be closed then, is half closed in the middle of the body, so that
    the server says what becomes of it. None where it doesn't: TLS can't be half closed. Raises
    OSError and UpstreamError.
    """
    with contextlib.suppress(BodyError):
        node.ask(connection, Request("PUT", path, upload=Cut()))
    try:
        connection.sock.shutdown(socket.SHUT_WR)
        return connection.reply("PUT").status == 200
    except (OSError, UpstreamError):
        return None


CUT_BYTES = 128 * 1024


class Cut(Upload):
    """A body of which the second half doesn't come.

    It is as long as no server reads before it begins to store it: of a short one that is cut
    versitygw stores nothing.
    """

    def __init__(self) -> None:
        self.length, self.spent, self.head = 2 * CUT_BYTES, False, bytes(CUT_BYTES)

    @property
    def replayable(self) -> bool:
        """It is sent without asking for it first."""
        return True

    def rest(self) -> Iterator[bytes]:
        """Raises BodyError, as a client's does that breaks off."""
        raise BodyError("It is cut.")
        yield b""
