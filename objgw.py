"""objgw: one URL in front of several MinIO servers that run as Docker containers.

A request for `/object/{id}` is relayed to the one node that owns the id. This module has the WSGI callable, which
decides on an `Answer` first and sends last; every refusal is an exception. What it stands on is in the package
`gateway`, a folder for each subject:

- `objects`: what a request does. While the layout is settled, one request to one node; else `moving`.
- `nodes`: the `View`, a sorted tuple of nodes, of which an id's owner is `nodes[sha256(id) % len(nodes)]`. Threads keep
  it current, from Docker and from the nodes' own record of the layout.
- `s3`: a node with its pool of connections and its signatures, and one HTTP exchange with it.
- `status`: what isn't needed to answer for an object. `server`: the gunicorn worker.

What it promises: one request upstream for each request; bodies stream in constant memory; a connection to a node is
used only after Docker, asked when it was open already, said that the node is still there, so that a container which
took over the address of another is never mistaken for it; a node is used only while its record was read a moment ago.
Only while objects are being moved, and only for those that may have to be, a request takes several requests upstream.

Importing the module starts nothing and asks Docker nothing: the first request does, or `app.start()`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus

from gateway.answers import Answer, Environ, Refusal, StartResponse, unavailable
from gateway.auth import Tokens
from gateway.nodes.discovery import Discovery
from gateway.nodes.placement import OBJECT_ID, owner
from gateway.nodes.records import Records
from gateway.nodes.view import Directory, View
from gateway.objects.moving import Moving
from gateway.objects.settled import Gone, Settled
from gateway.objects.upstream import TRIES, Moved, Upstream
from gateway.objects.writes import deleting, writing
from gateway.s3.body import BodyError, Upload
from gateway.settings import Settings, read_or_exit
from gateway.status.metrics import Metrics
from gateway.status.recorder import Recorder
from gateway.status.routes import Status

log = logging.getLogger("objgw")

METHODS = ("GET", "HEAD", "PUT", "DELETE")


class Gateway:
    """The WSGI application. Making it starts nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings)
        self.directory = Directory(settings)
        self.discovery = Discovery(self.directory)
        self.records = Records(self.directory, self.discovery)
        self.recorder = Recorder(Metrics(), settings)
        self.status = Status(self.discovery, self.recorder.metrics)
        self.settled = Settled(Upstream(self.directory, self.records))
        self.moving = Moving(self.settled)
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
        seen = self.recorder.begin(environ)
        try:
            answer = self.answer(environ)
        except Refusal as refusal:
            answer = refusal.answer()
        except BodyError as error:
            answer = Refusal(error.status, f"{error} Nothing was stored.").answer()
        except Exception:
            log.exception("%r %r", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            answer = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed; its log says why.").answer()
        answer = seen.end(answer)
        start_response(answer.status, answer.headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else answer.body

    def answer(self, environ: Environ) -> Answer:
        """Decides on a request. Raises Refusal, and BodyError when the client breaks off."""
        path = environ["PATH_INFO"]
        if not path.startswith("/object/"):
            if self.tokens and self.status.guarded(path):
                self.tokens.permit(environ.get("HTTP_AUTHORIZATION", ""), writing=False)
            return self.status.answer(environ)
        method = environ["REQUEST_METHOD"]
        if self.tokens:
            self.tokens.permit(environ.get("HTTP_AUTHORIZATION", ""), writing=method not in ("GET", "HEAD"))
        object_id = path[8:]
        if not OBJECT_ID.fullmatch(object_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
        if method not in METHODS:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET, HEAD, PUT or DELETE.", ("Allow", ", ".join(METHODS)))
        if method == "PUT":
            headers = writing(environ)
            return self._write(object_id, headers, self.settled.upload(object_id, environ, headers))
        if method == "DELETE":
            deleting(environ)
        for _ in range(TRIES):
            view = self.directory.current_view()
            if not view.nodes:
                self.discovery.refresh()
                if not (view := self.directory.current_view()).nodes:
                    raise unavailable("No node has answered yet.")
            try:
                return self._read_or_delete(method, object_id, environ, view)
            except Moved:
                continue
            except Gone:
                raise
            except Refusal as refusal:  # a miss is one only by the view that says where to look
                if refusal.status is not HTTPStatus.NOT_FOUND or self.directory.current_view() is view:
                    raise
        raise Moved

    def _read_or_delete(self, method: str, object_id: str, environ: Environ, view: View) -> Answer:
        homes = view.moving(object_id)
        if method == "DELETE":
            if homes and not view.moved:
                return self.moving.delete(object_id, view, homes)
            return self.settled.delete(object_id, expected=owner(view.nodes, object_id).name)
        if homes:
            return self.moving.read(method, object_id, environ, homes)
        return self.settled.read(method, object_id, environ)

    def _write(self, object_id: str, headers: dict[str, str], upload: Upload) -> Answer:
        """An upload whose first bytes have come, which may have taken long: the view counts that there is now."""
        view = self.directory.current_view()
        if view.moving(object_id):
            return self.moving.put(object_id, headers, upload)
        return self.settled.put(object_id, headers, upload, view)


app = Gateway(read_or_exit())
