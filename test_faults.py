"""The gateway under fire: slow clients, nodes that hang, signals, bounds, privileges, tokens, the soak, the fuzzer.

Everything is a real container and a real socket. Where load is made, it's made by a script of bench/ on loopback, in
the network of the gateway's host (`Stack.add_host`). `FAKE_NODE` is a node that keeps count of what it got and answers,
closes or hangs as the id says; `BLACK_HOLE` is one that can't be connected to and doesn't say so.
"""

from __future__ import annotations

import http.client
import http.server
import io
import os
import re
import secrets
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from docker.models.containers import Container
from docker.types import Ulimit

from conftest import (
    BUCKET,
    CHECKOUT,
    DOCKER_SOCKET,
    Answer,
    Gateway,
    Lab,
    Stack,
    eventually,
    owner,
    random_id,
    read_in,
    together,
)
from fuzz import fuzz
from slow import slow
from soak import soak
from test_http import BROKEN, Wire, code, head, held_by, pattern, store

KIB, MIB = 1024, 1024 * 1024
COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())


class Timed(NamedTuple):
    answer: Answer
    seconds: float


def timed(request: Callable[[], Answer]) -> Timed:
    began = time.monotonic()
    answer = request()
    return Timed(answer, time.monotonic() - began)


def at_once(request: Callable[[], Answer], times: int) -> list[Timed]:
    """The same request so many times at once; the answers with the seconds that they took, the quickest first."""
    with ThreadPoolExecutor(times) as pool:
        done = [pool.submit(timed, request) for _ in range(times)]
        return sorted((each.result() for each in done), key=lambda each: each.seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Slow clients
# ---------------------------------------------------------------------------------------------------------------------
PATIENCE, SLACK = 2, 3  # seconds that a client has; seconds more within which it must be gone


@pytest.fixture(scope="module")
def hasty(shared: Stack) -> Gateway:
    """A gateway to the shared nodes that has little patience with clients."""
    gateway = shared.add_gateway({
        "OBJGW_CLIENT_TIMEOUT": str(PATIENCE), "GUNICORN_CMD_ARGS": f"--keep-alive {PATIENCE}"
    })  # fmt: skip
    gateway.wait_ready()
    return gateway


@contextmanager
def dripping(wire: Wire) -> Iterator[None]:
    """While the block runs, a byte a second goes out, for as long as the other side takes it."""
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not over.wait(1):
                wire.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


FRAMES = {"with a length": ("Content-Length: 1000000", b""), "chunked": ("Transfer-Encoding: chunked", b"f4240\r\n")}


def test_an_upload_that_comes_too_slowly_is_408_in_time_and_leaves_the_old_object(
    shared: Stack, hasty: Gateway
) -> None:
    cases = [(frame, begun, pace) for frame in FRAMES for begun in (0, 100_000) for pace in ("nothing", "a drip")]
    ids = [store(hasty, b"the old object") for _ in cases]

    def upload(frame: str, begun: int, pace: str, id: str) -> tuple[int, float]:
        header, first = FRAMES[frame]
        with Wire(hasty) as wire:
            began = time.monotonic()
            wire.send(head("PUT", id, header), first + bytes(begun))
            with dripping(wire) if pace == "a drip" else nullcontext():
                answer = wire.answer()
            seconds = time.monotonic() - began
            assert answer.headers["Connection"] == "close"
            assert wire.rest() == b""
            return code(answer), seconds

    with shared.steady(hasty, [shared.id_of(node) for node in shared.nodes]):
        ended = together(partial(upload, *case, id) for case, id in zip(cases, ids, strict=True))
    for case, (status, seconds) in zip(cases, ended, strict=True):
        assert status == 408, case
        assert PATIENCE - 0.1 < seconds < PATIENCE + SLACK, case
    assert [hasty.get(id).body for id in ids] == [b"the old object"] * len(ids)


def test_an_upload_that_is_slow_but_keeps_the_pace_is_stored(hasty: Gateway) -> None:
    id, body = random_id(), pattern(400_000)
    with Wire(hasty) as wire:
        wire.send(head("PUT", id, f"Content-Length: {len(body)}"))
        for at in range(0, len(body), 40_000):
            time.sleep(PATIENCE / 8)  # 64 KiB within a quarter of the time, and all of it not
            wire.send(body[at : at + 40_000])
        assert wire.answer().status == 200
    assert hasty.get(id).body == body


@pytest.mark.parametrize(
    "sent", [b"", b"GET /obj", head("GET", "abc", "X-A: b")[:-2]], ids=["nothing", "path", "headers"]
)
def test_headers_that_do_not_come_in_time_end_the_connection(hasty: Gateway, sent: bytes) -> None:
    began = time.monotonic()
    with Wire(hasty) as wire:
        wire.send(sent)
        with dripping(wire) if sent else nullcontext():
            assert wire.rest() == b""
        assert PATIENCE - 0.1 < time.monotonic() - began < PATIENCE + SLACK


def test_a_client_that_does_not_read_its_download_is_dropped_in_time(hasty: Gateway) -> None:
    size = 24 * MIB
    id = store(hasty, pattern(size))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect((hasty.address, 3000))
        port = sock.getsockname()[1]
        sock.sendall(head("GET", id))
        assert sock.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: port not in held_by(hasty))
        received = 0
        with suppress(ConnectionResetError):
            while data := sock.recv(MIB):
                received += len(data)
    assert received < size
    (line,) = eventually(lambda: re.findall(rf" GET {id} .* seconds=(\S+) .* broken off", hasty.logs()))
    assert PATIENCE - 0.1 < float(line) < PATIENCE + SLACK


