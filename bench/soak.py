#!/usr/bin/env python3
"""The soak: random requests with a model of what must be there, while everything around the gateway
fails.

    bench/soak.py --minutes 10 --history history.jsonl

It needs root, Docker and docker-compose, and runs in the tests' container.

Strategy. `load` is the clients: threads that PUT, GET, DELETE and read ranges over loopback, each
with ids of its own, so that the model of an id is exact: the versions that it may have. An
acknowledged write leaves one; one that was not acknowledged adds its own, and may still take effect
for SETTLED seconds, for which the id is only read. Some ids are everybody's: a read of those must
bring one whole version that somebody wrote. A version's bytes are known from id and version alone,
and begin with both, so that another's object, a stretch of another version, or a wrong place shows.
At the end each id is read until it is answered.

`Faults` does the rest at the same time: it stops, kills and pauses nodes and makes them anew as
Compose does, with new keys and addresses; it closes Docker and has it hang; it kills workers, and
stops and kills the gateway. Meanwhile the layout grows and shrinks: a node joins, objects are moved
to it, and it is taken out again. `soak` is all of it together. The short form of it is a test in
tests/stack/test_soak.py.

*lost* counts reads that lack an acknowledged write, *wrong* reads that brought what nobody wrote
there. Every request is a line of the history, by which `history.py` judges afterwards, without the
clients' model. At the end everything must be with its owner.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from history import ABSENT, SETTLED, Operation
from inside import FOLDER, in_tests_container

if TYPE_CHECKING:
    from tests.harness.stack import Stack

KIB, MIB = 1024, 1024 * 1024
# Bytes from which on no two versions have the same bytes, and so the same ETag: a condition on one
# of two empty versions is met by the other, too.
DISTINCT = 64
IDLE = 60.0  # seconds after which connections that nobody uses are closed, on both sides
SPARE = 20  # descriptors that a worker may have more at the end
HISTORY = "/tmp/history.jsonl"  # in the clients' container
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
    etags: dict[int, str] = field(default_factory=dict)  # of versions that somebody has seen
    stored: bool = False  # a write was acknowledged


# --------------------------------------------------------------------------------------------------
# The clients
# --------------------------------------------------------------------------------------------------
class History:
    """The file with a line of JSON for each request, in the order of their ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._lock = file, threading.Lock()

    def add(self, operation: Operation) -> None:
        with self._lock:
            self._file.write(json.dumps(operation.__dict__) + "\n")


@dataclass
class Tally:
    """What all clients saw."""

    history: History
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


class Run(NamedTuple):
    """How the clients are to work."""

    clients: int
    seed: int
    port: int
    writes: int = 0  # acknowledged ones, until which they go on
    pause: float = 0.0  # of a client after a request, in seconds, on average


