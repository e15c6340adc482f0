"""The layout's record on one node: how it is read, and changed. No sockets, no threads.

Gateways and `objgwctl` share these functions, so that both agree on what is a record, whose it is,
and which node decides where several change the layout at once. Each function is given `ask`: it
sends one request to one node, gives the whole answer, and raises what it wants where there is none.

    record = read_record(ask, bucket)                  what the node holds
    record = read_record(ask, bucket, record)          the same later, mostly answered by 304
    for name in writing_order(records, old, new):      the first one decides
        write_record(ask, bucket, name, new, record.etag)

A change is written to the first node on the condition that its record is still the one that was
read there. Of two who change the layout at once, one gets None; it reads all records again and
begins anew. The others need no decision: who finds an older record on a node writes the newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.nodes.layout import RECORD, Layout
from gateway.nodes.merging import one_installation, precedes
from gateway.nodes.record_json import dump, load
from gateway.s3.body import content_md5, upload_of
from gateway.s3.connection import Request
from gateway.s3.reply import Reply

Ask = Callable[[Request], Reply]


class UnexpectedAnswer(Exception):
    """A node answered with what says nothing of an object's presence or content: `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"unexpected answer: {reply.status} {reply.code}".rstrip())
        self.reply = reply


class Record(NamedTuple):
    """What a node holds in the record's place: a record, nothing, or what can't be read."""

    layout: Layout | None = None  # None where there is no record that can be read
    holder: str = ""  # the name of the node that the record was written to
    etag: str = ""  # of whatever is there, quoted; empty where there is nothing
    problem: str = ""  # why what is there can't be read

    def own(self, name: str) -> Layout | None:
        """What the record of the node of this name says; None where it has no record of its own."""
        return self.layout if self.holder == name else None

    def is_of(self, name: str, layout: Layout) -> bool:
        """Whether it is the record of the node of this name, of this layout or an older one.

        One of another beginning, which was only merged into it, isn't.
        """
        own = self.own(name)
        return own is not None and own.origin == layout.origin

    def foreign_to(self, layout: Layout) -> bool:
        """Whether it is of another installation than this layout."""
        return (
            self.layout is not None
            and not one_installation(self.layout, layout)
            and not precedes(self.layout, self.holder, layout)
        )

    def trouble(self, name: str) -> str:
        """Why the node isn't the one of this name although it answers; empty where it may be."""
        if self.layout and self.holder != name:
            return f"it holds what belongs to {self.holder}"
        return self.problem


NO_RECORD = Record()


def read_record(ask: Ask, bucket: str, known: Record = NO_RECORD) -> Record:
    """What a node holds as its record; `known`, which was read before, where it is still that.

    `bucket` is that of the records. Raises UnexpectedAnswer, and what `ask` raises.
    """
    return record_of(ask(record_request(bucket, known)), known)


def record_request(bucket: str, known: Record) -> Request:
    """The request for a node's record."""
    return Request(
        "GET", f"/{bucket}/{RECORD}", {"if-none-match": known.etag} if known.etag else {}
    )


def record_of(reply: Reply, known: Record) -> Record:
    """What the answer to `record_request` says. Raises UnexpectedAnswer."""
    if is_absence(reply):
        return NO_RECORD
    if reply.status == 304 and known.etag:
        return known
    if reply.status != 200:
        raise UnexpectedAnswer(reply)
    etag = reply.headers.get("etag", "")
    if not etag:
        return Record(problem="its record has no ETag, so that it can't be changed safely")
    try:
        return Record(*load(reply.body), etag)
    except ValueError as error:
        return Record(etag=etag, problem=f"its record can't be read: {error}")


def is_absence(reply: Reply) -> bool:
    """Whether a server of S3 says that there is no such object.

    A 404 without one of S3's codes may be any web server's, so it says nothing.
    """
    return reply.status == 404 and reply.code in ("NoSuchKey", "NoSuchBucket")


def write_record(ask: Ask, bucket: str, name: str, layout: Layout, etag: str) -> str | None:
    """Writes a layout as the record of the node of this name, by `compare_and_swap`."""
    return compare_and_swap(ask, f"/{bucket}/{RECORD}", dump(layout, name), etag)


def may_take(name: str, record: Record, layout: Layout) -> bool:
    """Whether a node may be given this layout as its record: it has its own, or never had any.

    A node that should have a record and has none lost what it held. A new record would hide that.
    """
    if name not in layout.all_names or record.trouble(name) or record.foreign_to(layout):
        return False
    return record.layout is not None or name in layout.unrecorded


def writing_order(records: Mapping[str, Record], before: Layout | None, after: Layout) -> list[str]:
    """The names of the nodes that get a new layout, the one first that decides.

    `records` has what the nodes hold that answer. The first is of the layout before, so that all
    who change the same layout ask the same node, whichever name they add.
    """
    old = before.names if before else ()
    names = (name for name, record in records.items() if may_take(name, record, after))
    return sorted(names, key=lambda name: (name not in old, name))


def read_object(ask: Ask, path: str, etag: str = "") -> Reply | None:
    """A small object: 200 with its body, or 304 where it has this ETag; None where there is none.

    Raises UnexpectedAnswer.
    """
    reply = ask(Request("GET", path, {"if-none-match": etag} if etag else {}))
    if reply.status == 200 or (reply.status == 304 and etag):
        return reply
    if is_absence(reply):
        return None
    raise UnexpectedAnswer(reply)


def compare_and_swap(ask: Ask, path: str, body: bytes, etag: str) -> str | None:
    """Writes a small JSON object if it still has this ETag; where that is empty, if there is none.

    Gives the new ETag, or None where the object isn't as it was seen. Makes the bucket where it
    isn't there. Raises UnexpectedAnswer.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """
    headers = {"if-match": etag} if etag else {"if-none-match": "*"}
    headers["content-type"] = "application/json"
    headers |= content_md5(body)  # so that no server stores a part of it
    reply = ask(Request("PUT", path, headers, upload_of(body)))
    if reply.code == "NoSuchBucket":
        ask(Request("PUT", path.rpartition("/")[0], upload=upload_of(b"")))
        reply = ask(Request("PUT", path, headers, upload_of(body)))
    if reply.status == 200 and "etag" in reply.headers:
        return reply.headers["etag"]
    if is_other_than_seen(reply):
        return None
    raise UnexpectedAnswer(reply)


def is_other_than_seen(reply: Reply) -> bool:
    """Whether a PUT failed because the object isn't as it was seen.

    S3 says 412; 404 to If-Match where there is none; 409 where another write came in between.
    """
    if reply.status == 409:
        return reply.code == "ConditionalRequestConflict"
    return reply.status == 412 or (reply.status == 404 and reply.code == "NoSuchKey")