def test_600_slow_clients_of_all_kinds_at_once_cost_20_normal_ones_no_request(stack: Stack) -> None:
    report = slow(stack, each=200, seconds=6, client_timeout=3)
    assert report["failed"] == report["failed in quiet"] == {}, report
    assert report["slow clients"] >= 550, report
    assert report["dropped"] > 200, report
    assert report["requests"] > 100, report
    assert report["workers replaced"] == 0
    assert not report["something stored"]


# ---------------------------------------------------------------------------------------------------------------------
# Nodes that accept and never answer, or can't be reached
# ---------------------------------------------------------------------------------------------------------------------
# Writes down what it has received to its end. On a connection that has served a request before, it closes instead of an
# answer to an id "unanswered…", and even before the body of "closed…". "hangs…" hangs until /tmp/well exists.
FAKE_NODE = r"""
import os, socketserver, time
log = os.open("/tmp/received", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        served = False
        while line := self.rfile.readline():
            method, path, _ = line.decode().split()
            id, length, expects, decides = path.rpartition("/")[2], 0, False, False
            while (header := self.rfile.readline().lower()) not in (b"\r\n", b""):
                if header.startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
                expects = expects or header.startswith(b"expect:")
                fails = path.startswith("/objgw-layout/") and header.startswith((b"if-match:", b"if-none-match:"))
                decides = decides or fails
            if decides:  # it keeps conditions, as it is asked when it is first seen
                self.wfile.write(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
                continue
            if served and id.startswith("closed"):
                return
            if expects:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.rfile.read(length)
            os.write(log, f"{method} {id}\n".encode())
            if served and id.startswith("unanswered"):
                return
            while id.startswith("hangs") and not os.path.exists("/tmp/well"):
                time.sleep(0.05)
            rest = b"204 No Content" if method == "DELETE" else b'200 OK\r\nETag: "0"\r\nContent-Length: 0'
            self.wfile.write(b"HTTP/1.1 " + rest + b"\r\n\r\n")
            served = True
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128
Server(("0.0.0.0", 9000), Handler).serve_forever()
"""
# One connection fills its queue. From then on Linux drops whatever wants to connect (tcp_abort_on_overflow is 0).
BLACK_HOLE = """
import socket, threading
server = socket.create_server(("0.0.0.0", 9000), backlog=0)
client = socket.create_connection(("127.0.0.1", 9000))
threading.Event().wait()
"""


