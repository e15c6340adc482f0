"""objgw: one URL in front of several MinIO servers that run as Docker containers.

A request for `/object/{id}` is relayed to the one node that owns the id. This module has the settings and the gateway:
the WSGI callable, which decides on an `Answer` first and sends last; every refusal is an exception. What it stands on,
each in a module of its own:

- `objgwnodes`: the `View`, a sorted tuple of nodes, of which an id's owner is `nodes[sha256(id) % len(nodes)]`. Threads
  keep it current, from Docker (`objgwdocker`) and from the nodes' own record of the layout (`objgwlayout`).
- `objgwstorage`: a `Node` with its pool of connections and its signatures, and one HTTP exchange with it.
- `objgwhttp`: where HTTP and S3 differ. `objgwstatus`: what isn't needed to answer for an object.

What it promises: one request upstream for each request; bodies stream in constant memory; a connection to a node is
used only after Docker, asked when it was open already, said that the node is still there, so that a container which
took over the address of another is never mistaken for it; a node is used only while its record was read a moment ago.
Worst case for a request: as many attempts as `ATTEMPTS`, each bounded by the connect and node time-outs; only what can
be sent again, whole and without another effect, is. Only while objects are being moved, and only for those that may
have to be, it takes several requests upstream.

Importing the module starts nothing and asks Docker nothing: the first request does, or `app.start()`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import io
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from objgwhttp import (
    CONDITIONS,
    NOT_MODIFIED,
    S3_MAXIMUM,
    Answer,
    Environ,
    Refusal,
    StartResponse,
    answered,
    http_time,
    permits,
    precondition,
    reading,
    unavailable,
    unchanged,
    writing,
)
from objgwlayout import DELETED, ERA, MARKER, OBJECT_ID, POLL_SECONDS, SWEPT_ETAG, owner
from objgwnodes import Discovery, Homes, View
from objgwstatus import Status, current
from objgwstorage import IF_MATCH, BodyError, Connection, Node, Reply, Request, Upload, UpstreamError, spool

log = logging.getLogger("objgw")

# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------

DOWNLOAD_BLOCK = 64 * 1024  # bytes, the same of a download: what a client that never reads holds
PIPE = 512 * 1024  # bytes, the same of a client that takes one block within
BRISK_SECONDS = 0.05
ATTEMPTS = 3  # a kept connection that was closed, then an address or a key that changed, then the truth
CHOICES = {"log_format": ("text", "json"), "access_log": ("on", "off"), "page": ("on", "off")}
# Variables of the image and of the compose files, which may be in the environment, too.
NOT_SETTINGS = frozenset({"OBJGW_USER", "OBJGW_IMAGE", "OBJGW_NODE_IMAGE"})
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
TRIES = 8  # of a request for an object that moves, or that others write meanwhile


class SettingsError(ValueError):
    """A setting's value can't be used; the message names the variable and says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set, each by an environment variable `OBJGW_<NAME>`, or a file named by `OBJGW_<NAME>_FILE`.

    >>> Settings.from_environ({"OBJGW_NODE_PORT": "9100"}).node_port
    9100
    """

    node_name: str = "amazin-object-storage-node"  # a container whose name contains it is a node
    node_port: int = 9000
    bucket: str = "objgw"  # made on each node where it isn't there
    discovery_seconds: float = 2.0  # between two looks at Docker
    docker_timeout: int = 5  # seconds that Docker may take for an answer
    connect_timeout: float = 2.0  # seconds to connect to a node
    node_timeout: float = 30.0  # seconds that a node may be silent within a request
    client_timeout: float = 30.0  # seconds that a client may take for each 64 KiB of a body
    client_connections: int = 1024  # of one address to one worker
    node_requests: int = 1024  # that may wait for an answer of one node, in one worker
    breaker_seconds: float = 1.0  # for which a node that couldn't be reached or didn't answer isn't asked
    max_object_bytes: int = 0  # 0: no maximum
    tokens: str = field(default="", repr=False)  # bearer tokens that may read and write; none at all: everyone may
    read_tokens: str = field(default="", repr=False)  # bearer tokens that may only read
    log_format: str = "text"  # or json
    access_log: str = "on"  # one line a request; or off
    page: str = "on"  # the page for people; or off

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Reads the settings; a variable that is unset or empty keeps its default.

        Raises SettingsError where a value isn't of its setting's type or range, or can't be read,
        and where a variable is no setting: who misspells `OBJGW_TOKENS` must not get a gateway
        that is open to all.
        """
        variables = [f"OBJGW_{setting.name.upper()}" for setting in fields(cls)]
        known = [*variables, *(f"{variable}_FILE" for variable in variables)]
        for name in sorted(set(environ).difference(known, NOT_SETTINGS)):
            if environ[name] and name.upper().startswith("OBJGW"):
                nearest = get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
                raise SettingsError(f"{name} is no setting; the nearest one is {nearest}")
        given: dict[str, Any] = {}
        for setting, variable in zip(fields(cls), variables, strict=True):
            text = setting_text(environ, variable)
            if not text:
                continue
            kind: type = type(setting.default)
            try:
                value = given[setting.name] = kind(text)
            except ValueError:
                raise SettingsError(f"{variable}={text!r} is not a number") from None
            if kind is not str and not (0 < value < 2**63 or value == setting.default):
                raise SettingsError(f"{variable}={text!r} is out of range")
        settings = cls(**given)
        if settings.node_port > 65535:
            raise SettingsError(f"OBJGW_NODE_PORT={settings.node_port} is out of range")
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,54}[a-z0-9]", settings.bucket):
            raise SettingsError("OBJGW_BUCKET is no bucket name: 3 to 56 of a-z, 0-9, '.' and '-'")  # and "-layout"
        for name, choices in CHOICES.items():
            if getattr(settings, name) not in choices:
                raise SettingsError(f"OBJGW_{name.upper()}={getattr(settings, name)!r} is none of {', '.join(choices)}")
        for name in ("tokens", "read_tokens"):
            if not all(TOKEN.fullmatch(token) for token in getattr(settings, name).split()):
                allowed = "A-Z, a-z, 0-9, -._~+/, and = at its end"
                raise SettingsError(f"OBJGW_{name.upper()}: a token may only have {allowed}")
        if set(settings.tokens.split()) & set(settings.read_tokens.split()):
            raise SettingsError("OBJGW_READ_TOKENS has a token that is in OBJGW_TOKENS, too")
        return settings

    @property
    def records_bucket(self) -> str:
        """The bucket of the layout's record, beside that of the objects."""
        return f"{self.bucket}-layout"


