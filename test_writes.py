"""No silent success: what a PUT or DELETE asks for is carried out, or refused with the reason and nothing is changed.

Everything goes over real sockets to the gateway's container and to real MinIO nodes. Each kind of thing that might be
asked for is a table; a row is one example of it. `OLD_SERVER` stands for servers that take no notice of conditions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import minio
import pytest
from docker.models.containers import Container
from minio.credentials.providers import StaticProvider

from conftest import BUCKET, Gateway, Lab, Stack, always, eventually, owner, random_id, together
from test_http import MD5, MIB, OTHER, TE, Wire, chunked, code, head, pattern, store

# ---------------------------------------------------------------------------------------------------------------------
# What isn't carried out
# ---------------------------------------------------------------------------------------------------------------------
UNFRAMED = "x-amz-content-sha256: STREAMING"
PAST, FUTURE = "Sun, 06 Nov 1994 08:49:37 GMT", "Tue, 06 Nov 2091 08:49:37 GMT"
# What a PUT may have besides, each a query or header lines, by the status that it gets.
NOT_CARRIED_OUT: dict[int, list[str]] = {
    400: [
        # a part of an object
        "Content-Range: bytes 5-9/10",
        "Content-Range: bytes 0-9/10",
        "Content-Range: bytes 5-9/*",
        "Content-Range: bytes */10",
        "Content-Range: lines 5-9/10",
        "Content-Range: ",
        "Upload-Complete: ?0",
        # other operations of S3
        *("?tagging", "?acl", "?partNumber=2&uploadId=x", "?uploads", "?versionId=1", "?retention", "?x-id=PutObject"),
        *("?x", "?X-Amz-Signature=0", "?%74agging"),
        "x-amz-copy-source: /objgw/other",
        "x-amz-copy-source: /objgw/other\r\nx-amz-copy-source-range: bytes=0-1",
        "x-amz-write-offset-bytes: 5",
        # what would be stored with it
        "x-amz-acl: public-read",
        "x-amz-grant-read: uri=x",
        "x-amz-tagging: a=b",
        "x-amz-storage-class: REDUCED_REDUNDANCY",
        "x-amz-server-side-encryption: AES256",
        "x-amz-server-side-encryption-customer-algorithm: AES256",
        "x-amz-object-lock-mode: COMPLIANCE",
        "x-amz-object-lock-legal-hold: ON",
        "x-amz-website-redirect-location: /other",
        "x-amz-meta-: v",
        "x-minio-source-mtime: 2020-01-01T00:00:00Z",
        "x-minio-extract: true",
        "x-minio-force-delete: true",
        # S3's own framing of a body
        f"{UNFRAMED}-AWS4-HMAC-SHA256-PAYLOAD\r\nx-amz-decoded-content-length: 5",
        f"{UNFRAMED}-AWS4-HMAC-SHA256-PAYLOAD",
        f"{UNFRAMED}-AWS4-HMAC-SHA256-PAYLOAD-TRAILER\r\nx-amz-trailer: x-amz-checksum-crc32",
        f"{UNFRAMED}-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        f"{UNFRAMED}-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length: 5",
        "x-amz-trailer: x-amz-checksum-crc32",
        "Content-Encoding: aws-chunked",
        "Content-Encoding: aws-chunked,gzip",
        "Content-Encoding: gzip, AWS-Chunked",
        # checksums that nobody compares, and such that are none
        "Content-Digest: sha-256=:AAAA:",
        "Repr-Digest: sha-256=:AAAA:",
        "Digest: SHA-256=AAAA",
        "x-amz-checksum-crc128: AAAA",
        "x-amz-content-sha256: 0123",
        f"x-amz-content-sha256: {'0' * 64}",
        "x-amz-content-sha256: ",
        "Trailer: x-amz-checksum-crc32",
        "Trailer: X-End, Content-MD5",
        *(f"{name}: " for name in ("Content-MD5", "x-amz-checksum-crc32", "x-amz-checksum-sha256")),
        # conditions that are none, or that S3 would take for others
        *(f"{name}: {value}" for name in ("If-Match", "If-None-Match") for value in ("", MD5[1:-1], MD5[:-1], "**")),
        f"If-Match: {MD5}\r\nIf-Match: {OTHER}",
        # names that can't be told from others
        *("x-amz-meta-my_key: v", "X_Amz_Meta_A: v", "x_amz_acl: private", "Content_Range: bytes 5-9/10"),
        *("If_Match: *", "if_unmodified_since: x", "Content_Type: text/plain", "content_md5: AAAA"),
        # another method
        *(f"{name}: DELETE" for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")),
        # values that the node would change
        "Content-Encoding: ",
        "x-amz-meta-a: gr\xf6\xdfe",
    ],
    501: [  # conditions that no node decides together with the upload
        *(f"If-Unmodified-Since: {date}" for date in (PAST, FUTURE, "yesterday", "")),
        f"If-None-Match: {OTHER}\r\nIf-Unmodified-Since: {PAST}",
        "If: (<urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2>)",
        'If-Schedule-Tag-Match: "x"',
    ],
}
ROWS = [(row, status) for status, rows in NOT_CARRIED_OUT.items() for row in rows]


def title(rows: list[tuple[str, int]]) -> list[str]:
    return [f"{row[:60]!r}" for row, _ in rows]


def asking(method: str, id: str, row: str, *headers: str) -> bytes:
    """The head of a request for the id with what the row says."""
    lines = () if row.startswith("?") else (row,)
    return head(method, id + row if not lines else id, *headers, *lines)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("row", "status"), ROWS, ids=title(ROWS))
def test_an_upload_that_asks_for_what_is_not_carried_out_is_refused_before_its_body(
    gateway: Gateway, landmark: tuple[str, bytes], row: str, status: int, framing: str
) -> None:
    there, missing = store(gateway), random_id()
    for id in (there, missing):
        with Wire(gateway) as wire:
            wire.send(
                asking("PUT", id, row, "Content-Length: 5" if framing == "length" else TE, "Expect: 100-continue")
            )
            if row == f"x-amz-content-sha256: {'0' * 64}":  # a checksum, which only the whole body belies
                assert wire.answer().status == 100
                wire.send(b"hello" if framing == "length" else chunked(b"hello"))
            answer = wire.answer()
            assert code(answer) == status
            wire.assert_in_step(answer, *landmark)
    assert gateway.get(there).body == b"an object"
    assert gateway.get(missing).status == 404


# The same of DELETE.
NOT_DELETED = {
    400: [
        *("?tagging", "?versionId=1", "?uploadId=x", "?x"),
        *("Content-Range: bytes 0-1/2", "x-minio-force-delete: true", "x-amz-if-match-size: 9", "x-amz-mfa: 1 2"),
        *("x-amz-expected-bucket-owner: 1", "X-HTTP-Method-Override: GET", "If_Match: *"),
    ],
    501: [
        *(f"{name}: {value}" for name in ("If-Match", "If-None-Match") for value in (MD5, OTHER, "*", "", f"W/{MD5}")),
        *(f"If-Unmodified-Since: {date}" for date in (PAST, FUTURE, "")),
        "If: (<urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2>)",
    ],
}
DELETES = [(row, status) for status, rows in NOT_DELETED.items() for row in rows]


@pytest.mark.parametrize("again", [False, True], ids=["first", "on a connection that had others"])
@pytest.mark.parametrize(("row", "status"), DELETES, ids=title(DELETES))
def test_a_delete_that_asks_for_more_deletes_nothing(
    gateway: Gateway, landmark: tuple[str, bytes], row: str, status: int, again: bool
) -> None:
    id = store(gateway)
    with Wire(gateway) as wire:
        if again:
            for _ in range(2):
                wire.send(head("GET", landmark[0]))
                assert wire.answer().body == landmark[1]
        wire.send(asking("DELETE", id, row))
        answer = wire.answer()
        assert code(answer) == status
        wire.assert_in_step(answer, *landmark)
    assert gateway.get(id).body == b"an object"


# What has no effect on what is stored or deleted, as its RFC says, or says nothing of the object.
WITHOUT_EFFECT = [
    "Range: bytes=0-1",
    'If-Range: "x"',
    f"If-Modified-Since: {FUTURE}",
    "x-amz-date: 20200101T000000Z",
    "x-amz-security-token: secret",
    "x-amz-user-agent: x",
    "x-amz-sdk-checksum-algorithm: CRC32",
    "x-amz-cf-id: x",
    "X-Amzn-Trace-Id: x",
    "X_Forwarded_For: 10.0.0.1",
    "Trailer: X-End",
    "Content-Location: /other",
]


@pytest.mark.parametrize("row", WITHOUT_EFFECT)
def test_what_says_nothing_of_the_object_has_no_effect(gateway: Gateway, row: str) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(asking("PUT", id, row, "Content-Length: 5"), b"hello")
        assert wire.answer().status == 200
        wire.send(head("GET", id))
        assert wire.answer().body == b"hello"
        wire.send(asking("DELETE", id, row))
        assert wire.answer().status == 204
    assert gateway.get(id).status == 404


@pytest.mark.parametrize("row", [row for row, _ in ROWS if row.startswith(("?", "x-amz-", "Content-Range"))])
def test_reading_ignores_queries_and_what_writing_would_refuse(gateway: Gateway, row: str) -> None:
    id = store(gateway)
    for method in ("GET", "HEAD"):
        with Wire(gateway) as wire:
            wire.send(asking(method, id, row))
            assert wire.answer(method).status == 200


def test_if_match_comes_before_a_date_that_would_not_be_decided(gateway: Gateway) -> None:
    id = store(gateway)
    headers = {"If-Match": MD5, "If-Unmodified-Since": PAST}  # RFC 9110, 13.2.2: the date isn't looked at
    assert code(gateway.put(id, b"new", headers=headers)) == 200
    assert code(gateway.put(id, b"newer", headers=headers)) == 412
    assert gateway.get(id).body == b"new"


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_an_upload_of_http_1_0_without_a_length_is_411_where_one_of_http_1_1_is_empty(
    gateway: Gateway, version: str
) -> None:
    id = store(gateway)
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, version=version))
        assert code(wire.answer()) == (411 if version == "HTTP/1.0" else 200)
    assert gateway.get(id).body == (b"an object" if version == "HTTP/1.0" else b"")


def test_a_form_that_is_put_is_stored_as_it_is(gateway: Gateway) -> None:
    id, form = random_id(), b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nbytes\r\n--x--\r\n'
    gateway.put(id, form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert gateway.get(id).body == form


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_the_digest_with_which_s3_clients_sign_a_body_is_compared(gateway: Gateway, size: int, chunks: bool) -> None:
    id, body, other = random_id(), pattern(size), hashlib.sha256(b"other").hexdigest()
    for digest, status in ((other, 400), (hashlib.sha256(body).hexdigest().upper(), 200), ("UNSIGNED-PAYLOAD", 200)):
        sent = iter([body]) if chunks else body
        assert code(gateway.put(id, sent, headers={"x-amz-content-sha256": digest})) == status
        assert gateway.get(id).status == (200 if status == 200 else 404)
    assert gateway.get(id).body == body


# ---------------------------------------------------------------------------------------------------------------------
# Values that come back byte for byte
# ---------------------------------------------------------------------------------------------------------------------
def latin(text: str) -> str:
    """What HTTP's headers have for this text in UTF-8."""
    return text.encode().decode("latin-1")


