"""The list, where it needs no node: parameters, and the answers that are refusals."""

from __future__ import annotations

import pytest

from gateway.answers import Environ, Refusal
from gateway.objects.listing import Asked, asked_for, wants_lines

NDJSON = "application/x-ndjson"

GOOD = {
    "": Asked(),
    "prefix=ab": Asked(prefix="ab"),
    "prefix=&after=": Asked(),
    "after=Az09": Asked(after="Az09"),
    "after=%41": Asked(after="A"),
    "limit=1": Asked(limit=1),
    "limit=1000": Asked(limit=1000),
    "limit=5&prefix=a&after=b": Asked("a", "b", 5),
    "&&limit=5&": Asked(limit=5),
}


def environ(query: str, **more: str) -> Environ:
    return {"QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1", **more}


@pytest.mark.parametrize("query", GOOD)
def test_a_good_query_is_taken(query: str) -> None:
    assert asked_for(environ(query)) == GOOD[query]
    if "limit" not in query:
        wanted = GOOD[query]._replace(stream=True)
        assert asked_for(environ(query, HTTP_ACCEPT=NDJSON)) == wanted


BAD = {
    "limit=0": "1 to 1000",
    "limit=-1": "1 to 1000",
    "limit=1001": "1 to 1000",
    "limit=10000": "1 to 1000",
    "limit=01": "1 to 1000",
    "limit=": "1 to 1000",
    "limit": "1 to 1000",
    "limit=1e2": "1 to 1000",
    "limit=%D9%A1": "1 to 1000",
    "limit=5;prefix=a": "1 to 1000",
    "limit=5&limit=5": "twice",
    "prefix=a&prefix=b": "twice",
    "prefix=a-b": "prefix",
    "prefix=a/": "prefix",
    "prefix=%00": "prefix",
    "prefix=%FF": "prefix",
    "prefix=a%0A": "prefix",
    "prefix=caf%C3%A9": "prefix",
    f"prefix={'a' * 33}": "prefix",
    "after=a+b": "after",
    "after=.": "after",
    "start-after=a": "no 'start-after'",
    "Limit=5": "no 'Limit'",
    "list-type=2": "no 'list-type'",
    "a": "no 'a'",
    "=": "no ''",
    "caf%C3%A9=1": r"no 'caf\\xe9'",
}


@pytest.mark.parametrize("query", BAD)
def test_any_other_query_is_400_and_says_why(query: str) -> None:
    for accept in ("", NDJSON):
        with pytest.raises(Refusal) as refused:
            asked_for(environ(query, HTTP_ACCEPT=accept))
        assert refused.value.status == 400
        assert accept or BAD[query].replace("\\\\", "\\") in refused.value.detail


def test_a_stream_has_no_limit_and_needs_chunks() -> None:
    for bad in (
        environ("limit=5", HTTP_ACCEPT=NDJSON),
        environ("", HTTP_ACCEPT=NDJSON) | {"SERVER_PROTOCOL": "HTTP/1.0"},
    ):
        with pytest.raises(Refusal) as refused:
            asked_for(bad)
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("accept", "lines"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/x-ndjsonx", False),
        ("application/x-ndjson;q=0", False),
        ("application/x-ndjson; q=0.0", False),
        ("application/x-ndjson;q=0.5", True),
        ("text/html, Application/X-NDJSON", True),
        ("application/x-ndjson; charset=utf-8", True),
    ],
)
def test_lines_are_for_whom_names_their_media_type(accept: str, lines: bool) -> None:
    assert wants_lines(accept) is lines
