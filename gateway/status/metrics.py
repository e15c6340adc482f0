"""Metrics: what this process counts, and what all workers have counted together.

prometheus_client keeps the values of each worker in files, in a folder in memory that all workers
share, and adds them up for whoever asks: https://prometheus.github.io/client_python/multiprocess/

It names a worker's files by its process id and keeps them when the process has ended, because a
counter must not go down; so the folder, and with it the time of each reading, would grow with every
worker that ends. Here the files are named by a number, which the worker's successor gets
(gunicorn.conf.py) and with it the values, from which it counts on. So nothing is lost, not even
what a killed worker had counted, and there are files for as many workers as ever lived at the same
time.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway.version import version

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10)
BYTES_BUCKETS = (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, 1 << 30)


class Metrics:
    """The metrics of this process, and the reading of those of all workers.

    The workers share the folder that PROMETHEUS_MULTIPROC_DIR names. It must be there, and the
    variable set before prometheus_client is imported. Without it (another WSGI server, a test) this
    process is the only worker.
    """

    def __init__(self) -> None:
        name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.folder = Path(name) if name else None
        self._own = CollectorRegistry()
        self._all = self._own
        if self.folder:
            self._all = CollectorRegistry()
            MultiProcessCollector(self._all, str(self.folder))  # type: ignore[no-untyped-call]

        self.seconds = Histogram(
            "objgw_request_seconds",
            "Seconds from a request for an object, or for a path that there isn't, "
            "to the end of its answer.",
            ("method", "status", "node"),
            buckets=SECONDS_BUCKETS,
            registry=self._own,
        )
        self.bytes = Histogram(
            "objgw_object_bytes",
            "Bytes of bodies: received by successful PUTs, sent by GETs.",
            ("method", "node"),
            buckets=BYTES_BUCKETS,
            registry=self._own,
        )
        self.errors = Counter(
            "objgw_upstream_errors",
            "Times that a node couldn't be reached, broke off or was silent.",
            ("node",),
            registry=self._own,
        )
        self.retries = Counter(
            "objgw_upstream_retries",
            "Requests that were sent to a node once more.",
            ("node",),
            registry=self._own,
        )
        self._add_gauges()

    def _add_gauges(self) -> None:
        """Adds what is a state, not a count: of living workers only, so it ends with the worker."""

        def gauge(name: str, text: str, labels: tuple[str, ...], mode: Any) -> Gauge:
            return Gauge(name, text, labels, registry=self._own, multiprocess_mode=mode)

        self.up = gauge("objgw_node_up", "Whether the node answers.", ("node",), "livemax")
        self.breaker = gauge(
            "objgw_breaker_open",
            "Whether a worker refuses requests to the node for a while.",
            ("node",),
            "livemax",
        )
        self.pool = gauge(
            "objgw_upstream_connections",
            "Open connections to the node: idle ones, those that wait for an answer, "
            "those that send an object.",
            ("node", "state"),
            "livesum",
        )
        self.read = gauge(
            "objgw_discovery_last_success_timestamp_seconds",
            "Unix time of the last good reading of Docker, "
            "in the worker that is furthest behind; 0 before the first.",
            (),
            "livemin",
        )
        self.settled = gauge(
            "objgw_layout_settled", "Whether every object is where the layout says.", (), "livemin"
        )
        build = gauge(
            "objgw_build_info", "1; the labels say what runs.", ("version", "python"), "livemax"
        )
        build.labels(version(), platform.python_version()).set(1)

    def text(
        self, accept: str, nodes: Iterable[str], usage: Mapping[str, Mapping[str, Any]] = {}
    ) -> tuple[bytes, str]:
        """All workers' metrics in the format that fits the Accept header, and its Content-Type.

        Of what is a state, only that of these nodes is shown: no alert goes on for one that was
        taken out. What was counted of it stays. `usage` is how full nodes are, where that is known
        (`gateway.status.fullness`).
        """
        encode: Callable[..., bytes] = generate_latest
        content_type = CONTENT_TYPE_PLAIN_0_0_4
        if "application/openmetrics-text" in accept:
            encode, content_type = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
        return encode(StatesOf({*nodes}, self._all, usage)), content_type

    def totals(self) -> list[int]:
        """Requests of all workers since the start: below 400, below 500, and the others."""
        totals = [0, 0, 0]
        for metric in self._all.collect():
            for sample in metric.samples:
                if sample.name == "objgw_request_seconds_count":
                    totals[kind_of(sample.labels["status"])] += int(sample.value)
        return totals


# How full the nodes are: a metric's name, what it is, and what that is called in `/health`.
USAGE = (
    ("objgw_node_size_bytes", "Bytes that the node's disks can hold.", "total_bytes"),
    ("objgw_node_free_bytes", "Bytes of the node's disks that are free.", "free_bytes"),
    ("objgw_node_objects", "Objects on the node, as it has counted them.", "objects"),
    ("objgw_node_objects_bytes", "Bytes of the objects that the node has counted.", "bytes"),
)


class StatesOf(Collector):
    """All that a collector has, except gauges of other nodes than these; and how full nodes are.

    Where there are several workers, prometheus_client can't remove a gauge from their files. How
    full a node is may become unknown, so that it is in no file, and each reading has it anew.
    """

    def __init__(
        self, nodes: set[str], collector: Collector, usage: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._nodes, self._collector, self._usage = nodes, collector, usage

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            if metric.type == "gauge":
                metric.samples = [
                    sample
                    for sample in metric.samples
                    if sample.labels.get("node") in (None, *self._nodes)
                ]
            yield metric
        for name, text, key in USAGE:
            gauge = GaugeMetricFamily(name, text, labels=["node"])
            for node, usage in self._usage.items():
                if usage[key] is not None:
                    gauge.add_metric([node], usage[key])
            yield gauge


def kind_of(status: str) -> int:
    """The kind of a status: 0 is success, 1 a client's fault, 2 the gateway's or a node's."""
    return 0 if status < "400" else 1 if status < "500" else 2


def count_as(number: int) -> None:
    """Names this worker's files by its number, which no other living worker has.

    To be called in the worker before `Metrics` is made: prometheus_client asks when it makes
    a value: https://github.com/prometheus/client_python/issues/509
    """
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def worker_ended(number: int) -> None:
    """Takes the state of a worker that has ended out of the metrics. What it had counted stays."""
    mark_process_dead(number)  # type: ignore[no-untyped-call]


def forget_all() -> None:
    """Removes the workers' folder. For gunicorn's on_exit."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
