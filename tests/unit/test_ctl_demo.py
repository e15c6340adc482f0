"""`objgwctl.py demo`: a first look without Docker."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.harness.engine import CHECKOUT
from tests.harness.waiting import eventually


def processes_with(text: str) -> list[int]:
    """The ids of this machine's processes that have this text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def answer(port: int, method: str, body: bytes | None = None) -> tuple[int, bytes]:
    """The answer of the gateway on this port, which must not be a 503."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, "/object/abc", body)
        response = connection.getresponse()
        told = response.status, response.read()
    finally:
        connection.close()
    assert response.status != 503, told
    return told


def test_the_demonstration_stores_and_returns_an_object_and_leaves_nothing_behind() -> None:
    port = 20000 + secrets.randbelow(10000)  # the kernel gives none of these to another server
    mark = f"OBJGW_TEST_RUN={port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OBJGW_")}
    command = [sys.executable, "objgwctl.py", "demo", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env={**env, "DOCKER_HOST": "unix:///nowhere", "RUN_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            assert running.stdout
            told = next(line for line in running.stdout if "in memory" in line)
            assert f"http://127.0.0.1:{port}" in told
            # On a busy machine a server in memory may be late: a 503, to be tried again.
            assert eventually(answer, port, "PUT", b"hello") == (200, b"")
            assert eventually(answer, port, "GET") == (200, b"hello")
        finally:
            running.send_signal(signal.SIGINT)
            rest, _ = running.communicate(timeout=60)
        assert running.returncode == 0, rest
        assert "ended; the objects are gone" in rest
    assert processes_with(mark) == []


def test_the_demonstration_says_so_where_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [
            *(sys.executable, "objgwctl.py", "demo"),
            *("--port", str(taken.getsockname()[1])),
        ]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the gateway hasn't started" in done.stderr
