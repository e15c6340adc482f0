"""Plain requests, which go past gunicorn's parser: each is one to that parser, to h11, and the same
one.
"""

from __future__ import annotations

from random import Random
from typing import Any

import h11
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings, strategies

from gateway.server import fastpath

GOOD = (
    b"GET /object/a1 HTTP/1.1\r\nHost: objgw\r\nAccept: */*\r\nX-Id: 5\r\n\r\nGET /object/b "
    b"HTTP/1.1\r\n\r\n"
)
CONFIG = Config()
CONFIG.set("header_map", "dangerous")  # as in gunicorn.conf.py
FIRST = Request(CONFIG, IterUnreader([GOOD]), ("127.0.0.1", 1))


def taken(data: bytes) -> tuple[bytes, bytes, list[tuple[str, str]], bytes] | None:
    """Method, path, headers and what comes after them, of a plain request; None of all others."""
    line, end = fastpath.PLAIN.match(data), data.find(b"\r\n\r\n")
    if not line or end < 0:
        return None
    found: Any = fastpath.plain(FIRST, data[line.end() : end])
    return (line[1], line[2], found.headers, data[end + 4 :]) if found else None


def test_what_the_server_takes_for_a_plain_request_is_one_to_gunicorns_parser() -> None:
    """`fastpath.plain` and its expression beside the parser that they go past, on requests with
    random damage.
    """
    pieces = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"_",
        b"/",
        b"%2e",
        b"//",
        b"?",
        b"\x80",
        b"Host: b\r\n",
    ]
    pieces += [
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X: y\r\n z\r\n",
    ]
    good = (
        b"GET /object/a1 HTTP/1.1\r\nHost: objgw\r\nAccept: */*\r\nX-Id: 5\r\n\r\nGET "
        b"/object/b HTTP/1.1\r\n\r\n"
    )
    config, random, taken = Config(), Random(4), 0
    first = Request(config, IterUnreader([good]), ("127.0.0.1", 1))
    for _ in range(30_000):
        data = good
        for _ in range(random.randrange(3)):
            at = random.randrange(len(data))
            data = (
                data[:at]
                + random.choice([*pieces, data[at : at + 1].swapcase()])
                + data[at + random.randrange(3) :]
            )
        line, end = fastpath.PLAIN.match(data), data.find(b"\r\n\r\n")
        found = line and fastpath.plain(first, data[line.end() : end])
        if line and found:
            taken += 1
            unreader = IterUnreader([data])
            request = Request(config, unreader, ("127.0.0.1", 1))
            fastpath.check_request(request)
            assert (request.method, request.path, request.query) == (
                line[1].decode(),
                line[2].decode(),
                "",
            )
            assert (request.headers, request.version, request.should_close()) == (
                found.headers,
                (1, 1),
                False,
            )
            assert not request.body.read()
            assert unreader.take_buffered() == data[end + 4 :]
    assert 5_000 < taken < 25_000


def to_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[str, str]], bytes] | None:
    """The same by h11, of a request without a body on a connection that goes on; None where it is
    none.
    """
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request, end = connection.next_event(), connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or not isinstance(end, h11.EndOfMessage):
        return None
    if connection.their_state is not h11.DONE or request.http_version != b"1.1":
        return None
    headers = [(name.decode().upper(), value.decode("latin-1")) for name, value in request.headers]
    return request.method, request.target, headers, connection.trailing_data[0]


token = strategies.text("abzAZ019!#$%&'*+-.^_`|~", min_size=1, max_size=10).map(str.encode)
value = strategies.binary(max_size=12) | strategies.sampled_from(
    [
        b"close",
        b"keep-alive",
        b"5",
        b"0",
        b"chunked",
        b"100-continue",
        b"objgw",
        b"a b",
        b"a\tb",
        b"\xa0",
        b"\x85",
    ]
)
name = token | strategies.sampled_from(
    [
        b"Host",
        b"HOST",
        b"Connection",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Expect",
        b"Upgrade",
        b"Range",
        b"X ",
    ]
)
colon = strategies.sampled_from([b":", b": ", b":\t", b" :", b": \t "])
end = strategies.sampled_from(
    [b"\r\n"] * 12 + [b"\n", b"\r", b" \r\n", b"\r\n ", b"\r\n\t", b"\x0b\r\n", b"\0\r\n"]
)
field = strategies.builds(lambda *parts: b"".join(parts), name, colon, value, end)
easy_field = strategies.builds(lambda name, value: b"X-%b: %b\r\n" % (name, value), token, token)
method = strategies.sampled_from([b"GET", b"HEAD", b"DELETE"] * 3 + [b"PUT", b"get", b"OPTIONS"])
target = strategies.sampled_from(
    [b"/object/a1", b"/", b"//", b"/object//", b"/object/" + b"x" * 900] * 3
    + [b"/a?b", b"/%61", b"*", b"http://objgw/object/a", b"/a#b", b"/\xe4", b""]
)
version = strategies.sampled_from(
    [b"HTTP/1.1"] * 10 + [b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 "]
)
rest = strategies.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n", b"hello", b"\r\n"])


@settings(max_examples=1500)
@given(
    line=strategies.tuples(method, target, version),
    host=strategies.sampled_from(
        [b"Host: objgw\r\n"] * 6 + [b"", b"Host: a b\r\n", b"Host: objgw\r\nHost: objgw\r\n"]
    ),
    fields=strategies.lists(easy_field, max_size=3),
    odd=strategies.lists(field, max_size=1),
    rest=rest,
)
def test_what_the_server_takes_for_a_plain_request_is_the_same_one_to_h11(
    line: tuple[bytes, bytes, bytes],
    host: bytes,
    fields: list[bytes],
    odd: list[bytes],
    rest: bytes,
) -> None:
    data = b"".join([b" ".join(line), b"\r\n", host, *fields, *odd, b"\r\n", rest])
    if (found := taken(data)) is not None:
        assert to_h11(data) == found


@given(
    method=strategies.sampled_from([b"GET", b"HEAD", b"DELETE"]),
    fields=strategies.lists(easy_field),
    rest=rest,
)
def test_what_is_plain_takes_the_short_way(method: bytes, fields: list[bytes], rest: bytes) -> None:
    """So that the tests beside this one judge something."""
    data = b"".join([method, b" /object/a1 HTTP/1.1\r\nHost: objgw\r\n", *fields, b"\r\n", rest])
    found = taken(data)
    assert found is not None
    assert found == to_h11(data)
