#!/usr/bin/env python3
"""Slow clients by the hundred, and what they cost the others.

    bench/slow.py --each 500        # as many of each kind; needs Docker and docker-compose

Strategy. One process holds the slow clients: they send their headers one byte a second, or their
body one byte a second, or ask for a large object and never read. Whoever is dropped comes again at
once. Another process is 20 normal clients that PUT and GET small objects, first in quiet and then
under fire; each of their requests must succeed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from inside import in_tests_container

if TYPE_CHECKING:
    from tests.harness.stack import Stack

NORMAL = 20
LEAST = 200  # requests of the normal clients, on a machine that has much else to do as well
IDLE = 1  # seconds after which they don't use a connection again: the gateway may be closing it
LARGE = 24 * 1024 * 1024  # bytes of the object that nobody reads: more than socket buffers take
LARGE_ID = "large"
KINDS = {
    "headers": b"GET /object/slow HTTP/1.1\r\nHost: objgw\r\nX-Slow: ",
    "body": b"PUT /object/slow HTTP/1.1\r\nHost: objgw\r\nContent-Length: 1000000\r\n\r\n",
    "never read": b"GET /object/%s HTTP/1.1\r\nHost: objgw\r\n\r\n" % LARGE_ID.encode(),
}


class Slow:
    """One slow client."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind, self.sock = kind, socket.socket()
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
        )  # what isn't read waits at the gateway
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.sock.send(KINDS[kind])

    def drip(self) -> None:
        if self.kind != "never read":
            self.sock.send(b"x")

    @property
    def dropped(self) -> bool:
        """Whether the gateway has closed. Who never reads only learns it from an error."""
        try:
            if self.kind == "never read":
                self.sock.send(b"x")
                return False
            return not self.sock.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True


def besiege(each: int, port: int, counts: Any, over: Any) -> None:
    """Keeps so many slow clients of each kind there until it is over.

    `counts` gets how many are there and were dropped.
    """
    crowd: list[Slow] = []
    wanted = [kind for kind in KINDS for _ in range(each)]
    while not over.is_set():
        began = time.monotonic()
        for kind in wanted:
            with suppress(OSError):
                crowd.append(Slow(kind, port))
        counts[0] = max(counts[0], len(crowd))
        wanted, left = [], []
        for client in crowd:
            with suppress(OSError):
                client.drip()
            if client.dropped:
                counts[1] += 1
                client.sock.close()
                wanted.append(client.kind)
            else:
                left.append(client)
        crowd = left
        over.wait(max(0.0, 1 - (time.monotonic() - began)))
    for client in crowd:
        client.sock.close()


def normal(seconds: float, port: int) -> tuple[list[float], Counter[str], Counter[str]]:
    """What the normal clients see in so many seconds, or in LEAST requests if that takes longer:
    how long each took, how many failed how, and how many were 503 before they succeeded.
    """
    latencies: list[float] = []
    failures, refused = Counter[str](), Counter[str]()
    until = time.monotonic() + seconds

    def use(number: int) -> None:
        connection, body = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=30),
            random.randbytes(4096),
        )
        used = time.monotonic()
        for method in ("PUT", *["GET"] * 4) * 10**6:
            began = time.monotonic()
            if began > until and (len(latencies) >= LEAST or began > until + 60):
                break
            if began > used + IDLE:
                connection.close()
            try:
                for _ in range(20):
                    connection.request(
                        method, f"/object/normal{number}", body if method == "PUT" else None
                    )
                    response = connection.getresponse()
                    received = response.read()
                    if response.status != 503:
                        break
                    refused[method] += 1  # it says when to come again, and they do
                    time.sleep(0.5)
                if response.status != 200 or (method == "GET" and received != body):
                    failures[f"{method} {response.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failures[f"{method} {type(error).__name__}"] += 1
            used = time.monotonic()
            latencies.append(used - began)
            time.sleep(0.04)
        connection.close()

    with ThreadPoolExecutor(NORMAL) as pool:
        list(pool.map(use, range(NORMAL)))
    return sorted(latencies), failures, refused


def load(each: int, seconds: float, port: int) -> dict[str, Any]:
    """Quiet, then the siege; what the normal clients saw."""
    counts, over = multiprocessing.Array("i", 2), multiprocessing.Event()
    siege = multiprocessing.Process(target=besiege, args=[each, port, counts, over])
    normal(1, port)
    quiet, failed_in_quiet, _ = normal(seconds / 2, port)
    siege.start()
    try:
        while counts[0] < len(KINDS) * each * 0.9 and siege.is_alive():
            time.sleep(0.1)
        fire, failed, refused = normal(seconds, port)
    finally:
        over.set()
        siege.join()
    return {
        "slow clients": counts[0],
        "dropped": counts[1],
        "requests": len(fire),
        "failed in quiet": dict(failed_in_quiet),
        "failed": dict(failed),
        "refused at first": refused.total(),
        "p99 in quiet, ms": round(percentile(quiet) * 1000, 1),
        "p99, ms": round(percentile(fire) * 1000, 1),
    }


def percentile(latencies: list[float]) -> float:
    return latencies[len(latencies) * 99 // 100]


def slow(stack: Stack, each: int, seconds: float, client_timeout: float) -> dict[str, Any]:
    """The siege of a gateway with two workers on an empty stack; what came of it."""
    host = stack.add_host()
    stack.add_nodes("123")
    env = {
        "WEB_CONCURRENCY": "2",
        "OBJGW_CLIENT_TIMEOUT": str(client_timeout),
        "OBJGW_CLIENT_CONNECTIONS": "4000",  # all of them have one address
        "GUNICORN_CMD_ARGS": f"--keep-alive {client_timeout:.0f}",
    }
    gateway = stack.add_gateway(env, beside=host)
    gateway.wait_ready()
    assert gateway.put(LARGE_ID, bytes(LARGE)).status == 200
    before = gateway.workers()
    report = gateway.load("slow.py", "--each", each, "--seconds", seconds)
    after = gateway.workers()
    memory = {
        f"MiB of worker {id}": [
            round(at[id].memory / 2**20, 1) for at in (before, after) if id in at
        ]
        for id in before
    }
    stored = gateway.get("slow").status != 404
    return {
        **report,
        **memory,
        "workers replaced": len(after.keys() - before.keys()),
        "something stored": stored,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "role", nargs="?", choices=["load"], help="only the clients, against 127.0.0.1"
    )
    parser.add_argument("--each", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument(
        "--client-timeout", type=float, default=30, help="OBJGW_CLIENT_TIMEOUT, and for headers"
    )
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    if given.role == "load":
        print(json.dumps(load(given.each, given.seconds, given.port)))
        return
    with in_tests_container(__file__) as stack:
        report = slow(stack, given.each, given.seconds, given.client_timeout)
        print(json.dumps(report, indent=2))
    raise SystemExit(bool(report["failed"]))


if __name__ == "__main__":
    main()
