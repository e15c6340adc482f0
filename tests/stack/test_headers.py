"""Headers: what is kept with an object, and that nothing else passes in either direction."""

from __future__ import annotations

import re

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import OTHER, Wire, code, head, pattern, store
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

UTF8 = "größe ≥ 5 €".encode().decode("latin-1")

KEPT = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Type", 'multipart/mixed; boundary="a b"'),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "gzip, br"),
    ("Content-Disposition", 'attachment; filename="a b.txt"'),
    ("Content-Disposition", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe"),
    ("Content-Language", "de, en"),
    ("Cache-Control", "public, max-age=3600"),
    ("Expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
    ("x-amz-meta-a", "b"),
    ("x-amz-meta-a", "b,c, d"),
    ("X-Amz-Meta-Mixed-Case", "Mixed Case"),
    ("x-amz-meta-a", 'b; c="d" %20 + & / ? # \' \\'),
    ("x-amz-meta-long", "y" * 1500),
]

# Exact, or a clear 400: never a server error, never changed in silence.
EXACT_OR_REFUSED = [
    ("x-amz-meta-a", UTF8),
    ("x-amz-meta-a", "gr\xf6\xdfe"),
    ("x-amz-meta-a", "two  blanks"),
    ("x-amz-meta-a", "a\ttab"),
    ("x-amz-meta-a", ""),
    ("x-amz-meta-a", "=?UTF-8?B?w6Q=?="),
    ("x-amz-meta-a", "y" * 5000),
    ("x-amz-meta-a.b!c", "token"),
    ("Content-Type", f"text/{UTF8}"),
    ("Content-Disposition", f'attachment; filename="{UTF8}"'),
    ("Content-Disposition", 'attachment; filename="gr\xf6\xdfe"'),
    ("Content-Disposition", 'attachment; filename="two  blanks"'),
    ("Content-Language", "\xe4"),
    ("Content-Encoding", "aws-chunked"),
    ("Content-Encoding", "gzip,  br"),
    ("Cache-Control", "x  y\tz"),
    ("Expires", "0"),
    ("Expires", "Sunday, 06-Nov-94 08:49:37 GMT"),
    ("Expires", "\xe4  \xe4"),
]


def title(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{name}: {value[:30]}".encode("unicode_escape").decode() for name, value in rows]


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize(("name", "value"), KEPT, ids=title(KEPT))
def test_headers_are_kept_with_the_object(
    gateway: Gateway, name: str, value: str, size: int
) -> None:
    id = random_id()
    assert gateway.put(id, pattern(size), headers={name: value}).status == 200
    for answer in (
        gateway.get(id),
        gateway.head(id),
        gateway.get(id, headers={"Range": "bytes=0-1"}),
    ):
        assert answer.headers.get_all(name) == [value]


@pytest.mark.parametrize(("name", "value"), EXACT_OR_REFUSED, ids=title(EXACT_OR_REFUSED))
def test_odd_header_values_are_kept_exactly_or_refused(
    gateway: Gateway, name: str, value: str
) -> None:
    id = random_id()
    put = gateway.put(id, b"body", headers={name: value})
    got, seen = gateway.get(id), gateway.head(id)
    if code(put) == 200:
        assert got.headers.get_all(name) == seen.headers.get_all(name) == [value]
    else:
        assert (put.status, got.status) == (400, 404)


def test_an_upload_without_a_content_type_has_a_neutral_one(gateway: Gateway) -> None:
    assert gateway.get(store(gateway)).headers["Content-Type"] == "application/octet-stream"


def test_an_upload_replaces_all_headers_of_the_old_object(gateway: Gateway) -> None:
    id = store(gateway, x_amz_meta_a="old", cache_control="no-store", content_type="text/old")
    store(gateway, b"new", id, x_amz_meta_b="new")
    headers = gateway.get(id).headers
    assert (headers["x-amz-meta-a"], headers["Cache-Control"], headers["x-amz-meta-b"]) == (
        None,
        None,
        "new",
    )


def test_repeated_metadata_becomes_one_list(gateway: Gateway) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, "x-amz-meta-a: b", "x-amz-meta-a: c", "Content-Length: 0"))
        assert wire.answer().status == 200
    assert re.fullmatch("b, ?c", gateway.get(id).headers["x-amz-meta-a"])


