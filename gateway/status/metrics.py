"""Metrics: those of this process, and the reading of those of all workers.

The workers share one folder in memory, the one in which prometheus_client keeps a file for each of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import math
import os
import platform
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

log = logging.getLogger("objgw.status")

VERSION = "1"  # of the gateway; openapi.yaml has the same
LOCK_SECONDS = 2.0  # that the workers' files may be held by another process

REQUESTS, BODIES = "objgw_request_seconds", "objgw_object_bytes"
# Text, labels and buckets.
HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    REQUESTS: (
        "Seconds from a request for an object, or for a path that there isn't, to the end of its answer.",
        ("method", "status", "node"),
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10),
    ),
    BODIES: (
        "Bytes of bodies: received by successful PUTs, sent by GETs.",
        ("method", "node"),
        (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, 1 << 30),
    ),
}
ENDS = {  # of the buckets, as Prometheus writes them
    name: [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    for name, (_, _, bounds) in HISTOGRAMS.items()
}
Observe = Callable[[float], None]
Cell = tuple[tuple[str, tuple[str, ...]], int]  # a histogram's name and labels' values; 0 for the sum, then the buckets


class Metrics:
    """The metrics of this process, and the reading of those of all workers.

    With PROMETHEUS_MULTIPROC_DIR, set before prometheus_client is imported, each worker has its files in that folder.
    https://prometheus.github.io/client_python/multiprocess/
    """

    def __init__(self) -> None:
        name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.folder = Path(name) if name else None
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: tuple[str, ...], mode: Any) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)

        self.errors = Counter(
            "objgw_upstream_errors",
            "Times that a node couldn't be reached, broke off or was silent.",
            ("node",),
            registry=registry,
        )
        self.retries = Counter(
            "objgw_upstream_retries", "Requests that were sent to a node once more.", ("node",), registry=registry
        )
        self.up = gauge("objgw_node_up", "Whether the node answers.", ("node",), "livemax")
        self.breaker = gauge(
            "objgw_breaker_open", "Whether a worker refuses requests to the node for a while.", ("node",), "livemax"
        )
        self.pool = gauge(
            "objgw_upstream_connections",
            "Open connections to the node: idle ones, those that wait for an answer, those that send an object.",
            ("node", "state"),
            "livesum",
        )
        self.read = gauge(
            "objgw_discovery_last_success_timestamp_seconds",
            "Unix time of the last good reading of Docker, in the worker that is furthest behind; 0 before the first.",
            (),
            "livemin",
        )
        self.settled = gauge("objgw_layout_settled", "Whether every object is where the layout says.", (), "livemin")
        self.build = gauge("objgw_build_info", "1; the labels say what runs.", ("version", "python"), "livemax")
        self.build.labels(VERSION, platform.python_version()).set(1)
        self._file: Any = None  # of this worker's histograms, once it is open
        self._cells: dict[str, Cell] = {}  # what a key of these files means
        self._single = {
            name: Histogram(name, text, labels, buckets=bounds, registry=registry)
            for name, (text, labels, bounds) in HISTOGRAMS.items()
        }

    def observer(self, name: str, values: tuple[str, ...]) -> Observe:
        """What observes one of `HISTOGRAMS` for these labels' values.

        `Histogram.observe` takes two microseconds; adding to a value where it lies in mapped memory a tenth of one.
        So histograms are in files of prometheus_client's form, but not under its names (bench/README.md).
        """
        if self.folder is None:
            observe: Observe = self._single[name].labels(*values).observe
            return observe
        if self._file is None:
            self._file = MmapedDict(str(self.folder / f"histogram_{os.getpid()}"))  # type: ignore[no-untyped-call]
        bounds = HISTOGRAMS[name][2]
        keys = [json.dumps([name, values, cell]) for cell in range(len(bounds) + 2)]
        for key in keys:
            self._file.read_value(key)  # makes it
        cells = memoryview(self._file._m).cast("d")
        total, *places = [self._file._positions[key] // cells.itemsize for key in keys]

        def observe_in_place(amount: float) -> None:
            cells[total] += amount
            cells[places[bisect_left(bounds, amount)]] += 1

        return observe_in_place

    def text(self, accept: str) -> tuple[bytes, str]:
        """All workers' metrics in the format that fits the Accept header, and its Content-Type."""
        encode: Callable[..., bytes] = generate_latest
        content_type = CONTENT_TYPE_PLAIN_0_0_4
        if "application/openmetrics-text" in accept:
            encode, content_type = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
        if self.folder is None:
            return encode(self.registry), content_type
        registry = CollectorRegistry()
        registry.register(self)  # its `collect`
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]
        with locked(self.folder, fcntl.LOCK_SH):
            return encode(registry), content_type

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All workers' histograms."""
        families = {
            name: HistogramMetricFamily(name, text, labels=labels) for name, (text, labels, _) in HISTOGRAMS.items()
        }
        for (name, values), (total, *counts) in self._merged().items():
            buckets = list(zip(ENDS[name], itertools.accumulate(counts), strict=True))
            families[name].add_metric(values, buckets, total)
        yield from families.values()

    def _merged(self) -> dict[tuple[str, tuple[str, ...]], list[float]]:
        """By name and labels' values: the sum, and the number in each bucket, of all workers together."""
        assert self.folder
        sums: dict[str, float] = {}
        for file in self.folder.glob("histogram_*"):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                sums[key] = sums.get(key, 0.0) + value
        merged: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        for key, value in sums.items():
            cell = self._cells.get(key)
            if cell is None:
                name, values, number = json.loads(key)
                cell = self._cells[key] = (name, tuple(values)), number
            series = merged.get(cell[0])
            if series is None:
                series = merged[cell[0]] = [0.0] * (len(ENDS[cell[0][0]]) + 1)
            series[cell[1]] = value
        return merged

    def totals(self) -> list[int]:
        """Requests of all workers since the start: answered with below 400, below 500, and the others."""
        totals = [0, 0, 0]
        if self.folder is None:
            for metric in self.registry.collect():
                for sample in metric.samples:
                    if sample.name == f"{REQUESTS}_count":
                        totals[kind_of(sample.labels["status"])] += int(sample.value)
            return totals
        with locked(self.folder, fcntl.LOCK_SH):
            for (name, values), (_, *counts) in self._merged().items():
                if name == REQUESTS:
                    totals[kind_of(values[1])] += int(sum(counts))
        return totals


