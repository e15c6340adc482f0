"""HTTP as clients know it, where S3 differs: pure functions between a request, a node's answer and the client's.

- Conditions (RFC 9110, 13): S3 compares one strong ETag or `*`, and takes one date format; such a condition goes to the
  node. Lists, weak ETags, other dates and several conditions at once are decided here, on the headers of the node's
  answer. A PUT's conditions are always decided by the node, which alone can do it without a race; those that it would
  misjudge are refused.
- Ranges (RFC 9110, 14): one range of bytes goes to the node; all others are ignored, as 14.2 allows.
- Headers: what a PUT may have kept and what an answer gives back are tables. Nothing else passes, either way, and what
  the node would change without a word is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate
from http import HTTPStatus

from gateway.answers import Environ, Headers, Refusal

S3_MAXIMUM = 5 << 40  # bytes of an object


# What a request hands on to the node, as WSGI names it.
CONDITIONS = {
    "HTTP_IF_MATCH": "if-match",
    "HTTP_IF_NONE_MATCH": "if-none-match",
    "HTTP_IF_MODIFIED_SINCE": "if-modified-since",
    "HTTP_IF_UNMODIFIED_SINCE": "if-unmodified-since",
}
KEPT = {
    "HTTP_CONTENT_ENCODING": "content-encoding",
    "HTTP_CONTENT_DISPOSITION": "content-disposition",
    "HTTP_CONTENT_LANGUAGE": "content-language",
    "HTTP_CACHE_CONTROL": "cache-control",
    "HTTP_EXPIRES": "expires",
    "HTTP_CONTENT_MD5": "content-md5",
    "HTTP_IF_MATCH": "if-match",
    "HTTP_IF_NONE_MATCH": "if-none-match",
}
KEPT_AMZ = re.compile(r"HTTP_X_AMZ_(?:META_.+|CHECKSUM_(?:CRC32|CRC32C|CRC64NVME|SHA1|SHA256))")
OURS = "HTTP_X_AMZ_META_OBJGW_"  # what the gateway notes with objects, see gateway.nodes.layout
# What an answer hands back, and what of it a 304 has (RFC 9110, 15.4.5).
ANSWERED = {
    "content-type": "Content-Type",
    "content-length": "Content-Length",
    "content-range": "Content-Range",
    "etag": "ETag",
    "last-modified": "Last-Modified",
    "accept-ranges": "Accept-Ranges",
    "content-encoding": "Content-Encoding",
    "content-disposition": "Content-Disposition",
    "content-language": "Content-Language",
    "cache-control": "Cache-Control",
    "expires": "Expires",
}
# A browser that is sent to an object takes it for what its type says, and runs nothing of it in the gateway's origin.
# https://html.spec.whatwg.org/multipage/browsers.html#sandboxing
HARMLESS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))
NOT_MODIFIED = frozenset({"ETag", "Last-Modified", "Cache-Control", "Expires"})

ETAG = re.compile(r'(?:W/)?"[^"]*"')  # RFC 9110, 8.8.3
IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")  # RFC 9110, 5.6.7
SIMPLE = re.compile(rf'\*|"[^",]*"|{IMF_FIXDATE.pattern}')  # a condition that S3 decides as HTTP does
ONE_RANGE = re.compile(r"(?i:bytes)=((\d{1,18})-(\d{0,18})|-0*[1-9]\d{0,17})")  # in numbers that S3 takes


def reading(method: str, environ: Environ) -> tuple[dict[str, str], dict[str, str]]:
    """The headers with which GET or HEAD asks the node, and the conditions that are decided on its answer."""
    conditions = {name: environ[key] for key, name in CONDITIONS.items() if key in environ}
    headers: dict[str, str] = {}
    if len(conditions) == 1 and SIMPLE.fullmatch(next(iter(conditions.values()))):
        headers, conditions = conditions, headers  # so that the node sends no body in vain
    if method == "GET" and "HTTP_RANGE" in environ:  # RFC 9110, 14.2: it means nothing to HEAD
        found = ONE_RANGE.fullmatch(environ["HTTP_RANGE"])
        if found and not (found[3] and int(found[2]) > int(found[3])):
            headers["range"] = f"bytes={found[1]}"
    return headers, conditions


def writing(environ: Environ) -> dict[str, str]:
    """The headers of an upload that go to the node. Raises Refusal (400) for those that it would change or misjudge."""
    headers = {"content-type": environ.get("CONTENT_TYPE") or "application/octet-stream"}
    for key, value in environ.items():
        if key in KEPT:
            headers[KEPT[key]] = value
        elif key.startswith("HTTP_X_AMZ_") and KEPT_AMZ.fullmatch(key):
            if key.startswith(OURS):
                raise Refusal(HTTPStatus.BAD_REQUEST, "The x-amz-meta-objgw-* headers are the gateway's own.")
            headers[key[5:].replace("_", "-").lower()] = value
            if not value.isascii():  # MinIO would give it back as RFC 2047 words
                raise Refusal(HTTPStatus.BAD_REQUEST, "An x-amz-* header may have ASCII only.")
    if "expires" in headers and not IMF_FIXDATE.fullmatch(headers["expires"]):  # MinIO would drop it
        raise Refusal(HTTPStatus.BAD_REQUEST, "Expires is no date like: Sun, 06 Nov 1994 08:49:37 GMT.")
    if "aws-chunked" in re.split(r"[\s,]+", headers.get("content-encoding", "").lower()):  # MinIO would drop it
        raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Encoding: aws-chunked isn't taken.")
    for name in ("if-match", "if-none-match"):
        if "," in headers.get(name, ""):  # S3 would take the list for one ETag
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name} takes one ETag here, or *.")
    if headers.get("if-none-match", "").startswith("W/"):  # RFC 9110, 13.1.2: compared weakly; S3 knows no weak ones
        headers["if-none-match"] = headers["if-none-match"][2:]
    return headers


def http_time(text: str | None) -> int | None:
    """Seconds since 1970 of a date in one of HTTP's three formats (RFC 9110, 5.6.7), or None."""
    parsed = parsedate(text or "")
    try:
        return int(datetime(*parsed[:6], tzinfo=UTC).timestamp()) if parsed else None
    except ValueError:  # the 99th of November
        return None


