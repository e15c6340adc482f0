"""A client proves who is there before it asks anything. The nodes here are socket servers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.ctl.client import NodeClient
from gateway.ctl.errors import NodeError
from gateway.nodes.layout import Layout
from gateway.nodes.record_json import dump
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

LAYOUT = Layout.first(["a", "b"])
RECORD = "/objgw-layout/layout"
GET = Request("GET", "/objgw/x")
REFUSES = b"as a node does that has other keys"


class FakeNode(ThreadingHTTPServer):
    """A server with a record, which answers every other request with its own name."""

    daemon_threads = True

    def __init__(self, record: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.record = record
        self.keep = True  # connections
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def client(self) -> tuple[NodeClient, list[None]]:
        """A client for the node named a, and what it told of failures."""
        failures: list[None] = []
        endpoint = Endpoint("a", "", "127.0.0.1", self.server_port, "key", "secret")
        return NodeClient(endpoint, Settings(), lambda: failures.append(None)), failures


class Handler(BaseHTTPRequestHandler):
    """Gives the record, or 304; anything else is 200."""

    protocol_version = "HTTP/1.1"
    server: FakeNode

    def do_GET(self) -> None:
        body, record, status = b"the node's", self.server.record, 200
        if self.path == RECORD:
            if record is None:
                status, body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
            elif record == REFUSES:
                status, body = 403, b"<Error><Code>InvalidAccessKeyId</Code></Error>"
            else:
                body = record
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            status, body = 304, b""
        self.server.asked.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        self.send_header("ETag", etag)
        # Of "/dripping" the rest of the body never comes.
        more = {"/huge": 1 << 40, "/dripping": 5}.get(self.path, 0)
        self.send_header("Content-Length", str(len(body) + more))
        if not self.server.keep:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def node() -> Iterator[Callable[[bytes | None], FakeNode]]:
    nodes: list[FakeNode] = []

    def make(record: bytes | None) -> FakeNode:
        nodes.append(FakeNode(record))
        return nodes[-1]

    yield make
    for each in nodes:
        each.shutdown()
        each.server_close()


Make = Callable[[bytes | None], FakeNode]


@pytest.mark.parametrize(
    ("path", "seconds", "why"),
    [("/huge", 5, "gives an answer that is too long"), ("/dripping", 0.2, "broke off")],
)
def test_a_brief_question_has_bounds_and_the_next_one_is_as_if_it_had_never_been(
    node: Make, path: str, seconds: float, why: str
) -> None:
    there = node(dump(LAYOUT, "a"))
    client, failures = there.client()
    with pytest.raises(NodeError, match=f"a {why}"):
        client.ask_briefly(Request("GET", path), seconds=seconds, maximum=100)
    assert len(failures) == 1
    assert client.ask(GET).body == b"the node's"
    assert client.ask_briefly(GET, seconds=5, maximum=100).body == b"the node's"
    there.keep = False
    client.close()
    with pytest.raises(NodeError, match="closes each connection"):
        client.ask_briefly(GET, seconds=5, maximum=100)


def test_the_first_request_on_a_connection_reads_the_record_and_no_other_does(node: Make) -> None:
    there = node(dump(LAYOUT, "a"))
    client, failures = there.client()
    assert [client.ask(GET).body for _ in range(3)] == [b"the node's"] * 3
    assert there.asked == [f"GET {RECORD} 200", *["GET /objgw/x 200"] * 3]
    client.close()
    client.ask(GET)
    assert there.asked[4:] == [f"GET {RECORD} 304", "GET /objgw/x 200"]
    assert failures == []


IMPOSTORS = {
    "another node": (dump(LAYOUT, "b"), "it holds what belongs to b"),
    "a web server": (b"hello", "its record can't be read"),
    "another node's keys": (REFUSES, "unexpected answer: 403 InvalidAccessKeyId"),
    "no record": (None, "no record of the layout"),
}


@pytest.mark.parametrize(("record", "reason"), IMPOSTORS.values(), ids=IMPOSTORS)
def test_who_is_not_the_node_by_its_record_is_asked_for_nothing_else(
    node: Make, record: bytes | None, reason: str
) -> None:
    there = node(record)
    client, failures = there.client()
    with pytest.raises(NodeError, match=reason):
        client.ask(GET)
    assert [line.split()[1] for line in there.asked] == [RECORD]
    assert failures == [None]


def test_a_node_that_gets_its_record_is_asked_from_then_on(node: Make) -> None:
    there = node(None)
    client, _ = there.client()
    assert client.read_record().layout is None
    there.record = dump(LAYOUT, "a")
    assert client.ask(GET).body == b"the node's"


def test_a_node_that_became_another_is_asked_for_nothing_else_from_the_next_look_on(
    node: Make,
) -> None:
    there = node(dump(LAYOUT, "a"))
    client, _ = there.client()
    client.ask(GET)
    there.record = dump(LAYOUT, "b")
    assert client.read_record().own("a") is None
    with pytest.raises(NodeError, match="belongs to b"):
        client.ask(GET)
    assert there.asked.count("GET /objgw/x 200") == 1


def test_who_closes_each_connection_can_not_be_proved(node: Make) -> None:
    there = node(dump(LAYOUT, "a"))
    there.keep = False
    client, failures = there.client()
    with pytest.raises(NodeError, match="closes each connection"):
        client.ask(GET)
    assert there.asked == [f"GET {RECORD} 200"]
    assert failures == [None]


def test_a_connection_that_was_closed_meanwhile_is_replaced_and_proved_again(node: Make) -> None:
    there = node(dump(LAYOUT, "a"))
    client, failures = there.client()
    client.ask(GET)
    assert client._connection
    client._connection.end()
    assert client.ask(GET).body == b"the node's"
    assert there.asked[2:] == [f"GET {RECORD} 304", "GET /objgw/x 200"]
    assert failures == []


def test_a_node_that_can_not_be_reached_is_told(node: Make) -> None:
    there = node(None)
    client, failures = there.client()
    there.shutdown()
    there.server_close()
    with pytest.raises(NodeError, match="can't be reached"):
        client.ask(GET)
    assert failures == [None]