def kind_of(status: str) -> int:
    """0 for a status that is as it should be, 1 for the client's fault, 2 for the gateway's or the node's."""
    return 0 if status < "400" else 1 if status < "500" else 2


@contextlib.contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Holds the lock between those who read the workers' files and the one who puts a dead worker's together.

    Raises BlockingIOError after `LOCK_SECONDS`: the arbiter mustn't wait for a worker that hangs.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with open(folder / "lock", "a") as file:
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        yield


def bury(pid: int) -> None:
    """Adds what a worker that has ended had counted to the files of the dead, and removes its own.

    So counters don't go down when a worker ends, and the folder doesn't grow with each that does. For gunicorn's
    child_exit, in the arbiter, where an exception would end all.
    """
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    try:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
        with locked(folder, fcntl.LOCK_EX):
            for name in ("counter_{}.db", "histogram_{}"):
                file = folder / name.format(pid)
                if not file.exists():
                    continue
                dead: Any = MmapedDict(str(folder / name.format("dead")))  # type: ignore[no-untyped-call]
                for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                    dead.write_value(key, dead.read_value(key)[0] + value, 0.0)
                dead.close()
                file.unlink()
    except (OSError, ValueError, RuntimeError) as error:
        log.warning("the metrics of worker %d are left where they are: %s", pid, error)


def forget_all() -> None:
    """Removes the workers' folder. For gunicorn's on_exit."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
