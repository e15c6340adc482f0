"""Conditions, ranges and dates beside werkzeug's: what a GET or HEAD gets (RFC 9110, 13 and 14)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from time import asctime, gmtime

import pytest
from hypothesis import given, strategies
from werkzeug.http import is_resource_modified, parse_date, parse_etags, parse_range_header

from gateway.objects.dates import http_time
from gateway.objects.semantics import precondition, reading

OK, NOT_MODIFIED, FAILED = HTTPStatus.OK, HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED

# --------------------------------------------------------------------------------------------------
# Dates
# --------------------------------------------------------------------------------------------------
moments = strategies.integers(0, 4102444800)  # until 2100


def imf_fixdate(moment: int) -> str:
    return formatdate(moment, usegmt=True)


def rfc850(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%A, %d-%b-%y %H:%M:%S GMT")


def asctime_date(moment: int) -> str:
    return asctime(gmtime(moment))


def dates(of: strategies.SearchStrategy[int]) -> strategies.SearchStrategy[str]:
    """Moments of these in one of the two formats that can tell the century."""
    return strategies.builds(
        lambda write, moment: write(moment),
        strategies.sampled_from([imf_fixdate, asctime_date]),
        of,
    )


def werkzeugs_time(text: str) -> int | None:
    parsed = parse_date(text)
    return int(parsed.timestamp()) if parsed else None


@given(moments)
def test_a_date_in_each_format_is_the_moment_that_werkzeug_takes_it_for(moment: int) -> None:
    for text in (imf_fixdate(moment), asctime_date(moment)):
        assert http_time(text) == werkzeugs_time(text) == moment


@given(
    strategies.integers(946684800, 2461449600)
)  # 2000 to 2048: what 50 years from now is moves with the clock
def test_a_date_with_two_digits_of_the_year_is_the_moment_that_werkzeug_takes_it_for(
    moment: int,
) -> None:
    """They differ on other years: Python takes 69 for 1969, RFC 9110, 5.6.7 what is more than 50
    years ahead.
    """
    assert http_time(rfc850(moment)) == werkzeugs_time(rfc850(moment)) == moment


# What werkzeug takes for a date, by Python's parser of mail, and HTTP doesn't (RFC 9110, 5.6.7):
# what came of it is a condition, and 13.1.3 has a recipient ignore one that is no HTTP-date.
LAXER_DATES = [
    "Sun, 06 Nov 1994 08:49:37 +0900",
    "Sun, 06 Nov 1994 08:49:37",
    "Sun, 6 Nov 1994 08:49:37 GMT",
    "sun, 06 nov 1994 08:49:37 gmt",
    "06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT (a comment)",
]


@pytest.mark.parametrize("text", LAXER_DATES)
def test_what_werkzeug_takes_for_a_date_and_http_does_not(text: str) -> None:
    assert werkzeugs_time(text) is not None
    assert http_time(text) is None


# --------------------------------------------------------------------------------------------------
# Conditions
# --------------------------------------------------------------------------------------------------
opaque = strategies.text(
    "abc,;*W/!#%\xe4", min_size=1, max_size=2
)  # few letters, so that some are equal
etags = opaque.map(lambda text: f'"{text}"')
listed = strategies.lists(
    strategies.builds(
        lambda weak, etag: f"{weak}{etag}", strategies.sampled_from(["", "W/"]), etags
    ),
    min_size=1,
    max_size=4,
)
commas = strategies.sampled_from([",", ", ", " ,", "\t,  ", " , "])
lists = strategies.just("*") | strategies.builds(
    lambda comma, each: comma.join(each), commas, listed
)
near = strategies.integers(10**9, 10**9 + 3)
not_dates = strategies.sampled_from(
    ["", "0", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", '"a"', "*"]
)


def matches(value: str, etag: str) -> bool:
    """If-Match by werkzeug's reading of the list; the strong comparison, and `*` for any (RFC 9110,
    13.1.1).

    Its own `is_resource_modified` takes `*` for no match at all.
    """
    found = parse_etags(value)
    return found.star_tag or found.is_strong(etag[1:-1])


def none_matches(value: str, etag: str) -> bool:
    """If-None-Match by werkzeug's reading of the list; the weak comparison (RFC 9110, 13.1.2)."""
    found = parse_etags(value)
    return not (found.star_tag or found.contains_weak(etag[1:-1]))


