#!/usr/bin/env python3
"""The operator's commands and the list before many objects: seconds and peak memory of each.

    bench/scale.py --objects 30000,300000    # as root; needs Docker and 3 GB of memory; 10 minutes

Strategy. The objects are made on the nodes themselves, each on its owner. A node unpacks them from
archives (MinIO's snowball uploads), because as many PUTs would take much longer. Nodes keep them in
memory. Then each command runs in the gateway's container, once for each number of objects, and the
kernel says what its process has needed at most (`ru_maxrss`). The memory must not follow the
number.

The list is read from the gateway, as lines and page by page; the memory is the most that its worker
has had meanwhile (`VmHWM`, proc(5)). Before that, pages of 1,000 from the middle are asked for in
turn with the same range of all nodes' own listings, for the ratio of their times.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

from lab import HERE, IMAGE, OWN, PREFIX, Lab, Target, connect, eventually, owner, signed_headers
from processes import BenchError, children, run

BUCKET = "objgw"
NODES = 3
ARCHIVE = 5000  # objects in one upload
COMMANDS = (["check"], ["nodes"], ["rebalance", "--dry-run"], ["list"])
PAGES = 30  # that are timed
FLAT = 1.3  # times the memory before fewer objects, that a command may need
# Runs a command, and says its exit code, seconds, MiB and output.
MEASURED = """
import json, resource, subprocess, sys, time
began = time.monotonic()
command = [sys.executable, "objgwctl.py", *sys.argv[1:]]
done = subprocess.run(command, capture_output=True, text=True)
print(json.dumps({
    "code": done.returncode,
    "seconds": round(time.monotonic() - began, 1),
    "MiB": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    "output": done.stdout,
    "errors": done.stderr,
}))
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def archive(ids: list[str]) -> bytes:
    """An archive of objects of these ids, a few bytes each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for object_id in ids:
            body = object_id.encode()
            entry = tarfile.TarInfo(object_id)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return file.getvalue()


def store(lab: Lab, node: int, ids: list[str]) -> None:
    """Stores objects on a node.

    https://github.com/minio/minio/pull/11712 (X-Amz-Meta-Snowball-Auto-Extract)
    """
    path, body = f"/{BUCKET}/archive", archive(ids)
    more = {"x-amz-meta-snowball-auto-extract": "true"}
    with closing(connect(lab.node_pids[node], 9000)) as connection:
        headers = signed_headers(node + 1, path, "", "PUT", more)
        connection.request("PUT", path, body, headers)
        reply = connection.getresponse()
        text = reply.read()
    if reply.status != 200:
        raise BenchError(f"node {node + 1} doesn't unpack objects: {reply.status} {text[:300]!r}")


def fill(lab: Lab, numbers: range) -> None:
    """Stores the objects of these numbers, each on its owner."""
    of_node: list[list[str]] = [[] for _ in range(NODES)]
    for number in numbers:
        object_id = f"scale{number}"
        of_node[owner(object_id, NODES)].append(object_id)
    parts = [
        partial(store, lab, node, ids[begin : begin + ARCHIVE])
        for node, ids in enumerate(of_node)
        for begin in range(0, len(ids), ARCHIVE)
    ]
    with ThreadPoolExecutor(NODES) as pool:
        for number, done in enumerate([pool.submit(part) for part in parts]):
            done.result()
            if number % 10 == 9:
                say(f"{number + 1} of {len(parts)} archives are unpacked")


def measure(name: str, command: list[str], objects: int) -> dict[str, Any]:
    """What a command needs; it must have seen all objects."""
    done = run("docker", "exec", name, "python", "-c", MEASURED, *command, "--json")
    found: dict[str, Any] = json.loads(done)
    report, errors = found.pop("output"), found.pop("errors")
    if found["code"] != 0:
        raise BenchError(f"{command[0]} fails: {errors or report}")
    document = {} if command == ["list"] else json.loads(report)
    seen = {
        "list": lambda: report.count("\n"),
        "check": lambda: document["objects"],
        "nodes": lambda: sum(node["objects"] for node in document["nodes"]),
        "rebalance": lambda: objects - document["objects"],  # those to be moved: none
    }[command[0]]()
    if seen != objects:
        raise BenchError(f"{command[0]} counts {seen} of {objects} objects")
    result = {"objects": objects, "command": " ".join(command), **found}
    result["lines of progress"] = len(errors.splitlines())
    say(json.dumps(result))
    return result


def read_lines(gateway: Target) -> Iterator[str]:
    """Reads the list as lines, to its end: the ids."""
    with closing(connect(gateway.pid, gateway.port)) as connection:
        connection.request("GET", "/objects", headers={"Accept": "application/x-ndjson"})
        for line in connection.getresponse():
            yield json.loads(line)["id"]


def read_pages(gateway: Target) -> Iterator[str]:
    """Reads all pages: the ids."""
    after = ""
    while after is not None:
        status, body = gateway.ask("GET", f"/objects?after={after}")
        if status != 200:
            raise BenchError(f"a page is {status}: {body[:300]!r}")
        page = json.loads(body)
        yield from (each["id"] for each in page["objects"])
        after = page["next"]


def lists(gateway: Target, objects: int) -> list[dict[str, Any]]:
    """What the gateway needs for the list."""
    (worker,) = children(gateway.pid)
    results, ids = [], sorted(f"scale{number}" for number in range(objects))
    for command, read in (("GET /objects, lines", read_lines), ("GET /objects, pages", read_pages)):
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak begins anew
        began = time.monotonic()
        if list(read(gateway)) != ids:
            raise BenchError(f"{command} hasn't exactly the {objects} ids that are there")
        seconds = round(time.monotonic() - began, 1)
        status = Path(f"/proc/{worker}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        results.append(
            {"objects": objects, "command": command, "seconds": seconds, "MiB": round(peak, 1)}
        )
        say(json.dumps(results[-1]))
    return results


def page_ratio(lab: Lab, gateway: Target) -> dict[str, float]:
    """Median milliseconds of a page, and of the slowest node's own listing of that range."""
    path, after = f"/{BUCKET}", "scale5"
    query = f"encoding-type=url&list-type=2&max-keys=1000&start-after={after}"

    def seconds(ask: Callable[[], object]) -> float:
        began = time.monotonic()
        ask()
        return time.monotonic() - began

    def listing(number: int) -> None:
        headers = signed_headers(number + 1, path, query)
        with closing(connect(lab.node_pids[number], 9000)) as connection:
            connection.request("GET", f"{path}?{query}", headers=headers)
            connection.getresponse().read()

    pages, nodes = list[float](), list[float]()
    with ThreadPoolExecutor(NODES) as pool:
        for _ in range(PAGES):
            pages.append(seconds(lambda: gateway.ask("GET", f"/objects?after={after}")))
            parts = [partial(seconds, partial(listing, number)) for number in range(NODES)]
            nodes.append(max(pool.map(lambda part: part(), parts)))
    told = {
        "page, ms": statistics.median(pages) * 1000,
        "slowest node, ms": statistics.median(nodes) * 1000,
        "ratio": statistics.median(map(truediv, pages, nodes)),
    }
    return {what: round(value, 2) for what, value in told.items()}


