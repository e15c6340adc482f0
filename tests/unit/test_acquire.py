"""A connection on which a request may be sent: only one over which the record was read."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from gateway.nodes.acquire import Unusable, acquire
from gateway.nodes.discovery import Discovery
from gateway.nodes.layout import Layout
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.poller import Poller
from gateway.nodes.record_json import dump
from gateway.nodes.view import Directory
from gateway.objects.upstream import Upstream
from gateway.s3.breaker import State
from gateway.s3.connection import UpstreamError
from gateway.s3.endpoint import Endpoint
from gateway.s3.headers import DOCUMENT_MAX
from gateway.settings import Settings
from tests.harness.waiting import eventually

LAYOUT = Layout.first(["node-1"])


def answer(status: int, body: bytes, etag: str = "") -> bytes:
    head = f"HTTP/1.1 {status} S3\r\nContent-Length: {len(body)}\r\n"
    return (head + (f"ETag: {etag}\r\n" if etag else "") + "\r\n").encode() + body


def record(node: str) -> bytes:
    return answer(200, dump(LAYOUT, node), f'"{node}"')


# What a server answers that isn't (yet) who it has to be, to whoever asks for its record.
STRANGERS = {
    "starting": answer(503, b"<Error><Code>XMinioServerNotInitialized</Code></Error>"),
    "broken": answer(500, b""),
    "another node": record("node-2"),
    "no record": answer(404, b"<Error><Code>NoSuchKey</Code></Error>"),
    "refuses": answer(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "a web server": answer(200, b"hello", '"x"'),
}


class Server(socketserver.ThreadingTCPServer):
    """Gives each request the same answer, whatever it asks for."""

    daemon_threads = True
    answer = record("node-1")
    then = b""  # its answers after the first one, where they are others
    asked = 0
    closes = 0  # the connection after so many answers; 0: never


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        with suppress(OSError):  # nobody reads all of an answer without an end
            self.answer_all()

    def answer_all(self) -> None:
        answers = 0
        while self.rfile.readline():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.server.asked += 1
            answers += 1
            last = answers == self.server.closes
            self.wfile.write(CLOSING if last else self.server.answer)
            self.server.answer = self.server.then or self.server.answer
            if last:
                return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def node(server: Server) -> Iterator[Member]:
    endpoint = Endpoint("node-1", "", "127.0.0.1", server.server_address[1], "key", "secret")
    node = Member(endpoint, Settings())
    node.standing.expect(LAYOUT)
    yield node
    node.close()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_who_is_at_the_address_by_now_is_not_who_was_there_a_moment_ago(
    node: Member, server: Server, stranger: str
) -> None:
    node.release(acquire(node))
    assert node.standing.leased
    node.forget()  # the connection broke
    server.answer = STRANGERS[stranger]
    for _ in range(2):  # what was found out isn't forgotten
        with pytest.raises(Unusable):
            acquire(node)
    assert node.kept() is None
    server.answer = record("node-1")
    node.release(acquire(node))


def test_a_request_waits_a_moment_for_the_first_record_of_a_node_of_the_first_layout(
    node: Member, server: Server
) -> None:
    node.standing.expect(replace(LAYOUT, unrecorded=("node-1",)))
    server.answer, server.then = STRANGERS["no record"], record("node-1")
    node.release(acquire(node))
    assert server.asked == 2


def test_a_connection_that_was_proved_is_used_again_without_a_look(
    node: Member, server: Server
) -> None:
    for _ in range(3):
        node.release(acquire(node))
    assert server.asked == 1


CLOSING = record("node-1").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def test_a_server_that_closes_each_connection_is_asked_nothing_and_it_is_said_why(
    node: Member, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer, server.closes = CLOSING, 1
    for _ in range(2):
        with pytest.raises(Unusable, match="closes each connection"):
            acquire(node)
    assert "closes each connection" in node.standing.error
    assert caplog.text.count("VGW_KEEP_ALIVE=true") == 1  # the remedy, once
    server.answer, server.closes = record("node-1"), 0
    node.release(acquire(node))
    assert node.standing.error == ""


def test_a_connection_that_the_server_closes_after_some_answers_costs_no_request(
    node: Member, server: Server
) -> None:
    """As nginx does after `keepalive_requests`: the last answer on a connection says so."""
    server.closes = 3
    for _ in range(9):
        node.release(acquire(node))
        node.standing.checked -= 10  # the lease is over, so that the next one looks
    assert server.asked >= 9


def test_a_record_without_an_end_is_not_kept_in_memory(node: Member, server: Server) -> None:
    head = f"HTTP/1.1 200 S3\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
    server.answer = head + bytes(2 * DOCUMENT_MAX)
    with pytest.raises(UpstreamError, match="too long"):
        acquire(node)
    assert node.kept() is None
    server.answer = record("node-1")
    node.release(acquire(node))


def test_a_trial_on_a_connection_that_was_closed_meanwhile_is_made_once_more(node: Member) -> None:
    directory = Directory(Settings())
    directory.by_name["node-1"] = node
    upstream = Upstream(directory, Poller(directory, Discovery(directory), Leader(None)))
    kept = acquire(node)
    node.breaker.failed("it didn't answer")
    eventually(lambda: time.monotonic() > node.breaker._until)
    kept.sock.shutdown(socket.SHUT_RDWR)  # as by a node that was started again
    node.release(kept)
    _, connection, reply = upstream.exchange(node, upstream.request("GET", "abc"))
    assert (reply.status, node.breaker.state) == (200, State.CLOSED)
    connection.close()
