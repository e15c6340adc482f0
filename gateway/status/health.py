"""What one worker finds out for all: whether the nodes live, how they did, and what they hold.

Whether a node lives is what the looks at its record have found, which the leader makes every other
second anyway (`gateway.nodes.leader`). So no node is asked because of a request for health.

The leader also keeps since when a node's state is so, the figures of the last minutes, and a count
of objects. It writes them to `watch.json` in the workers' folder, so that all workers say the same.
When it ends, the next leader goes on from the file.

What it costs a node: two small questions a minute (`gateway.status.fullness`), and `CENSUS_PAGES`
pages of its list each minute while somebody looks at the page.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from typing import Any

from gateway.nodes.acquire import prove
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.view import Directory
from gateway.s3.connection import Request, UpstreamError
from gateway.s3.listing import objects_query, parse_objects
from gateway.settings import Settings
from gateway.status.fullness import Fullness
from gateway.status.metrics import Metrics
from gateway.status.rebalancing import Rebalancing

log = logging.getLogger("objgw.status")

TICK_SECONDS = 1.0  # between two looks of a worker at its own state
STALE_SECONDS = 10.0  # after which what the leader wrote says nothing any more
SAMPLE_SECONDS = 5.0  # between two points of the plot
SAMPLES = 60  # points of the plot
CENSUS_SECONDS = 60.0  # between two counts of objects
VIEWED_SECONDS = 30.0  # after a look at the page, for which objects are counted
CENSUS_PAGES = 10  # of 1,000 objects, that are read of one node


class Watch:
    """What is known of the nodes besides what requests tell.

    That is: whether they live, how they did, how full they are, and what they hold.

    >>> Watch(Directory(Settings()), Metrics(), Leader(None)).snapshot()["nodes"]     # by name
    {}
    """

    def __init__(self, directory: Directory, metrics: Metrics, leader: Leader) -> None:
        self._directory, self._metrics, self._leader = directory, metrics, leader
        self._folder = metrics.folder
        self._led = False  # this worker has gone on from the file of the leader before it
        self._known: dict[str, Any] = {
            "at": 0.0,
            "nodes": {},
            "history": {"end": 0.0, "points": []},
            "census": {},
            "usage": {},
            "moving": None,
        }
        self._rebalancing = Rebalancing(directory)
        self._fullness = Fullness(directory.settings.bucket)
        self._read = 0.0  # monotonic time of the last reading of the leader's file
        self._totals: list[int] | None = None
        self._viewed = 0.0
        self._counting: threading.Thread | None = None

    def snapshot(self) -> dict[str, Any]:
        """What the leader wrote last. Where that is too old to say anything, no node is known."""
        if not self._led and time.monotonic() - self._read > TICK_SECONDS / 2:
            self._read = time.monotonic()
            self._load()
        if time.time() - self._known["at"] > STALE_SECONDS:
            return {**self._known, "nodes": {}}
        return self._known

    def page_viewed(self) -> None:
        """Notes that somebody looks at the page, so that objects are worth counting."""
        self._viewed = time.time()
        if self._folder:
            (self._folder / "looked").touch()

    def tick(self) -> None:
        """What is due. Any worker calls it again and again; only the leader does something."""
        if not self._leader.leads:
            return
        if not self._led:
            self._load()
            self._led, self._fullness.known = True, self._known["usage"]
        now, known = time.time(), self._known
        nodes, watched = self._directory.nodes, list(self._directory.by_name.values())
        for node in watched:
            self._judge(node)
        self._fullness.start(watched)
        self._rebalancing.start()
        known["usage"], known["moving"] = self._fullness.known, self._rebalancing.known
        if now - known["history"]["end"] >= SAMPLE_SECONDS:
            self._sample(now)
        if self._wanted(now):
            self._counting = threading.Thread(
                target=self._count, args=(nodes,), name="objgw-census", daemon=True
            )
            self._counting.start()
        known["at"] = now
        if watched:  # a leader that has just begun knows none yet
            for name in known["nodes"].keys() - {node.name for node in watched}:
                del known["nodes"][name]
        if self._folder:
            new = self._folder / "watch.new"
            new.write_text(json.dumps(known))
            new.replace(self._folder / "watch.json")

    def _load(self) -> None:
        """Reads the leader's file, if there is one."""
        if self._folder:
            with contextlib.suppress(FileNotFoundError):
                self._known |= json.loads((self._folder / "watch.json").read_text())

    # -- whether nodes live

    def _judge(self, node: Member) -> None:
        """Notes a node's state, by the looks at its record: the poller's and requests'."""
        standing = node.standing
        if node.endpoint.problem:
            self._note(node, "wrong", node.endpoint.problem)
        elif node.host is None:
            self._note(node, "stopped", "its container doesn't run")
        elif not standing.tried:
            return  # it has just begun, or this worker has just become the leader
        elif standing.foreign or standing.unknown:
            self._note(node, "foreign" if standing.foreign else "unknown", standing.trouble)
        elif standing.trouble:
            self._note(node, "wrong", standing.trouble)
        elif standing.error:
            self._note(node, "down", standing.error)
        else:
            self._note(node, "up", None)

    def _note(self, node: Member, state: str, error: str | None) -> None:
        """Keeps a node's state, since when it is so, and its last error.

        The error stays also when it is over.
        """
        now = time.time()
        before = self._known["nodes"].get(node.name, {"state": "pending", "error": None})
        if before["state"] != state:
            level = logging.INFO if state == "up" else logging.WARNING
            log.log(level, "node %s is %s%s", node.name, state, f": {error}" if error else "")
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
            point = [
                max(0, after - before) for after, before in zip(totals, self._totals, strict=True)
            ]
            self._known["history"]["points"] = [*self._known["history"]["points"], point][-SAMPLES:]
        self._totals = totals
        self._known["history"]["end"] = now

    # -- what they hold

    def _wanted(self, now: float) -> bool:
        """Whether somebody looks and the last count is old enough."""
        if self._counting and self._counting.is_alive():
            return False
        if self._folder:
            with contextlib.suppress(FileNotFoundError):
                self._viewed = (self._folder / "looked").stat().st_mtime
        counted = max((each["at"] for each in self._known["census"].values()), default=0.0)
        return now - self._viewed < VIEWED_SECONDS and now - counted > CENSUS_SECONDS

    def _count(self, nodes: tuple[Member, ...]) -> None:
        """Counts the objects of each node and their bytes, up to a bound."""
        counted: dict[str, Any] = {}
        for node in nodes:
            counted[node.name] = {"at": time.time(), "objects": None, "bytes": None, "more": False}
            try:
                objects, size, more = census(node, self._directory.settings)
                counted[node.name] |= {"objects": objects, "bytes": size, "more": more}
            except (OSError, UpstreamError, ValueError) as error:  # the page says so
                log.debug("the objects of node %s can't be counted: %s", node.name, error)
            except Exception:  # the next count comes in a minute, and this one is of no more use
                log.exception("the objects of node %s can't be counted", node.name)
        self._known["census"] = counted


def census(node: Member, settings: Settings) -> tuple[int, int, bool]:
    """The objects of a node, their bytes, and whether there are more than were counted.

    Raises OSError and UpstreamError, and ValueError where an answer is no listing.
    """
    objects, size, after = 0, 0, ""
    connection = prove(node, node.node_timeout)
    try:
        for _ in range(CENSUS_PAGES):
            query = objects_query(after)
            reply = node.exchange(connection, Request("GET", f"/{settings.bucket}{query}"))
            if reply.status != 200:
                if reply.code == "NoSuchBucket":
                    return 0, 0, False
                raise OSError(f"{reply.status} {reply.code}")
            connection.finish(reply)
            page = parse_objects(reply.body)
            found = [entry for entry in page.entries if OBJECT_ID.fullmatch(entry.key)]
            objects += len(found)
            size += sum(entry.size for entry in found)
            if not page.next or not found:
                return objects, size, False
            after = found[-1].key
    finally:
        connection.close()
    return objects, size, True