def received(fake: Container) -> list[str]:
    """Method and id of each request that a FAKE_NODE has received to its end, that for the bucket aside."""
    return [line for line in read_in(fake, "cat", "/tmp/received").splitlines() if not line.endswith(f" {BUCKET}")]


class Beset(NamedTuple):
    """Two nodes, a fake one and a black hole, behind a gateway that waits some seconds."""

    stack: Stack
    gateway: Gateway
    fake: Container
    names: list[str]

    def id_of(self, name: str, prefix: str = "") -> str:
        return next(id for _ in iter(int, 1) if owner(id := prefix + secrets.token_hex(8), self.names) == name)

    @property
    def others(self) -> list[str]:
        """Ids of the nodes that work."""
        return [self.id_of(node.name) for node in self.stack.nodes]


NODE_TIMEOUT, CONNECT_TIMEOUT, BREAKER, WAITING = 5, 1, 3, 40


@pytest.fixture(scope="module")
def beset(lab: Lab) -> Iterator[Beset]:
    stack = Stack(lab)
    try:
        stack.add_nodes("12")
        fake, hole = stack.add_fake("3", FAKE_NODE), stack.add_fake("4", BLACK_HOLE)
        names = [*(node.name for node in stack.nodes), str(fake.name), str(hole.name)]
        gateway = stack.add_gateway({
            "OBJGW_NODE_TIMEOUT": str(NODE_TIMEOUT), "OBJGW_CONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
            "OBJGW_BREAKER_SECONDS": str(BREAKER), "OBJGW_NODE_REQUESTS": str(WAITING),
        })  # fmt: skip
        beset = Beset(stack, gateway, fake, names)
        gateway.wait_ready([*beset.others, beset.id_of(str(fake.name))])
        yield beset
    finally:
        stack.close()


def test_a_node_that_never_answers_is_waited_for_once_and_costs_other_ids_nothing(beset: Beset) -> None:
    gateway, id = beset.gateway, beset.id_of(str(beset.fake.name), "hangs")

    with beset.stack.steady(gateway, beset.others):
        answers = at_once(partial(gateway.get, id), 50)
        assert {code(each.answer) for each in answers} == {503}
        assert NODE_TIMEOUT - 0.1 < answers[-1].seconds < 2 * NODE_TIMEOUT - 0.1
        assert answers[50 - WAITING - 1].seconds < NODE_TIMEOUT - 0.5  # more than may wait are refused at once

        again = at_once(partial(gateway.get, id), 20)
        assert {code(each.answer) for each in again} == {503}
        assert again[-1].seconds < NODE_TIMEOUT - 0.5

        over, slow_ones = time.monotonic() + BREAKER + NODE_TIMEOUT, 0  # in which one request tries
        while time.monotonic() < over:
            slow_ones += sum(each.seconds > NODE_TIMEOUT - 0.1 for each in at_once(partial(gateway.get, id), 5))
        assert slow_ones == 1
        assert received(beset.fake).count(f"GET {id}") == WAITING + 1

        beset.fake.exec_run(["touch", "/tmp/well"])
        eventually(lambda: gateway.get(id).status == 200)


def test_a_hung_node_costs_one_time_out_and_once_well_no_slow_upload_keeps_others_from_it(beset: Beset) -> None:
    gateway, id = beset.gateway, beset.id_of(str(beset.fake.name), "hangs")
    beset.fake.exec_run(["touch", "/tmp/well"])
    eventually(lambda: gateway.get(id).status == 200)  # on a connection that is kept
    beset.fake.exec_run(["rm", "/tmp/well"])
    first = timed(lambda: gateway.get(id))
    assert first.answer.status == 503
    assert first.seconds < 2 * NODE_TIMEOUT - 0.1
    beset.fake.exec_run(["touch", "/tmp/well"])
    time.sleep(BREAKER)  # to ask would be to try
    with Wire(gateway) as wire:
        wire.send(head("PUT", id, "Content-Length: 1000000"), bytes(100_000))
        eventually(lambda: gateway.get(id).status == 200, within=10)  # while the upload waits
        wire.send(bytes(900_000))
        assert wire.answer().status == 200


