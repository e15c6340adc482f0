"""Dates of HTTP: RFC 9110, 5.6.7."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from time import asctime

import hypothesis
import pytest
from hypothesis import strategies

from gateway.objects.dates import http_time, is_canonical

EXAMPLE = 784111777
DATES = [
    ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
    ("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
    ("Sun Nov  6 08:49:37 1994", EXAMPLE),
    ("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE),  # nobody reads the day of the week
    ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
    ("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
    *(
        (text, None)
        for text in (
            "",
            None,
            "0",
            "yesterday",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1994 08:49:37 +0900",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "Thu, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 GMT, Mon, 07 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
        )
    ),
]


@pytest.mark.parametrize(("text", "seconds"), DATES)
def test_a_date_is_one_in_the_three_formats_and_in_no_other(text: str, seconds: int | None) -> None:
    assert http_time(text) == seconds


def test_a_year_of_two_digits_is_at_most_50_years_ahead() -> None:
    this = datetime.now(UTC).year
    for year in range(this - 49, this + 51):
        text = f"{datetime(year, 3, 1, tzinfo=UTC):%A, %d-%b-%y %H:%M:%S} GMT"
        assert http_time(text) == datetime(year, 3, 1, tzinfo=UTC).timestamp()


@hypothesis.given(strategies.integers(-(10**10), 10**11))
def test_each_second_is_read_from_each_format_of_four_digits(seconds: int) -> None:
    text = formatdate(seconds, usegmt=True)
    assert http_time(text) == seconds
    assert is_canonical(text)
    moment = datetime.fromtimestamp(seconds, UTC).timetuple()
    if moment.tm_year >= 1000:
        assert http_time(asctime(moment)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sat, 31 Dec 2016 23:59:60 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "0",
    ],
)
def test_what_a_server_would_write_otherwise_is_not_canonical(text: str) -> None:
    assert not is_canonical(text)
