#!/usr/bin/env python3
"""The soak: random requests with a model of what must be there, while everything around the gateway
fails.

    bench/soak.py --minutes 10      # as root; needs Docker and docker-compose, and runs in the tests' container

Strategy. `load` is the clients: threads that PUT, GET, DELETE and read ranges over loopback, each
with ids of its own, so that the model of an id is exact: the versions that it may have. An
acknowledged write leaves one; one that was not acknowledged adds its own, and may still take effect
for SETTLED seconds, for which the id is only read. Some ids are everybody's: a read of those must
bring one whole version that somebody wrote. A version's bytes are known from id and version alone,
and begin with both, so that another's object, a stretch of another version, or a wrong place shows.
At the end each id is read until it is answered.

`Faults` does the rest at the same time: it stops, kills and pauses nodes and makes them anew as
Compose does, with new keys and addresses; it closes Docker and has it hang; it kills workers, and
stops and kills the gateway. `soak` is both together. The short form of it is a test in
tests/stack/test_soak.py.

*lost* counts reads that lack an acknowledged write, *wrong* reads that brought what nobody wrote
there.
"""  # noqa: E501

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from inside import in_tests_container

if TYPE_CHECKING:
    from tests.harness.engine import DockerRelay
    from tests.harness.gateway import Gateway
    from tests.harness.node import Node
    from tests.harness.stack import Stack

KIB, MIB = 1024, 1024 * 1024
SETTLED = (
    20.0  # seconds after which a write that wasn't acknowledged has taken effect, or never will
)
IDLE = 60.0  # seconds after which connections that nobody uses are closed, on both sides
SPARE = 20  # descriptors that a worker may have more at the end
PATIENCE = 90.0  # seconds that a read at the end may be refused
LONGEST = 5  # times as long as wanted a soak may take, until there was enough of what it is about
OWN_IDS, SHARED_IDS = 12, 4  # of each client; of all
SIZES = (
    (0, 0, 6),
    (1, 4 * KIB, 60),
    (4 * KIB, 256 * KIB, 24),
    (256 * KIB, 2 * MIB, 8),
    (8 * MIB, 8 * MIB, 2),
)
KINDS = {"PUT": 38, "GET": 32, "RANGE": 14, "HEAD": 6, "DELETE": 10}
REFUSED = (502, 503)  # what a fault may make of a request
BROKEN = (OSError, http.client.HTTPException)


# --------------------------------------------------------------------------------------------------
# The model
# --------------------------------------------------------------------------------------------------
POOL = random.Random(0).randbytes(16 * MIB)
ABSENT = 0  # the version of an object that isn't there
new_version = itertools.count(1).__next__


def content(id: str, version: int, size: int) -> bytes:
    """The bytes of a version of an object.

    No two versions have an equal stretch at the same place.
    """
    name = f"{id} {version} {size}\n".encode()[:size]
    start = int.from_bytes(hashlib.sha256(name).digest()[:4]) % (len(POOL) - size)
    return name + POOL[start : start + size - len(name)]


@dataclass
class Model:
    """What is known of an object that one client writes."""

    id: str
    sizes: dict[int, int] = field(
        default_factory=lambda: {ABSENT: 0}
    )  # of each version that was ever sent
    possible: set[int] = field(default_factory=lambda: {ABSENT})
    pending: int = ABSENT  # what was sent last without being acknowledged
    settled: float = 0.0  # monotonic time until which that may take effect

    def acknowledged(self, version: int) -> None:
        self.possible = {version}

    def unacknowledged(self, version: int) -> None:
        self.possible.add(version)
        self.pending, self.settled = version, time.monotonic() + SETTLED

    @property
    def writable(self) -> bool:
        return time.monotonic() >= self.settled

    def seen(self, version: int) -> bool:
        """Takes note of a version that was read; whether it is one that may be there."""
        if version not in self.possible:
            return False
        self.possible = {version} if self.writable else {version, self.pending}
        return True


@dataclass
class Shared:
    """An object that all write and nobody deletes."""

    id: str
    sizes: dict[int, int] = field(default_factory=dict)
    stored: bool = False  # a write was acknowledged


