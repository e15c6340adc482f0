"""objgw: one URL in front of several MinIO servers that run as Docker containers.

A request for `/object/{id}` is relayed to the one node that owns the id. This module has the WSGI
callable. It decides on an `Answer` first and sends last; every refusal is an exception. What it
stands on is in the package `gateway`, a folder for each subject:

- `objects`: what a request does. While the layout is settled, that is one request to one node;
  while objects move, it is what `moving` says.
- `nodes`: who the nodes are. A `View` has them sorted by name, and an id's owner is
  `nodes[sha256(id) % len(nodes)]` as long as their names don't change; `placement` says how it goes
  on from there. Threads keep the view current, from Docker and from the nodes' records of the
  layout.
- `s3`: a node with its pool of connections and its signatures, and one HTTP exchange with it.
- `status`: logs, metrics, health and the page. `server`: the gunicorn worker.

What it promises:

- One request upstream for each request. Only while objects are moved there are several, and only
  for an id that may be elsewhere than with its owner. The list (`/objects`) asks each node.
- Bodies stream in constant memory.
- A connection to a node is used only after the node's own record was read over it. So a container
  that took over another's address is never mistaken for it.
- A node is used only while its record was read a moment ago, so that no gateway goes by a layout
  that others have left behind.

Importing the module starts nothing and asks Docker nothing. The first request does, or
`app.start()`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from http import HTTPStatus

from gateway.answers import Answer, Environ, Refusal, StartResponse
from gateway.auth import Tokens
from gateway.cors import Cors
from gateway.links import Links, link_of
from gateway.nodes.discovery import Discovery
from gateway.nodes.leader import Leader
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.records import Records
from gateway.nodes.view import Directory
from gateway.objects.listing import Listing
from gateway.objects.moving import Moving
from gateway.objects.settled import Gone, Settled
from gateway.objects.upstream import REQUEST_ATTEMPTS, OwnerChanged, Upstream
from gateway.objects.writes import deleting, writing
from gateway.s3.body import BodyError
from gateway.server import start
from gateway.settings import Settings, read_or_exit
from gateway.status.metrics import Metrics
from gateway.status.observation import current
from gateway.status.recorder import LISTING, Recorder
from gateway.status.routes import Status

log = logging.getLogger("objgw")

ALLOW = ("Allow", "GET, HEAD, PUT, DELETE")


class Gateway:
    """The WSGI application. Making it starts nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings)
        self.links = Links(settings.link_key.split())
        self.cors = Cors(settings.cors_origins.split()) if settings.cors_origins else None
        self.directory = Directory(settings)
        self.discovery = Discovery(self.directory)
        self.recorder = Recorder(Metrics(), settings)
        self.leader = Leader(self.recorder.metrics.folder)
        self.records = Records(self.directory, self.discovery, self.leader)
        self.status = Status(self.discovery, self.recorder.metrics, self.leader)
        self.upstream = Upstream(self.directory, self.records.poller)
        self.settled = Settled(self.upstream)
        self.moving = Moving(self.settled)
        self.listing = Listing(self.moving)
        self._started = False

    def start(self) -> None:
        """Starts to look for nodes. The first request does so too."""
        self._started = True
        self.records.start()
        self.recorder.start()
        self.status.start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._started:
            self.start()
        observation = self.recorder.begin(environ)
        try:
            answer = self.answer(environ)
        except Refusal as refusal:
            answer = refusal.answer()
        except BodyError as error:
            answer = Refusal(error.status, f"{error} Nothing was stored.").answer()
        except Exception:
            log.exception("%r %r", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            answer = Refusal(
                HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed; its log says why."
            ).answer()
        except BaseException:  # the time to stop is over: the server ends what isn't done
            observation.cut()
            raise
        answer = observation.end(answer, environ.get("objgw.delivered"))
        if self.cors:
            answer.headers.extend(self.cors.headers(environ.get("HTTP_ORIGIN", "")))
        start_response(answer.status, answer.headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else answer.body

    def answer(self, environ: Environ) -> Answer:
        """Decides on a request. Raises Refusal, and BodyError when the client breaks off."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self.cors and method == "OPTIONS" and (allowed := self.cors.preflight(environ)):
            return allowed
        if not path.startswith("/object/"):
            if self.tokens and self.status.guarded(path):
                given = environ.get("HTTP_AUTHORIZATION", "")
                environ["objgw.may_write"] = self.tokens.permit(given, writing=False)
            if path == LISTING:
                return self.listing.answer(environ)
            return self.status.answer(environ)
        query, most = environ.get("QUERY_STRING"), None
        link = link_of(query) if query else None
        if link is not None:
            current.get().link = True
        elif self.tokens:
            self.tokens.permit(
                environ.get("HTTP_AUTHORIZATION", ""), writing=method not in ("GET", "HEAD")
            )
        object_id = path[8:]
        if not OBJECT_ID.fullmatch(object_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
        if link is not None and method in ("GET", "HEAD", "PUT", "DELETE"):
            most = self.links.permit(method, object_id, link, time.time())
            environ["QUERY_STRING"] = ""  # it is carried out
        if method == "PUT":
            return self._put(object_id, environ, most)
        if method in ("GET", "HEAD"):
            return self._read(method, object_id, environ)
        if method == "DELETE":
            return self._delete(object_id, environ)
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET, HEAD, PUT or DELETE.", ALLOW)

    def _read(self, method: str, object_id: str, environ: Environ) -> Answer:
        """GET and HEAD.

        A miss is one only by the view that says where to look. Where another view came meanwhile,
        it looks again.
        """
        for _ in range(REQUEST_ATTEMPTS):
            view = self.upstream.view()
            candidates = view.candidates(object_id)
            try:
                if candidates.others:
                    return self.moving.read(method, object_id, environ, candidates)
                return self.settled.read(method, object_id, environ, candidates.owner)
            except Gone:
                raise
            except Refusal as refusal:
                if (
                    refusal.status is not HTTPStatus.NOT_FOUND
                    or self.directory.current_view() is view
                ):
                    raise
        raise OwnerChanged

    def _delete(self, object_id: str, environ: Environ) -> Answer:
        """DELETE.

        It may be done twice, so that it starts over where the owner has become another one
        meanwhile.
        """
        deleting(environ)
        for _ in range(REQUEST_ATTEMPTS):
            view = self.upstream.view()
            candidates = view.candidates(object_id)
            with contextlib.suppress(OwnerChanged):
                if candidates.others and not view.moved:
                    return self.moving.delete(object_id, view, candidates)
                return self.settled.delete(object_id, candidates.owner, view)
        raise OwnerChanged

    def _put(self, object_id: str, environ: Environ, most: int | None) -> Answer:
        """PUT, of at most so many bytes where a link has a number.

        It can't start over, because what was read of the body is gone. So it goes by the view that
        is in force after the body's first bytes.
        """
        headers, view = writing(environ), self.upstream.view()
        candidates = view.candidates(object_id)
        upload = self.settled.upload(candidates.owner, environ, headers, most)
        now = self.upstream.view()  # its first bytes may have been long in coming
        if now is not view:
            view, candidates = now, now.candidates(object_id)
        if candidates.others:
            return self.moving.put(object_id, headers, upload)
        return self.settled.put(object_id, headers, upload, candidates.owner, view)


start.require_configuration()
app = Gateway(start.settings or read_or_exit())