class Client:
    """One client: a connection and ids of its own."""

    def __init__(self, number: int, run: Run, shared: list[Shared], tally: Tally) -> None:
        self.number = number
        self.random = random.Random(f"{run.seed}-{number}")
        self.name = f"s{run.seed:x}c{number}i"
        self.own = [Model(f"{self.name}{n}") for n in range(OWN_IDS)]
        self.shared, self.tally, self.port, self.pause = shared, tally, run.port, run.pause
        self.connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=60)
        self.times = 0.0, 0.0  # monotonic, of the last request's begin and end
        self.sent = False  # the last request may have got to the gateway

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
            self.note("DELETE", model.id, ABSENT, "ok" if acknowledged else "unknown")
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
            version, condition = self.new(shared.sizes, DISTINCT), self.condition(shared)
            size, etags = shared.sizes[version], shared.etags
            shared.stored |= self.put(shared.id, version, size, condition, etags) == 200
            return
        stored = shared.stored
        read = self.read(kind, shared.id, 256 * KIB, shared.etags)
        if read and read.version == ABSENT:
            if stored:
                self.tally.lost.append(f"{shared.id}: 404")
        elif read:
            self.compare(shared.id, shared.sizes, read)

    def condition(self, shared: Shared) -> str | int | None:
        """A condition of a PUT: none, that there is no object, or a version that may be there."""
        seen = max(list(shared.etags), default=None)
        kinds: list[str | int | None] = [None, None, "absent", seen, seen]
        return self.random.choice(kinds)

    def new(self, sizes: dict[int, int], smallest: int = 0) -> int:
        """A new version, of some size."""
        low, high, _ = self.random.choices(SIZES, [weight for _, _, weight in SIZES])[0]
        version = new_version()
        sizes[version] = max(smallest, self.random.randint(low, high))
        return version

    def put(
        self,
        id: str,
        version: int,
        size: int,
        condition: str | int | None = None,
        etags: dict[int, str] | None = None,
    ) -> int:
        """Stores a version; the status. `etags` has those of the versions, and gets this one's."""
        body: Any = content(id, version, size)
        headers, etags = (
            {"Content-Type": f"application/x-v{version}"},
            {} if etags is None else etags,
        )
        if condition == "absent":
            headers["If-None-Match"] = "*"
        elif isinstance(condition, int):
            headers["If-Match"] = etags[condition]
        if self.random.random() < 0.2:  # without a length
            body = iter([body[at : at + 50_000] for at in range(0, size, 50_000)])
        status, answer, _ = self.ask("PUT", id, body, headers)
        outcome = {200: "ok", 412: "unmet"}.get(status, "unknown")
        self.note("PUT", id, version, outcome, condition)
        if status == 200:
            etags[version] = answer["ETag"]
        return status

    def note(
        self,
        operation: str,
        id: str,
        version: int,
        outcome: str,
        condition: str | int | None = None,
    ) -> None:
        """Writes the last request to the history."""
        outcome = outcome if self.sent else "unsent"
        self.tally.history.add(
            Operation(self.number, operation, id, version, condition, *self.times, outcome)
        )

    def read(
        self, kind: str, id: str, size: int, etags: dict[int, str] | None = None
    ) -> Read | None:
        """What is there, or None where the gateway can't tell; `etags` gets the version's."""
        kind = kind if kind in ("HEAD", "RANGE") else "GET"  # of a write that isn't due yet, too
        read, etag = self.ask_for(kind, id, size)
        self.note(kind, id, read.version if read else ABSENT, "ok" if read else "unknown")
        if read and etag and etags is not None:
            etags[read.version] = etag
        return read

    def ask_for(self, kind: str, id: str, size: int) -> tuple[Read | None, str]:
        """What is there, and its ETag."""
        headers, start = {}, 0
        if kind == "RANGE":
            start = self.random.randint(0, size)
            headers["Range"] = f"bytes={start}-{start + self.random.randint(0, size)}"
        method = "HEAD" if kind == "HEAD" else "GET"
        status, answer, body = self.ask(method, id, headers=headers)
        if status == 404:
            return Read(ABSENT, 0, 0, None), ""
        if status not in (200, 206):
            return None, ""
        version = int(answer["Content-Type"].removeprefix("application/x-v"))
        if status == 206:
            start, total = (
                int(answer["Content-Range"].split()[1].split("-")[0]),
                answer["Content-Range"].split("/")[1],
            )
        else:
            start, total = 0, answer["Content-Length"]
        read = Read(version, start, int(total), None if method == "HEAD" else body)
        return read, answer["ETag"]

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
        headers, began, self.sent = headers or {}, time.monotonic(), True
        try:
            self.connection.request(method, f"/object/{id}", body, headers)
            response = self.connection.getresponse()
            answer = response.status, response.msg, response.read()
        except BROKEN as error:
            self.connection.close()
            refused = isinstance(error, ConnectionRefusedError)
            self.tally.requests[f"{method} {'refused' if refused else 'broken'}"] += 1
            self.times, self.sent = (began, time.monotonic()), not refused
            time.sleep(0.02)
            return 0, http.client.HTTPMessage(), b""
        self.times = began, time.monotonic()
        self.tally.requests[f"{method} {answer[0]}"] += 1
        if answer[0] in REFUSED:
            time.sleep(0.02)
        elif answer[0] == 412 and not headers.keys().isdisjoint(("If-Match", "If-None-Match")):
            pass
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


