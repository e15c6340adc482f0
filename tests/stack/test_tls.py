"""The gateway over TLS, as docs/security.md says: it serves, and its health check knows."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.certificates import archive, make_certificate
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, head, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, meanwhile

EACH_SECOND = {"interval": 10**9}  # the image's own check; in nanoseconds
TLS = "--certfile /srv/tls.crt --keyfile /srv/tls.key"


def health(gateway: Gateway) -> str:
    gateway.container.reload()
    return str(gateway.container.attrs["State"]["Health"]["Status"])


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (TLS, None),
        (f"{TLS} --cert-reqs 2 --ca-certs /srv/tls.crt", None),
        ("", ["gunicorn", "-b", "127.0.0.1:8123", "objgw:app"]),
        ("", ["gunicorn", "-b", "[::]:3000", "objgw:app"]),
        ("", ["gunicorn", "-b", "unix:/tmp/objgw.sock", "objgw:app"]),
    ],
    ids=["TLS", "TLS with certificates of clients", "another port", "IPv6", "a Unix socket"],
)
def test_the_image_becomes_healthy_wherever_gunicorn_listens(
    shared: Stack, tmp_path: Path, arguments: str, command: list[str] | None
) -> None:
    files = [file.read_bytes() for file in make_certificate(tmp_path)]
    gateway = shared.add_gateway(
        {"GUNICORN_CMD_ARGS": arguments}, command=command, healthcheck=EACH_SECOND, start=False
    )
    gateway.container.put_archive(
        "/srv", archive(dict(zip(("tls.crt", "tls.key"), files, strict=True)))
    )
    gateway.start()
    eventually(lambda: health(gateway) == "healthy")


def test_a_gateway_that_listens_and_does_not_answer_is_unhealthy(shared: Stack) -> None:
    gateway = shared.add_gateway(healthcheck={**EACH_SECOND, "timeout": 10**9, "retries": 1})
    eventually(lambda: health(gateway) == "healthy")
    worker = next(iter(gateway.workers()))
    gateway.run("sh", "-c", f"kill -STOP {worker}")
    eventually(lambda: health(gateway) == "unhealthy")
    gateway.run("sh", "-c", f"kill -CONT {worker}")
    eventually(lambda: health(gateway) == "healthy")


def test_a_key_that_the_gateways_user_may_not_read_is_named(shared: Stack, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    gateway = shared.add_gateway({"GUNICORN_CMD_ARGS": TLS}, start=False)
    gateway.container.put_archive("/srv", archive({"tls.crt": certificate.read_bytes()}))
    gateway.container.put_archive("/srv", archive({"tls.key": key.read_bytes()}, mode=0o400))
    gateway.container.start()
    assert gateway.container.wait(timeout=60)["StatusCode"] != 0
    (line,) = (line for line in gateway.logs().splitlines() if line.startswith("objgw: "))
    assert line == "objgw: keyfile /srv/tls.key can't be read: Permission denied"
    assert "Traceback" not in gateway.logs()


def test_a_large_object_comes_whole_over_tls_and_the_connection_ends_well(
    shared: Stack, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    files = {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()}
    body = pattern(3 * MIB)
    id = store(shared.gateways[0], body)
    gateway = shared.add_gateway({"GUNICORN_CMD_ARGS": TLS}, start=False)
    gateway.container.put_archive("/srv", archive(files))
    gateway.start()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False

    def got(connection: str) -> bytes:
        client = http.client.HTTPSConnection(gateway.address, 3000, timeout=20, context=context)
        try:
            client.request("GET", f"/object/{id}", headers={"Connection": connection})
            answer = client.getresponse()
            assert answer.status == 200
            return answer.read()
        finally:
            client.close()

    assert eventually(lambda: got("close")) == got("keep-alive") == body
    lines = eventually(
        lambda: [line for line in gateway.logs().splitlines() if f"GET {id} 200" in line][-2:]
    )
    assert all(f" bytes={3 * MIB} " in line and "broken off" not in line for line in lines)


class Served(NamedTuple):
    """A gateway over TLS that has little patience, and what trusts it."""

    gateway: Gateway
    context: ssl.SSLContext

    def connect(self, buffer: int = 0) -> socket.socket:
        """A connection on which nothing was said yet, with so many bytes to receive into."""
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(60)
        sock.connect((self.gateway.address, 3000))
        return sock

    def lets_go_of(self, port: int) -> bool:
        """Whether no worker has a connection from this port."""
        return all(port not in process.clients for process in self.gateway.workers().values())


@pytest.fixture
def served(shared: Stack, tmp_path: Path) -> Served:
    certificate, key = make_certificate(tmp_path)
    files = {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()}
    settings = {"OBJGW_CLIENT_TIMEOUT": "2", "OBJGW_CLIENT_CONNECTIONS": "3"}
    settings["GUNICORN_CMD_ARGS"] = f"{TLS} --keep-alive 2"
    gateway = shared.add_gateway(settings, start=False)
    gateway.container.put_archive("/srv", archive(files))
    gateway.start()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    served = Served(gateway, context)

    def ready() -> bool:
        for node in shared.nodes:
            with context.wrap_socket(served.connect()) as client:
                client.sendall(head("GET", shared.id_of(node), "Connection: close"))
                assert client.recv(20).startswith(b"HTTP/1.1 404")
        return True

    eventually(ready)
    return served


def test_who_never_shakes_hands_is_counted_and_let_go_of(served: Served) -> None:
    with ExitStack() as held:
        silent = [held.enter_context(served.connect()) for _ in range(5)]
        eventually(lambda: "OBJGW_CLIENT_CONNECTIONS=3 allows" in served.gateway.logs())
        ports = [each.getsockname()[1] for each in silent]
        eventually(lambda: all(map(served.lets_go_of, ports)))
    assert "Traceback" not in served.gateway.logs()


def test_who_does_not_read_a_download_is_let_go_of(shared: Stack, served: Served) -> None:
    id = store(shared.gateways[0], pattern(30 * MIB))
    with served.context.wrap_socket(served.connect(4096)) as client:
        client.sendall(head("GET", id))
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        eventually(served.lets_go_of, client.getsockname()[1])
    assert " broken off " in served.gateway.lines(f"GET {id} 200")[0]


def test_an_upload_that_drips_within_a_record_of_tls_is_refused(
    shared: Stack, served: Served
) -> None:
    id = store(shared.gateways[0], b"the old object")
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = served.context.wrap_bio(came, goes)
    with served.connect() as sock:
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(goes.read())
                came.write(sock.recv(65536))
            else:
                break
        client.write(head("PUT", id, "Content-Length: 10000"))
        sock.sendall(goes.read())
        client.write(bytes(10_000))
        record = goes.read()

        def drip(over: threading.Event) -> None:
            with suppress(OSError):
                for at in range(len(record)):
                    if over.wait(0.5):
                        return
                    sock.sendall(record[at : at + 1])

        with meanwhile(drip):
            eventually(served.lets_go_of, sock.getsockname()[1])
    assert served.gateway.lines(f"PUT {id} 408")
    assert shared.gateways[0].get(id).body == b"the old object"
