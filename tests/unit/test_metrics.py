"""What several workers count together: exact, in both formats, and for longer than a worker lives.

Each worker is a process of its own, as under gunicorn: prometheus_client decides when it is
imported whether there are several.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.status import metrics
from gateway.status.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]  # values by name and labels
StartWorker = Callable[[int], ProcessPoolExecutor]

PARSERS = {"": parse_text, "application/openmetrics-text; version=1.0.0": parse_openmetrics}
COUNTED = ("_total", "_count", "_sum", "_bucket")  # how the names of what must not go down end
REQUEST = {"method": "GET", "node": "node-1", "status": "200"}
LISTED = {  # every metric, with its labels
    "objgw_request_seconds": {"method", "status", "node"},
    "objgw_object_bytes": {"method", "node"},
    "objgw_upstream_errors": {"node"},
    "objgw_upstream_retries": {"node"},
    "objgw_node_up": {"node"},
    "objgw_node_size_bytes": {"node"},
    "objgw_node_free_bytes": {"node"},
    "objgw_node_objects": {"node"},
    "objgw_node_objects_bytes": {"node"},
    "objgw_breaker_open": {"node"},
    "objgw_upstream_connections": {"node", "state"},
    "objgw_discovery_last_success_timestamp_seconds": set[str](),
    "objgw_layout_settled": set[str](),
    "objgw_build_info": {"version", "python"},
}
USAGE = {"total_bytes": 100, "free_bytes": 40, "objects": 3, "bytes": 50}


# -- what runs in a worker


@cache
def own() -> Metrics:
    return Metrics()


def count(times: int, status: str = "200") -> None:
    """Counts requests of 2 ms and 1 s in turn, and sets one of each gauge with labels."""
    observe = own().seconds.labels("GET", status, "node-1").observe
    for number in range(times):
        observe((0.002, 1)[number % 2])
        own().bytes.labels("GET", "node-1").observe(4096)
    own().errors.labels("node-1").inc(2)
    own().retries.labels("node-1").inc()
    own().up.labels("node-1").set(1)
    own().breaker.labels("node-1").set(1)
    own().pool.labels("node-1", "idle").set(3)


def text(accept: str = "", nodes: Collection[str] = ("node-1",)) -> str:
    return own().text(accept, nodes, dict.fromkeys(nodes, USAGE))[0].decode()


def totals() -> list[int]:
    return own().totals()


# -- what the tests need


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    """Starts a worker with a number."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as running:

        def start_worker(number: int) -> ProcessPoolExecutor:
            return running.enter_context(
                ProcessPoolExecutor(
                    1, mp_context=spawn, initializer=metrics.count_as, initargs=(number,)
                )
            )

        yield start_worker


def kill(worker: ProcessPoolExecutor) -> None:
    """Ends a worker as the kernel does when memory is short."""
    os.kill(worker.submit(os.getpid).result(), signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        worker.submit(os.getpid).result()


def samples(worker: ProcessPoolExecutor, accept: str = "") -> Samples:
    """All that a worker shows when it is asked for metrics."""
    parse: Any = PARSERS[accept]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(worker.submit(text, accept).result())
        for sample in family.samples
    }


def sample(of: Samples, name: str, **labels: str) -> float:
    return of[name, tuple(sorted(labels.items()))]


def counted(worker: ProcessPoolExecutor) -> Samples:
    return {key: value for key, value in samples(worker).items() if key[0].endswith(COUNTED)}


# -- the tests


@pytest.mark.parametrize("accept", PARSERS)
def test_whichever_worker_is_asked_shows_exactly_what_all_have_counted(
    start: StartWorker, accept: str
) -> None:
    workers = [start(number) for number in range(4)]
    times = [1000, 1002, 1004, 1006]
    for counting in [
        worker.submit(count, each) for worker, each in zip(workers, times, strict=True)
    ]:
        counting.result()
    shown = samples(workers[0], accept)
    assert sample(shown, "objgw_request_seconds_count", **REQUEST) == 4012
    assert sample(shown, "objgw_request_seconds_sum", **REQUEST) == pytest.approx(2006 * 1.002)
    buckets = {"0.001": 0, "0.0025": 2006, "0.5": 2006, "2.5": 4012, "+Inf": 4012}
    for bound, requests in buckets.items():
        assert sample(shown, "objgw_request_seconds_bucket", **REQUEST, le=bound) == requests
    assert sample(shown, "objgw_object_bytes_sum", method="GET", node="node-1") == 4012 * 4096
    assert sample(shown, "objgw_upstream_errors_total", node="node-1") == 8
    assert sample(shown, "objgw_upstream_retries_total", node="node-1") == 4
    assert sample(shown, "objgw_upstream_connections", node="node-1", state="idle") == 12
    assert sample(shown, "objgw_node_up", node="node-1") == 1
    assert [samples(worker, accept) for worker in workers[1:]] == [shown] * 3


