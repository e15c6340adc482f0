"""What servers of other makes than MinIO's do: their answers, one by one.

A fake node is a real socket. Each row is what such a server sends, cut where it says.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from gateway.s3.body import REPLAY_BYTES, upload_of
from gateway.s3.connection import ERROR_BODY_MAX, BadAnswer, Connection, Request, UpstreamError
from gateway.s3.endpoint import Endpoint
from gateway.s3.headers import DOCUMENT_MAX
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.settings import Settings

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
MISSING = b"<Error><Code>NoSuchKey</Code></Error>"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 %d S3\r\nTransfer-Encoding: chunked\r\n\r\n"


def in_chunks(status: int, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return CHUNKED % status + body + end


@contextmanager
def sent(pieces: Sequence[bytes]) -> Iterator[Connection]:
    """A connection on which these pieces come, each by itself, and then no more."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.settimeout(10)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for piece in pieces:
            right.send(piece)
        right.close()
        yield Connection(left)


# To a GET: what is sent, and the status, S3's code and body that are made of it.
ANSWERS = {
    "one interim answer": ([HINTS, PLAIN], (200, "", b"hello")),
    "several": ([PROCESSING, HINTS, CONTINUE, PROCESSING, PLAIN], (200, "", b"hello")),
    "several at once with the answer": ([PROCESSING + CONTINUE + PLAIN], (200, "", b"hello")),
    "one that is cut": ([HINTS[:9], HINTS[9:30], HINTS[30:] + PLAIN[:20], PLAIN[20:]],
                        (200, "", b"hello")),
    "an error in chunks": ([in_chunks(404, MISSING)], (404, "NoSuchKey", MISSING)),
    "in several": ([in_chunks(404, MISSING[:9], MISSING[9:])], (404, "NoSuchKey", MISSING)),
    "that come one by one": (
        [CHUNKED % 404, b"1", b"\r", b"\n<", b"\r\n%X" % (len(MISSING) - 1), b"\r\n" + MISSING[1:],
         b"\r\n0\r\n", b"\r\n"],
        (404, "NoSuchKey", MISSING),
    ),
    "with extensions and a trailer": (
        [CHUNKED % 404 + b'25;a="b" ; c\r\n' + MISSING + b"\r\n0;d\r\nx-a: b\r\nx-c: d\r\n\r\n"],
        (404, "NoSuchKey", MISSING),
    ),
    "a listing in chunks": (
        [CHUNKED % 200, *[b"2328\r\n%b\r\n" % (b"a" * 9000)] * 9, b"0\r\n\r\n"],
        (200, "", b"a" * 81_000),
    ),
    "an empty one": ([in_chunks(200)], (200, "", b"")),
    "after an interim answer": ([HINTS + in_chunks(404, MISSING)], (404, "NoSuchKey", MISSING)),
    "not modified, in name in chunks": ([CHUNKED % 304], (304, "", b"")),
    "409 in another's words": (
        [in_chunks(409, b"<Error><Code>OperationAborted</Code></Error>")],
        (409, "OperationAborted", b"<Error><Code>OperationAborted</Code></Error>"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ANSWERS)
def test_an_answer_of_another_make_is_understood(row: str) -> None:
    pieces, expected = ANSWERS[row]
    with sent(pieces) as connection:
        reply = connection.reply("GET")
        connection.finish(reply)
        assert (reply.status, reply.code, reply.body) == expected
        assert (reply.left, connection.usable) == (0, True)
        if reply.body:
            assert reply.headers["content-length"] == str(len(reply.body))
        assert "transfer-encoding" not in reply.headers or reply.status == 304


LONG = b"a" * 50_000
REFUSED = {
    "another protocol": [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", PLAIN],
    "interim answers and no more": [HINTS, CONTINUE],
    "a length as well": [
        b"HTTP/1.1 404 S3\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    ],
    "another coding": [b"HTTP/1.1 404 S3\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
    "no size": [CHUNKED % 404 + b"\r\n\r\n"],
    "a size with a sign": [CHUNKED % 404 + b"+5\r\nhello\r\n0\r\n\r\n"],
    "a size with 0x": [CHUNKED % 404 + b"0x5\r\nhello\r\n0\r\n\r\n"],
    "a size that is none": [CHUNKED % 404 + b"5z\r\nhello\r\n0\r\n\r\n"],
    "a size beyond all": [CHUNKED % 404 + b"fffffffff\r\nhello"],
    "a chunk longer than its size": [CHUNKED % 404 + b"4\r\nhello\r\n0\r\n\r\n"],
    "bare LF": [CHUNKED % 404 + b"5\nhello\n0\n\n"],
    "more than its end": [in_chunks(404, MISSING) + b"x"],
    "cut within a chunk": [CHUNKED % 404 + b"5\r\nhel"],
    "cut before the last chunk": [in_chunks(404, MISSING, end=b"")],
    "cut before its end": [in_chunks(404, MISSING, end=b"0\r\n")],
    "a line without end": [CHUNKED % 404 + b"5;" + b"a" * 9000],
    "a trailer without end": [in_chunks(404, MISSING, end=b"0\r\n" + b"a: b\r\n" * 100)],
    "an error that is too long": [in_chunks(404, *[LONG] * (ERROR_BODY_MAX // len(LONG) + 1))],
    "a document that is too long": [
        CHUNKED % 200,
        *[b"%x\r\n%b\r\n" % (len(LONG), LONG)] * (DOCUMENT_MAX // len(LONG) + 1),
    ],
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_nobody_could_be_sure_of_is_no_answer(row: str) -> None:
    """Within what a socket takes; the longest one is sent while it is read."""
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(10)

        def send() -> None:
            try:
                for piece in REFUSED[row]:
                    right.sendall(piece)
            except OSError:
                return  # it was refused before its end
            right.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        with pytest.raises(UpstreamError) as raised:
            Connection(left).reply("GET")
        left.shutdown(socket.SHUT_RDWR)
        thread.join()
        breaks_off = row.startswith(("cut", "interim", "bare"))
        assert isinstance(raised.value, BadAnswer) is not breaks_off


# What a server sends before an upload's body has come, and after it.
UPLOADS = {
    "100 once": ([CONTINUE], [PLAIN]),
    "100 twice": ([CONTINUE], [CONTINUE, PLAIN]),
    "100 twice at once": ([CONTINUE + CONTINUE], [PLAIN]),
    "others around it": ([HINTS, PROCESSING, CONTINUE], [PROCESSING, PLAIN]),
    "others around it at once": ([HINTS + CONTINUE + PROCESSING], [PROCESSING + PLAIN]),
    "100 that is cut": ([CONTINUE[:5], CONTINUE[5:]], [PLAIN]),
}


@pytest.mark.parametrize("row", UPLOADS)
def test_an_upload_is_sent_when_the_node_asks_for_it_however_often(row: str) -> None:
    before, after = UPLOADS[row]
    body, took = b"x" * (REPLAY_BYTES + 1), bytearray()

    def serve(sock: socket.socket) -> None:
        with sock:
            while b"\r\n\r\n" not in took and (piece := sock.recv(65536)):
                took.extend(piece)
            for piece in before:
                sock.sendall(piece)
            while not took.endswith(b"\r\n\r\n" + body) and (piece := sock.recv(65536)):
                took.extend(piece)
            for piece in after:
                sock.sendall(piece)

    reply = _upload(body, serve)
    assert (reply.status, reply.body) == (200, b"hello")


def test_an_upload_that_the_node_refuses_after_an_interim_answer_is_not_sent() -> None:
    took = bytearray()

    def serve(sock: socket.socket) -> None:
        with sock:
            while b"\r\n\r\n" not in took and (piece := sock.recv(65536)):
                took.extend(piece)
            sock.sendall(PROCESSING + in_chunks(404, MISSING))
            while piece := sock.recv(65536):
                took.extend(piece)

    reply = _upload(b"x" * (REPLAY_BYTES + 1), serve)
    assert (reply.status, reply.code) == (404, "NoSuchKey")
    assert took.endswith(b"\r\n\r\n")


def _upload(body: bytes, serve: Callable[[socket.socket], None]) -> Reply:
    """An upload of what isn't at hand twice, to a server."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=[theirs], daemon=True)
    thread.start()
    upload = upload_of(body)
    try:
        ours.settimeout(10)
        node = Node(Endpoint("node", "0", "127.0.0.1", 9000, "ring", "treepotato"), Settings())
        request = Request("PUT", "/objgw/a", {}, upload)
        assert request.careful
        return node.ask(Connection(ours), request)
    finally:
        ours.close()
        thread.join()
