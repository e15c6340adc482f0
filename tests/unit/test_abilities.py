"""What is found out of a node's server at first sight, and what is refused from then on.

The server is `tests.harness.fakes`', on a real socket, that takes no notice of some headers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest

from gateway.answers import Refusal
from gateway.nodes.abilities import (
    CHECKSUMS,
    CREATED,
    IF_MATCH_ANY,
    METADATA,
    ignored_headers,
    keeps_conditions,
    stores_cut,
)
from gateway.nodes.discovery import Discovery
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.poller import Poller
from gateway.nodes.store import UnexpectedAnswer, compare_and_swap
from gateway.nodes.view import Directory
from gateway.objects.settled import refusal_of
from gateway.objects.upstream import Upstream
from gateway.s3.body import BodyError, spool_whole
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.settings import Settings
from tests.harness.fakes import serving

BUCKET = "objgw-layout"
SERVER = """
IGNORED, CUTS, STATUS = set(), [], {}
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := read_head(self.rfile):
            method, path, headers = head
            if "expect" in headers:
                self.wfile.write(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")
            body = self.rfile.read(int(headers.get("content-length", 0)))
            if len(body) < int(headers.get("content-length", 0)) and CUTS:
                headers["content-length"] = len(body)
            kept = {name: value for name, value in headers.items() if name not in IGNORED}
            if "meta" in IGNORED:
                kept = {name: value for name, value in kept.items() if "-meta-" not in name}
            if "any" in IGNORED and headers.get("if-match") == "*":
                kept["if-match"] = '"none"'
            if method == "PUT" and "if-match" in headers and path not in RECORDS and "missing" in STATUS:
                status, code = STATUS["missing"]
                text = b"<Error><Code>%s</Code></Error>" % code
                answer = b"HTTP/1.1 %d X\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (status, len(text), text)
            else:
                answer = keep_record(method, path, kept, body)
            self.wfile.write(answer)
"""  # noqa: E501


@contextmanager
def served(**changes: Any) -> Iterator[tuple[Node, dict[str, Any]]]:
    """A node of such a server, which has the bucket, and the server's variables."""
    with serving(SERVER) as (port, script):
        script["RECORDS"][f"/{BUCKET}"] = b""
        for name, value in changes.items():
            script[name].update(value)
        yield Node(Endpoint("n", "", "127.0.0.1", port), Settings()), script


def asking(node: Node) -> Callable[[Request], Reply]:
    connection = node.connect()

    def ask(request: Request) -> Reply:
        reply = node.ask(connection, request)
        connection.finish(reply)
        return reply

    return ask


# What a server takes no notice of, and what is found of it.
IGNORED: dict[str, tuple[set[str], set[str]]] = {
    "nothing": (set(), set()),
    "all checksums": ({*CHECKSUMS, "x-amz-content-sha256"}, {*CHECKSUMS, "x-amz-content-sha256"}),
    "one checksum": ({"x-amz-checksum-crc64nvme"}, {"x-amz-checksum-crc64nvme"}),
    "metadata": ({"meta"}, {METADATA}),
    "a stored header": ({"content-language"}, {"content-language"}),
    "the type": ({"content-type"}, {"content-type"}),
    "If-Match: *": ({"any"}, {IF_MATCH_ANY}),
}


@pytest.mark.parametrize("row", IGNORED)
def test_what_a_server_ignores_is_found_out_and_nothing_of_that_is_left(row: str) -> None:
    ignored, found = IGNORED[row]
    with served(IGNORED=ignored) as (node, script):
        ask = asking(node)
        assert keeps_conditions(ask, BUCKET) is True
        assert ignored_headers(ask, BUCKET) == frozenset(found)
        assert set(script["RECORDS"]) == {f"/{BUCKET}", f"/{BUCKET}/{CREATED}"}


# What a server answers to If-Match where there is no object, and whether it decides conditions.
MISSING = {
    "404 NoSuchKey": (404, b"NoSuchKey", True),
    "412": (412, b"PreconditionFailed", True),
    "409": (409, b"ConditionalRequestConflict", True),
    "501": (501, b"NotImplemented", False),
    "500": (500, b"InternalError", None),
    "503": (503, b"SlowDown", None),
}


@pytest.mark.parametrize("row", MISSING)
def test_what_if_match_of_a_missing_object_says_of_a_server(row: str) -> None:
    status, code, keeps = MISSING[row]
    with served(STATUS={"missing": (status, code)}) as (node, _):
        assert keeps_conditions(asking(node), BUCKET) is keeps


@pytest.mark.parametrize("row", MISSING)
def test_a_change_of_what_is_gone_fails_as_a_change_of_what_has_changed(row: str) -> None:
    status, code, keeps = MISSING[row]
    with served(STATUS={"missing": (status, code)}) as (node, _):
        ask, path = asking(node), f"/{BUCKET}/layout"
        if keeps:
            assert compare_and_swap(ask, path, b"{}", '"gone"') is None
        else:
            with pytest.raises(UnexpectedAnswer):
                compare_and_swap(ask, path, b"{}", '"gone"')
        etag = compare_and_swap(ask, path, b"{}", "")
        assert etag
        assert compare_and_swap(ask, path, b"{ }", '"other"') is None
        assert compare_and_swap(ask, path, b"{ }", etag)


@pytest.mark.parametrize("cuts", [False, True])
def test_whether_a_server_stores_an_upload_that_is_cut_is_found_out(cuts: bool) -> None:
    with served() as (node, script):
        script["CUTS"] += [1] * cuts
        connection = node.connect()
        assert stores_cut(node, connection, f"/{BUCKET}/cut") is cuts
        connection.close()
        assert (f"/{BUCKET}/cut" in script["RECORDS"]) is cuts


def undecided(headers: Iterable[str], ignored: Iterable[str]) -> Refusal | None:
    """Why an upload with these headers is refused where a server ignores those."""
    directory = Directory(Settings())
    upstream = Upstream(directory, Poller(directory, Discovery(directory), Leader(None)))
    node = Member(Endpoint("n", "", "127.0.0.1", 9), Settings())
    node.standing.keeps_conditions, node.standing.ignored = True, frozenset(ignored)
    given = dict(header.split(": ") for header in ("content-type: a/b", *headers))
    try:
        upstream.refuse_undecided(node, given)
    except Refusal as refusal:
        return refusal
    return None


# An upload's headers, what the server ignores, and what the refusal names.
UPLOADS = {
    "nothing ignored": (["content-md5: a"], [], ""),
    "another one": (["content-md5: a"], ["x-amz-checksum-sha1"], ""),
    "a checksum": (["x-amz-checksum-sha1: a"], ["x-amz-checksum-sha1"], "x-amz-checksum-sha1"),
    "a body's digest": (["x-amz-content-sha256: a"], ["x-amz-content-sha256"], "content-sha256"),
    "metadata": (["x-amz-meta-a: b"], [METADATA], METADATA),
    "the gateway's own": (["x-amz-meta-objgw-era: 2"], [METADATA], METADATA),
    "a stored header": (["expires: a"], ["expires"], "expires"),
    "any object": (["if-match: *"], [IF_MATCH_ANY], "if-match"),
    "one object": (['if-match: "a"'], [IF_MATCH_ANY], ""),
    "the type alone": ([], ["content-type", METADATA], ""),
}


@pytest.mark.parametrize("row", UPLOADS)
def test_an_upload_that_asks_for_what_the_server_ignores_is_501_and_says_so(row: str) -> None:
    headers, ignored, named = UPLOADS[row]
    refusal = undecided(headers, ignored)
    assert bool(refusal) is bool(named)
    if refusal:
        assert refusal.status == HTTPStatus.NOT_IMPLEMENTED
        assert named in refusal.detail
        assert "Nothing was stored" in refusal.detail


# A node's answer to a PUT, and what the client gets.
REFUSALS = {
    "412": (412, "PreconditionFailed", 412),
    "404 to If-Match": (404, "NoSuchKey", 412),
    "two writes at once": (409, "ConditionalRequestConflict", 503),
    "two at once, in other words": (409, "OperationAborted", 503),
    "another conflict": (409, "InvalidBucketState", 502),
    "not carried out": (501, "NotImplemented", 501),
    "a wrong checksum": (400, "BadDigest", 400),
    "busy": (503, "SlowDown", 503),
    "no room": (507, "", 507),
    "nonsense": (418, "", 502),
}


@pytest.mark.parametrize("row", REFUSALS)
def test_what_a_client_is_told_of_an_answer_of_another_make(row: str) -> None:
    status, code, told = REFUSALS[row]
    body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
    node = Member(Endpoint("n", "", "127.0.0.1", 9), Settings())
    assert refusal_of(node, Reply(status, {}, body, 0), writing=True).status == told


def test_a_body_for_a_server_that_stores_cut_uploads_is_read_whole_first() -> None:
    file, digest = spool_whole(io.BytesIO(b"hello"), 5)
    assert (file.read(), digest) == (b"hello", "XUFAKrxLKna5cZ2REBfFkg==")
    with pytest.raises(BodyError):
        spool_whole(io.BytesIO(b"hell"), 5)
