"""What is read of a copy, and what is deleted. The nodes here are socket servers."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.ctl import deletions
from gateway.ctl.client import NodeClient
from gateway.ctl.deletions import Deletions
from gateway.ctl.errors import CommandError, LayoutChanged, NodeError
from gateway.ctl.lock import WorkLock
from gateway.ctl.source import Source, get_request
from gateway.nodes.layout import Layout
from gateway.nodes.record_json import dump
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

RECORD = dump(Layout.first(["a"]), "a")
BODY = bytes(range(256)) * 1000


def base(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class FakeNode(ThreadingHTTPServer):
    """A node with one object, which deletes whatever it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.headers: dict[str, str] = {}
        self.deleted: list[list[str]] = []  # the keys of each request
        self.answer = b"<DeleteResult/>"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = Endpoint("a", "", "127.0.0.1", self.server_port, "key", "secret")
        self.client = NodeClient(endpoint, Settings(), lambda: None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeNode

    def do_GET(self) -> None:
        of_record = self.path == "/objgw-layout/layout"
        self._send(RECORD if of_record else BODY, {} if of_record else self.server.headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/objgw?delete="
        assert self.headers["Content-MD5"] == base(hashlib.md5(body).digest())
        self.server.deleted.append(re.findall(r"<Key>(\w+)</Key>", body.decode()))
        self._send(self.server.answer, {})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"ETag": '"e"', **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def node() -> Iterator[FakeNode]:
    node = FakeNode()
    yield node
    node.client.close()
    node.shutdown()
    node.server_close()


def read(node: FakeNode) -> tuple[Source, bytes]:
    reply = node.client.begin(get_request("/objgw/x", '"e"'))
    source = Source(node.client, reply, lambda _: None)
    return source, source.read(source.size, 1000)


CHECKSUMS = {
    "sha256": base(hashlib.sha256(BODY).digest()),
    "sha1": base(hashlib.sha1(BODY).digest()),
    "crc32": base(zlib.crc32(BODY).to_bytes(4)),
}


@pytest.mark.parametrize("name", CHECKSUMS)
def test_what_is_read_is_compared_with_the_checksum_that_was_stored(
    node: FakeNode, name: str
) -> None:
    header = f"x-amz-checksum-{name}"
    node.headers = {header: CHECKSUMS[name]}
    source, body = read(node)
    assert body == BODY
    source.verify()
    node.headers = {header: base(bytes(len(base64.b64decode(CHECKSUMS[name]))))}
    source, _ = read(node)
    with pytest.raises(CommandError, match="aren't those of the checksum"):
        source.verify()


@pytest.mark.parametrize(
    "headers", [{}, {"x-amz-checksum-crc32": "AAAAAA==-2"}, {"x-amz-checksum-crc64nvme": "AAAA"}]
)
def test_without_a_checksum_of_all_bytes_an_etag_is_not_taken_for_one(
    node: FakeNode, headers: dict[str, str]
) -> None:
    node.headers = {"ETag": f'"{32 * "0"}"', **headers}
    source, body = read(node)
    assert body == BODY
    source.verify()


def deletions_of(node: FakeNode, check: list[str]) -> Deletions:
    """Deletions on the node, of which `check` gets the names that the lock is asked for."""
    cluster = SimpleNamespace(bucket="objgw", client=lambda _: node.client)
    lock = SimpleNamespace(cluster=cluster, check=check.append, stop=threading.Event())
    return Deletions(cast(WorkLock, lock))


def test_copies_are_deleted_together_when_they_are_many_or_all_is_done(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "KEYS", 3)
    monkeypatch.setattr(deletions, "WAIT_SECONDS", 60)
    checked: list[str] = []
    waiting = deletions_of(node, checked)
    for key in "abcd":
        waiting.add("a", key)
    assert node.deleted == [["a", "b", "c"]]
    waiting.flush()
    waiting.flush()
    assert node.deleted == [["a", "b", "c"], ["d"]]
    assert checked == ["a", "a"]


def test_no_copy_waits_long_for_others(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "WAIT_SECONDS", 0)
    waiting = deletions_of(node, [])
    for key in "ab":
        waiting.add("a", key)
    assert node.deleted == [["a"], ["b"]]


def test_nothing_is_deleted_after_the_layout_has_changed(node: FakeNode) -> None:
    waiting = deletions_of(node, [])

    def changed(*_: str) -> None:
        raise LayoutChanged

    waiting._lock.check = changed  # type: ignore[method-assign]
    waiting.add("a", "x")
    with pytest.raises(LayoutChanged):
        waiting.flush()
    assert node.deleted == []


def test_a_copy_that_is_not_deleted_is_an_error_and_one_that_is_gone_is_none(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "MOVE_ATTEMPTS", 1)
    error = "<DeleteResult><Error><Key>x</Key><Code>{}</Code></Error></DeleteResult>".format
    waiting = deletions_of(node, [])
    node.answer = error("NoSuchKey").encode()
    waiting.add("a", "x")
    waiting.flush()
    node.answer = error("AccessDenied").encode()
    waiting.add("a", "x")
    with pytest.raises(NodeError, match="AccessDenied"):
        waiting.flush()