EXACT = [
    ("Content-Disposition", latin("attachment; filename=voilà")),  # ends with the byte A0
    ("Content-Disposition", latin("attachment; filename=…")),
    ("Content-Disposition", "\x85begins with NEL, ends with NBSP\xa0"),
    ("Content-Language", "\xa0"),
    ("Cache-Control", latin("no-store, x=Å")),  # ends with the byte 85
    ("Content-Type", latin("text/x; name=voilà")),
    ("Expires", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("Expires", "Thu, 29 Feb 2024 23:59:59 GMT"),
    ("x-amz-meta-a", "b, c;  d"),
]


@pytest.mark.parametrize(("name", "value"), EXACT)
def test_a_value_comes_back_byte_for_byte(gateway: Gateway, name: str, value: str) -> None:
    id = random_id()
    assert gateway.put(id, b"body", headers={name: value}).status == 200
    assert gateway.get(id).headers.get_all(name) == gateway.head(id).headers.get_all(name) == [value]


NO_DATES = [
    "Sun, 99 Nov 1994 08:49:37 GMT",
    "Thu, 31 Feb 1994 08:49:37 GMT",
    "Tue, 29 Feb 2023 08:49:37 GMT",
    "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 23:59:60 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT",
    "Mon, 06 Nov 1994 08:49:37 GMT",
    "Xyz, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Abc 1994 08:49:37 GMT",
    "Sun, 6 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 +0900",
    "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "0",
    "-1",
    "",
]


@pytest.mark.parametrize("value", NO_DATES)
def test_expires_that_is_no_date_as_servers_write_it_is_400(gateway: Gateway, value: str) -> None:
    id = random_id()
    assert code(gateway.put(id, b"body", headers={"Expires": value})) == 400
    assert gateway.get(id).status == 404


def test_a_rebalance_takes_headers_along_byte_for_byte(stack: Stack) -> None:
    stack.add_nodes("1")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    stored = {random_id(): (name, value, size) for name, value in EXACT for size in (10, 6 * MIB) for _ in range(3)}
    for id, (name, value, size) in stored.items():
        assert gateway.put(id, pattern(size), headers={name: value}).status == 200
    before = {id: stack.nodes[0].client().stat_object(BUCKET, id).metadata for id in stored}
    stack.add_node("2")
    gateway.wait_layout([node.name for node in stack.nodes])
    done = gateway.ctl("rebalance")
    assert done.code == 0, done
    moved = [id for id in stored if stack.owner(id) is stack.nodes[1]]
    assert {stored[id][2] for id in moved} == {10, 6 * MIB}
    for id, (name, value, size) in stored.items():
        answer = gateway.get(id)
        assert answer.headers.get_all(name) == [value]
        assert answer.body == pattern(size)
        node = stack.owner(id)
        kept, old = node.client().stat_object(BUCKET, id).metadata, before[id]
        assert kept is not None
        assert old is not None
        assert {name: kept[name] for name in kept if name.lower() in ANSWERED} == {
            name: old[name] for name in old if name.lower() in ANSWERED
        }
        assert node.ids() >= {id}


ANSWERED = {name.lower() for name, _ in EXACT} | {"etag", "last-modified", "content-length"}

# ---------------------------------------------------------------------------------------------------------------------
# Conditions come before ranges, and only a date is a date
# ---------------------------------------------------------------------------------------------------------------------
# The range, the conditions, the status of a GET of "an object".
BEFORE_RANGES: dict[str, tuple[str, dict[str, str], int]] = {
    "if-match, list without it": ("bytes=99-", {"If-Match": f'{OTHER}, "b"'}, 412),
    "if-match, list with it": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}"}, 416),
    "if-match, one": ("bytes=99-", {"If-Match": OTHER}, 412),
    "if-match, right": ("bytes=99-", {"If-Match": MD5}, 416),
    "if-none-match, list with it": ("bytes=99-", {"If-None-Match": f"{OTHER}, {MD5}"}, 304),
    "if-none-match, weak": ("bytes=99-", {"If-None-Match": f"W/{MD5}"}, 304),
    "if-none-match, list without it": ("bytes=99-", {"If-None-Match": f'{OTHER}, "b"'}, 416),
    "if-none-match, one": ("bytes=99-", {"If-None-Match": MD5}, 304),
    "unmodified, RFC 850": ("bytes=99-", {"If-Unmodified-Since": "Sunday, 06-Nov-94 08:49:37 GMT"}, 412),
    "unmodified, asctime": ("bytes=99-", {"If-Unmodified-Since": "Sun Nov  6 08:49:37 1994"}, 412),
    "two": ("bytes=99-", {"If-Match": MD5, "If-None-Match": MD5}, 304),
    "two that hold": ("bytes=99-", {"If-Match": MD5, "If-None-Match": OTHER}, 416),
    "a list and If-Range": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}", "If-Range": OTHER}, 200),
    "within, list without it": ("bytes=1-2", {"If-Match": f'{OTHER}, "b"'}, 412),
    "within, list with it": ("bytes=1-2", {"If-Match": f"{OTHER}, {MD5}"}, 206),
    "missing": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}"}, 404),
}


