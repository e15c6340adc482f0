"""A stop loses nothing: who takes a download slowly gets all of it, or sees that it broke."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest
from docker.models.containers import Container

from tests.harness.gateway import Gateway
from tests.harness.http import BROKEN, MIB, Wire, head, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, meanwhile

SIZE = 64 * MIB
RATE, SLOWER = 6 * MIB, 3 * MIB // 2  # bytes a second that each client reads, at first and later
PUBLISHED = {"3000/tcp": ("127.0.0.1", None)}

# Reads an object twice at once, on connections that it would go on with: on the published port of
# the host's loopback, which a proxy of Docker's serves, and on the container's address. After the
# first so many bytes it says that it has begun, and becomes slower.
CLIENTS = r"""
import hashlib, json, socket, sys, threading, time
places, path, (first, rate, slower) = json.loads(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:])
begun = threading.Barrier(len(places), action=lambda: print("begun", flush=True))
def take(place):
    with socket.socket() as sock:
        sock.settimeout(60)
        sock.connect(tuple(place))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(1000)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        digest, got, start, ended, told = hashlib.sha256(body), len(body), time.monotonic(), "whole", False
        while got < length:
            try:
                data = sock.recv(65536)
            except OSError as error:
                ended = type(error).__name__
                break
            if not data:
                ended = "short"
                break
            digest.update(data)
            got += len(data)
            if not told and got > first:
                told = True
                begun.wait(60)
            late = got - first if told else 0
            time.sleep(max(0, start + (got - late) / rate + late / slower - time.monotonic()))
        return {"got": got, "ended": ended, "sha256": digest.hexdigest(), "seconds": time.monotonic() - start}
def note(number, place):
    results[number] = take(place)
results = [None] * len(places)
threads = [threading.Thread(target=note, args=each) for each in enumerate(places)]
[each.start() for each in threads]
[each.join() for each in threads]
print(json.dumps(results), flush=True)
"""  # noqa: E501


class Taken(NamedTuple):
    """What a client got: bytes, and how it ended (`whole`, or what broke it)."""

    got: int
    ended: str
    sha256: str
    seconds: float


class Clients(NamedTuple):
    container: Container

    def log(self) -> list[str]:
        log: Any = self.container.logs(stderr=True)
        return bytes(log).decode().splitlines()

    def begun(self) -> bool:
        """Whether all of them are in the middle of their download."""
        return "begun" in self.log()

    def taken(self) -> list[Taken]:
        """What each client got, once all have ended."""
        self.container.wait(timeout=60)
        return [Taken(**each) for each in json.loads(self.log()[-1])]


@contextmanager
def clients(gateway: Gateway, id: str, first: int) -> Iterator[Clients]:
    """A client on the published port and one on the container's address, in mid-download: after so
    many bytes.
    """
    gateway.container.reload()
    port = int(gateway.container.attrs["NetworkSettings"]["Ports"]["3000/tcp"][0]["HostPort"])
    places = [("127.0.0.1", port), (gateway.address, 3000)]
    rates = (first, RATE, SLOWER)
    container = gateway.stack.lab.docker.containers.run(
        "python:3.13-slim",
        ["python", "-c", CLIENTS, json.dumps(places), f"/object/{id}", *map(str, rates)],
        labels=gateway.stack.labels,
        network_mode="host",
        detach=True,
    )
    try:
        found = Clients(container)
        eventually(found.begun)
        yield found
    finally:
        container.remove(force=True)


def lines_of(gateway: Gateway, id: str) -> list[str]:
    """The log's lines about the downloads of this object."""
    return [line for line in gateway.logs().splitlines() if f" GET {id} " in line]


