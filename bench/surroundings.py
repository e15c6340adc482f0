#!/usr/bin/env python3
"""What a gateway's surroundings cost it: a start, its memory, and much of what it doesn't need.

    bench/surroundings.py                    # as root; needs Docker and wrk; about 10 minutes
    bench/surroundings.py --only starts      # one part of starts, others, nodes, clients

Strategy. Each part measures the same gateway with and without one thing, in turn: 500 other
containers on the engine, 64 nodes in the list, 4,096 clients that keep a connection and ask
nothing. CPU comes from the gateway's cgroup. It is *at rest* where the last request was longer ago
than it renews its nodes' leases for. A start is timed beside that of an app which does nothing, in
the same image, so that what Docker, Python and gunicorn need can be told from the gateway's part.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from lab import (
    HERE,
    IMAGE,
    LABEL,
    MINIO,
    PREFIX,
    REFUSED,
    TIMEOUT,
    Lab,
    Target,
    access_key,
    at_objects,
    connect,
    eventually,
    secret_key,
)
from processes import BenchError, children, container_cpu, engine, memory, process_of, run, used
from report import table
from run import SMALL, WORKS, fill, measure

POLL_SECONDS = 0.005  # between two attempts to get a first answer
REST_SECONDS = 12.0  # after the last request, until no lease is renewed for it
IDLE_SECONDS = 8.0  # for which the CPU at rest is taken
ADDRESSES = 8  # of the clients: one may have so many connections only
FEW, RUNNING = 3, 30  # nodes, without the many; other containers that run
# A reading of Docker in the gateway's container: the medians of wall-clock and CPU time in ms.
READ = """
import os, statistics, time
from gateway.nodes.sources.docker import DockerReader
from gateway.settings import Settings
its = Settings.from_environ(os.environ)
reader = DockerReader(its.node_name, its.node_port, its.docker_timeout, its.network)
reader.read()
taken = []
for _ in range(30):
    begin = time.monotonic(), time.process_time()
    reader.read()
    taken.append((time.monotonic() - begin[0], time.process_time() - begin[1]))
print(*(1000 * statistics.median(each) for each in zip(*taken)))
"""
# Many nodes in one container, on a port each: the list needs no containers.
SERVERS = "for p in $(seq 9001 {last}); do minio server --address :$p /data/$p & done; wait"
BASE = "python:3.13-slim"  # what the gateway's image is made from


def target_of(name: str) -> Target:
    """A container that listens on the gateway's port, as it runs now."""
    return at_objects(name, process_of(f"{PREFIX}-{name}"))


def at_rest(*targets: Target) -> list[float]:
    """The CPU that each of them uses at rest, at the same time, in per cent of a core."""
    time.sleep(REST_SECONDS)
    return used(IDLE_SECONDS, *(target.cpu for target in targets))


def start(name: str) -> tuple[float, float, float]:
    """Stops a container and starts it.

    Gives the seconds that `docker start` takes, those from its begin until the first 200, and the
    container's CPU seconds until then.
    """
    run("docker", "stop", f"{PREFIX}-{name}")
    began = time.monotonic()
    run("docker", "start", f"{PREFIX}-{name}")
    returned = time.monotonic() - began
    target = target_of(name)
    while time.monotonic() < began + TIMEOUT:
        with contextlib.suppress(*REFUSED):
            if target.ask("GET", f"/object/{SMALL[0]}")[0] == 200:
                return returned, time.monotonic() - began, target.cpu()
        time.sleep(POLL_SECONDS)
    raise BenchError(f"{name} doesn't answer {TIMEOUT:.0f} s after its start")


def medians(samples: Iterable[Iterable[float]]) -> list[float]:
    """The median of each figure of several samples."""
    return [median(each) for each in zip(*samples, strict=True)]


def row(what: str, *values: float) -> list[str]:
    """A line of the table: with it, and without it, and the ratio where there is one."""
    shown = [f"{value:.3g}" for value in values]
    shown += [f"{values[0] / values[1]:.2f}"] if values[1:] and values[1] else []
    line = [what, *shown, "", "", ""][:4]
    print(" | ".join(line), file=sys.stderr, flush=True)
    return line


