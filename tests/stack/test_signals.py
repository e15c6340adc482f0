"""Signals: a gateway or a worker that is told to stop, or is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import BROKEN, MIB, Wire, head, pattern, store
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, meanwhile, random_id


@contextmanager
def under_way(
    gateway: Gateway, large: str, upload: str, go_on: threading.Event
) -> Iterator[dict[str, Any]]:
    """An upload of 400,000 bytes to `upload` and a download of `large` that both stop half-way
    until `go_on`. When the block ends they have ended: `upload` is the status, `download` how many
    bytes came.
    """
    ended: dict[str, Any] = {}
    half = threading.Barrier(3)

    def send() -> None:
        def body() -> Iterator[bytes]:
            yield pattern(400_000)[:200_000]
            half.wait(20)
            go_on.wait(40)
            yield pattern(400_000)[200_000:]

        try:
            ended["upload"] = gateway.put(
                upload, body(), headers={"Content-Length": "400000"}
            ).status
        except BROKEN as error:
            ended["upload"] = error

    def fetch() -> None:
        with Wire(gateway, timeout=60) as wire:
            wire.send(head("GET", large))
            first = wire.file.read(1000)
            half.wait(20)
            go_on.wait(40)
            ended["download"] = len(first.partition(b"\r\n\r\n")[2]) + len(wire.rest())

    threads = [threading.Thread(target=send), threading.Thread(target=fetch)]
    for thread in threads:
        thread.start()
    half.wait(20)
    try:
        yield ended
    finally:
        for thread in threads:
            thread.join()


def test_sigterm_ends_what_is_under_way_refuses_what_is_new_and_the_next_gateway_goes_on(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2"})
    gateway.wait_ready()
    large, upload, small = store(gateway, pattern(24 * MIB)), random_id(), store(gateway, b"small")
    go_on, outcomes = threading.Event(), list[Any]()

    def use(over: threading.Event) -> None:
        while not over.is_set():
            try:
                outcomes.append(gateway.get(small).status)
            except ConnectionRefusedError:
                return
            except BROKEN as error:
                outcomes.append(error)

    with under_way(gateway, large, upload, go_on) as ended:
        with meanwhile(use), meanwhile(use), meanwhile(use), meanwhile(use):
            eventually(lambda: len(outcomes) > 20)
            gateway.container.kill("SIGTERM")
            eventually(gateway.refuses, within=20)
            assert ended == {}
        go_on.set()
    assert ended == {"upload": 200, "download": 24 * MIB}
    assert gateway.container.wait(timeout=60)["StatusCode"] == 0
    # A connection that nobody had accepted when the port was closed is reset by the kernel.
    assert [
        each for each in outcomes if each != 200 and not isinstance(each, ConnectionResetError)
    ] == []
    successor = shared.add_gateway()
    successor.wait_ready()
    assert successor.get(upload).body == pattern(400_000)


def test_workers_that_are_replaced_cut_nobody_off_on_new_connections_and_kept_ones(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2", "OBJGW_CONNECT_TIMEOUT": "20"})
    gateway.wait_ready()
    wrong = list[Any]()

    def ask(kept: bool, over: threading.Event) -> None:
        with gateway.session() as session:
            while not over.wait(0.001):
                try:
                    send = session.request if kept else gateway.request
                    if (answer := send("GET", "/object/none")).status != 404:
                        wrong.append(answer)
                except Exception as error:
                    wrong.append(error)

    with ExitStack() as clients:
        for kept in [False, True] * 3:
            clients.enter_context(meanwhile(partial(ask, kept)))
        for _ in range(3):
            before = gateway.workers().keys()
            gateway.reload()
            eventually(lambda before=before: not before & gateway.workers().keys())
            gateway.wait_ready()
    assert wrong == []


def test_what_is_not_done_within_the_time_to_stop_is_cut_and_leaves_the_old_object(
    shared: Stack,
) -> None:
    # On a host, so that its network, and with it what it tells its clients, isn't gone together
    # with it.
    gateway = shared.add_gateway(
        {"GUNICORN_CMD_ARGS": "--graceful-timeout 4"}, beside=shared.add_host()
    )
    gateway.wait_ready()
    large, upload, go_on = (
        store(gateway, pattern(24 * MIB)),
        store(gateway, b"the old object"),
        threading.Event(),
    )
    with under_way(gateway, large, upload, go_on) as ended:
        gateway.container.kill("SIGTERM")
        assert gateway.container.wait(timeout=60)["StatusCode"] == 0
        go_on.set()
    assert isinstance(ended["upload"], BROKEN)
    assert ended["download"] < 24 * MIB
    log = gateway.logs()
    for request in (f"PUT {upload} 503", f"GET {large} 200"):
        lines = [line for line in log.splitlines() if f" {request} " in line]
        assert len(lines) == 1, lines
        assert " broken off " in lines[0], lines
        assert lines[0].endswith('reason="The gateway stopped."'), lines
    assert shared.owner(upload).client().get_object(BUCKET, upload).read() == b"the old object"


def test_a_worker_that_is_killed_takes_only_its_own_requests_along_and_is_replaced(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2", "OBJGW_CLIENT_TIMEOUT": "300"})
    gateway.wait_ready()
    stored = [store(gateway, id.encode(), id) for id in (random_id() for _ in range(30))]
    before, wires = gateway.workers(), list[Wire]()
    while not all(worker.clients for worker in gateway.workers().values()):
        assert len(wires) < 60, "one worker takes all connections"
        for _ in range(4):
            wires.append(Wire(gateway))
            wires[-1].send(head("PUT", random_id(), "Content-Length: 8"), b"half")
        eventually(
            lambda: sum(len(worker.clients) for worker in gateway.workers().values()) == len(wires)
        )
    (victim, killed), (_, left) = gateway.workers().items()
    gateway.run("sh", "-c", f"kill -KILL {victim}")

    def replaced() -> bool:
        now = gateway.workers().keys()
        return len(now) == len(before) and victim not in now

    for wire in wires:
        if wire.port in left.clients:
            wire.send(b"half")
            assert wire.answer().status == 200
        else:
            assert wire.port in killed.clients
            assert wire.rest() == b""
        wire.file.close()
        wire.sock.close()
    eventually(replaced)
    gateway.wait_ready()
    for id in stored:
        assert gateway.get(id).body == id.encode()
    assert "Traceback" not in gateway.logs()
