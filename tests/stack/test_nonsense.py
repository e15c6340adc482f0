"""What isn't a server of S3 at all: its ids are 503 within a second, and the reason is named.

Each is a node by its name, and a real server of its kind: MinIO over TLS, OpenSSL, and what `KINDS`
does with a bare socket.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.certificates import archive, make_certificate
from tests.harness.engine import MINIO, Lab
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner, random_id, together

TLS = "it speaks TLS, and the gateway speaks plain HTTP"
NOT_HTTP = "what it sends isn't HTTP/1.1"
SILENT = "it doesn't answer in time"
REASONS = {
    "minio-tls": TLS,
    "alert": TLS,  # what TLS itself says to it (RFC 8446, 6)
    "openssl": "it breaks off",  # which says nothing
    "nginx": TLS,  # what nginx says to it
    "go": TLS,  # what Go's own server says to plain HTTP
    "ssh": NOT_HTTP,
    "mail": NOT_HTTP,
    "closes": "it breaks off",
    "silent": SILENT,
    "web": "it isn't a server of S3",
    "chunked": "its record has no ETag",  # a web server that gives no length
    "endless": NOT_HTTP,
    "drips": SILENT,
    "dripping-error": SILENT,
}

# Does what its own name says to each connection on port 9000.
KINDS = r"""
import json, os, socketserver, ssl, threading, time
KIND = os.environ["KIND"]
SECURE = b"<center>The plain HTTP request was sent to HTTPS port</center>"
ONCE = {
    "alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "nginx": b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(SECURE) + SECURE,
    "go": b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "mail": b"220 mail.example ESMTP\r\n",
    "web": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<html",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "endless": b"HTTP/1.1 200 OK\r\n" + b"X-Header: value\r\n" * 100_000,
}
DRIPS = {
    "drips": b"HTTP/1.1 200 OK\r\n" + b"X-Header: value\r\n" * 100_000,
    "dripping-error": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000,
}
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        if KIND == "openssl":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.wrap_socket(self.request, server_side=True)
            except OSError:
                return
        if KIND == "closes":
            return
        try:
            if KIND in ONCE:
                if KIND not in ("ssh", "mail"):
                    self.request.recv(65536)
                self.request.sendall(ONCE[KIND])
            for at in range(len(DRIPS.get(KIND, b""))):
                self.request.sendall(DRIPS[KIND][at : at + 1])
                time.sleep(0.3)
        except OSError:
            return
        if KIND not in ("go", "nginx", "web"):
            time.sleep(600)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128
Server(("0.0.0.0", 9000), Handler).serve_forever()
"""


class Nonsense(NamedTuple):
    """One good node and the others, behind a gateway with the settings that it has by itself."""

    stack: Stack
    gateway: Gateway
    names: list[str]

    def id_of(self, suffix: str) -> str:
        name = f"{self.stack.marker}-{suffix}"
        return next(id for id in iter(random_id, None) if owner(id, self.names) == name)


@pytest.fixture(scope="module")
def nonsense(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nonsense]:
    stack = Stack(lab)
    try:
        stack.add_nodes(["good"])
        add_minio_over_tls(stack, tmp_path_factory.mktemp("tls"))
        fakes = [kind for kind in REASONS if kind != "minio-tls"]
        together(partial(stack.add_fake, kind, KINDS, {"KIND": kind}) for kind in fakes)
        names = [f"{stack.marker}-{suffix}" for suffix in ("good", *REASONS)]
        gateway = stack.add_gateway()
        nonsense = Nonsense(stack, gateway, names)
        gateway.wait_ready([nonsense.id_of("good")])
        yield nonsense
    finally:
        stack.close()


def add_minio_over_tls(stack: Stack, folder: Path) -> None:
    """A MinIO that speaks TLS only, because there is a certificate in its folder."""
    certificate, key = make_certificate(folder)
    container = stack.lab.docker.containers.create(
        MINIO,
        "server /data --certs-dir /certs",
        name=f"{stack.marker}-minio-tls",
        labels=stack.labels,
        network=str(stack.network.name),
        volumes=["/certs", "/data"],
    )
    files = {"public.crt": certificate.read_bytes(), "private.key": key.read_bytes()}
    container.put_archive("/certs", archive(files))
    container.start()


@pytest.mark.parametrize("kind", REASONS)
def test_what_is_no_server_of_s3_is_503_soon_with_the_reason(nonsense: Nonsense, kind: str) -> None:
    gateway, id = nonsense.gateway, nonsense.id_of(kind)

    def settled() -> bool:  # a look of the gateway's has found out what it is
        return REASONS[kind] in gateway.get(id).problem["detail"]

    eventually(settled, within=15)
    for method, body in (("GET", None), ("PUT", b"a body"), ("DELETE", None), ("GET", None)):
        began = time.monotonic()
        answer = gateway.request(method, f"/object/{id}", body)
        assert time.monotonic() - began < 5  # a good node has 30 s
        assert answer.status == 503
        assert REASONS[kind] in answer.problem["detail"]
        assert answer.headers["Retry-After"]


def test_the_log_names_each_kind_of_nonsense_and_no_thread_fails(nonsense: Nonsense) -> None:
    def told(kind: str) -> bool:
        lines = nonsense.gateway.logs().splitlines()
        return any(
            f"{nonsense.stack.marker}-{kind}:" in line and REASONS[kind] in line for line in lines
        )

    for kind in ("minio-tls", "alert", "nginx", "ssh", "endless", "web"):
        eventually(told, kind, within=30)
    log = nonsense.gateway.logs()
    assert "Traceback" not in log
    said = [line for line in log.splitlines() if " objgw.access " not in line]
    assert len([line for line in said if REASONS["ssh"] in line]) < 20


def test_where_no_node_is_a_server_of_s3_the_refusal_says_what_they_are(stack: Stack) -> None:
    stack.add_fake("1", KINDS, {"KIND": "go"})
    gateway = stack.add_gateway()
    detail = eventually(
        lambda: TLS in (told := gateway.get("any").problem["detail"]) and told, within=20
    )
    assert detail.startswith("No node has answered yet")
    assert json.loads(gateway.get("any").body)["status"] == 503
