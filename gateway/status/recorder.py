"""What is counted and logged of each request.

It costs one `Observation`: two histograms are observed and one line is written. prometheus_client
looks a histogram up by its labels' values, which takes longer than observing; so what is found is
kept. What a client sent is in a line only with all that isn't printable escaped, and never in a
label.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Callable

from gateway.answers import Environ
from gateway.auth import token_digest
from gateway.nodes.placement import OBJECT_ID
from gateway.settings import Settings
from gateway.status.logs import REQUEST_ID, Lines, stamp
from gateway.status.metrics import Metrics
from gateway.status.observation import ALL_NODES, CountedBody, Observation, Trace, current
from gateway.status.traceparent import Passed, context_of
from gateway.status.traces import Begins, begin_exporting

log = logging.getLogger("objgw.status")

METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
LISTING = "/objects"  # the path of the listing
LISTS = "LIST"  # the label of its requests, which take longer than those for one object
RETRY_LOG_SECONDS = 10.0  # for which one line tells of a node's retries
Observe = Callable[[float], None]


class Recorder:
    """Counts and logs the requests of one worker."""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self.metrics = metrics
        self._lines = Lines(2) if settings.access_log == "on" else None
        self._line = json_line if settings.log_format == "json" else text_line
        self._spans: Begins | None = None  # where spans are exported
        self._prefix, self._numbers = os.urandom(4).hex(), itertools.count()
        self._observers: dict[tuple[str, str, str], tuple[Observe, Observe | None]] = {}
        # By node, the monotonic time of the last line about its retries.
        self._retry_logged: dict[str, float] = {}

    def start(self) -> None:
        """Starts what writes the lines and exports spans. To be called in the process that serves.

        At its end the lines are written before the last spans are waited for.
        """
        self._prefix = os.urandom(4).hex()  # each worker has its own
        self._spans = begin_exporting(os.environ)
        if self._lines:
            self._lines.start()

    def begin(self, environ: Environ) -> Observation:
        """The observation of a request that has just come; `current` is it from now on."""
        request_id = environ.get("HTTP_X_REQUEST_ID")
        if request_id is None or not REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._prefix}{next(self._numbers):08x}"
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        client, token = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_AUTHORIZATION", "")
        observation = Observation(self, method, path, request_id, client, token)
        if method == "PUT":
            environ["wsgi.input"] = CountedBody(observation, environ["wsgi.input"])
        if self._spans or "HTTP_TRACEPARENT" in environ:
            observation.trace = self._trace(environ, observation)
        current.set(observation)
        return observation

    def _trace(self, environ: Environ, observation: Observation) -> Trace | None:
        """The trace that a request belongs to, if any."""
        came = context_of(environ)
        if self._spans:
            return self._spans.begin(environ, observation, came)
        return Passed(came) if came else None

    def counted(self, observation: Observation, seconds: float) -> None:
        """Counts a request that is over."""
        method = observation.method if observation.method in METHODS else "other"
        if observation.path == LISTING and method in ("GET", "HEAD"):
            method = LISTS
        key = (method, observation.status, observation.node)
        observers = self._observers.get(key)
        if observers is None:
            observers = self._observers[key] = self._resolve(*key)
        observe_seconds, observe_bytes = observers
        observe_seconds(seconds)
        if observe_bytes:
            observe_bytes(observation.bytes)

    def logged(self, observation: Observation, seconds: float, complete: bool) -> None:
        """Logs a request that is over."""
        if self._lines:
            self._lines.add(self._line(observation, seconds, complete))
        if observation.trace:
            observation.trace.end(observation, complete)

    def _resolve(self, method: str, status: str, node: str) -> tuple[Observe, Observe | None]:
        """What observes the seconds of a request, and the bytes where it has an object."""
        observe_seconds = self.metrics.seconds.labels(method, status, node).observe
        if (method, status) in (("GET", "200"), ("GET", "206"), ("PUT", "200")):
            return observe_seconds, self.metrics.bytes.labels(method, node).observe
        return observe_seconds, None

    def retried(self, node: str) -> None:
        """Counts a request that is sent to a node once more.

        One line in `RETRY_LOG_SECONDS` tells of a node's, lest a node that restarts fills the log.
        """
        self.metrics.retries.labels(node).inc()
        now = time.monotonic()
        if now - self._retry_logged.get(node, -RETRY_LOG_SECONDS) >= RETRY_LOG_SECONDS:
            self._retry_logged[node] = now
            log.info(
                "node %s: a request is sent once more, as others may be in the next seconds", node
            )

    def failed(self, node: str) -> None:
        """Counts that a node couldn't be reached, broke off or was silent."""
        self.metrics.errors.labels(node).inc()


