"""Links that expire: what one permits, and what is refused with which reason."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from gateway.answers import Refusal
from gateway.links import Links, link_of, make_link

OLD, NEW, OTHER = "old" + "k" * 30, "new" + "k" * 30, "other" + "k" * 30
LINKS = Links([NEW, OLD])
NOW = 1_798_761_600  # 2027-01-01T00:00:00Z
SOON = NOW + 60


def query(text: str, key: str = NEW) -> str:
    """The query of a link whose signature is that of this text."""
    method, _, *numbers = text.split("\n")
    names = ["expires", "max"] if method == "PUT" else ["expires"]
    signature = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    pairs = [f"{name}={number}" for name, number in zip(names, numbers, strict=False)]
    return "&".join([*pairs, f"signature={signature}"])


def permit(method: str, sent: str, links: Links = LINKS) -> int | None:
    link = link_of(sent)
    assert link is not None
    return links.permit(method, "readme1", link, NOW)


GET = query(f"GET\nreadme1\n{SOON}")
PUT = query(f"PUT\nreadme1\n{SOON}\n100")
SIGNATURE = GET.rpartition("=")[2]

VALID = {  # method, query: the most bytes
    "a link to read": ("GET", GET, None),
    "the same for HEAD": ("HEAD", GET, None),
    "a link to store": ("PUT", PUT, 100),
    "one that stores nothing but an empty object": ("PUT", query(f"PUT\nreadme1\n{SOON}\n0"), 0),
    "another order": ("GET", "&".join(reversed(GET.split("&"))), None),
    "upper-case digits": ("GET", GET.replace(SIGNATURE, SIGNATURE.upper()), None),
    "a percent-encoded name": ("GET", GET.replace("expires", "%65xpires"), None),
    "the older key": ("GET", query(f"GET\nreadme1\n{SOON}", OLD), None),
    "the next second": ("GET", query(f"GET\nreadme1\n{NOW + 1}"), None),
    "zeros before a number, which are signed": ("GET", query(f"GET\nreadme1\n0{SOON}"), None),
    "as late as can be written": ("GET", query(f"GET\nreadme1\n{'9' * 15}"), None),
}


@pytest.mark.parametrize("row", VALID)
def test_a_link_permits_what_it_was_made_for(row: str) -> None:
    method, sent, most = VALID[row]
    assert permit(method, sent) == most


NAMES, WRONG = "once each", "isn't that of this method, id and numbers"
ARABIC_TWO = "\u0662"  # a digit for Python
NO_NUMBER, NO_SIGNATURE = "isn't a number of 1 to 15 digits", "isn't 64 hexadecimal digits"

INVALID = {  # method, query, what the reason says
    "expired": ("GET", query(f"GET\nreadme1\n{NOW - 1}"), "expired at 2026-12-31T23:59:59Z"),
    "expired this second": (
        "GET",
        query(f"GET\nreadme1\n{NOW}"),
        "expired at 2027-01-01T00",
    ),
    "expired at the beginning": ("GET", query("GET\nreadme1\n0"), "expired at 1970"),
    "expired, to store": ("PUT", query(f"PUT\nreadme1\n{NOW}\n100"), "expired"),
    "a later time than was signed": ("GET", GET.replace(str(SOON), str(SOON + 1)), WRONG),
    "a larger size than was signed": ("PUT", PUT.replace("=100", "=101"), WRONG),
    "zeros that weren't signed": ("GET", GET.replace(str(SOON), f"0{SOON}"), WRONG),
    "another id": ("GET", query(f"GET\nreadme2\n{SOON}"), WRONG),
    "the id in other case": ("GET", query(f"GET\nREADME1\n{SOON}"), WRONG),
    "another key": ("GET", query(f"GET\nreadme1\n{SOON}", OTHER), WRONG),
    "a signature of zeros": ("GET", GET.replace(SIGNATURE, "0" * 64), WRONG),
    "signed for HEAD": ("HEAD", query(f"HEAD\nreadme1\n{SOON}"), WRONG),
    "a link to read for PUT": ("PUT", GET, NAMES),
    "a link to read for PUT, with a size": ("PUT", f"{GET}&max=100", WRONG),
    "a link to store for GET": ("GET", PUT, NAMES),
    "a link to store for GET, without its size": ("GET", PUT.replace("&max=100", ""), WRONG),
    "any for DELETE": ("DELETE", GET, "no links for DELETE"),
    "no signature": ("GET", f"expires={SOON}", NAMES),
    "no time": ("GET", f"signature={SIGNATURE}", NAMES),
    "the time twice": ("GET", f"expires={SOON}&{GET}", NAMES),
    "the signature twice": ("GET", f"{GET}&signature={SIGNATURE}", NAMES),
    "the size twice": ("PUT", f"{PUT}&max=100", NAMES),
    "something more": ("GET", f"{GET}&response-content-type=text/html", NAMES),
    "something more, without a value": ("GET", f"{GET}&download", NAMES),
    "another operation of S3": ("PUT", f"{PUT}&tagging", NAMES),
    "an empty time": ("GET", f"expires=&signature={SIGNATURE}", NO_NUMBER),
    "a time that is a word": ("GET", query("GET\nreadme1\nnever"), NO_NUMBER),
    "a time below zero": ("GET", query("GET\nreadme1\n-1"), NO_NUMBER),
    "a time with a fraction": ("GET", query(f"GET\nreadme1\n{SOON}.5"), NO_NUMBER),
    "a time with an exponent": ("GET", query("GET\nreadme1\n1e12"), NO_NUMBER),
    "a huge time": ("GET", query(f"GET\nreadme1\n{'9' * 16}"), NO_NUMBER),
    "digits of another script": ("GET", query(f"GET\nreadme1\n{ARABIC_TWO * 10}"), NO_NUMBER),
    "a line feed": ("GET", GET.replace(str(SOON), f"{SOON}%0A"), NO_NUMBER),
    "a size that is a word": ("PUT", query(f"PUT\nreadme1\n{SOON}\n10M"), NO_NUMBER),
    "a signature that is too short": ("GET", GET[:-1], NO_SIGNATURE),
    "a signature that is too long": ("GET", f"{GET}0", NO_SIGNATURE),
    "an empty signature": ("GET", f"expires={SOON}&signature=", NO_SIGNATURE),
    "a signature in base64": ("GET", f"expires={SOON}&signature={'+/' * 32}", NO_SIGNATURE),
}


@pytest.mark.parametrize("row", INVALID)
def test_every_other_link_is_refused_with_its_reason(row: str) -> None:
    method, sent, reason = INVALID[row]
    with pytest.raises(Refusal, match=reason) as refusal:
        permit(method, sent)
    assert refusal.value.status == 403
    assert SIGNATURE[:16] not in str(refusal.value.answer())


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_without_a_key_no_link_is_valid(method: str) -> None:
    for key in ("", NEW):
        with pytest.raises(Refusal, match="no OBJGW_LINK_KEY is set"):
            permit(method, query(f"GET\nreadme1\n{SOON}", key), Links([]))


def test_a_key_that_was_taken_out_signs_nothing_any_more() -> None:
    assert permit("GET", query(f"GET\nreadme1\n{SOON}", OLD)) is None
    with pytest.raises(Refusal, match=WRONG):
        permit("GET", query(f"GET\nreadme1\n{SOON}", OLD), Links([NEW]))


@pytest.mark.parametrize(("method", "most"), [("GET", None), ("PUT", 0), ("PUT", 10**15 - 1)])
def test_a_link_that_is_made_is_one_that_is_taken(method: str, most: int | None) -> None:
    path, _, sent = make_link(OLD, "readme1", SOON, most).partition("?")
    assert path == "/object/readme1"
    assert permit(method, sent) == most


@pytest.mark.parametrize("sent", ["id=xyz", "max=5", "Expires=5&Signature=x", "x-amz-signature=x"])
def test_a_query_without_a_link_is_none(sent: str) -> None:
    assert link_of(sent) is None
