"""A server that takes no notice of conditions: what it would ignore is refused.

`OLD_SERVER` stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
from docker.models.containers import Container

from tests.harness.engine import Lab
from tests.harness.fakes import RECORDS
from tests.harness.gateway import Gateway
from tests.harness.http import MD5, OTHER, Wire, code, head, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import always, eventually, owner, random_id, together

# S3 in a few lines, without signatures: objects in memory, and what a MinIO of January 2024 does
# with conditions.
OLD_SERVER = r"""
import hashlib, http.server, urllib.parse
stored, lists = {}, "<ListBucketResult><Name>objgw</Name>%s<IsTruncated>false</IsTruncated></ListBucketResult>"
entry = "<Contents><Key>%s</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>x</ETag>"
entry += "<Size>%d</Size></Contents>"
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def error(self, status, code):
        self.answer(status, b"<Error><Code>%s</Code></Error>" % code.encode())
    def kept(self, body=b"", ignored=()):
        # Whether the request was for the layout's record, and is answered.
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in ignored}
        answer = keep_record(self.command, self.path, headers, body)
        self.wfile.write(answer or b"")
        return bool(answer)
    def do_PUT(self):
        key, body = self.path.split("?")[0], self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.kept(body, ignored=("if-match", "if-none-match")):
            return
        if key.count("/") == 1:
            stored.setdefault(key, None)
        elif key.rpartition("/")[0] not in stored:
            return self.error(404, "NoSuchBucket")
        else:
            stored[key] = body, self.headers["Content-Type"]
        self.answer(200, ETag='"%s"' % hashlib.md5(body).hexdigest())
    def do_GET(self):
        if self.kept():
            return
        key = self.path.split("?")[0]
        if key not in stored:
            return self.error(404, "NoSuchKey" if key.rpartition("/")[0] in stored else "NoSuchBucket")
        if key.count("/") == 1:
            names = sorted(each[len(key) + 1 :] for each in stored if each.startswith(key + "/"))
            sizes = {name: len(stored[f"{key}/{name}"][0]) for name in names}
            return self.answer(200, (lists % "".join(entry % each for each in sizes.items())).encode())
        body, kind = stored[key]
        self.answer(200, body, ETag='"%s"' % hashlib.md5(body).hexdigest(), Content_Type=kind or "x/y",
            Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT")
    do_HEAD = do_GET
    def do_DELETE(self):
        if self.kept():
            return
        stored.pop(self.path, None)
        self.answer(204)
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""  # noqa: E501


class Mixed(NamedTuple):
    """Two MinIO nodes and an old server behind one gateway."""

    stack: Stack
    gateway: Gateway
    old: Container

    @property
    def names(self) -> list[str]:
        return [*(node.name for node in self.stack.nodes), str(self.old.name)]

    def id_of(self, name: str) -> str:
        return next(id for id in iter(random_id, None) if owner(id, self.names) == name)


@pytest.fixture(scope="module")
def mixed(lab: Lab) -> Iterator[Mixed]:
    stack = Stack(lab)
    try:
        old = stack.add_fake("old", RECORDS + OLD_SERVER)
        stack.add_nodes("12")
        mixed = Mixed(stack, stack.add_gateway(), old)
        mixed.gateway.wait_ready([mixed.id_of(name) for name in mixed.names])
        yield mixed
    finally:
        stack.close()


ON_CONDITION = [
    {"If-None-Match": "*"},
    {"If-None-Match": OTHER},
    {"If-Match": "*"},
    {"If-Match": OTHER},
    {"If-Match": MD5},
]


@pytest.mark.parametrize("headers", ON_CONDITION, ids=str)
def test_a_condition_that_the_server_would_ignore_is_501_and_changes_nothing(
    mixed: Mixed, headers: dict[str, str]
) -> None:
    there, missing = (
        store(mixed.gateway, id=mixed.id_of(str(mixed.old.name))),
        mixed.id_of(str(mixed.old.name)),
    )
    lines = [f"{name}: {value}" for name, value in headers.items()]
    for id in (there, missing):
        with Wire(mixed.gateway) as wire:
            wire.send(head("PUT", id, *lines, "Content-Length: 5", "Expect: 100-continue"))
            answer = wire.answer()
            assert code(answer) == 501
            assert "conditions" in answer.problem["detail"]
    assert mixed.gateway.get(there).body == b"an object"
    assert mixed.gateway.get(missing).status == 404


def test_beside_a_server_that_ignores_conditions_minio_decides_them(mixed: Mixed) -> None:
    for name in (node.name for node in mixed.stack.nodes):
        id = mixed.id_of(name)
        create, swap = {"If-None-Match": "*"}, {"If-Match": OTHER}
        assert [
            code(mixed.gateway.put(id, b"x", headers=headers)) for headers in (create, create, swap)
        ] == [
            200,
            412,
            412,
        ]


def test_of_30_racing_create_only_uploads_to_a_server_that_ignores_conditions_none_is_called_a_success(  # noqa: E501
    mixed: Mixed,
) -> None:
    id = mixed.id_of(str(mixed.old.name))
    put = partial(mixed.gateway.put, id, b"x", headers={"If-None-Match": "*"})
    assert {code(answer) for answer in together([put] * 30)} == {501}
    assert mixed.gateway.get(id).status == 404


def test_requests_without_a_condition_go_on_at_a_server_that_ignores_conditions(
    mixed: Mixed,
) -> None:
    id = mixed.id_of(str(mixed.old.name))
    for body in (b"first", pattern(100_000)):
        assert code(mixed.gateway.put(id, body)) == 200
        assert mixed.gateway.get(id).body == body
        assert int(mixed.gateway.head(id).headers["Content-Length"]) == len(body)
    assert mixed.gateway.delete(id).status == 204
    assert mixed.gateway.get(id).status == 404


def test_a_server_that_ignores_conditions_is_told_once_in_the_log_in_health_and_by_objgwctl(
    mixed: Mixed,
) -> None:
    old = str(mixed.old.name)
    wanted = {name: name != old for name in mixed.names}

    def told() -> bool:
        nodes = json.loads(mixed.gateway.request("GET", "/health").body)["nodes"]
        return {node["name"]: node["keeps_conditions"] for node in nodes} == wanted

    eventually(told)
    assert len(mixed.gateway.lines(f"node {old}: its server ignores conditions on PUT")) == 1
    rows = mixed.gateway.layout()["nodes"]
    assert {row["name"]: row["keeps_conditions"] for row in rows} == wanted
    assert f"{old} has a server that ignores conditions on PUT" in mixed.gateway.ctl("nodes").output


def test_with_a_server_that_ignores_conditions_the_layout_stays_as_it_is(mixed: Mixed) -> None:
    names = sorted(mixed.names)
    mixed.gateway.wait_layout(names)
    node = mixed.stack.add_node("4")
    try:

        def states() -> dict[str, str]:
            return {row["name"]: row["state"] for row in mixed.gateway.layout()["nodes"]}

        eventually(lambda: states().get(node.name) == "joining")
        always(lambda: mixed.gateway.layout()["names"] == names, seconds=5)
        done = mixed.gateway.ctl("rebalance")
        assert (done.code, str(mixed.old.name) in done.errors) == (2, True)
    finally:
        node.remove()
        mixed.stack.nodes.remove(node)