def starts(lab: Lab, network: str, rounds: int) -> Iterator[list[str]]:
    """A start, beside that of the empty app; then memory at rest, and the image's size."""
    lab.own(network, "own").store(SMALL[0], 1024)
    lab.app("empty", network, "empty")
    samples = [(start("own"), start("empty")) for _ in range(rounds)]
    own, empty = map(medians, zip(*samples, strict=True))
    yield row("**a gateway; without: the empty app**")
    for n, what in enumerate(("`docker start` returns, s", "the first 200, s", "CPU s until then")):
        yield row(what, own[n], empty[n])
    time.sleep(REST_SECONDS)
    masters = [target_of(name).pid for name in ("own", "empty")]
    workers = [children(pid)[0] for pid in masters]
    for kind in ("Rss", "Pss"):
        yield row(f"master, {kind.upper()} MiB", *(memory(pid, kind=kind) for pid in masters))
        yield row(f"a worker, {kind.upper()} MiB", *(memory(pid, kind=kind) for pid in workers))
    sizes = [run("docker", "image", "inspect", "-f", "{{.Size}}", each) for each in (IMAGE, BASE)]
    yield row(f"image, MB; without: {BASE}", *(int(size) / 1e6 for size in sizes))


def others(lab: Lab, network: str, count: int) -> Iterator[list[str]]:
    """Other containers on the engine: some that were only created, and then some that run."""
    lab.own(network, "beside").store(SMALL[0], 1024)

    def state() -> list[float]:
        _, *started = medians(start("beside") for _ in range(5))
        reading = run("docker", "exec", f"{PREFIX}-beside", "python", "-c", READ)
        return [*started, *map(float, reading.split()), *at_rest(target_of("beside"))]

    def create(number: int) -> str:
        made = {"Image": IMAGE, "Cmd": ["sleep", "3600"], "Labels": {LABEL: ""}}
        more = {"HostConfig": {"NetworkMode": network}, "Healthcheck": {"Test": ["NONE"]}}
        path = f"/containers/create?name={PREFIX}-other-{number}"
        return str(engine("POST", path, made | more)["Id"])

    before = state()
    until_now = target_of("beside").cpu()
    with ThreadPoolExecutor(4) as pool:  # which waits for what it has begun, also after Ctrl-C
        ids = list(pool.map(create, range(count)))
        event = (target_of("beside").cpu() - until_now) * 1000 / count
        created = state()
        list(pool.map(lambda id: engine("POST", f"/containers/{id}/start"), ids[:RUNNING]))
        running = state()
        list(pool.map(lambda id: engine("DELETE", f"/containers/{id}?force=1"), ids))
    without = [sum(each) / 2 for each in zip(before, state(), strict=True)]
    names = ["the first 200, s", "CPU s until then", "a reading, ms", "a reading, CPU ms"]
    for values, what in ((created, "created"), (running, f"of which {RUNNING} run")):
        yield row(f"**{count} other containers, {what}**")
        for name, *pair in zip([*names, "CPU at rest, %"], values, without, strict=True):
            yield row(name, *pair)
    yield row("for each that is created, CPU ms", event)


def nodes(lab: Lab, network: str, count: int) -> Iterator[list[str]]:
    """A list of many nodes, beside one of the first three of them."""
    keys = f"MINIO_ROOT_USER={access_key(1)}", f"MINIO_ROOT_PASSWORD={secret_key(1)}"
    options = [word for key in (*keys, "MINIO_BROWSER=off") for word in ("-e", key)]
    script = SERVERS.format(last=9000 + count)
    options += ["--entrypoint", "sh", MINIO, "-c", script]
    pid = lab.container(f"{PREFIX}-servers", network, *options)
    lab.node_pids.append(pid)
    for port in range(9001, 9001 + count):
        server = Target("servers", pid, port, lambda _, id: id, partial(container_cpu, pid))
        health = partial(server.ask, "GET", "/minio/health/ready")
        eventually("a server", partial(lambda ask: ask()[0] == 200, health), 300)
    pair = [listed(lab, network, n) for n in (count, FEW)]
    yield row(f"**{count} nodes in the list; without: {FEW}**")
    yield row("CPU at rest, %", *medians(at_rest(*pair) for _ in range(3)))
    samples = [[measure(lab, each, WORKS["GET"], 32, 2) for each in pair] for _ in range(6)]
    for field, what in (("rate", "GETs/s"), ("cpu", "CPU ms"), ("nodes", "the nodes' CPU ms")):
        values = medians([getattr(each, field) for each in both] for both in samples)
        yield row(f"small GET, {what}", *values)
    yield row("all processes, PSS MiB", *(memory(each.pid, *children(each.pid)) for each in pair))
    lab.node_pids.remove(pid)
    names = ("servers", *(each.name for each in pair))
    run("docker", "rm", "-f", "-v", *(f"{PREFIX}-{name}" for name in names))  # they cost CPU