def whole(lab: Lab, counts: list[int]) -> list[dict[str, Any]]:
    """All commands before each number of objects, in rising order."""
    run("docker", "build", "-q", "-t", IMAGE, "--target", "gateway", str(HERE.parent))
    network = lab.network("scale")
    lab.nodes(network, range(1, NODES + 1), "--tmpfs", "/data", "-e", "MINIO_BROWSER=off")
    env = [f"OBJGW_NODE_NAME={lab.marker}", "WEB_CONCURRENCY=1"]
    gateway = lab.gateway(OWN, network, IMAGE, 3000, env)
    eventually("the gateway", lambda: gateway.ask("GET", "/health/ready")[0] == 200)
    for n in range(10 * NODES):  # so that each node has its record and its bucket
        gateway.store(f"scale{n}", 1)
    results, before = [], 0
    for objects in counts:
        began = time.monotonic()
        fill(lab, range(before, objects))
        say(f"{objects} objects are there; {time.monotonic() - began:.0f} s")
        results += [measure(f"{PREFIX}-{OWN}", command, objects) for command in COMMANDS]
        say(json.dumps(page_ratio(lab, gateway)))
        results += lists(gateway, objects)
        before = objects
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--objects", default="30000,300000", help="default: %(default)s")
    given = parser.parse_args()
    counts = sorted(map(int, given.objects.split(",")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    try:
        with Lab(f"{PREFIX}-amazin-object-storage-node") as lab:
            results = whole(lab, counts)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    print("| command | objects | seconds | peak, MiB |\n| --- | --- | --- | --- |")
    for each in sorted(results, key=lambda each: (each["command"], each["objects"])):
        print(f"| `{each['command']}` | {each['objects']} | {each['seconds']} | {each['MiB']} |")
    fewest = {each["command"]: each["MiB"] for each in results if each["objects"] == counts[0]}
    raise SystemExit(any(each["MiB"] > FLAT * fewest[each["command"]] for each in results))


if __name__ == "__main__":
    main()
