"""What is counted and logged of each request.

It costs one `Observation`: two histograms are observed and one line is written. All that a label or a line needs is
resolved once and kept. What clients send gets into a line only where it is printable.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Callable

from gateway.answers import Environ
from gateway.nodes.placement import OBJECT_ID
from gateway.settings import Settings
from gateway.status.logs import REQUEST_ID, Lines, stamp
from gateway.status.metrics import Metrics
from gateway.status.observation import Observation, current

log = logging.getLogger("objgw.status")

METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
RETRY_LOG_SECONDS = 10.0  # for which one line tells of a node's retries
Observe = Callable[[float], None]


class Recorder:
    """Counts and logs the requests of one worker."""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self.metrics = metrics
        self._lines = Lines(2) if settings.access_log == "on" else None
        self._json = settings.log_format == "json"
        self._prefix, self._numbers = os.urandom(4).hex(), itertools.count()
        self._observe: dict[tuple[str, str, str], tuple[Observe, Observe | None]] = {}
        self._retried: dict[str, float] = {}  # by node, when a line told of it

    def start(self) -> None:
        """Starts what writes the lines. To be called in the process that serves."""
        self._prefix = os.urandom(4).hex()  # each worker has its own
        if self._lines:
            self._lines.start()

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
        seconds = self.metrics.seconds.labels(method, status, node).observe
        return seconds, self.metrics.bytes.labels(method, node).observe if moved else None

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

    def failed(self, node: str) -> None:
        """Counts that a node couldn't be reached, broke off or was silent."""
        self.metrics.errors.labels(node).inc()
