"""What goes to a node and what comes from it, beside h11: as a server for our requests, as a client
for its answers.

A fake node is a real socket. Answers come over a SOCK_SEQPACKET pair, which keeps what was sent at
once together, so that a test says where an answer is cut, and nothing hangs on time.
"""

from __future__ import annotations

import io
import socket
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import h11
import pytest
from hypothesis import given, settings, strategies

from gateway.s3.body import BLOCK, REPLAY_BYTES, Upload
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.endpoint import Endpoint
from gateway.s3.node import Node
from gateway.s3.reply import FIELD_MAX, FIELDS_MAX, UNUSED, Fields
from gateway.settings import Settings

Pairs = list[tuple[bytes, bytes]]


# --------------------------------------------------------------------------------------------------
# What we send
# --------------------------------------------------------------------------------------------------
class Server(threading.Thread):
    """A server on h11's judgement: it answers each request with 200, and asks for a body where it's
    waited for.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.took: list[
            tuple[str, str, dict[str, str], bytes, bool]
        ] = []  # ..., body, whether it was asked for
        self.error: Exception | None = None

    def run(self) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while self.one_request(connection):
                connection.start_next_cycle()
        except Exception as error:
            self.error = error
        finally:
            self.sock.close()

    def one_request(self, connection: h11.Connection) -> bool:
        """Whether there was one."""
        body, asked = b"", False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    asked = True
                    self.sock.sendall(
                        connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                        or b""
                    )
                connection.receive_data(self.sock.recv(65536))
            elif isinstance(event, h11.Request):
                method, target = event.method.decode(), event.target.decode()
                assert event.http_version == b"1.1"
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                assert len(headers) == len(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.took.append((method, target, headers, body, asked))
                self.sock.sendall(
                    connection.send(
                        h11.Response(status_code=200, headers=[("Content-Length", "0")])
                    )
                )
                connection.send(h11.EndOfMessage())
                return True
            else:
                assert isinstance(event, h11.ConnectionClosed)
                return False


RECORD = Endpoint("node", "0", "127.0.0.1", 9000, "ring", "treepotato")


@contextmanager
def served() -> Iterator[tuple[Node, Connection, Server]]:
    """A node, a connection to a server, and that server, which has read all when the
    block is over.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    server = Server(theirs)
    server.start()
    try:
        yield Node(RECORD, Settings()), Connection(ours), server
    finally:
        ours.close()
        server.join()
    assert server.error is None, repr(server.error)


VALUE = "".join(chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100)))
values = strategies.text(VALUE + " \t", max_size=30)
ascii_values = strategies.text(string.printable[:95], max_size=30)
fields = strategies.fixed_dictionaries(
    {},
    optional={
        "content-type": values,
        "cache-control": values,
        "content-disposition": values,
        "if-none-match": strategies.just("*"),
        "range": strategies.just("bytes=0-3"),
        "x-amz-meta-a": ascii_values,
        "x-amz-checksum-crc32": ascii_values,
    },
)
sizes = strategies.none() | strategies.sampled_from(
    [0, 1, 1000, REPLAY_BYTES - 1, REPLAY_BYTES, REPLAY_BYTES + 1, BLOCK + REPLAY_BYTES + 1]
)
ids = strategies.text(string.ascii_letters + string.digits, min_size=1, max_size=32)


@settings(max_examples=100)
@given(
    requests=strategies.lists(
        strategies.tuples(strategies.sampled_from(["GET", "HEAD", "DELETE"]), ids, fields, sizes),
        max_size=4,
    )
)
def test_every_request_to_a_node_is_one_that_h11_takes_as_it_was_meant(
    requests: list[tuple[str, str, dict[str, str], int | None]],
) -> None:
    with served() as (node, connection, server):
        node.ready = True
        for method, id, headers, size in requests:
            upload = None if size is None else Upload(io.BytesIO(b"x" * size), size)
            request = Request(
                method if upload is None else "PUT", f"/objgw/{id}", headers, upload, "a1"
            )
            assert node.exchange(connection, request).status == 200
    assert len(server.took) == len(requests)
    for (method, id, headers, size), took in zip(requests, server.took, strict=True):
        length = size or 0
        careful = length > REPLAY_BYTES or (length > 0 and "if-none-match" in headers)
        assert took[:2] == (method if size is None else "PUT", f"/objgw/{id}")
        assert took[3:] == (b"x" * (size or 0), careful)
        meant = {name: value.strip(" \t") for name, value in headers.items()}
        meant |= {
            "host": "127.0.0.1:9000",
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "x-request-id": "a1",
        }
        if size is not None:
            meant["content-length"] = str(size)
        if careful:
            meant["expect"] = "100-continue"
        assert meant.items() <= took[2].items()
        assert took[2].keys() - meant.keys() == {"authorization", "x-amz-date"}