def by_the_steps(conditions: dict[str, str], etag: str, modified: int) -> HTTPStatus:
    """RFC 9110, 13.2.2, step by step, for a GET."""
    if "if-match" in conditions:
        if not matches(conditions["if-match"], etag):
            return FAILED
    elif "if-unmodified-since" in conditions:
        since = werkzeugs_time(conditions["if-unmodified-since"])
        if since is not None and modified > since:
            return FAILED
    if "if-none-match" in conditions:
        if not none_matches(conditions["if-none-match"], etag):
            return NOT_MODIFIED
    elif "if-modified-since" in conditions:
        since = werkzeugs_time(conditions["if-modified-since"])
        if since is not None and modified <= since:
            return NOT_MODIFIED
    return OK


@given(
    conditions=strategies.fixed_dictionaries(
        {},
        optional={
            "if-match": lists,
            "if-none-match": lists,
            "if-modified-since": dates(near) | not_dates,
            "if-unmodified-since": dates(near) | not_dates,
        },
    ),
    etag=etags,
    modified=near,
)
def test_conditions_are_decided_as_by_the_steps_of_the_rfc_on_werkzeugs_parsers(
    conditions: dict[str, str], etag: str, modified: int
) -> None:
    """All sixteen combinations: what comes first is in the steps, which werkzeug hasn't."""
    found = precondition(conditions, {"etag": etag, "last-modified": imf_fixdate(modified)})
    assert found == by_the_steps(conditions, etag, modified)


@given(value=lists, etag=etags)
def test_if_none_match_is_decided_as_werkzeug_decides_it(value: str, etag: str) -> None:
    changed = is_resource_modified({"HTTP_IF_NONE_MATCH": value, "REQUEST_METHOD": "GET"}, etag)
    assert precondition({"if-none-match": value}, {"etag": etag}) == (
        OK if changed else NOT_MODIFIED
    )


@given(value=lists.filter(lambda value: value != "*"), etag=etags)
def test_if_match_is_decided_as_werkzeug_decides_it(value: str, etag: str) -> None:
    changed = is_resource_modified({"HTTP_IF_MATCH": value, "REQUEST_METHOD": "GET"}, etag)
    assert precondition({"if-match": value}, {"etag": etag}) == (OK if changed else FAILED)


@given(value=dates(near) | not_dates, modified=near)
def test_if_modified_since_is_decided_as_werkzeug_decides_it(value: str, modified: int) -> None:
    at = datetime.fromtimestamp(modified, UTC)
    changed = is_resource_modified(
        {"HTTP_IF_MODIFIED_SINCE": value, "REQUEST_METHOD": "GET"}, '"a"', last_modified=at
    )
    answer = {"etag": '"a"', "last-modified": imf_fixdate(modified)}
    assert precondition({"if-modified-since": value}, answer) == (OK if changed else NOT_MODIFIED)


# Where werkzeug's `is_resource_modified` differs on an object '"a"' of 2001-09-09: the conditions,
# ours, and why.
SINCE = imf_fixdate(10**9)
BEFORE = imf_fixdate(10**9 - 1)
DIFFERENT_CONDITIONS = {
    "13.1.1: If-Match: * is true of each object that is there": ({"if-match": "*"}, OK),
    "13.1.2: an empty If-None-Match is none of them, and If-Modified-Since isn't looked at": (
        {"if-none-match": "", "if-modified-since": SINCE},
        OK,
    ),
    "13.2.2: If-Match is decided first, then If-None-Match": (
        {"if-match": '"a"', "if-none-match": '"a"'},
        NOT_MODIFIED,
    ),
    "13.2.2: a GET whose If-Unmodified-Since is false fails": (
        {"if-unmodified-since": BEFORE},
        FAILED,
    ),
    "8.8.3: an ETag is in quotes": ({"if-none-match": "a"}, OK),
    "8.8.3: W/ is in capitals": ({"if-none-match": 'w/"b", "b"'}, OK),
    "13.1.3: what is no HTTP-date is ignored": (
        {"if-modified-since": "Sun, 9 Sep 2001 01:46:40 GMT"},
        OK,
    ),
    "13.1.3: a zone isn't part of an HTTP-date": (
        {"if-modified-since": "Sun, 09 Sep 2001 01:46:40 -0900"},
        OK,
    ),
}


@pytest.mark.parametrize("row", DIFFERENT_CONDITIONS)
def test_conditions_on_which_werkzeug_differs(row: str) -> None:
    conditions, status = DIFFERENT_CONDITIONS[row]
    assert precondition(conditions, {"etag": '"a"', "last-modified": SINCE}) == status


def test_an_etag_may_be_empty() -> None:
    """RFC 9110, 8.8.3. werkzeug takes no notice of such an ETag."""
    for name, status in (("if-match", OK), ("if-none-match", NOT_MODIFIED)):
        assert precondition({name: '"b", ""'}, {"etag": '""'}) == status


