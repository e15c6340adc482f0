"""Bounds: connections of one address, and open files."""

from __future__ import annotations

from contextlib import ExitStack

from docker.types import Ulimit

from tests.harness.http import Wire, code, head, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually


def test_connections_of_one_address_above_the_bound_are_503_and_leave_nothing_behind(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"OBJGW_CLIENT_CONNECTIONS": "20"})
    gateway.wait_ready()
    id = store(gateway)
    other = (
        f"import http.client as h; c = h.HTTPConnection('127.0.0.1', 3000); "
        f"c.request('GET', '/object/{id}')"
    )
    (worker,) = gateway.workers()
    eventually(lambda: not gateway.workers()[worker].clients)
    before = gateway.workers()[worker].descriptors

    wires = [Wire(gateway) for _ in range(20)]
    for wire in wires:
        wire.send(head("GET", id))
        assert wire.answer().status == 200
    for _ in range(50):
        with Wire(gateway) as wire:
            wire.send(head("GET", id))
            answer = wire.answer()
            assert code(answer) == 503
            assert answer.headers["Connection"] == "close"
            assert int(answer.headers["Retry-After"]) > 0
            assert wire.rest() == b""
    refused = "has more connections to one worker than OBJGW_CLIENT_CONNECTIONS=20 allows"
    address = wires[0].sock.getsockname()[0]
    eventually(lambda: gateway.logs().count(f"WARNING objgw {address} {refused}") == 1)
    assert (
        gateway.read("python", "-c", f"{other}; print(c.getresponse().status)") == "200\n"
    )  # of another address
    for wire in wires:
        wire.send(head("GET", id))
        assert wire.answer().status == 200
        wire.file.close()
        wire.sock.close()
    eventually(lambda: gateway.get(id).status == 200)
    # A few may be more than before, as connections to nodes that wait for a next request.
    eventually(lambda: gateway.workers()[worker].descriptors < before + 10)


def test_connections_may_be_more_than_the_files_that_the_container_begins_with(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway(ulimits=[Ulimit(name="nofile", soft=64, hard=4096)])
    gateway.wait_ready()
    id = store(gateway)
    with ExitStack() as held:
        wires = [held.enter_context(Wire(gateway)) for _ in range(150)]
        for wire in wires:
            wire.send(head("GET", id))
            assert wire.answer().status == 200
