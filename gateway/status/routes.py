"""The paths beside `/object/{id}`: health, metrics, and a page for people.

No request to them asks a node or Docker anything: they are answered from memory and from the files
in the workers' folder. No answer has a key, a token, or the address of a node; where a listed one
has none, the reason names its host.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from gateway.answers import (
    RETRY_AFTER,
    Answer,
    Environ,
    Refusal,
    require_reading,
    unavailable,
)
from gateway.background import forever
from gateway.nodes.discovery import Discovery
from gateway.nodes.leader import Leader
from gateway.nodes.placement import OBJECT_ID
from gateway.s3.breaker import State
from gateway.status.fullness import recent
from gateway.status.health import SAMPLE_SECONDS, SAMPLES, TICK_SECONDS, Watch
from gateway.status.logs import stamp
from gateway.status.metrics import Metrics
from gateway.status.observation import current
from gateway.status.page import page
from gateway.version import version

log = logging.getLogger("objgw.status")

BEGIN_SECONDS = 1.0  # that a question about health may wait in a worker that has just begun
OPEN = frozenset({"/", "/health/live", "/health/ready"})  # asked without a token: they show nothing
NOT_KEPT = ("Cache-Control", "no-store")


class Status:
    """The paths that are no object's, and what has to be done in the background for them."""

    def __init__(self, discovery: Discovery, metrics: Metrics, leader: Leader) -> None:
        self.metrics = metrics
        self._discovery, self._directory = discovery, discovery.directory
        self._watch = Watch(self._directory, metrics, leader)
        self._routes: dict[str, Callable[[Environ], Answer]] = {
            "/health": self._health,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics_text,
        }
        if discovery.settings.page == "on":
            self._page_headers, self._page_body = page()
            self._routes |= {"/": self._page, "/status.json": self._status}

    def start(self) -> None:
        """Starts what runs in the background. To be called in the process that serves."""
        threading.Thread(target=self._run, name="objgw-status", daemon=True).start()

    def _run(self) -> None:
        forever(self._look, "the watch over the nodes")

    def _look(self) -> None:
        self._watch.tick()
        self._gauges()
        time.sleep(TICK_SECONDS if self._directory.nodes else TICK_SECONDS / 5)

    # -- the paths

    def guarded(self, path: str) -> bool:
        """Whether a path needs a token, where there are tokens."""
        return path not in OPEN

    def answer(self, environ: Environ) -> Answer:
        """The answer to a path that is no object's.

        Raises Refusal: 404, 405, and 503 of a gateway that isn't ready.
        """
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "Objects are at /object/{id}, and their list at /objects."
            )
        current.get().counted = False
        require_reading(environ)
        return route(environ)

    def _live(self, _environ: Environ) -> Answer:
        return document({"status": "live"})

    def _ready(self, _environ: Environ) -> Answer:
        self._discovery.wait_begun(BEGIN_SECONDS)
        if self._discovery.age == math.inf:
            raise unavailable(f"{self._discovery.what} hasn't been read yet.")
        if not self._members_up():
            conflict = self._directory.conflict
            raise unavailable(f"{conflict.what}." if conflict else "No node answers.")
        return document({"status": "ready"})

    def _members_up(self) -> int:
        """How many of the nodes that ids are spread over answer."""
        known = self._watch.snapshot()["nodes"]
        states = [known.get(node.name, {}).get("state") for node in self._directory.nodes]
        return states.count("up")

    def _health(self, _environ: Environ) -> Answer:
        """All that is known of the nodes, with 503 where `/health/ready` has it."""
        report = self._report()
        status = (
            HTTPStatus.OK if report["status"] != "unavailable" else HTTPStatus.SERVICE_UNAVAILABLE
        )
        return document(report, status)

    def _report(self) -> dict[str, Any]:
        """The body of `/health`."""
        self._discovery.wait_begun(BEGIN_SECONDS)
        watched, nodes, age = self._watch.snapshot(), [], self._discovery.age
        conflict = self._directory.conflict
        for node in list(self._directory.by_name.values()):
            role = self._directory.role(node)
            if role == "outside" and not (node.host or node.endpoint.problem):
                continue
            known = watched["nodes"].get(node.name, {"state": "pending"})
            nodes.append(
                {
                    "name": node.name,
                    "role": role,
                    "state": known["state"],
                    "keeps_conditions": node.standing.keeps_conditions,
                    "ignores": node.standing.ignores,
                    "stores_cut": node.standing.stores_cut,
                    "since": moment(known.get("since")),
                    "last_error": known.get("error"),
                    "last_error_at": moment(known.get("error_at")),
                    "usage": told_usage(recent(watched["usage"], node.name)),
                }
            )
        wanted = [node["state"] == "up" for node in nodes if node["role"] != "outside"]
        read = age != math.inf
        served = read and self._members_up()
        return {
            "status": "unavailable" if not served else "ok" if all(wanted) else "degraded",
            "version": version(),
            "time": stamp(time.time()),
            "source": self._discovery.what,
            "docker": {
                "read": read,
                "answers": self._discovery.healthy,
                "seconds_ago": round(age, 1) if read else None,
            },
            "layout": {
                "names": [node.name for node in self._directory.nodes],
                "settled": self._directory.settled,
                "moving": not self._directory.settled and watched["moving"],
            },
            "conflict": conflict.text if conflict else None,
            "nodes": nodes,
        }

    def _metrics_text(self, environ: Environ) -> Answer:
        self._gauges()
        roles = {node.name: self._directory.role(node) for node in self._directory.by_name.values()}
        nodes = [name for name in roles if roles[name] != "outside"]
        known = self._watch.snapshot()["usage"]
        usage = {name: each for name in nodes if (each := recent(known, name))}
        body, content_type = self.metrics.text(environ.get("HTTP_ACCEPT", ""), nodes, usage)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), NOT_KEPT]
        return Answer("200 OK", headers, [body])

    def _gauges(self) -> None:
        """Sets what is a state of this worker, not a count."""
        now, metrics = time.monotonic(), self.metrics
        for node in self._directory.nodes:
            metrics.breaker.labels(node.name).set(node.breaker.state is not State.CLOSED)
            pool = {
                "idle": len(node._idle),
                "waiting": len(node._waiting),
                "sending": len(node.downloads),
            }
            for state, count in pool.items():
                metrics.pool.labels(node.name, state).set(count)
        metrics.settled.set(self._directory.settled)
        metrics.read.set(time.time() - self._discovery.age if self._discovery.age < now else 0)

    def _status(self, environ: Environ) -> Answer:
        """What the page shows; with `?id=`, which node that id belongs to instead."""
        asked = parse_qs(environ.get("QUERY_STRING", ""))
        if "id" in asked:
            if not OBJECT_ID.fullmatch(asked["id"][0]):
                raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
            view = self._directory.view
            if not view.nodes:
                raise unavailable("No node is known yet.")
            return document({"id": asked["id"][0], "node": view.owner(asked["id"][0]).name})
        self._watch.page_viewed()
        watched, report = self._watch.snapshot(), self._report()
        for node in report["nodes"]:
            counted = watched["census"].get(node["name"])
            node["census"] = {**counted, "at": moment(counted["at"])} if counted else None
        history = watched["history"]
        report["history"] = {
            "seconds": SAMPLE_SECONDS,
            "samples": SAMPLES,
            "points": history["points"],
        }
        report["may_write"] = environ.get("objgw.may_write", True)
        return document(report)

    def _page(self, _environ: Environ) -> Answer:
        return Answer("200 OK", list(self._page_headers), [self._page_body])


def document(report: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer of JSON that nobody keeps."""
    body = json.dumps(report).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), NOT_KEPT]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", RETRY_AFTER))
    return Answer(f"{status.value} {status.phrase}", headers, [body])


def moment(seconds: float | None) -> str | None:
    """A time for people and programs, or None."""
    return None if seconds is None else stamp(seconds)


def told_usage(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    """How full a node is, with times for people and programs."""
    if usage is None:
        return None
    return {**usage, "counted_at": moment(usage["counted_at"]), "at": moment(usage["at"])}