# --------------------------------------------------------------------------------------------------
# The clients
# --------------------------------------------------------------------------------------------------
@dataclass
class Tally:
    """What all clients saw."""

    requests: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    checked: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {
            "requests": dict(sorted(self.requests.items())),
            "acknowledged writes": self.acknowledged,
            "objects read at the end": self.checked,
            "lost": len(self.lost),
            "wrong": len(self.wrong),
            "first of them": [*self.lost[:5], *self.wrong[:5]],
        }


@dataclass
class Read:
    """An answer to GET or HEAD: a version, or ABSENT; its bytes from `start` on, or
    None for HEAD.
    """

    version: int
    start: int
    total: int
    body: bytes | None


class Client:
    """One client: a connection and ids of its own."""

    def __init__(
        self,
        number: int,
        port: int,
        seed: int,
        shared: list[Shared],
        tally: Tally,
        pause: float = 0.0,
    ) -> None:
        """`pause` is how long it waits after a request, in seconds, on average."""
        self.random = random.Random(f"{seed}-{number}")
        self.name = f"s{seed:x}c{number}i"
        self.own = [Model(f"{self.name}{n}") for n in range(OWN_IDS)]
        self.shared, self.tally, self.port, self.pause = shared, tally, port, pause
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def run(self, over: Callable[[], bool]) -> None:
        while not over():
            time.sleep(self.random.uniform(0, 2 * self.pause))
            kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
            if self.random.random() < 0.1:
                self.use_shared(kind, self.random.choice(self.shared))
            else:
                self.use_own(kind, self.random.choice(self.own))

    def use_own(self, kind: str, model: Model) -> None:
        if kind == "PUT" and model.writable:
            version = self.new(model.sizes)
            acknowledged = self.put(model.id, version, model.sizes[version]) == 200
        elif kind == "DELETE" and model.writable:
            version, acknowledged = ABSENT, self.ask("DELETE", model.id)[0] == 204
        else:
            self.check(model, self.read(kind, model.id, max(model.sizes.values())))
            return
        if acknowledged:
            model.acknowledged(version)
            self.tally.acknowledged += 1
        else:
            model.unacknowledged(version)

    def use_shared(self, kind: str, shared: Shared) -> None:
        if kind == "PUT":
            version = self.new(shared.sizes)
            shared.stored |= self.put(shared.id, version, shared.sizes[version]) == 200
            return
        stored = shared.stored
        read = self.read(kind, shared.id, 256 * KIB)
        if read and read.version == ABSENT:
            if stored:
                self.tally.lost.append(f"{shared.id}: 404")
        elif read:
            self.compare(shared.id, shared.sizes, read)

    def new(self, sizes: dict[int, int]) -> int:
        """A new version, of some size."""
        low, high, _ = self.random.choices(SIZES, [weight for _, _, weight in SIZES])[0]
        version = new_version()
        sizes[version] = self.random.randint(low, high)
        return version

    def put(self, id: str, version: int, size: int) -> int:
        body: Any = content(id, version, size)
        headers = {"Content-Type": f"application/x-v{version}"}
        if self.random.random() < 0.2:  # without a length
            body = iter([body[at : at + 50_000] for at in range(0, size, 50_000)])
        return self.ask("PUT", id, body, headers)[0]

    def read(self, kind: str, id: str, size: int) -> Read | None:
        """What is there, or None where the gateway can't tell."""
        headers, start = {}, 0
        if kind == "RANGE":
            start = self.random.randint(0, size)
            headers["Range"] = f"bytes={start}-{start + self.random.randint(0, size)}"
        method = "HEAD" if kind == "HEAD" else "GET"
        status, answer, body = self.ask(method, id, headers=headers)
        if status == 404:
            return Read(ABSENT, 0, 0, None)
        if status not in (200, 206):
            return None
        version = int(answer["Content-Type"].removeprefix("application/x-v"))
        if status == 206:
            start, total = (
                int(answer["Content-Range"].split()[1].split("-")[0]),
                answer["Content-Range"].split("/")[1],
            )
        else:
            start, total = 0, answer["Content-Length"]
        return Read(version, start, int(total), None if method == "HEAD" else body)

    def check(self, model: Model, read: Read | None) -> None:
        """Whether a read of an own object brought what must be there."""
        if read and self.compare(model.id, model.sizes, read):
            expected = set(model.possible)
            if not model.seen(read.version):
                self.tally.lost.append(
                    f"{model.id}: {read.version} where {sorted(expected)} may be"
                )

    def compare(self, id: str, sizes: dict[int, int], read: Read) -> bool:
        """Whether all that was read is of one version that somebody wrote there."""
        size = sizes.get(read.version)
        good = size == read.total
        if good and size is not None and read.body is not None:
            whole = content(id, read.version, size)
            good = read.body == whole[read.start : read.start + len(read.body)]
        if not good:
            self.tally.wrong.append(
                f"{id}: {read.version}, {read.total} bytes, {(read.body or b'')[:60]!r}"
            )
        return good

    def ask(
        self, method: str, id: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body; the status is 0 where the connection breaks."""
        try:
            self.connection.request(method, f"/object/{id}", body, headers or {})
            response = self.connection.getresponse()
            answer = response.status, response.msg, response.read()
        except BROKEN as error:
            self.connection.close()
            refused = isinstance(error, ConnectionRefusedError)
            self.tally.requests[f"{method} {'refused' if refused else 'broken'}"] += 1
            time.sleep(0.02)
            return 0, http.client.HTTPMessage(), b""
        self.tally.requests[f"{method} {answer[0]}"] += 1
        if answer[0] in REFUSED:
            time.sleep(0.02)
        elif answer[0] not in (200, 204, 206, 404, 416):
            self.tally.wrong.append(f"{method} {id}: {answer[0]} {answer[2][:200]!r}")
        return answer

    def read_back(self) -> None:
        """Reads each own object until it is answered."""
        for model in self.own:
            until = time.monotonic() + PATIENCE
            while (read := self.read("GET", model.id, 0)) is None and time.monotonic() < until:
                time.sleep(0.2)
            self.tally.checked += 1
            if read is None:
                self.tally.lost.append(f"{model.id} isn't answered")
            self.check(model, read)


def load(
    seconds: float, clients: int, seed: int, port: int, writes: int = 0, pause: float = 0.0
) -> dict[str, Any]:
    """Runs the clients, until so many writes were acknowledged at least; what they saw."""
    tally = Tally()
    shared = [Shared(f"s{seed:x}shared{n}") for n in range(SHARED_IDS)]
    all_clients = [Client(n, port, seed, shared, tally, pause) for n in range(clients)]
    began = time.monotonic()

    def over() -> bool:
        took = time.monotonic() - began
        return took > LONGEST * seconds or (took > seconds and tally.acknowledged >= writes)

    in_threads([partial(client.run, over) for client in all_clients])
    in_threads([client.read_back for client in all_clients])
    for each in shared:
        all_clients[0].use_shared("GET", each)
    return tally.report()


def in_threads(calls: list[Callable[[], None]]) -> None:
    """Makes the calls at the same time. Raises what the first of them that failed has raised."""
    failures: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# --------------------------------------------------------------------------------------------------
# The faults
# --------------------------------------------------------------------------------------------------
class Faults:
    """Makes one fault of a node and one of the gateway or of Docker at a time, until it is told to
    stop.
    """

    def __init__(self, stack: Stack, gateway: Gateway, relay: DockerRelay, seed: int) -> None:
        self.stack, self.gateway, self.relay = stack, gateway, relay
        self.random = random.Random(seed)
        self.over = threading.Event()
        self.made: Counter[str] = Counter()
        self.most: dict[str, float] = {}

    def of_nodes(self) -> None:
        kinds = {
            "node stopped": self.stop, "node killed": self.kill, "node paused": self.pause,
            "node made anew": self.anew
        }  # fmt: skip
        for kind in self.rounds(list(kinds)):
            kinds[kind](self.random.choice(self.stack.nodes))

    def of_the_gateway(self) -> None:
        kinds = {
            "Docker closed": self.close_docker,
            "Docker hung": self.hang_docker,
            "worker killed": self.kill_worker,
            "gateway stopped": self.restart,
            "gateway killed": self.kill_gateway,
        }
        for kind in self.rounds(list(kinds)):
            self.sample()
            kinds[kind]()

    def rounds(self, kinds: list[str]) -> Iterator[str]:
        """One kind after the other, in an order that changes, with a pause after each."""
        while True:
            for kind in self.random.sample(kinds, len(kinds)):
                if self.over.wait(self.random.uniform(1, 3)):
                    return
                yield kind
                self.made[kind] += 1

    def wait(self) -> None:
        self.over.wait(self.random.uniform(0.5, 4))

    def stop(self, node: Node) -> None:
        node.stop()
        self.wait()
        node.start()

    def kill(self, node: Node) -> None:
        node.container.kill()
        self.wait()
        node.start()

    def pause(self, node: Node) -> None:
        node.pause()
        self.wait()
        node.unpause()

    def anew(self, node: Node) -> None:
        """As Compose does: the name is never gone, but for a moment it is that of the old
        container.
        """
        old = node.container
        old.rename(f"{self.random.getrandbits(48):012x}_{node.name}")
        old.stop(timeout=3)
        node.user, node.password = (
            f"user{self.random.getrandbits(48):x}",
            f"pass{self.random.getrandbits(96):x}",
        )
        node.create(self.stack.new_address())
        old.remove()

    def close_docker(self) -> None:
        self.relay.close()
        self.wait()
        self.relay.open()

    def hang_docker(self) -> None:
        self.relay.hang()
        self.wait()
        self.relay.open()

    def kill_worker(self) -> None:
        for worker in list(self.gateway.workers())[:1]:  # none while they are only starting
            self.gateway.run("sh", "-c", f"kill -KILL {worker} || true")

    def restart(self) -> None:
        self.gateway.container.stop(timeout=30)
        self.gateway.start()

    def kill_gateway(self) -> None:
        self.gateway.container.kill()
        self.gateway.start()

    def sample(self) -> dict[str, float]:
        """What the largest worker has, now."""
        workers = self.gateway.workers().values()
        sample = {
            "MiB of a worker": round(
                max((worker.memory for worker in workers), default=0) / MIB, 1
            ),
            "descriptors of a worker": max((worker.descriptors for worker in workers), default=0),
        }
        self.most = {name: max(value, self.most.get(name, 0)) for name, value in sample.items()}
        return sample


def soak(
    stack: Stack,
    seconds: float,
    clients: int,
    seed: int,
    writes: int = 0,
    pause: float = 0.0,
) -> dict[str, Any]:
    """The clients and the faults together on an empty stack; what came of it.

    On a slow machine the clients go on until so many writes were acknowledged.
    """
    relay, host = stack.add_relay(), stack.add_host()
    stack.add_nodes("123")
    env = {"WEB_CONCURRENCY": "2", "OBJGW_NODE_TIMEOUT": "5", "OBJGW_DOCKER_TIMEOUT": "2"}
    gateway = stack.add_gateway(env, relay=relay, beside=host)
    gateway.wait_ready()
    gateway.load(
        "soak.py", "--seconds", 3, "--clients", clients, "--seed", seed + 1
    )  # so that begin is like end
    faults = Faults(stack, gateway, relay, seed)
    begin = faults.sample()
    report: dict[str, Any] = {}

    def use() -> None:
        try:
            report.update(
                gateway.load(
                    *("soak.py", "--seconds", seconds, "--clients", clients, "--seed", seed),
                    *("--writes", writes, "--pause", pause),
                )
            )
        finally:
            faults.over.set()

    timer = threading.Timer(seconds, faults.over.set)
    timer.start()
    try:
        in_threads([use, faults.of_nodes, faults.of_the_gateway])
    finally:
        timer.cancel()
    made = {"faults": sum(faults.made.values()), "of each kind": dict(faults.made)}
    calm = time.monotonic() + IDLE
    while (end := faults.sample())["descriptors of a worker"] > begin[
        "descriptors of a worker"
    ] + SPARE:
        if time.monotonic() > calm:
            break
    return {"seed": seed, **report, **made, "begin": begin, "most": faults.most, "end": end}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "role", nargs="?", choices=["load"], help="only the clients, against 127.0.0.1"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--writes", type=int, default=0, help="acknowledged, at least")
    parser.add_argument("--pause", type=float, default=0, help="of a client, in seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**24))
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    seconds = min(given.seconds or given.minutes * 60, 3600)
    if given.role == "load":
        clients = given.clients, given.seed, given.port, given.writes, given.pause
        print(json.dumps(load(seconds, *clients)))
        return
    with in_tests_container(__file__) as stack:
        report = soak(stack, seconds, given.clients, given.seed)
        print(json.dumps(report, indent=2))
    raise SystemExit(bool(report["lost"] or report["wrong"]))


if __name__ == "__main__":
    main()
