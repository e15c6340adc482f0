"""What the benchmark measures and what it runs on: targets, containers and namespaces.

A `Target` answers on 127.0.0.1 inside a container's network namespace. Load enters that namespace:
wrk and nginx with nsenter, this script's own client with setns. So no published port and no
docker-proxy is measured, and no load leaves loopback. `Lab` starts it all under a label of its own
and takes it away again, however the run ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import hmac
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from processes import BenchError, container_cpu, process_cpu, process_of, run

HERE = Path(__file__).resolve().parent
# The nodes' image, where docker-compose.yml names it: what is measured is what people run.
COMPOSE = (HERE.parent / "docker-compose.yml").read_text()
MINIO = COMPOSE.partition("${OBJGW_NODE_IMAGE:-")[2].partition("}")[0]
LABEL, PREFIX = "objgw.bench", "objgwb"
IMAGE, OWN = "objgwb-gateway", "objgw"  # this gateway's image, and its name in the tables
BUCKET = "bench"  # on each node, public: what nginx and direct requests use
SOCKET = ("-v", "/var/run/docker.sock:/var/run/docker.sock")
BLOCK = 256 * 1024  # bytes that this script's own client sends and receives at a time
TIMEOUT = 60.0  # seconds that a target may be silent
LIBC = ctypes.CDLL(None, use_errno=True)
OWN_NETWORK = os.open("/proc/self/ns/net", os.O_RDONLY)
REFUSED = (OSError, http.client.HTTPException)


# --------------------------------------------------------------------------------------------------
# Targets and this script's own client
# --------------------------------------------------------------------------------------------------
def connect(pid: int, port: int, source: str = "") -> http.client.HTTPConnection:
    """A connection to 127.0.0.1:port in the network namespace of a process.

    It comes from the address `source`, where one is given. It can't be opened a second time.
    """
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        enter(theirs)
        try:
            sock = socket.socket()  # stays in the namespace that it was made in
        finally:
            enter(OWN_NETWORK)
    finally:
        os.close(theirs)
    sock.settimeout(TIMEOUT)
    if source:
        sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock, connection.auto_open = sock, 0
    return connection


def enter(namespace: int) -> None:
    """Moves this thread, and no other, into a network namespace."""
    if LIBC.setns(namespace, 0x40000000):  # CLONE_NEWNET
        raise BenchError(f"setns: {os.strerror(ctypes.get_errno())}")


@dataclass
class Target:
    """What is measured.

    `path` makes a request's path of method and id; `cpu` gives the CPU seconds used so far.
    """

    name: str
    pid: int
    port: int
    path: Callable[[str, str], str]
    cpu: Callable[[], float]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own; status and body."""
        with contextlib.closing(connect(self.pid, self.port)) as connection:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def store(self, object_id: str, size: int) -> None:
        """Stores an object; goes on trying for some time, since a gateway may not have found its
        nodes yet.
        """
        until = time.monotonic() + 30
        while True:
            try:
                status, text = self.ask("PUT", self.path("PUT", object_id), b"x" * size)
            except REFUSED as error:
                status, text = 0, repr(error).encode()
            if status in (200, 201, 204):
                return
            if time.monotonic() > until:
                raise BenchError(f"{self.name}: PUT {object_id}: {status} {text[:300]!r}")
            time.sleep(0.2)

    def upload(self, object_id: str, size: int, seconds: float = 0.0) -> float:
        """One stream, evenly over `seconds` or as fast as it goes; the MB/s until the answer."""
        with contextlib.closing(connect(self.pid, self.port)) as connection:
            begin = time.monotonic()
            body = (b"x" * count for count in paced(size, seconds))
            connection.request(
                "PUT", self.path("PUT", object_id), body, {"Content-Length": str(size)}
            )
            reply = connection.getresponse()
            reply.read()
        if reply.status not in (200, 201, 204):
            raise BenchError(f"{self.name}: PUT {object_id}: {reply.status}")
        return size / (time.monotonic() - begin) / 1e6

    def download(self, object_id: str, size: int, seconds: float = 0.0) -> float:
        """One stream, evenly over `seconds` or as fast as it goes, every byte counted; the MB/s."""
        with contextlib.closing(connect(self.pid, self.port)) as connection:
            begin, got, buffer = time.monotonic(), 0, memoryview(bytearray(BLOCK))
            connection.request("GET", self.path("GET", object_id))
            reply = connection.getresponse()
            for count in paced(size, seconds):
                while count and (received := reply.readinto(buffer[:count])):
                    got, count = got + received, count - received
            got += len(reply.read())
        if reply.status != 200 or got != size:
            raise BenchError(f"{self.name}: GET {object_id}: {reply.status}, {got} of {size} bytes")
        return size / (time.monotonic() - begin) / 1e6


