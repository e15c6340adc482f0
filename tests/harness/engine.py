"""One run of the tests and its Docker engine: `Lab`, what it builds, counts and takes away again.

Every node reports each S3 request it gets to `Audit`, a webhook in this process; so a test knows
what reached which node, refused requests included. `DockerRelay` stands between a gateway and the
Docker socket and can refuse or hang.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from docker.models.containers import Container

from gateway.nodes.discovery import AGAIN_SECONDS
from tests.harness.networks import Networks
from tests.harness.waiting import alone, eventually, random_id, still_network, together

DOCKER_SOCKET = "/var/run/docker.sock"

BUCKET = "objgw"

LAYOUT_BUCKET = f"{BUCKET}-layout"  # where each node has its copy of the layout's record

OWNER, STACK = "objgw.test.owner", "objgw.test.stack"  # the labels

CHECKOUT = Path(__file__).parents[2]

# The nodes' image, where docker-compose.yml names it: what is tested is what people run.
COMPOSE = (CHECKOUT / "docker-compose.yml").read_text()

MINIO = COMPOSE.partition("${OBJGW_NODE_IMAGE:-")[2].partition("}")[0]


@dataclass(frozen=True)
class Call:
    """One S3 request that a node got: MinIO's name for it ("GetObject"), the object's key, its
    answer's status.

    Name and status are empty where the request ended before MinIO knew them.
    """

    api: str
    key: str
    status: int


class Audit(socketserver.ThreadingTCPServer):
    """The webhook that nodes send a record of each request to, each to the path /<its name>.

    Most records are never looked at, so what comes is kept as it is until somebody asks for it.
    """

    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self._lines: dict[str, list[bytes]] = {}
        self._records: dict[str, list[dict[str, Any]]] = {}  # those lines that were asked for
        self.looks: Counter[str] = Counter()  # requests for the layout's bucket, by the node's name
        super().__init__(("0.0.0.0", 0), AuditHandler)
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A node that was killed says nothing more: no error."""

    def add(self, name: str, lines: bytes) -> None:
        for line in lines.splitlines():
            if ABOUT_LAYOUT in line:  # which gateways look at all the time
                self.looks[name] += 1
            elif line.strip() and not ABOUT_USAGE.search(line):
                self._lines.setdefault(name, []).append(line)

    def has(self, name: str, text: str) -> bool:
        """Whether this text is in what the node has reported."""
        return any(text.encode() in line for line in reversed(self._lines.get(name, [])))

    def of(self, name: str) -> list[dict[str, Any]]:
        """What this node has reported, but for the layout's record."""
        records = self._records.setdefault(name, [])
        records += map(json.loads, self._lines.get(name, [])[len(records) :])
        return list(records)

    def forget(self, prefix: str) -> None:
        """Drop what nodes whose names begin so have reported."""
        for kept in (self._lines, self._records):
            for name in [name for name in list(kept) if name.startswith(prefix)]:
                del kept[name]


# What a record of a request for the layout's record has in it. Gateways look at that every second.
ABOUT_LAYOUT = f'"bucket":"{LAYOUT_BUCKET}"'.encode()
# The same of a question how full the node is, which gateways ask once a minute.
ABOUT_USAGE = re.compile(rb'"requestPath":"/minio/admin/v3/(storageinfo|datausageinfo)"')


class AuditHandler(socketserver.StreamRequestHandler):
    """Reads no more of HTTP than MinIO's client makes use of: http.server would cost more than the
    request that is told of.
    """

    server: Audit

    def handle(self) -> None:
        while first := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            self.server.add(first.split()[1][1:].decode(), self.rfile.read(length))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


# Seconds without a question to Docker after which none comes but by an event: readings follow one
# that was asked for, the last of them after the longest pause.
CALM_SECONDS = AGAIN_SECONDS[-1] + 2


