"""No silent success: what a PUT or DELETE asks for is carried out, or refused with the reason and
nothing is changed.

Each kind of thing that might be asked for is a table; a row is one example of it.
"""

from __future__ import annotations

import hashlib

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import MD5, OTHER, TE, Wire, chunked, code, head, pattern, store
from tests.harness.waiting import random_id

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
        *(
            "?tagging",
            "?acl",
            "?partNumber=2&uploadId=x",
            "?uploads",
            "?versionId=1",
            "?retention",
            "?x-id=PutObject",
        ),
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
        *(
            f"{name}: {value}"
            for name in ("If-Match", "If-None-Match")
            for value in ("", MD5[1:-1], MD5[:-1], "**")
        ),
        f"If-Match: {MD5}\r\nIf-Match: {OTHER}",
        # names that can't be told from others
        *(
            "x-amz-meta-my_key: v",
            "X_Amz_Meta_A: v",
            "x_amz_acl: private",
            "Content_Range: bytes 5-9/10",
        ),
        *("If_Match: *", "if_unmodified_since: x", "Content_Type: text/plain", "content_md5: AAAA"),
        # another method
        *(
            f"{name}: DELETE"
            for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
        ),
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
                asking(
                    "PUT",
                    id,
                    row,
                    "Content-Length: 5" if framing == "length" else TE,
                    "Expect: 100-continue",
                )
            )
            if (
                row == f"x-amz-content-sha256: {'0' * 64}"
            ):  # a checksum, which only the whole body belies
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
        *(
            "Content-Range: bytes 0-1/2",
            "x-minio-force-delete: true",
            "x-amz-if-match-size: 9",
            "x-amz-mfa: 1 2",
        ),
        *("x-amz-expected-bucket-owner: 1", "X-HTTP-Method-Override: GET", "If_Match: *"),
    ],
    501: [
        *(
            f"{name}: {value}"
            for name in ("If-Match", "If-None-Match")
            for value in (MD5, OTHER, "*", "", f"W/{MD5}")
        ),
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


@pytest.mark.parametrize(
    "row", [row for row, _ in ROWS if row.startswith(("?", "x-amz-", "Content-Range"))]
)
def test_reading_ignores_queries_and_what_writing_would_refuse(gateway: Gateway, row: str) -> None:
    id = store(gateway)
    for method in ("GET", "HEAD"):
        with Wire(gateway) as wire:
            wire.send(asking(method, id, row))
            assert wire.answer(method).status == 200


def test_if_match_comes_before_a_date_that_would_not_be_decided(gateway: Gateway) -> None:
    id = store(gateway)
    headers = {
        "If-Match": MD5,
        "If-Unmodified-Since": PAST,
    }  # RFC 9110, 13.2.2: the date isn't looked at
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
    id, form = (
        random_id(),
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nbytes\r\n--x--\r\n',
    )
    gateway.put(id, form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert gateway.get(id).body == form


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_the_digest_with_which_s3_clients_sign_a_body_is_compared(
    gateway: Gateway, size: int, chunks: bool
) -> None:
    id, body, other = random_id(), pattern(size), hashlib.sha256(b"other").hexdigest()
    for digest, status in (
        (other, 400),
        (hashlib.sha256(body).hexdigest().upper(), 200),
        ("UNSIGNED-PAYLOAD", 200),
    ):
        sent = iter([body]) if chunks else body
        assert code(gateway.put(id, sent, headers={"x-amz-content-sha256": digest})) == status
        assert gateway.get(id).status == (200 if status == 200 else 404)
    assert gateway.get(id).body == body
