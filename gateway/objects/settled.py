"""A request for an object that is with its owner and nowhere else: one request to one node.

Each method sends the request, and makes of the node's answer what the client gets. What S3 and HTTP
see differently is decided by the pure functions of `gateway.objects.semantics`. Two kinds of read
take a second request: one with an If-Range that fails, whose range must not have been applied, and
one with conditions whose range is beyond the object's end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from gateway.answers import Answer, Environ, Refusal, unavailable
from gateway.nodes.layout import DELETED
from gateway.nodes.member import Member
from gateway.nodes.view import View
from gateway.objects.download import download
from gateway.objects.semantics import (
    CONDITIONS,
    NOT_MODIFIED,
    S3_MAXIMUM,
    answered,
    precondition,
    reading,
    unchanged,
)
from gateway.objects.upstream import Upstream
from gateway.s3.body import Upload, spool, spool_whole
from gateway.s3.headers import NOTHING_LEFT
from gateway.s3.reply import Reply

log = logging.getLogger("objgw")

FOUND = {200: "200 OK", 206: "206 Partial Content"}  # a node's answers that have the object
SENT = frozenset(CONDITIONS.values())
NO_OBJECT = "There is no object with this id."
CONDITION_FAILED = "The object isn't what the request's conditions ask for."
# What S3 says to one of two writes at once. It asks to send it again.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})
CHECKSUM_REFUSED = frozenset(
    {
        "BadDigest",
        "InvalidDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "InvalidArgument",
    }
)


class Gone(Refusal):
    """404: the object was deleted while the layout wasn't settled, as a tombstone says.

    No other node has to be asked.
    """


class Settled:
    """GET, HEAD, PUT and DELETE, each of which asks one node."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def read(self, method: str, object_id: str, environ: Environ, node: Member) -> Answer:
        """GET and HEAD of one node. Raises Refusal."""
        headers, conditions = reading(method, environ)
        request = self.upstream.request(method, object_id, headers)
        node, connection, reply = self.upstream.exchange(node, request)
        if "range" in headers and not unchanged(
            environ.get("HTTP_IF_RANGE"), reply.status, reply.headers
        ):
            node.leave(connection, reply)
            del headers["range"]
            node, connection, reply = self.upstream.exchange(node, request)
        beyond = reply if reply.status == 416 and conditions else None
        # The conditions come first (RFC 9110, 13.2.2), and what they are about isn't in this
        # answer.
        if beyond:
            node.release(connection)
            request = self.upstream.request("HEAD", object_id)
            node, connection, reply = self.upstream.exchange(node, request)
        if reply.status not in FOUND:
            node.release(connection)
            if reply.status == 304:
                return not_modified(reply)
            raise refusal_of(node, reply)
        if DELETED in reply.headers:
            node.leave(connection, reply)
            raise Gone(HTTPStatus.NOT_FOUND, NO_OBJECT)
        # Not every server decides those that go to it.
        if conditions or (headers and not headers.keys().isdisjoint(SENT)):
            decided = precondition(conditions or headers, reply.headers)
            if decided is not HTTPStatus.OK:
                node.leave(connection, reply)
                if decided is HTTPStatus.NOT_MODIFIED:
                    return not_modified(reply)
                raise Refusal(decided, CONDITION_FAILED)
        if beyond:
            node.release(connection)
            raise refusal_of(node, beyond)
        status = FOUND[reply.status]
        # MinIO answers so to a suffix of an empty object, which is no range.
        if reply.headers.get("content-range", "").endswith("/0"):
            status = FOUND[200]
            del reply.headers["content-range"]
        if reply.left:
            body: Iterable[bytes] = download(node, connection, reply, environ.get("objgw.relay"))
        else:
            node.release(connection)
            body = [reply.body]
        return Answer(status, answered(reply.headers), body)

    def upload(
        self, node: Member, environ: Environ, headers: dict[str, str], most: int | None
    ) -> Upload:
        """The request's body, of which a first piece is read.

        It may have at most `most` bytes, or fewer by the settings. All of it is read where the
        node's server would store what has come of an upload that is cut (or may do so); that gets
        the body's MD5 as well, so that it also notices where the gateway ends in between. Raises
        Refusal where it needn't be sent, and BodyError.
        """
        # This is refused before the client is asked for the body.
        node = self.upstream.running(node)
        self.upstream.refuse_undecided(node, headers)
        maximum, what = self.upstream.settings.max_object_bytes or S3_MAXIMUM, "An object"
        if most is not None and most < maximum:
            maximum, what = most, "An upload by this link"
        if "HTTP_TRANSFER_ENCODING" in environ:
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":  # RFC 9112, 6.1
                raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "The only transfer coding is chunked.")
            stream, length = spool(environ["wsgi.input"], maximum)
        elif not environ.get("CONTENT_LENGTH") and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            # RFC 1945, 7.2.2. In HTTP/1.1 it means that there is no body (RFC 9112, 6.3).
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "A PUT of HTTP/1.0 needs a Content-Length.")
        else:
            stream, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
        if length > maximum:
            detail = f"{what} may have at most {maximum} bytes."
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        if node.standing.usable and node.standing.stores_cut is not False:
            stream, digest = spool_whole(stream, length)
            if node.standing.stores_cut and "content-md5" not in (node.standing.ignored or ()):
                headers.setdefault("content-md5", digest)
        return Upload(stream, length)

    def put(
        self, object_id: str, headers: Mapping[str, str], upload: Upload, node: Member, view: View
    ) -> Answer:
        """Stores it with the node, the owner by this view.

        Raises OwnerChanged where that isn't the owner any more.
        """
        request = self.upstream.request("PUT", object_id, headers, upload)
        node, connection, reply = self.upstream.exchange(node, request)
        node.release(connection)
        if reply.status != 200 or "etag" not in reply.headers:
            raise refusal_of(node, reply, writing=True)
        self.upstream.acknowledge(object_id, node, view)
        return Answer("200 OK", [("ETag", reply.headers["etag"]), ("Content-Length", "0")])

    def delete(self, object_id: str, node: Member, view: View | None = None) -> Answer:
        """DELETE of a node's copy, which is the owner's where a view is given.

        Raises Refusal, OwnerChanged.
        """
        request = self.upstream.request("DELETE", object_id)
        node, connection, reply = self.upstream.exchange(node, request)
        node.release(connection)
        if reply.status not in NOTHING_LEFT:
            raise refusal_of(node, reply)
        if view:
            self.upstream.acknowledge(object_id, node, view)
        return Answer("204 No Content", [])


