"""Range and If-Range: RFC 9110, 14 and 13.1.5."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import MIB, code, fill, opaque, pattern, store
from tests.harness.stack import Stack

TEN = b"0123456789"

# The header, the status, the bytes, Content-Range. Of an object of ten bytes.
RANGES: dict[str, tuple[str, int, bytes, str | None]] = {
    "first": ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
    "middle": ("bytes=3-6", 206, b"3456", "bytes 3-6/10"),
    "last": ("bytes=6-9", 206, b"6789", "bytes 6-9/10"),
    "one byte": ("bytes=4-4", 206, b"4", "bytes 4-4/10"),
    "first byte": ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
    "open-ended": ("bytes=7-", 206, b"789", "bytes 7-9/10"),
    "open-ended from 0": ("bytes=0-", 206, TEN, "bytes 0-9/10"),
    "suffix": ("bytes=-3", 206, b"789", "bytes 7-9/10"),
    "suffix of all": ("bytes=-10", 206, TEN, "bytes 0-9/10"),
    "suffix larger than the object": ("bytes=-99", 206, TEN, "bytes 0-9/10"),
    "end past the object": ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
    "begin past the object": ("bytes=10-", 416, b"", "bytes */10"),
    "both past the object": ("bytes=10-20", 416, b"", "bytes */10"),
    "unit in capitals": ("BYTES=0-3", 206, b"0123", "bytes 0-3/10"),
    # What is ignored, as RFC 9110, 14.2 allows.
    "end with 30 digits": ("bytes=5-" + "9" * 30, 200, TEN, None),
    "suffix with 30 digits": ("bytes=-" + "9" * 30, 200, TEN, None),
    "begin with 30 digits": (f"bytes={'9' * 30}-", 200, TEN, None),
    "begin with 5,000 digits": (f"bytes={'9' * 5000}-9", 200, TEN, None),
    "end with 5,000 digits": (f"bytes=5-{'9' * 5000}", 200, TEN, None),
    "suffix of nothing": ("bytes=-0", 200, TEN, None),
    "inverted": ("bytes=6-3", 200, TEN, None),
    "multiple": ("bytes=0-1,3-4", 200, TEN, None),
    "another unit": ("lines=0-3", 200, TEN, None),
    "without a unit": ("0-3", 200, TEN, None),
    "no numbers": ("bytes=-", 200, TEN, None),
    "empty": ("", 200, TEN, None),
    "words": ("bytes=one-two", 200, TEN, None),
    "negative": ("bytes=-3-5", 200, TEN, None),
    "blanks": ("bytes= 0 - 3", 200, TEN, None),
    "superscript": ("bytes=\xb2-\xb3", 200, TEN, None),
}


@pytest.fixture(scope="module")
def ten(shared: Stack) -> str:
    """The id of an object of ten bytes."""
    return store(shared.gateways[0], TEN)


@pytest.mark.parametrize("row", RANGES)
def test_ranges(gateway: Gateway, ten: str, row: str) -> None:
    value, status, body, content_range = RANGES[row]
    answer = gateway.get(ten, headers={"Range": value})
    assert (code(answer), answer.headers["Content-Range"]) == (status, content_range)
    assert status == 416 or answer.body == body


@pytest.mark.parametrize(
    ("value", "status"),
    {"bytes=0-0": 416, "bytes=0-": 416, "bytes=-1": 200, "bytes=3-1": 200, "x=0-": 200}.items(),
)
def test_ranges_of_an_empty_object(gateway: Gateway, value: str, status: int) -> None:
    answer = gateway.get(store(gateway, b""), headers={"Range": value})
    assert code(answer) == status
    assert answer.headers["Content-Range"] == ("bytes */0" if status == 416 else None)


@pytest.mark.parametrize("value", ["bytes=0-3", "bytes=-3", "bytes=10-", "bytes=6-3"])
def test_a_range_means_nothing_to_head(gateway: Gateway, ten: str, value: str) -> None:
    answer = gateway.head(ten, headers={"Range": value})  # RFC 9110, 14.2
    assert (answer.status, answer.headers["Content-Length"]) == (200, "10")
    assert answer.headers["Content-Range"] is None


def test_a_range_of_a_large_object_is_exact(gateway: Gateway) -> None:
    id, body = store(gateway, pattern(3 * MIB)), pattern(3 * MIB)
    for first, last in [
        (0, 262_143),
        (262_144, 600_000),
        (1, 3 * MIB - 2),
        (3 * MIB - 1, 3 * MIB - 1),
    ]:
        answer = gateway.get(id, headers={"Range": f"bytes={first}-{last}"})
        assert (answer.status, answer.body) == (206, body[first : last + 1])


IF_RANGE = {
    "the right etag": ("{etag}", 206),
    "a wrong etag": ("{other}", 200),
    "a weak etag": ("W/{etag}", 200),
    "the etag without quotes": ("{bare}", 200),
    "a list of etags": ("{etag}, {etag}", 200),
    "any": ("*", 200),
    "the right date": ("{date}", 206),
    "an earlier date": ("{before}", 200),
    "a later date": ("{after}", 200),
    "garbage": ("yesterday", 200),
}


@pytest.mark.parametrize("row", IF_RANGE)
def test_if_range(gateway: Gateway, ten: str, row: str) -> None:
    template, status = IF_RANGE[row]
    now = gateway.head(ten).headers
    headers = {"Range": "bytes=3-6", "If-Range": fill(template, now["ETag"], now["Last-Modified"])}
    answer = gateway.get(ten, headers=headers)
    assert (answer.status, answer.body) == (status, b"3456" if status == 206 else TEN)


def test_if_range_without_a_range_means_nothing(gateway: Gateway, ten: str) -> None:
    answer = gateway.get(ten, headers={"If-Range": opaque(b"?")})
    assert (answer.status, answer.body) == (200, TEN)
