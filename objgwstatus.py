"""What is not needed to answer `/object/{id}`, but to run a gateway: logs, metrics, health, and a page for people.

Strategy. A request costs one `Observation`: it is made when the request comes, hangs in a context variable while the
request is worked on, so that whoever meets an event on the way (an upstream error, a retry) notes it there, and ends
with the answer: two histograms are observed and one line is written. All that a label or a line needs is resolved once
and kept. An answer that is there as a whole is counted before its first byte is sent, a download before its last
block is: whoever has an answer finds it in the metrics, whichever worker is asked.

The workers share one folder in memory, the one in which prometheus_client keeps a file for each of them. One worker,
the one that holds the lock `leader`, watches: it asks the nodes whether they live, keeps the last minutes' figures and
counts objects, all in the background and each with a bound, and writes what it knows to `watch.json`. Every worker
answers from that file; none asks a node because of a request for health. When the leader ends, the kernel gives the
lock to another, which goes on from the file. Without the folder (another WSGI server, a test) a process leads itself.

Worst case for a request to any of the paths below: reading the workers' files. For a node: one connection each
`PROBE_SECONDS`, none where its answers to clients say the same; ten pages of its list each minute while somebody looks.

Nothing in here holds a key, a token, or says an address; what clients send gets into a line only where it is printable.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

from objgwhttp import RETRY_AFTER, Answer, Environ, Headers, Refusal, unavailable
from objgwlayout import OBJECT_ID, owner
from objgwstorage import Node, Request, UpstreamError

if TYPE_CHECKING:
    from objgw import Settings
    from objgwnodes import Discovery

log = logging.getLogger("objgw.status")

VERSION = "1"  # of the gateway; openapi.yaml has the same

TICK_SECONDS = 1.0  # between two looks of a worker at its own state
PROBE_SECONDS = 2.0  # between two questions to a node, and the longest that one may take
STALE_SECONDS = 10.0  # after which what the leader wrote says nothing any more
BEGIN_SECONDS = 1.0  # that a question about health may wait in a worker that has just begun
SAMPLE_SECONDS = 5.0  # between two points of the plot
SAMPLES = 60  # points of the plot
CENSUS_SECONDS = 60.0  # between two counts of objects
LOOKED_SECONDS = 30.0  # after a look at the page, for which objects are counted
CENSUS_PAGES = 10  # of 1000 objects, read of one node
RETRY_LOG_SECONDS = 10.0  # for which one line tells of a node's retries
LOCK_SECONDS = 2.0  # that the workers' files may be held by another process
FLUSH_SECONDS = 0.2  # for which a line of the access log may wait
FLUSH_LINES = 500  # that may wait
PIPE_BUF = 4096  # bytes that are written to a pipe at once or not at all (pipe(7)), so that workers' lines don't mingle

NO_NODE = "none"  # the label where a request got to no node
METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
PAGE = Path(__file__).with_name("objgwstatus.html")


# ---------------------------------------------------------------------------------------------------------------------
# Logs
# ---------------------------------------------------------------------------------------------------------------------

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")  # what is taken of a client; nothing that a log must escape
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def stamp(seconds: float) -> str:
    """The time as RFC 3339 wants it, in UTC: "2026-11-23T13:47:57.123Z"."""
    whole = int(seconds)
    if whole != _stamp[0]:
        _stamp[:] = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_stamp[1]}.{int(seconds * 1000) % 1000:03d}Z"


_stamp: list[Any] = [0, ""]


def request_of(record: logging.LogRecord) -> str:
    """The id of the request in which the gateway logs this; none of what the server says of a connection."""
    return current.get().request_id if record.name.startswith("objgw") else ""


class LineFormatter(logging.Formatter):
    """Log records as lines to read. Control characters of a message are escaped; a traceback keeps its line ends."""

    def format(self, record: logging.LogRecord) -> str:
        message = UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", record.getMessage())
        line = f"{stamp(record.created)} {record.levelname} {record.name} {message}"
        if request := request_of(record):
            line += f" request={request}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Log records as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        said = {"time": stamp(record.created), "level": record.levelname.lower(), "logger": record.name}
        said["message"] = record.getMessage()
        if request := request_of(record):
            said["request"] = request
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def log_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes: all of gunicorn's and the gateway's records to standard error, one form.

    >>> log_settings({"OBJGW_LOG_FORMAT": "json"})["formatters"]["line"]["class"]
    'objgwstatus.JsonFormatter'
    """
    text = environ.get("OBJGW_LOG_FORMAT", "")
    if path := environ.get("OBJGW_LOG_FORMAT_FILE"):
        with contextlib.suppress(OSError, ValueError):  # where the settings are read, it is refused
            text = Path(path).read_text()
    kind = JsonFormatter if text.strip() == "json" else LineFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"class": f"{__name__}.{kind.__name__}"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {name: {"level": "INFO", "handlers": [], "propagate": True} for name in ("gunicorn.error",)},
    }


