"""Framing: what isn't HTTP/1.1 is refused, and hides no second request (RFC 9112)."""

from __future__ import annotations

import re

import pytest

from tests.harness.gateway import Gateway
from tests.harness.http import HELLO, TE, Wire, code, head, put
from tests.harness.waiting import random_id

MALFORMED: dict[str, bytes] = {
    # RFC 9112, 6.1 and 6.3: how long is the body?
    "a length and chunked": put("Content-Length: 5", TE, body=HELLO),
    "chunked and a length": put(TE, f"Content-Length: {len(HELLO)}", body=HELLO),
    "a length of 0 and chunked": put("Content-Length: 0", TE, body=HELLO),
    "two different lengths": put("Content-Length: 5", "Content-Length: 50"),
    "two equal lengths": put("Content-Length: 5", "Content-Length: 5"),
    "a list of lengths": put("Content-Length: 5, 5"),
    "a length with a plus": put("Content-Length: +5"),
    "a length with a minus": put("Content-Length: -5"),
    "a length with a blank": put("Content-Length: 0 5"),
    "a hexadecimal length": put("Content-Length: 0x5"),
    "a length with an underscore": put("Content-Length: 0_5"),
    "a length with a fraction": put("Content-Length: 5.0"),
    "a length in Arabic digits": put(
        "Content-Length: 5".replace("5", "\u0665".encode().decode("latin-1"))
    ),
    "a length in superscript": put("Content-Length: \xb2"),
    "a length without a digit": put("Content-Length:"),
    "a length in words": put("Content-Length: five"),
    "a length of 5,000 digits": put("Content-Length: " + "9" * 5000),
    "an unknown coding": put("Transfer-Encoding: xchunked", body=HELLO),
    "no coding": put("Transfer-Encoding:", body=HELLO),
    "chunked twice in one": put("Transfer-Encoding: chunked, chunked", body=HELLO),
    "chunked twice": put(TE, TE, body=HELLO),
    "identity": put("Transfer-Encoding: identity", body=HELLO),
    "identity and a length": put("Transfer-Encoding: identity", "Content-Length: 5"),
    "gzip": put("Transfer-Encoding: gzip", body=HELLO),
    "gzip in chunks": put("Transfer-Encoding: gzip, chunked", body=HELLO),
    "chunks in gzip": put("Transfer-Encoding: chunked, gzip", body=HELLO),
    "chunked in quotes": put('Transfer-Encoding: "chunked"', body=HELLO),
    "chunked with a parameter": put("Transfer-Encoding: chunked;q=1", body=HELLO),
    "chunked behind a control character": put("Transfer-Encoding: \x0bchunked", body=HELLO),
    "chunked in HTTP/1.0": put(TE, body=HELLO, version="HTTP/1.0"),
    "chunked in HTTP/1.0 that is kept": put(
        TE, "Connection: keep-alive", body=HELLO, version="HTTP/1.0"
    ),
    "a list of different lengths": put("Content-Length: 5,6"),
    "a list of lengths with an empty one": put("Content-Length: 5,"),
    "three equal lengths": put(*["Content-Length: 5"] * 3),
    "a length of -0": put("Content-Length: -0", body=b""),
    "a length with digits apart": put("Content-Length: 5 5"),
    "a length with a tab": put("Content-Length: 5\t5"),
    "a length in quotes": put('Content-Length: "5"'),
    "a length with a parameter": put("Content-Length: 5;a=b"),
    "a length with an exponent": put("Content-Length: 5e0"),
    "a length behind a vertical tab": put("Content-Length: \x0b5"),
    "a length before NUL": put("Content-Length: 5\0"),
    "a length behind 0xA0": put("Content-Length: \xa05"),
    "a length and an empty one": put("Content-Length: 5", "Content-Length:"),
    "a length and a coding that isn't one": put("Content-Length: 5", "Transfer-Encoding: xchunked"),
    "a length and an empty coding": put("Content-Length: 5", "Transfer-Encoding:"),
    "chunked before a vertical tab": put("Transfer-Encoding: chunked\x0b", body=HELLO),
    "chunked before NUL": put("Transfer-Encoding: chunked\0", body=HELLO),
    "chunked before a form feed": put("Transfer-Encoding: chunked\x0c", body=HELLO),
    "chunked before 0x85": put("Transfer-Encoding: chunked\x85", body=HELLO),
    "chunked behind 0xA0": put("Transfer-Encoding: \xa0chunked", body=HELLO),
    "chunked with a parameter after a blank": put("Transfer-Encoding: chunked ;x=y", body=HELLO),
    "chunked in two words": put("Transfer-Encoding: chun ked", body=HELLO),
    "chunked twice by a blank": put("Transfer-Encoding: chunked chunked", body=HELLO),
    "chunked and identity": put("Transfer-Encoding: chunked, identity", body=HELLO),
    "chunked and identity in two headers": put(TE, "Transfer-Encoding: identity", body=HELLO),
    "chunked and an unknown coding": put("Transfer-Encoding: chunked, x", body=HELLO),
    "an unknown coding and chunked": put("Transfer-Encoding: x, chunked", body=HELLO),
    "chunked three times": put("Transfer-Encoding: chunked,chunked", TE, body=HELLO),
    "a coding folded": put("Transfer-Encoding:", " chunked", body=HELLO),
    "a blank before the colon of a coding": put("Transfer-Encoding : chunked", body=HELLO),
    "a tab before the colon of a coding": put("Transfer-Encoding\t: chunked", body=HELLO),
    "a blank before a coding's name": put("X: y", " Transfer-Encoding: chunked", body=HELLO),
    "a coding in 0xFF": put("Transfer-Encoding: \xffchunked", body=HELLO),
    "chunked and a length in HTTP/1.0": put(
        TE, "Content-Length: 5", body=HELLO, version="HTTP/1.0"
    ),
    # RFC 9112, 7.1: chunks
    "a chunk size of garbage": put(TE, body=b"five\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a minus": put(TE, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a plus": put(TE, body=b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with 0x": put(TE, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with an underscore": put(TE, body=b"0_5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size behind a blank": put(TE, body=b" 5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size before a blank": put(TE, body=b"5 \r\nhello\r\n0\r\n\r\n"),
    "a chunk without a size": put(TE, body=b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk size line without an end": put(TE, body=b"5;" + b"x" * 200_000),
    "a chunk without its CRLF": put(TE, body=b"5\r\nhello0\r\n\r\n"),
    "a chunk longer than its size": put(TE, body=b"5\r\nhello!!\r\n0\r\n\r\n"),
    "a chunk that ends in bare LF": put(TE, body=b"5\r\nhello\n0\r\n\r\n"),
    "chunks with bare LF": put(TE, body=b"5\nhello\n0\n\n"),
    "a bad chunk extension": put(TE, body=b"5;=\0\r\nhello\r\n0\r\n\r\n"),
    "a chunk size of 0x alone": put(TE, body=b"0x\r\n\r\n"),
    "a chunk size of -0": put(TE, body=b"5\r\nhello\r\n-0\r\n\r\n"),
    "a chunk size with h": put(TE, body=b"5h\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a tab": put(TE, body=b"\t5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a comma": put(TE, body=b"5,5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a fraction": put(TE, body=b"5.0\r\nhello\r\n0\r\n\r\n"),
    "a chunk size before NUL": put(TE, body=b"5\0\r\nhello\r\n0\r\n\r\n"),
    "a chunk size in Arabic digits": put(TE, body="\u0665\r\nhello\r\n0\r\n\r\n".encode()),
    "a chunk size of 0xB5": put(TE, body=b"\xb5\r\nhello\r\n0\r\n\r\n"),
    "a chunk of which the size says less": put(TE, body=b"4\r\nhello\r\n0\r\n\r\n"),
    "a chunk of which the size says more": put(TE, body=b"6\r\nhello\r\n0\r\n\r\n"),
    "a chunk that ends in bare CR": put(TE, body=b"5\r\nhello\r0\r\n\r\n"),
    "a chunk that ends in LF CR": put(TE, body=b"5\r\nhello\n\r0\r\n\r\n"),
    "a chunk that ends in two line ends": put(TE, body=b"5\r\nhello\r\n\r\n0\r\n\r\n"),
    "a chunk size line that ends in bare LF": put(TE, body=b"5\nhello\r\n0\r\n\r\n"),
    "a chunk size line that ends in bare CR": put(TE, body=b"5\rhello\r\n0\r\n\r\n"),
    "a chunk size line that ends in CR CR LF": put(TE, body=b"5\r\r\nhello\r\n0\r\n\r\n"),
    "the last chunk's line ends in bare LF": put(TE, body=b"5\r\nhello\r\n0\n\r\n"),
    "the last line ends in bare LF": put(TE, body=b"5\r\nhello\r\n0\r\n\n"),
    "a chunk extension with bare LF": put(TE, body=b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension that ends in bare LF": put(TE, body=b"5;a\nhello\r\n0\r\n\r\n"),
    "a chunk extension with bare CR": put(TE, body=b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension with a line end in quotes": put(
        TE, body=b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'
    ),
    "a chunk extension with a quote that isn't closed": put(
        TE, body=b'5;a="b\r\nhello\r\n0\r\n\r\n'
    ),
    "a chunk extension without a name": put(TE, body=b"5;=b\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension without a value": put(TE, body=b"5;a=\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension of nothing": put(TE, body=b"5;\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension without a semicolon": put(TE, body=b"5 a=b\r\nhello\r\n0\r\n\r\n"),
    "a trailer without a name": put(TE, body=b"5\r\nhello\r\n0\r\n: a\r\n\r\n"),
    "a trailer with a blank before the colon": put(TE, body=b"5\r\nhello\r\n0\r\na : b\r\n\r\n"),
    "a trailer that is folded": put(TE, body=b"5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n"),
    "a trailer with NUL": put(TE, body=b"5\r\nhello\r\n0\r\na: \0\r\n\r\n"),
    "a trailer with bare CR": put(TE, body=b"5\r\nhello\r\n0\r\na: b\rc: d\r\n\r\n"),
    "a trailer with bare LF": put(TE, body=b"5\r\nhello\r\n0\r\na: b\nc: d\r\n\r\n"),
    "a trailer that says a length": put(TE, body=b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
    "a trailer that says chunked": put(
        TE, body=b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "a trailer that says a host": put(TE, body=b"5\r\nhello\r\n0\r\nHost: x\r\n\r\n"),
    "too many trailers": put(TE, body=b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 120 + b"\r\n"),
    "an oversized trailer": put(TE, body=b"5\r\nhello\r\n0\r\na: " + b"b" * 8200 + b"\r\n\r\n"),
    "a trailer without a colon": put(TE, body=b"5\r\nhello\r\n0\r\ntrailer\r\n\r\n"),
    # RFC 9112, 2.2 and 5: lines and headers
    "bare LF throughout": put("Content-Length: 5").replace(b"\r\n", b"\n"),
    "bare LF in the headers": put("X: y\nContent-Length: 5"),
    "bare CR in a header": put("X: y\rContent-Length: 5", "Content-Length: 0", body=b""),
    "a folded header": put("X: y", " Content-Length: 50", "Content-Length: 5"),
    "a folded first header": b"PUT /object/{id} HTTP/1.1\r\n Host: objgw\r\nHost: "
    b"x\r\nContent-Length: "
    b"5\r\n\r\nhello",
    "a header without a colon": put("Content-Length: 5", "garbage"),
    "a header without a name": put("Content-Length: 5", ": x"),
    "a blank before the colon": put("Content-Length : 5"),
    "a blank in a name": put("Content-Length: 5", "X Y: z"),
    "NUL in a header": put("Content-Length: 5", "X-Amz-Meta-A: a\0b"),
    "NUL in a name": put("Content-Length: 5", "X\0: b"),
    "a name that isn't ASCII": put("Content-Length: 5", "X-\xe4: b"),
    "an oversized header": put("Content-Length: 5", "X: " + "y" * 8200),
    "too many headers": put("Content-Length: 5", *[f"X-{n}: y" for n in range(120)]),
    "endless headers": put("Content-Length: 5", *[f"X-{n}: {'y' * 8000}" for n in range(120)]),
    "bare LF after the request line": put("Content-Length: 5").replace(
        b"HTTP/1.1\r\n", b"HTTP/1.1\n"
    ),
    "bare CR after the request line": put("Content-Length: 5").replace(
        b"HTTP/1.1\r\n", b"HTTP/1.1\r"
    ),
    "bare LF at the end of the headers": put("Content-Length: 5").replace(b"\r\n\r\n", b"\n\n"),
    "bare LF as the empty line": put("Content-Length: 5").replace(b"\r\n\r\n", b"\r\n\n"),
    "CR CR LF at a line's end": put("X: y\r", "Content-Length: 5"),
    "LF CR at a line's end": put("X: y\n\rContent-Length: 5"),
    "bare CR in a name": put("X\rY: z", "Content-Length: 5"),
    "bare LF in a name": put("X\nY: z", "Content-Length: 5"),
    "bare CR before the colon": put("Content-Length\r: 5"),
    "bare LF before a request": b"\n" + put("Content-Length: 5"),
    "bare CR before a request": b"\r" + put("Content-Length: 5"),
    "a blank before a request": b" " + put("Content-Length: 5"),
    "a tab before the colon": put("Content-Length\t: 5"),
    "a vertical tab before the colon": put("Content-Length\x0b: 5"),
    "a blank before a name": put("X: y", " Content-Length: 5"),
    "a header folded by a tab": put("X: y", "\tContent-Length: 50", "Content-Length: 5"),
    "a header folded by nothing but a blank": put("X: y", " ", "Content-Length: 5"),
    "a header folded behind an empty value": put("X:", " y", "Content-Length: 5"),
    "a line of blanks as the empty line": put("Content-Length: 5", "  "),
    "a colon alone": put("Content-Length: 5", ":"),
    "a name in quotes": put("Content-Length: 5", '"X": y'),
    "a name with a slash": put("Content-Length: 5", "X/Y: z"),
    "a name with a parenthesis": put("Content-Length: 5", "X(Y): z"),
    "DEL in a header": put("Content-Length: 5", "X: y\x7f"),
    "a control character in a header": put("Content-Length: 5", "X: y\x01"),
    "a form feed in a header": put("Content-Length: 5", "X: y\x0cz"),
    "101 headers": put("Content-Length: 5", *[f"X-{n}: y" for n in range(99)]),
    # RFC 9112, 3: request line, and Host
    "no host": b"PUT /object/{id} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "two hosts": put("Host: other", "Content-Length: 5"),
    "an oversized request line": put("Content-Length: 5").replace(b"{id}", b"{id}?" + b"x" * 9000),
    "a request line of 8,200 bytes": put("Content-Length: 5").replace(b"{id}", b"x" * 8200),
    "a fragment": put("Content-Length: 5").replace(b"{id}", b"{id}#x"),
    "an empty fragment": put("Content-Length: 5").replace(b"{id}", b"{id}#"),
    "bytes that aren't ASCII in the target": put("Content-Length: 5").replace(
        b"{id}", b"{id}\xc3\xa4"
    ),
    "NUL in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\0"),
    "DEL in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\x7f"),
    "a tab in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\tx"),
    "a blank in the target": put("Content-Length: 5").replace(b"{id}", b"{id} x"),
    "bare CR in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\rx"),
    "bare LF in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\nx"),
    "a host and a port as the target": put("Content-Length: 5").replace(
        b"/object/{id}", b"objgw:3000"
    ),
    "a target without a slash": put("Content-Length: 5").replace(b"/object/{id}", b"object/{id}"),
    "a tunnel": put("Content-Length: 5").replace(b"PUT /object/{id}", b"CONNECT objgw:3000"),
    "no target": put("Content-Length: 5").replace(b" /object/{id}", b""),
    "an empty target": put("Content-Length: 5").replace(b"/object/{id}", b""),
    "no version": put("Content-Length: 5").replace(b" HTTP/1.1", b""),
    "an empty version": put("Content-Length: 5").replace(b"HTTP/1.1", b""),
    "HTTP/1": put("Content-Length: 5", version="HTTP/1"),
    "HTTP/1.10": put("Content-Length: 5", version="HTTP/1.10"),
    "HTTP/01.1": put("Content-Length: 5", version="HTTP/01.1"),
    "HTTP/1,1": put("Content-Length: 5", version="HTTP/1,1"),
    "HTTP/3.0": put("Content-Length: 5", version="HTTP/3.0"),
    "HTTP 1.1": put("Content-Length: 5", version="HTTP 1.1"),
    "a version before a blank": put("Content-Length: 5", version="HTTP/1.1 "),
    "a version before a tab": put("Content-Length: 5", version="HTTP/1.1\t"),
    "a version in Arabic digits": put("Content-Length: 5", version="HTTP/1.\xd9\xa1"),
    "a version in superscript": put("Content-Length: 5", version="HTTP/1.\xb9"),
    "a vertical tab in the request line": put("Content-Length: 5").replace(b"PUT ", b"PUT\x0b"),
    "NUL in the method": put("Content-Length: 5").replace(b"PUT", b"P\0T"),
    "a method in lower case": put("Content-Length: 5").replace(b"PUT", b"put"),
    "a method that isn't a token": put("Content-Length: 5").replace(b"PUT", b"P(T"),
    "two blanks in the request line": put("Content-Length: 5").replace(b"PUT ", b"PUT  "),
    "a tab in the request line": put("Content-Length: 5").replace(b"PUT ", b"PUT\t"),
    "HTTP/0.9": b"GET /object/{landmark}\r\n",
    "HTTP/0.9, said so": put("Content-Length: 5", version="HTTP/0.9"),
    "HTTP/2.0": put("Content-Length: 5", version="HTTP/2.0"),
    "HTTP/1.1 and more": put("Content-Length: 5", version="HTTP/1.1.1"),
    "http in lower case": put("Content-Length: 5", version="http/1.1"),
    "another protocol": put("Content-Length: 5", version="RTSP/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\r\n\r\n",
    "no path": put("Content-Length: 5").replace(b"/object/{id}", b"*"),
}

# RFC 9112, 3.2, and RFC 9110, 7.2: what a Host header may be.
HOSTS: dict[str, bytes] = {
    f"the host {host!r}": put("Content-Length: 5").replace(
        b"Host: objgw", f"Host: {host}".encode("latin-1")
    )
    for host in (
        *(
            "a b",
            "x,y",
            "x, y",
            "[::1",
            "::1]",
            "[::1]x",
            "[]",
            "[::1]:x",
            "a/b",
            "/",
            "user@host",
            "a?b",
            "a#b",
        ),
        *(
            "http://objgw",
            "objgw:port",
            "objgw:3000:3000",
            "objgw:-1",
            "objgw:+1",
            "objgw:3000 ,x",
            "a\\b",
            "a<b>",
        ),
        *('"objgw"', "objgw\xe4", "a%zz", "a%2", "a|b", "a^b", "{a}"),
    )
} | {
    "two equal hosts": put("Host: objgw", "Content-Length: 5"),
    "a host and an empty one": put("Host:", "Content-Length: 5"),
    "a folded host": put("Content-Length: 5").replace(b"Host: objgw", b"Host:\r\n objgw"),
    "a blank before the colon of a host": put("Content-Length: 5").replace(b"Host:", b"Host :"),
    "no host but an absolute target": put("Content-Length: 5")
    .replace(b"Host: objgw\r\n", b"")
    .replace(b" /", b" http://objgw/"),
    "two hosts in HTTP/1.0": put("Host: objgw", "Content-Length: 5", version="HTTP/1.0"),
}

MALFORMED |= HOSTS


@pytest.mark.parametrize("row", MALFORMED)
def test_malformed_requests_are_refused_and_hide_no_other(
    gateway: Gateway, row: str, landmark: tuple[str, bytes]
) -> None:
    id, there = random_id(), landmark[0].encode()
    with Wire(gateway, timeout=8) as wire:
        request = MALFORMED[row].replace(b"{id}", id.encode()).replace(b"{landmark}", there)
        wire.send(request, head("GET", landmark[0]))
        came = wire.rest()
    assert landmark[1] not in came
    assert len(re.findall(rb"HTTP/1\.\d \d", came)) <= 1
    assert not came or re.match(rb"HTTP/1\.1 (4\d\d|501|505) ", came)
    assert gateway.get(id).status == 404


@pytest.mark.parametrize("method", [b"PUT", b"GET"])
@pytest.mark.parametrize("row", MALFORMED)
def test_malformed_requests_are_refused_on_a_connection_that_had_good_ones(
    gateway: Gateway, row: str, method: bytes, landmark: tuple[str, bytes]
) -> None:
    id, there = random_id(), landmark[0].encode()
    with Wire(gateway, timeout=8) as wire:
        for _ in range(3):
            wire.send(head("GET", landmark[0]))
            assert wire.answer().body == landmark[1]
        request = MALFORMED[row].replace(b"{id}", id.encode()).replace(b"{landmark}", there)
        wire.send(request.replace(b"PUT", method, 1), head("GET", landmark[0]))
        came = wire.rest()
    assert landmark[1] not in came
    assert len(re.findall(rb"HTTP/1\.\d \d", came)) <= 1
    assert not came or re.match(rb"HTTP/1\.1 (4\d\d|501|505) ", came)


@pytest.mark.parametrize(
    ("row", "status"),
    {
        "an unknown coding": 501,
        "an oversized header": 431,
        "too many headers": 431,
        "an oversized request line": 414,
        "two different lengths": 400,
        "no host": 400,
        "a folded header": 400,
    }.items(),
)
def test_a_malformed_request_is_told_what_is_wrong(gateway: Gateway, row: str, status: int) -> None:
    with Wire(gateway) as wire:
        wire.send(MALFORMED[row].replace(b"{id}", random_id().encode()))
        answer = wire.answer()
    assert code(answer) == status
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("size", [b"f" * 15, b"f" * 16, b"f" * 17, b"f" * 1000])
def test_a_chunk_that_is_larger_than_all_there_is_stores_nothing(
    gateway: Gateway, size: bytes
) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, TE), size, b"\r\nhello\r\n0\r\n\r\n")
        wire.half_close()
        assert code(wire.answer()) in (400, 413)
    assert gateway.get(id).status == 404


@pytest.mark.parametrize("length", ["9" * 19, "9" * 20, "9" * 1000])
def test_a_length_that_is_larger_than_all_there_is_stores_nothing(
    gateway: Gateway, length: str
) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, f"Content-Length: {length}"), b"x" * 100_000)
        wire.half_close()
        assert code(wire.answer()) in (400, 413)
    assert gateway.get(id).status == 404
