"""Conditions on PUT, GET and HEAD: RFC 9110, 13.

Those on PUT are decided by the node, so that one client wins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial

import pytest

from tests.harness.gateway import Answer, Gateway
from tests.harness.http import MD5, NO_DATES, OTHER, code, fill, opaque, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

# --------------------------------------------------------------------------------------------------
# Conditions on PUT: decided by the node, so that one client wins
# --------------------------------------------------------------------------------------------------


def race(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """The answers of all calls, which begin at one moment."""
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_of_50_racing_create_only_uploads_one_wins(gateway: Gateway, size: int) -> None:
    id, create = random_id(), {"If-None-Match": "*"}
    bodies = [pattern(size + n) for n in range(50)]
    answers = race([partial(gateway.put, id, body, headers=create) for body in bodies])
    assert sorted(map(code, answers)) == [200] + [412] * 49
    won = bodies[[answer.status for answer in answers].index(200)]
    assert gateway.get(id).body == won


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_of_two_clients_that_swap_the_same_version_one_wins(gateway: Gateway, size: int) -> None:
    bodies, swap = [pattern(size), pattern(size + 1)], {"If-Match": MD5}
    for _ in range(3):
        id = store(gateway, b"an object")
        answers = race([partial(gateway.put, id, body, headers=swap) for body in bodies])
        assert sorted(map(code, answers)) == [200, 412]
        assert gateway.get(id).body == bodies[answers[0].status != 200]


# RFC 9110, 13.1.1 and 13.1.2: whether there is "an object" already, and what comes of a PUT.
PUT_CONDITIONS = {
    "create-only, new": (False, {"If-None-Match": "*"}, 200),
    "create-only, there": (True, {"If-None-Match": "*"}, 412),
    "if-match, right": (True, {"If-Match": MD5}, 200),
    "if-match, wrong": (True, {"If-Match": opaque(b"?")}, 412),
    "if-match, weak": (True, {"If-Match": f"W/{MD5}"}, 412),
    # A node decides on one ETag only: the gateway says so, and never takes a list for one.
    "if-match, list": (True, {"If-Match": f"{opaque(b'?')}, {MD5}"}, 400),
    "if-match, list without it": (True, {"If-Match": f"{opaque(b'?')}, {opaque(b'!')}"}, 400),
    "if-none-match, list": (True, {"If-None-Match": f"{opaque(b'?')}, {MD5}"}, 400),
    "if-none-match, list without it": (
        True,
        {"If-None-Match": f"{opaque(b'?')}, {opaque(b'!')}"},
        400,
    ),
    "if-match, new": (False, {"If-Match": MD5}, 412),
    "if-match any, there": (True, {"If-Match": "*"}, 200),
    "if-match any, new": (False, {"If-Match": "*"}, 412),
    "if-none-match, the same": (True, {"If-None-Match": MD5}, 412),
    "if-none-match, the same, weak": (True, {"If-None-Match": f"W/{MD5}"}, 412),
    "if-none-match, another": (True, {"If-None-Match": opaque(b"?")}, 200),
    "if-none-match, new": (False, {"If-None-Match": MD5}, 200),
    "if-modified-since is not for PUT": (True, {"If-Modified-Since": formatdate(usegmt=True)}, 200),
}


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("row", PUT_CONDITIONS)
def test_conditions_on_put(gateway: Gateway, row: str, size: int) -> None:
    there, headers, status = PUT_CONDITIONS[row]
    id = store(gateway) if there else random_id()
    assert code(gateway.put(id, pattern(size), headers=headers)) == status
    got = gateway.get(id)
    if status == 200:
        assert got.body == pattern(size)
    else:
        assert (got.status, got.body) == (200, b"an object") if there else got.status == 404


@pytest.mark.parametrize("headers", [{"If-None-Match": "*"}, {"If-Match": opaque(b"?")}])
def test_empty_uploads_are_refused_for_their_condition_each_time(
    gateway: Gateway, headers: dict[str, str]
) -> None:
    # MinIO closes the connection after a 412 to an upload, and doesn't say so.
    id = store(gateway)
    for _ in range(5):
        assert code(gateway.put(id, b"", headers=headers)) == 412


# --------------------------------------------------------------------------------------------------
# Range and If-Range: RFC 9110, 14 and 13.1.5
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "template", "status"),
    [
        ("If-Match", "{other}", 412),
        ("If-None-Match", "{etag}", 304),
        ("If-Unmodified-Since", "{before}", 412),
    ],
)
@pytest.mark.parametrize("if_range", ["{etag}", "{other}", "{date}", "{before}"])
def test_other_conditions_come_before_if_range(
    gateway: Gateway,
    dated: tuple[str, str, str],
    name: str,
    template: str,
    status: int,
    if_range: str,
) -> None:
    id, etag, date = dated
    headers = {
        "Range": "bytes=3-6",
        "If-Range": fill(if_range, etag, date),
        name: fill(template, etag, date),
    }
    assert code(gateway.get(id, headers=headers)) == status


# --------------------------------------------------------------------------------------------------
# Conditions on GET and HEAD: RFC 9110, 13.1 and 13.2
# --------------------------------------------------------------------------------------------------

CONDITIONS: dict[str, tuple[dict[str, str], int]] = {
    "if-match, same": ({"If-Match": "{etag}"}, 200),
    "if-match, different": ({"If-Match": "{other}"}, 412),
    "if-match, weak": ({"If-Match": "W/{etag}"}, 412),
    "if-match, list with it": ({"If-Match": '{other}, "x,y" ,{etag}'}, 200),
    "if-match, list without it": ({"If-Match": '{other}, "?"'}, 412),
    "if-match, any": ({"If-Match": "*"}, 200),
    "if-none-match, same": ({"If-None-Match": "{etag}"}, 304),
    "if-none-match, different": ({"If-None-Match": "{other}"}, 200),
    "if-none-match, weak": ({"If-None-Match": "W/{etag}"}, 304),
    "if-none-match, list with it": ({"If-None-Match": '{other}, "x,y" ,{etag}'}, 304),
    "if-none-match, weak list with it": ({"If-None-Match": "W/{other},W/{etag}"}, 304),
    "if-none-match, list without it": ({"If-None-Match": '{other}, "?"'}, 200),
    "if-none-match, any": ({"If-None-Match": "*"}, 304),
    "if-modified-since, before": ({"If-Modified-Since": "{before}"}, 200),
    "if-modified-since, equal": ({"If-Modified-Since": "{date}"}, 304),
    "if-modified-since, after": ({"If-Modified-Since": "{after}"}, 304),
    "if-modified-since, RFC 850": ({"If-Modified-Since": "{rfc850}"}, 304),
    "if-modified-since, asctime": ({"If-Modified-Since": "{asctime}"}, 304),
    "if-modified-since, garbage": ({"If-Modified-Since": "yesterday"}, 200),
    "if-unmodified-since, before": ({"If-Unmodified-Since": "{before}"}, 412),
    "if-unmodified-since, equal": ({"If-Unmodified-Since": "{date}"}, 200),
    "if-unmodified-since, after": ({"If-Unmodified-Since": "{after}"}, 200),
    "if-unmodified-since, garbage": ({"If-Unmodified-Since": "yesterday"}, 200),
    "if-modified-since, year 99999": ({"If-Modified-Since": "Sun, 06 Nov 99999 08:49:37 GMT"}, 200),
    "if-modified-since, no such day": ({"If-Modified-Since": "Sun, 99 Nov 0000 99:99:99 GMT"}, 200),
    # 13.2.2: which of two decides
    "if-match true, unmodified-since false": (
        {"If-Match": "{etag}", "If-Unmodified-Since": "{before}"},
        200,
    ),
    "if-match false, unmodified-since true": (
        {"If-Match": "{other}", "If-Unmodified-Since": "{after}"},
        412,
    ),
    "if-none-match true, modified-since false": (
        {"If-None-Match": "{other}", "If-Modified-Since": "{after}"},
        200,
    ),
    "if-none-match false, modified-since true": (
        {"If-None-Match": "{etag}", "If-Modified-Since": "{before}"},
        304,
    ),
    "if-match true, if-none-match false": ({"If-Match": "{etag}", "If-None-Match": "{etag}"}, 304),
    "if-match false, if-none-match false": (
        {"If-Match": "{other}", "If-None-Match": "{etag}"},
        412,
    ),
    "unmodified-since false, if-none-match false": (
        {"If-Unmodified-Since": "{before}", "If-None-Match": "{etag}"},
        412,
    ),
    "unmodified-since true, modified-since false": (
        {"If-Unmodified-Since": "{after}", "If-Modified-Since": "{after}"},
        304,
    ),
}


@pytest.fixture(scope="module")
def dated(shared: Stack) -> tuple[str, str, str]:
    """An object to put conditions on: its id, ETag and Last-Modified."""
    gateway, id = shared.gateways[0], store(shared.gateways[0])
    headers = gateway.head(id).headers
    return id, headers["ETag"], headers["Last-Modified"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("row", CONDITIONS)
def test_conditions(gateway: Gateway, dated: tuple[str, str, str], row: str, method: str) -> None:
    (id, etag, date), (templates, status) = dated, CONDITIONS[row]
    headers = {name: fill(template, etag, date) for name, template in templates.items()}
    answer = gateway.request(method, f"/object/{id}", headers=headers)
    assert code(answer) == status
    if status == 200:
        assert answer.body == (b"an object" if method == "GET" else b"")
    if status == 304:
        assert (answer.body, answer.headers["ETag"]) == (b"", etag)


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_an_etag_without_quotes_is_taken_for_the_etag_or_for_another(
    gateway: Gateway, dated: tuple[str, str, str], name: str
) -> None:
    for method in ("GET", "HEAD"):
        answer = gateway.request(method, f"/object/{dated[0]}", headers={name: dated[1].strip('"')})
        assert code(answer) in {"If-Match": (200, 412), "If-None-Match": (304, 200)}[name]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("If-Match", "*"),
        ("If-Match", OTHER),
        ("If-None-Match", "*"),
        ("If-None-Match", OTHER),
        pytest.param("If-Modified-Since", formatdate(usegmt=True), id="If-Modified-Since-now"),
        ("If-Unmodified-Since", formatdate(0, usegmt=True)),
        ("Range", "bytes=0-3"),
    ],
)
def test_conditions_on_a_missing_object_are_404(
    gateway: Gateway, method: str, name: str, value: str
) -> None:
    answer = gateway.request(
        method, f"/object/{random_id()}", headers={name: value}
    )  # RFC 9110, 13.2.1
    assert code(answer) == 404


# --------------------------------------------------------------------------------------------------
# Conditions come before ranges, and only a date is a date
# --------------------------------------------------------------------------------------------------

# The range, the conditions, the status of a GET of "an object".
BEFORE_RANGES: dict[str, tuple[str, dict[str, str], int]] = {
    "if-match, list without it": ("bytes=99-", {"If-Match": f'{OTHER}, "b"'}, 412),
    "if-match, list with it": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}"}, 416),
    "if-match, one": ("bytes=99-", {"If-Match": OTHER}, 412),
    "if-match, right": ("bytes=99-", {"If-Match": MD5}, 416),
    "if-none-match, list with it": ("bytes=99-", {"If-None-Match": f"{OTHER}, {MD5}"}, 304),
    "if-none-match, weak": ("bytes=99-", {"If-None-Match": f"W/{MD5}"}, 304),
    "if-none-match, list without it": ("bytes=99-", {"If-None-Match": f'{OTHER}, "b"'}, 416),
    "if-none-match, one": ("bytes=99-", {"If-None-Match": MD5}, 304),
    "unmodified, RFC 850": (
        "bytes=99-",
        {"If-Unmodified-Since": "Sunday, 06-Nov-94 08:49:37 GMT"},
        412,
    ),
    "unmodified, asctime": ("bytes=99-", {"If-Unmodified-Since": "Sun Nov  6 08:49:37 1994"}, 412),
    "two": ("bytes=99-", {"If-Match": MD5, "If-None-Match": MD5}, 304),
    "two that hold": ("bytes=99-", {"If-Match": MD5, "If-None-Match": OTHER}, 416),
    "a list and If-Range": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}", "If-Range": OTHER}, 200),
    "within, list without it": ("bytes=1-2", {"If-Match": f'{OTHER}, "b"'}, 412),
    "within, list with it": ("bytes=1-2", {"If-Match": f"{OTHER}, {MD5}"}, 206),
    "missing": ("bytes=99-", {"If-Match": f"{OTHER}, {MD5}"}, 404),
}


@pytest.mark.parametrize("row", BEFORE_RANGES)
def test_conditions_come_before_ranges(
    gateway: Gateway, landmark: tuple[str, bytes], row: str
) -> None:
    range_, conditions, status = BEFORE_RANGES[row]
    id = random_id() if status == 404 else store(gateway)
    with gateway.session() as session:
        answer = session.request("GET", f"/object/{id}", headers={"Range": range_, **conditions})
        assert code(answer) == status
        if status == 416:
            assert answer.headers["Content-Range"] == "bytes */9"
        assert session.request("GET", f"/object/{landmark[0]}").body == landmark[1]


@pytest.mark.parametrize(
    "value", [*NO_DATES[:6], *NO_DATES[8:13], "Wed, 25 Nov 2026 11:44:27 +0900", "1995-01-01", "99"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_whose_date_is_none_is_ignored(
    gateway: Gateway, value: str, method: str
) -> None:
    id = store(gateway)
    for year in ("1994", "2091"):
        for name in ("If-Modified-Since", "If-Unmodified-Since"):
            if ":60" in value and year + name in (
                "2091If-Modified-Since",
                "1994If-Unmodified-Since",
            ):
                continue  # a leap second is one to RFC 9110
            headers = {name: value.replace("1994", year)}
            assert gateway.request(method, f"/object/{id}", headers=headers).status == 200