def load(seconds: float, history: str, clients: Run) -> dict[str, Any]:
    """Runs the clients; what they saw."""
    with open(history, "w") as file:
        return run_clients(seconds, clients, Tally(History(file)))


def run_clients(seconds: float, run: Run, tally: Tally) -> dict[str, Any]:
    """The clients at work, and then the reads at the end; what they saw."""
    shared = [Shared(f"s{run.seed:x}shared{n}") for n in range(SHARED_IDS)]
    all_clients = [Client(n, run, shared, tally) for n in range(run.clients)]
    began = time.monotonic()

    def over() -> bool:
        took = time.monotonic() - began
        return took > LONGEST * seconds or (took > seconds and tally.acknowledged >= run.writes)

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
# Both together
# --------------------------------------------------------------------------------------------------
def soak(
    stack: Stack,
    seconds: float,
    clients: int,
    seed: int,
    history: str = HISTORY,
    writes: int = 0,
    pause: float = 0.0,
) -> dict[str, Any]:
    """The clients and the faults together on an empty stack; what came of it.

    On a slow machine the clients go on until so many writes were acknowledged. `history` is a
    file in the container that the clients run in.
    """
    from faults import Faults
    from tests.harness.engine import read_in

    relay, host = stack.add_relay(), stack.add_host()
    stack.add_nodes("123")
    env = {"WEB_CONCURRENCY": "2", "OBJGW_NODE_TIMEOUT": "5", "OBJGW_DOCKER_TIMEOUT": "2"}
    gateway = stack.add_gateway(env, relay=relay, beside=host)
    gateway.wait_ready()
    other = stack.add_gateway()  # which nobody stops, and nobody asks but for its objgwctl.py
    gateway.load(
        "soak.py", "--seconds", 3, "--clients", clients, "--seed", seed + 1
    )  # so that begin is like end
    faults = Faults(stack, gateway, other, relay, seed)
    clients_run = ["--seconds", seconds, "--clients", clients, "--seed", seed, "--history", history]
    clients_run += ["--writes", writes, "--pause", pause]
    begin = faults.sample()
    report: dict[str, Any] = {}

    def use() -> None:
        try:
            report.update(gateway.load("soak.py", *clients_run))
        finally:
            faults.over.set()

    timer = threading.Timer(seconds, faults.over.set)
    timer.start()
    try:
        in_threads([use, faults.of_nodes, faults.of_the_gateway, faults.of_the_layout])
    finally:
        timer.cancel()
    made = {"faults": sum(faults.made.values()), "of each kind": dict(faults.made)}
    calm = time.monotonic() + IDLE
    while (end := faults.sample())["descriptors of a worker"] > begin[
        "descriptors of a worker"
    ] + SPARE:
        if time.monotonic() > calm:
            break
    judge = f"python bench/history.py {history} || true"  # its exit code is in the report, too
    judged = {"history": json.loads(read_in(host, "sh", "-c", judge)), "layout": faults.settled()}
    resources = {"begin": begin, "most": faults.most, "end": end}
    return {"seed": seed, **report, **judged, **made, **resources}


def failed(report: dict[str, Any]) -> bool:
    """Whether a soak has found anything."""
    found = report["lost"] or report["wrong"] or report["history"]["not linearizable"]
    return bool(found or not report["layout"]["clean"])


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
    parser.add_argument("--history", type=Path, help="file to write all requests to")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    seconds = min(given.seconds or given.minutes * 60, 3600)
    if given.role == "load":
        run = Run(given.clients, given.seed, given.port, given.writes, given.pause)
        print(json.dumps(load(seconds, str(given.history or os.devnull), run)))
        return
    folder = given.history.resolve().parent if given.history else None
    with in_tests_container(__file__, folder) as stack:
        history = f"{FOLDER}/{given.history.name}" if given.history else HISTORY
        report = soak(stack, seconds, given.clients, given.seed, history)
        print(json.dumps(report, indent=2))
    raise SystemExit(failed(report))


if __name__ == "__main__":
    main()
