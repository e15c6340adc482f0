"""Listings of a bucket as S3 gives them, in XML: of objects, and of multipart uploads under way.

Keys come url-encoded, because XML can't carry every character. Nothing here asks a node.

A document is taken from a node that was proved, and still it is parsed with care: it may be so many
bytes long and no more (`DOCUMENT_MAX`), and one that declares a document type is refused, so that
there are no entities to expand. What isn't a listing is a ValueError, and never an empty page.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from gateway.s3.headers import LISTING_PAGE


class Entry(NamedTuple):
    """An object, as a listing has it."""

    key: str
    size: int  # bytes
    etag: str  # quoted
    modified: float  # Unix time, seconds


class Page(NamedTuple):
    """One answer to a listing of objects."""

    entries: list[Entry]
    next: str  # the token of the next page; empty where this is the last one


def iso_time(seconds: float) -> str:
    """A Unix time as ISO 8601 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def query(**parameters: str | int) -> str:
    """A request's query, sorted and encoded as its signature needs it (RFC 3986).

    >>> query(uploads="", prefix="a b")
    '?prefix=a%20b&uploads='
    """
    given = {name.replace("_", "-"): quote(str(each), "") for name, each in parameters.items()}
    return "?" + "&".join(f"{name}={value}" for name, value in sorted(given.items()))


def objects_query(
    start_after: str = "", token: str = "", prefix: str = "", size: int = LISTING_PAGE
) -> str:
    """The query that lists objects: from the beginning, after a key, or from a page's token on.

    `size` is the most entries that the page may have.
    """
    given = {"prefix": prefix} if prefix else {}
    if token:
        given["continuation_token"] = token
    elif start_after:
        given["start_after"] = start_after
    return query(list_type=2, encoding_type="url", max_keys=size, **given)


UPLOADS_QUERY = query(uploads="", encoding_type="url", max_uploads=LISTING_PAGE)


def parse_objects(document: bytes) -> Page:
    """The page of a listing of objects. Raises ValueError where it is none."""
    root = parse_document(document, "ListBucketResult")
    encoded = root.findtext("{*}EncodingType") == "url"
    entries = [
        entry_of(child, encoded=encoded) for child in root if local_name(child) == "Contents"
    ]
    if root.findtext("{*}IsTruncated") != "true":
        return Page(entries, "")
    return Page(entries, text(root, "NextContinuationToken"))


def entry_of(element: ElementTree.Element, *, encoded: bool) -> Entry:
    """What a `Contents` says. Raises ValueError where something is missing."""
    fields = {local_name(child): child.text or "" for child in element}
    try:
        key, size = fields["Key"], int(fields["Size"])
        etag, modified = fields["ETag"].strip('"'), fields["LastModified"]
    except KeyError as error:
        raise ValueError(f"no {error.args[0]}") from None
    if not key or not etag or size < 0:
        raise ValueError("an entry without a key, an ETag or a size")
    key = unquote_plus(key) if encoded and ("%" in key or "+" in key) else key
    return Entry(key, size, f'"{etag}"', datetime.fromisoformat(modified).timestamp())


def parse_uploads(document: bytes) -> list[tuple[str, str]]:
    """Key and id of each multipart upload of a listing. Raises ValueError where it is none."""
    root = parse_document(document, "ListMultipartUploadsResult")
    entries = root.iterfind("{*}Upload")
    return [(key_of(root, entry), text(entry, "UploadId")) for entry in entries]


def parse_document(document: bytes, name: str) -> ElementTree.Element:
    """The root of a document, which has to have this name. Raises ValueError."""
    if b"<!" in document:  # no server of S3 has markup declarations, and keys have no such bytes
        raise ValueError("a document type")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if local_name(root) != name:
        raise ValueError(f"no {name}")
    return root


def local_name(element: ElementTree.Element) -> str:
    """An element's name without its namespace, which not every server gives."""
    return element.tag.rpartition("}")[2]


def key_of(root: ElementTree.Element, entry: ElementTree.Element) -> str:
    """An entry's key. Not every server encodes it, but each says whether it does."""
    key = text(entry, "Key")
    return unquote_plus(key) if root.findtext("{*}EncodingType") == "url" else key


def text(element: ElementTree.Element, name: str) -> str:
    """What an element within this one says. Raises ValueError where there is none."""
    found = element.findtext(f"{{*}}{name}")
    if not found:
        raise ValueError(f"no {name}")
    return found
