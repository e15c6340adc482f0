"""Listings as S3 servers write them."""

from __future__ import annotations

import pytest

from gateway.ctl.copies import StoredCopy
from gateway.nodes.layout import EXPIRING_TOMBSTONE, TOMBSTONE
from gateway.s3.listing import Entry, Page, objects_query, parse_objects, parse_uploads, query

S3 = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
MD5 = "5d41402abc4b2a76b9719d911017c592"
MINIO = f"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult {S3}><Name>objgw</Name><Prefix></Prefix><KeyCount>2</KeyCount>
<MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>
<NextContinuationToken>b1ttaW5pb19=</NextContinuationToken>
<Contents><Key>a%2Bb+c%C3%A9</Key><LastModified>2026-11-25T08:00:00.250Z</LastModified>
<ETag>&#34;{MD5}&#34;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>b</Key><LastModified>2026-11-25T08:00:01Z</LastModified>
<ETag>{MD5}-2</ETag><Size>0</Size></Contents></ListBucketResult>""".encode()
OTHER = f"""<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a+b%20c</Key>
<LastModified>2026-11-25T09:00:00+01:00</LastModified><ETag>"{MD5}"</ETag><Size>5</Size>
</Contents></ListBucketResult>""".encode()
EMPTY = f"<ListBucketResult {S3}><IsTruncated>false</IsTruncated></ListBucketResult>".encode()
EIGHT = 1795593600.0  # 2026-11-25 08:00:00 UTC

PAGES = {
    "minio": (
        MINIO,
        Page(
            [
                Entry("a+b cé", 5, f'"{MD5}"', EIGHT + 0.25),
                Entry("b", 0, f'"{MD5}-2"', EIGHT + 1),
            ],
            "b1ttaW5pb19=",
        ),
    ),
    "keys as they are": (OTHER, Page([Entry("a+b%20c", 5, f'"{MD5}"', EIGHT)], "")),
    "empty": (EMPTY, Page([], "")),
}


@pytest.mark.parametrize(("document", "page"), PAGES.values(), ids=PAGES)
def test_a_page_of_a_listing_is_read_with_its_keys_decoded(document: bytes, page: Page) -> None:
    assert parse_objects(document) == page


NO_LISTINGS = {
    "nothing": b"",
    "html": b"<html><body>hello</body></html>",
    "cut": MINIO[:-30],
    "another document": b"<ListAllMyBucketsResult/>",
    "no key": OTHER.replace(b"<Key>a+b%20c</Key>", b""),
    "an empty key": OTHER.replace(b"a+b%20c", b""),
    "no size": OTHER.replace(b"<Size>5</Size>", b""),
    "a size that is none": OTHER.replace(b">5<", b">five<"),
    "no time": OTHER.replace(b"LastModified", b"Modified"),
    "more to come, but no token": OTHER.replace(b">false<", b">true<"),
    "an ETag that is none": OTHER.replace(f'"{MD5}"'.encode(), b""),
    "a size below zero": OTHER.replace(b">5<", b">-5<"),
    "a document type": b"<!DOCTYPE ListBucketResult [<!ENTITY a 'b'>]>" + OTHER,
    "an entity that grows": b"<!DOCTYPE x [<!ENTITY a 'b'><!ENTITY c '&a;&a;'>]>"
    + OTHER.replace(b"a+b%20c", b"&c;"),
    "more to come, but nothing here": EMPTY.replace(b">false<", b">true<"),
}


@pytest.mark.parametrize("document", NO_LISTINGS.values(), ids=NO_LISTINGS)
def test_what_is_no_listing_is_a_value_error_and_never_an_empty_page(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_objects(document)


def test_multipart_uploads_are_read_with_their_ids() -> None:
    entry = "<Upload><Key>{}</Key><UploadId>{}</UploadId></Upload>".format
    inside = f"<EncodingType>url</EncodingType>{entry('a%2Fb', 'x-1')}{entry('c', 'x_2')}"
    document = f"<ListMultipartUploadsResult {S3}>{inside}</ListMultipartUploadsResult>".encode()
    assert parse_uploads(document) == [("a/b", "x-1"), ("c", "x_2")]
    with pytest.raises(ValueError, match="ListMultipartUploadsResult"):
        parse_uploads(MINIO)


def test_a_copy_is_like_a_tombstone_by_its_size_whatever_its_etag() -> None:
    for body in (TOMBSTONE, EXPIRING_TOMBSTONE):
        assert StoredCopy("n", "a", len(body), f'"{MD5}"', 0.0).like_tombstone
    assert not StoredCopy("n", "a", len(TOMBSTONE) + 1, f'"{MD5}"', 0.0).like_tombstone


QUERIES = {
    "from the beginning": (objects_query(), "?encoding-type=url&list-type=2&max-keys=1000"),
    "after a key": (
        objects_query("a+b é"),
        "?encoding-type=url&list-type=2&max-keys=1000&start-after=a%2Bb%20%C3%A9",
    ),
    "of a prefix, some of them": (
        objects_query("ab", prefix="a", size=7),
        "?encoding-type=url&list-type=2&max-keys=7&prefix=a&start-after=ab",
    ),
    "by a token, also of a listing after a key": (
        objects_query("a", "t/=~"),
        "?continuation-token=t%2F%3D~&encoding-type=url&list-type=2&max-keys=1000",
    ),
    "upper case first, as bytes are sorted": (
        query(partNumber=2, uploadId="x=", part=1),
        "?part=1&partNumber=2&uploadId=x%3D",
    ),
}


@pytest.mark.parametrize(("asked", "expected"), QUERIES.values(), ids=QUERIES)
def test_a_query_is_sorted_and_encoded_as_a_signature_needs_it(asked: str, expected: str) -> None:
    assert asked == expected
