"""`GET /objects`: what is stored, a page at a time or all of it.

A page is one JSON document, and asks each node once. With `Accept: application/x-ndjson` the answer
is a line for each object, to the end, in chunks; what is held of it is a step of the walk
(`gateway.nodes.walk`), whatever the client's pace. A list is never shorter than what is there: a
node that can't be asked makes the answer a 503, and where that happens after the first line, the
connection breaks before the last chunk.

Nothing here asks for the objects themselves. What a line says is what the owner's own listing says,
which is what its GET would say: the ETag as it is, and the time in the whole seconds that
Last-Modified has.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

from gateway.answers import Answer, Environ, Headers, Refusal, require_reading, unavailable
from gateway.nodes.member import Member
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.view import Candidates, View
from gateway.nodes.walk import Walk, shown
from gateway.objects.moving import Moving
from gateway.s3.connection import Request, UpstreamError
from gateway.s3.headers import DOCUMENT_MAX, LISTING_PAGE
from gateway.s3.listing import Entry, Page, parse_objects
from gateway.status.observation import ALL_NODES, Observation, current

log = logging.getLogger("objgw")

LISTINGS = 32  # pages, and as many streams, at once in one worker, for the memory
STREAM_STEP = 3000  # objects that a stream asks for at once
LIMIT = re.compile(r"[1-9][0-9]{0,3}")
OF_THIS_ID = re.compile("the node of this id", re.IGNORECASE)  # in what `Upstream` says
NDJSON = "application/x-ndjson"


class Asked(NamedTuple):
    """What is to be listed."""

    prefix: str = ""
    after: str = ""
    limit: int = LISTING_PAGE
    stream: bool = False


class Listing:
    """The answers to `/objects`."""

    def __init__(self, moving: Moving) -> None:
        self._moving, self._upstream = moving, moving.upstream
        # Clients that are slow to take their streams leave the pages alone.
        self._pages, self._streams = (threading.BoundedSemaphore(LISTINGS) for _ in range(2))

    def answer(self, environ: Environ) -> Answer:
        """GET and HEAD. Raises Refusal."""
        require_reading(environ)
        asked = asked_for(environ)
        observation = current.get()
        observation.node = ALL_NODES
        nodes = AllNodes(self._moving, observation)
        free = self._streams if asked.stream else self._pages
        if not free.acquire(blocking=False):
            raise unavailable("Too many lists at once.")
        with contextlib.ExitStack() as stack:
            stack.callback(free.release)
            if not asked.stream:
                return page(nodes, asked)
            walk = Walk(nodes, asked.prefix, asked.after, STREAM_STEP)
            first = walk.step()  # so that what can't be listed at all is refused
            headers = headers_of(NDJSON)
            if environ["REQUEST_METHOD"] == "HEAD":
                return Answer("200 OK", headers)
            return Answer("200 OK", headers, Lines(walk, first, stack.pop_all()))


class AllNodes:
    """What a walk asks of nodes (`gateway.nodes.walk.Nodes`), as one request of a client."""

    def __init__(self, moving: Moving, observation: Observation) -> None:
        self._moving, self._upstream, self._observation = moving, moving.upstream, observation

    def view(self) -> View:
        """The view that is in force. Raises Refusal where there are no nodes."""
        return self._upstream.view()

    def page(self, node: Member, query: str) -> Page:
        """A page of a node's listing. Raises Refusal."""
        path = f"/{self._upstream.settings.bucket}{query}"
        request = Request("GET", path, request_id=self._observation.request_id)
        with self._part(f"Node {node.name}"):
            node, connection, reply = self._upstream.exchange(node, request)
            if reply.status != 200:
                node.release(connection)
                if reply.code == "NoSuchBucket":
                    return Page([], "")
                log.warning(
                    "node %s: unexpected answer to a listing: %d %s",
                    node.name,
                    reply.status,
                    reply.code,
                )
                if reply.status in (429, 503):
                    raise unavailable("The node of this id is busy or starting.")
                raise unexpected(node)
            node.downloads.add(connection)
            try:
                connection.finish(reply, DOCUMENT_MAX)
            except UpstreamError as error:
                connection.close()
                log.warning("node %s: within a listing: %s", node.name, error)
                raise unavailable("The node of this id broke off.") from None
            finally:
                node.downloads.discard(connection)
            node.release(connection)
        try:
            return parse_objects(reply.body)
        except ValueError as error:
            raise self.unlistable(node, error) from None

    def newest(self, object_id: str, view: View, candidates: Candidates) -> Entry | None:
        """The newest copy by HEADs. Raises Refusal."""
        with self._part("A node"):
            copy = self._moving.newest(object_id, view, candidates)[0]
        if copy is None or copy.deleted:
            return None
        return Entry(object_id, copy.size, copy.etag, copy.modified)

    def unlistable(self, node: Member, error: ValueError) -> Refusal:
        """502: what the node gave isn't a listing."""
        log.warning("node %s: it gives no listing of S3: %s", node.name, error)
        return unexpected(node)

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """What is asked within is observed as a part, and refused in words about a list."""
        part = self._observation.part()
        token = current.set(part)
        try:
            yield
        except Refusal as refusal:
            detail = OF_THIS_ID.sub(name, refusal.detail)
            detail = f"{detail} Without it the list would be incomplete."
            raise Refusal(refusal.status, detail, *refusal.headers) from None
        finally:
            current.reset(token)
            # Nodes are asked at once, so that the slowest answer counts.
            self._observation.upstream = max(self._observation.upstream, part.upstream)