@pytest.mark.parametrize("row", BEFORE_RANGES)
def test_conditions_come_before_ranges(gateway: Gateway, landmark: tuple[str, bytes], row: str) -> None:
    range_, conditions, status = BEFORE_RANGES[row]
    id = random_id() if status == 404 else store(gateway)
    with gateway.session() as session:
        answer = session.request("GET", f"/object/{id}", headers={"Range": range_, **conditions})
        assert code(answer) == status
        if status == 416:
            assert answer.headers["Content-Range"] == "bytes */9"
        assert session.request("GET", f"/object/{landmark[0]}").body == landmark[1]


@pytest.mark.parametrize(
    "value", [*NO_DATES[:6], *NO_DATES[8:13], "Wed, 25 Nov 2026 11:44:27 +0900", "1995-01-01", "99"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_whose_date_is_none_is_ignored(gateway: Gateway, value: str, method: str) -> None:
    id = store(gateway)
    for year in ("1994", "2091"):
        for name in ("If-Modified-Since", "If-Unmodified-Since"):
            if ":60" in value and year + name in ("2091If-Modified-Since", "1994If-Unmodified-Since"):
                continue  # a leap second is one to RFC 9110
            headers = {name: value.replace("1994", year)}
            assert gateway.request(method, f"/object/{id}", headers=headers).status == 200


# ---------------------------------------------------------------------------------------------------------------------
# A node without room
# ---------------------------------------------------------------------------------------------------------------------
def test_a_full_disk_and_a_used_up_quota_are_507_and_leave_the_old_object(stack: Stack) -> None:
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=40m"}
    stack.lab.docker.volumes.create(f"{stack.marker}-1", labels=stack.labels, driver_opts=small)
    full, limited = stack.add_nodes("12")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = {node.name: store(gateway, id=stack.id_of(node)) for node in stack.nodes}
    keys = StaticProvider(limited.user, limited.password)
    admin = minio.MinioAdmin(endpoint=f"{limited.address}:9000", credentials=keys, secure=False)
    admin.bucket_quota_set(BUCKET, 5 * MIB)

    eventually(lambda: code(gateway.put(ids[limited.name], bytes(10 * MIB))) == 507)
    assert gateway.get(ids[limited.name]).body == b"an object"
    filled = [stack.id_of(full) for _ in range(4)]
    answers = [gateway.put(id, bytes(12 * MIB)) for id in filled]
    assert {code(answer) for answer in answers} == {200, 507}
    assert code(gateway.put(ids[full.name], bytes(12 * MIB))) == 507
    assert gateway.get(ids[full.name]).body == b"an object"
    assert " 502 " not in gateway.logs()


# ---------------------------------------------------------------------------------------------------------------------
# A server that takes no notice of conditions
# ---------------------------------------------------------------------------------------------------------------------
# S3 in a few lines, without signatures: objects in memory, and what a MinIO of January 2024 does with conditions.
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
    def do_PUT(self):
        key, body = self.path.split("?")[0], self.rfile.read(int(self.headers["Content-Length"] or 0))
        if key.count("/") == 1:
            stored.setdefault(key, None)
        elif key.rpartition("/")[0] not in stored:
            return self.error(404, "NoSuchBucket")
        else:
            stored[key] = body, self.headers["Content-Type"]
        self.answer(200, ETag='"%s"' % hashlib.md5(body).hexdigest())
    def do_GET(self):
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
        stored.pop(self.path, None)
        self.answer(204)
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""


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
        old = stack.add_fake("old", OLD_SERVER)
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
    there, missing = store(mixed.gateway, id=mixed.id_of(str(mixed.old.name))), mixed.id_of(str(mixed.old.name))
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
        assert [code(mixed.gateway.put(id, b"x", headers=headers)) for headers in (create, create, swap)] == [
            200,
            412,
            412,
        ]


def test_of_30_racing_create_only_uploads_to_a_server_that_ignores_conditions_none_is_called_a_success(
    mixed: Mixed,
) -> None:
    id = mixed.id_of(str(mixed.old.name))
    put = partial(mixed.gateway.put, id, b"x", headers={"If-None-Match": "*"})
    assert {code(answer) for answer in together([put] * 30)} == {501}
    assert mixed.gateway.get(id).status == 404


def test_requests_without_a_condition_go_on_at_a_server_that_ignores_conditions(mixed: Mixed) -> None:
    id = mixed.id_of(str(mixed.old.name))
    for body in (b"first", pattern(100_000)):
        assert code(mixed.gateway.put(id, body)) == 200
        assert mixed.gateway.get(id).body == body
        assert int(mixed.gateway.head(id).headers["Content-Length"]) == len(body)
    assert mixed.gateway.delete(id).status == 204
    assert mixed.gateway.get(id).status == 404


def test_a_server_that_ignores_conditions_is_told_once_in_the_log_in_health_and_by_objgwctl(mixed: Mixed) -> None:
    old = str(mixed.old.name)
    told = json.loads(mixed.gateway.request("GET", "/health").body)["nodes"]
    assert {node["name"]: node["keeps_conditions"] for node in told} == {name: name != old for name in mixed.names}
    assert mixed.gateway.logs().count(f"node {old}: its server ignores conditions on PUT") == 1
    rows = mixed.gateway.layout()["nodes"]
    assert {row["name"]: row["keeps_conditions"] for row in rows} == {name: name != old for name in mixed.names}
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
