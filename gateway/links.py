"""Links that expire: whoever has one may read or store one object, without a token.

    /object/readme1?expires=1798761600&signature=<64 hexadecimal digits>
    /object/readme1?expires=1798761600&max=10485760&signature=<64 hexadecimal digits>

The first kind is for GET and HEAD, the second one for PUT. The signature is the HMAC-SHA-256
(RFC 2104), with a key that only the gateway and those who make links know, of the parts of the
link with a line feed between them:

    GET, id, expires
    PUT, id, expires, max

No part can have a line feed, so that no two links have the same text. Numbers are signed as they
are written in the link, so that nobody has to know how another program writes one.

A request with a link goes by the link alone: a token beside it isn't looked at. Each link that
isn't valid is 403, and its reason never has the signature.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qsl

from gateway.answers import Refusal

MARKS = frozenset({"expires", "signature"})  # a query with one of these is a link
NUMBER = re.compile(r"[0-9]{1,15}")
SIGNATURE = re.compile(r"[0-9A-Fa-f]{64}")
Link = list[tuple[str, str]]  # the query's parameters, each as often as it is there


def link_of(query: str) -> Link | None:
    """The link that is in a request's query; None where there is none.

    >>> link_of("expires=1798761600&x"), link_of("id=xyz")
    ([('expires', '1798761600'), ('x', '')], None)
    """
    link = parse_qsl(query, keep_blank_values=True)
    return link if any(name in MARKS for name, _ in link) else None


class Links:
    """The keys of links. Where there is none, no link is valid."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def permit(self, method: str, object_id: str, link: Link, now: float) -> int | None:
        """The most bytes that the link lets be stored; None where it is one for reading.

        The id must be a valid one; `now` is the Unix time. Raises Refusal (403) unless the link is
        for this request. Digests of equal length are compared, with all keys, so that time says
        nothing of the right one.
        """
        if not self._keys:
            raise forbidden("This gateway takes no links: no OBJGW_LINK_KEY is set.")
        if method == "DELETE":
            raise forbidden("There are no links for DELETE.")
        given, writing = dict(link), method == "PUT"
        numbers = ("expires", "max") if writing else ("expires",)
        if len(given) != len(link) or given.keys() != {*numbers, "signature"}:
            names = ", ".join(numbers)
            raise forbidden(f"A link for {method} has {names} and signature, once each.")
        for name in numbers:
            if not NUMBER.fullmatch(given[name]):
                raise forbidden(f"The link's {name} isn't a number of 1 to 15 digits.")
        if not SIGNATURE.fullmatch(given["signature"]):
            raise forbidden("The link's signature isn't 64 hexadecimal digits.")
        parts = ("PUT" if writing else "GET", object_id, *(given[name] for name in numbers))
        sent = bytes.fromhex(given["signature"])
        matches = [hmac.compare_digest(signature(key, *parts), sent) for key in self._keys]
        if not any(matches):
            raise forbidden("The link's signature isn't that of this method, id and numbers.")
        if int(given["expires"]) <= now:
            when = datetime.fromtimestamp(int(given["expires"]), UTC)
            raise forbidden(f"The link expired at {when:%Y-%m-%dT%H:%M:%SZ}.")
        return int(given["max"]) if writing else None


def make_link(key: str, object_id: str, expires: int, most: int | None = None) -> str:
    """The path and query of a link: for GET and HEAD, or for a PUT of at most `most` bytes.

    The id must be a valid one; `expires` is the Unix time from which on the link isn't valid.

    >>> make_link("k" * 32, "readme1", 1798761600).split("&")[0]
    '/object/readme1?expires=1798761600'
    """
    numbers = {"expires": str(expires)} | ({} if most is None else {"max": str(most)})
    parts = ("GET" if most is None else "PUT", object_id, *numbers.values())
    query = [f"{name}={number}" for name, number in numbers.items()]
    query.append(f"signature={signature(key.encode(), *parts).hex()}")
    return f"/object/{object_id}?{'&'.join(query)}"


def signature(key: bytes, *parts: str) -> bytes:
    """The HMAC-SHA-256 of the parts, with a line feed between them.

    >>> signature(b"key", "GET", "readme1", "1798761600").hex()[:8]
    'ddbf48c4'
    """
    return hmac.digest(key, "\n".join(parts).encode(), "sha256")


def forbidden(detail: str) -> Refusal:
    """403: the link doesn't permit this."""
    return Refusal(HTTPStatus.FORBIDDEN, detail)
