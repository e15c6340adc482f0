"""The harness of the tests: real MinIO containers, real gateways, and every fault that a test wants to see.

Strategy. pytest runs in a container that has the Docker socket. It builds the gateway's image from the checkout, makes
networks, attaches itself to them, and reaches everything by container address: no port is published, so nothing can
collide with a running stack. A `Stack` is a network with `Node`s (MinIO) and `Gateway`s on it.

A run is several processes beside each other (pytest-xdist): much of a test's time is waiting. Each has stacks of its
own; the image is one.

What a run leaves behind is nothing. Each container, network and volume has labels that say which stack it belongs to
and in which container its run lives. `sweep` removes by label: a stack's things when its fixture ends, a run's things
when all its processes have ended (failed, Ctrl-C and SIGTERM included), and at the start the things of runs whose own
container is gone. So two runs beside each other never touch each other's.

Every node reports each S3 request it gets to `Audit`, a webhook in this process; so a test knows what reached which
node, refused requests included. `DockerRelay` stands between a gateway and the Docker socket and can refuse or hang.

Waiting is always for a condition (`eventually`), never for a time. Two checks hold for every answer and every gateway
of every test, wherever they come from: no refusal shows a node's keys or address, and no log shows its secret key.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import http.server
import ipaddress
import itertools
import json
import re
import secrets
import signal
import socket
import string
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import minio
import pytest
import urllib3
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

DOCKER_SOCKET = "/var/run/docker.sock"
BUCKET = "objgw"
LAYOUT_BUCKET = f"{BUCKET}-layout"  # where each node has its copy of the layout's record
OWNER, STACK = "objgw.test.owner", "objgw.test.stack"  # the labels
CHECKOUT = Path(__file__).parent
# The nodes' image, where docker-compose.yml names it: what is tested is what people run.
COMPOSE = (CHECKOUT / "docker-compose.yml").read_text()
MINIO = COMPOSE.partition("${OBJGW_NODE_IMAGE:-")[2].partition("}")[0]


# ---------------------------------------------------------------------------------------------------------------------
# Small helpers, for tests too
# ---------------------------------------------------------------------------------------------------------------------
NOT_YET = (
    AssertionError,
    OSError,
    ValueError,  # an answer that isn't whole
    http.client.HTTPException,
    minio.error.MinioException,
    urllib3.exceptions.HTTPError,
)


def eventually(condition: Callable[..., Any], *args: Any, within: float = 60) -> Any:
    """The first true value of `condition(*args)`, asked again and again; AssertionError after `within` seconds without.

    NOT_YET of it is what is raised when the time is over.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            value, why = condition(*args), None
        except NOT_YET as error:
            value, why = None, error
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why or condition}") from why
        time.sleep(0.05)


def always(condition: Callable[..., Any], *args: Any, seconds: float) -> None:
    """Assert that `condition(*args)` holds all the time for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(*args)
        time.sleep(0.05)


def together(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of the calls, made at the same time (Docker takes most of a second for some)."""
    with ThreadPoolExecutor(8) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Runs the block while no other process of this run is in one of the same name."""
    with open(f"/tmp/objgw-test-{what}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def still_network() -> Iterator[None]:
    """While the block runs, no process of this run puts the tests' container on a network, or takes it off one.

    A browser would give up what it's asking for (ERR_NETWORK_CHANGED).
    """
    with alone("network"):
        yield


def random_id() -> str:
    """A good id that was never used before."""
    length = 8 + secrets.randbelow(25)
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def owner(id: str, names: Iterable[str]) -> str:
    """The node name that owns the id: written down here a second time, so that objgw.py can't change it unseen."""
    ordered = sorted(names)
    return ordered[int(hashlib.sha256(id.encode()).hexdigest(), 16) % len(ordered)]


# ---------------------------------------------------------------------------------------------------------------------
# Audit: what reached a node, told by the node itself
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """One S3 request that a node got: MinIO's name for it ("GetObject"), the object's key, its answer's status."""

    api: str
    key: str
    status: int


