"""The image: it starts, becomes healthy, stops, and holds only what runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id


def test_the_image_stops_with_a_plain_line_where_a_setting_can_not_be_used(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_NODE_PORT": "abc"}, start=False)
    gateway.container.start()
    assert gateway.container.wait(timeout=60)["StatusCode"] != 0
    named = [line for line in gateway.logs().splitlines() if "OBJGW_NODE_PORT" in line]
    assert len(named) == 1
    assert "'abc'" in named[0]
    assert "Traceback" not in gateway.logs()


def test_the_image_becomes_healthy_and_stops_cleanly_though_a_client_keeps_its_connection(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway(
        healthcheck={"interval": 10**9}
    )  # the image's, each second (in nanoseconds)
    gateway.wait_ready()

    def health() -> str:
        gateway.container.reload()
        return str(gateway.container.attrs["State"]["Health"]["Status"])

    eventually(lambda: health() == "healthy")
    with socket.create_connection((gateway.address, 3000)) as idle:
        idle.sendall(b"GET /object/abc HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 404"
        began = time.monotonic()
        gateway.container.stop(timeout=20)
        assert time.monotonic() - began < 15
    gateway.container.reload()
    assert gateway.container.attrs["State"]["ExitCode"] == 0
    assert "Traceback" not in gateway.logs()


def test_a_request_that_is_under_way_when_the_gateway_is_told_to_stop_is_finished(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway()
    gateway.wait_ready()
    id = random_id()

    def body() -> Iterator[bytes]:
        yield b"before "
        gateway.container.kill("SIGTERM")
        eventually(gateway.refuses)
        yield b"and after"

    assert gateway.put(id, body()).status == 200
    assert gateway.container.wait(timeout=60)["StatusCode"] == 0
    assert shared.owner(id).client().get_object(BUCKET, id).read() == b"before and after"


def test_the_image_holds_only_what_runs(gateway: Gateway) -> None:
    there = gateway.read("sh", "-c", "ls -A; pip list 2>/dev/null || true")
    assert "objgw.py" in there
    for unwanted in ("test_", "conftest", ".git", "README", "pytest", "webtest"):
        assert unwanted not in there
