#!/usr/bin/env python3
"""The benchmark: this gateway beside nginx, MinIO itself, an empty WSGI app and any other gateway,
in one run.

    bench/run.py --quick            # 3 minutes; without --quick 20

Strategy. A *cell* is one kind of request at one number of connections. In each round every cell
runs on every target, one right after the other, and the first one changes from round to round, so
that whatever else the machine does meets all of them. wrk makes the load, from a file of requests;
large objects, and many at once, come from this script's own client. Every load is bounded in time,
connections and bytes, and goes to loopback only (see lab.py).

Needs root, Python 3.11 or later and nothing that pip installs.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPResponse
from typing import Any, NamedTuple

from lab import (
    BUCKET,
    HERE,
    IMAGE,
    OWN,
    PREFIX,
    REFUSED,
    Lab,
    Target,
    connect,
    owner,
    presigned,
    side_by_side,
    signed_headers,
)
from processes import BenchError, children, container_memory, run
from report import METHODS, Results, Sample, machine, table

KIB, MIB = 1024, 1024 * 1024
LARGE = 256 * MIB
CROWD, CROWD_BYTES = 40, 64 * MIB  # uploads, and as many downloads, at once
WHOLE, QUICK = 12 * 60, 125  # seconds that the rounds may take: the more gateways, the fewer rounds
# A fresh gateway keeps uploads on disk, until it knows that its nodes don't store what is cut.
KNOWN_SECONDS = 5
CONNECTIONS = (1, 32, 256)
BASELINES = ("empty", "gevent", "quiet", "nginx3")  # measured with small GETs only
BEGIN = time.monotonic()


# --------------------------------------------------------------------------------------------------
# Work
# --------------------------------------------------------------------------------------------------
class Work(NamedTuple):
    """Requests (method and id) that are sent in turn, how many bytes a PUT has, whether 404 is the
    right answer, and at how many connections at most it is measured.
    """

    title: str
    requests: list[tuple[str, str]]
    body: int = KIB
    missing: bool = False
    most: int = 256


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:04}" for number in range(count)]


SMALL, PAGES, MEGS, PUTS = ids("small", 300), ids("page", 300), ids("meg", 30), ids("put", 2000)
# An object of the first of three nodes, the one that direct and nginx have.
ONE = next(each for each in SMALL if owner(each, 3) == 0)
MIXED = [("PUT", each) if n % 10 == 0 else ("GET", SMALL[n % 300]) for n, each in enumerate(PUTS)]
WORKS = {
    "GET": Work("GET 1 KiB", [("GET", each) for each in SMALL]),
    "ONE": Work("GET 1 KiB, always the same", [("GET", ONE)], most=32),
    "PUT": Work("PUT 1 KiB", [("PUT", each) for each in PUTS]),
    "MIXED": Work("90 % GET, 10 % PUT", MIXED),
    "404": Work("GET of nothing", [("GET", each) for each in ids("none", 300)], missing=True),
    "GET4K": Work("GET 4 KiB", [("GET", each) for each in PAGES]),
    "GET1M": Work("GET 1 MiB", [("GET", each) for each in MEGS]),
    "PUT1M": Work("PUT 1 MiB", [("PUT", each) for each in ids("putmeg", 30)], MIB, most=32),
    "PUT16M": Work("PUT 16 MiB", [("PUT", each) for each in ids("putmany", 4)], 16 * MIB, most=1),
}
PARTS = (*WORKS, "LARGE", "MEMORY", "UPSTREAM", "NODES")


def fill(target: Target, megs: list[str] = MEGS) -> None:
    """Stores what the GETs ask for."""
    stored = [(SMALL, KIB), (PAGES, 4 * KIB), (megs, MIB)]
    for result in side_by_side(
        [partial(target.store, each, size) for names, size in stored for each in names], 8
    ):
        if isinstance(result, Exception):
            raise result


# --------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------
def measure(lab: Lab, target: Target, work: Work, connections: int, seconds: int) -> Sample:
    """Runs one cell, with wrk in the target's namespace."""
    requests = lab.folder / "requests"
    requests.write_text(
        "".join(f"{method} {target.path(method, each)}\n" for method, each in work.requests)
    )
    command = [
        "nsenter",
        "-t",
        str(target.pid),
        "-n",
        "wrk",
        "-t",
        str(min(connections, 2)),
        "-c",
        str(connections),
    ]
    command += ["-d", f"{seconds}s", "--timeout", "10s", "-s", f"{HERE}/load.lua"]
    before, nodes_before = target.cpu(), lab.nodes_cpu()
    said = run(*command, f"http://127.0.0.1:{target.port}/", "--", str(requests), str(work.body))
    used, nodes_used = target.cpu() - before, lab.nodes_cpu() - nodes_before
    found = re.search(r"^RESULT (.*)$", said, re.MULTILINE)
    if not found:
        raise BenchError(f"wrk said {said!r}")
    count, duration, p50, p99, refused, broken = map(int, found[1].split())
    failed = broken + (count - refused if work.missing else refused)
    cpu, nodes_cpu = used * 1000 / max(count, 1), nodes_used * 1000 / max(count, 1)
    return Sample(count / duration * 1e6, p50 / 1000, p99 / 1000, cpu, nodes_cpu, failed)


