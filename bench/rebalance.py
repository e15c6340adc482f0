#!/usr/bin/env python3
"""Nodes join: objects/s and MB/s of the rebalance, against what the new node takes at most.

    bench/rebalance.py --small 4000              # needs Docker and docker-compose; runs in the tests' container
    bench/rebalance.py --small 100 --large 40    # for MB/s

Strategy. `seed` PUTs small and large objects through a gateway with three nodes. A fourth node
joins, and `objgwctl.py rebalance` moves objects while nothing else goes on. Before and after that
the new node's own limit is measured: the same kind of client PUTs objects of the same sizes straight
to it, at several numbers of connections, of which the best counts. Then a fifth node joins, and
clients GET small objects meanwhile (`load`); each answer must be 200 with the right bytes. They do so
before and afterwards as well. At the end `objgwctl.py check` must be clean.
"""  # noqa: E501

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from inside import in_tests_container

if TYPE_CHECKING:
    from docker.models.containers import Container

    from tests.harness.gateway import Gateway
    from tests.harness.node import Node
    from tests.harness.stack import Stack

CLIENTS = 16
CONNECTIONS = (8, 16, 32)  # at which a node's own limit is looked for
LIMIT_SECONDS = 1.5  # of each of them
SMALL, LARGE = 4096, 16 * 1024 * 1024  # bytes
SECONDS = 3.0  # of a stretch of load
POOL = random.Random(0).randbytes(LARGE)


def content(id: str, size: int) -> bytes:
    """The bytes of an object: different for each id."""
    return (hashlib.sha256(id.encode()).hexdigest().encode() + POOL)[:size]


def seed(small: int, large: int, port: int) -> dict[str, Any]:
    """Stores the objects; how many."""
    ids = [(f"small{n}", SMALL) for n in range(small)] + [
        (f"large{n}", LARGE) for n in range(large)
    ]

    def store(share: list[tuple[str, int]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for id, size in share:
            connection.request("PUT", f"/object/{id}", content(id, size))
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"PUT {id}: {response.status}")
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(store, [ids[n::CLIENTS] for n in range(CLIENTS)]))
    return {"objects": len(ids), "bytes": sum(size for _, size in ids)}


