"""Requests for objects that may be elsewhere than with their owner, while the layout isn't settled.

The problem. After a change of names an id has a new owner, and its object is still with an old
one. `rebalance` moves it, at a moment that no gateway knows. Clients go on reading, writing and
deleting meanwhile. So a request may find an object at its owner, elsewhere, at both, or at neither.

The rules, which follow from `gateway.nodes.layout`:

- Only the owner is written to. Each write carries the epoch of the view that it was made by.
- Of several copies the one of the higher epoch is the newest. In one epoch only one node is the
  owner, so that copies of one epoch are on one node's clock, and Last-Modified decides.
- A tombstone is compared like a copy. Where it is the newest, there is no object.
- `rebalance` writes to the owner only if nothing is there, or still what it saw there, and removes
  the other copies only after that.

A read (GET, HEAD), by what the owner has:

    a copy, no other node       The copy is the newest, and is the answer. One request. This is so
    can have a newer one        where the owner wasn't the owner before others were
                                (`Candidates.owner_has_newest`), or all is moved.
    a copy of this epoch        It is the newest: a newer one would be with the owner, too.
    an older copy               All candidates are compared, and the newest copy is read.
    a tombstone                 The same as for a copy. If it is the newest, the answer is 404.
    nothing                     All candidates are compared. If none has a copy, it may have been
                                moved while they were asked: from one that was asked late to the
                                owner, which was asked first. So the owner is asked once more. A
                                move never takes an object away from its owner.
    no answer                   503. The same where another candidate that has to be asked can't be.

When the newest copy is gone by the time that it is read, it was moved or deleted in between. Then
the read starts over. A condition or a range could be met by a tombstone's own ETag and length, so
that such a read compares first.

A PUT, by what the owner has:

    nothing, or a copy          It is stored with the owner. Older copies elsewhere have a lower
                                epoch, or none, so that no read prefers them.
    a tombstone                 It is stored on the condition that the tombstone is still there.
                                `rebalance` removes a tombstone by a DELETE, which takes no
                                condition and would remove an object as well. So it first makes
                                the tombstone an expiring one, which has a condition: of this and
                                the PUT, one fails, and whoever failed looks again.
    an expiring tombstone       It waits until that is gone, which takes moments.

A PUT with a condition (If-Match, If-None-Match) is about the object, wherever it is. The gateway
decides it on the newest copy, and then sends one of its own: that the owner still has what was
seen there. If that fails, it starts over. A copy elsewhere can't change unnoticed in between:
`rebalance` moves it to the owner first, and no client can write it. An upload whose body can't be
sent again ends with 503 instead of starting over.

A DELETE leaves a tombstone with the owner, also where there is nothing: an older copy may be
elsewhere. From then on the object is deleted. The other copies are only in the way of `rebalance`,
so that failing to delete them does no harm. They aren't deleted while one of the others is about to
become the owner, because by the time that it is asked a client may have stored a newer object
there. Once everything is moved, nothing is left to hide, and a DELETE is a plain one again.

When the owner changes within a write, the write isn't acknowledged (`Upstream.acknowledge`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from gateway.answers import Answer, Environ, Refusal, unavailable
from gateway.nodes.layout import DELETED, EPOCH, POLL_SECONDS, TOMBSTONE, epoch_of, is_expiring
from gateway.nodes.member import Member
from gateway.nodes.view import Candidates, View
from gateway.objects.dates import http_time
from gateway.objects.semantics import CONDITIONS, permits
from gateway.objects.settled import CONDITION_FAILED, NO_OBJECT, Gone, Settled, refusal_of
from gateway.objects.upstream import REQUEST_ATTEMPTS
from gateway.s3.body import Upload, upload_of
from gateway.s3.headers import IF_MATCH

log = logging.getLogger("objgw")

CONDITIONAL = (*CONDITIONS, "HTTP_RANGE")


class Copy(NamedTuple):
    """What a node has of an object."""

    node: Member
    etag: str
    size: int  # bytes
    epoch: int
    modified: int  # Unix time
    deleted: bool  # it is a tombstone
    expiring: bool  # that is about to be removed


class Moving:
    """GET, HEAD, PUT and DELETE, each of which asks as many nodes as may have the object."""

    def __init__(self, settled: Settled) -> None:
        self.settled, self.upstream = settled, settled.upstream
        self.directory = settled.upstream.directory

    def read(self, method: str, object_id: str, environ: Environ, candidates: Candidates) -> Answer:
        """The newest copy, wherever it is.

        Raises Refusal where a node that may have it can't be asked.
        """
        # A condition or range could be met by a tombstone.
        plain = not any(name in environ for name in CONDITIONAL)
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
            newest, _ = self.newest(object_id, view, view.candidates(object_id))
            if newest is None or newest.deleted:
                raise Refusal(HTTPStatus.NOT_FOUND, NO_OBJECT)
            try:
                return self.settled.read(method, object_id, environ, newest.node)
            except Refusal as refusal:  # moved, or deleted
                if refusal.status is not HTTPStatus.NOT_FOUND:
                    raise
        raise unavailable("The object is being moved.")

    def put(self, object_id: str, headers: dict[str, str], upload: Upload) -> Answer:
        """Stores the object with its owner.

        Raises Refusal: 412 where a condition of the upload fails, 503 where it can't be decided.
        """
        conditions = {name: headers.pop(name) for name in IF_MATCH if name in headers}
        for _ in range(REQUEST_ATTEMPTS):
            view = self.upstream.view()
            candidates = view.candidates(object_id)
            if conditions:
                newest, at_owner = self.newest(object_id, view, candidates)
            else:
                newest, at_owner = None, self._copy(object_id, candidates.owner)
            if at_owner and at_owner.expiring:
                time.sleep(POLL_SECONDS / 10)
                continue
            if not permits(conditions, newest.etag if newest and not newest.deleted else None):
                raise Refusal(HTTPStatus.PRECONDITION_FAILED, CONDITION_FAILED)
            sent = {**headers, EPOCH: str(view.epoch), **unchanged_owner(at_owner, conditions)}
            try:
                return self.settled.put(object_id, sent, upload, candidates.owner, view)
            except Refusal as refusal:
                if refusal.status is not HTTPStatus.PRECONDITION_FAILED:
                    raise
            if upload.spent:
                break
        raise unavailable("The object changed meanwhile; try again.")

    def delete(self, object_id: str, view: View, candidates: Candidates) -> Answer:
        """Leaves a tombstone with the owner, then deletes the other copies that can be reached.

        Raises Refusal, and OwnerChanged where that node may not be the owner any more.
        """
        headers = {"content-type": "text/plain", EPOCH: str(view.epoch), DELETED: "1"}
        self.settled.put(object_id, headers, upload_of(TOMBSTONE), candidates.owner, view)
        switching = view.until < math.inf or self.directory.view is not view
        for node in () if switching else candidates.others:
            try:
                self.settled.delete(object_id, node)
            except Refusal as refusal:
                text = "DELETE %s leaves a copy for rebalance on node %s: %s"
                log.info(text, object_id, node.name, refusal)
        return Answer("204 No Content", [])

    def newest(
        self, object_id: str, view: View, candidates: Candidates
    ) -> tuple[Copy | None, Copy | None]:
        """The newest copy of an object, and the owner's copy.

        Raises Refusal where a node that has to be asked can't be.
        """
        at_owner = self._copy(object_id, candidates.owner)
        if view.moved:
            return at_owner, at_owner
        if at_owner and (candidates.owner_has_newest or at_owner.epoch == view.epoch):
            return at_owner, at_owner
        found = [at_owner, *(self._copy(object_id, node) for node in candidates.others)]
        copies = [copy for copy in found if copy]
        if not copies:  # it may have been moved while they were asked
            at_owner = self._copy(object_id, candidates.owner)
            return at_owner, at_owner
        return max(copies, key=lambda copy: (copy.epoch, copy.modified)), at_owner

    def _copy(self, object_id: str, node: Member) -> Copy | None:
        """What a node has of an object. Raises Refusal."""
        request = self.upstream.request("HEAD", object_id)
        node, connection, reply = self.upstream.exchange(node, request)
        node.release(connection)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise refusal_of(node, reply)
        headers = reply.headers
        return Copy(
            node,
            headers.get("etag", ""),
            int(headers.get("content-length", 0)),
            epoch_of(headers),
            http_time(headers.get("last-modified")) or 0,
            DELETED in headers,
            is_expiring(headers),
        )


def unchanged_owner(at_owner: Copy | None, conditions: Mapping[str, str]) -> dict[str, str]:
    """The condition that the owner still has what was seen there, where an upload needs one.

    It does where it has conditions of its own, which were decided on that, and where it replaces a
    tombstone. A server that ignores conditions isn't sent one for the sake of a tombstone.
    """
    if at_owner and (conditions or (at_owner.deleted and at_owner.node.standing.keeps_conditions)):
        return {"if-match": at_owner.etag}
    return {"if-none-match": "*"} if conditions else {}
