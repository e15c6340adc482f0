"""The gateway over TLS, as docs/security.md says: it serves, and its health check knows."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest

from tests.harness.certificates import archive, make_certificate
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually

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