def rounds(
    lab: Lab, results: Results, targets: list[Target], cells: list[tuple[str, int]], args: Any
) -> None:
    """All cells, and one large object each way, on all targets, in turn, several times."""
    for target in targets:
        measure(lab, target, WORKS["GET"], 32, 1)  # warms up; nobody sees it
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        turn = targets[number % len(targets) :] + targets[: number % len(targets)]
        for work, connections in cells:
            for target in turn:
                if work == "GET" or target.name not in BASELINES:
                    sample = measure(lab, target, WORKS[work], connections, args.seconds)
                    results.samples[work, connections, target.name].append(sample)
        for method in ("PUT", "GET") if "LARGE" in args.only else ():
            for target in turn:
                if target.name not in BASELINES:
                    move = target.upload if method == "PUT" else target.download
                    results.large[method, target.name].append(move("large", LARGE))
            os.sync()  # what was written isn't the next one's business


def crowd(gateway: Target, slow: float) -> tuple[float, str]:
    """Uploads and downloads at once, every second one taking `slow` seconds: peak MiB, and how it
    went.
    """
    names = ids("crowd", 8)
    for name in names:
        gateway.upload(name, CROWD_BYTES)
    calls: list[Callable[[], Any]] = []
    for n in range(CROWD):
        calls.append(partial(gateway.upload, f"up{n}", CROWD_BYTES, n % 2 * slow))
        calls.append(partial(gateway.download, names[n % len(names)], CROWD_BYTES, n % 2 * slow))
    begin = time.monotonic()
    failed = [result for result in side_by_side(calls, len(calls)) if isinstance(result, Exception)]
    seconds, peak = time.monotonic() - begin, container_memory(gateway.pid)
    if failed:
        say(f"{gateway.name}: {failed[0]!r}")
    return peak, f"{peak:.0f} MiB ({seconds:.0f} s, {len(failed)} of {len(calls)} failed)"


