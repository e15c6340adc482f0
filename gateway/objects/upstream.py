"""The way to the node: one request, sent again only where that can't do harm.

An attempt has four steps, in this order: the breaker admits it, `acquire` gives a connection that
is proved, the exchange, and its end, which the breaker and the observation are told of in one
place. It is made again with the same node, under whatever address and keys it has by then, where
none of the request was answered, its effect is the same twice, and its body is still at hand.

Worst case for a request: `EXCHANGE_ATTEMPTS`, each bounded by the connect and node time-outs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus

from gateway.answers import Refusal, unavailable
from gateway.nodes.abilities import FOUND_OUT, IF_MATCH_ANY, METADATA
from gateway.nodes.acquire import Unusable, acquire
from gateway.nodes.member import Member
from gateway.nodes.poller import Poller
from gateway.nodes.standing import KEY_REFUSALS, is_silence, reason
from gateway.nodes.view import Directory, View
from gateway.s3.body import Upload
from gateway.s3.connection import Connection, Request, UpstreamError
from gateway.s3.headers import IF_MATCH
from gateway.s3.reply import Reply
from gateway.status.observation import current

log = logging.getLogger("objgw")

# Attempts of an exchange: one on a kept connection that was closed, one with an address or key that
# has changed, and one that tells the truth.
EXCHANGE_ATTEMPTS = 3
REQUEST_ATTEMPTS = 8  # of a request for an object that moves, or that others write meanwhile
NONE: Mapping[str, str] = {}


class OwnerChanged(Refusal):
    """503: the layout changed while the request was on its way to what was the owner.

    An upload can't start over.
    """

    def __init__(self) -> None:
        again = unavailable("The object's place changed meanwhile; try again.")
        super().__init__(again.status, again.detail, *again.headers)


class Upstream:
    """Requests for objects, each to one node."""

    def __init__(self, directory: Directory, poller: Poller) -> None:
        self.directory, self.discovery, self.poller = directory, poller.discovery, poller
        self.settings = directory.settings

    def view(self) -> View:
        """The view that is in force. Raises Refusal where there are no nodes."""
        view = self.directory.current_view()
        if not view.nodes:
            self.discovery.refresh()
            view = self.directory.current_view()
        if not view.nodes:
            if self.directory.conflict:
                raise unavailable(
                    f"{self.directory.conflict.what}; the gateway's log says what to do."
                )
            errors = {node.standing.error for node in self.directory.by_name.values()} - {""}
            why = f": {'; '.join(sorted(errors))}" if errors else ""
            raise unavailable(f"No node has answered yet{why}.")
        return view

    def running(self, node: Member) -> Member:
        """The node as the source has it by now. Raises Refusal where it can't be asked."""
        if node.closed or not node.host:
            node = self.directory.named(node.name) or node
        if node.closed or not node.host:
            self.discovery.refresh()
            node = self.directory.named(node.name) or node
        if not node.host:
            problem = node.endpoint.problem
            why = f"can't be reached: {problem}" if problem else "is not running"
            raise unavailable(f"The node of this id {why}.")
        return node

    def request(
        self,
        method: str,
        object_id: str,
        headers: Mapping[str, str] = NONE,
        upload: Upload | None = None,
    ) -> Request:
        """A request for an object."""
        path = f"/{self.settings.bucket}/{object_id}"
        return Request(method, path, headers, upload, current.get().request_id)

    def exchange(self, node: Member, request: Request) -> tuple[Member, Connection, Reply]:
        """One request to the node, which may have been replaced by one of its name, and its answer.

        Raises Refusal (503) where the node can't be reached, isn't who it has to be, or breaks off.
        """
        observation, trial, upload = current.get(), False, request.upload
        for attempt in range(EXCHANGE_ATTEMPTS):
            last = attempt == EXCHANGE_ATTEMPTS - 1
            if node.closed or not node.host:
                node = self.running(node)
            observation.asks(node.name, attempt, upload.length if upload else 0)
            trial = node.admit() or trial
            connection = None
            try:
                if upload is not None:
                    self.refuse_undecided(node, request.headers)
                connection = acquire(node)
                sent = time.monotonic()
                trace = observation.trace
                reply = (
                    trace.exchange(node, connection, request, attempt)
                    if trace
                    else node.exchange(connection, request)
                )
            except (Unusable, OSError, UpstreamError) as error:
                if connection:
                    connection.close()
                if not last and self._again(node, connection, request, error):
                    if trial:  # the next attempt is one itself
                        node.breaker.abandoned()
                    continue
                raise self._failed(node, request, error, connection, trial=trial) from None
            except BaseException:  # the client broke off, or the request is refused
                if connection:
                    connection.close()
                if trial:
                    node.breaker.abandoned()
                raise
            node.breaker.succeeded()
            observation.upstream += time.monotonic() - sent
            if reply.status < 400 or last or not self._mended(node, connection, reply, upload):
                return node, connection, reply
        raise unavailable("The node of this id can't be reached.")

    def refuse_undecided(self, node: Member, headers: Mapping[str, str]) -> None:
        """Raises Refusal for an upload that asks for what the node's server would ignore."""
        if len(headers) == 1:  # of which there is nothing to find out: Content-Type
            return
        self._refuse_ignored(node, headers)
        if headers.keys().isdisjoint(IF_MATCH):
            return
        decides = self.poller.decides_conditions(node)
        if decides is None:
            detail = "Whether the node of this id decides conditions isn't known yet; try again."
            raise unavailable(detail)
        if not decides:
            detail = (
                "The server of this id's node ignores conditions on PUT, "
                "so this one can't be decided without a race. Nothing was stored."
            )
            raise Refusal(HTTPStatus.NOT_IMPLEMENTED, detail)

    def _refuse_ignored(self, node: Member, headers: Mapping[str, str]) -> None:
        """The same for what isn't about whether conditions are decided at all."""
        asked = {name for name in headers if name in FOUND_OUT} - {*IF_MATCH}
        if any(name.startswith("x-amz-meta-") for name in headers):
            asked.add(METADATA)
        if headers.get("if-match") == "*":
            asked.add(IF_MATCH_ANY)
        if not asked:
            return
        ignored = self.poller.ignored(node)
        if ignored is None:
            detail = "What the server of this id's node can do isn't known yet; try again."
            raise unavailable(detail)
        if not ignored.isdisjoint(asked):
            names = ", ".join(sorted(ignored & asked))
            detail = f"The server of this id's node doesn't carry out {names}. Nothing was stored."
            raise Refusal(HTTPStatus.NOT_IMPLEMENTED, detail)

    def _again(
        self, node: Member, connection: Connection | None, request: Request, error: Exception
    ) -> bool:
        """Whether an attempt that failed is worth another one.

        It is if nothing of it can have taken effect, and the node may be reached now.
        """
        if connection is None:
            return self.discovery.replaced(node)
        if connection.reused and not connection.answered and not is_silence(error):
            node.forget()
            return request.repeatable
        return False

    def _failed(
        self,
        node: Member,
        request: Request,
        error: Exception,
        connection: Connection | None,
        *,
        trial: bool,
    ) -> Refusal:
        """The end of an exchange that failed.

        It tells the breaker, the observation and the log, and gives what the client is told.
        """
        current.get().failed(node.name)
        if isinstance(error, Unusable):
            if trial:
                node.breaker.abandoned()
            return unavailable(str(error))
        if trial or connection is None or is_silence(error):
            node.breaker.failed(reason(error))
            node.forget()
        if connection is None:
            return unavailable(f"The node of this id can't be asked: {reason(error)}.")
        log.warning("%s %s: node %s: %s", request.method, request.path, node.name, error)
        return unavailable("The node of this id broke off; try again.")

    def _mended(
        self, node: Member, connection: Connection, reply: Reply, upload: Upload | None
    ) -> bool:
        """Whether the reason of a refusal is gone, and the request can be sent again."""
        if reply.status not in (400, 403, 404) or (upload is not None and upload.spent):
            return False
        # An answer to HEAD has no body that would say why, but MinIO's headers do.
        refused = reply.code in KEY_REFUSALS or (reply.status == 403 and not reply.code)
        if refused and self.discovery.replaced(node):
            connection.close()
            return True
        if reply.code == "NoSuchBucket" and upload is not None:
            node.ready = False
            node.release(connection)
            return True
        return False

    def acknowledge(self, object_id: str, node: Member, view: View) -> None:
        """Raises OwnerChanged where the node that took a write may not be the owner any more."""
        if not node.standing.leased:
            try:
                node.release(acquire(node))
            except (Unusable, OSError, UpstreamError):
                raise OwnerChanged from None
        now = self.directory.current_view()
        if now is not view and (not now.nodes or now.owner(object_id).name != node.name):
            raise OwnerChanged
