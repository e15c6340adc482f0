#!/usr/bin/env python3
"""What looking costs: microseconds a request for metrics, log and headers, and milliseconds a
scrape of many nodes.

    pip install -r requirements.txt && bench/status.py --nodes 12 --workers 4

CPU time, the best of several rounds, without a network, Docker or a node: only the files in memory
are real.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
FOLDER = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="objgwb-", dir="/dev/shm")
from gevent import monkey

monkey.patch_all()
import objgw  # noqa: E402
from gateway.answers import Answer  # noqa: E402
from gateway.settings import Settings  # noqa: E402
from gateway.status.recorder import Recorder  # noqa: E402

KINDS = (
    ("GET", "200 OK"),
    ("GET", "404 Not Found"),
    ("HEAD", "200 OK"),
    ("PUT", "200 OK"),
    ("DELETE", "204 No Content"),
)


def best(call: Callable[[], object], number: int) -> float:
    """CPU seconds of one call."""
    return min(timeit.repeat(call, number=number, repeat=7, timer=time.process_time)) / number


def observed(recorder: Recorder, method: str, answer: str, node: str) -> None:
    """What a request costs besides being answered."""
    seen = recorder.begin({"REQUEST_METHOD": method, "PATH_INFO": "/object/readme1"})
    seen.asks(node, 0, 0)
    seen.upstream += 0.0012
    seen.end(Answer(answer, [], [b"x" * 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    log = os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where the access log goes
    assert log == 2
    try:
        for _ in range(args.workers - 1):
            if not os.fork():
                serve(args.nodes)
                os._exit(0)
        recorder = serve(args.nodes)
        for _ in range(args.workers - 1):
            os.wait()
        request = best(lambda: observed(recorder, "GET", "200 OK", name_of(1)), 20_000)
        nodes = [name_of(number) for number in range(args.nodes)]
        scrape = best(lambda: recorder.metrics.text("", nodes), 5)
        size = len(recorder.metrics.text("", nodes)[0])
        print(f"a request: {request * 1e6:.1f} us")
        print(
            f"a scrape of {args.nodes} nodes and {args.workers} workers: "
            f"{scrape * 1e3:.1f} ms, {size} bytes"
        )
        print(f"a point of the plot: {best(recorder.metrics.totals, 20) * 1e3:.2f} ms")
    finally:
        shutil.rmtree(FOLDER)


def name_of(number: int) -> str:
    return f"amazin-object-storage-node-{number}"


def serve(nodes: int) -> Recorder:
    """Has one worker's metrics of every node."""
    recorder = objgw.Gateway(Settings()).recorder
    for number in range(nodes):
        name = name_of(number)
        for method, answer in KINDS:
            observed(recorder, method, answer, name)
        recorder.metrics.up.labels(name).set(1)
        recorder.metrics.breaker.labels(name).set(0)
        for state in ("idle", "waiting", "sending"):
            recorder.metrics.pool.labels(name, state).set(1)
    return recorder


if __name__ == "__main__":
    main()