class Trace:
    """The S3 requests that nodes get, told by the nodes as they come (what `mc admin
    trace` shows).
    """

    def __init__(self, nodes: list[Target]) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.connections = []
        for number, node in enumerate(nodes, 1):
            connection = connect(node.pid, node.port)
            headers = signed_headers(number, "/minio/admin/v3/trace", "s3=true")
            connection.request("GET", "/minio/admin/v3/trace?s3=true", headers=headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise BenchError(f"trace of a node: {reply.status} {reply.read()!r}")
            self.connections.append(connection)
            threading.Thread(target=self._read, args=[reply], daemon=True).start()

    def _read(self, reply: HTTPResponse) -> None:
        with contextlib.suppress(*REFUSED, ValueError):  # closed
            for line in reply:
                call = json.loads(line) if line.strip() else None
                if (
                    call and "-layout/" not in call["path"]
                ):  # not the gateway's look at the node's record, once a second
                    self.calls[call["funcname"].removeprefix("s3.")] += 1

    def close(self) -> None:
        for connection in self.connections:
            connection.sock.shutdown(socket.SHUT_RDWR)


def upstream(gateway: Target, nodes: list[Target]) -> dict[str, str]:
    """How many S3 requests, and which, the nodes get for each request of a kind."""
    trace, names, found = Trace(nodes), ids("count", 50), {}
    for method in METHODS:
        time.sleep(0.5)
        trace.calls.clear()
        for name in names:
            status, _ = gateway.ask(
                method, gateway.path(method, name), b"x" * KIB if method == "PUT" else None
            )
            if status not in (200, 201, 204):
                raise BenchError(f"{gateway.name}: {method} {name}: {status}")
        time.sleep(1.5)  # until the nodes have told all
        calls = dict(trace.calls)
        found[method] = f"{sum(calls.values()) / len(names):g} ({', '.join(sorted(calls))})"
    trace.close()
    return found


def grow(lab: Lab, results: Results, args: Any) -> None:
    """A gateway of one node in turn with a gateway of twelve, and nginx before the same ones."""
    lab.sweep()
    targets = []
    for count, numbers in (1, range(1, 2)), (12, range(2, 14)):
        network = lab.network(f"nodes-{count}")
        nodes = lab.nodes(network, numbers)
        for number, node in zip(numbers, nodes, strict=True):
            open_bucket(number, node)
            fill(node, MEGS[:0])
        gateway = lab.own(network, f"of-{count}")
        fill(gateway, MEGS[:0])
        targets += [
            (OWN, count, gateway),
            ("nginx", count, lab.nginx(network, gateway.pid, numbers)[1]),
        ]
    for _, _, target in targets:
        measure(lab, target, WORKS["GET"], 32, 1)
    for _ in range(args.rounds):
        for name, count, target in targets:
            results.nodes[name, count].append(measure(lab, target, WORKS["GET"], 32, args.seconds))


def profile(lab: Lab, gateway: Target) -> str:
    """Where a worker's time goes, by py-spy: the functions with the largest shares of their own."""
    raw = lab.folder / "profile"
    command = [
        "py-spy",
        "record",
        "-p",
        str(children(gateway.pid)[0]),
        "-d",
        "8",
        "-r",
        "500",
        "-F",
        "-f",
        "raw",
    ]
    with subprocess.Popen(
        [*command, "-o", str(raw)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        measure(lab, gateway, WORKS["GET"], 32, 10)
    own: collections.Counter[str] = collections.Counter()
    for line in raw.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        function = stack.rsplit(";", 1)[-1]
        if not function.startswith(("acquire_with_timeout", "Hub.run")):  # gevent's ways of waiting
            own[function] += int(count)
    rows = [[f"{count / own.total():.1%}", f"`{name}`"] for name, count in own.most_common(30)]
    return table(["own time", "function"], rows)


# --------------------------------------------------------------------------------------------------
# The run
# --------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    print(f"{time.monotonic() - BEGIN:5.0f} s  {text}", file=sys.stderr, flush=True)


def open_bucket(number: int, node: Target) -> None:
    """Makes a node's bucket for direct requests and nginx: everybody may read and write it."""
    rights = ["s3:GetObject", "s3:PutObject", "s3:ListBucket"]  # without the last one a miss is 403
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": rights,
        "Resource": resources,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    for more, body in ("", b""), ("&policy=", policy):
        status, text = node.ask("PUT", presigned(number, "PUT", f"/{BUCKET}", more), body)
        if status not in (200, 204):
            raise BenchError(f"making the bucket: {status} {text!r}")


def whole(lab: Lab, args: argparse.Namespace) -> str:
    """Everything that was asked for; the report."""
    results = Results()
    run("docker", "build", "-q", "-t", IMAGE, str(HERE.parent))
    network = lab.network("main")
    nodes = lab.nodes(network, range(1, 4))
    for number, node in enumerate(nodes, 1):
        open_bucket(number, node)
    starts = {OWN: partial(lab.own, network)}
    for other in args.gateway:
        name, _, rest = other.partition("=")
        image, port, *env = rest.split(",")
        starts[name] = partial(lab.gateway, network=network, image=image, port=int(port), env=env)
    gateways = [start(name=name) for name, start in starts.items()]
    empty = lab.app("empty", network, "empty")
    apps = [
        empty,
        lab.app("gevent", network, "empty", "-k", "gevent"),
        lab.app("quiet", network, "quiet"),
    ]
    targets = [nodes[0], *lab.nginx(network, empty.pid, range(1, 4)), *apps, *gateways]
    for target in (*nodes, *gateways):
        fill(target)
    say("up")

    many = (32,) if args.quick else CONNECTIONS
    cells = [
        (work, n)
        for work in WORKS
        if work in args.only
        for n in (CONNECTIONS if work == "GET" else many)
        if n <= WORKS[work].most
    ]
    measured = sum(len(targets) - (len(BASELINES) if work != "GET" else 0) for work, _ in cells)
    a_round = measured * (args.seconds + 0.2) + 3 * len(targets)
    args.rounds = args.rounds or max(2, min(5, int((QUICK if args.quick else WHOLE) / a_round)))
    rounds(lab, results, targets, cells, args)
    results.peak = {gateway.name: container_memory(gateway.pid) for gateway in gateways}
    ran_on = machine()

    if args.profile:
        say("profile")
        results.profile = profile(lab, gateways[0])
    for gateway in gateways if "UPSTREAM" in args.only else ():
        say(f"{gateway.name}: requests upstream")
        results.upstream[gateway.name] = upstream(gateway, nodes)
    for gateway in gateways if "MEMORY" in args.only else ():
        say(f"{gateway.name}: {CROWD} uploads and {CROWD} downloads")
        run("docker", "rm", "-f", f"{PREFIX}-{gateway.name}")
        fresh = starts[gateway.name](
            name=f"{gateway.name}-crowd"
        )  # cgroup version 2 can't reset a peak
        fresh.store("ready", 1)
        time.sleep(KNOWN_SECONDS)
        results.crowd[gateway.name] = crowd(fresh, 8 if args.quick else 20)
    if "NODES" in args.only and not args.quick:
        say("1 and 12 nodes")
        grow(lab, results, args)
    quick = ", --quick" if args.quick else ""
    how = (
        f"{args.rounds} rounds, {args.seconds} s a cell{quick}. What the figures mean: "
        f"README.md.\n\n{ran_on}"
    )
    return results.markdown(how, {name: work.title for name, work in WORKS.items()})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="objgw beside nginx, MinIO and other gateways: bench/README.md"
    )
    option = parser.add_argument
    option(
        "--quick",
        action="store_true",
        help="3 minutes: mostly 32 connections, without the growth to 12 nodes",
    )
    option("--write", action="store_true", help="keep the report as bench/RESULTS.md")
    option(
        "--gateway",
        action="append",
        default=[],
        metavar="NAME=IMAGE,PORT[,ENV=VALUE...]",
        help="one more",
    )
    option(
        "--marker",
        default=f"{PREFIX}-amazin-object-storage-node",
        help="a node's name is this, '-' and a number",
    )
    option("--only", default=",".join(PARTS), help="some of %(default)s")
    option("--rounds", type=int, default=0, help="default: what the time allows, 2 to 5")
    option("--seconds", type=int, default=0, help="of a cell; default 2, with --quick 1")
    option("--profile", action="store_true", help="add where a worker's time goes (needs py-spy)")
    args = parser.parse_args()
    args.seconds = args.seconds or (1 if args.quick else 2)
    args.only = args.only.upper().split(",")
    if wrong := set(args.only) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}; not {', '.join(wrong)}")
    for other in args.gateway:
        if not re.fullmatch(r"[a-z0-9-]+=[^,]+,\d+(,\w+=[^,]*)*", other):
            parser.error(f"{other!r} isn't NAME=IMAGE,PORT[,ENV=VALUE...]")
    return args


def main() -> None:
    args = arguments()
    tools = ["docker", "wrk", "nginx", "nsenter", "git", *(["py-spy"] if args.profile else [])]
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        sys.exit(f"bench: not found on this machine: {', '.join(missing)}")
    if os.geteuid() != 0:
        sys.exit("bench: needs root, to enter the network namespaces of containers")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    try:
        run("docker", "version")
        with Lab(args.marker) as lab:
            report = whole(lab, args)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    print(report)
    if args.write:
        (HERE / "RESULTS.md").write_text(report)
    say("done")


if __name__ == "__main__":
    main()