def setting_text(environ: Mapping[str, str], variable: str) -> str:
    """The text of a variable, or of the file that `<variable>_FILE` names; empty where none is set.

    Raises SettingsError where both are set, where the file can't be read, and where the text is
    blank: a secret that got lost on its way isn't the wish to have no tokens.
    """
    text, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if text and path:
        raise SettingsError(f"{variable} and {variable}_FILE are both set; unset one of them")
    if path:
        try:
            text = Path(path).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{variable}_FILE can't be read: {error}") from None
    if (text or path) and not text.strip():
        source = f"the file of {variable}_FILE" if path else variable
        raise SettingsError(f"{source} has nothing but blanks")
    return text.strip()


# ---------------------------------------------------------------------------------------------------------------------
# Gateway: the WSGI callable
# ---------------------------------------------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "PUT", "DELETE")
CONDITIONAL = (*CONDITIONS, "HTTP_RANGE")
NO_OBJECT = "There is no object with this id."
CONDITION_FAILED = "The object isn't what the request's conditions ask for."
# S3 error codes: a key that the node doesn't know (any more), and an upload that isn't what its checksum says.
KEY_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"})
CHECKSUM_REFUSED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "InvalidArgument"})


class Gateway:
    """The WSGI application.

    >>> app = Gateway(Settings.from_environ(os.environ))
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.discovery = Discovery(settings)
        self.status = Status(self.discovery, settings)
        self._started = False
        self._tokens = [(token_digest(token), True) for token in settings.tokens.split()]
        self._tokens += [(token_digest(token), False) for token in settings.read_tokens.split()]

    def start(self) -> None:
        """Starts to look for nodes. The first request does so too."""
        self._started = True
        if not self._tokens:
            log.warning("no token is set: whoever reaches the gateway may read and write")
        self.discovery.start()
        self.status.start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._started:
            self.start()
        seen = self.status.begin(environ)
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
            if self._tokens and self.status.guarded(path):
                self._permit(environ.get("HTTP_AUTHORIZATION", ""), writing=False)
            return self.status.answer(environ)
        method = environ["REQUEST_METHOD"]
        if self._tokens:
            self._permit(environ.get("HTTP_AUTHORIZATION", ""), writing=method not in ("GET", "HEAD"))
        object_id = path[8:]
        if not OBJECT_ID.fullmatch(object_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
        if method not in METHODS:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET, HEAD, PUT or DELETE.", ("Allow", ", ".join(METHODS)))
        if method == "PUT":
            return self._write(object_id, writing(environ), self._upload(object_id, environ))
        for _ in range(TRIES):
            view = self.discovery.current_view()
            if not view.nodes:
                self.discovery.refresh()
                if not (view := self.discovery.current_view()).nodes:
                    raise unavailable("No node has answered yet.")
            try:
                return self._read_or_delete(method, object_id, environ, view)
            except Moved:
                continue
            except Gone:
                raise
            except Refusal as refusal:  # a miss is one only by the view that says where to look
                if refusal.status is not HTTPStatus.NOT_FOUND or self.discovery.current_view() is view:
                    raise
        raise Moved

    def _read_or_delete(self, method: str, object_id: str, environ: Environ, view: View) -> Answer:
        homes = view.moving(object_id)
        if method == "DELETE":
            if homes and not view.moved:
                return self._delete_moving(object_id, view, homes)
            return self._delete(object_id, expected=owner(view.nodes, object_id).name)
        if homes:
            return self._read_moving(method, object_id, environ, homes)
        return self._read(method, object_id, environ)

    def _permit(self, authorization: str, *, writing: bool) -> None:
        """Raises Refusal unless the request bears a token for what it wants (RFC 6750).

        Digests of equal length are compared, all of them, so that time says nothing of a token.
        """
        scheme, _, token = authorization.partition(" ")
        given = token_digest(token.strip())
        matches = [may_write for known, may_write in self._tokens if hmac.compare_digest(known, given)]
        if scheme.lower() != "bearer" or not matches:
            challenge = 'Bearer realm="objgw"' + (', error="invalid_token"' if authorization else "")
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Send a valid bearer token.", ("WWW-Authenticate", challenge))
        if writing and not any(matches):
            challenge = 'Bearer realm="objgw", error="insufficient_scope"'
            raise Refusal(HTTPStatus.FORBIDDEN, "This token may only read.", ("WWW-Authenticate", challenge))

    # -- one method each

    def _read(self, method: str, object_id: str, environ: Environ, home: str = "") -> Answer:
        headers, conditions = reading(method, environ)
        node, connection, reply = self._exchange(object_id, method, headers, home=home)
        if "range" in headers and not unchanged(environ.get("HTTP_IF_RANGE"), reply.status, reply.headers):
            node.leave(connection, reply)
            del headers["range"]
            node, connection, reply = self._exchange(object_id, method, headers, home=home)
        if reply.status not in (200, 206):
            node.release(connection)
            if reply.status == 304:
                return not_modified(reply)
            raise refusal(node, reply)
        if DELETED in reply.headers:
            node.leave(connection, reply)
            raise Gone(HTTPStatus.NOT_FOUND, NO_OBJECT)
        if conditions:
            status = precondition(conditions, reply.headers)
            if status is not HTTPStatus.OK:
                node.leave(connection, reply)
                if status is HTTPStatus.NOT_MODIFIED:
                    return not_modified(reply)
                raise Refusal(status, CONDITION_FAILED)
        status = HTTPStatus(reply.status)
        if reply.headers.get("content-range", "").endswith("/0"):  # MinIO, to a suffix of nothing: no such range
            status = HTTPStatus.OK
            del reply.headers["content-range"]
        if reply.left:
            body: Iterable[bytes] = download(node, connection, reply, environ.get("objgw.relay"))
        else:
            node.release(connection)
            body = [reply.body]
        return Answer(f"{status.value} {status.phrase}", answered(reply.headers), body)

    def _upload(self, object_id: str, environ: Environ) -> Upload:
        """The request's body, of which a first piece is read. Raises Refusal where it needn't be sent."""
        self._node(object_id)  # refuses before the body is read
        maximum = self.settings.max_object_bytes or S3_MAXIMUM
        if "HTTP_TRANSFER_ENCODING" in environ:
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":  # RFC 9112, 6.1
                raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "The only transfer coding is chunked.")
            stream, length = spool(environ["wsgi.input"], maximum)
        else:
            stream, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
        if length > maximum:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"An object may have at most {maximum} bytes.")
        return Upload(stream, length)

    def _write(self, object_id: str, headers: dict[str, str], upload: Upload) -> Answer:
        """An upload whose first bytes have come, which may have taken long: the view counts that there is now."""
        view = self.discovery.current_view()
        if view.moving(object_id):
            return self._put_moving(object_id, headers, upload)
        return self._put(object_id, headers, upload, view)

    def _put(self, object_id: str, headers: Mapping[str, str], upload: Upload, view: View) -> Answer:
        """Stores it with the owner by this view. Raises Moved where that isn't the owner any more."""
        if not view.nodes:
            raise unavailable("No node has answered yet.")
        expected = owner(view.nodes, object_id).name
        node, connection, reply = self._exchange(object_id, "PUT", headers, upload, expected=expected)
        node.release(connection)
        if reply.status != 200 or "etag" not in reply.headers:
            raise refusal(node, reply, writing=True)
        self._acknowledge(object_id, node)
        return Answer("200 OK", [("ETag", reply.headers["etag"]), ("Content-Length", "0")])

    def _delete(self, object_id: str, home: str = "", expected: str = "") -> Answer:
        node, connection, reply = self._exchange(object_id, "DELETE", {}, home=home, expected=expected)
        node.release(connection)
        if reply.status != 204 and reply.status != 404:
            raise refusal(node, reply)
        if not home:
            self._acknowledge(object_id, node)
        return Answer("204 No Content", [])

    def _acknowledge(self, object_id: str, node: Node) -> None:
        """Raises Moved for a write that went to a node which may not be the owner any more."""
        if (
            not (node.leased or self.discovery.vouch(node))
            or owner(self.discovery.current_view().nodes, object_id).name != node.name
        ):
            raise Moved

    # -- the same while the layout isn't settled and the object may be elsewhere; why it is right: objgwlayout

    def _read_moving(self, method: str, object_id: str, environ: Environ, homes: Homes) -> Answer:
        plain = not any(name in environ for name in CONDITIONAL)  # a condition or range could be met by a marker
        if plain and (homes.sure or self.discovery.view.moved):
            try:
                return self._read(method, object_id, environ, homes.owner.name)
            except Gone:
                raise
            except Refusal as refusal:
                if refusal.status is not HTTPStatus.NOT_FOUND:
                    raise
        for _ in range(TRIES):
            newest, _mine = self._newest(object_id)
            if newest is None or newest.deleted:
                raise Refusal(HTTPStatus.NOT_FOUND, NO_OBJECT)
            try:
                return self._read(method, object_id, environ, newest.node.name)
            except Refusal as refusal:  # moved, or deleted
                if refusal.status is not HTTPStatus.NOT_FOUND:
                    raise
        raise unavailable("The object is being moved.")

    def _put_moving(self, object_id: str, headers: dict[str, str], upload: Upload) -> Answer:
        """The condition of the upload is decided here, by all copies, and made one on what the owner has; also without
        a condition of its own it replaces a marker only if that is still there, for `rebalance` removes markers.
        """
        conditions = {name: headers.pop(name) for name in IF_MATCH if name in headers}
        for _ in range(TRIES):
            view = self.discovery.current_view()
            newest, mine = self._newest(object_id) if conditions else (None, self._copy(object_id, ""))
            if mine and mine.etag == SWEPT_ETAG and mine.deleted:
                time.sleep(POLL_SECONDS / 10)
                continue
            if not permits(conditions, newest.etag if newest and not newest.deleted else None):
                raise Refusal(HTTPStatus.PRECONDITION_FAILED, CONDITION_FAILED)
            sent = {**headers, ERA: str(view.era)}
            if mine and (conditions or mine.deleted):
                sent["if-match"] = mine.etag
            elif conditions:
                sent["if-none-match"] = "*"
            try:
                return self._put(object_id, sent, upload, view)
            except Refusal as refusal:
                if refusal.status is not HTTPStatus.PRECONDITION_FAILED:
                    raise
            if upload.spent:
                break
        raise unavailable("The object changed meanwhile; try again.")

    def _delete_moving(self, object_id: str, view: View, homes: Homes) -> Answer:
        """Leaves a marker with the owner, which hides all other copies, then deletes those that can be reached.

        Not where one of the others is about to become the owner: it might have a newer object by the time it is asked.
        """
        headers = {"content-type": "text/plain", ERA: str(view.era), DELETED: "1"}
        self._put(object_id, headers, Upload(io.BytesIO(MARKER), len(MARKER)), view)
        for node in homes.others if view.until == math.inf and self.discovery.view is view else ():
            try:
                self._delete(object_id, node.name)
            except Refusal as refusal:
                log.info("DELETE %s leaves a copy for rebalance on node %s: %s", object_id, node.name, refusal)
        return Answer("204 No Content", [])

    def _newest(self, object_id: str) -> tuple[Copy | None, Copy | None]:
        """The newest copy of an object, and the owner's. Raises Refusal where a node that has to be asked can't be."""
        view = self.discovery.current_view()
        homes = view.homes(object_id)
        mine = self._copy(object_id, homes.owner.name)
        if view.moved or (mine and (homes.sure or mine.era == view.era)):
            return mine, mine
        copies = [copy for copy in (mine, *(self._copy(object_id, node.name) for node in homes.others)) if copy]
        if not copies:  # it may have been moved while they were asked
            mine = self._copy(object_id, homes.owner.name)
            return mine, mine
        return max(copies, key=lambda copy: (copy.era, copy.modified)), mine

    def _copy(self, object_id: str, home: str) -> Copy | None:
        """What a node has of an object; `home` is its name, empty for the owner."""
        node, connection, reply = self._exchange(object_id, "HEAD", {}, home=home)
        node.release(connection)
        if reply.status == 404 and node.whole:
            return None
        if reply.status != 200:
            raise refusal(node, reply)
        era, modified = reply.headers.get(ERA, "0"), http_time(reply.headers.get("last-modified")) or 0
        deleted = DELETED in reply.headers
        return Copy(node, reply.headers.get("etag", ""), int(era) if era.isdecimal() else 0, modified, deleted)

    # -- the way to the node

    def _node(self, object_id: str, home: str = "") -> Node:
        """The owner of an id, or the node that is named. Raises Refusal where there is none, or it can't be used."""
        for attempt in (1, 2):
            nodes = self.discovery.current_view().nodes
            if not nodes:
                node, why = None, "No node has answered yet."
            elif home:
                node, why = self.discovery.named(home), "A node that may have this object is not running."
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

    def _exchange(
        self,
        object_id: str,
        method: str,
        headers: Mapping[str, str],
        upload: Upload | None = None,
        home: str = "",
        expected: str = "",
    ) -> tuple[Node, Connection, Reply]:
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
            node = self._node(object_id, home)
            if expected not in ("", node.name):
                raise Moved
            expected = node.name
            seen.asks(node.name, attempt, upload.length if upload else 0)
            trying = trying or node.admit()
            node.connecting += 1
            try:
                if not (node.leased or self.discovery.vouch(node)):
                    if node.closed:
                        continue
                    seen.failed(node.name)
                    node.broke(TimeoutError("it doesn't give its record"))
                    raise unavailable("The node of this id doesn't answer.")
                connection = node.kept() or self._connect(node)
            finally:
                node.connecting -= 1
            if connection is None:
                continue
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
                    node.broken_until = time.monotonic()  # the next one tries
                raise
            node.answered(sent)
            seen.upstream += time.monotonic() - sent
            if last or not self._mended(node, connection, reply, upload):
                return node, connection, reply
        raise unavailable("The node of this id can't be reached.")

    def _connect(self, node: Node) -> Connection | None:
        """A new connection to the node, or None where Docker, asked while it is open, says that the node has changed.

        Only this order proves that it leads to the node and not to a container which got its address since. An answer
        of the node to a request that was sent while it was open proves the same.
        """
        try:
            connection = node.connect()
        except OSError as error:
            if not self.discovery.current(node):
                return None
            current.get().failed(node.name)
            node.broke(error)
            raise unavailable("The node of this id can't be reached.") from None
        if self.discovery.confirm(node):
            return connection
        connection.close()
        return None

    def _mended(self, node: Node, connection: Connection, reply: Reply, upload: Upload | None) -> bool:
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


