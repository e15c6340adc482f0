"""The record-keeper of fake nodes: it answers as S3 does.

Here it is asked as a node is, on a socket of its own.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator

import pytest

from tests.harness.fakes import serving

SERVER = """
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := read_head(self.rfile):
            body = self.rfile.read(int(head[2].get("content-length", 0)))
            self.wfile.write(keep_record(*head, body) or b"HTTP/1.1 299 Other\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""  # noqa: E501
KEY, BUCKET = "/objgw-layout/layout", "/objgw-layout"


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


@pytest.fixture
def node() -> Iterator[http.client.HTTPConnection]:
    """A connection to a record-keeper that holds nothing."""
    with serving(SERVER) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        yield connection
        connection.close()


def ask(
    node: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", **conditions: str
) -> tuple[int, str | None, bytes]:
    """Status, ETag and body of the answer."""
    node.request(
        method, path, body, {name.replace("_", "-"): value for name, value in conditions.items()}
    )
    answer = node.getresponse()
    return answer.status, answer.headers["ETag"], answer.read()


def test_before_its_bucket_is_made_there_is_none(node: http.client.HTTPConnection) -> None:
    for method in ("GET", "PUT"):
        status, _, body = ask(node, method, KEY)
        assert (status, body) == (404, b"<Error><Code>NoSuchBucket</Code></Error>")
    assert ask(node, "HEAD", BUCKET)[0] == 404
    assert (
        ask(node, "PUT", BUCKET)[0]
        == ask(node, "PUT", BUCKET)[0]
        == ask(node, "HEAD", BUCKET)[0]
        == 200
    )
    assert ask(node, "GET", KEY) == (404, None, b"<Error><Code>NoSuchKey</Code></Error>")


CONDITIONS: list[
    tuple[str, dict[str, str], bytes | None, int]
] = [  # method, conditions, what is stored, the status
    ("PUT", {"If_None_Match": "*"}, None, 200),
    ("PUT", {"If_None_Match": "*"}, b"old", 412),
    ("PUT", {"If_None_Match": etag(b"old")}, b"old", 412),
    ("PUT", {"If_None_Match": etag(b"other")}, b"old", 200),
    ("PUT", {"If_Match": etag(b"old")}, b"old", 200),
    ("PUT", {"If_Match": etag(b"other")}, b"old", 412),
    ("PUT", {"If_Match": "*"}, b"old", 200),
    ("PUT", {"If_Match": etag(b"old")}, None, 404),
    ("PUT", {"If_Match": "*"}, None, 404),
    ("PUT", {}, b"old", 200),
    ("GET", {"If_None_Match": etag(b"old")}, b"old", 304),
    ("GET", {"If_None_Match": etag(b"other")}, b"old", 200),
    ("GET", {"If_None_Match": etag(b"old")}, None, 404),
    ("GET", {"If_Match": etag(b"other")}, b"old", 412),
    ("HEAD", {"If_None_Match": etag(b"old")}, b"old", 304),
    ("HEAD", {}, b"old", 200),
    ("DELETE", {}, b"old", 204),
    ("DELETE", {}, None, 204),
    ("POST", {}, b"old", 405),
]


@pytest.mark.parametrize(("method", "conditions", "stored", "status"), CONDITIONS)
def test_conditions_are_decided_as_s3_decides_them(
    node: http.client.HTTPConnection,
    method: str,
    conditions: dict[str, str],
    stored: bytes | None,
    status: int,
) -> None:
    ask(node, "PUT", BUCKET)
    if stored is not None:
        assert ask(node, "PUT", KEY, stored) == (200, etag(stored), b"")
    given = ask(node, method, KEY, b"new" if method == "PUT" else b"", **conditions)
    assert given[0] == status
    if status in (200, 304):
        assert given[1] == etag(b"new" if method == "PUT" else b"old")
    after = b"new" if (method, status) == ("PUT", 200) else None if method == "DELETE" else stored
    found = ask(node, "GET", KEY)
    assert found == (
        (404, None, b"<Error><Code>NoSuchKey</Code></Error>")
        if after is None
        else (200, etag(after), after)
    )


def test_other_paths_are_the_fakes_own(node: http.client.HTTPConnection) -> None:
    assert {ask(node, "GET", path)[0] for path in ("/objgw/layout", "/objgw-layout2", "/")} == {299}
