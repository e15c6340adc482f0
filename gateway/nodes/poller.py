"""The looks at the nodes' records: one a second for each node, in each worker.

A look renews the node's lease and brings what its record says (`gateway.nodes.acquire`). Of a node
that was just found the first look also finds out what clients would have to wait for otherwise:
whether its server decides conditions (`gateway.nodes.conditions`), and whether its bucket is there.

The poller never waits for a node. Each look has a thread of its own, and a node of which a look is
under way isn't looked at again. What follows from the looks is for `gateway.nodes.records`.
"""

from __future__ import annotations

import logging
import threading
import time

from gateway.nodes.acquire import prove
from gateway.nodes.conditions import keeps_conditions
from gateway.nodes.discovery import Discovery
from gateway.nodes.holdings import holdings_of, holdings_request
from gateway.nodes.layout import HOLD_SECONDS, POLL_SECONDS
from gateway.nodes.member import Member
from gateway.nodes.view import Directory
from gateway.s3.body import upload_of
from gateway.s3.connection import Reply, Request, UpstreamError

log = logging.getLogger("objgw")

LOOK_SECONDS = 5.0  # that a node may take to give its record


class Poller:
    """What looks at the nodes' records; `poll` is the thread that starts the looks."""

    def __init__(self, directory: Directory, discovery: Discovery) -> None:
        self.directory, self.discovery = directory, discovery
        self.looked = threading.Event()  # there may be something to do for the record
        self._records_bucket = directory.settings.records_bucket

    def decides_conditions(self, node: Member) -> bool | None:
        """Whether the node's server decides the conditions of a PUT.

        It is None where that can't be found out now.
        """
        if node.standing.keeps_conditions is None:
            node.look_due = 0.0
            self.directory.due.set()
            with self.directory.changed:
                self.directory.changed.wait_for(
                    lambda: node.standing.keeps_conditions is not None or node.closed, LOOK_SECONDS
                )
        return node.standing.keeps_conditions

    def poll(self) -> None:
        """The thread that has each node's record looked at, and takes memberships into use.

        It never waits for a node.
        """
        while True:
            self.directory.due.clear()
            for node in list(self.directory.by_name.values()):
                if node.host and not node.being_looked_at and time.monotonic() >= node.look_due:
                    node.being_looked_at, node.look_due = True, time.monotonic() + POLL_SECONDS
                    threading.Thread(
                        target=self._look_at, args=(node,), name="objgw-look", daemon=True
                    ).start()
            with self.directory.changed:
                self.directory.arrange()
                switch = self.directory.view.until + 2 * HOLD_SECONDS
            self.directory.due.wait(min(POLL_SECONDS, max(switch - time.time(), 0.01)))

    def _look_at(self, node: Member) -> None:
        """Looks at a node's record.

        Where it has none, it also looks at what the node holds. Of a node that the layout has, or
        that may join, it makes the bucket and finds out whether the server decides conditions, so
        that requests rarely wait for that. To any other node nothing is written.
        """
        was_leased = node.standing.leased
        try:
            node.release(prove(node, LOOK_SECONDS))
            if node.standing.to_be_listed:
                reply = self.ask(node, holdings_request(self.directory.settings.bucket))
                node.standing.lists(holdings_of(reply))
            if node.standing.writable and node.standing.keeps_conditions is None:
                self.ask(node, Request("PUT", f"/{self._records_bucket}", upload=upload_of(b"")))
                self._try_conditions(node)
            if node.standing.writable and not node.ready:
                self.ask(node)
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

    def _try_conditions(self, node: Member) -> None:
        """Finds out whether the node's server decides conditions.

        Raises OSError or UpstreamError.
        """
        kept = keeps_conditions(lambda request: self.ask(node, request), self._records_bucket)
        if kept is False:
            log.warning(
                "node %s: its server ignores conditions on PUT; "
                "such uploads are 501, and no node joins",
                node.name,
            )
        node.standing.keeps_conditions = kept

    def ask(
        self, node: Member, request: Request | None = None, seconds: float = LOOK_SECONDS
    ) -> Reply:
        """One request for the layout's sake, and its whole answer.

        Where no request is given, it is the one that makes the bucket of the objects.

        Raises OSError or UpstreamError.
        """
        connection = prove(node, seconds)
        connection.sock.settimeout(seconds)
        try:
            reply = node.ask(connection, request) if request else node.make_bucket(connection)
            connection.finish(reply)
        except UpstreamError:
            connection.close()
            raise
        connection.sock.settimeout(node.node_timeout)
        node.release(connection)
        return reply
