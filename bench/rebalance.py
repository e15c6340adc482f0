#!/usr/bin/env python3
"""A fourth node joins three: objects/s and MB/s of the rebalance, and what small GETs notice of it.

    bench/rebalance.py --small 5000 --large 40      # needs Docker and docker-compose; runs in the tests' container

Strategy. `seed` PUTs small and large objects through a gateway with three nodes. `load` is clients
that GET small ones for a few seconds; each answer must be 200 with the right bytes. It runs before,
again and again while `objgwctl.py rebalance` works in the gateway's container, and afterwards. At
the end `objgwctl.py check` must be clean.
"""  # noqa: E501

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
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
    from tests.harness.gateway import Gateway
    from tests.harness.stack import Stack

CLIENTS = 16
SMALL, LARGE = 4096, 16 * 1024 * 1024  # bytes
SECONDS = 5.0  # of a stretch of load
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


def rebalance(stack: Stack, small: int, large: int, options: list[str]) -> dict[str, Any]:
    """The whole on an empty stack."""
    host = stack.add_host()
    stack.add_nodes("123")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"}, beside=host)
    gateway.wait_ready()
    stored = gateway.load("rebalance.py", "--role", "seed", "--small", small, "--large", large)
    before = gateway.load("rebalance.py", "--small", small, "--seconds", SECONDS)
    stack.add_nodes("4")
    deadline = time.monotonic() + 30
    while len(ctl(gateway, "nodes")[1]["names"]) < 4:
        assert time.monotonic() < deadline, "the new node doesn't join"
        time.sleep(0.5)
    over, meanwhile = threading.Event(), list[dict[str, Any]]()
    thread = threading.Thread(target=lambda: meanwhile.extend(stretches(gateway, small, over)))
    thread.start()
    try:
        code, moved = ctl(gateway, "rebalance", *options)
    finally:
        over.set()
        thread.join()
    assert code == 0, moved
    return {
        "stored": stored,
        **moved,
        "objects/s": round(moved["moved"] / moved["moving"]),
        "MB/s": round(moved["bytes"] / moved["moving"] / 1e6, 1),
        "GETs before": before,
        "GETs meanwhile": together(meanwhile),
        "GETs afterwards": gateway.load("rebalance.py", "--small", small, "--seconds", SECONDS),
        "check": ctl(gateway, "check")[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "within", nargs="?", choices=["load"], help="only the clients, against 127.0.0.1"
    )
    parser.add_argument("--role", choices=["seed", "load"], default="load", help="of the clients")
    parser.add_argument("--small", type=int, default=5000, help=f"objects of {SMALL} bytes")
    parser.add_argument("--large", type=int, default=40, help=f"objects of {LARGE} bytes")
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
