"""A request for an object that may be elsewhere than with its owner, because the layout isn't settled.

It takes several requests upstream. Why it is right: `gateway.nodes.layout`.
"""

from __future__ import annotations

import io
import logging
import math
import time
from http import HTTPStatus
from typing import NamedTuple

from gateway.answers import Answer, Environ, Refusal, unavailable
from gateway.nodes.layout import DELETED, EPOCH, EXPIRING_ETAG, POLL_SECONDS, TOMBSTONE
from gateway.nodes.member import Member
from gateway.nodes.view import Candidates, View
from gateway.objects.dates import http_time
from gateway.objects.semantics import CONDITIONS, permits
from gateway.objects.settled import CONDITION_FAILED, NO_OBJECT, Gone, Settled, refusal_of
from gateway.objects.upstream import REQUEST_ATTEMPTS
from gateway.s3.body import Upload
from gateway.s3.headers import IF_MATCH

log = logging.getLogger("objgw")

CONDITIONAL = (*CONDITIONS, "HTTP_RANGE")


class Copy(NamedTuple):
    """What a node has of an object."""

    node: Member
    etag: str
    epoch: int
    modified: int  # Unix time
    deleted: bool  # it is a tombstone


class Moving:
    """GET, HEAD, PUT and DELETE, each of which asks as many nodes as may have the object."""

    def __init__(self, settled: Settled) -> None:
        self.settled, self.upstream = settled, settled.upstream
        self.directory = settled.upstream.directory

    def read(self, method: str, object_id: str, environ: Environ, candidates: Candidates) -> Answer:
        """The newest copy, wherever it is. Raises Refusal where a node that may have it can't be asked."""
        plain = not any(name in environ for name in CONDITIONAL)  # a condition or range could be met by a tombstone
        if plain and (candidates.owner_has_newest or self.directory.view.moved):
            try:
                return self.settled.read(method, object_id, environ, candidates.owner)
            except Gone:
                raise
            except Refusal as refusal:
                if refusal.status is not HTTPStatus.NOT_FOUND:
                    raise
        for _ in range(REQUEST_ATTEMPTS):
            view = self.upstream.view()
            newest, _mine = self._newest(object_id, view, view.candidates(object_id))
            if newest is None or newest.deleted:
                raise Refusal(HTTPStatus.NOT_FOUND, NO_OBJECT)
            try:
                return self.settled.read(method, object_id, environ, newest.node)
            except Refusal as refusal:  # moved, or deleted
                if refusal.status is not HTTPStatus.NOT_FOUND:
                    raise
        raise unavailable("The object is being moved.")

    def put(self, object_id: str, headers: dict[str, str], upload: Upload) -> Answer:
        """Stores it with the owner.

        The condition of the upload is decided here, by all copies, and made one on what the owner has; also without
        a condition of its own it replaces a tombstone only if that is still there, for `rebalance` removes tombstones.
        """
        conditions = {name: headers.pop(name) for name in IF_MATCH if name in headers}
        for _ in range(REQUEST_ATTEMPTS):
            view = self.upstream.view()
            candidates = view.candidates(object_id)
            if conditions:
                newest, mine = self._newest(object_id, view, candidates)
            else:
                newest, mine = None, self._copy(object_id, candidates.owner)
            if mine and mine.etag == EXPIRING_ETAG and mine.deleted:
                time.sleep(POLL_SECONDS / 10)
                continue
            if not permits(conditions, newest.etag if newest and not newest.deleted else None):
                raise Refusal(HTTPStatus.PRECONDITION_FAILED, CONDITION_FAILED)
            sent = {**headers, EPOCH: str(view.epoch)}
            if mine and (conditions or (mine.deleted and mine.node.standing.keeps_conditions)):
                sent["if-match"] = mine.etag
            elif conditions:
                sent["if-none-match"] = "*"
            try:
                return self.settled.put(object_id, sent, upload, candidates.owner, view)
            except Refusal as refusal:
                if refusal.status is not HTTPStatus.PRECONDITION_FAILED:
                    raise
            if upload.spent:
                break
        raise unavailable("The object changed meanwhile; try again.")

    def delete(self, object_id: str, view: View, candidates: Candidates) -> Answer:
        """Leaves a tombstone with the owner, which hides all other copies, then deletes those that can be reached.

        Not where one of the others is about to become the owner: it might have a newer object by the time it is asked.
        """
        headers = {"content-type": "text/plain", EPOCH: str(view.epoch), DELETED: "1"}
        self.settled.put(object_id, headers, Upload(io.BytesIO(TOMBSTONE), len(TOMBSTONE)), candidates.owner, view)
        for node in candidates.others if view.until == math.inf and self.directory.view is view else ():
            try:
                self.settled.delete(object_id, node)
            except Refusal as refusal:
                log.info("DELETE %s leaves a copy for rebalance on node %s: %s", object_id, node.name, refusal)
        return Answer("204 No Content", [])

    def _newest(self, object_id: str, view: View, candidates: Candidates) -> tuple[Copy | None, Copy | None]:
        """The newest copy of an object, and the owner's. Raises Refusal where a node that has to be asked can't be."""
        mine = self._copy(object_id, candidates.owner)
        if view.moved or (mine and (candidates.owner_has_newest or mine.epoch == view.epoch)):
            return mine, mine
        copies = [copy for copy in (mine, *(self._copy(object_id, node) for node in candidates.others)) if copy]
        if not copies:  # it may have been moved while they were asked
            mine = self._copy(object_id, candidates.owner)
            return mine, mine
        return max(copies, key=lambda copy: (copy.epoch, copy.modified)), mine

    def _copy(self, object_id: str, node: Member) -> Copy | None:
        """What a node has of an object."""
        node, connection, reply = self.upstream.exchange(node, "HEAD", object_id)
        node.release(connection)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise refusal_of(node, reply)
        epoch, modified = reply.headers.get(EPOCH, "0"), http_time(reply.headers.get("last-modified")) or 0
        deleted = DELETED in reply.headers
        return Copy(node, reply.headers.get("etag", ""), int(epoch) if epoch.isdecimal() else 0, modified, deleted)