def not_modified(reply: Reply) -> Answer:
    """304, with those headers of the object that it has."""
    return Answer(
        "304 Not Modified",
        [header for header in answered(reply.headers) if header[0] in NOT_MODIFIED],
    )


def refusal_of(node: Member, reply: Reply, *, writing: bool = False) -> Refusal:
    """What a client is told about a node's answer that isn't an object."""
    status, code = reply.status, reply.code
    if status == 404 and code in ("NoSuchKey", "NoSuchBucket", ""):
        if writing and code == "NoSuchKey":  # If-Match, where S3 says 404 and HTTP 412
            return Refusal(HTTPStatus.PRECONDITION_FAILED, NO_OBJECT)
        if writing:
            return unavailable(
                "The node of this id lost its bucket, which is made again; try again."
            )
        return Refusal(HTTPStatus.NOT_FOUND, NO_OBJECT)
    if status == 412:
        return Refusal(HTTPStatus.PRECONDITION_FAILED, CONDITION_FAILED)
    if status == 409 and code in CONFLICTS:
        return unavailable("Another write of this object was under way; nothing was stored.")
    if status == 501:
        detail = "The server of this id's node doesn't carry out what the request asks for."
        return Refusal(HTTPStatus.NOT_IMPLEMENTED, f"{detail} Nothing was changed.")
    if status == 416:
        total = re.search(rb"<ActualObjectSize>(\d+)<", reply.body)
        content_range = reply.headers.get("content-range") or (
            f"bytes */{total[1].decode()}" if total else "bytes */*"
        )
        detail = "The object ends before the range."
        return Refusal(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, detail, ("Content-Range", content_range)
        )
    if status == 400 and writing and code in CHECKSUM_REFUSED:
        return Refusal(
            HTTPStatus.BAD_REQUEST, "The body isn't what its checksum says. Nothing was stored."
        )
    if status == 400 and writing and code == "MetadataTooLarge":
        return Refusal(
            HTTPStatus.BAD_REQUEST, "The x-amz-meta-* headers are too large. Nothing was stored."
        )
    if code == "EntityTooLarge":
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The object is too large for the node.")
    if reply.full:
        detail = "The node of this id has no room left: its disk is full, or its quota is used up."
        return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, detail)
    log.warning("node %s: unexpected answer: %d %s", node.name, status, code)
    if status in (429, 503):
        return unavailable("The node of this id is busy or starting.")
    return Refusal(
        HTTPStatus.BAD_GATEWAY,
        "The node of this id gave an unexpected answer; the gateway's log has it.",
    )
