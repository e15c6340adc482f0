"""Docker behind a proxy that permits what discovery reads, and nothing else."""

from __future__ import annotations

import http.client
import http.server
import re
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.harness.engine import DOCKER_SOCKET
from tests.harness.http import store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually

PERMITTED = re.compile(
    r"(/v1\.[0-9]+)?/(version|containers/json|containers/[0-9a-f]{64}/json)(\?.*)?"
)


class DockerProxy(http.server.ThreadingHTTPServer):
    """Docker over TCP for reading containers. `refused` is what else was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.permitted = 0
        self.rewrite: Callable[[bytes], bytes] = bytes  # of what Docker answers
        super().__init__(("0.0.0.0", 0), DockerProxyHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class DockerProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: DockerProxy

    def handle_one_request(self) -> None:
        """Relays what is permitted, whatever the method is called."""
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        if self.command != "GET" or not PERMITTED.fullmatch(self.path):
            self.server.refused.append(f"{self.command} {self.path}")
            self.send_error(403)
            return
        self.server.permitted += 1
        engine = http.client.HTTPConnection("docker")
        engine.sock = socket.socket(socket.AF_UNIX)
        engine.sock.connect(DOCKER_SOCKET)
        engine.request("GET", self.path)
        response = engine.getresponse()
        body = self.server.rewrite(response.read())
        engine.close()
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_docker_proxy_that_only_lists_and_inspects_containers_is_all_that_is_needed(
    faulty: Stack,
) -> None:
    proxy = DockerProxy()
    docker_host = f"tcp://{faulty.tests_address()}:{proxy.server_port}"
    gateway = faulty.add_gateway({"DOCKER_HOST": docker_host}, volumes={})
    gateway.wait_ready()
    for node in faulty.nodes[:2]:
        id = store(gateway, b"before", faulty.id_of(node))
        node.recreate(password=f"pass{secrets.token_hex(12)}", address=faulty.new_address())
        eventually(lambda id=id: gateway.get(id).body == b"before")
        assert faulty.holders(id) == [node]
    assert proxy.permitted > 0
    # What is no Swarm, and what would only make it quicker.
    assert all(
        re.fullmatch(r"GET (/v1\.[0-9]+)?/(info|events\?.*)", refused) for refused in proxy.refused
    )
    for process in gateway.processes().values():
        assert process.status["Uid"].split() == ["65534"] * 4
        assert process.status["Groups"].split() == []
    proxy.shutdown()
    proxy.server_close()


def without_ipv4(answer: bytes) -> bytes:
    """What Docker says of containers that have an IPv6 address only, as newer engines make them."""
    return re.sub(rb'"IPAddress":"[0-9.]+"', b'"IPAddress":""', answer)


def test_a_node_with_an_ipv6_address_only_is_reached(stack: Stack) -> None:
    subnet = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"
    network = stack.add_network(subnet)
    proxy = DockerProxy()
    proxy.rewrite = without_ipv4
    node = stack.add_node("1", network=network)
    stack.nodes.append(node)
    docker_host = f"tcp://{stack.tests_address()}:{proxy.server_port}"
    gateway = stack.add_gateway(
        {"DOCKER_HOST": docker_host}, volumes={}, networks=[stack.network, network]
    )
    gateway.wait_ready()
    id = store(gateway, b"over IPv6", stack.id_of(node))
    assert gateway.get(id).body == b"over IPv6"
    assert stack.holders(id) == [node]
    proxy.shutdown()
    proxy.server_close()