class Lines:
    """Lines on their way to a file descriptor: written together every `FLUSH_SECONDS`, and when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []

    def start(self) -> None:
        """Starts the thread that writes."""
        atexit.register(self.flush)
        threading.Thread(target=self._run, name="objgw-lines", daemon=True).start()

    def add(self, line: str) -> None:
        """Adds a line, which ends with a line end and is ASCII."""
        self._lines.append(line)
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Writes all lines that wait, in pieces that other processes' lines can't get into."""
        lines, self._lines = self._lines, []
        piece = ""
        with contextlib.suppress(OSError):  # nobody reads it any more
            for line in lines:
                if len(piece) + len(line) > PIPE_BUF:
                    self._write(piece.encode("ascii", "replace"))
                    piece = ""
                piece += line
            self._write(piece.encode("ascii", "replace"))

    def _write(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]

    def _run(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            self.flush()


# ---------------------------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------------------------

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


# ---------------------------------------------------------------------------------------------------------------------
# One request
# ---------------------------------------------------------------------------------------------------------------------


class Observation:
    """A request as seen from outside, from its first line to the last byte of its answer."""

    __slots__ = ("_status", "began", "bytes", "method", "node", "own", "path", "request_id", "status", "upstream")

    def __init__(self, status: Status | None = None, method: str = "", path: str = "", request_id: str = "") -> None:
        self._status = status
        self.method, self.path, self.request_id = method, path, request_id
        self.began = time.monotonic()
        self.node = NO_NODE
        self.status = ""
        self.bytes = 0  # of the body, received by PUT or sent
        self.upstream = 0.0  # seconds from sending the node a request to the head of its answer
        self.own = False  # it is about the gateway itself, so that it isn't counted

    def asks(self, node: str, attempt: int, length: int) -> None:
        """Notes that a node is to be asked, the first time (attempt 0) or again, with so many bytes to store."""
        self.node, self.bytes = node, length
        if attempt and self._status:
            self._status.retried(node)

    def failed(self, node: str) -> None:
        """Notes that a node couldn't be reached, broke off or was silent."""
        if self._status:
            self._status.metrics.errors.labels(node).inc()

    def end(self, answer: Answer) -> Answer:
        """The answer with the headers that say how it came about; it is counted and logged now, or when it is sent."""
        headers, body = answer.headers, answer.body
        headers.append(("X-Request-Id", self.request_id))
        if self.upstream:
            headers.append(("Server-Timing", f"upstream;dur={self.upstream * 1000:.1f}"))
        if self.own:
            return answer
        self.status = answer.status[:3]
        if self.method == "HEAD" or isinstance(body, (list, tuple)):
            if self.method == "GET":
                self.bytes = sum(map(len, body))
            self.over(whole=True)
            return answer
        length = next((int(value) for name, value in headers if name == "Content-Length"), -1)
        return answer._replace(body=Sent(self, body, length))

    def over(self, *, whole: bool) -> None:
        """Counts and logs it. `whole` is False where the client or the node broke off within the body."""
        if self._status:
            self._status.record(self, time.monotonic() - self.began, whole)


class Sent:
    """The blocks of a body on their way to the client. The observation ends before the last one goes out."""

    __slots__ = ("_blocks", "_body", "_length", "_over", "_seen")

    def __init__(self, seen: Observation, body: Iterable[bytes], length: int) -> None:
        self._seen, self._body, self._length = seen, body, length
        self._blocks = iter(body)
        self._over = False
        seen.bytes = 0

    def __iter__(self) -> Sent:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self._seen.bytes += len(block)
        if self._seen.bytes == self._length:
            self._over = True
            self._seen.over(whole=True)
        return block

    def close(self) -> None:
        """WSGI's: called when the answer is sent, or won't be any further."""
        if hasattr(self._body, "close"):
            self._body.close()
        if not self._over:
            self._over = True
            self._seen.over(whole=False)


# The request that this thread, or greenlet, works on.
current: ContextVar[Observation] = ContextVar("current", default=Observation())  # noqa: B039 - it is never changed


# ---------------------------------------------------------------------------------------------------------------------
# The watch: what one worker finds out for all
# ---------------------------------------------------------------------------------------------------------------------


class Watch:
    """What is known of the nodes besides what requests tell: whether they live, how they did, what they hold.

    >>> watch.seen()["nodes"]["node-1"]     # in any worker, from memory
    {'state': 'up', 'since': 1795000000.0, 'error': None}
    """

    def __init__(self, discovery: Discovery, metrics: Metrics) -> None:
        self._discovery, self._metrics = discovery, metrics
        self._folder = metrics.folder
        self._lock: int | None = None  # the descriptor of `leader`, once it is locked
        self._leads = metrics.folder is None
        self._known: dict[str, Any] = {"at": 0.0, "nodes": {}, "history": {"end": 0.0, "points": []}, "census": {}}
        self._read = 0.0  # monotonic time of the last reading of the leader's file
        self._totals: list[int] | None = None
        self._looked = 0.0
        self._probes: dict[str, threading.Thread] = {}
        self._census: threading.Thread | None = None

    def seen(self) -> dict[str, Any]:
        """What the leader wrote last. Where that is too old to say anything, no node is known."""
        if not self._leads and time.monotonic() - self._read > TICK_SECONDS / 2:
            self._read = time.monotonic()
            self._load()
        if time.time() - self._known["at"] > STALE_SECONDS:
            return {**self._known, "nodes": {}}
        return self._known

    def look(self) -> None:
        """Notes that somebody looks at the page, so that objects are worth counting."""
        self._looked = time.time()
        if self._folder:
            (self._folder / "looked").touch()

    def tick(self) -> None:
        """What is due. Any worker calls it again and again; only the leader does something."""
        if not self._leads and not self._elected():
            return
        now, known = time.time(), self._known
        nodes = self._discovery.nodes
        for node in nodes:
            probe = self._probes.get(node.name)
            if probe is None or not probe.is_alive():
                self._judge(node)
        if now - known["history"]["end"] >= SAMPLE_SECONDS:
            self._sample(now)
        if self._wanted(now):
            self._census = threading.Thread(target=self._count, args=(nodes,), name="objgw-census", daemon=True)
            self._census.start()
        known["at"] = now
        if nodes:  # a leader that has just begun knows none yet
            for name in known["nodes"].keys() - {node.name for node in nodes}:
                del known["nodes"][name]
        if self._folder:
            new = self._folder / "watch.new"
            new.write_text(json.dumps(known))
            new.replace(self._folder / "watch.json")

    def _elected(self) -> bool:
        """Whether this worker is the leader by now; it goes on from where the one before it was."""
        assert self._folder
        if self._lock is None:
            self._lock = os.open(self._folder / "leader", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._load()
        self._leads = True
        return True

    def _load(self) -> None:
        """Reads the leader's file, if there is one."""
        assert self._folder
        with contextlib.suppress(FileNotFoundError):
            self._known = json.loads((self._folder / "watch.json").read_text())

    # -- whether nodes live

    def _judge(self, node: Node) -> None:
        """Takes from the node's last answers, or asks it, in a thread of its own, whether it lives."""
        if node.host is None:
            self._note(node, "stopped", "its container doesn't run")
        elif node.trouble:
            self._note(node, "wrong", node.trouble)
        elif node.proved > time.monotonic() - PROBE_SECONDS:
            self._note(node, "up", None)
        else:
            self._probes[node.name] = threading.Thread(
                target=self._probe, args=(node,), name="objgw-probe", daemon=True
            )
            self._probes[node.name].start()

    def _probe(self, node: Node) -> None:
        error = None
        try:
            connection = node.connect()
            try:
                connection.sock.settimeout(PROBE_SECONDS)
                # https://min.io/docs/minio/linux/operations/monitoring/healthcheck-probe.html
                connection.send(b"GET /minio/health/live HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                answer = connection.receive(1024)
                if not re.match(rb"HTTP/1\.1 [234]", answer):
                    error = "it answers that it can't serve"
            finally:
                connection.close()
        except TimeoutError:
            error = "it doesn't answer in time"
        except ConnectionRefusedError:
            error = "it refuses connections"
        except OSError:
            error = "it can't be reached"
        except UpstreamError as cause:
            error = "it doesn't answer in time" if isinstance(cause.__cause__, TimeoutError) else "it breaks off"
        if not node.closed:
            self._note(node, "down" if error else "up", error)
            time.sleep(PROBE_SECONDS)  # so that the next one begins no sooner

    def _note(self, node: Node, state: str, error: str | None) -> None:
        """Keeps the state of a node, since when it is so, and its last error also when it is over."""
        now = time.time()
        before = self._known["nodes"].get(node.name, {"state": "unknown", "error": None})
        if before["state"] != state:
            log.info("node %s is %s%s", node.name, state, f": {error}" if error else "")
            before = {**before, "state": state, "since": now}
        if error:
            before = {**before, "error": error, "error_at": now}
        self._known["nodes"][node.name] = before
        self._metrics.up.labels(node.name).set(state == "up")

    # -- how they did

    def _sample(self, now: float) -> None:
        """Adds a point to the plot: requests since the last one, by kind."""
        totals = self._metrics.totals()
        if self._totals:
            point = [max(0, after - before) for after, before in zip(totals, self._totals, strict=True)]
            self._known["history"]["points"] = [*self._known["history"]["points"], point][-SAMPLES:]
        self._totals = totals
        self._known["history"]["end"] = now

    # -- what they hold

    def _wanted(self, now: float) -> bool:
        """Whether somebody looks and the last count is old enough."""
        if self._census and self._census.is_alive():
            return False
        if self._folder:
            with contextlib.suppress(FileNotFoundError):
                self._looked = (self._folder / "looked").stat().st_mtime
        counted = max((each["at"] for each in self._known["census"].values()), default=0.0)
        return now - self._looked < LOOKED_SECONDS and now - counted > CENSUS_SECONDS

    def _count(self, nodes: tuple[Node, ...]) -> None:
        """Counts the objects of each node and their bytes, up to a bound."""
        counted: dict[str, Any] = {}
        for node in nodes:
            counted[node.name] = {"at": time.time(), "objects": None, "bytes": None, "more": False}
            with contextlib.suppress(OSError, UpstreamError):
                objects, size, more = census(node, self._discovery.settings)
                counted[node.name] |= {"objects": objects, "bytes": size, "more": more}
        self._known["census"] = counted


LISTED = re.compile(rb"<Key>([A-Za-z0-9]{1,32})</Key>.*?<Size>(\d+)</Size>", re.DOTALL)


def census(node: Node, settings: Settings) -> tuple[int, int, bool]:
    """The objects of a node, their bytes, and whether there are more than were counted.

    Raises OSError and UpstreamError. https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
    """
    objects, size, after = 0, 0, ""
    connection = node.connect()
    try:
        for _ in range(CENSUS_PAGES):
            query = f"list-type=2&max-keys=1000{after}"
            reply = node.exchange(connection, Request("GET", f"/{settings.bucket}?{query}"))
            if reply.status != 200:
                if reply.code == "NoSuchBucket":
                    return 0, 0, False
                raise OSError(f"{reply.status} {reply.code}")
            connection.finish(reply)
            found = LISTED.findall(reply.body)
            objects += len(found)
            size += sum(int(each) for _, each in found)
            if b"<IsTruncated>true" not in reply.body or not found:
                return objects, size, False
            after = f"&start-after={found[-1][0].decode()}"
    finally:
        connection.close()
    return objects, size, True


# ---------------------------------------------------------------------------------------------------------------------
# Status: what the gateway hands here
# ---------------------------------------------------------------------------------------------------------------------

OPEN = frozenset({"/", "/health/live", "/health/ready"})  # asked without a token: they show nothing
NOT_KEPT = ("Cache-Control", "no-store")


class Status:
    """Logs, metrics, health and the page of one worker.

    >>> status = Status(discovery, settings)    # starts nothing
    """

    def __init__(self, discovery: Discovery, settings: Settings) -> None:
        self.metrics = Metrics()
        self._discovery, self._settings = discovery, settings
        self._watch = Watch(discovery, self.metrics)
        self._lines = Lines(2) if settings.access_log == "on" else None
        self._json = settings.log_format == "json"
        self._prefix, self._numbers = os.urandom(4).hex(), itertools.count()
        self._observe: dict[tuple[str, str, str], tuple[Observe, Observe | None]] = {}
        self._retried: dict[str, float] = {}  # by node, when a line told of it
        self._routes: dict[str, Callable[[Environ], Answer]] = {
            "/health": self._health,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics_text,
        }
        if settings.page == "on":
            self._page_body = PAGE.read_bytes()
            self._page_headers = page_headers(self._page_body)
            self._routes |= {"/": self._page, "/status.json": self._status}

    def start(self) -> None:
        """Starts what runs in the background. To be called in the process that serves."""
        self._prefix = os.urandom(4).hex()  # each worker has its own
        if self._lines:
            self._lines.start()
        threading.Thread(target=self._run, name="objgw-status", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._watch.tick()
                self._gauges()
            except Exception:  # the next time may be better, and nothing else depends on it
                log.exception("the watch failed")
            time.sleep(TICK_SECONDS if self._discovery.nodes else TICK_SECONDS / 5)

    # -- each request

    def begin(self, environ: Environ) -> Observation:
        """The observation of a request that has just come; `current` is it from now on."""
        request_id = environ.get("HTTP_X_REQUEST_ID")
        if request_id is None or not REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._prefix}{next(self._numbers):08x}"
        seen = Observation(self, environ["REQUEST_METHOD"], environ["PATH_INFO"], request_id)
        current.set(seen)
        return seen

    def record(self, seen: Observation, seconds: float, whole: bool) -> None:
        """Counts and logs a request that is over."""
        method = seen.method if seen.method in METHODS else "other"
        key = (method, seen.status, seen.node)
        observe = self._observe.get(key)
        if observe is None:
            observe = self._observe[key] = self._resolve(*key)
        observe[0](seconds)
        if observe[1]:
            observe[1](seen.bytes)
        if self._lines:
            self._lines.add(self._line(seen, seconds, whole))

    def _resolve(self, method: str, status: str, node: str) -> tuple[Observe, Observe | None]:
        """What observes seconds, and bytes where a body went through. No label is a client's own text."""
        moved = (method, status) in (("GET", "200"), ("GET", "206"), ("PUT", "200"))
        seconds = self.metrics.observer(REQUESTS, (method, status, node))
        return seconds, self.metrics.observer(BODIES, (method, node)) if moved else None

    def _line(self, seen: Observation, seconds: float, whole: bool) -> str:
        """One line of the access log. What a client sent is in it only where it can do no harm."""
        what, method = seen.path[8:] if seen.path.startswith("/object/") else "", seen.method
        plain = OBJECT_ID.fullmatch(what) and method in METHODS
        if not plain:
            what, method = seen.path[:80], method[:20]
        if self._json:
            if not plain:
                what, method = json.dumps(what)[1:-1], json.dumps(method)[1:-1]
            return (
                f'{{"time": "{stamp(time.time())}", "level": "info", "logger": "objgw.access", "method": "{method}", '
                f'"{"id" if plain else "path"}": "{what}", "status": {seen.status}, "node": "{seen.node}", '
                f'"bytes": {seen.bytes}, "seconds": {seconds:.6f}, "complete": {"true" if whole else "false"}, '
                f'"request": "{seen.request_id}"}}\n'
            )
        if not plain:
            what, method = ascii(what), ascii(method)[1:-1]
        return (
            f"{stamp(time.time())} INFO objgw.access {method} {what} {seen.status} node={seen.node} "
            f"bytes={seen.bytes} seconds={seconds:.6f} request={seen.request_id}{'' if whole else ' broken off'}\n"
        )

    def retried(self, node: str) -> None:
        """Counts a request that is sent to a node once more; one line tells of all in a while."""
        self.metrics.retries.labels(node).inc()
        now = time.monotonic()
        if now - self._retried.get(node, -RETRY_LOG_SECONDS) >= RETRY_LOG_SECONDS:
            self._retried[node] = now
            log.info("node %s: a request is sent once more, as others may be in the next seconds", node)

    # -- the paths

    def guarded(self, path: str) -> bool:
        """Whether a path needs a token, where there are tokens."""
        return path not in OPEN

    def answer(self, environ: Environ) -> Answer:
        """The answer to a path that is no object's. Raises Refusal: 404, 405, and 503 of a gateway that isn't ready."""
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Objects are at /object/{id}.")
        current.get().own = True
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET or HEAD.", ("Allow", "GET, HEAD"))
        return route(environ)

    def _live(self, _environ: Environ) -> Answer:
        return document({"status": "live"})

    def _ready(self, _environ: Environ) -> Answer:
        self._discovery.wait_begun(BEGIN_SECONDS)
        if self._discovery.age == math.inf:
            raise unavailable("Docker hasn't been read yet.")
        if not any(node["state"] == "up" for node in self._watch.seen()["nodes"].values()):
            raise unavailable("No node answers.")
        return document({"status": "ready"})

    def _health(self, _environ: Environ) -> Answer:
        """Everything about the nodes, with 503 where `/health/ready` has it."""
        said = self._said()
        status = HTTPStatus.OK if said["status"] != "unavailable" else HTTPStatus.SERVICE_UNAVAILABLE
        return document(said, status)

    def _said(self) -> dict[str, Any]:
        self._discovery.wait_begun(BEGIN_SECONDS)
        seen, nodes, age = self._watch.seen(), [], self._discovery.age
        for node in self._discovery.nodes:
            known = seen["nodes"].get(node.name, {"state": "unknown"})
            nodes.append(
                {
                    "name": node.name,
                    "state": known["state"],
                    "since": moment(known.get("since")),
                    "last_error": known.get("error"),
                    "last_error_at": moment(known.get("error_at")),
                }
            )
        up = sum(node["state"] == "up" for node in nodes)
        read = age != math.inf
        return {
            "status": "unavailable" if not (read and up) else "ok" if up == len(nodes) else "degraded",
            "version": VERSION,
            "time": stamp(time.time()),
            "docker": {
                "read": read,
                "answers": self._discovery.healthy,
                "seconds_ago": round(age, 1) if read else None,
            },
            "layout": {"names": [node["name"] for node in nodes], "settled": self._discovery.settled},
            "nodes": nodes,
        }

    def _metrics_text(self, environ: Environ) -> Answer:
        self._gauges()
        body, content_type = self.metrics.text(environ.get("HTTP_ACCEPT", ""))
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), NOT_KEPT]
        return Answer("200 OK", headers, [body])

    def _gauges(self) -> None:
        """Sets what is a state of this worker, not a count."""
        now, metrics = time.monotonic(), self.metrics
        for node in self._discovery.nodes:
            metrics.breaker.labels(node.name).set(bool(node.broken_until))
            pool = {"idle": len(node._idle), "waiting": len(node._waiting), "sending": len(node.downloads)}
            for state, count in pool.items():
                metrics.pool.labels(node.name, state).set(count)
        metrics.settled.set(self._discovery.settled)
        metrics.read.set(time.time() - self._discovery.age if self._discovery.age < now else 0)

    def _status(self, environ: Environ) -> Answer:
        """What the page shows; with `?id=`, which node that id belongs to instead."""
        asked = parse_qs(environ.get("QUERY_STRING", ""))
        if "id" in asked:
            if not OBJECT_ID.fullmatch(asked["id"][0]):
                raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
            if not self._discovery.nodes:
                raise unavailable("No node is known yet.")
            return document({"id": asked["id"][0], "node": owner(self._discovery.nodes, asked["id"][0]).name})
        self._watch.look()
        seen, said = self._watch.seen(), self._said()
        for node in said["nodes"]:
            counted = seen["census"].get(node["name"])
            node["census"] = {**counted, "at": moment(counted["at"])} if counted else None
        history = seen["history"]
        said["history"] = {"seconds": SAMPLE_SECONDS, "samples": SAMPLES, "points": history["points"]}
        return document(said)

    def _page(self, _environ: Environ) -> Answer:
        return Answer("200 OK", list(self._page_headers), [self._page_body])


def document(said: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer of JSON that nobody keeps."""
    body = json.dumps(said).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), NOT_KEPT]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", RETRY_AFTER))
    return Answer(f"{status.value} {status.phrase}", headers, [body])


def moment(seconds: float | None) -> str | None:
    """A time for people and programs, or None."""
    return None if seconds is None else stamp(seconds)


def page_headers(page: bytes) -> Headers:
    """The page's headers. Its one script and its one style are the only ones that a browser takes, by their hashes.

    https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    policy = ["default-src 'none'", "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    policy.append("frame-ancestors 'none'")
    for kind in ("script", "style"):
        found = re.search(rb"<%b>(.*?)</%b>" % (kind.encode(), kind.encode()), page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(found[1] if found else b"").digest()).decode()
        policy.append(f"{kind}-src 'sha256-{digest}'")
    return [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(page))),
        ("Content-Security-Policy", "; ".join(policy)),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
    ]