def load(small: int, seconds: float, port: int) -> dict[str, Any]:
    """GETs of small objects, one after the other on each connection; what the clients saw."""
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def use(number: int) -> None:
        connection, choice = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=60),
            random.Random(number),
        )
        while (began := time.monotonic()) < until:
            id = f"small{choice.randrange(small)}"
            try:
                connection.request("GET", f"/object/{id}")
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or body != content(id, SMALL):
                    failures[str(response.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failures[type(error).__name__] += 1
            latencies.append(time.monotonic() - began)
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(use, range(CLIENTS)))
    latencies.sort()
    return {
        "GETs/s": round(len(latencies) / seconds),
        "p50, ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "p99, ms": round(latencies[len(latencies) * 99 // 100] * 1000, 1),
        "failed": dict(failures),
    }


def stretches(gateway: Gateway, small: int, over: threading.Event) -> Iterator[dict[str, Any]]:
    """Load until it is over."""
    while not over.is_set():
        yield gateway.load("rebalance.py", "--small", small, "--seconds", SECONDS)


def together(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, and all failures."""
    failed = sum((Counter(report["failed"]) for report in reports), Counter[str]())
    figures = [name for name in reports[0] if name != "failed"]
    medians = {
        name: round(statistics.median(report[name] for report in reports), 1) for name in figures
    }
    return {**medians, "failed": dict(failed)}


def ctl(gateway: Gateway, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of objgwctl.py in the gateway's container."""
    done: Any = gateway.container.exec_run(
        ["python", "objgwctl.py", *arguments, "--json"], user="root", demux=True
    )
    output, errors = ((each or b"").decode() for each in done.output)
    assert output, errors
    return done.exit_code, json.loads(output)


def cpu(*containers: Container) -> float:
    """Seconds of CPU that these containers have used since they began."""
    usage = 0
    for container in containers:
        engine: Any = container.client
        stats = engine.api.stats(container.id, stream=False, one_shot=True)
        usage += stats["cpu_stats"]["cpu_usage"]["total_usage"]  # nanoseconds
    return usage / 1e9


def own_limit(node: Node, small: int, large: int) -> dict[str, float]:
    """Objects/s that a node takes at most where they are PUT straight to it, as `objgwctl` does.

    And the milliseconds of CPU, of client and node, that such an object costs.
    """
    from gateway.s3.body import content_md5, upload_of
    from gateway.s3.connection import Request
    from gateway.s3.endpoint import Endpoint
    from gateway.s3.node import Node as Client
    from gateway.settings import Settings

    endpoint = Endpoint("limit", "", node.address, 9000, node.user, node.password)
    sizes = [SMALL] * small + [LARGE] * large
    random.Random(1).shuffle(sizes)

    def ask(client: Client, connection: Any, request: Request) -> int:
        reply = client.ask(connection, request)
        connection.finish(reply)
        return reply.status

    def store(number: int, connections: int, until: float) -> int:
        client, stored = Client(endpoint, Settings()), 0
        connection = client.connect()
        for size in itertools.islice(itertools.cycle(sizes), number, None, connections):
            if time.monotonic() > until:
                break
            id = f"limit{connections}x{number}x{stored}"
            body = content(id, size)
            request = Request("PUT", f"/limit/{id}", content_md5(body), upload_of(body))
            assert ask(client, connection, request) == 200
            stored += 1
        connection.close()
        return stored

    client = Client(endpoint, Settings())
    ask(client, client.connect(), Request("PUT", "/limit", upload=upload_of(b"")))
    speeds, objects, cpu_before = [], 0, cpu(node.container) + time.process_time()
    for connections in CONNECTIONS:
        began = time.monotonic()
        with ThreadPoolExecutor(connections) as pool:
            shares = [
                pool.submit(store, number, connections, began + LIMIT_SECONDS)
                for number in range(connections)
            ]
        stored = sum(share.result() for share in shares)
        speeds.append(stored / (time.monotonic() - began))
        objects += stored
    used = cpu(node.container) + time.process_time() - cpu_before
    return {"objects/s": round(max(speeds)), "CPU ms": round(used / objects * 1000, 2)}


def grow(stack: Stack, gateway: Gateway, suffix: str) -> Node:
    """A node more, which is in the layout when this returns, and counts."""
    node = stack.add_node(suffix)
    deadline = time.monotonic() + 60
    while True:
        layout = ctl(gateway, "nodes")[1]
        if node.name in layout["names"] and time.time() > layout["spreads"][0]["since"] + 4:
            return node
        assert time.monotonic() < deadline, "the new node doesn't join"
        time.sleep(0.5)


def moved(stack: Stack, gateway: Gateway, options: list[str]) -> dict[str, Any]:
    """What a rebalance says, how fast it was, and the CPU of nodes and gateway for an object."""
    containers = [gateway.container, *(node.container for node in stack.nodes)]
    before = cpu(*containers)
    code, report = ctl(gateway, "rebalance", *options)
    assert code == 0, report
    return {
        **report,
        "CPU ms": round((cpu(*containers) - before) / report["moved"] * 1000, 2),
        "objects/s": round(report["moved"] / report["moving"]),
        "MB/s": round(report["bytes"] / report["moving"] / 1e6, 1),
    }


def rebalance(stack: Stack, small: int, large: int, options: list[str]) -> dict[str, Any]:
    """The whole on an empty stack."""
    host = stack.add_host()
    stack.add_nodes("123")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"}, beside=host)
    gateway.wait_ready()
    load = ("rebalance.py", "--small", small, "--seconds", SECONDS)
    stored = gateway.load("rebalance.py", "--role", "seed", "--small", small, "--large", large)
    report: dict[str, Any] = {"stored": stored, "system load before": os.getloadavg()[0]}
    fourth = grow(stack, gateway, "4")
    limits = [own_limit(fourth, small, large)]
    report["quiet"] = moved(stack, gateway, options)
    limits.append(own_limit(fourth, small, large))
    report["the new node's own limit, before and after"] = limits
    limit, least = (
        statistics.mean(each[name] for each in limits) for name in ("objects/s", "CPU ms")
    )
    report["objects/s, / limit"] = round(report["quiet"]["objects/s"] / limit, 2)
    report["CPU ms, / limit"] = round(report["quiet"]["CPU ms"] / least, 2)

    report["GETs before"] = gateway.load(*load)
    grow(stack, gateway, "5")
    over, meanwhile = threading.Event(), list[dict[str, Any]]()
    thread = threading.Thread(target=lambda: meanwhile.extend(stretches(gateway, small, over)))
    thread.start()
    try:
        report["beside readers"] = moved(stack, gateway, options)
    finally:
        over.set()
        thread.join()
    report["GETs meanwhile"] = together(meanwhile)
    report["GETs afterwards"] = gateway.load(*load)
    report["system load after"] = os.getloadavg()[0]
    return report | {"check": ctl(gateway, "check")[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "within", nargs="?", choices=["load"], help="only the clients, against 127.0.0.1"
    )
    parser.add_argument("--role", choices=["seed", "load"], default="load", help="of the clients")
    parser.add_argument("--small", type=int, default=4000, help=f"objects of {SMALL} bytes")
    parser.add_argument("--large", type=int, default=0, help=f"objects of {LARGE} bytes")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--limit", help="of the rebalance, as 20M")
    parser.add_argument("--jobs", help="of the rebalance")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    if given.within:
        seeding = given.role == "seed"
        print(
            json.dumps(
                (seed if seeding else load)(
                    given.small, given.large if seeding else given.seconds, given.port
                )
            )
        )
        return
    named = {"--limit": given.limit, "--jobs": given.jobs}
    options = [word for name, value in named.items() if value for word in (name, value)]
    with in_tests_container(__file__) as stack:
        report = rebalance(stack, given.small, given.large, options)
        print(json.dumps(report, indent=2))
    failed = any(
        report[when]["failed"] for when in ("GETs before", "GETs meanwhile", "GETs afterwards")
    )
    raise SystemExit(failed or not report["check"]["clean"])


if __name__ == "__main__":
    main()