@given(
    conditions=strategies.fixed_dictionaries(
        {},
        optional={
            "HTTP_IF_MATCH": lists,
            "HTTP_IF_NONE_MATCH": lists,
            "HTTP_IF_MODIFIED_SINCE": dates(near) | moments.map(rfc850) | not_dates,
            "HTTP_IF_UNMODIFIED_SINCE": dates(near) | moments.map(rfc850) | not_dates,
        },
    ),
    method=strategies.sampled_from(["GET", "HEAD"]),
)
def test_a_condition_goes_to_the_node_only_where_it_is_alone_and_s3_decides_it_as_http_does(
    conditions: dict[str, str], method: str
) -> None:
    headers, decided_here = reading(method, conditions)
    given = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in conditions.items()
    }
    assert {**headers, **decided_here} == given
    for name, value in headers.items():
        assert len(headers) == 1
        assert not decided_here
        if name.endswith("since") and value not in ("*", '"a"'):
            moment = werkzeugs_time(value)
            assert moment is not None
            assert value == imf_fixdate(moment)
        else:
            assert value == "*" or (
                value.count('"') == 2 and value[0] == value[-1] == '"' and "," not in value
            )


# --------------------------------------------------------------------------------------------------
# Ranges
# --------------------------------------------------------------------------------------------------
def range_of(value: str, length: int) -> tuple[int, int | None] | None:
    """The one range of an object of this length by werkzeug's reading."""
    parsed = parse_range_header(value)
    return parsed.range_for_length(length) if parsed else None


def handed_on(value: str) -> str | None:
    """The range that a GET asks the node for; all others are ignored (RFC 9110, 14.2)."""
    return reading("GET", {"HTTP_RANGE": value})[0].get("range")


numbers = strategies.integers(0, 30) | strategies.integers(0, 10**18 - 1)
digits = strategies.builds(
    lambda zeros, number: f"{'0' * zeros}{number}"[-18:], strategies.integers(0, 2), numbers
)
maybe_digits = digits | strategies.just("")
units = strategies.sampled_from(["bytes", "Bytes", "BYTES"])
specs = strategies.builds(lambda first, last: f"{first}-{last}", digits, maybe_digits) | digits.map(
    "-{}".format
)
lengths = strategies.integers(0, 40)


@given(unit=units, spec=specs, length=lengths)
def test_one_range_is_handed_on_as_werkzeug_reads_it(unit: str, spec: str, length: int) -> None:
    value = f"{unit}={spec}"
    handed = handed_on(value)
    assert (handed is not None) == (parse_range_header(value) is not None)
    if handed is not None:
        assert handed.startswith("bytes=")
        assert range_of(handed, length) == range_of(value, length)


pieces = strategies.lists(
    strategies.sampled_from(
        [
            "bytes",
            "BYTES",
            "lines",
            "=",
            "-",
            ",",
            " ",
            "\t",
            "0",
            "5",
            "9" * 17,
            "9" * 19,
            "+",
            "_",
            "\xb2",
            "x",
            "*",
            "/",
        ]
    ),
    max_size=8,
).map("".join)


@given(
    value=pieces | strategies.builds(lambda spec, tail: f"bytes={spec}{tail}", specs, pieces),
    length=lengths,
)
def test_nothing_is_handed_on_that_werkzeug_reads_otherwise(value: str, length: int) -> None:
    handed = handed_on(value)
    if handed is not None:
        assert range_of(value, length) == range_of(handed, length)
        assert parse_range_header(value) is not None


# What werkzeug takes for a range and a GET here ignores, as RFC 9110, 14.2 allows with each: why.
IGNORED_RANGES = {
    "bytes=0-1,3-4": "several ranges need a multipart answer, which S3 hasn't",
    "bytes=0-1,-3": "several",
    "bytes=-5 ": "a header's value ends before its blanks, so nobody sends it",
    "bytes= 0-3": "14.1.1: no blanks within",
    "bytes=0 - 3": "14.1.1: no blanks within",
    f"bytes=0-{'9' * 19}": "more bytes than any object has, and than S3 servers count",
    "lines=0-3": "14.1: another unit",
}


@pytest.mark.parametrize("value", IGNORED_RANGES)
def test_ranges_that_werkzeug_takes_and_that_are_ignored(value: str) -> None:
    assert parse_range_header(value) is not None
    assert handed_on(value) is None


@pytest.mark.parametrize("value", ["bytes=0-3", "bytes=-5", "bytes=5-"])
def test_a_range_means_nothing_to_head(value: str) -> None:
    assert reading("HEAD", {"HTTP_RANGE": value}) == ({}, {})