def at_objects(name: str, pid: int, port: int = 3000) -> Target:
    """A target that has objects where this gateway has them."""
    return Target(
        name, pid, port, lambda _, object_id: f"/object/{object_id}", partial(container_cpu, pid)
    )


def owner(object_id: str, nodes: int) -> int:
    """The node, from 0, that owns an id before the first change of their names."""
    return int.from_bytes(hashlib.sha256(object_id.encode()).digest(), "big") % nodes


def paced(size: int, seconds: float) -> Iterator[int]:
    """The sizes of blocks that add up to `size`, none before its time."""
    begin = time.monotonic()
    for offset in range(0, size, BLOCK):
        if seconds:
            time.sleep(max(0.0, begin + seconds * offset / size - time.monotonic()))
        yield min(BLOCK, size - offset)


def eventually(what: str, condition: Callable[[], Any], seconds: float = 60) -> None:
    """Waits until the condition holds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(*REFUSED):
            if condition():
                return
        time.sleep(0.1)
    raise BenchError(f"{what} isn't ready after {seconds:.0f} s")


def side_by_side(calls: list[Callable[[], Any]], threads: int) -> list[Any]:
    """The results of the calls, in their order, with so many threads; a failure is a result too."""

    def result(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (*REFUSED, BenchError) as error:
            return error

    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(result, calls))
    finally:
        pool.shutdown(
            wait=False, cancel_futures=True
        )  # after Ctrl-C they end when their connections do


# --------------------------------------------------------------------------------------------------
# Requests to MinIO, signed (SigV4) for a node that is asked as 127.0.0.1:9000
# --------------------------------------------------------------------------------------------------
def access_key(node: int) -> str:
    return f"bench{node}"


def secret_key(node: int) -> str:
    return f"treepotato{node}"


def signature(
    node: int, stamp: str, method: str, path: str, query: str, headers: dict[str, str]
) -> str:
    """The signature of a request without a hash of its body."""
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(headers)}\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret_key(node)}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def presigned(node: int, method: str, path: str, more: str = "") -> str:
    """The path with its signature in the query, good for a day.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    credential = f"{access_key(node)}%2F{stamp[:8]}%2Fus-east-1%2Fs3%2Faws4_request"
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={stamp}"
    query += f"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host{more}"
    sign = signature(node, stamp, method, path, query, {"host": "127.0.0.1:9000"})
    return f"{path}?{query}&X-Amz-Signature={sign}"