OF_THE_SERVER = {"server", "date", "connection", "x-request-id", "server-timing"}

OF_AN_OBJECT = {
    "content-length",
    "content-type",
    "etag",
    "last-modified",
    "accept-ranges",
    "x-amz-meta-a",
}

FOR_BROWSERS = {"x-content-type-options", "content-security-policy"}

OF_A_PROBLEM = {"content-length", "content-type"}

# What is asked of an object with x-amz-meta-a, and which headers may come.
ANSWERED: dict[str, tuple[str, dict[str, str], int, set[str]]] = {
    "get": ("GET", {}, 200, OF_AN_OBJECT | FOR_BROWSERS),
    "head": ("HEAD", {}, 200, OF_AN_OBJECT | FOR_BROWSERS),
    "range": ("GET", {"Range": "bytes=1-2"}, 206, OF_AN_OBJECT | FOR_BROWSERS | {"content-range"}),
    "not modified": ("GET", {"If-None-Match": "*"}, 304, OF_AN_OBJECT),
    "failed condition": ("GET", {"If-Match": OTHER}, 412, OF_A_PROBLEM),
    "bad range": (
        "GET",
        {"Range": "bytes=99-"},
        416,
        OF_A_PROBLEM | {"content-range", "accept-ranges"},
    ),
    "put": ("PUT", {"x-amz-meta-a": "b"}, 200, {"etag", "content-length"}),
    "refused put": ("PUT", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, 400, OF_A_PROBLEM),
    "delete": ("DELETE", {}, 204, set()),
}


@pytest.mark.parametrize("row", ANSWERED)
def test_no_header_of_the_node_leaks_to_the_client(gateway: Gateway, row: str) -> None:
    method, headers, status, allowed = ANSWERED[row]
    answer = gateway.request(method, f"/object/{store(gateway, x_amz_meta_a='b')}", headers=headers)
    assert answer.status == status
    assert {name.lower() for name in answer.headers} <= allowed | OF_THE_SERVER
    assert "minio" not in str(answer.headers).lower()
    assert len(answer.headers.keys()) == len(set(answer.headers.keys()))


# What a client might send; none of it may reach the node.
NOT_PASSED = {
    "Authorization": "Bearer secret",
    "Cookie": "secret=1",
    "User-Agent": "curl/8",
    "Accept-Encoding": "gzip",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "other",
    "Forwarded": "for=10.0.0.1",
    "TE": "trailers",
    "Upgrade": "websocket",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "Origin": "http://other",
    "x-amz-date": "20200101T000000Z",
    "x-amz-security-token": "secret",
}

OF_A_SIGNATURE = {"authorization", "x-amz-date", "x-amz-content-sha256"}  # the gateway has its own


def reached(node: Node, id: str) -> dict[str, dict[str, str]]:
    """The headers with which requests for the id reached the node, names in lower case, by S3's
    operation.
    """
    records = [
        record for record in node.stack.lab.audit.of(node.name) if record["api"].get("object") == id
    ]
    return {
        record["api"]["name"]: {
            name.lower(): value for name, value in record["requestHeader"].items()
        }
        for record in records
    }


@pytest.mark.parametrize("name", NOT_PASSED)
def test_no_other_header_of_the_client_reaches_the_node(
    shared: Stack, gateway: Gateway, name: str
) -> None:
    id, value = random_id(), NOT_PASSED[name]
    assert gateway.put(id, b"body", headers={name: value, "x-amz-meta-a": "b"}).status == 200
    assert gateway.get(id, headers={name: value}).body == b"body"
    assert gateway.request("DELETE", f"/object/{id}", headers={name: value}).status == 204
    requests = eventually(lambda: (all := reached(shared.owner(id), id)) and len(all) == 3 and all)
    assert set(requests) == {"PutObject", "GetObject", "DeleteObject"}
    assert requests["PutObject"]["x-amz-meta-a"] == "b"  # headers are in the record
    for headers in requests.values():
        assert headers.get(name.lower()) != value
        assert name.lower() in OF_A_SIGNATURE or name.lower() not in headers