def test_a_node_that_can_not_be_reached_is_tried_once_and_costs_other_ids_nothing(beset: Beset) -> None:
    gateway, id = beset.gateway, beset.id_of(beset.names[3])
    with beset.stack.steady(gateway, beset.others):
        eventually(lambda: timed(lambda: gateway.get(id)).seconds < CONNECT_TIMEOUT / 2)  # whatever came before
        eventually(lambda: timed(lambda: gateway.get(id)).seconds >= CONNECT_TIMEOUT)  # the one that tries
        answers = at_once(partial(gateway.get, id), 50)
        assert {code(each.answer) for each in answers} == {503}
        assert answers[-1].seconds < NODE_TIMEOUT
        for method in ("PUT", "DELETE", "HEAD"):
            assert gateway.request(method, f"/object/{id}", b"x" if method == "PUT" else None).status == 503


# ---------------------------------------------------------------------------------------------------------------------
# What is sent twice, and what never
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def with_fake(lab: Lab) -> Iterator[tuple[Gateway, Container]]:
    """A gateway whose one node is FAKE_NODE."""
    stack = Stack(lab)
    try:
        fake = stack.add_fake("1", FAKE_NODE)
        gateway = stack.add_gateway({"OBJGW_BREAKER_SECONDS": "0.001"})
        gateway.wait_ready(["good"])
        yield gateway, fake
    finally:
        stack.close()


SENT: dict[str, tuple[str, bytes | None, dict[str, str], bool]] = {  # method, body, headers, whether twice is the same
    "GET": ("GET", None, {}, True),
    "a range": ("GET", None, {"Range": "bytes=0-1"}, True),
    "HEAD": ("HEAD", None, {}, True),
    "DELETE": ("DELETE", None, {}, True),
    "PUT": ("PUT", b"whole", {}, True),
    "PUT of 64 KiB": ("PUT", bytes(64 * KIB), {}, True),
    "PUT of 64 KiB and a byte": ("PUT", bytes(64 * KIB + 1), {}, False),
    "PUT of 1 MiB": ("PUT", bytes(MIB), {}, False),
    "create": ("PUT", b"whole", {"If-None-Match": "*"}, False),
    "replace": ("PUT", b"whole", {"If-Match": '"0"'}, False),
}


def ask_on_a_kept_connection(gateway: Gateway, row: str, behaviour: str) -> tuple[int, str]:
    """The status that a request gets, and how FAKE_NODE writes it down."""
    method, body, headers, _ = SENT[row]
    id = f"{behaviour}{secrets.token_hex(6)}"
    assert gateway.get("good").status == 200
    return gateway.request(method, f"/object/{id}", body, headers).status, f"{method} {id}"


@pytest.mark.parametrize("row", SENT)
def test_a_request_that_a_node_has_read_is_sent_again_only_where_twice_is_the_same(
    with_fake: tuple[Gateway, Container], row: str
) -> None:
    gateway, fake = with_fake
    done = 204 if row == "DELETE" else 200
    for _ in range(5):
        status, line = ask_on_a_kept_connection(gateway, row, "unanswered")
        if (seen := (status, received(fake).count(line))) != (done, 1):
            break  # else the look at the node's record had the kept connection just then, and this was a new one
    assert seen == ((done, 2) if SENT[row][3] else (503, 1))


