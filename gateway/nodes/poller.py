"""The looks at the nodes' records: one a second for each node that requests go to.

A look renews the node's lease and brings what its record says (`gateway.nodes.acquire`). Of a node
that was just found the first look also finds out what clients would have to wait for otherwise:
what its server does with the headers of an upload (`gateway.nodes.abilities`), and whether its
bucket is there.

A gateway that nobody asks costs its nodes little. Each worker looks every `POLL_SECONDS` at a node
that isn't in order, and at one that it had a request for within the last `ASKED_SECONDS`. At the
others one worker looks every `CALM_SECONDS`, the leader (`gateway.nodes.leader`). The other workers
*rest* as long as the leader goes by the same layout as they do: they look every `REST_SECONDS`,
which keeps a connection open. The first request after that finds its lease over, and looks itself
(`acquire`).

The poller never waits for a node. Each look has a thread of its own, and a node of which a look is
under way isn't looked at again. What follows from the looks is for `gateway.nodes.records`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from gateway.background import forever
from gateway.nodes.abilities import (
    TO_GROW,
    ignored_headers,
    keeps_conditions,
    new_key,
    stores_cut,
)
from gateway.nodes.acquire import prove, proved
from gateway.nodes.discovery import Discovery
from gateway.nodes.holdings import Holdings, holdings_of, holdings_request
from gateway.nodes.layout import HOLD_SECONDS, POLL_SECONDS
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.view import Directory
from gateway.s3.body import upload_of
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.headers import DOCUMENT_MAX
from gateway.s3.node import KEPT_SECONDS
from gateway.s3.reply import Reply

log = logging.getLogger("objgw")

LOOK_SECONDS = 5.0  # that a node may take to give its record
ASKED_SECONDS = 10.0  # after a request to a node, for which its lease is renewed
CALM_SECONDS = 2.0  # between two looks of the leader at a node that nobody asks
REST_SECONDS = 0.75 * KEPT_SECONDS  # between two looks of a worker that rests
# A container that was just started refuses connections until its server listens.
BEGINNING_SECONDS = 10.0  # for which a node that was just found is asked again at once
BEGINNING_PAUSE = 0.1  # seconds between two attempts


class Poller:
    """What looks at the nodes' records; `poll` is the thread that starts the looks."""

    def __init__(self, directory: Directory, discovery: Discovery, leader: Leader) -> None:
        self.directory, self.discovery, self.leader = directory, discovery, leader
        self.looked = threading.Event()  # there may be something to do for the record
        self._records_bucket = directory.settings.records_bucket
        self._resting = False  # the leader looks at the nodes for this worker

    @property
    def informed(self) -> bool:
        """Whether this worker itself knows all nodes well enough to change the layout."""
        running = [node for node in self.directory.by_name.values() if node.host]
        return not self._resting and all(node.standing.tried for node in running)

    def decides_conditions(self, node: Member) -> bool | None:
        """Whether the node's server decides the conditions of a PUT.

        It is None where that can't be found out now.
        """
        self._wait_for(node, lambda: node.standing.keeps_conditions is not None)
        return node.standing.keeps_conditions

    def ignored(self, node: Member) -> frozenset[str] | None:
        """The other headers of a PUT that the node's server doesn't carry out; None as above."""
        self._wait_for(node, lambda: node.standing.ignored is not None)
        return node.standing.ignored

    def _wait_for(self, node: Member, known: Callable[[], bool]) -> None:
        """Waits until a look has found this out, or `LOOK_SECONDS` are over."""
        if not known():
            node.looked_from = -math.inf
            self.directory.due.set()
            with self.directory.changed:
                self.directory.changed.wait_for(lambda: known() or node.closed, LOOK_SECONDS)

    def poll(self) -> None:
        """The thread that has each node's record looked at, and takes memberships into use.

        It never waits for a node.
        """
        forever(self._poll, "the polling of the nodes")

    def _poll(self) -> None:
        self.directory.due.clear()
        self.start_looks()
        with self.directory.changed:
            self.directory.arrange()
            switch = self.directory.view.until + 2 * HOLD_SECONDS
        self.directory.due.wait(min(POLL_SECONDS, max(switch - time.time(), 0.01)))

    def start_looks(self) -> None:
        """Starts the looks that are due, each in a thread of its own."""
        try:
            self._rest_or_wake()
        except OSError:  # the folder is gone, or full
            log.exception("the workers can't agree on which of them looks at the nodes")
            self._resting = False
        for node in list(self.directory.by_name.values()):
            now = time.monotonic()
            if node.host and not node.being_looked_at and now >= self._due(node, now):
                node.being_looked_at, node.looked_from = True, now
                threading.Thread(
                    target=self._look_at, args=(node,), name="objgw-look", daemon=True
                ).start()

    def _rest_or_wake(self) -> None:
        """Decides whether the leader looks at the nodes for this worker, or is this worker."""
        nodes, leader, rested = list(self.directory.by_name.values()), self.leader, self._resting
        elected = leader.elect()
        if leader.leads:
            answered = max((node.standing.checked for node in nodes), default=-math.inf)
            leader.tell(self.directory.layout, answered)
        self._resting = not leader.leads and leader.agrees(self.directory.layout)
        if elected or (rested and not self._resting):
            for node in nodes:  # what was seen of it may be as old as the rest was long
                node.standing.tried, node.looked_from = False, -math.inf

    def _due(self, node: Member, now: float) -> float:
        """The monotonic time at which a node is to be looked at again."""
        if not node.in_order or now - node.asked <= ASKED_SECONDS:
            return node.looked_from + POLL_SECONDS
        return node.looked_from + (REST_SECONDS if self._resting else CALM_SECONDS)

    def _look_at(self, node: Member) -> None:
        """Looks at a node's record.

        Where it has none, it also looks at what the node holds. Of a node that the layout has, or
        that may join, it makes the bucket and finds out what the server does with what an upload
        asks for, so that requests rarely wait for that. To any other node nothing is written.
        """
        was_leased = node.standing.leased
        try:
            node.release(
                first_proof(node) if node.standing.unanswered else prove(node, LOOK_SECONDS)
            )
            if node.standing.to_be_listed:
                node.standing.lists(self.holdings(node))
            if node.standing.writable and not node.in_order:
                self._find_out(node)
        except (OSError, UpstreamError) as error:  # it is starting, or down; the next look tells
            log.debug("node %s gives no record: %s", node.name, error)
            if was_leased:
                self.discovery.hurry()  # it may have another address
        except Exception:  # the next look may be luckier
            log.exception("node %s: its record can't be looked at", node.name)
        finally:
            node.being_looked_at = False
            self.looked.set()
            with self.directory.changed:
                self.directory.changed.notify_all()

    def holdings(self, node: Member) -> Holdings:
        """What a node holds, by the first page of its listing. Raises OSError or UpstreamError."""
        return holdings_of(self.ask(node, holdings_request(self.directory.settings.bucket)))

    def _find_out(self, node: Member) -> None:
        """Makes the buckets, and finds out what the node's server does with what a PUT asks for.

        Each where that isn't known yet. What more than conditions there is to find out waits for
        the second look, so that a gateway that begins is ready sooner. Raises OSError or
        UpstreamError.
        """
        standing, bucket = node.standing, self._records_bucket
        first = standing.keeps_conditions is None

        def ask(request: Request) -> Reply:
            return self.ask(node, request)

        if standing.keeps_conditions is None:
            ask(Request("PUT", f"/{bucket}", upload=upload_of(b"")))
            standing.keeps_conditions = keeps_conditions(ask, bucket)
            if standing.keeps_conditions is False:
                log.warning(
                    "node %s: its server ignores conditions on PUT; "
                    "such uploads are 501, and no node joins",
                    node.name,
                )
        if not node.ready:
            self.ask(node)
        if first:
            return
        if standing.ignored is None:
            standing.ignored = ignored_headers(ask, bucket)
            if standing.ignored:
                log.warning(
                    "node %s: its server doesn't carry out %s; uploads that ask for it are 501%s",
                    node.name,
                    ", ".join(sorted(standing.ignored)),
                    "" if TO_GROW.isdisjoint(standing.ignored) else ", and no node joins",
                )
        if standing.stores_cut is None:
            self._try_cut(node)

    def _try_cut(self, node: Member) -> None:
        """Finds out whether the node's server stores what has come of an upload that was cut.

        Where it doesn't say so itself, a later look tells. Raises OSError or UpstreamError.
        """
        if node.cut is None:
            path, connection = new_key(self._records_bucket), prove(node, LOOK_SECONDS)
            try:
                stored = stores_cut(node, connection, path)
            finally:
                connection.close()
            node.cut = path, time.monotonic()
            if stored is None:
                return
        elif time.monotonic() < node.cut[1] + POLL_SECONDS:
            return
        else:
            stored = self.ask(node, Request("GET", node.cut[0])).status == 200
        if stored:
            self.ask(node, Request("DELETE", node.cut[0]))
            log.warning(
                "node %s: its server stores what has come of an upload that was cut; "
                "an upload waits here until all of it has come",
                node.name,
            )
        node.standing.stores_cut = stored

    def ask(
        self, node: Member, request: Request | None = None, seconds: float = LOOK_SECONDS
    ) -> Reply:
        """One request for the layout's sake, and its whole answer.

        Where no request is given, it is the one that makes the bucket of the objects.

        Raises OSError or UpstreamError.
        """
        with proved(node, seconds) as connection:
            reply = node.ask(connection, request) if request else node.make_bucket(connection)
            connection.finish(reply, DOCUMENT_MAX)
        return reply


def first_proof(node: Member) -> Connection:
    """`prove` of a node that never answered, again and again where its server is only starting.

    Requests that came too early have opened its breaker. The first answer closes it. Raises OSError
    and UpstreamError.
    """
    while True:
        try:
            connection = prove(node, LOOK_SECONDS)
        except ConnectionRefusedError:
            if node.closed or time.monotonic() > node.found + BEGINNING_SECONDS:
                raise
            time.sleep(BEGINNING_PAUSE)
            continue
        node.breaker.succeeded()
        return connection
