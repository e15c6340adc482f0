"""A server that gives no record of this installation gets no request, whatever else it answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
from docker.models.containers import Container

from tests.harness.engine import Lab, read_in
from tests.harness.fixtures import empty_stack
from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import states
from tests.harness.waiting import eventually, owner, random_id, together

# What a web server in a node's place says to everything, also to an upload.
ANSWERS = {
    "a page": (200, "text/html", "<html>welcome</html>"),
    "a document": (200, "application/json", '{"node": "someone"}'),
    "nothing": (200, "text/plain", ""),
    "not found": (404, "text/html", "<html>no such page</html>"),
    "forbidden": (403, "text/html", "<html>go away</html>"),
    "not changed": (304, "text/plain", ""),
    "an error": (500, "text/html", "<html>oops</html>"),
}
STRANGER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with open("/tmp/asked", "a") as asked:
            asked.write(f"{self.command} {self.path}\\n")
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = os.environ["BODY"].encode()
        self.send_response(int(os.environ["STATUS"]))
        self.send_header("Content-Type", os.environ["TYPE"])
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""


def stranger(stack: Stack, suffix: str, answer: str) -> Container:
    status, kind, body = ANSWERS[answer]
    return stack.add_fake(suffix, STRANGER, {"STATUS": str(status), "TYPE": kind, "BODY": body})


def assert_gets_nothing(gateway: Gateway, id: str, server: Container) -> None:
    """Each request for the id is 503, and the server was asked for nothing but the record."""
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = gateway.request(method, f"/object/{id}", b"body" if method == "PUT" else None)
        assert answer.status == 503
    asked = set(read_in(server, "cat", "/tmp/asked").splitlines())
    assert asked == {"GET /objgw-layout/layout"}


class Street(NamedTuple):
    """A gateway, a node, and a web server for each of ANSWERS that has a node's name."""

    gateway: Gateway
    node: Node
    servers: dict[str, Container]

    def id_of(self, name: str | None) -> str:
        names = [self.node.name, *(str(server.name) for server in self.servers.values())]
        return next(id for id in iter(random_id, None) if owner(id, names) == name)


@pytest.fixture(scope="module")
def street(lab: Lab) -> Iterator[Street]:
    with empty_stack(lab) as stack:
        node = stack.add_node("1")
        servers = together(
            partial(stranger, stack, f"2-{number}", answer) for number, answer in enumerate(ANSWERS)
        )
        street = Street(stack.add_gateway(), node, dict(zip(ANSWERS, servers, strict=True)))
        street.gateway.wait_ready([street.id_of(node.name)])
        yield street


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_web_server_with_a_nodes_name_gets_no_request(street: Street, answer: str) -> None:
    server = street.servers[answer]
    assert_gets_nothing(street.gateway, street.id_of(server.name), server)
    store(street.gateway, id=street.id_of(street.node.name))
    eventually(lambda: states(street.gateway)[str(server.name)] == "down")
    assert states(street.gateway)[street.node.name] == "up"


def test_a_web_server_in_the_place_of_a_node_that_was_removed_gets_no_request(stack: Stack) -> None:
    nodes = stack.add_nodes("12")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [store(gateway, id=stack.id_of(node)) for node in nodes]
    nodes[1].remove()
    server = stranger(stack, "2", "a page")
    eventually(
        lambda: (
            gateway.get(ids[1]).problem["detail"].startswith("The node of this id gives no record")
        )
    )
    assert_gets_nothing(gateway, ids[1], server)
    assert gateway.get(ids[0]).status == 200
    server.remove(force=True)
    nodes[1].create()
    eventually(lambda: gateway.get(ids[1]).status == 200)