class Lines:
    """The body of a stream: blocks of lines, one for each object."""

    def __init__(self, walk: Walk, first: list[Entry], held: contextlib.ExitStack) -> None:
        """`held` is closed with the body, which WSGI promises to do."""
        self._walk, self._ready, self._held = walk, first, held

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._ready:
            if self._walk.done:
                raise StopIteration
            try:
                self._ready = self._walk.step()
            except Refusal as refusal:
                current.get().reason = refusal.detail
                log.warning("a list is broken off: %s", refusal.detail)
                raise ConnectionResetError(errno.ECONNRESET, "a node can't be listed") from None
        block = "".join([f"{json.dumps(shown(entry))}\n" for entry in self._ready])
        self._ready = []
        return block.encode()

    def close(self) -> None:
        """WSGI's: called when the answer is sent, or won't be any further."""
        self._held.close()


def page(nodes: AllNodes, asked: Asked) -> Answer:
    """A page of the list. Raises Refusal."""
    walk, entries = Walk(nodes, asked.prefix, asked.after, asked.limit), list[Entry]()
    while len(entries) < asked.limit and not walk.done:
        entries += walk.step(asked.limit - len(entries))
    report = {
        "objects": [shown(entry) for entry in entries],
        "next": None if walk.done else entries[-1].key,
    }
    body = json.dumps(report).encode() + b"\n"
    headers = [*headers_of("application/json"), ("Content-Length", str(len(body)))]
    return Answer("200 OK", headers, [body])


def headers_of(content_type: str) -> Headers:
    """The headers of a list, which nobody keeps."""
    return [("Content-Type", content_type), ("Cache-Control", "no-store"), ("Vary", "Accept")]


def asked_for(environ: Environ) -> Asked:
    """What a request asks to be listed. Raises Refusal (400) for what isn't one to the letter."""
    stream = wants_lines(environ.get("HTTP_ACCEPT", ""))
    given: dict[str, str] = {}
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        if name not in ("prefix", "after", "limit"):
            raise bad(f"The list takes prefix, after and limit, and no {name[:40]!a}.")
        if name in given:
            raise bad(f"{name} is there twice.")
        given[name] = value
    for name in ("prefix", "after"):
        if given.get(name) and not OBJECT_ID.fullmatch(given[name]):
            raise bad(f"{name} has to be 1 to 32 ASCII letters and digits, as ids are.")
    asked = Asked(given.get("prefix", ""), given.get("after", ""), stream=stream)
    if stream and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise bad("HTTP/1.0 can't say that a list without a length is whole; ask for pages.")
    if "limit" not in given:
        return asked
    if stream:
        raise bad("limit is for pages; lines come to the end of the list.")
    limit = given["limit"]
    if not LIMIT.fullmatch(limit) or int(limit) > LISTING_PAGE:
        raise bad(f"limit has to be a number from 1 to {LISTING_PAGE}.")
    return asked._replace(limit=int(limit))


NOT_WANTED = re.compile(r"q=0(\.0{0,3})?")


def wants_lines(accept: str) -> bool:
    """Whether an Accept header names the media type of the stream (RFC 9110, 12.5.1).

    >>> wants_lines("text/html, application/x-ndjson"), wants_lines("application/x-ndjson;q=0")
    (True, False)
    """
    for each in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in each.split(";"))
        if media_type == NDJSON and not any(map(NOT_WANTED.fullmatch, parameters)):
            return True
    return False


def bad(detail: str) -> Refusal:
    """400: the request can't be carried out as it is."""
    return Refusal(HTTPStatus.BAD_REQUEST, detail)


def unexpected(node: Member) -> Refusal:
    """502: the node answered, and not with a listing."""
    detail = f"Node {node.name} gave an unexpected answer; the gateway's log has it."
    return Refusal(HTTPStatus.BAD_GATEWAY, detail)