def precondition(conditions: Mapping[str, str], answer: Mapping[str, str]) -> HTTPStatus:
    """What RFC 9110, 13.2.2 makes of GET and HEAD: 200, 304 or 412. `answer` has the headers of the object.

    >>> precondition({"if-none-match": 'W/"a", "b"'}, {"etag": '"a"'}).value
    304
    """
    etag, modified = answer.get("etag", ""), http_time(answer.get("last-modified")) or 0
    match, none_match = conditions.get("if-match"), conditions.get("if-none-match")
    if match is not None:
        if match != "*" and etag not in ETAG.findall(match):
            return HTTPStatus.PRECONDITION_FAILED
    elif (since := http_time(conditions.get("if-unmodified-since"))) is not None and modified > since:
        return HTTPStatus.PRECONDITION_FAILED
    if none_match is not None:
        if none_match == "*" or etag in [each.removeprefix("W/") for each in ETAG.findall(none_match)]:
            return HTTPStatus.NOT_MODIFIED
    elif (since := http_time(conditions.get("if-modified-since"))) is not None and modified <= since:
        return HTTPStatus.NOT_MODIFIED
    return HTTPStatus.OK


def permits(conditions: Mapping[str, str], etag: str | None) -> bool:
    """Whether an upload's conditions, as `writing` leaves them, allow it. `etag` is None where there is no object.

    >>> permits({"if-none-match": "*"}, None), permits({"if-match": '"a"'}, '"b"')
    (True, False)
    """
    match, none_match = conditions.get("if-match"), conditions.get("if-none-match")
    if match is not None and (etag is None or match not in ("*", etag)):
        return False
    return none_match is None or etag is None or none_match not in ("*", etag)


def unchanged(validator: str | None, status: int, answer: Mapping[str, str]) -> bool:
    """If-Range (RFC 9110, 13.1.5), which MinIO doesn't know: whether its answer to a range is the one that is meant."""
    if validator is None or status not in (206, 416):
        return True
    return status == 206 and validator in (answer.get("etag"), answer.get("last-modified"))


def answered(answer: Mapping[str, str]) -> Headers:
    """The headers of a node's answer that are the client's business."""
    headers = list(HARMLESS)
    for name, value in answer.items():
        if name in ANSWERED:
            headers.append((ANSWERED[name], value))
        elif name.startswith("x-amz-meta-") and not name.startswith("x-amz-meta-objgw-"):
            headers.append((name, value))
    return headers