@pytest.mark.parametrize("accept", PARSERS)
def test_every_metric_has_its_labels_in_both_formats(start: StartWorker, accept: str) -> None:
    worker = start(0)
    worker.submit(count, 1).result()
    parse: Any = PARSERS[accept]
    shown = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in parse(worker.submit(text, accept).result())
    }
    assert shown == LISTED


def test_what_a_killed_worker_had_counted_stays_and_its_successor_counts_on(
    start: StartWorker, tmp_path: Path
) -> None:
    killed, other = start(0), start(1)
    killed.submit(count, 10).result()
    other.submit(count, 10).result()
    files = sorted(tmp_path.iterdir())
    for _ in range(3):
        before = counted(other)
        kill(killed)
        metrics.worker_ended(0)
        assert counted(other) == before
        killed = start(0)
        killed.submit(count, 1).result()
    after = counted(other)
    assert sample(after, "objgw_request_seconds_count", **REQUEST) == 23
    assert sample(after, "objgw_upstream_errors_total", node="node-1") == 10
    assert sorted(tmp_path.iterdir()) == files  # no more with each worker that ends


def test_the_state_of_a_worker_ends_with_it(start: StartWorker) -> None:
    ended, other = start(0), start(1)
    for worker in (ended, other):
        worker.submit(count, 1).result()
    assert sample(samples(other), "objgw_upstream_connections", node="node-1", state="idle") == 6
    kill(ended)
    metrics.worker_ended(0)
    assert sample(samples(other), "objgw_upstream_connections", node="node-1", state="idle") == 3


def test_how_full_a_node_is_and_what_it_holds_is_shown_as_far_as_it_is_known() -> None:
    uncounted = {**USAGE, "objects": None, "bytes": None}
    shown = Metrics().text("", ["full", "new", "none"], {"full": USAGE, "new": uncounted})[0]
    values = {
        (sample.name.removeprefix("objgw_node_"), sample.labels["node"]): sample.value
        for family in parse_text(shown.decode())
        for sample in family.samples
        if sample.name.startswith("objgw_node_")
    }
    assert values == {
        ("size_bytes", "full"): 100,
        ("size_bytes", "new"): 100,
        ("free_bytes", "full"): 40,
        ("free_bytes", "new"): 40,
        ("objects", "full"): 3,
        ("objects_bytes", "full"): 50,
    }


def test_of_a_node_that_was_taken_out_only_what_was_counted_is_shown(start: StartWorker) -> None:
    worker = start(0)
    worker.submit(count, 1).result()
    shown = {
        sample.name
        for family in parse_text(worker.submit(text, "", ["node-2"]).result())
        for sample in family.samples
        if sample.labels.get("node") == "node-1"
    }
    assert shown == {
        "objgw_request_seconds_bucket",
        "objgw_request_seconds_count",
        "objgw_request_seconds_sum",
        "objgw_object_bytes_bucket",
        "objgw_object_bytes_count",
        "objgw_object_bytes_sum",
        "objgw_upstream_errors_total",
        "objgw_upstream_retries_total",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("200", [4, 0, 0]),
        ("304", [4, 0, 0]),
        ("404", [0, 4, 0]),
        ("499", [0, 4, 0]),
        ("500", [0, 0, 4]),
        ("503", [0, 0, 4]),
    ],
)
def test_a_request_is_good_or_the_clients_fault_or_not(status: str, expected: list[int]) -> None:
    alone = Metrics()
    for method in ("GET", "PUT"):
        for _ in range(2):
            alone.seconds.labels(method, status, "node-1").observe(0.1)
    assert alone.totals() == expected


def test_totals_are_those_of_all_workers(start: StartWorker) -> None:
    workers = [start(number) for number in range(2)]
    for worker in workers:
        worker.submit(count, 3).result()
        worker.submit(count, 2, "404").result()
        worker.submit(count, 1, "503").result()
    assert [worker.submit(totals).result() for worker in workers] == [[6, 4, 2]] * 2
