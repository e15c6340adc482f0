"""The way to the node: one request to the owner of an id, sent again only where that can't do harm.

Worst case for a request: as many attempts as `ATTEMPTS`, each bounded by the connect and node time-outs; only what can
be sent again, whole and without another effect, is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus

from gateway.answers import Refusal, unavailable
from gateway.nodes.acquire import acquire
from gateway.nodes.member import Member
from gateway.nodes.placement import owner
from gateway.nodes.records import Records
from gateway.nodes.view import Directory
from gateway.s3.body import Upload
from gateway.s3.connection import Connection, Reply, Request, UpstreamError
from gateway.s3.headers import IF_MATCH
from gateway.status.observation import current

log = logging.getLogger("objgw")

ATTEMPTS = 3  # a kept connection that was closed, then an address or a key that changed, then the truth
TRIES = 8  # of a request for an object that moves, or that others write meanwhile

# S3's error codes for a key that the node doesn't know (any more).
KEY_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"})


class Moved(Refusal):
    """503: the layout changed while the request was on its way to what was the owner. An upload can't start over."""

    def __init__(self) -> None:
        again = unavailable("The object's place changed meanwhile; try again.")
        super().__init__(again.status, again.detail, *again.headers)


def refuse_undecided(node: Member, headers: Mapping[str, str]) -> None:
    """Raises Refusal for an upload with a condition, where the node's server takes no notice of conditions."""
    if not node.keeps_conditions and any(name in headers for name in IF_MATCH):
        if node.keeps_conditions is None:
            raise unavailable("Whether the node of this id decides conditions isn't known yet; try again.")
        detail = "The server of this id's node ignores conditions on PUT, so this one can't be decided without a race."
        raise Refusal(HTTPStatus.NOT_IMPLEMENTED, f"{detail} Nothing was stored.")


class Upstream:
    """Requests for objects, each to one node."""

    def __init__(self, directory: Directory, records: Records) -> None:
        self.directory, self.discovery, self.records = directory, records.discovery, records
        self.settings = directory.settings

    def node(self, object_id: str, home: str = "") -> Member:
        """The owner of an id, or the node that is named. Raises Refusal where there is none, or it can't be used."""
        for attempt in (1, 2):
            nodes = self.directory.current_view().nodes
            if not nodes:
                node, why = None, "No node has answered yet."
            elif home:
                node, why = self.directory.named(home), "A node that may have this object is not running."
            else:
                node, why = owner(nodes, object_id), "The node of this id is not running."
            if node and node.host:
                break
            if attempt == 2:
                raise unavailable(why)
            self.discovery.refresh()
        assert node
        if node.blank and node.layout:
            raise unavailable("The node of this id holds what belongs to another; the gateway's log says more.")
        return node

    def exchange(
        self,
        object_id: str,
        method: str,
        headers: Mapping[str, str],
        upload: Upload | None = None,
        home: str = "",
        expected: str = "",
    ) -> tuple[Member, Connection, Reply]:
        """One request to the owner, or to the node that is named, sent again only where that can't do harm: none of it
        was answered, it has the same effect twice, and its body is still at hand.

        Raises Refusal (503) where the node can't be reached or breaks off, and Moved where the owner isn't, or isn't
        any more, the one that is `expected`.
        """
        seen = current.get()
        request = Request(method, f"/{self.settings.bucket}/{object_id}", headers, upload, seen.request_id)
        trying = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            node = self.node(object_id, home)
            if expected not in ("", node.name):
                raise Moved
            expected = node.name
            seen.asks(node.name, attempt, upload.length if upload else 0)
            trying = trying or node.admit()
            try:
                connection = acquire(node, self.records)
            except Refusal:
                seen.failed(node.name)
                raise
            if connection is None:
                continue
            try:
                if upload:
                    refuse_undecided(node, headers)
            except Refusal:
                node.release(connection)
                raise
            sent = time.monotonic()
            try:
                reply = node.exchange(connection, request)
            except UpstreamError as error:
                connection.close()
                silent = isinstance(error.__cause__, TimeoutError)
                if connection.reused and not connection.answered and not silent and not last:
                    node.forget()
                    self.discovery.renew()
                    continue
                seen.failed(node.name)
                log.warning("%s %s: node %s: %s", method, object_id, node.name, error)
                if trying or silent:
                    node.broke(error)
                raise unavailable("The node of this id broke off; try again.") from None
            except BaseException:  # the client broke off
                connection.close()
                if trying:
                    node.breaker.broken_until = time.monotonic()  # the next one tries
                raise
            node.answered(sent)
            seen.upstream += time.monotonic() - sent
            if last or not self._mended(node, connection, reply, upload):
                return node, connection, reply
        raise unavailable("The node of this id can't be reached.")

    def _mended(self, node: Member, connection: Connection, reply: Reply, upload: Upload | None) -> bool:
        """Whether the reason of a refusal is gone, so that the request is worth sending again, and can be."""
        if reply.status not in (400, 403, 404) or (upload is not None and upload.spent):
            return False
        if reply.code in KEY_REFUSED and not self.discovery.current(node):
            connection.close()
            return True
        if reply.code == "NoSuchBucket" and upload is not None:
            node.ready = False
            node.release(connection)
            return True
        return False
