"""Listings of a bucket as S3 gives them, in XML: of objects, and of multipart uploads under way.

Keys come url-encoded, because XML can't carry every character. Nothing here asks a node.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from gateway.nodes.layout import TOMBSTONE_SIZES
from gateway.s3.headers import LISTING_PAGE


class StoredCopy(NamedTuple):
    """An object on a node.

    A listing says neither epoch nor whether it is a tombstone; HEAD does, but says the time in
    whole seconds.
    """

    node: str
    key: str
    size: int  # bytes
    etag: str  # quoted
    modified: float  # Unix time, seconds
    epoch: int = 0
    deleted: bool = False

    @property
    def age(self) -> tuple[int, float]:
        """Of two copies the newer one has the greater."""
        return self.epoch, self.modified

    @property
    def like_tombstone(self) -> bool:
        """Whether it may be a tombstone, by a listing; HEAD says whether it is."""
        return self.size in TOMBSTONE_SIZES


def iso_time(seconds: float) -> str:
    """A Unix time as ISO 8601 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class Page(NamedTuple):
    """One answer to a listing of objects."""

    copies: list[StoredCopy]
    next: str  # the token of the next page; empty where this is the last one


def query(**parameters: str | int) -> str:
    """A request's query, sorted and encoded as its signature needs it (RFC 3986).

    >>> query(uploads="", prefix="a b")
    '?prefix=a%20b&uploads='
    """
    given = {name.replace("_", "-"): quote(str(each), "") for name, each in parameters.items()}
    return "?" + "&".join(f"{name}={value}" for name, value in sorted(given.items()))


def objects_query(start_after: str = "", token: str = "") -> str:
    """The query that lists objects: from the beginning, after a key, or from a page's token on."""
    where = {"start_after": start_after} if start_after else {}
    where = {"continuation_token": token} if token else where
    return query(list_type=2, encoding_type="url", max_keys=LISTING_PAGE, **where)


UPLOADS_QUERY = query(uploads="", encoding_type="url", max_uploads=LISTING_PAGE)


def parse_objects(node: str, document: bytes) -> Page:
    """The page of a listing of objects. Raises ValueError where it is none."""
    root = parse_document(document, "ListBucketResult")
    copies = [
        StoredCopy(
            node,
            key_of(root, entry),
            int(text(entry, "Size")),
            '"' + text(entry, "ETag").strip('"') + '"',
            datetime.fromisoformat(text(entry, "LastModified")).timestamp(),
        )
        for entry in root.iterfind("{*}Contents")
    ]
    if root.findtext("{*}IsTruncated") != "true":
        return Page(copies, "")
    return Page(copies, text(root, "NextContinuationToken"))


def parse_uploads(document: bytes) -> list[tuple[str, str]]:
    """Key and id of each multipart upload of a listing. Raises ValueError where it is none."""
    root = parse_document(document, "ListMultipartUploadsResult")
    entries = root.iterfind("{*}Upload")
    return [(key_of(root, entry), text(entry, "UploadId")) for entry in entries]


def parse_document(document: bytes, name: str) -> ElementTree.Element:
    """The root of a document, which has to have this name. Raises ValueError."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if root.tag.rpartition("}")[2] != name:
        raise ValueError(f"no {name}")
    return root


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
