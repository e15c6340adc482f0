"""One gateway, a container of the image under test, and the answers that it gives.

Three checks hold for every answer and every gateway of every test: openapi.yaml has the answer, no
refusal shows a node's keys or address, and no log shows its secret key.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network

from tests.harness.contract import assert_in_contract
from tests.harness.engine import Lab, read_in, run_in
from tests.harness.node import Node
from tests.harness.processes import Process, Watch
from tests.harness.waiting import eventually, random_id, together


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
        """Tells the workers of a gateway apart: the beginning of each id that they give to
        requests.
        """
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
class Session:
    """A client's connection to a gateway."""

    gateway: Client
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
        assert_in_contract(method, path, answer.status, answer.headers)
        return answer


def history_in(document: Mapping[str, Any]) -> list[list[str]]:
    """The lists of names before the newest one, oldest first, by a layout's JSON."""
    history: list[list[str]] = document.get("steps", [[]])[0]
    return history


class ClientStack(Protocol):
    """What a client uses of the stack whose gateway it asks."""

    @property
    def secrets(self) -> set[str]: ...

    @property
    def nodes(self) -> Sequence[Any]: ...

    def id_of(self, node: Any) -> str: ...


class Client:
    """Requests to one gateway, wherever it runs."""

    stack: ClientStack
    address: str
    concurrency: int
    port: int = 3000

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
            return (
                sum(answered.issuperset((each, path) for path in paths) for each in workers)
                >= self.concurrency
            )

        eventually(asked)

    def refuses(self) -> bool:
        """Whether it takes no more connections."""
        with (
            suppress(ConnectionRefusedError),
            socket.create_connection((self.address, self.port), 1),
        ):
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
        """One request on a connection of its own; the path goes out as it is, an iterable body goes
        out chunked.
        """
        with self.session(timeout) as session:
            return session.request(method, path, body, headers)

    @contextmanager
    def session(self, timeout: float = 40) -> Iterator[Session]:
        """A connection that is kept from request to request."""
        connection = RawConnection(self.address, self.port, timeout=timeout)
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

    def delete(self, id: str, **options: Any) -> Answer:
        return self.request("DELETE", f"/object/{id}", **options)

    def assert_discreet(self, answer: Answer) -> None:
        text = str(answer.headers) + (
            answer.body.decode(errors="replace") if answer.status >= 400 else ""
        )
        shown = [
            secret
            for secret in tuple(self.stack.secrets)
            if re.search(rf"\b{re.escape(secret)}\b", text)
        ]
        assert not shown, f"{shown} in an answer: {text}"
        assert "Traceback" not in text


class GatewayStack(Protocol):
    """What a gateway uses of the stack that it is on."""

    lab: Lab
    labels: dict[str, str]
    secrets: set[str]
    nodes: list[Node]
    gateways: list[Gateway]
    history: list[list[str]]

    def owner(self, id: str) -> Node: ...

    def id_of(self, node: Node) -> str: ...


