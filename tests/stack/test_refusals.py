"""After a refusal, a connection is closed, as announced, or serves the next request rightly."""

from __future__ import annotations

import re

import pytest

from tests.harness.gateway import Answer, Gateway
from tests.harness.http import OTHER, TE, Wire, chunked, head, store
from tests.harness.waiting import random_id

# A request's head, whose {id} is missing and {there} is there, and the refusal.
REFUSED: dict[str, tuple[bytes, int]] = {
    "bad id": (head("GET", "no-id"), 400),
    "bad id, HEAD": (head("HEAD", "no-id"), 400),
    "missing": (head("GET", "{id}"), 404),
    "missing, HEAD": (head("HEAD", "{id}"), 404),
    "another path": (b"GET /other HTTP/1.1\r\nHost: objgw\r\n\r\n", 404),
    "another path, HEAD": (b"HEAD /other HTTP/1.1\r\nHost: objgw\r\n\r\n", 404),
    "another method": (head("PATCH", "{id}"), 405),
    "options": (head("OPTIONS", "{there}"), 405),
    "failed condition": (head("GET", "{there}", f"If-Match: {OTHER}"), 412),
    "failed condition, HEAD": (head("HEAD", "{there}", f"If-Match: {OTHER}"), 412),
    "bad range": (head("GET", "{there}", "Range: bytes=999-"), 416),
    "not modified": (head("GET", "{there}", "If-None-Match: *"), 304),
    "not modified, HEAD": (head("HEAD", "{there}", "If-None-Match: *"), 304),
}

REFUSED_UPLOADS: dict[str, tuple[bytes, int]] = {
    "bad id": (head("PUT", "no-id", "{framing}"), 400),
    "another path": (head("PUT", "{id}", "{framing}").replace(b"/object/", b"/other/"), 404),
    "another method": (head("POST", "{id}", "{framing}"), 405),
    "already there": (head("PUT", "{there}", "If-None-Match: *", "{framing}"), 412),
    "not there": (head("PUT", "{id}", f"If-Match: {OTHER}", "{framing}"), 412),
    "wrong checksum": (
        head("PUT", "{id}", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==", "{framing}"),
        400,
    ),
}


def assert_refused(answer: Answer, method: str, status: int) -> None:
    assert answer.status == status
    if method == "HEAD" or status == 304:
        assert answer.body == b""
    else:
        assert answer.problem
    if status == 405:
        assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE"
    if status == 416:
        assert re.fullmatch(r"bytes \*/\d+", answer.headers["Content-Range"])


@pytest.mark.parametrize("row", REFUSED)
def test_after_a_refusal_the_connection_is_usable(
    gateway: Gateway, row: str, landmark: tuple[str, bytes]
) -> None:
    request, status = REFUSED[row]
    request = request.replace(b"{id}", random_id().encode()).replace(
        b"{there}", landmark[0].encode()
    )
    method = request.split()[0].decode()
    with Wire(gateway) as wire:
        for _ in range(3):
            wire.send(request)
            answer = wire.answer(method)
            assert_refused(answer, method, status)
            assert answer.headers["Connection"] != "close"
        wire.assert_in_step(answer, *landmark)


@pytest.mark.parametrize("size", [10, 60_000, 12_000_000])
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("row", REFUSED_UPLOADS)
def test_after_a_refused_upload_the_client_gets_the_refusal_and_the_connection_is_in_step(
    gateway: Gateway, row: str, size: int, chunks: bool, landmark: tuple[str, bytes]
) -> None:
    request, status = REFUSED_UPLOADS[row]
    framing, body = (
        (TE, chunked(bytes(size), 50_000)) if chunks else (f"Content-Length: {size}", bytes(size))
    )
    for name, value in {
        b"{id}": random_id(),
        b"{there}": landmark[0],
        b"{framing}": framing,
    }.items():
        request = request.replace(name, value.encode())
    with Wire(gateway) as wire:
        wire.send(request)
        wire.send(body)  # no reset, which might cost the client the answer
        answer = wire.answer()
        assert_refused(answer, "PUT", status)
        wire.assert_in_step(answer, *landmark)
    assert gateway.get(landmark[0]).body == landmark[1]


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_get_with_a_body_stays_in_step(
    gateway: Gateway, size: int, landmark: tuple[str, bytes]
) -> None:
    with Wire(gateway) as wire:
        wire.send(
            head("GET", landmark[0], f"Content-Length: {size}"),
            head("GET", landmark[0]) + bytes(size),
        )
        answer = wire.answer()
        if answer.headers["Connection"] == "close":
            assert wire.rest() == b""
    assert answer.body == landmark[1]


@pytest.mark.parametrize("status", [200, 404])
def test_a_head_request_brings_what_get_brings_but_the_body(gateway: Gateway, status: int) -> None:
    id = store(gateway, x_amz_meta_a="b") if status == 200 else random_id()
    get, seen = gateway.get(id), gateway.head(id)
    assert get.status == seen.status == status
    of_each = dict.fromkeys(("Date", "X-Request-Id", "Server-Timing"), "")
    assert {**seen.headers, **of_each} == {**get.headers, **of_each}