def test_a_slow_download_survives_docker_stop_whole_by_a_published_port_and_by_the_address(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway(ports=PUBLISHED)
    gateway.wait_ready()
    body = pattern(SIZE)
    id = store(gateway, body)
    with clients(gateway, id, SIZE - 6 * MIB) as found:  # most of what is left is in buffers
        began = time.monotonic()
        gateway.container.stop(timeout=30)
        stopped = time.monotonic() - began
        taken = found.taken()
    assert [each.ended for each in taken] == ["whole", "whole"]
    assert {each.sha256 for each in taken} == {hashlib.sha256(body).hexdigest()}
    assert stopped < 24  # it ends with its clients, not with its time
    gateway.container.reload()
    assert gateway.container.attrs["State"]["ExitCode"] == 0
    lines = lines_of(gateway, id)
    assert len(lines) == 2
    for line in lines:
        assert f" 200 node={shared.owner(id).name} bytes={SIZE} " in line
        assert "broken off" not in line


def test_a_download_that_does_not_end_in_time_breaks_and_the_log_says_how_much_arrived(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"GUNICORN_CMD_ARGS": "--graceful-timeout 4"}, ports=PUBLISHED)
    gateway.wait_ready()
    id = store(gateway, pattern(SIZE))
    with clients(gateway, id, 4 * MIB) as found:
        gateway.container.stop(timeout=20)
        taken = found.taken()
    assert all(each.ended in ("short", "ConnectionResetError") for each in taken), taken
    assert all(each.got < SIZE and each.seconds < 20 for each in taken), taken
    lines = lines_of(gateway, id)
    assert len(lines) == 2
    assert all(" broken off " in line for line in lines), lines
    assert all(line.endswith('reason="The gateway stopped."') for line in lines), lines
    logged = sorted(int(re.findall(r" bytes=(\d+) ", line)[0]) for line in lines)
    # No proxy stands before the second client: its kernel had at most what the log says, which is
    # all that it could still read.
    direct = taken[1].got
    assert min(abs(each - direct) for each in logged) < MIB


def test_connections_that_wait_for_a_request_hold_up_no_stop(shared: Stack) -> None:
    gateway = shared.add_gateway()
    gateway.wait_ready()
    id = store(gateway, b"small")
    with Wire(gateway) as kept, Wire(gateway) as new:
        kept.send(head("GET", id))
        assert kept.answer().status == 200
        began = time.monotonic()
        gateway.container.stop(timeout=20)
        assert time.monotonic() - began < 15  # Docker would kill it after 20
        assert kept.rest() == new.rest() == b""


@pytest.mark.parametrize("ending", ["Connection: close", "a bad request"])
def test_a_client_that_never_closes_is_let_go_of(shared: Stack, ending: str) -> None:
    gateway = shared.gateways[0]
    request = b"nonsense\r\n\r\n" if ending != "Connection: close" else head("GET", "abc", ending)

    def descriptors() -> int:
        return sum(process.descriptors for process in gateway.workers().values())

    before = descriptors()
    wires = [Wire(gateway) for _ in range(20)]
    try:
        for wire in wires:
            wire.send(request)
            assert wire.rest().startswith(b"HTTP/1.1 4")
        eventually(lambda: descriptors() < before + 10, within=20)
    finally:
        for wire in wires:
            wire.file.close()
            wire.sock.close()


def test_two_gateways_that_are_replaced_one_after_the_other_leave_no_gap(shared: Stack) -> None:
    gateways = [shared.add_gateway({"OBJGW_CONNECT_TIMEOUT": "20"}) for _ in range(2)]
    for gateway in gateways:
        gateway.wait_ready()
    id, outcomes = store(gateways[0], b"there"), list[int]()

    def balance(over: threading.Event) -> None:
        """What a load balancer does: it takes the other one where a connection breaks."""
        while not over.is_set():
            for gateway in tuple(gateways):
                with suppress(*BROKEN):
                    outcomes.append(gateway.get(id).status)
                    break
            else:
                outcomes.append(0)

    with meanwhile(balance), meanwhile(balance), meanwhile(balance):
        for at in range(2):
            gateways[at].container.stop(timeout=20)
            gateways[at].start()
            gateways[at].wait_ready()
    assert len(outcomes) > 100
    assert set(outcomes) == {200}