def test_the_first_upload_makes_the_bucket_and_a_record_is_asked_for_without_it() -> None:
    with served() as (node, connection, server):
        record = Request("GET", "/objgw-layout/layout", {"if-none-match": '"a"'})
        assert node.ask(connection, record).status == 200
        for _ in range(2):
            node.exchange(
                connection, Request("PUT", "/objgw/a", {}, Upload(io.BytesIO(b"body"), 4))
            )
    assert [(method, target, body) for method, target, _, body, _ in server.took] == [
        ("GET", "/objgw-layout/layout", b""),
        ("PUT", "/objgw", b""),
        ("PUT", "/objgw/a", b"body"),
        ("PUT", "/objgw/a", b"body"),
    ]


# --------------------------------------------------------------------------------------------------
# What we take for an answer
# --------------------------------------------------------------------------------------------------
@dataclass
class Taken:
    """What somebody made of an answer; a name that comes twice has one value (RFC 9110, 5.3)."""

    status: int
    headers: dict[str, str]
    body: bytes
    usable: bool  # whether the connection may be used again


def ours(method: str, pieces: list[bytes]) -> Taken | None:
    """None where it is refused."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.settimeout(10)
        for piece in pieces:
            right.send(piece)
        right.close()
        connection = Connection(left)
        try:
            reply = connection.reply(method)
            connection.finish(reply)
        except UpstreamError:
            return None
        return Taken(reply.status, reply.headers, reply.body, connection.usable)


def h11s(method: str, pieces: list[bytes]) -> Taken | None:
    """None where it is refused."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    status, headers, body = 0, dict[str, str](), b""
    try:
        for piece in [*pieces, b""]:
            connection.receive_data(piece)
            while (event := connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    status = event.status_code
                    for raw, text in event.headers:
                        name, value = raw.decode(), text.decode("latin-1")
                        headers[name] = f"{headers[name]}, {value}" if name in headers else value
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return Taken(status, headers, body, connection.their_state is h11.DONE)
                elif not isinstance(event, h11.InformationalResponse):
                    return None
    except h11.RemoteProtocolError:
        pass
    return None


names = strategies.text(
    string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12
).filter(
    lambda name: (
        name.lower() not in ("connection", "content-length", "transfer-encoding", "upgrade")
    )
)
ows = strategies.text(" \t", max_size=3)
lines = strategies.tuples(names, ows, values, ows) | strategies.tuples(
    strategies.sampled_from(["Connection", "connection"]),
    ows,
    strategies.sampled_from(["close", "Close", "keep-alive", "keep-alive, close", "TE,close", "x"]),
    ows,
)
statuses = strategies.sampled_from([status.value for status in HTTPStatus if status.value >= 200])
reasons = strategies.sampled_from([" ", " OK", " Not quite", " \xe4", ""])
methods = strategies.sampled_from(["GET", "HEAD", "PUT", "DELETE"])


@strategies.composite
def answers(draw: strategies.DrawFn) -> tuple[str, bytes]:
    """A method, and a valid answer to it with a length."""
    method, status, body = draw(methods), draw(statuses), draw(strategies.binary(max_size=300))
    head = [f"HTTP/1.1 {status}{draw(reasons)}"]
    head += [
        f"{name}:{before}{value}{after}"
        for name, before, value, after in draw(strategies.lists(lines))
    ]
    head.insert(draw(strategies.integers(1, len(head))), f"Content-Length: {len(body)}")
    if method == "HEAD" or status in (204, 304):
        body = b""
    return method, "\r\n".join([*head, "", ""]).encode("latin-1") + body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces; a place is taken modulo its length."""
    ends = sorted({place % len(data) for place in places} - {0}) if data else []
    return [
        data[start:end]
        for start, end in zip([0, *ends], [*ends, len(data)], strict=True)
        if start < end
    ]


places = strategies.lists(strategies.integers(0, 1000), max_size=6)


@given(answer=answers(), places=places)
def test_a_valid_answer_is_what_h11_makes_of_it(
    answer: tuple[str, bytes], places: list[int]
) -> None:
    method, data = answer
    theirs = h11s(method, [data])
    assert theirs is not None
    assert ours(method, cut(data, places)) == theirs


@given(answer=answers(), places=places, end=strategies.integers(0, 1000))
def test_an_answer_that_ends_early_is_refused(
    answer: tuple[str, bytes], places: list[int], end: int
) -> None:
    method, data = answer
    data = data[: end % len(data)]
    assert h11s(method, [data]) is None
    assert ours(method, cut(data, places)) is None


BYTES = [bytes([byte]) for byte in b"\r\n\0\x0b\x7f\x85\xa0 \t:,09-_+"]
DAMAGE = strategies.sampled_from(
    [
        *(*BYTES, b"", b" :", b"\r\n", b"\r\n ", b"\r\n\t", b"\r\n\r\n"),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    ]
)


@settings(max_examples=600)
@given(
    answer=answers(),
    damage=strategies.lists(
        strategies.tuples(strategies.integers(0, 400), DAMAGE, strategies.integers(0, 2)),
        max_size=3,
    ),
    places=places,
)
def test_nothing_is_taken_for_an_answer_that_h11_refuses_or_takes_otherwise(
    answer: tuple[str, bytes], damage: list[tuple[int, bytes, int]], places: list[int]
) -> None:
    method, data = answer
    for place, piece, drop in damage:
        at = place % len(data)
        data = data[:at] + piece + data[at + drop :]
    if (taken := ours(method, cut(data, places))) is not None:
        assert taken == h11s(method, [data])


# What h11 takes and we don't, and why; the row's answer is to a GET.
STRICTER = {
    "a body in chunks with a length: RFC 9112, 6.3 calls it an error": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "a body that ends with the connection: nobody could tell whether it was cut": b"HTTP/1.1 200 "
    b"OK\r\n\r\nhello",
    "HTTP/1.0: no S3 server speaks it": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "one length twice: RFC 9110, 8.6 allows to refuse it": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "a list of one length: RFC 9110, 8.6 allows to refuse it": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"
    ),
    "bare LF: RFC 9112, 2.2 allows to take it": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "a folded header: RFC 9112, 5.2": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: "
    b"5\r\n\r\nhello",
    "a folded header with a colon: RFC 9112, 5.2": (
        b"HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "a bare LF within the headers: RFC 9112, 2.2 allows to take it": (
        b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 5\r\n\r\nhello"
    ),
    "a control character in a value: RFC 9110, 5.5": (
        b"HTTP/1.1 200 OK\r\nA: b\x01\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "more than the length says: the connection isn't asked for more than one answer at a time": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world"
    ),
}


@pytest.mark.parametrize("row", STRICTER)
def test_what_h11_takes_and_we_refuse(row: str) -> None:
    assert h11s("GET", [STRICTER[row]]) is not None
    assert ours("GET", [STRICTER[row]]) is None


# What both refuse.
REFUSED = {
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status behind a blank": b"HTTP/1.1  20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status with a sign": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status with an underscore": b"HTTP/1.1 2_0 OK\r\nContent-Length: 0\r\n\r\n",
    "a status behind 0xA0": b"HTTP/1.1 \xa020 OK\r\nContent-Length: 0\r\n\r\n",
    "a status with a fraction": b"HTTP/1.1 200.1 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"ICAP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "a length in quotes": b'HTTP/1.1 200 OK\r\nContent-Length: "5"\r\n\r\nhello',
    "a blank before the colon of a length": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "a blank before the colon of a coding": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "a header without a name": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\na\r\nContent-Length: 0\r\n\r\n",
    "a name with a blank": b"HTTP/1.1 200 OK\r\na b: c\r\nContent-Length: 0\r\n\r\n",
    "a name that isn't ASCII": b"HTTP/1.1 200 OK\r\n\xe4: c\r\nContent-Length: 0\r\n\r\n",
    "a folded first header": b"HTTP/1.1 200 OK\r\n a: b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in a value": b"HTTP/1.1 200 OK\r\na: b\rc: d\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in the status line": b"HTTP/1.1 200 OK\rA: b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\na: b\0\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"\r\n\r\n",
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_both_refuse(row: str) -> None:
    assert h11s("GET", [REFUSED[row]]) is None
    assert ours("GET", [REFUSED[row]]) is None


@pytest.mark.parametrize("second", [5, 6])
def test_two_lengths_are_refused_also_where_no_body_comes(second: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: %d\r\n\r\n" % second
    assert ours("HEAD", [data]) is None


@pytest.mark.parametrize("byte", ["\x85", "\xa0"])
def test_only_blanks_and_tabs_are_white_space_around_a_value(byte: str) -> None:
    """RFC 9110, 5.5."""
    data = f"HTTP/1.1 200 OK\r\nA: \t{byte}b{byte} \t\r\nContent-Length: 0\r\n\r\n".encode(
        "latin-1"
    )
    taken = ours("GET", [data])
    assert taken is not None
    assert taken.headers["a"] == f"{byte}b{byte}"
    assert taken == h11s("GET", [data])


def test_lines_are_parsed_once_and_neither_long_ones_nor_all_of_them_are_kept() -> None:
    kept = Fields()
    unused = min(UNUSED)
    for line, field in (
        ("ETag: x", ("etag", "x")),
        (f"{unused.title()}: 1", None),
        ("X-Amz-Request-Id: 1", None),
        (f"x: {'y' * FIELD_MAX}", ("x", "y" * FIELD_MAX)),
    ):
        assert kept[line] == field
    assert list(kept) == ["ETag: x", f"{unused.title()}: 1"]
    for number in range(2 * FIELDS_MAX):
        assert kept[f"etag: {number}"] == ("etag", str(number))
    assert len(kept) <= FIELDS_MAX
    with pytest.raises(ValueError, match="no colon"):
        kept["no colon"]
    assert "no colon" not in kept
