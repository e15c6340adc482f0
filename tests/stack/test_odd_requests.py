"""Requests that look odd and are right: they work, and each connection stays in step (RFC 9112)."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import HELLO, TE, Wire, chunked, code, head, pattern, put
from tests.harness.waiting import random_id

# What looks odd and is right: what is sent as a PUT, and the bytes that it stores.
ODD: dict[str, tuple[bytes, bytes]] = {
    "chunk extensions": (put(TE, body=b'5;a=b;c="d;e" ; f\r\nhello\r\n0;last\r\n\r\n'), b"hello"),
    "trailers": (
        put(TE, "Trailer: X-End", body=b"5\r\nhello\r\n0\r\nX-End: 1\r\nX-More: 2\r\n\r\n"),
        b"hello",
    ),
    "upper-case hexadecimal": (put(TE, body=b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "leading zeros in a chunk size": (put(TE, body=b"00005\r\nhello\r\n000\r\n\r\n"), b"hello"),
    "chunked in capitals": (put("Transfer-Encoding: CHUNKED", body=HELLO), b"hello"),
    "chunked in small letters": (put("transfer-encoding:chunked", body=HELLO), b"hello"),
    "chunks of one byte": (put(TE, body=chunked(b"hello", 1)), b"hello"),
    "no chunk but the last": (put(TE, body=b"0\r\n\r\n"), b""),
    "leading zeros in the length": (put("Content-Length: 005"), b"hello"),
    "blanks and tabs around a value": (put("Content-Length: \t 5 \t"), b"hello"),
    "neither length nor chunks": (put(body=b""), b""),
    "an empty line before the request": (b"\r\n" + put("Content-Length: 5"), b"hello"),
    "an absolute target": (
        put("Content-Length: 5").replace(b" /", b" http://objgw:3000/"),
        b"hello",
    ),
    "a query without anything": (put("Content-Length: 5").replace(b" HTTP", b"? HTTP"), b"hello"),
    "HTTP/1.0": (put("Content-Length: 5", version="HTTP/1.0"), b"hello"),
    "HTTP/1.0 that expects": (
        put("Content-Length: 5", "Expect: 100-continue", version="HTTP/1.0"),
        b"hello",
    ),
    "blanks before chunk extensions": (
        put(TE, body=b"5 \t; a = b\r\nhello\r\n0 ;x\r\n\r\n"),
        b"hello",
    ),
    "a quoted chunk extension": (put(TE, body=b'5;a="b;c\\"\xe4"\r\nhello\r\n0\r\n\r\n'), b"hello"),
    "many chunk extensions": (
        put(TE, body=b"5" + b";a=b" * 1000 + b"\r\nhello\r\n0\r\n\r\n"),
        b"hello",
    ),
    "a thousand leading zeros": (put(TE, body=b"0" * 1000 + b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "a chunk that looks like the last": (
        put(TE, body=b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        b"0\r\n\r\n",
    ),
    "an empty trailer": (put(TE, body=b"5\r\nhello\r\n0\r\nX-End:\r\n\r\n"), b"hello"),
    "a length of 0": (put("Content-Length: 0", body=b""), b""),
    "a thousand leading zeros in the length": (put(f"Content-Length: {'0' * 1000}5"), b"hello"),
    "chunked with blanks around": (put("Transfer-Encoding:\t chunked \t", body=HELLO), b"hello"),
    "an absolute target with another host": (
        put("Content-Length: 5").replace(b" /", b" http://other:80/"),
        b"hello",
    ),
    "an escape in the target": (
        put("Content-Length: 5").replace(b"/object/", b"/%6fbject/"),
        b"hello",
    ),
    "HTTP/1.2": (put("Content-Length: 5", version="HTTP/1.2"), b"hello"),
    "HTTP/1.2 without a length": (put(body=b"", version="HTTP/1.2"), b""),
    "HTTP/1.9": (put("Content-Length: 5", version="HTTP/1.9"), b"hello"),
    "an empty value": (put("Content-Length: 5", "X:"), b"hello"),
    "a name of every letter that a token may have": (
        put("Content-Length: 5", "!#$%&'*+-.^`|~09azAZ: x"),
        b"hello",
    ),
    "a value of obs-text": (put("Content-Length: 5", "X: \x80\x85\xa0\xff"), b"hello"),
    "100 headers": (put("Content-Length: 5", *[f"X-{n}: y" for n in range(98)]), b"hello"),
    "a host with a port": (
        put("Content-Length: 5").replace(b"Host: objgw", b"Host: objgw:3000"),
        b"hello",
    ),
    "a host with an empty port": (
        put("Content-Length: 5").replace(b"Host: objgw", b"Host: objgw:"),
        b"hello",
    ),
    "a host of IPv6": (
        put("Content-Length: 5").replace(b"Host: objgw", b"Host: [2001:db8::1]:80"),
        b"hello",
    ),
    "a host with escapes": (
        put("Content-Length: 5").replace(b"Host: objgw", b"Host: a%20b"),
        b"hello",
    ),
    "a host of sub-delims": (
        put("Content-Length: 5").replace(b"Host: objgw", b"Host: a!$&'()*+;=~_-.b"),
        b"hello",
    ),
    "an empty host": (put("Content-Length: 5").replace(b"Host: objgw", b"Host:"), b"hello"),
    "close": (put("Content-Length: 5", "Connection: close"), b"hello"),
    "close among others": (
        put("Content-Length: 5", "Connection: TE, Close", "TE: trailers"),
        b"hello",
    ),
}


@pytest.mark.parametrize("row", ODD)
def test_odd_but_valid_requests_work(
    gateway: Gateway, row: str, landmark: tuple[str, bytes]
) -> None:
    id, (request, body) = random_id(), ODD[row]
    with Wire(gateway) as wire:
        wire.send(request.replace(b"{id}", id.encode()))
        answer = wire.answer()
        assert answer.status == 200
        assert (answer.headers["Connection"] == "close") == ("HTTP/1.0" in row or "close" in row)
        wire.assert_in_step(answer, *landmark)
    assert gateway.get(id).body == body


def test_pipelined_requests_are_answered_in_their_order(
    gateway: Gateway, landmark: tuple[str, bytes]
) -> None:
    ids = [random_id() for _ in range(5)]
    bodies = [pattern(70_000 + n) for n in range(5)]
    with Wire(gateway) as wire:
        for id, body in zip(ids, bodies, strict=True):
            length = f"Content-Length: {len(body)}"
            wire.send(
                head("PUT", id, length),
                body,
                head("GET", id),
                head("HEAD", id),
                head("GET", "no-id"),
            )
        wire.send(head("GET", landmark[0], "Connection: close"))
        for body in bodies:
            statuses = [
                wire.answer().status,
                (got := wire.answer()).status,
                wire.answer("HEAD").status,
            ]
            assert (statuses, got.body) == ([200, 200, 200], body)
            assert code(wire.answer()) == 400
        assert wire.answer().body == landmark[1]
        assert wire.rest() == b""


def test_http_1_0_gets_an_object_and_a_closed_connection(
    gateway: Gateway, landmark: tuple[str, bytes]
) -> None:
    with Wire(gateway) as wire:
        wire.send(f"GET /object/{landmark[0]} HTTP/1.0\r\n\r\n".encode())
        assert wire.answer().body == landmark[1]
        assert wire.rest() == b""