@dataclass(eq=False)
class Gateway(Client):
    """A gateway in a container."""

    stack: GatewayStack
    container: Container
    network: Network
    address: str = ""
    host: Container | None = None  # that has its network
    concurrency: int = 1  # workers that it's told to have
    port: int = 3000
    at: str = ""  # its address, where it has the host's network

    def __post_init__(self) -> None:
        self._watch = Watch(
            self.stack.lab, self.stack.labels, self.container, self.host or self.container
        )

    def start(self) -> None:
        self.container.start()
        self._find()

    def restart(self) -> None:
        self.container.restart(timeout=10)
        self._find()
        self.wait_up()

    def _find(self) -> None:
        if self.at:
            self.address = self.at
            return
        container = self.host or self.container
        container.reload()
        self.address = container.attrs["NetworkSettings"]["Networks"][self.network.name][
            "IPAddress"
        ]

    def reload(self) -> None:
        """Has gunicorn replace the workers, as docs/recipes.md says."""
        self.run("sh", "-c", "kill -HUP 1", user="65534")

    def run(self, *command: str, user: str = "root") -> None:
        """Runs a command in the gateway's container."""
        done: Any = self.container.exec_run(list(command), user=user)
        assert done.exit_code == 0, done.output

    def read(self, *command: str) -> str:
        """The output of a command in the gateway's container that only reads."""
        return read_in(self.container, *command, user="root")

    def processes(self) -> dict[int, Process]:
        """gunicorn's processes by their ids, the arbiter (1) before the workers."""

        found: dict[int, Process] = eventually(lambda: self._watch.look(self.address))
        return found

    def workers(self) -> dict[int, Process]:
        return {id: process for id, process in self.processes().items() if id != 1}

    def load(self, script: str, *arguments: object) -> dict[str, Any]:
        """What a script of bench/ prints, run on the gateway's host, so that its requests go over
        loopback.
        """
        assert self.host
        # what is read of an exec's own output may lack its end, see `read_in`
        file = f"/tmp/{random_id()}"
        command = [
            "sh",
            "-c",
            f'exec python "$@" >{file}',
            "sh",
            f"bench/{script}",
            "load",
            *map(str, arguments),
        ]
        done: Any = self.host.exec_run(command, demux=True)
        assert done.exit_code == 0, (done.output[1] or b"").decode()
        report: dict[str, Any] = json.loads(read_in(self.host, "cat", file))
        return report

    def logs(self, since: float | None = None) -> str:
        log: Any = self.container.logs(since=since)
        return bytes(log).decode(errors="replace")

    def lines(self, part: str) -> list[str]:
        """The log's lines with this part, once there is one: Docker's log lags behind."""
        found: list[str] = eventually(
            lambda: [line for line in self.logs().splitlines() if part in line]
        )
        return found

    def ctl(self, *arguments: str) -> Done:
        """objgwctl.py, run in the gateway's container."""
        done = Done(*run_in(self.container, "python", "objgwctl.py", *arguments, user="root"))
        shown = [
            node.name for node in self.stack.nodes if node.password in done.output + done.errors
        ]
        assert not shown, f"secret keys of {shown} in what objgwctl prints"
        assert "Traceback" not in done.errors, done.errors
        return done

    def ask_ctl(self, *arguments: str) -> Done:
        """A report of objgwctl.py, which only reads; asked for again where there is none yet."""

        def whole() -> Done:
            done = self.ctl(*arguments, "--json")
            assert done.report
            return done

        done: Done = eventually(whole)
        return done

    def layout(self) -> dict[str, Any]:
        """What `objgwctl.py nodes --json` says."""
        return self.ask_ctl("nodes").report

    def wait_layout(
        self, names: Iterable[str], settled: bool | None = None, within: float = 60
    ) -> None:
        """Until the layout has these names, and is settled or isn't.

        The stack knows by which lists of names its objects have owners then.
        """
        wanted = sorted(names)

        def there() -> bool:
            # objgwctl is a process in the container each time: it's asked when it may be so
            told = json.loads(self.request("GET", "/health").body)["layout"]
            assert told["names"] == wanted, told
            assert settled in (None, told["settled"]), told
            layout = self.layout()
            assert layout["names"] == wanted, layout
            assert settled in (None, layout["settled"]), layout
            self.stack.history = history_in(layout)
            return True

        eventually(there, within=within)

    def close(self) -> str:
        """The end of its log, for the report; asserts that no secret key is in it."""
        try:
            log = self.logs()
        except docker.errors.NotFound:
            return f"---- {self.container.name}: gone"
        shown = [node.name for node in self.stack.nodes if node.password in log]
        assert not shown, f"secret keys of {shown} in the log of {self.container.name}"
        return self._end_of(log)

    def condition(self, since: float) -> str:
        """What it has said since then (Unix time), and then the last requests."""
        with suppress(docker.errors.NotFound):
            return self._end_of(self.logs(since))
        return f"---- {self.container.name}: gone"

    def _end_of(self, log: str) -> str:
        for node in self.stack.nodes:
            log = log.replace(node.password, "(a secret key)")
        lines = log.splitlines()
        said = [line for line in lines if " objgw.access " not in line]
        asked = [line for line in lines if " objgw.access " in line]
        return "\n".join([f"---- {self.container.name}", *said[-60:], *asked[-20:]])

    def remove(self) -> None:
        """Remove the container, which others on the stack don't need any more."""
        self.stack.gateways.remove(self)
        self._watch.remove()
        try:
            print(self.close())
        finally:
            self.stack.lab.drop(self.container.remove, v=True, force=True)


def put_file(container: Container, path: str, text: bytes, mode: int = 0o644) -> None:
    """Writes a file of root's into a container, which needn't run."""
    folder, _, name = path.rpartition("/")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text), mode
        tar.addfile(info, io.BytesIO(text))
    assert container.put_archive(folder, archive.getvalue())