@pytest.mark.parametrize("row", [row for row in SENT if "PUT" in SENT[row]])
def test_an_upload_whose_kept_connection_was_closed_before_its_body_is_sent_on_another(
    with_fake: tuple[Gateway, Container], row: str
) -> None:
    gateway, fake = with_fake
    status, line = ask_on_a_kept_connection(gateway, row, "closed")
    assert (status, received(fake).count(line)) == (200, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------------------------------
@contextmanager
def under_way(gateway: Gateway, large: str, upload: str, go_on: threading.Event) -> Iterator[dict[str, Any]]:
    """An upload of 400,000 bytes to `upload` and a download of `large` that both stop half-way until `go_on`. When the
    block ends they have ended: `upload` is the status, `download` how many bytes came."""
    ended: dict[str, Any] = {}
    half = threading.Barrier(3)

    def send() -> None:
        def body() -> Iterator[bytes]:
            yield pattern(400_000)[:200_000]
            half.wait(20)
            go_on.wait(40)
            yield pattern(400_000)[200_000:]

        try:
            ended["upload"] = gateway.put(upload, body(), headers={"Content-Length": "400000"}).status
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


def test_sigterm_ends_what_is_under_way_refuses_what_is_new_and_the_next_gateway_goes_on(stack: Stack) -> None:
    stack.add_node("1")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"})
    gateway.wait_ready()
    large, upload, small = store(gateway, pattern(24 * MIB)), random_id(), store(gateway, b"small")
    go_on, outcomes = threading.Event(), list[Any]()

    def use() -> None:
        while not go_on.is_set():
            try:
                outcomes.append(gateway.get(small).status)
            except ConnectionRefusedError:
                return
            except BROKEN as error:
                outcomes.append(error)

    users = [threading.Thread(target=use) for _ in range(4)]
    with under_way(gateway, large, upload, go_on) as ended:
        for user in users:
            user.start()
        eventually(lambda: len(outcomes) > 20)
        gateway.container.kill("SIGTERM")
        eventually(gateway.refuses, within=20)
        assert ended == {}
        go_on.set()
    for user in users:
        user.join()
    assert ended == {"upload": 200, "download": 24 * MIB}
    assert gateway.container.wait(timeout=20)["StatusCode"] == 0
    # A connection that nobody had accepted when the port was closed is reset by the kernel.
    assert [each for each in outcomes if each != 200 and not isinstance(each, ConnectionResetError)] == []
    successor = stack.add_gateway()
    successor.wait_ready()
    assert successor.get(upload).body == pattern(400_000)


def test_what_is_not_done_within_the_time_to_stop_is_cut_and_leaves_the_old_object(stack: Stack) -> None:
    node = stack.add_node("1")
    # On a host, so that its network, and with it what it tells its clients, isn't gone together with it.
    gateway = stack.add_gateway({"GUNICORN_CMD_ARGS": "--graceful-timeout 2"}, beside=stack.add_host())
    gateway.wait_ready()
    large, upload, go_on = store(gateway, pattern(24 * MIB)), store(gateway, b"the old object"), threading.Event()
    with under_way(gateway, large, upload, go_on) as ended:
        gateway.container.kill("SIGTERM")
        assert gateway.container.wait(timeout=12)["StatusCode"] == 0
        go_on.set()
    assert isinstance(ended["upload"], BROKEN)
    assert ended["download"] < 24 * MIB
    assert node.client().get_object(BUCKET, upload).read() == b"the old object"


def test_a_worker_that_is_killed_takes_only_its_own_requests_along_and_is_replaced(shared: Stack) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2", "OBJGW_CLIENT_TIMEOUT": "300"})
    gateway.wait_ready()
    stored = [store(gateway, id.encode(), id) for id in (random_id() for _ in range(30))]
    before, wires = gateway.workers(), list[Wire]()
    while not all(worker.clients for worker in gateway.workers().values()):
        assert len(wires) < 60, "one worker takes all connections"
        for _ in range(4):
            wires.append(Wire(gateway))
            wires[-1].send(head("PUT", random_id(), "Content-Length: 8"), b"half")
        eventually(lambda: sum(len(worker.clients) for worker in gateway.workers().values()) == len(wires))
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


# ---------------------------------------------------------------------------------------------------------------------
# Bounds
# ---------------------------------------------------------------------------------------------------------------------
def test_connections_of_one_address_above_the_bound_are_503_and_leave_nothing_behind(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_CLIENT_CONNECTIONS": "20"})
    gateway.wait_ready()
    id = store(gateway)
    other = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', 3000); c.request('GET', '/object/{id}')"
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
    assert gateway.read("python", "-c", f"{other}; print(c.getresponse().status)") == "200\n"  # of another address
    for wire in wires:
        wire.send(head("GET", id))
        assert wire.answer().status == 200
        wire.file.close()
        wire.sock.close()
    eventually(lambda: gateway.get(id).status == 200)
    eventually(lambda: gateway.workers()[worker].descriptors <= before)  # idle ones to nodes: 20 seconds


def test_connections_may_be_more_than_the_files_that_the_container_begins_with(shared: Stack) -> None:
    gateway = shared.add_gateway(ulimits=[Ulimit(name="nofile", soft=64, hard=4096)])
    gateway.wait_ready()
    id = store(gateway)
    with ExitStack() as held:
        wires = [held.enter_context(Wire(gateway)) for _ in range(150)]
        for wire in wires:
            wire.send(head("GET", id))
            assert wire.answer().status == 200


# ---------------------------------------------------------------------------------------------------------------------
# Privileges
# ---------------------------------------------------------------------------------------------------------------------
SETUID, SETGID = 1 << 7, 1 << 6  # capabilities(7)


@pytest.fixture(scope="module")
def confined(shared: Stack) -> Gateway:
    """A gateway with all that docker-compose.yml says of privileges and limits."""
    service = COMPOSE["services"]["gateway-container"]
    names = ("read_only", "cap_drop", "cap_add", "security_opt", "mem_limit", "pids_limit")
    spool = shared.lab.docker.volumes.create(f"{shared.name}-spool", labels=shared.labels)
    targets = dict(volume.split(":") for volume in service["volumes"])
    gateway = shared.add_gateway(
        {"WEB_CONCURRENCY": "2"},
        volumes={
            str(spool.name): {"bind": targets["spool"], "mode": "rw"},
            DOCKER_SOCKET: {"bind": targets[DOCKER_SOCKET], "mode": "rw"},
        },
        **{name: service[name] for name in names},
    )
    gateway.wait_ready()
    return gateway


def test_all_processes_are_nobody_with_the_group_of_the_docker_socket_and_no_capability(confined: Gateway) -> None:
    processes = confined.processes()
    assert len(processes) == 3
    for process in processes.values():
        status = process.status
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].split() == [str(os.stat(DOCKER_SOCKET).st_gid)]
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert int(status["CapBnd"], 16) == SETUID | SETGID


def test_a_gateway_on_a_read_only_file_system_stores_uploads_without_a_length(confined: Gateway) -> None:
    id, body = random_id(), pattern(10 * MIB)
    assert confined.put(id, (body[at : at + MIB] for at in range(0, len(body), MIB))).status == 200
    assert confined.get(id).body == body
    writable = "import os; print([p for p in ('/', '/srv/objgw', '/etc', '/var', '/root') if os.access(p, os.W_OK)])"
    assert confined.read("python", "-c", writable) == "[]\n"


def test_memory_and_processes_are_limited(confined: Gateway) -> None:
    confined.container.reload()
    limits = confined.container.attrs["HostConfig"]
    assert 0 < limits["Memory"] <= 1024 * MIB
    assert 0 < limits["PidsLimit"] <= 256
    assert limits["ReadonlyRootfs"]
    assert not limits["Privileged"]


def test_compose_publishes_nothing_but_the_gateway_beyond_loopback() -> None:
    published = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    assert published.pop("gateway-container") == ["3000:3000"]
    ports = [port for ports in published.values() for port in ports]
    assert len(ports) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:9001", port) for port in ports)  # consoles


# ---------------------------------------------------------------------------------------------------------------------
# Docker behind a proxy that permits what discovery reads, and nothing else
# ---------------------------------------------------------------------------------------------------------------------
PERMITTED = re.compile(r"(/v1\.[0-9]+)?/(version|containers/json|containers/[0-9a-f]{64}/json)(\?.*)?")


class DockerProxy(http.server.ThreadingHTTPServer):
    """Docker over TCP for reading containers. `refused` is what else was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.permitted = 0
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
        body = response.read()
        engine.close()
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_docker_proxy_that_only_lists_and_inspects_containers_is_all_that_is_needed(stack: Stack) -> None:
    proxy = DockerProxy()
    stack.add_nodes("12")
    docker_host = f"tcp://{stack.tests_address()}:{proxy.server_port}"
    gateway = stack.add_gateway({"DOCKER_HOST": docker_host}, volumes={})
    gateway.wait_ready()
    for node in stack.nodes:
        id = store(gateway, b"before", stack.id_of(node))
        node.recreate(password=f"pass{secrets.token_hex(12)}", address=stack.new_address())
        eventually(lambda id=id: gateway.get(id).body == b"before")
        assert stack.holders(id) == [node]
    assert proxy.permitted > 0
    assert all(re.fullmatch(r"GET (/v1\.[0-9]+)?/info", refused) for refused in proxy.refused)  # what is no Swarm
    for process in gateway.processes().values():
        assert process.status["Uid"].split() == ["65534"] * 4
        assert process.status["Groups"].split() == []
    proxy.shutdown()
    proxy.server_close()


# ---------------------------------------------------------------------------------------------------------------------
# Tokens
# ---------------------------------------------------------------------------------------------------------------------
OLD, NEW, READER, FILED = (f"{name}-{secrets.token_urlsafe(24)}" for name in ("old", "new", "reader", "filed"))


@pytest.fixture(scope="module")
def guarded(shared: Stack) -> Gateway:
    """A gateway with two tokens in its environment, and two that may read in a file."""
    gateway = shared.add_gateway(
        {"OBJGW_TOKENS": f"{OLD} {NEW}", "OBJGW_READ_TOKENS_FILE": "/run/read-tokens"}, start=False
    )
    text, archive = f"{READER}\n{FILED}\n".encode(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        file = tarfile.TarInfo("read-tokens")
        file.size, file.mode = len(text), 0o444  # as Docker makes secrets
        tar.addfile(file, io.BytesIO(text))
    gateway.container.put_archive("/run", archive.getvalue())
    gateway.start()
    gateway.wait_up()
    eventually(lambda: all(allowed(gateway, "PUT", shared.id_of(node)) for node in shared.nodes))
    return gateway


def allowed(gateway: Gateway, method: str, id: str, authorization: str = f"Bearer {OLD}") -> bool:
    body = b"body" if method == "PUT" else None
    return gateway.request(method, f"/object/{id}", body, {"Authorization": authorization}).status < 300


AUTHORIZATIONS: dict[str, tuple[str | None, int, int]] = {  # what is sent, status of reading, of writing
    "none": (None, 401, 401),
    "empty": ("", 401, 401),
    "wrong": ("Bearer wrong", 401, 401),
    "too short": (f"Bearer {OLD[:-1]}", 401, 401),
    "too long": (f"Bearer {OLD}x", 401, 401),
    "two in one": (f"Bearer {OLD} {NEW}", 401, 401),
    "no token": ("Bearer", 401, 401),
    "no token but a blank": ("Bearer ", 401, 401),
    "no scheme": (OLD, 401, 401),
    "another scheme": (f"Basic {OLD}", 401, 401),
    "bytes that are no ASCII": ("Bearer \xe9\xff", 401, 401),
    "reads, from a file": (f"Bearer {READER}", 200, 403),
    "also reads, from a file": (f"Bearer {FILED}", 200, 403),
    "writes": (f"Bearer {OLD}", 200, 200),
    "also writes": (f"Bearer {NEW}", 200, 200),
    "scheme in lower case": (f"bearer {NEW}", 200, 200),
}


@pytest.mark.parametrize("row", AUTHORIZATIONS)
def test_a_token_permits_what_it_says_and_no_other_does(shared: Stack, guarded: Gateway, row: str) -> None:
    authorization, reading, writing = AUTHORIZATIONS[row]
    headers = {} if authorization is None else {"Authorization": authorization}
    id = random_id()
    assert allowed(guarded, "PUT", id)
    for method, expected in (("GET", reading), ("HEAD", reading), ("PUT", writing), ("DELETE", writing)):
        answer = guarded.request(method, f"/object/{id}", b"other" if method == "PUT" else None, headers)
        assert answer.status == (204 if method == "DELETE" and expected == 200 else expected), method
        if expected == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        if expected == 403:
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        if expected in (401, 403) and method != "HEAD":
            assert answer.problem["status"] == expected
    if writing != 200:
        assert shared.owner(id).client().get_object(BUCKET, id).read() == b"body"


@pytest.mark.parametrize("expect", [True, False], ids=["with Expect", "without Expect"])
@pytest.mark.parametrize("authorization", ["Bearer wrong", f"Bearer {READER}"], ids=["wrong", "reads"])
def test_the_body_of_an_upload_without_the_right_token_is_neither_asked_for_nor_relayed(
    shared: Stack, guarded: Gateway, expect: bool, authorization: str
) -> None:
    id = random_id()
    extra = ["Expect: 100-continue"] if expect else []
    with Wire(guarded) as wire:
        wire.send(head("PUT", id, f"Authorization: {authorization}", "Content-Length: 1000000", *extra))
        if not expect:
            wire.send(bytes(1_000_000))
        answer = wire.answer()
        assert code(answer) == (401 if "wrong" in authorization else 403)
        assert answer.headers["Connection"] == "close"
        assert wire.rest() == b""
    assert [call for call in shared.owner(id).calls() if call.key == id] == []


def test_no_token_is_in_the_log(guarded: Gateway) -> None:
    for token in (OLD, NEW, READER, FILED):
        guarded.get(random_id(), headers={"Authorization": f"Bearer {token}"})
        guarded.get(random_id(), headers={"Authorization": f"Bearer {token}x\0"})
    log = guarded.logs()
    assert "node" in log
    assert [token for token in (OLD, NEW, READER, FILED) if token in log] == []
    assert "no token is set" not in log


def test_without_tokens_everything_is_open_and_the_log_says_so(shared: Stack, gateway: Gateway) -> None:
    assert gateway.put(shared.id_of(shared.nodes[0]), headers={"Authorization": "Bearer any"}).status == 200
    assert "no token is set: whoever reaches the gateway may read and write" in gateway.logs()


def test_a_token_file_that_is_not_there_stops_the_start_with_one_line_that_names_it(stack: Stack) -> None:
    gateway = stack.add_gateway({"OBJGW_TOKENS_FILE": "/run/secrets/tokens"}, start=False)
    gateway.container.start()
    assert gateway.container.wait(timeout=20)["StatusCode"] != 0
    assert len([line for line in gateway.logs().splitlines() if "OBJGW_TOKENS_FILE" in line]) == 1
    assert "Traceback" not in gateway.logs()


# ---------------------------------------------------------------------------------------------------------------------
# All of it together
# ---------------------------------------------------------------------------------------------------------------------
def test_a_minute_of_faults_of_all_kinds_loses_nothing_and_mixes_nothing(stack: Stack) -> None:
    report = soak(stack, seconds=60, clients=16, seed=1)  # bench/soak.py takes others
    assert report["lost"] == report["wrong"] == 0, report
    assert report["acknowledged writes"] > 300, report
    assert report["objects read at the end"] >= 16 * 12, report
    assert report["faults"] >= 6, report
    assert report["end"]["descriptors of a worker"] <= report["begin"]["descriptors of a worker"] + 20, report


def test_5000_damaged_requests_make_no_5xx_and_cost_neither_a_worker_nor_memory(stack: Stack) -> None:
    host = stack.add_host()
    stack.add_nodes("123")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"}, beside=host)
    gateway.wait_ready()
    report = fuzz(gateway, requests=5000, seed=1)  # bench/fuzz.py takes others
    assert report["failures"] == [], report