def listed(lab: Lab, network: str, count: int) -> Target:
    """A gateway with so many nodes in its list; its bucket is its own."""
    login = f"{access_key(1)}:{secret_key(1)}"
    entries = [f"n{n}=http://{login}@{PREFIX}-servers:{9000 + n}" for n in range(1, count + 1)]
    env = [f"OBJGW_NODES={' '.join(entries)}", f"OBJGW_BUCKET=list{count}"]
    gateway = lab.gateway(f"list{count}", network, IMAGE, 3000, env)
    fill(gateway, [])
    return gateway


def clients(lab: Lab, network: str, count: int) -> Iterator[list[str]]:
    """Clients that have had an answer, keep their connection and ask nothing."""
    gateway = lab.own(network, "kept")
    fill(gateway, [])
    measure(lab, gateway, WORKS["GET"], 32, 2)
    pids, grown = (gateway.pid, *children(gateway.pid)), []
    figures: dict[bool, list[list[float]]] = {True: [], False: []}
    for _ in range(3):
        for kept in (False, True):
            before = memory(*pids)
            held = [kept_connection(gateway, n) for n in range(count if kept else 0)]
            grown += [(memory(*pids) - before) * 1024 / count] if kept else []
            loads = [measure(lab, gateway, WORKS["GET"], 32, 2) for _ in range(2)]
            rest = at_rest(gateway)
            figures[kept] += [[load.rate, load.cpu, load.p99, *rest] for load in loads]
            for connection in held:
                connection.sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):  # it is open, and nothing has come
                    raise BenchError(f"a connection isn't kept: {connection.sock.recv(1)!r}")
                connection.close()
    yield row(f"**{count} idle clients**")
    yield row("PSS, KiB a connection", grown[0])
    yield row("the same when they come for the third time", grown[-1])
    names = ("small GET, GETs/s", "small GET, CPU ms", "small GET, p99 ms", "CPU at rest, %")
    pairs = map(medians, (figures[True], figures[False]))
    for name, *pair in zip(names, *pairs, strict=True):
        yield row(name, *pair)


def kept_connection(gateway: Target, number: int) -> http.client.HTTPConnection:
    """A connection from one of several addresses, which has had one answer."""
    connection = connect(gateway.pid, gateway.port, f"127.0.0.{2 + number % ADDRESSES}")
    connection.request("GET", f"/object/{SMALL[0]}")
    reply = connection.getresponse()
    if len(reply.read()) != 1024 or reply.status != 200:
        raise BenchError(f"GET on connection {number}: {reply.status}")
    return connection


# The parts, and how many there are of each: starts, containers, nodes, clients.
PARTS = {
    "starts": (starts, 5),
    "others": (others, 500),
    "nodes": (nodes, 64),
    "clients": (clients, 4096),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append")
    for name, (_, count) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (given.clients + 1024,) * 2)
    lines: list[list[str]] = []
    try:
        with Lab(f"{PREFIX}-amazin-object-storage-node") as lab:
            run("docker", "build", "-q", "-t", IMAGE, "--target", "gateway", str(HERE.parent))
            network = lab.network("surroundings")
            lab.nodes(network, range(1, FEW + 1))
            for part in given.only or PARTS:
                lines += PARTS[part][0](lab, network, getattr(given, part))
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    print(table(["what", "with", "without", "ratio"], lines))


if __name__ == "__main__":
    main()
