"""HTTP as clients may rely on it: framing, streaming, ranges, conditions, checksums, refusals (issue 4).

Everything goes over real sockets to the gateway's container and to real MinIO nodes. `Wire` is one client connection
on which a test says byte for byte what goes out. The only node that isn't MinIO is `FAKE_NODE`, for answers that MinIO
can't be made to give: one that stops at byte N, one that never comes, and what isn't HTTP.

Most tests are tables: a name, what is sent, what must come back. Where the RFC leaves a choice, the row says so.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import checks as conformance

from conftest import BUCKET, Answer, Gateway, Lab, Node, Stack, eventually, random_id

KIB, MIB, GIB = 1024, 1024**2, 1024**3
BROKEN = (http.client.HTTPException, ConnectionError)  # what a client sees of a connection that broke


# ---------------------------------------------------------------------------------------------------------------------
# Helpers
# ---------------------------------------------------------------------------------------------------------------------
class Wire:
    """One client connection to the gateway: what is sent is sent as it is, answers are read one after the other."""

    def __init__(self, gateway: Gateway, timeout: float = 20) -> None:
        self.sock = socket.create_connection((gateway.address, 3000), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.sock.getsockname()[1]
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises what is in BROKEN when there is none, or only a part of one."""
        line = self.file.readline()
        if not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            raise http.client.BadStatusLine(repr(line))
        status, headers = int(line.split()[1]), http.client.parse_headers(self.file)
        bodyless = method == "HEAD" or status in (204, 304) or status < 200
        length = 0 if bodyless else int(headers["Content-Length"])
        body = self.file.read(length)
        if len(body) < length:
            raise http.client.IncompleteRead(body, length - len(body))
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """All that comes until the gateway closes. Raises TimeoutError when it doesn't."""
        with suppress(ConnectionResetError):
            return self.file.read()
        return b""

    def assert_in_step(self, answer: Answer, id: str, body: bytes) -> None:
        """After `answer` the connection either serves another request rightly, or is closed, as announced."""
        if answer.headers["Connection"] == "close":
            assert self.rest() == b""
        else:
            self.send(head("GET", id))
            assert (second := self.answer()).status == 200
            assert second.body == body


