"""HTTP as clients know it, where S3 differs.

These are pure functions. They take a request or a node's answer, and say what the node is asked, or
what the client gets:

- Conditions of GET and HEAD (RFC 9110, 13). S3 compares one strong ETag or `*`, and takes one
  format of dates; such a condition goes to the node. Lists, weak ETags, other dates and several
  conditions at once are decided here, on the headers of the node's answer.
- Ranges (RFC 9110, 14). One range of bytes goes to the node. All others are ignored, as 14.2
  allows.
- Headers. A table has what an answer gives back, and nothing else passes.

What a PUT or DELETE may ask for is in `gateway.objects.writes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from gateway.answers import Environ, Headers
from gateway.objects.dates import http_time, is_canonical
from gateway.s3.headers import STORED

S3_MAXIMUM = 5 << 40  # bytes of an object

# What a request hands on to the node, as WSGI names it.
CONDITIONS = {
    "HTTP_IF_MATCH": "if-match",
    "HTTP_IF_NONE_MATCH": "if-none-match",
    "HTTP_IF_MODIFIED_SINCE": "if-modified-since",
    "HTTP_IF_UNMODIFIED_SINCE": "if-unmodified-since",
}
# What an answer hands back, and what of it a 304 has (RFC 9110, 15.4.5).
OF_AN_ANSWER = ("content-length", "content-range", "last-modified", "accept-ranges")
ANSWERED = {name: name.title() for name in (*STORED, *OF_AN_ANSWER)} | {"etag": "ETag"}
# A browser that is sent to an object takes it for what its type says, and runs nothing of it in
# the gateway's origin.
# https://html.spec.whatwg.org/multipage/browsers.html#sandboxing
HARMLESS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))
NOT_MODIFIED = frozenset({"ETag", "Last-Modified", "Cache-Control", "Expires"})

ETAG = re.compile(r'(?:W/)?"[^"]*"')  # RFC 9110, 8.8.3
# A condition that S3 decides as HTTP does. A canonical date is another one.
SIMPLE = re.compile(r'\*|"[^",]*"')
# One range, in numbers that S3 takes.
ONE_RANGE = re.compile(r"(?i:bytes)=((\d{1,18})-(\d{0,18})|-0*[1-9]\d{0,17})")


def reading(method: str, environ: Environ) -> tuple[dict[str, str], dict[str, str]]:
    """The headers with which GET or HEAD asks the node, and the conditions that are left.

    Those are decided on the node's answer.
    """
    conditions = {name: environ[key] for key, name in CONDITIONS.items() if key in environ}
    headers: dict[str, str] = {}
    if len(conditions) == 1 and all(
        SIMPLE.fullmatch(value) or is_canonical(value) for value in conditions.values()
    ):
        headers, conditions = conditions, headers  # so that the node sends no body in vain
    if method == "GET" and "HTTP_RANGE" in environ:  # RFC 9110, 14.2: it means nothing to HEAD
        found = ONE_RANGE.fullmatch(environ["HTTP_RANGE"])
        if found and not (found[3] and int(found[2]) > int(found[3])):
            headers["range"] = f"bytes={found[1]}"
    return headers, conditions


def precondition(conditions: Mapping[str, str], answer: Mapping[str, str]) -> HTTPStatus:
    """What RFC 9110, 13.2.2 makes of GET and HEAD: 200, 304 or 412.

    `answer` has the headers of the object.

    >>> precondition({"if-none-match": 'W/"a", "b"'}, {"etag": '"a"'}).value
    304
    """
    etag, modified = answer.get("etag", ""), http_time(answer.get("last-modified")) or 0
    match, none_match = conditions.get("if-match"), conditions.get("if-none-match")
    if match is not None:
        if match != "*" and etag not in ETAG.findall(match):
            return HTTPStatus.PRECONDITION_FAILED
    elif (
        since := http_time(conditions.get("if-unmodified-since"))
    ) is not None and modified > since:
        return HTTPStatus.PRECONDITION_FAILED
    if none_match is not None:
        if none_match == "*" or etag in [
            each.removeprefix("W/") for each in ETAG.findall(none_match)
        ]:
            return HTTPStatus.NOT_MODIFIED
    elif (
        since := http_time(conditions.get("if-modified-since"))
    ) is not None and modified <= since:
        return HTTPStatus.NOT_MODIFIED
    return HTTPStatus.OK


def permits(conditions: Mapping[str, str], etag: str | None) -> bool:
    """Whether an upload's conditions, as `writing` leaves them, allow it.

    `etag` is None where there is no object.

    >>> permits({"if-none-match": "*"}, None), permits({"if-match": '"a"'}, '"b"')
    (True, False)
    """
    match, none_match = conditions.get("if-match"), conditions.get("if-none-match")
    if match is not None and (etag is None or match not in ("*", etag)):
        return False
    return none_match is None or etag is None or none_match not in ("*", etag)


def unchanged(validator: str | None, status: int, answer: Mapping[str, str]) -> bool:
    """Whether a node's answer to a range is the one that If-Range means (RFC 9110, 13.1.5).

    MinIO doesn't know If-Range.
    """
    if validator is None or status not in (206, 416):
        return True
    return status == 206 and validator in (answer.get("etag"), answer.get("last-modified"))


def answered(answer: Mapping[str, str]) -> Headers:
    """The headers of a node's answer that are the client's business."""
    headers = list(HARMLESS)
    for name, value in answer.items():
        if known := ANSWERED.get(name):
            headers.append((known, value))
        elif name.startswith("x-amz-meta-") and not name.startswith("x-amz-meta-objgw-"):
            headers.append((name, value))
    return headers