def signed_headers(
    node: int, path: str, query: str, method: str = "GET", more: dict[str, str] | None = None
) -> dict[str, str]:
    """The headers of a signed request; MinIO's admin calls take no presigned ones.

    `more` headers have names that come after `x-amz-date` in the alphabet.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "host": "127.0.0.1:9000",
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": stamp,
        **(more or {}),
    }
    credential = f"{access_key(node)}/{stamp[:8]}/us-east-1/s3/aws4_request"
    sign = signature(node, stamp, method, path, query, headers)
    scheme = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(headers)}, "
        f"Signature={sign}"
    )
    return {**headers, "Authorization": scheme}


# --------------------------------------------------------------------------------------------------
# What is started
# --------------------------------------------------------------------------------------------------
class Lab:
    """Everything that a run has on this machine. Leaving it takes all of it away."""

    def __init__(self, marker: str) -> None:
        self.marker = marker  # a node's name is this and a number
        self.node_pids: list[int] = []
        self.nginx_processes: list[subprocess.Popen[bytes]] = []
        self.lock = os.open(f"{tempfile.gettempdir()}/{PREFIX}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError("another benchmark is running on this machine") from None

    def __enter__(self) -> Lab:
        self.sweep()  # what a killed run has left
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in self.nginx_processes:
            process.terminate()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.sweep()
        with contextlib.suppress(BenchError):
            run(
                "docker", "rmi", "--no-prune", IMAGE
            )  # the name only: its layers are the next build's cache

    def sweep(self) -> None:
        """Removes what has this benchmark's label, and nothing else."""
        self.node_pids.clear()
        found = run("docker", "ps", "-aq", "--filter", f"label={LABEL}").split()
        if found:
            run("docker", "rm", "-f", "-v", *found)
        found = run("docker", "network", "ls", "-q", "--filter", f"label={LABEL}").split()
        if found:
            run("docker", "network", "rm", *found)

    def network(self, name: str) -> str:
        """Makes a network; its full name."""
        run("docker", "network", "create", "--label", LABEL, f"{PREFIX}-{name}")
        return f"{PREFIX}-{name}"

    def container(self, name: str, network: str, *command: str) -> int:
        """Starts a container from options, image and arguments; the id of its first process.

        Without its health check, which would be measured as well.
        """
        labels = ("--name", name, "--label", LABEL, "--network", network, "--no-healthcheck")
        run("docker", "run", "-d", *labels, *command)
        pid = process_of(name)
        if not pid:
            raise BenchError(f"{name} has stopped; docker logs {name}")
        return pid

    def nodes(self, network: str, numbers: range, *options: str) -> list[Target]:
        """Starts nodes and waits for them; what a node is asked is presigned.

        `options` are more of `docker run`.
        """
        started = []
        for n in numbers:
            keys = (
                "-e",
                f"MINIO_ACCESS_KEY={access_key(n)}",
                "-e",
                f"MINIO_SECRET_KEY={secret_key(n)}",
            )
            name = f"{self.marker}-{n}"
            pid = self.container(name, network, *keys, *options, MINIO, "server", "/data")
            started.append(
                Target("direct", pid, 9000, partial(direct_path, n), partial(container_cpu, pid))
            )
            self.node_pids.append(pid)
        for node in started:
            eventually(
                "a node",
                partial(lambda node: node.ask("GET", "/minio/health/ready")[0] == 200, node),
            )
        return started

    def nodes_cpu(self) -> float:
        """CPU seconds of all nodes."""
        return sum(map(container_cpu, self.node_pids))

    def gateway(self, name: str, network: str, image: str, port: int, env: list[str]) -> Target:
        """Starts a gateway."""
        options = [word for each in env for word in ("-e", each)]
        pid = self.container(f"{PREFIX}-{name}", network, *options, *SOCKET, image)
        return at_objects(name, pid, port)

    def own(self, network: str, name: str = OWN) -> Target:
        """Starts this gateway as it comes, but for the name of its nodes."""
        return self.gateway(name, network, IMAGE, 3000, [f"OBJGW_NODE_NAME={self.marker}"])

    def app(self, name: str, network: str, module: str, *options: str) -> Target:
        """Starts another WSGI app of this folder in the gateway's image, with its settings and
        these of gunicorn.
        """
        mounts = ("-v", f"{HERE}/{module}.py:/srv/objgw/{module}.py:ro", *SOCKET)
        command = ("gunicorn", "-b", "0.0.0.0:3000", *options, f"{module}:app")
        env = ("-e", f"OBJGW_NODE_NAME={self.marker}")
        pid = self.container(f"{PREFIX}-{name}", network, *mounts, *env, IMAGE, *command)
        target = at_objects(name, pid)
        eventually(name, lambda: target.ask("GET", "/object/ready")[0] in (200, 404))
        return target

    def nginx(self, network: str, pid: int, numbers: Iterable[int]) -> tuple[Target, Target]:
        """Starts the machine's nginx in the network namespace of a process: before the first node,
        and before all.
        """
        address = '{{(index .NetworkSettings.Networks "' + network + '").IPAddress}}'
        servers = [
            f"server {run('docker', 'inspect', '-f', address, f'{self.marker}-{n}')}:9000;"
            for n in numbers
        ]
        folder = self.folder / f"nginx-{pid}"
        folder.mkdir()
        config = (HERE / "nginx.conf").read_text()
        for name, value in (
            ("FOLDER", str(folder)),
            ("ONE", servers[0]),
            ("ALL", " ".join(servers)),
        ):
            config = config.replace(name, value)
        (folder / "nginx.conf").write_text(config)
        files = ["-e", f"{folder}/nginx.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
        process = subprocess.Popen(["nsenter", "-t", str(pid), "-n", "nginx", *files])
        self.nginx_processes.append(process)
        one, all_nodes = (
            Target(
                name,
                pid,
                port,
                lambda _, object_id: f"/{BUCKET}/{object_id}",
                partial(process_cpu, process.pid),
            )
            for name, port in (("nginx", 3001), (f"nginx{len(servers)}", 3002))
        )
        eventually("nginx", lambda: one.ask("HEAD", "/")[0])
        return one, all_nodes


def direct_path(node: int, method: str, object_id: str) -> str:
    return presigned(node, method, f"/{BUCKET}/{object_id}")