def text_line(observation: Observation, seconds: float, complete: bool) -> str:
    """A line of the access log to read."""
    method, target = observation.method, plain_id(observation)
    if target is None:
        method, target = ascii(method[:20])[1:-1], ascii(observation.shown_path)
    return (
        f"{stamp(time.time())} INFO objgw.access {method} {target} {observation.status} "
        f"node={observation.node} "
        f"bytes={observation.bytes} seconds={seconds:.6f} request={observation.request_id}"
        f"{f' trace={observation.trace.id}' if observation.trace else ''}"
        f"{'' if complete else ' broken off'}{text_more(observation)}\n"
    )


def says_more(observation: Observation) -> bool:
    """Whether a line says who asked: of refusals, of what broke off, of lists, and of links."""
    return bool(observation.reason) or observation.link or observation.node == ALL_NODES


def text_more(observation: Observation) -> str:
    """What such a line says in addition: for whom it was, and why it was refused or broken off.

    The reason is what the client was told.
    """
    if not says_more(observation):
        return ""
    token = token_of(observation)
    by = " link" if observation.link else f" token={token}" if token else ""
    reason = f" reason={json.dumps(observation.reason)}" if observation.reason else ""
    return f" client={observation.client or '-'}{by}{reason}"


def json_line(observation: Observation, seconds: float, complete: bool) -> str:
    """A line of the access log as a JSON object. `json.dumps` of all of it would take longer."""
    key, method, target = "id", observation.method, plain_id(observation)
    if target is None:
        key, method = "path", json.dumps(method[:20])[1:-1]
        target = json.dumps(observation.shown_path)[1:-1]
    return (
        f'{{"time": "{stamp(time.time())}", "level": "info", "logger": "objgw.access", '
        f'"method": "{method}", "{key}": "{target}", "status": {observation.status}, '
        f'"node": "{observation.node}", '
        f'"bytes": {observation.bytes}, "seconds": {seconds:.6f}, '
        f'"complete": {"true" if complete else "false"}, "request": "{observation.request_id}"'
        f"{json_trace(observation)}{json_more(observation)}}}\n"
    )


def json_trace(observation: Observation) -> str:
    """The member of the line's object that has the trace id; empty where there is none."""
    return f', "trace": "{observation.trace.id}"' if observation.trace else ""


def json_more(observation: Observation) -> str:
    """The same as `text_more`, as members of the line's object."""
    if not says_more(observation):
        return ""
    link = ', "link": true' if observation.link else ""
    reason = f', "reason": {json.dumps(observation.reason)}' if observation.reason else ""
    return (
        f', "client": {json.dumps(observation.client)}, '
        f'"token": {json.dumps(token_of(observation) or None)}{link}{reason}'
    )


def token_of(observation: Observation) -> str:
    """The beginning of the SHA-256 of the bearer token that came, valid or not; empty without one.

    It tells tokens apart, and isn't one. Beside a link no token is looked at.
    """
    if observation.link:
        return ""
    scheme, _, token = observation.authorization.partition(" ")
    return token_digest(token.strip()).hex()[:8] if scheme.lower() == "bearer" else ""


def plain_id(observation: Observation) -> str | None:
    """The id of a request that may be written to the log as it came.

    It is None where method or path can be any text.
    """
    if observation.method not in METHODS or not observation.path.startswith("/object/"):
        return None
    object_id = observation.path[8:]
    return object_id if OBJECT_ID.fullmatch(object_id) else None
