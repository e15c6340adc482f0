"""Dates of HTTP: the three formats of RFC 9110, 5.6.7, and nothing else that looks like a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY, _MONTH = "|".join(day[:3] for day in DAYS), f"(?P<month>{'|'.join(MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
FORMATS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"(?:{_DAY}), (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",  # what is sent today
        rf"(?:{'|'.join(DAYS)}), (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",  # RFC 850
        rf"(?:{_DAY}) {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",  # C's asctime()
    )
)


def http_time(text: str | None) -> int | None:
    """Seconds since 1970 of a date in one of HTTP's three formats, or None where it is none.

    >>> http_time("Sun, 06 Nov 1994 08:49:37 GMT"), http_time("Sun, 06 Nov 1994 08:49:37 +0000")
    (784111777, None)
    """
    found = next(filter(None, (pattern.fullmatch(text or "") for pattern in FORMATS)), None)
    if not found:
        return None
    year, day, hour, minute, second = (
        int(found[name]) for name in ("year", "day", "hour", "minute", "second")
    )
    if len(found["year"]) == 2:
        this = datetime.now(UTC).year
        year += this - this % 100
        year -= 100 if year > this + 50 else 0  # RFC 9110: no date is more than 50 years ahead
    leap = second == 60  # which the grammar allows
    try:
        moment = datetime(
            year, MONTHS.index(found["month"]) + 1, day, hour, minute, second - leap, tzinfo=UTC
        )
    except ValueError:  # the 31st of February
        return None
    return int(moment.timestamp()) + leap


def is_canonical(text: str) -> bool:
    """Whether it is a date as a server writes it.

    That is: in today's format, with the right day of the week, and without a leap second.

    >>> is_canonical("Sun, 06 Nov 1994 08:49:37 GMT"), is_canonical("Mon, 06 Nov 1994 08:49:37 GMT")
    (True, False)
    """
    seconds = http_time(text)
    return seconds is not None and formatdate(seconds, usegmt=True) == text