class Gone(Refusal):
    """404: the object was deleted while the layout wasn't settled, as a marker says. No other node has to be asked."""


class Moved(Refusal):
    """503: the layout changed while the request was on its way to what was the owner. An upload can't start over."""

    def __init__(self) -> None:
        again = unavailable("The object's place changed meanwhile; try again.")
        super().__init__(again.status, again.detail, *again.headers)


class Copy(NamedTuple):
    """What a node has of an object."""

    node: Node
    etag: str
    era: int
    modified: int  # Unix time
    deleted: bool  # it is a marker


def token_digest(token: str) -> bytes:
    """SHA-256 of a bearer token."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


def not_modified(reply: Reply) -> Answer:
    """304, with those headers of the object that it has."""
    return Answer("304 Not Modified", [header for header in answered(reply.headers) if header[0] in NOT_MODIFIED])


def refusal(node: Node, reply: Reply, *, writing: bool = False) -> Refusal:
    """What a client is told about a node's answer that isn't an object."""
    status, code = reply.status, reply.code
    if status == 404 and code in ("NoSuchKey", "NoSuchBucket", ""):
        if writing and code == "NoSuchKey":  # If-Match, where S3 says 404 and HTTP 412
            return Refusal(HTTPStatus.PRECONDITION_FAILED, NO_OBJECT)
        if writing:
            return unavailable("The node of this id lost its bucket, which is made again; try again.")
        if node.blank:
            return unavailable("The node of this id lost what it held; an operator has to bring it back or give it up.")
        if not node.whole:
            return unavailable("The node of this id has only just come; try again.")
        return Refusal(HTTPStatus.NOT_FOUND, NO_OBJECT)
    if status == 412:
        return Refusal(HTTPStatus.PRECONDITION_FAILED, CONDITION_FAILED)
    if status == 416:
        total = re.search(rb"<ActualObjectSize>(\d+)<", reply.body)
        content_range = reply.headers.get("content-range") or (f"bytes */{total[1].decode()}" if total else "bytes */*")
        detail = "The object ends before the range."
        return Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, detail, ("Content-Range", content_range))
    if status == 400 and writing and code in CHECKSUM_REFUSED:
        return Refusal(HTTPStatus.BAD_REQUEST, "The body isn't what its checksum says. Nothing was stored.")
    if status == 400 and writing and code == "MetadataTooLarge":
        return Refusal(HTTPStatus.BAD_REQUEST, "The x-amz-meta-* headers are too large. Nothing was stored.")
    if code in ("EntityTooLarge", "XMinioStorageFull"):
        detail = "The object is too large for the node." if code == "EntityTooLarge" else "The node's disk is full."
        status = 413 if code == "EntityTooLarge" else 507
        return Refusal(HTTPStatus(status), detail)
    log.warning("node %s: unexpected answer: %d %s", node.name, status, code)
    if status in (429, 503):
        return unavailable("The node of this id is busy or starting.")
    return Refusal(HTTPStatus.BAD_GATEWAY, "The node of this id gave an unexpected answer; the gateway's log has it.")


def download(
    node: Node, connection: Connection, reply: Reply, relay: Callable[[int, int], None] | None = None
) -> Iterator[bytes]:
    """The bytes of an object on their way to the client.

    Where the server has a `relay` (see objgwserver), most of a large one go from socket to socket, and are no blocks
    here; never the last ones, so that whoever takes the blocks knows of the end before the client does. Where the node
    breaks off, ConnectionResetError makes the server break the client's connection, so that what it has can't pass for
    the whole. A connection of which something is unread is never used again.
    """
    left, step, seen = reply.left, DOWNLOAD_BLOCK, current.get()
    node.downloads.add(connection)
    pipe = wide_pipe() if relay and left > 2 * DOWNLOAD_BLOCK else ()
    try:
        if reply.body:
            yield reply.body
        reply.body = b""
        while left:
            if relay and pipe and left > DOWNLOAD_BLOCK:
                moved = connection.receive_into(pipe[1], min(left - DOWNLOAD_BLOCK, step))
                began = time.monotonic()
                relay(pipe[0], moved)
                step = PIPE if time.monotonic() - began < BRISK_SECONDS else DOWNLOAD_BLOCK
                seen.bytes += moved
                left -= moved
                continue
            block = connection.receive(min(left, DOWNLOAD_BLOCK))
            left -= len(block)
            if not left:
                node.release(connection)
            yield block
    except UpstreamError as error:
        log.warning("node %s: %d bytes before the end of an object: %s", node.name, left, error)
        raise ConnectionResetError(errno.ECONNRESET, "the node broke off") from None
    finally:
        node.downloads.discard(connection)
        for end in pipe:
            os.close(end)
        if left:
            connection.close()


def wide_pipe() -> tuple[int, ...]:
    """A pipe with room for `PIPE` bytes, or for as much as the kernel still gives this user (pipe(7)); none without."""
    try:
        pipe = os.pipe()
    except OSError:
        return ()
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
    return pipe


try:
    app = Gateway(Settings.from_environ(os.environ))
except SettingsError as error:
    print(f"objgw: {error}", file=sys.stderr)
    sys.exit(4)  # gunicorn's APP_LOAD_ERROR: it stops, where after another status it would start workers for ever