class Audit(http.server.ThreadingHTTPServer):
    """The webhook that nodes send a record of each request to, each to the path /<its name>."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self._records: dict[str, list[dict[str, Any]]] = {}
        super().__init__(("0.0.0.0", 0), AuditHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A node that was killed says nothing more: no error."""

    def add(self, name: str, record: dict[str, Any]) -> None:
        if record["api"].get("bucket") != LAYOUT_BUCKET:  # which gateways look at every second
            self._records.setdefault(name, []).append(record)

    def of(self, name: str) -> list[dict[str, Any]]:
        """What this node has reported, but for the layout's record."""
        return list(self._records.get(name, []))

    def forget(self, prefix: str) -> None:
        """Drop what nodes whose names begin so have reported."""
        for name in list(self._records):
            if name.startswith(prefix):
                del self._records[name]


class AuditHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Audit

    def do_POST(self) -> None:
        for line in self.rfile.read(int(self.headers["Content-Length"])).splitlines():
            if line.strip():
                self.server.add(self.path[1:], json.loads(line))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


# ---------------------------------------------------------------------------------------------------------------------
# DockerRelay: the Docker socket over TCP, with a tap
# ---------------------------------------------------------------------------------------------------------------------
class DockerRelay:
    """Relays TCP connections to the Docker socket. `close` refuses them, `hang` leaves them without an answer, `open`
    is as at the start. `connections` and `requests` count what came in; `delay` holds each request up, in seconds."""

    def __init__(self) -> None:
        self.port, self.connections, self.requests, self.delay = 0, 0, 0, 0.0
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

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(DOCKER_SOCKET)
                self._sockets += [client, engine]
                threading.Thread(target=self._pump, args=[client, engine, True], daemon=True).start()
                threading.Thread(target=self._pump, args=[engine, client, False], daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    self.requests += data.count(b" HTTP/1.1\r\n")
                    time.sleep(self.delay)
                self._flows.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


# ---------------------------------------------------------------------------------------------------------------------
# Lab: one run of the tests and its Docker engine
# ---------------------------------------------------------------------------------------------------------------------
def own_container() -> str:
    """The id of the container that this process runs in; empty where there is none, or no Docker socket in it."""
    own = re.search(r"/containers/([0-9a-f]{64})/", Path("/proc/self/mountinfo").read_text())
    return own[1] if own and Path(DOCKER_SOCKET).exists() else ""


def image_of(container: str) -> str:
    """The tag of the gateway's image of the tests that run in this container (its id)."""
    return f"objgw-test:{container[:12]}"


class Lab:
    """What all stacks share: the engine, the container that the tests run in, the gateway's image, the audit."""

    def __init__(self) -> None:
        self.container = own_container()
        if not self.container:
            pytest.exit("the tests run in a container: docker-compose run --rm tests", returncode=4)
        self.docker = docker.DockerClient(base_url=f"unix://{DOCKER_SOCKET}", timeout=120, max_pool_size=32)
        self.process = secrets.token_hex(4)
        self.labels = {OWNER: self.container}
        self.image = image_of(self.container)
        self.audit = Audit()
        self._stacks = 0

    def build(self) -> None:
        """Clean up, and make the gateway's image. For a second process of a run all of it is in the engine's cache."""
        with alone("image"):
            self.sweep_leftovers()
            self.docker.images.build(path=str(CHECKOUT), target="gateway", tag=self.image, rm=True)

    def new_name(self) -> str:
        self._stacks += 1
        return f"objgwt-{self.process}-{self._stacks}"

    def sweep(self, label: str) -> None:
        """Remove all that has the label: stopped or running, whatever is attached to it."""
        wanted: dict[str, Any] = {"label": label}
        containers = self.docker.containers.list(all=True, filters=wanted, ignore_removed=True)
        together(partial(self.drop, container.remove, v=True, force=True) for container in containers)
        for network in self.docker.networks.list(filters=wanted):
            with still_network():
                self.drop(network.disconnect, self.container, force=True)
            self.drop(network.remove)
        for volume in self.docker.volumes.list(filters=wanted):
            self.drop(volume.remove)

    def sweep_leftovers(self) -> None:
        """Remove what earlier runs left when they were killed: their own container doesn't run any more."""
        wanted: dict[str, Any] = {"label": OWNER}
        things = [c.labels for c in self.docker.containers.list(all=True, filters=wanted, ignore_removed=True)]
        things += [n.attrs["Labels"] for n in self.docker.networks.list(filters=wanted)]
        things += [v.attrs["Labels"] for v in self.docker.volumes.list(filters=wanted)]
        alive = {str(container.id) for container in self.docker.containers.list(ignore_removed=True)}
        for gone in {labels[OWNER] for labels in things} - alive:
            self.sweep(f"{OWNER}={gone}")
        tags = [tag for image in self.docker.images.list("objgw-test") for tag in image.tags]
        for tag in {tag for tag in tags if tag.startswith("objgw-test:")} - {image_of(id) for id in alive}:
            self.untag(tag)

    def clear(self) -> None:
        """Remove all that this run has made, in whichever process."""
        self.sweep(f"{OWNER}={self.container}")
        self.untag(self.image)

    def untag(self, image: str) -> None:
        """Remove the tag; the layers are the next build's cache."""
        self.drop(self.docker.images.remove, image, noprune=True)

    @staticmethod
    def drop(remove: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Call `remove`; what is gone already, or on its way (409, or 403 and 500 of a network), is fine."""
        with suppress(docker.errors.APIError):
            remove(*args, **options)


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


# ---------------------------------------------------------------------------------------------------------------------
# Node: one MinIO
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Node:
    """A MinIO container with a volume of its own: what happens to the container, the objects stay.

    `env` replaces the variables with the keys (MINIO_ROOT_USER, MINIO_ROOT_PASSWORD) that it's given otherwise;
    `entrypoint` is for a node that doesn't take its keys from them.
    """

    stack: Stack
    name: str
    network: Network
    user: str
    password: str
    env: Mapping[str, str] | None = None
    region: str = "us-east-1"
    entrypoint: list[str] | None = None
    container: Container = field(init=False)
    address: str = field(init=False, default="")

    def create(self, address: str | None = None, start: bool = True) -> None:
        """Make and start the container; returns when MinIO answers."""
        lab, stack, network = self.stack.lab, self.stack, str(self.network.name)
        keys = {"MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.password}
        hook = f"http://{stack.tests_address(self.network)}:{lab.audit.server_port}/{self.name}"
        lab.docker.volumes.create(self.name, labels=stack.labels)
        self.container = lab.docker.containers.create(
            MINIO,
            None if self.entrypoint else "server /data",
            entrypoint=self.entrypoint,
            name=self.name,
            labels=stack.labels,
            environment={
                **(keys if self.env is None else self.env),
                **({"MINIO_SITE_REGION": self.region} if self.region != "us-east-1" else {}),
                "MINIO_AUDIT_WEBHOOK_ENABLE_tests": "on",
                "MINIO_AUDIT_WEBHOOK_ENDPOINT_tests": hook,
            },
            volumes={self.name: {"bind": "/data", "mode": "rw"}},
            network=network,
            networking_config={network: lab.docker.api.create_endpoint_config(ipv4_address=address)},
            restart_policy={"Name": "on-failure"},  # of its own; Docker leaves alone what it was told to stop or kill
        )
        if start:
            self.start()

    def start(self) -> None:
        self.container.start()
        self.container.reload()
        self.address = self.container.attrs["NetworkSettings"]["Networks"][self.network.name]["IPAddress"]
        self.stack.secrets |= {self.user, self.password, self.address}
        self.wait_live()

    def wait_live(self) -> None:
        url = f"http://{self.address}:9000/minio/health/live"
        eventually(lambda: urllib.request.urlopen(url, timeout=2).status == 200, within=120)

    def stop(self) -> None:
        self.container.stop(timeout=3)

    def pause(self) -> None:
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()

    def remove(self) -> None:
        """Remove the container; the volume with the objects stays."""
        self.container.remove(v=True, force=True)

    def lose(self) -> None:
        """Remove the container and the volume with all that it holds."""
        self.remove()
        self.stack.lab.docker.volumes.get(self.name).remove()

    def recreate(self, user: str | None = None, password: str | None = None, address: str | None = None) -> None:
        """A new container of the same name; keys and address are as before where not given."""
        self.remove()
        self.user, self.password = user or self.user, password or self.password
        self.create(address or self.address)

    def condition(self) -> str:
        """How its container is, and what it printed last where that ended or was started again."""
        self.container.reload()
        state, restarts = self.container.attrs["State"], self.container.attrs["RestartCount"]
        told = f"---- {self.name}: {state['Status']}, started again {restarts} times"
        if state["Running"] and not restarts:
            return told
        log: Any = self.container.logs(tail=30)
        return f"{told}, exit code {state['ExitCode']}\n{bytes(log).decode(errors='replace')}"

    def client(self) -> minio.Minio:
        """A client for this node past the gateway; what it does isn't in `calls`."""
        client = minio.Minio(f"{self.address}:9000", self.user, self.password, secure=False, region=self.region)
        client.set_app_info("objgw-tests", "1")
        return client

    def ids(self, bucket: str = BUCKET) -> set[str]:
        """The ids that this node holds (in an unsettled layout, the markers of deleted ones too)."""
        try:
            return {str(entry.object_name) for entry in self.client().list_objects(bucket, recursive=True)}
        except minio.error.S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            return set()

    def calls(self) -> list[Call]:
        """What this node was asked since it was first made, by anybody but `client()`, refused requests included.

        The layout's record, which gateways look at every second, is left out.
        """
        mark = f"mark-{secrets.token_hex(8)}"  # records come in order: after this one, all before it are here
        self.client().bucket_exists(mark)
        audit = self.stack.lab.audit
        eventually(lambda: any(record["api"].get("bucket") == mark for record in audit.of(self.name)))
        return [
            Call(record["api"]["name"], record["api"].get("object", ""), record["api"]["statusCode"])
            for record in audit.of(self.name)
            if "objgw-tests" not in record.get("userAgent", "")
        ]


# ---------------------------------------------------------------------------------------------------------------------
# Gateway: the image under test
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body as problem details (RFC 9457), complete and of this very status."""
        assert self.headers["Content-Type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert set(document) >= {"type", "title", "status", "detail"}
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return document

    @property
    def worker(self) -> str:
        """Tells the workers of a gateway apart: the beginning of each id that they give to requests."""
        return str(self.headers["X-Request-Id"])[:8]


@dataclass(frozen=True)
class Done:
    """What a command has printed, and its exit code."""

    code: int
    output: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        """The output as JSON."""
        assert self.code in (0, 1), self
        document: dict[str, Any] = json.loads(self.output)
        return document


class RawConnection(http.client.HTTPConnection):
    """Sends the path as it's given, bytes of it that HTTP doesn't allow included (as Latin-1)."""

    def _validate_path(self, url: str) -> None:
        pass

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


@dataclass(frozen=True)
class Process:
    """A process of the gateway, told by /proc: the fields of its status, its open files, its clients' ports."""

    status: dict[str, str]
    descriptors: int
    clients: list[int]

    @property
    def memory(self) -> int:
        """Bytes in memory (VmRSS)."""
        return int(self.status["VmRSS"].split()[0]) * 1024


# What `Gateway.processes` runs. Neither it nor a health check is a child of process 1.
PROCESSES = r"""
import contextlib, json, os, pathlib
def links(folder):
    for each in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(each)
rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
ports = {f"socket:[{row[9]}]": int(row[2][-4:], 16) for row in rows if row[1].endswith(":0BB8") and row[3] == "01"}
found = {}
for folder in sorted(pathlib.Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
    try:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        files = list(links(folder))
    except OSError:
        continue
    if folder.name == "1" or status["PPid"] == "1":
        found[folder.name] = {
            "status": status, "descriptors": len(files), "clients": [ports[file] for file in files if file in ports]
        }
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Session:
    """A client's connection to a gateway."""

    gateway: Gateway
    connection: RawConnection

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; the path goes out as it is, an iterable body goes out chunked."""
        try:
            self.connection.request(method, path, body, headers or {})
            response = self.connection.getresponse()
            answer = Answer(response.status, response.msg, response.read())
        except BaseException:
            self.connection.close()  # the next request makes a new one
            raise
        self.gateway.assert_discreet(answer)
        return answer


@dataclass(eq=False)
class Gateway:
    stack: Stack
    container: Container
    network: Network
    address: str = ""
    host: Container | None = None  # that has its network
    concurrency: int = 1  # workers that it's told to have

    def start(self) -> None:
        self.container.start()
        self._find()

    def restart(self) -> None:
        self.container.restart(timeout=10)
        self._find()
        self.wait_up()

    def _find(self) -> None:
        container = self.host or self.container
        container.reload()
        self.address = container.attrs["NetworkSettings"]["Networks"][self.network.name]["IPAddress"]

    def wait_up(self) -> None:
        """Until it answers anything."""
        eventually(lambda: self.get("up").status, within=120)

    def wait_ready(self, ids: Iterable[str] | None = None) -> None:
        """Until each worker has answered for these ids (else for one of each node)."""
        wanted = set(ids or map(self.stack.id_of, self.stack.nodes))
        self.wait_workers([f"/object/{id}" for id in wanted], lambda answer: answer.status != 503)

    def wait_workers(self, paths: Sequence[str], good: Callable[[Answer], bool]) -> None:
        """Until each worker has given a good answer for each of the paths."""
        answered = set[tuple[str, str]]()

        def ask(path: str) -> None:
            answer = self.request("GET", path)
            if good(answer):
                answered.add((answer.worker, path))

        def asked() -> bool:
            together(partial(ask, path) for path in [*paths] * 2 * self.concurrency)
            workers = {worker for worker, _ in answered}
            return sum(answered.issuperset((each, path) for path in paths) for each in workers) >= self.concurrency

        eventually(asked)

    def refuses(self) -> bool:
        """Whether it takes no more connections."""
        with suppress(ConnectionRefusedError), socket.create_connection((self.address, 3000), 1):
            return False
        return True

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 40,
    ) -> Answer:
        """One request on a connection of its own; the path goes out as it is, an iterable body goes out chunked."""
        with self.session(timeout) as session:
            return session.request(method, path, body, headers)

    @contextmanager
    def session(self, timeout: float = 40) -> Iterator[Session]:
        """A connection that is kept from request to request."""
        connection = RawConnection(self.address, 3000, timeout=timeout)
        try:
            yield Session(self, connection)
        finally:
            connection.close()

    def get(self, id: str, **options: Any) -> Answer:
        return self.request("GET", f"/object/{id}", **options)

    def head(self, id: str, **options: Any) -> Answer:
        return self.request("HEAD", f"/object/{id}", **options)

    def put(self, id: str, body: bytes | Iterable[bytes] = b"", **options: Any) -> Answer:
        return self.request("PUT", f"/object/{id}", body, **options)

    def run(self, *command: str) -> None:
        """Runs a command in the gateway's container."""
        done: Any = self.container.exec_run(list(command), user="root")
        assert done.exit_code == 0, done.output

    def read(self, *command: str) -> str:
        """The output of a command in the gateway's container that only reads."""
        return read_in(self.container, *command, user="root")

    def processes(self) -> dict[int, Process]:
        """gunicorn's processes by their ids, the arbiter (1) before the workers."""

        def look() -> dict[int, Process]:
            # From a container beside it: within its own, what has changed its user can't be looked into.
            beside = self.stack.lab.docker.containers.run(
                "python:3.13-slim",
                ["python", "-c", PROCESSES],
                labels=self.stack.labels,
                pid_mode=f"container:{self.container.id}",
                network_mode=f"container:{(self.host or self.container).id}",
                cap_add=["SYS_PTRACE"],
                detach=True,
            )
            try:
                beside.wait()
                output: Any = beside.logs(stderr=False)
            finally:
                beside.remove(force=True)
            return {int(id): Process(**found) for id, found in json.loads(output).items()}

        found: dict[int, Process] = eventually(look)
        return found

    def workers(self) -> dict[int, Process]:
        return {id: process for id, process in self.processes().items() if id != 1}

    def load(self, script: str, *arguments: object) -> dict[str, Any]:
        """What a script of bench/ prints, run on the gateway's host, so that its requests go over loopback."""
        assert self.host
        file = f"/tmp/{random_id()}"  # what is read of an exec's own output may lack its end, see `read_in`
        command = ["sh", "-c", f'exec python "$@" >{file}', "sh", f"bench/{script}", "load", *map(str, arguments)]
        done: Any = self.host.exec_run(command, demux=True)
        assert done.exit_code == 0, (done.output[1] or b"").decode()
        report: dict[str, Any] = json.loads(read_in(self.host, "cat", file))
        return report

    def delete(self, id: str, **options: Any) -> Answer:
        return self.request("DELETE", f"/object/{id}", **options)

    def logs(self) -> str:
        log: Any = self.container.logs()
        return bytes(log).decode(errors="replace")

    def ctl(self, *arguments: str) -> Done:
        """objgwctl.py, run in the gateway's container."""
        ran: Any = self.container.exec_run(["python", "objgwctl.py", *arguments], user="root", demux=True)
        done = Done(ran.exit_code, *((stream or b"").decode() for stream in ran.output))
        shown = [node.name for node in self.stack.nodes if node.password in done.output + done.errors]
        assert not shown, f"secret keys of {shown} in what objgwctl prints"
        assert "Traceback" not in done.errors, done.errors
        return done

    def ask_ctl(self, *arguments: str) -> Done:
        """A report of objgwctl.py, which only reads; asked for again where it was lost, see `read_in`."""

        def whole() -> Done:
            done = self.ctl(*arguments, "--json")
            assert done.report
            return done

        done: Done = eventually(whole)
        return done

    def layout(self) -> dict[str, Any]:
        """What `objgwctl.py nodes --json` says."""
        return self.ask_ctl("nodes").report

    def wait_layout(self, names: Iterable[str], settled: bool | None = None, within: float = 20) -> None:
        """Until the layout has these names, and is settled or isn't."""
        wanted = sorted(names)

        def there() -> bool:
            layout = self.layout()
            assert layout["names"] == wanted, layout
            assert settled in (None, layout["settled"]), layout
            return True

        eventually(there, within=within)

    def assert_discreet(self, answer: Answer) -> None:
        text = str(answer.headers) + (answer.body.decode(errors="replace") if answer.status >= 400 else "")
        shown = [secret for secret in tuple(self.stack.secrets) if re.search(rf"\b{re.escape(secret)}\b", text)]
        assert not shown, f"{shown} in an answer: {text}"
        assert "Traceback" not in text

    def assert_discreet_log(self) -> None:
        """The end of the log, but for requests, goes to stdout, which pytest shows where a test failed."""
        with suppress(docker.errors.NotFound):
            log = self.logs()
            lines = [line for line in log.splitlines() if " objgw.access " not in line]
            print(f"---- {self.container.name}", *lines[-60:], sep="\n")
            assert not [node.name for node in self.stack.nodes if node.password in log], "a secret key in the log"

    def remove(self) -> None:
        """Remove the container, which others on the stack don't need any more."""
        self.stack.gateways.remove(self)
        try:
            self.assert_discreet_log()
        finally:
            self.stack.lab.drop(self.container.remove, v=True, force=True)


# ---------------------------------------------------------------------------------------------------------------------
# Stack: a network with nodes and gateways
# ---------------------------------------------------------------------------------------------------------------------
class Stack:
    """A network of its own, and what a test puts on it. `marker` is in the name of each node and of nothing else."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.name = lab, lab.new_name()
        self.marker = f"{self.name}-node"
        self.labels = lab.labels | {STACK: self.name}
        self.nodes: list[Node] = []
        self.gateways: list[Gateway] = []
        self.secrets: set[str] = set()
        self._relays: list[DockerRelay] = []
        self._networks: dict[str, str] = {}  # name → the tests' own address on it
        self._addresses, self._numbers = itertools.count(1000), itertools.count(1)
        self.network = self.add_network()

    def add_network(self) -> Network:
        """A bridge network that the tests are attached to, on a subnet that Docker chose."""
        name, networks = f"{self.name}-net-{len(self._networks) + 1}", self.lab.docker.networks

        def create() -> Network:
            # Docker gives fixed addresses only on a subnet that it was told: so it's told the one that it chose.
            free = networks.create(name, labels=self.labels)
            free.reload()
            subnet = free.attrs["IPAM"]["Config"][0]["Subnet"]
            free.remove()
            try:
                return networks.create(
                    name, labels=self.labels, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
                )
            except docker.errors.APIError as error:  # another run took it in between
                raise AssertionError("subnet taken") from error

        network: Network = eventually(create)
        with still_network():
            network.connect(self.lab.container)
        network.reload()
        mine = network.attrs["Containers"][self.lab.container]["IPv4Address"]
        self._networks[name] = mine.split("/")[0]
        return network

    def tests_address(self, network: Network | None = None) -> str:
        return self._networks[str((network or self.network).name)]

    def new_address(self) -> str:
        """An address on the stack's network that nothing had before."""
        subnet = ipaddress.ip_network(self.network.attrs["IPAM"]["Config"][0]["Subnet"])
        return str(subnet[next(self._addresses)])

    def add_node(
        self,
        suffix: str,
        user: str | None = None,
        password: str | None = None,
        env: Mapping[str, str] | None = None,
        region: str = "us-east-1",
        entrypoint: list[str] | None = None,
        address: str | None = None,
        network: Network | None = None,
        start: bool = True,
    ) -> Node:
        """A node that answers. One that is put on another network isn't counted among the stack's `nodes`."""
        user, password = user or f"user{secrets.token_hex(6)}", password or f"pass{secrets.token_hex(12)}"
        node = Node(self, f"{self.marker}-{suffix}", network or self.network, user, password, env, region, entrypoint)
        node.create(address or (None if network else self.new_address()), start)
        if not network:
            self.nodes.append(node)
        return node

    def add_nodes(self, suffixes: Iterable[str]) -> list[Node]:
        """Nodes that Docker lists, all of them, before the first one runs."""
        nodes = together(partial(self.add_node, suffix, start=False) for suffix in suffixes)
        together(node.start for node in nodes)
        self.nodes.sort(key=lambda node: node.name)
        return sorted(nodes, key=lambda node: node.name)

    def add_gateway(
        self,
        env: Mapping[str, str] | None = None,
        relay: DockerRelay | None = None,
        socket_at: str = DOCKER_SOCKET,
        networks: Sequence[Network] = (),
        start: bool = True,
        beside: Container | None = None,
        volumes: dict[str, dict[str, str]] | None = None,
        **options: Any,
    ) -> Gateway:
        """A gateway on the stack's network (or on others, or in the network of another container), started and
        answering.

        It has one worker, where `env` says nothing else: what one worker knows, another may learn a moment later; and
        no health check, which would start a Python every ten seconds in each of many.
        It finds Docker through `relay`, else through the socket, mounted at `socket_at` where `volumes` isn't given.
        """
        environment = {"OBJGW_NODE_NAME": self.marker, "WEB_CONCURRENCY": "1", **(env or {})}
        if relay:
            environment["DOCKER_HOST"] = f"tcp://{self.tests_address()}:{relay.port}"
        options = {"healthcheck": {"test": ["NONE"]}, **options}
        first, *others = networks or [self.network]
        container = self.lab.docker.containers.create(
            self.lab.image,
            name=f"{self.name}-gateway-{next(self._numbers)}",
            labels=self.labels,
            environment=environment,
            volumes={} if relay else {DOCKER_SOCKET: {"bind": socket_at, "mode": "rw"}} if volumes is None else volumes,
            **({"network_mode": f"container:{beside.id}"} if beside else {"network": first.name}),
            **options,
        )
        for network in others:
            network.connect(container)
        gateway = Gateway(self, container, first, host=beside, concurrency=int(environment["WEB_CONCURRENCY"]))
        self.gateways.append(gateway)
        if start:
            gateway.start()
            gateway.wait_up()
        return gateway

    def add_host(self) -> Container:
        """A container on the stack's network with the tests' image and checkout, which does nothing.

        A gateway beside it has its network, also after a restart: so what runs in it reaches the gateway on loopback.
        """
        return self.lab.docker.containers.run(
            self.lab.docker.containers.get(self.lab.container).attrs["Image"],
            ["sleep", "infinity"],
            name=f"{self.name}-host-{next(self._numbers)}",
            labels=self.labels,
            network=self.network.name,
            volumes_from=[self.lab.container],
            working_dir=str(CHECKOUT),
            healthcheck={"test": ["NONE"]},
            init=True,
            detach=True,
        )

    def add_fake(self, suffix: str, script: str) -> Container:
        """A container that is taken for a node and isn't MinIO: it runs a Python script."""
        return self.lab.docker.containers.run(
            "python:3.13-slim",
            ["python", "-u", "-c", script],
            name=f"{self.marker}-{suffix}",
            labels=self.labels,
            network=self.network.name,
            detach=True,
        )

    def add_relay(self) -> DockerRelay:
        self._relays.append(DockerRelay())
        return self._relays[-1]

    def owner(self, id: str) -> Node:
        """The node that the id belongs to."""
        name = owner(id, [node.name for node in self.nodes])
        return next(node for node in self.nodes if node.name == name)

    def id_of(self, node: Node) -> str:
        """A new id that belongs to this node."""
        return next(id for id in iter(random_id, None) if self.owner(id) is node)

    def holders(self, id: str) -> list[Node]:
        """The nodes that hold the id."""
        return [node for node in self.nodes if id in node.ids()]

    @contextmanager
    def steady(self, gateway: Gateway, ids: Iterable[str]) -> Iterator[None]:
        """While the block runs, these ids are read and written all the time, and each answer must be 200."""
        over, wrong, rounds = threading.Event(), list[tuple[str, Any]](), 0

        def use() -> None:
            nonlocal rounds
            while not over.wait(0.05):
                for id in ids:
                    try:
                        put, got = gateway.put(id, id.encode()), gateway.get(id)
                        wrong.extend((id, each) for each in (put, got) if each.status != 200)
                        assert got.body == id.encode()
                    except Exception as error:
                        wrong.append((id, error))
                rounds += 1

        thread = threading.Thread(target=use)
        thread.start()
        try:
            yield
            before = rounds
            eventually(lambda: rounds > before + 1, within=60)
        finally:
            over.set()
            thread.join()
        assert not wrong, f"{len(wrong)} wrong answers for ids that have nothing to do with it, first {wrong[0]}"

    def close(self) -> None:
        """Remove it all. What pytest shows where a test failed goes to stdout: the gateways' logs, how each node is."""
        try:
            for gateway in self.gateways:
                gateway.assert_discreet_log()
            for node in self.nodes:
                with suppress(docker.errors.APIError):
                    print(node.condition())
        finally:
            for relay in self._relays:
                relay.close()
            self.lab.sweep(f"{STACK}={self.name}")
            self.lab.audit.forget(self.marker)


# ---------------------------------------------------------------------------------------------------------------------
# Fixtures
# ---------------------------------------------------------------------------------------------------------------------
def pytest_configure() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)  # so that `docker stop` cleans up as Ctrl-C does


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests whose fixture takes longest: of a process's tests, those at the end may become another's."""
    items.sort(key=lambda item: item.path.name != "test_swarm.py")


def pytest_unconfigure(config: pytest.Config) -> None:
    """At the end of a run, in the process that has started the others, after they have ended."""
    if not hasattr(config, "workerinput") and own_container():
        Lab().clear()


@pytest.fixture(scope="session")
def lab() -> Lab:
    lab = Lab()
    lab.build()
    return lab


SHARED: list[Stack] = []  # the stacks that many tests use


@contextmanager
def own_gateways() -> Iterator[None]:
    """Removes the gateways that were added to shared stacks while the block ran, but for the first of a stack."""
    before = {gateway for stack in SHARED for gateway in stack.gateways}
    yield
    for stack in SHARED:
        for gateway in stack.gateways[1:]:
            if gateway not in before:
                gateway.remove()


@pytest.fixture(scope="module", autouse=True)
def gateways_of_a_module() -> Iterator[None]:
    with own_gateways():
        yield


@pytest.fixture(autouse=True)
def gateways_of_a_test() -> Iterator[None]:
    with own_gateways():
        yield


@pytest.fixture(scope="session")
def shared(lab: Lab) -> Iterator[Stack]:
    """Three nodes and a gateway with two workers, for all tests that leave them as they were."""
    stack = Stack(lab)
    SHARED.append(stack)
    try:
        stack.add_nodes("123")
        stack.add_gateway({"WEB_CONCURRENCY": "2"}).wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def gateway(shared: Stack) -> Gateway:
    """The gateway of the shared stack."""
    return shared.gateways[0]


@pytest.fixture(scope="module")
def landmark(shared: Stack) -> tuple[str, bytes]:
    """An object that is there all the time: its id and its bytes."""
    id, body = random_id(), b"what only a GET of the landmark brings"
    assert shared.gateways[0].put(id, body).status == 200
    return id, body


@pytest.fixture
def stack(lab: Lab) -> Iterator[Stack]:
    """An empty stack of the test's own, for what can't be undone."""
    stack = Stack(lab)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def faulty_stack(lab: Lab) -> Iterator[Stack]:
    stack = Stack(lab)
    SHARED.append(stack)
    try:
        stack.add_nodes("123")
        stack.add_gateway().wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def faulty(faulty_stack: Stack) -> Iterator[Stack]:
    """Three nodes and a gateway, for faults that can be undone: they are, after each test."""
    yield faulty_stack
    for node in faulty_stack.nodes:
        try:
            node.container.reload()
        except docker.errors.NotFound:
            node.create(node.address)
        if node.container.status == "paused":
            node.unpause()
        elif node.container.status != "running":
            node.start()
    faulty_stack.gateways[0].wait_ready()