def head(method: str, id: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """A request's head; the headers may hold any Latin-1."""
    return "\r\n".join([f"{method} /object/{id} {version}", "Host: objgw", *headers, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(data: bytes, size: int = 10_000) -> bytes:
    return b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + b"0\r\n\r\n"


def pattern(size: int) -> bytes:
    """So many bytes of which no two stretches look the same."""
    return hashlib.shake_256(b"%d" % size).digest(size)


def store(gateway: Gateway, body: bytes = b"an object", id: str | None = None, **headers: str) -> str:
    """Store an object; the answer is its id."""
    id = id or random_id()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert gateway.put(id, body, headers=named).status == 200
    return id


def code(answer: Answer) -> int:
    """The answer's status, which is that of its problem details too where it is a refusal."""
    if answer.status >= 400 and answer.body:
        assert answer.problem
    return answer.status


def opaque(body: bytes) -> str:
    """The ETag that S3 gives to these bytes."""
    return f'"{hashlib.md5(body).hexdigest()}"'


MD5 = opaque(b"an object")


def held_by(gateway: Gateway) -> set[int]:
    """The client ports that the gateway still has a connection with, also where the client has left."""
    rows = [line.split() for line in gateway.read("cat", "/proc/net/tcp").splitlines()[1:]]
    return {int(row[2].split(":")[1], 16) for row in rows if row[1].endswith(":0BB8") and row[3] in ("01", "08")}


@pytest.fixture(scope="module")
def limited(shared: Stack) -> Gateway:
    """A second gateway to the shared nodes, which takes at most 100,000 bytes an object."""
    gateway = shared.add_gateway({"OBJGW_MAX_OBJECT_BYTES": "100000"})
    gateway.wait_ready()
    return gateway


# ---------------------------------------------------------------------------------------------------------------------
# Uploads that end early
# ---------------------------------------------------------------------------------------------------------------------
DECLARED = 13_000_000
CUTS = [0, 1, 65_536, 12_000_000]
# How an upload of DECLARED bytes is framed, and what goes out until so many bytes of the body have.
FRAMINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "with a length": (f"Content-Length: {DECLARED}", lambda sent: sent),
    "within a chunk": ("Transfer-Encoding: chunked", lambda sent: b"%x\r\n%b" % (DECLARED, sent)),
    "between chunks": ("Transfer-Encoding: chunked", lambda sent: chunk(sent) if sent else b""),
}
cut_short = pytest.mark.parametrize("sent", CUTS)
framed = pytest.mark.parametrize("framing", FRAMINGS)


def begin_upload(wire: Wire, id: str, framing: str, sent: int) -> None:
    header, framed = FRAMINGS[framing]
    wire.send(head("PUT", id, header), framed(pattern(sent)))


def leave_upload(gateway: Gateway, id: str, framing: str, sent: int) -> None:
    """Begin an upload and go away; returns when the gateway is done with it."""
    with Wire(gateway) as wire:
        begin_upload(wire, id, framing, sent)
    eventually(lambda: wire.port not in held_by(gateway))


def unfinished(node: Node, id: str) -> list[Any]:
    """The multipart uploads of this id that nobody finished."""
    uploads = node.client()._list_multipart_uploads(BUCKET, prefix=id).uploads
    return list(uploads)


@cut_short
@framed
def test_an_upload_that_is_cut_short_leaves_the_old_object_whole(
    shared: Stack, gateway: Gateway, framing: str, sent: int
) -> None:
    id = store(gateway, b"the old object", content_type="text/old")
    leave_upload(gateway, id, framing, sent)
    answer = gateway.get(id)
    assert (answer.body, answer.headers["Content-Type"]) == (b"the old object", "text/old")
    assert unfinished(shared.owner(id), id) == []


@cut_short
@framed
def test_an_upload_that_is_cut_short_makes_no_object(
    shared: Stack, gateway: Gateway, framing: str, sent: int, landmark: tuple[str, bytes]
) -> None:
    id = random_id()
    leave_upload(gateway, id, framing, sent)
    assert gateway.get(id).status == 404
    assert unfinished(shared.owner(id), id) == []
    assert gateway.get(landmark[0]).body == landmark[1]


@cut_short
@framed
def test_a_client_that_half_closes_after_too_few_bytes_gets_400(gateway: Gateway, framing: str, sent: int) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        begin_upload(wire, id, framing, sent)
        wire.half_close()
        answer = wire.answer()
        assert code(answer) == 400
        assert answer.headers["Connection"] == "close"
        assert wire.rest() == b""
    assert gateway.get(id).status == 404


def test_the_list_of_unfinished_uploads_would_show_one(shared: Stack, gateway: Gateway) -> None:
    id = store(gateway)
    client = shared.owner(id).client()
    upload = client._create_multipart_upload(BUCKET, id, {})
    assert len(unfinished(shared.owner(id), id)) == 1
    client._abort_multipart_upload(BUCKET, id, upload)


# ---------------------------------------------------------------------------------------------------------------------
# Downloads that end early
# ---------------------------------------------------------------------------------------------------------------------
def test_a_download_whose_node_dies_breaks_the_connection(faulty: Stack) -> None:
    node, size = faulty.nodes[0], 64 * MIB
    gateway = faulty.add_gateway({"OBJGW_NODE_TIMEOUT": "8"})  # a node without a network can't say that it is gone
    gateway.wait_ready()
    id = store(gateway, pattern(size), faulty.id_of(node))
    with Wire(gateway, timeout=40) as wire:
        wire.send(head("GET", id))
        assert len(wire.file.read(MIB)) == MIB
        node.container.kill()
        assert len(wire.rest()) < size - MIB
    for other in faulty.nodes[1:]:
        store(gateway, id=faulty.id_of(other))


def test_a_node_connection_that_a_client_left_half_read_serves_nobody_else(shared: Stack, gateway: Gateway) -> None:
    node = shared.nodes[0]
    large = store(gateway, pattern(24 * MIB), shared.id_of(node))
    small = [store(gateway, pattern(1000 + n), shared.id_of(node)) for n in range(4)]
    for _ in range(6):
        with Wire(gateway) as wire:
            wire.send(head("GET", large))
            wire.file.read(100_000)
        for n, id in enumerate(small):
            assert gateway.get(id).body == pattern(1000 + n)
    eventually(lambda: not held_by(gateway))


# A node in whose answers everything can be wrong: ANSWERS is {id: [what it sends, filler bytes behind, what then]}.
FAKE_NODE = r"""
import json, os, socketserver, threading
ANSWERS = json.loads(os.environ["ANSWERS"])
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            id, length = line.split()[1].decode().rpartition("/")[2], 0
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
                elif header.lower().startswith(b"expect:"):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.rfile.read(length)
            sent, filler, then = ANSWERS.get(id, ANSWERS["good"])
            self.wfile.write(sent.encode("latin-1") + b"x" * filler)
            if then == "hang":
                threading.Event().wait()
            if then == "close":
                return
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("0.0.0.0", 9000), Handler).serve_forever()
"""
OK = 'HTTP/1.1 200 OK\r\nETag: "0"\r\n'
XML = "<Error><Code>InternalError</Code></Error>"
Fault = tuple[str, str, int, str]  # its name, what comes, filler bytes behind it, what then

# The client must see a broken connection.
STOPS: list[Fault] = [
    (f"stops{n}", f"{OK}Content-Length: 1048576\r\n\r\n", n, "close") for n in (0, 1, 65_536, 262_144, 1_048_575)
] + [("hangsMidway", f"{OK}Content-Length: 1048576\r\n\r\n", 70_000, "hang")]
# The client must be told 502 or 503: nothing was relayed yet.
FAULTS: list[Fault] = [
    ("neverAnswers", "", 0, "hang"),
    ("closesAtOnce", "", 0, "close"),
    ("stopsInTheStatusLine", "HTTP/1.1 2", 0, "close"),
    ("stopsInTheHeaders", f"{OK}Content-Len", 0, "close"),
    ("isNotHTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n", 0, "close"),
    ("hasNoStatus", "HTTP/1.1 OK\r\n\r\n", 0, "close"),
    ("isOldHTTP", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n", 4, "close"),
    ("hasNoLength", f"{OK}\r\n", 100, "close"),
    ("hasANegativeLength", f"{OK}Content-Length: -4\r\n\r\n", 4, "close"),
    ("hasAnUnderscoreInItsLength", f"{OK}Content-Length: 1_0\r\n\r\n", 10, "close"),
    ("hasTwoLengths", f"{OK}Content-Length: 8\r\nContent-Length: 4\r\n\r\n", 4, "close"),
    ("hasAWordForALength", f"{OK}Content-Length: four\r\n\r\n", 4, "close"),
    ("isChunked", f"{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nxxxx\r\n0\r\n\r\n", 0, "close"),
    ("isLongerThanItSays", f"{OK}Content-Length: 4\r\n\r\n", 8, "close"),
    ("hasEndlessHeaders", OK, 200_000, "close"),
    ("hasAHeaderWithoutAColon", f"{OK}Content-Length: 4\r\ngarbage\r\n\r\n", 4, "close"),
    ("hasNULInAHeader", f"{OK}Content-Length: 4\r\nx-amz-meta-a: \0\r\n\r\n", 4, "close"),
    ("isAServerError", f"HTTP/1.1 500 Internal Server Error\r\nContent-Length: {len(XML)}\r\n\r\n{XML}", 0, "keep"),
    ("isBusy", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    ("isARedirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    ("isATeapot", "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    ("isCreated", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    ("isAnErrorCutShort", f"HTTP/1.1 404 Not Found\r\nContent-Length: 900\r\n\r\n{XML}", 0, "close"),
    ("isAnEndlessError", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9000000\r\n\r\n", 300_000, "close"),
    ("isForbidden", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
]
GOOD: Fault = ("good", f"{OK}Content-Length: 0\r\n\r\n", 0, "keep")
# Good for a GET, not for a PUT.
NO_ETAG: Fault = ("hasNoETag", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "keep")


def named(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", [fault[0] for fault in faults])


@pytest.fixture(scope="module")
def with_fake(lab: Lab) -> Iterator[Gateway]:
    """A gateway whose one node is FAKE_NODE."""
    stack = Stack(lab)
    try:
        answers = json.dumps(
            {name: [sent, filler, then] for name, sent, filler, then in [*STOPS, *FAULTS, NO_ETAG, GOOD]}
        )
        lab.docker.containers.run(
            "python:3.13-slim",
            ["python", "-c", FAKE_NODE],
            name=f"{stack.marker}-1",
            labels=stack.labels,
            environment={"ANSWERS": answers},
            network=stack.network.name,
            detach=True,
        )
        gateway = stack.add_gateway({"OBJGW_NODE_TIMEOUT": "3", "OBJGW_BREAKER_SECONDS": "0.001"})
        gateway.wait_ready(["good"])
        yield gateway
    finally:
        stack.close()


@named(STOPS)
def test_an_answer_that_stops_early_breaks_the_connection(with_fake: Gateway, fault: str) -> None:
    with pytest.raises(BROKEN):
        with_fake.get(fault, timeout=10)
    assert with_fake.get("good").status == 200


@named(FAULTS)
def test_a_download_that_a_node_answers_badly_gets_502_or_503(with_fake: Gateway, fault: str) -> None:
    assert code(with_fake.get(fault)) in (502, 503)
    assert with_fake.get("good").status == 200


@named(FAULTS[:5] + FAULTS[-8:])
def test_an_upload_that_a_node_answers_badly_gets_502_or_503(with_fake: Gateway, fault: str) -> None:
    assert code(with_fake.put(fault, b"body")) in (502, 503)
    assert with_fake.get("good").status == 200


def test_a_node_that_gives_no_etag_for_an_upload_makes_502(with_fake: Gateway) -> None:
    assert code(with_fake.put("hasNoETag", b"body")) == 502


# ---------------------------------------------------------------------------------------------------------------------
# Framing: what isn't HTTP/1.1 is refused, and hides no second request
# ---------------------------------------------------------------------------------------------------------------------
HELLO = b"5\r\nhello\r\n0\r\n\r\n"  # a chunked body
TE = "Transfer-Encoding: chunked"


def put(*headers: str, body: bytes = b"hello", version: str = "HTTP/1.1") -> bytes:
    return head("PUT", "{id}", *headers, version=version) + body


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
    "a length in Arabic digits": put("Content-Length: 5".replace("5", "\u0665".encode().decode("latin-1"))),
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
    "chunked in HTTP/1.0 that is kept": put(TE, "Connection: keep-alive", body=HELLO, version="HTTP/1.0"),
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
    "chunked and a length in HTTP/1.0": put(TE, "Content-Length: 5", body=HELLO, version="HTTP/1.0"),
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
    "a chunk extension with a line end in quotes": put(TE, body=b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    "a chunk extension with a quote that isn't closed": put(TE, body=b'5;a="b\r\nhello\r\n0\r\n\r\n'),
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
    "a trailer that says chunked": put(TE, body=b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a trailer that says a host": put(TE, body=b"5\r\nhello\r\n0\r\nHost: x\r\n\r\n"),
    "too many trailers": put(TE, body=b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 120 + b"\r\n"),
    "an oversized trailer": put(TE, body=b"5\r\nhello\r\n0\r\na: " + b"b" * 8200 + b"\r\n\r\n"),
    "a trailer without a colon": put(TE, body=b"5\r\nhello\r\n0\r\ntrailer\r\n\r\n"),
    # RFC 9112, 2.2 and 5: lines and headers
    "bare LF throughout": put("Content-Length: 5").replace(b"\r\n", b"\n"),
    "bare LF in the headers": put("X: y\nContent-Length: 5"),
    "bare CR in a header": put("X: y\rContent-Length: 5", "Content-Length: 0", body=b""),
    "a folded header": put("X: y", " Content-Length: 50", "Content-Length: 5"),
    "a folded first header": b"PUT /object/{id} HTTP/1.1\r\n Host: objgw\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
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
    "bare LF after the request line": put("Content-Length: 5").replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "bare CR after the request line": put("Content-Length: 5").replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r"),
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
    "bytes that aren't ASCII in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\xc3\xa4"),
    "NUL in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\0"),
    "DEL in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\x7f"),
    "a tab in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\tx"),
    "a blank in the target": put("Content-Length: 5").replace(b"{id}", b"{id} x"),
    "bare CR in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\rx"),
    "bare LF in the target": put("Content-Length: 5").replace(b"{id}", b"{id}\nx"),
    "a host and a port as the target": put("Content-Length: 5").replace(b"/object/{id}", b"objgw:3000"),
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
    f"the host {host!r}": put("Content-Length: 5").replace(b"Host: objgw", f"Host: {host}".encode("latin-1"))
    for host in (
        *("a b", "x,y", "x, y", "[::1", "::1]", "[::1]x", "[]", "[::1]:x", "a/b", "/", "user@host", "a?b", "a#b"),
        *("http://objgw", "objgw:port", "objgw:3000:3000", "objgw:-1", "objgw:+1", "objgw:3000 ,x", "a\\b", "a<b>"),
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
def test_a_chunk_that_is_larger_than_all_there_is_stores_nothing(gateway: Gateway, size: bytes) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, TE), size, b"\r\nhello\r\n0\r\n\r\n")
        wire.half_close()
        assert code(wire.answer()) in (400, 413)
    assert gateway.get(id).status == 404


@pytest.mark.parametrize("length", ["9" * 19, "9" * 20, "9" * 1000])
def test_a_length_that_is_larger_than_all_there_is_stores_nothing(gateway: Gateway, length: str) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, f"Content-Length: {length}"), b"x" * 100_000)
        wire.half_close()
        assert code(wire.answer()) in (400, 413)
    assert gateway.get(id).status == 404


# What looks odd and is right: what is sent as a PUT, and the bytes that it stores.
ODD: dict[str, tuple[bytes, bytes]] = {
    "chunk extensions": (put(TE, body=b'5;a=b;c="d;e" ; f\r\nhello\r\n0;last\r\n\r\n'), b"hello"),
    "trailers": (put(TE, "Trailer: X-End", body=b"5\r\nhello\r\n0\r\nX-End: 1\r\nX-More: 2\r\n\r\n"), b"hello"),
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
    "an absolute target": (put("Content-Length: 5").replace(b" /", b" http://objgw:3000/"), b"hello"),
    "a query without anything": (put("Content-Length: 5").replace(b" HTTP", b"? HTTP"), b"hello"),
    "HTTP/1.0": (put("Content-Length: 5", version="HTTP/1.0"), b"hello"),
    "HTTP/1.0 that expects": (put("Content-Length: 5", "Expect: 100-continue", version="HTTP/1.0"), b"hello"),
    "blanks before chunk extensions": (put(TE, body=b"5 \t; a = b\r\nhello\r\n0 ;x\r\n\r\n"), b"hello"),
    "a quoted chunk extension": (put(TE, body=b'5;a="b;c\\"\xe4"\r\nhello\r\n0\r\n\r\n'), b"hello"),
    "many chunk extensions": (put(TE, body=b"5" + b";a=b" * 1000 + b"\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "a thousand leading zeros": (put(TE, body=b"0" * 1000 + b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "a chunk that looks like the last": (put(TE, body=b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), b"0\r\n\r\n"),
    "an empty trailer": (put(TE, body=b"5\r\nhello\r\n0\r\nX-End:\r\n\r\n"), b"hello"),
    "a length of 0": (put("Content-Length: 0", body=b""), b""),
    "a thousand leading zeros in the length": (put(f"Content-Length: {'0' * 1000}5"), b"hello"),
    "chunked with blanks around": (put("Transfer-Encoding:\t chunked \t", body=HELLO), b"hello"),
    "an absolute target with another host": (
        put("Content-Length: 5").replace(b" /", b" http://other:80/"),
        b"hello",
    ),
    "an escape in the target": (put("Content-Length: 5").replace(b"/object/", b"/%6fbject/"), b"hello"),
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
    "a host with a port": (put("Content-Length: 5").replace(b"Host: objgw", b"Host: objgw:3000"), b"hello"),
    "a host with an empty port": (put("Content-Length: 5").replace(b"Host: objgw", b"Host: objgw:"), b"hello"),
    "a host of IPv6": (put("Content-Length: 5").replace(b"Host: objgw", b"Host: [2001:db8::1]:80"), b"hello"),
    "a host with escapes": (put("Content-Length: 5").replace(b"Host: objgw", b"Host: a%20b"), b"hello"),
    "a host of sub-delims": (put("Content-Length: 5").replace(b"Host: objgw", b"Host: a!$&'()*+;=~_-.b"), b"hello"),
    "an empty host": (put("Content-Length: 5").replace(b"Host: objgw", b"Host:"), b"hello"),
    "close": (put("Content-Length: 5", "Connection: close"), b"hello"),
    "close among others": (put("Content-Length: 5", "Connection: TE, Close", "TE: trailers"), b"hello"),
}


@pytest.mark.parametrize("row", ODD)
def test_odd_but_valid_requests_work(gateway: Gateway, row: str, landmark: tuple[str, bytes]) -> None:
    id, (request, body) = random_id(), ODD[row]
    with Wire(gateway) as wire:
        wire.send(request.replace(b"{id}", id.encode()))
        answer = wire.answer()
        assert answer.status == 200
        assert (answer.headers["Connection"] == "close") == ("HTTP/1.0" in row or "close" in row)
        wire.assert_in_step(answer, *landmark)
    assert gateway.get(id).body == body


def test_pipelined_requests_are_answered_in_their_order(gateway: Gateway, landmark: tuple[str, bytes]) -> None:
    ids = [random_id() for _ in range(5)]
    bodies = [pattern(70_000 + n) for n in range(5)]
    with Wire(gateway) as wire:
        for id, body in zip(ids, bodies, strict=True):
            length = f"Content-Length: {len(body)}"
            wire.send(head("PUT", id, length), body, head("GET", id), head("HEAD", id), head("GET", "no-id"))
        wire.send(head("GET", landmark[0], "Connection: close"))
        for body in bodies:
            statuses = [wire.answer().status, (got := wire.answer()).status, wire.answer("HEAD").status]
            assert (statuses, got.body) == ([200, 200, 200], body)
            assert code(wire.answer()) == 400
        assert wire.answer().body == landmark[1]
        assert wire.rest() == b""


def test_http_1_0_gets_an_object_and_a_closed_connection(gateway: Gateway, landmark: tuple[str, bytes]) -> None:
    with Wire(gateway) as wire:
        wire.send(f"GET /object/{landmark[0]} HTTP/1.0\r\n\r\n".encode())
        assert wire.answer().body == landmark[1]
        assert wire.rest() == b""


# ---------------------------------------------------------------------------------------------------------------------
# Conditions on PUT: decided by the node, so that one client wins
# ---------------------------------------------------------------------------------------------------------------------
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
    "if-none-match, list without it": (True, {"If-None-Match": f"{opaque(b'?')}, {opaque(b'!')}"}, 400),
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


# ---------------------------------------------------------------------------------------------------------------------
# Range and If-Range: RFC 9110, 14 and 13.1.5
# ---------------------------------------------------------------------------------------------------------------------
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
    ("value", "status"), {"bytes=0-0": 416, "bytes=0-": 416, "bytes=-1": 200, "bytes=3-1": 200, "x=0-": 200}.items()
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
    for first, last in [(0, 262_143), (262_144, 600_000), (1, 3 * MIB - 2), (3 * MIB - 1, 3 * MIB - 1)]:
        answer = gateway.get(id, headers={"Range": f"bytes={first}-{last}"})
        assert (answer.status, answer.body) == (206, body[first : last + 1])


def moved(date: str, seconds: int) -> str:
    """An HTTP date that is so many seconds later."""
    return formatdate(parsedate_to_datetime(date).timestamp() + seconds, usegmt=True)


def fill(template: str, etag: str, date: str) -> str:
    """A condition's value about an object with this ETag and this Last-Modified."""
    when = parsedate_to_datetime(date)
    return template.format(
        etag=etag,
        bare=etag.strip('"'),
        other=OTHER,
        before=moved(date, -10),
        date=date,
        after=moved(date, 10),
        rfc850=f"{when:%A, %d-%b-%y %H:%M:%S} GMT",
        asctime=time.asctime(when.timetuple()),
    )


OTHER = opaque(b"another object")
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


@pytest.mark.parametrize(
    ("name", "template", "status"),
    [("If-Match", "{other}", 412), ("If-None-Match", "{etag}", 304), ("If-Unmodified-Since", "{before}", 412)],
)
@pytest.mark.parametrize("if_range", ["{etag}", "{other}", "{date}", "{before}"])
def test_other_conditions_come_before_if_range(
    gateway: Gateway, dated: tuple[str, str, str], name: str, template: str, status: int, if_range: str
) -> None:
    id, etag, date = dated
    headers = {"Range": "bytes=3-6", "If-Range": fill(if_range, etag, date), name: fill(template, etag, date)}
    assert code(gateway.get(id, headers=headers)) == status


# ---------------------------------------------------------------------------------------------------------------------
# Conditions on GET and HEAD: RFC 9110, 13.1 and 13.2
# ---------------------------------------------------------------------------------------------------------------------
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
    "if-match true, unmodified-since false": ({"If-Match": "{etag}", "If-Unmodified-Since": "{before}"}, 200),
    "if-match false, unmodified-since true": ({"If-Match": "{other}", "If-Unmodified-Since": "{after}"}, 412),
    "if-none-match true, modified-since false": ({"If-None-Match": "{other}", "If-Modified-Since": "{after}"}, 200),
    "if-none-match false, modified-since true": ({"If-None-Match": "{etag}", "If-Modified-Since": "{before}"}, 304),
    "if-match true, if-none-match false": ({"If-Match": "{etag}", "If-None-Match": "{etag}"}, 304),
    "if-match false, if-none-match false": ({"If-Match": "{other}", "If-None-Match": "{etag}"}, 412),
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
def test_conditions_on_a_missing_object_are_404(gateway: Gateway, method: str, name: str, value: str) -> None:
    answer = gateway.request(method, f"/object/{random_id()}", headers={name: value})  # RFC 9110, 13.2.1
    assert code(answer) == 404


# ---------------------------------------------------------------------------------------------------------------------
# Headers: what is kept, and that nothing else passes
# ---------------------------------------------------------------------------------------------------------------------
UTF8 = "größe ≥ 5 €".encode().decode("latin-1")
KEPT = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Type", 'multipart/mixed; boundary="a b"'),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "gzip, br"),
    ("Content-Disposition", 'attachment; filename="a b.txt"'),
    ("Content-Disposition", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe"),
    ("Content-Language", "de, en"),
    ("Cache-Control", "public, max-age=3600"),
    ("Expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
    ("x-amz-meta-a", "b"),
    ("x-amz-meta-a", "b,c, d"),
    ("X-Amz-Meta-Mixed-Case", "Mixed Case"),
    ("x-amz-meta-a", 'b; c="d" %20 + & / ? # \' \\'),
    ("x-amz-meta-long", "y" * 1500),
]
# Exact, or a clear 400: never a server error, never changed in silence.
EXACT_OR_REFUSED = [
    ("x-amz-meta-a", UTF8),
    ("x-amz-meta-a", "gr\xf6\xdfe"),
    ("x-amz-meta-a", "two  blanks"),
    ("x-amz-meta-a", "a\ttab"),
    ("x-amz-meta-a", ""),
    ("x-amz-meta-a", "=?UTF-8?B?w6Q=?="),
    ("x-amz-meta-a", "y" * 5000),
    ("x-amz-meta-a.b!c", "token"),
    ("Content-Type", f"text/{UTF8}"),
    ("Content-Disposition", f'attachment; filename="{UTF8}"'),
    ("Content-Disposition", 'attachment; filename="gr\xf6\xdfe"'),
    ("Content-Disposition", 'attachment; filename="two  blanks"'),
    ("Content-Language", "\xe4"),
    ("Content-Encoding", "aws-chunked"),
    ("Content-Encoding", "gzip,  br"),
    ("Cache-Control", "x  y\tz"),
    ("Expires", "0"),
    ("Expires", "Sunday, 06-Nov-94 08:49:37 GMT"),
    ("Expires", "\xe4  \xe4"),
]


def title(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{name}: {value[:30]}".encode("unicode_escape").decode() for name, value in rows]


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize(("name", "value"), KEPT, ids=title(KEPT))
def test_headers_are_kept_with_the_object(gateway: Gateway, name: str, value: str, size: int) -> None:
    id = random_id()
    assert gateway.put(id, pattern(size), headers={name: value}).status == 200
    for answer in (gateway.get(id), gateway.head(id), gateway.get(id, headers={"Range": "bytes=0-1"})):
        assert answer.headers.get_all(name) == [value]


@pytest.mark.parametrize(("name", "value"), EXACT_OR_REFUSED, ids=title(EXACT_OR_REFUSED))
def test_odd_header_values_are_kept_exactly_or_refused(gateway: Gateway, name: str, value: str) -> None:
    id = random_id()
    put = gateway.put(id, b"body", headers={name: value})
    got, seen = gateway.get(id), gateway.head(id)
    if code(put) == 200:
        assert got.headers.get_all(name) == seen.headers.get_all(name) == [value]
    else:
        assert (put.status, got.status) == (400, 404)


def test_an_upload_without_a_content_type_has_a_neutral_one(gateway: Gateway) -> None:
    assert gateway.get(store(gateway)).headers["Content-Type"] == "application/octet-stream"


def test_an_upload_replaces_all_headers_of_the_old_object(gateway: Gateway) -> None:
    id = store(gateway, x_amz_meta_a="old", cache_control="no-store", content_type="text/old")
    store(gateway, b"new", id, x_amz_meta_b="new")
    headers = gateway.get(id).headers
    assert (headers["x-amz-meta-a"], headers["Cache-Control"], headers["x-amz-meta-b"]) == (None, None, "new")


def test_repeated_metadata_becomes_one_list(gateway: Gateway) -> None:
    id = random_id()
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, "x-amz-meta-a: b", "x-amz-meta-a: c", "Content-Length: 0"))
        assert wire.answer().status == 200
    assert re.fullmatch("b, ?c", gateway.get(id).headers["x-amz-meta-a"])


OF_THE_SERVER = {"server", "date", "connection", "x-request-id", "server-timing"}
OF_AN_OBJECT = {"content-length", "content-type", "etag", "last-modified", "accept-ranges", "x-amz-meta-a"}
FOR_BROWSERS = {"x-content-type-options", "content-security-policy"}
OF_A_PROBLEM = {"content-length", "content-type"}
# What is asked of an object with x-amz-meta-a, and which headers may come.
ANSWERED: dict[str, tuple[str, dict[str, str], int, set[str]]] = {
    "get": ("GET", {}, 200, OF_AN_OBJECT | FOR_BROWSERS),
    "head": ("HEAD", {}, 200, OF_AN_OBJECT | FOR_BROWSERS),
    "range": ("GET", {"Range": "bytes=1-2"}, 206, OF_AN_OBJECT | FOR_BROWSERS | {"content-range"}),
    "not modified": ("GET", {"If-None-Match": "*"}, 304, OF_AN_OBJECT),
    "failed condition": ("GET", {"If-Match": OTHER}, 412, OF_A_PROBLEM),
    "bad range": ("GET", {"Range": "bytes=99-"}, 416, OF_A_PROBLEM | {"content-range", "accept-ranges"}),
    "put": ("PUT", {"x-amz-meta-a": "b"}, 200, {"etag", "content-length"}),
    "refused put": ("PUT", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, 400, OF_A_PROBLEM),
    "delete": ("DELETE", {}, 204, set()),
}


@pytest.mark.parametrize("row", ANSWERED)
def test_no_header_of_the_node_leaks_to_the_client(gateway: Gateway, row: str) -> None:
    method, headers, status, allowed = ANSWERED[row]
    answer = gateway.request(method, f"/object/{store(gateway, x_amz_meta_a='b')}", headers=headers)
    assert answer.status == status
    assert {name.lower() for name in answer.headers} <= allowed | OF_THE_SERVER
    assert "minio" not in str(answer.headers).lower()
    assert len(answer.headers.keys()) == len(set(answer.headers.keys()))


# What a client might send; none of it may reach the node.
NOT_PASSED = {
    "Authorization": "Bearer secret",
    "Cookie": "secret=1",
    "User-Agent": "curl/8",
    "Accept-Encoding": "gzip",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "other",
    "Forwarded": "for=10.0.0.1",
    "TE": "trailers",
    "Upgrade": "websocket",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "Origin": "http://other",
    "x-amz-date": "20200101T000000Z",
    "x-amz-security-token": "secret",
}


OF_A_SIGNATURE = {"authorization", "x-amz-date", "x-amz-content-sha256"}  # the gateway has its own


def reached(node: Node, id: str) -> dict[str, dict[str, str]]:
    """The headers with which requests for the id reached the node, names in lower case, by S3's operation."""
    records = [record for record in node.stack.lab.audit.of(node.name) if record["api"].get("object") == id]
    return {
        record["api"]["name"]: {name.lower(): value for name, value in record["requestHeader"].items()}
        for record in records
    }


@pytest.mark.parametrize("name", NOT_PASSED)
def test_no_other_header_of_the_client_reaches_the_node(shared: Stack, gateway: Gateway, name: str) -> None:
    id, value = random_id(), NOT_PASSED[name]
    assert gateway.put(id, b"body", headers={name: value, "x-amz-meta-a": "b"}).status == 200
    assert gateway.get(id, headers={name: value}).body == b"body"
    assert gateway.request("DELETE", f"/object/{id}", headers={name: value}).status == 204
    requests = eventually(lambda: (all := reached(shared.owner(id), id)) and len(all) == 3 and all)
    assert set(requests) == {"PutObject", "GetObject", "DeleteObject"}
    assert requests["PutObject"]["x-amz-meta-a"] == "b"  # headers are in the record
    for headers in requests.values():
        assert headers.get(name.lower()) != value
        assert name.lower() in OF_A_SIGNATURE or name.lower() not in headers


# ---------------------------------------------------------------------------------------------------------------------
# Checksums
# ---------------------------------------------------------------------------------------------------------------------
def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "Content-MD5": lambda body: hashlib.md5(body).digest(),
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4),
    "x-amz-checksum-sha1": lambda body: hashlib.sha1(body).digest(),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
}
sized = pytest.mark.parametrize("size", [0, 5, 100_000])


@sized
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_an_upload_that_is_what_its_checksum_says_is_stored(
    gateway: Gateway, name: str, size: int, chunks: bool
) -> None:
    id, body = random_id(), pattern(size)
    headers = {name: b64(CHECKSUMS[name](body))}
    assert gateway.put(id, iter([body]) if chunks else body, headers=headers).status == 200
    assert gateway.get(id).body == body


@sized
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_an_upload_that_is_not_what_its_checksum_says_leaves_the_old_object(
    gateway: Gateway, name: str, size: int, chunks: bool
) -> None:
    id, body, headers = store(gateway), pattern(size), {name: b64(CHECKSUMS[name](b"something else"))}
    assert code(gateway.put(id, iter([body]) if chunks else body, headers=headers)) == 400
    assert gateway.get(id).body == b"an object"


@pytest.mark.parametrize("value", ["garbage", "!!!!", "AAAA", "\xe4", "A" * 5000])
@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_of_garbage_is_400_and_stores_nothing(gateway: Gateway, name: str, value: str) -> None:
    id = random_id()
    assert code(gateway.put(id, b"body", headers={name: value})) == 400
    assert gateway.get(id).status == 404


# ---------------------------------------------------------------------------------------------------------------------
# A maximum size
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_an_object_of_just_the_maximum_size_is_stored(limited: Gateway, chunks: bool) -> None:
    id, body = random_id(), pattern(100_000)
    assert limited.put(id, iter([body]) if chunks else body).status == 200
    assert limited.get(id).body == body


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_an_object_of_more_than_the_maximum_size_is_413(limited: Gateway, chunks: bool) -> None:
    id, body = store(limited), pattern(100_001)
    assert code(limited.put(id, iter([body]) if chunks else body)) == 413
    assert limited.get(id).body == b"an object"


def test_a_length_above_the_maximum_is_413_before_any_of_the_body(limited: Gateway) -> None:
    with Wire(limited) as wire:
        wire.send(head("PUT", random_id(), "Content-Length: 100001"))
        assert code(wire.answer()) == 413


def test_chunks_above_the_maximum_are_413_before_their_end(limited: Gateway) -> None:
    id = random_id()
    with Wire(limited) as wire:
        wire.send(head("PUT", id, TE), chunk(b"x" * 400_000))
        assert code(wire.answer()) == 413
    assert limited.get(id).status == 404


# ---------------------------------------------------------------------------------------------------------------------
# Expect: 100-continue, RFC 9110, 10.1.1
# ---------------------------------------------------------------------------------------------------------------------
EXPECT = "Expect: 100-continue"


@pytest.mark.parametrize("size", [1, 65_536, 1_000_000])
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_the_body_is_asked_for_once_and_then_stored(gateway: Gateway, size: int, chunks: bool, value: str) -> None:
    id, body = random_id(), pattern(size)
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, f"Expect: {value}", TE if chunks else f"Content-Length: {size}"))
        assert wire.answer().status == 100
        wire.send(chunked(body) if chunks else body)
        answer = wire.answer()
        assert answer.status == 200
        wire.assert_in_step(answer, id, body)


def test_a_client_that_does_not_wait_for_100_is_served_too(gateway: Gateway, landmark: tuple[str, bytes]) -> None:
    with Wire(gateway) as wire:
        wire.send(head("PUT", random_id(), EXPECT, "Content-Length: 5"), b"hello")
        while (answer := wire.answer()).status == 100:
            pass
        assert answer.status == 200
        wire.assert_in_step(answer, *landmark)


def refused_early(gateway: Gateway, request: bytes, status: int, landmark: tuple[str, bytes]) -> None:
    """Assert that the first answer is this refusal, and that the connection is in step after it."""
    with Wire(gateway) as wire:
        wire.send(request)
        answer = wire.answer()
        assert code(answer) == status
        if answer.headers["Connection"] == "close":
            assert wire.rest() == b""
        else:  # the client sends the body nevertheless, or it doesn't: the gateway can't know
            pytest.fail("kept a connection on which the body may or may not come")
    assert gateway.get(landmark[0]).body == landmark[1]


@pytest.mark.parametrize(
    ("method", "id", "status"),
    [("PUT", "bad_id", 400), ("PUT", "x" * 33, 400), ("PUT", "../other", 404), ("POST", "good", 405)],
)
@pytest.mark.parametrize("framing", ["Content-Length: 1000", TE])
def test_what_is_known_to_be_refused_is_refused_without_100(
    gateway: Gateway, method: str, id: str, status: int, framing: str, landmark: tuple[str, bytes]
) -> None:
    path = head(method, id, EXPECT, framing).replace(b"/object/../", b"/")
    refused_early(gateway, path, status, landmark)


def test_what_is_too_large_is_refused_without_100(limited: Gateway, landmark: tuple[str, bytes]) -> None:
    refused_early(limited, head("PUT", random_id(), EXPECT, "Content-Length: 100001"), 413, landmark)


def test_an_upload_to_a_dead_node_is_refused_without_100(faulty: Stack) -> None:
    gateway, node, other = faulty.gateways[0], faulty.nodes[0], faulty.id_of(faulty.nodes[1])
    store(gateway, b"there", other)
    node.stop()
    eventually(lambda: gateway.get(faulty.id_of(node)).status == 503)
    for framing in ("Content-Length: 1000", TE):
        refused_early(gateway, head("PUT", faulty.id_of(node), EXPECT, framing), 503, (other, b"there"))


@pytest.mark.parametrize("value", ["200-ok", "100-continue, x", "x"])
def test_an_unknown_expectation_is_417(gateway: Gateway, value: str) -> None:
    id = random_id()
    answer = gateway.put(id, b"body", headers={"Expect": value})
    assert code(answer) == 417
    assert gateway.get(id).status == 404


# ---------------------------------------------------------------------------------------------------------------------
# After a refusal
# ---------------------------------------------------------------------------------------------------------------------
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
    "wrong checksum": (head("PUT", "{id}", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==", "{framing}"), 400),
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
def test_after_a_refusal_the_connection_is_usable(gateway: Gateway, row: str, landmark: tuple[str, bytes]) -> None:
    request, status = REFUSED[row]
    request = request.replace(b"{id}", random_id().encode()).replace(b"{there}", landmark[0].encode())
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
    framing, body = (TE, chunked(bytes(size), 50_000)) if chunks else (f"Content-Length: {size}", bytes(size))
    for name, value in {b"{id}": random_id(), b"{there}": landmark[0], b"{framing}": framing}.items():
        request = request.replace(name, value.encode())
    with Wire(gateway) as wire:
        wire.send(request)
        wire.send(body)  # no reset, which might cost the client the answer
        answer = wire.answer()
        assert_refused(answer, "PUT", status)
        wire.assert_in_step(answer, *landmark)
    assert gateway.get(landmark[0]).body == landmark[1]


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_get_with_a_body_stays_in_step(gateway: Gateway, size: int, landmark: tuple[str, bytes]) -> None:
    with Wire(gateway) as wire:
        wire.send(head("GET", landmark[0], f"Content-Length: {size}"), head("GET", landmark[0]) + bytes(size))
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


# ---------------------------------------------------------------------------------------------------------------------
# DELETE
# ---------------------------------------------------------------------------------------------------------------------
def delete(gateway: Gateway, id: str) -> Answer:
    return gateway.request("DELETE", f"/object/{id}")


def test_delete_is_204_whether_the_object_is_there_or_not(gateway: Gateway) -> None:
    id = store(gateway)
    for _ in range(2):
        answer = delete(gateway, id)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Content-Length"] is None  # RFC 9110, 8.6
        assert gateway.get(id).status == gateway.head(id).status == 404


def test_a_deleted_object_can_be_made_again(gateway: Gateway) -> None:
    delete(gateway, id := store(gateway, b"old"))
    assert gateway.put(id, b"new", headers={"If-None-Match": "*"}).status == 200
    assert gateway.get(id).body == b"new"


def test_delete_at_a_dead_node_is_503_and_deletes_nothing(faulty: Stack) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[2]
    id = store(gateway, id=faulty.id_of(node))
    node.container.kill()
    answer = delete(gateway, id)
    assert code(answer) == 503
    assert int(answer.headers["Retry-After"]) > 0
    node.start()
    gateway.wait_ready([id])
    assert gateway.get(id).body == b"an object"


# ---------------------------------------------------------------------------------------------------------------------
# Bodies of all sizes, in constant memory
# ---------------------------------------------------------------------------------------------------------------------
SIZES = [0, 1, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 5 * MIB + 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_bodies_of_any_size_come_back_as_they_were(gateway: Gateway, size: int, chunks: bool) -> None:
    id, body = random_id(), pattern(size)
    sent = (body[at : at + 99_999] for at in range(0, size, 99_999)) if chunks else body
    put, answer, seen = gateway.put(id, sent), gateway.get(id), gateway.head(id)
    assert put.status == answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
    assert put.headers["ETag"] == answer.headers["ETag"] == seen.headers["ETag"]
    assert seen.headers["Content-Length"] == str(size)


BLOCK = pattern(MIB)


def blocks(size: int, digest: Any) -> Iterator[bytes]:
    """So many bytes in numbered blocks; `digest` gets them too."""
    for n in range(size // MIB):
        block = n.to_bytes(8) + BLOCK[8:]
        digest.update(block)
        yield block


def upload(gateway: Gateway, id: str, size: int, headers: Mapping[str, str]) -> bytes:
    """Upload so many bytes in constant memory; their digest."""
    digest = hashlib.sha256()
    assert gateway.put(id, blocks(size, digest), headers=headers, timeout=300).status == 200
    return digest.digest()


def download(gateway: Gateway, id: str) -> tuple[int, bytes]:
    """Download in constant memory; size and digest."""
    connection, size, digest = http.client.HTTPConnection(gateway.address, 3000, timeout=300), 0, hashlib.sha256()
    connection.request("GET", f"/object/{id}")
    with connection.getresponse() as response:
        while block := response.read(MIB):
            size += len(block)
            digest.update(block)
    connection.close()
    return size, digest.digest()


@pytest.fixture(scope="module")
def small(shared: Stack) -> Gateway:
    """A gateway whose container is killed when it takes more than 200 MiB."""
    gateway = shared.add_gateway(start=False)
    gateway.container.update(mem_limit="200m", memswap_limit="200m")
    gateway.start()
    gateway.wait_up()
    gateway.wait_ready()
    return gateway


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_300_mib_pass_through_a_gateway_of_200_mib(shared: Stack, small: Gateway, chunks: bool) -> None:
    id, size = random_id(), 300 * MIB
    digest = upload(small, id, size, {} if chunks else {"Content-Length": str(size)})
    assert download(small, id) == (size, digest)
    shared.owner(id).client().remove_object(BUCKET, id)


@pytest.mark.large
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_6_gib_pass_through_a_gateway_of_200_mib(shared: Stack, small: Gateway, chunks: bool) -> None:
    id, size = random_id(), 6 * GIB
    digest = upload(small, id, size, {} if chunks else {"Content-Length": str(size)})
    try:
        assert download(small, id) == (size, digest)
    finally:
        shared.owner(id).client().remove_object(BUCKET, id)


# ---------------------------------------------------------------------------------------------------------------------
# The contract
# ---------------------------------------------------------------------------------------------------------------------
contract = schemathesis.openapi.from_path(Path(__file__).with_name("openapi.yaml"))
CHECKS = [
    conformance.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
    conformance.unsupported_method,
]


set_hypothesis_home_dir("/tmp/hypothesis")  # the checkout is read-only
hypothesis.settings.register_profile(
    "contract",
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,  # what a run tells is about the change, not about its luck
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("contract")


@contract.parametrize()
def test_no_request_is_answered_otherwise_than_the_contract_says(
    case: schemathesis.Case[Any], gateway: Gateway
) -> None:
    case.call_and_validate(base_url=f"http://{gateway.address}:3000", checks=CHECKS)