class DockerRelay:
    """Relays TCP connections to the Docker socket.

    `close` refuses them, `hang` leaves them without an answer, `open` is as at the start.
    `connections` and `requests` count what came in; `delay` holds each request up, in seconds.
    Where `events` is False, it cuts each connection on which Docker's events are asked for. Through
    it no container has the label of a node: one that another test makes would be a node here, too,
    or its events have the list read.
    """

    def __init__(self) -> None:
        self.port, self.connections, self.requests, self.delay = 0, 0, 0, 0.0
        self.events = True
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._flows = threading.Event()
        self.open()

    def open(self) -> None:
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server(("0.0.0.0", self.port), backlog=64)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def hang(self) -> None:
        self._flows.clear()

    def close(self) -> None:
        if self._listener:
            sockets, self._sockets = [self._listener, *self._sockets], []
            self._listener = None
            for each in sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # wakes the threads that read from it
                each.close()
        self._flows.set()

    def calm(self, seconds: float = CALM_SECONDS) -> bool:
        """Whether nothing is asked for so many seconds."""
        before = self.requests
        time.sleep(seconds)
        return self.requests == before

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(DOCKER_SOCKET)
                self._sockets += [client, engine]
                threading.Thread(
                    target=self._pump, args=[client, engine, True], daemon=True
                ).start()
                threading.Thread(
                    target=self._pump, args=[engine, client, False], daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    self.requests += data.count(b" HTTP/1.1\r\n")
                    if not self.events and b"/events?" in data:
                        break
                    time.sleep(self.delay)
                self._flows.wait()
                sink.sendall(data.replace(b"objgw.node", b"objgw.none"))
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def own_container() -> str:
    """The id of the container that this process runs in; empty where there is none, or no Docker
    socket in it.
    """
    mounts = Path("/proc/self/mountinfo")  # Linux only
    own = re.search(r"/containers/([0-9a-f]{64})/", mounts.read_text()) if mounts.exists() else None
    return own[1] if own and Path(DOCKER_SOCKET).exists() else ""


def image_of(container: str) -> str:
    """The tag of the gateway's image of the tests that run in this container (its id)."""
    return f"objgw-test:{container[:12]}"


class Lab:
    """What all stacks share: the engine, the container that the tests run in, the gateway's image,
    the audit.
    """

    def __init__(self) -> None:
        self.container = own_container()
        if not self.container:
            pytest.exit("the tests run in a container: docker-compose run --rm tests", returncode=4)
        self.docker = docker.DockerClient(
            base_url=f"unix://{DOCKER_SOCKET}", timeout=120, max_pool_size=32
        )
        self.process = secrets.token_hex(4)
        self.labels = {OWNER: self.container}
        self.image = image_of(self.container)
        self.audit = Audit()
        self.networks = Networks(self.docker, self.container, self.labels, f"objgwt-{self.process}")
        self._stacks = 0

    def build(self) -> None:
        """Clean up, and make the gateway's image, unless another process of this run has."""
        with alone("image"):
            try:
                self.docker.images.get(self.image)
            except docker.errors.ImageNotFound:
                self.sweep_leftovers()
                self.docker.images.build(
                    path=str(CHECKOUT), target="gateway", tag=self.image, rm=True
                )

    @staticmethod
    def used() -> bool:
        """Whether this run has begun with containers: unit tests alone don't."""
        return Path("/tmp/objgw-test-image.lock").exists() and bool(own_container())

    def new_name(self) -> str:
        self._stacks += 1
        return f"objgwt-{self.process}-{self._stacks}"

    def sweep(self, label: str) -> None:
        """Remove all that has the label: stopped or running, whatever is attached to it."""
        wanted: dict[str, Any] = {"label": label}
        containers = self.docker.containers.list(all=True, filters=wanted, ignore_removed=True)
        together(
            partial(self.drop, container.remove, v=True, force=True) for container in containers
        )
        for network in self.docker.networks.list(filters=wanted):
            with still_network():
                self.drop(network.disconnect, self.container, force=True)
            self.drop(network.remove)
        for volume in self.docker.volumes.list(filters=wanted):
            self.drop(volume.remove)

    def sweep_leftovers(self) -> None:
        """Remove what earlier runs left when they were killed: their own container doesn't run any
        more.
        """
        wanted: dict[str, Any] = {"label": OWNER}
        things = [
            c.labels
            for c in self.docker.containers.list(all=True, filters=wanted, ignore_removed=True)
        ]
        things += [n.attrs["Labels"] for n in self.docker.networks.list(filters=wanted)]
        things += [v.attrs["Labels"] for v in self.docker.volumes.list(filters=wanted)]
        alive = {
            str(container.id) for container in self.docker.containers.list(ignore_removed=True)
        }
        for gone in {labels[OWNER] for labels in things} - alive:
            self.sweep(f"{OWNER}={gone}")
        tags = [tag for image in self.docker.images.list("objgw-test") for tag in image.tags]
        for tag in {tag for tag in tags if tag.startswith("objgw-test:")} - {
            image_of(id) for id in alive
        }:
            self.untag(tag)

    def clear(self) -> None:
        """Remove all that this run has made, in whichever process.

        A network goes only once its last container has gone. One that is left all the same is
        removed by the next run.
        """
        mine = f"{OWNER}={self.container}"

        def gone() -> bool:
            self.sweep(mine)
            return not self.docker.networks.list(filters={"label": mine})

        with suppress(AssertionError):
            eventually(gone, within=30)
        self.untag(self.image)

    def untag(self, image: str) -> None:
        """Remove the tag; the layers are the next build's cache."""
        self.drop(self.docker.images.remove, image, noprune=True)

    @staticmethod
    def drop(remove: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Call `remove`; what is gone already, or on its way (409, or 403 and 500 of a network), is
        fine.
        """
        with suppress(docker.errors.APIError):
            remove(*args, **options)


# Runs a command, and prints what it has printed, its exit code and two marks of the end.
KEEPING = """
"$@" >"$0.1" 2>"$0.2"
printf '\\n%s:whole\\n' $? >>"$0.1"
printf '\\n:whole\\n' >>"$0.2"
cat "$0.1"
cat "$0.2" >&2
"""


def run_in(container: Container, *command: str, user: str = "") -> tuple[int, str, str]:
    """The exit code of a command in a container, and what it prints.

    Files keep that meanwhile, because an engine under load can lose it, see `read_in`.
    """
    file, end = f"/tmp/{random_id()}", ":whole\n"
    ran: Any = container.exec_run(["sh", "-c", KEEPING, file, *command], user=user, demux=True)
    texts = []
    for number, stream in enumerate(ran.output, 1):
        text = (stream or b"").decode()
        if not text.endswith(end):
            kept = partial(read_in, container, "cat", f"{file}.{number}", user=user)
            text = eventually(
                lambda kept=kept: (found := kept()).endswith(end) and found, within=300
            )
        texts.append(text)
    output, _, code = texts[0].removesuffix(end).rpartition("\n")
    return int(code), output, texts[1].removesuffix(f"\n{end}")


def read_in(container: Container, *command: str, user: str = "") -> str:
    """What a command prints in a container. It only reads, and succeeds.

    It is run again where the end of its output is missing: an engine under load can lose that.
    https://github.com/moby/moby/issues/27289
    """

    end = ":whole\n"

    def whole() -> str:
        marked = ["sh", "-c", '"$@" && echo :whole', "sh", *command]
        done: Any = container.exec_run(marked, user=user, demux=True)
        output, errors = ((stream or b"").decode() for stream in done.output)
        assert done.exit_code == 0, f"{command}: {output}{errors}"
        assert output.endswith(end)
        return output

    return str(eventually(whole)).removesuffix(end)
