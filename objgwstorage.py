"""Storage: one signed, streamed request to one MinIO.

A `Node` is a MinIO at one address with one pair of keys. It has a pool of kept connections, signatures (SigV4) with the
day's key kept, the state of its breaker, and what its record of the layout says. A `Connection` is a bare socket and a
minimal parser of HTTP/1.1 answers: a client library would cost several times as much (bench/README.md). An `Upload`
keeps its first bytes, so that a request which a dead connection lost can be sent again.

Nothing here decides whether a request is repeated, or what a client is told: that is objgw's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import io
import logging
import math
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, NamedTuple

from objgwhttp import Refusal, unavailable
from objgwlayout import LEASE_SECONDS, Layout, owner
from objgwwrites import IF_MATCH, PAYLOAD_DIGEST

if TYPE_CHECKING:
    from objgw import Settings
    from objgwdocker import NodeRecord

log = logging.getLogger("objgw")

BLOCK = 256 * 1024  # bytes that an upload is read and sent in
REPLAYABLE = 64 * 1024  # bytes of an upload that are kept until its answer, so that they can be sent again
ANSWER_HEAD_MAX = 64 * 1024  # bytes of a node's status line and headers
ERROR_BODY_MAX = 64 * 1024  # bytes of a node's error document
KEPT_SECONDS = 20.0  # that a connection may wait in a pool; MinIO closes it after 30 by default

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5: no part of a header's value, but for the tab
DIGITS = re.compile(r"[0-9]{1,18}")
STATUS_LINE = re.compile(r"HTTP/1\.1 ([1-9][0-9]{2})(?: .*)?")  # RFC 9112, 4
NAME = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1
UNSIGNED = "UNSIGNED-PAYLOAD"
ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")
# What servers say where there is no room: MinIO on a large disk, MinIO and Ceph at the end of a quota.
FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})


class UpstreamError(Exception):
    """A node broke off, was silent for too long, or sent what isn't HTTP. Text for the log, not for clients."""


class BodyError(Exception):
    """The request's body can't be read to its end; the text is for the client."""

    def __init__(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(detail)
        self.status = status


def read_client(stream: IO[bytes], size: int) -> bytes:
    """The next bytes of a client's body, at most `size`; none at its end.

    Raises BodyError for whatever the server raises where a body is malformed, too slow or cut.
    """
    try:
        return getattr(stream, "read1", stream.read)(size)
    except TimeoutError:
        raise BodyError("The body came too slowly.", HTTPStatus.REQUEST_TIMEOUT) from None
    except Exception as error:
        raise BodyError(f"The body can't be read: {type(error).__name__}.") from error


class Upload:
    """A request's body: `head`, kept so that it can be sent again, and the rest, which passes once."""

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self.length = length
        self.spent = False  # bytes after the head have been read, so that it can't be sent again
        self._stream = stream
        self.head = b"".join(self._read(min(length, REPLAYABLE)))

    @property
    def whole(self) -> bool:
        """Whether `head` is all of it."""
        return len(self.head) == self.length

    def rest(self) -> Iterator[bytes]:
        """The blocks after `head`. Raises BodyError when the client breaks off."""
        self.spent = not self.whole
        return self._read(self.length - len(self.head))

    def _read(self, size: int) -> Iterator[bytes]:
        """Blocks of `size` bytes in all."""
        while size:
            block = read_client(self._stream, min(size, BLOCK))
            if not block:
                raise BodyError("The body ended before its Content-Length.")
            size -= len(block)
            yield block


def spool(stream: IO[bytes], maximum: int) -> tuple[IO[bytes], int]:
    """Reads a body of unknown length into a temporary file, because S3 wants the length before the body.

    Gives the file (small ones stay in memory) and its length; reads no further than one block above `maximum` bytes.
    Raises Refusal (507) where the disk is full.
    """
    file = tempfile.SpooledTemporaryFile(max_size=BLOCK)  # noqa: SIM115 - it lives as long as the request
    length = 0
    try:
        while length <= maximum and (block := read_client(stream, BLOCK)):
            length += len(block)
            file.write(block)
        file.seek(0)
    except OSError as error:
        log.warning("an upload without a length can't be spooled: %s", error)
        detail = "The gateway has no room for an upload without Content-Length; send one."
        raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, detail) from None
    return file, length


class Request(NamedTuple):
    """What is asked of a node. Header names are in lower case; a path has nothing that would need escaping, and a query
    after it is sorted."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    upload: Upload | None = None
    request_id: str = ""  # for the node's own log

    @property
    def careful(self) -> bool:
        """Whether the body is sent only after the node's `100 Continue` (RFC 9110, 10.1.1), so that a dead connection
        or a rejected key shows while it can still be sent elsewhere: a body that can't be sent twice, or mustn't be,
        because a second create-only PUT would fail on the first.
        """
        return self.upload is not None and (not self.upload.whole or not self.headers.keys().isdisjoint(IF_MATCH))


@dataclass(slots=True)
class Reply:
    """A node's answer: status, headers with names in lower case, what came of the body and how much is to come."""

    status: int
    headers: dict[str, str]
    body: bytes
    left: int  # bytes of the body still to be received

    @property
    def code(self) -> str:
        """S3's error code, for example NoSuchKey; empty where there is none."""
        found = ERROR_CODE.search(self.body)
        return found[1].decode() if found else self.headers.get("x-minio-error-code", "")

    @property
    def full(self) -> bool:
        """Whether the node refuses because there is no room; on a small disk MinIO calls that an internal error."""
        return self.status == 507 or self.code in FULL or b"no space left on device" in self.body


class Connection:
    """A kept connection to a node. OSErrors and bad answers come as UpstreamError."""

    __slots__ = ("answered", "reused", "since", "sock", "usable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reused = False
        self.since = 0.0  # when it was put into the pool
        self.answered = False  # a byte of an answer came since it was taken from the pool
        self.usable = True  # for another request, once the answer to this one is read

    def send(self, data: bytes) -> None:
        try:
            sent = self.sock.send(data)  # all, mostly; sendall() costs more, bench/README.md
            if sent < len(data):
                self.sock.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise UpstreamError(f"sending: {error}") from error

    def receive(self, size: int) -> bytes:
        """The next bytes, at most `size`; never none."""
        try:
            data = self.sock.recv(size)
        except OSError as error:
            raise UpstreamError(f"receiving: {error}") from error
        if not data:
            raise UpstreamError("the node closed the connection")
        self.answered = True
        return data

    def receive_into(self, pipe: int, size: int) -> int:
        """Moves the next bytes, at most `size`, into an empty pipe without copying them (splice(2)); how many."""
        while True:
            try:
                if not self.sock.recv(1, socket.MSG_PEEK):  # waits for them, as long as receive() would
                    raise UpstreamError("the node closed the connection")
                return os.splice(self.sock.fileno(), pipe, size, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise UpstreamError(f"receiving: {error}") from error

    def reply(self, method: str) -> Reply:
        """Reads status, headers and what came with them; of an error or an empty answer, everything."""
        data = self.receive(65536)
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > ANSWER_HEAD_MAX:
                raise UpstreamError("the answer's headers are too long")
            data += self.receive(65536)
        try:
            reply = parse_reply(data[:end].decode("latin-1"), data[end + 4 :], method)
        except (ValueError, IndexError) as error:
            raise UpstreamError(f"not an HTTP answer: {data[:80]!r}") from error
        if "close" in [option.strip(" \t") for option in reply.headers.get("connection", "").lower().split(",")]:
            self.usable = False  # RFC 9112, 9.6: also among others
        if reply.status >= 300:
            while reply.left:
                if len(reply.body) > ERROR_BODY_MAX:
                    raise UpstreamError("the answer's error document is too long")
                more = self.receive(min(reply.left, 65536))
                reply.body += more
                reply.left -= len(more)
        return reply

    def finish(self, reply: Reply) -> None:
        """Reads what is left of an answer's body."""
        blocks = [reply.body]
        while reply.left:
            blocks.append(self.receive(min(reply.left, 65536)))
            reply.left -= len(blocks[-1])
        reply.body = b"".join(blocks)

    def end(self) -> None:
        """Makes whoever waits on it get an UpstreamError."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sock.close()


@functools.lru_cache(maxsize=512)  # most lines of an answer are those of the one before
def parse_field(line: str) -> tuple[str, str]:
    """A header's name, in lower case, and its value. Raises ValueError where it isn't one."""
    name, colon, value = line.partition(":")
    name, value = name.lower(), value.strip(" \t")  # RFC 9110, 5.5: other bytes are the value's
    good = NAME.fullmatch(name) and not CONTROL.search(line)
    if not colon or not good or (name == "content-length" and not DIGITS.fullmatch(value)):
        raise ValueError(line)
    return name, value


def parse_reply(head: str, body: bytes, method: str) -> Reply:
    """Parses an HTTP/1.1 status line and headers (RFC 9112). Raises ValueError or IndexError on anything else."""
    lines = head.split("\r\n")
    found = STATUS_LINE.fullmatch(lines[0])
    if not found or CONTROL.search(lines[0]):
        raise ValueError(lines[0])
    status = int(found[1])
    headers: dict[str, str] = {}
    for name, value in map(parse_field, lines[1:]):
        if name == "content-length" and name in headers:
            raise ValueError("two lengths")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value  # RFC 9110, 5.3
    if method == "HEAD" or status in (204, 304) or status < 200:
        length = 0
    elif "transfer-encoding" in headers:  # MinIO gives every object and error a length
        raise ValueError("no length")
    else:
        length = int(headers["content-length"]) if "content-length" in headers else -1
    if not 0 <= len(body) <= length:
        raise ValueError("more or less than the length says")
    return Reply(status, headers, body, length - len(body))


class Node:
    """A node at one address with one pair of keys: its pool of connections and its signatures.

    It is replaced, not changed, when Docker says something else of its name.
    """

    def __init__(self, record: NodeRecord, settings: Settings) -> None:
        self.record = record
        self.name = record.name
        self.host = record.host
        self.ready = False  # its bucket is known to be there
        self.layout: Layout | None = None  # what its record says, and the record's ETag and node
        self.etag = self.holder = ""
        self.serves = False  # it answered like S3 when it was last asked for its record
        self.keeps_conditions: bool | None = None  # its server decides a PUT's conditions; None before it was tried
        self.fresh = False  # the layout says that it was never given a record
        self.blank = self.was_blank = False  # it isn't what the layout takes it for, see `trouble`
        self.visiting = self.tried = False  # its record is being read; was tried to be read
        self.visit_due = 0.0  # monotonic time at which it is read again
        self.checked = -math.inf  # monotonic time of the last request for the record that was answered
        self._settings = settings
        self._authority = f"{record.host}:{record.port}"
        self._idle: list[Connection] = []  # the last one used is used next, so that others can grow old and go
        self._waiting: dict[Connection, Request] = {}  # those in use on which no answer has come
        self.downloads: set[Connection] = set()  # those in use by the body of an answer
        self.proved = 0.0  # monotonic time of sending the last request that was answered
        self._news = threading.Condition()  # of that, and of Docker
        self._waiters = 0
        self.connecting = 0  # requests that have no connection yet
        self.broken_until = 0.0  # monotonic time before which nobody asks it; 0 when it isn't broken
        self.closed = False  # Docker says something else of its name by now
        self._second = 0
        self._stamp = self._scope = self._credential = self._to_sign = self._plain_signed = self._plain_sent = ""
        self._signing_key = b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record)

    # -- connections

    def kept(self) -> Connection | None:
        """A connection from the pool, if there is one."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if connection.since < time.monotonic() - KEPT_SECONDS:
            connection.close()
            self.forget()  # the others are older
            return None
        connection.reused = True
        connection.answered = False
        return connection

    def connect(self) -> Connection:
        """A new connection. Raises OSError."""
        sock = socket.socket(socket.AF_INET)  # create_connection() would ask a resolver, in a thread, for an address
        try:
            sock.settimeout(self._settings.connect_timeout)
            sock.connect((self.host, self.record.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(self._settings.node_timeout)
        return Connection(sock)

    def admit(self) -> bool:
        """Whether this request is the one that tries a node which was broken.

        When the pause after a failure is over one request tries, and the others are refused until it knows. Raises
        Refusal for them, and where too many wait for the node already.
        """
        if len(self._waiting) + self.connecting >= self._settings.node_requests:
            raise unavailable("Too many requests wait for the node of this id.")
        if not self.broken_until:
            return False
        now = time.monotonic()
        if now < self.broken_until:
            raise unavailable("The node of this id can't be reached.")
        self.broken_until = now + self._settings.connect_timeout + self._settings.node_timeout
        return True

    def broke(self, error: Exception) -> None:
        """Notes that the node can't be reached or doesn't answer."""
        if not self.broken_until:
            log.warning("node %s is refused for a while: %s", self.name, error)
        self.broken_until = time.monotonic() + self._settings.breaker_seconds
        self.forget()

    def answered(self, sent: float) -> None:
        """Notes that the node answered a request which was sent then."""
        self.proved = sent
        self.wake()
        self.mended()

    def mended(self) -> None:
        """Lets all requests to the node again, if it was broken."""
        if self.broken_until:
            log.info("node %s answers again", self.name)
            self.broken_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether requests wait for its answer."""
        return bool(self._waiting)

    def wait_for(self, predicate: Callable[[], bool], seconds: float | None = None) -> bool:
        """Waits until the predicate holds, which is tried after each answer of the node and each reading of Docker."""
        self._waiters += 1
        try:
            with self._news:
                return self._news.wait_for(predicate, seconds)
        finally:
            self._waiters -= 1

    def wake(self) -> None:
        """Has those in `wait_for` look again."""
        if self._waiters:
            with self._news:
                self._news.notify_all()

    def release(self, connection: Connection) -> None:
        """Gives a connection back whose answer was read to its end."""
        if not connection.usable or self.closed:
            connection.close()
            return
        connection.since = time.monotonic()
        self._idle.append(connection)
        if self._idle[0].since < connection.since - KEPT_SECONDS:
            self._idle.pop(0).close()

    def leave(self, connection: Connection, reply: Reply) -> None:
        """Gives up an answer; its connection is kept only if nothing more comes on it."""
        if reply.left:
            connection.close()
        else:
            self.release(connection)

    def close(self) -> None:
        """Closes the kept connections and ends those in use: from a container that was stopped nothing more comes."""
        self.closed = True
        self.forget()
        for connection in [*self._waiting, *self.downloads]:
            connection.end()
        self.wake()

    def end_uploads(self, nodes: Sequence[Node]) -> None:
        """Ends the uploads under way whose object's id has another owner among `nodes`."""
        for connection, request in list(self._waiting.items()):
            if request.upload is not None and owner(nodes, request.path.rpartition("/")[2]).name != self.name:
                connection.end()

    def forget(self) -> None:
        """Closes the kept connections: one of them was found dead, so the others most likely are."""
        while self._idle:
            self._idle.pop().close()

    # -- the layout's record

    @property
    def leased(self) -> bool:
        """Whether its record was read so lately that no other layout can be in force."""
        return time.monotonic() < self.checked + LEASE_SECONDS

    @property
    def whole(self) -> bool:
        """Whether what it doesn't have was never there: its record is its own, or it was never given one."""
        return self.fresh or (self.layout is not None and self.holder == self.name)

    @property
    def if_changed(self) -> dict[str, str]:
        """The condition with which its record is asked for."""
        return {"if-none-match": self.etag} if self.etag else {}

    @property
    def trouble(self) -> str:
        """What is wrong with it although it answers; empty where nothing is."""
        if not self.blank:
            return ""
        if self.layout and self.holder != self.name:
            return f"it holds the objects of {self.holder}"
        return f"it lost what it held; bring that back, or give it up: objgwctl.py remove --lost {self.name}"

    def take_record(self, sent: float, reply: Reply) -> None:
        """Notes the answer to a request for its record, which was sent then."""
        if reply.status >= 500:
            return
        self.serves = reply.status in (200, 304) or reply.code in ("NoSuchKey", "NoSuchBucket")
        if reply.status == 200:
            try:
                self.layout, self.holder = Layout.load(reply.body)
                self.etag = reply.headers["etag"]
            except (ValueError, KeyError) as error:
                self.serves = False
                if not self.tried:
                    log.warning("node %s: its record can't be read: %s", self.name, error)
        elif reply.status == 404:
            self.layout, self.etag = None, ""
        self.checked = self.proved = sent
        self.wake()

    # -- requests

    def exchange(self, connection: Connection, request: Request) -> Reply:
        """One request and its answer, whose body may still have to be received.

        Before the first upload it makes the bucket; where that is refused, the answer is that. Raises UpstreamError,
        and BodyError when the client breaks off.
        """
        self._waiting[connection] = request
        try:
            if request.upload is not None and not self.ready:
                reply = self.make_bucket(connection)
                if not self.ready:
                    return reply
            return self._exchange(connection, request)
        finally:
            del self._waiting[connection]

    def ask(self, connection: Connection, request: Request) -> Reply:
        """The same for the layout's sake: it isn't counted, and doesn't make the bucket."""
        return self._exchange(connection, request)

    def _exchange(self, connection: Connection, request: Request) -> Reply:
        method, upload, head = request.method, request.upload, self._head(request)
        if upload is None:
            connection.send(head)
            return connection.reply(method)
        if request.careful:
            connection.send(head)
            reply = connection.reply(method)
            if reply.status != 100:
                connection.usable = False  # the node may or may not wait for the body
                return reply
            self.mended()  # the others need not wait for a client's body
            head = b""
        try:
            connection.send(head + upload.head)
            for block in upload.rest():
                connection.send(block)
        except UpstreamError as error:
            if isinstance(error.__cause__, TimeoutError):  # it doesn't read, so it won't answer
                raise
            return self._early_reply(connection, method)
        return connection.reply(method)

    def _early_reply(self, connection: Connection, method: str) -> Reply:
        """A node that refuses an upload may answer and close before it has read everything."""
        reply = connection.reply(method)
        connection.usable = False
        if reply.status < 400:
            raise UpstreamError("the node answered before it had the whole body")
        return reply

    def make_bucket(self, connection: Connection) -> Reply:
        """Makes the bucket unless it is there; `ready` says whether it is. Raises UpstreamError."""
        reply = self._exchange(connection, Request("PUT", f"/{self._settings.bucket}", upload=Upload(io.BytesIO(), 0)))
        self.ready = reply.status == 200 or reply.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
        return reply

    def _head(self, request: Request) -> bytes:
        """Request line and headers, with a signature that covers path, host, time and every x-amz-* header.

        The body isn't hashed, unless the client has sent its hash: the way to the node is a Docker network, and the
        length is checked.
        https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
        """
        now = int(time.time())
        if now != self._second:
            self._tick(now)
        method, path, headers, upload, request_id = request
        if request_id:
            request_id = f"x-request-id: {request_id}\r\n"
        if not headers and upload is None and "?" not in path:
            digest = hashlib.sha256(f"{method}\n{path}{self._plain_signed}".encode("latin-1")).hexdigest()
            return f"{method} {path}{self._plain_sent}{self._sign(digest)}\r\n{request_id}\r\n".encode("latin-1")
        signed = {"host": self._authority, PAYLOAD_DIGEST: UNSIGNED, "x-amz-date": self._stamp}
        sent = "".join([f"{name}: {value}\r\n" for name, value in {**signed, **headers}.items()])
        for name, value in headers.items():
            if name.startswith("x-amz-"):
                signed[name] = " ".join(value.split())
        if upload is not None:
            sent += f"content-length: {upload.length}\r\n"
            if request.careful:
                sent += "expect: 100-continue\r\n"
        names = sorted(signed)
        listed = ";".join(names)
        fields = "".join([f"{name}:{signed[name]}\n" for name in names])
        resource = path.replace("?", "\n", 1) if "?" in path else f"{path}\n"
        canonical = f"{method}\n{resource}\n{fields}\n{listed}\n{signed[PAYLOAD_DIGEST]}"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        authorization = f"{self._credential}, SignedHeaders={listed}, Signature={self._sign(digest)}"
        return f"{method} {path} HTTP/1.1\r\n{sent}authorization: {authorization}\r\n{request_id}\r\n".encode("latin-1")

    def _sign(self, digest: str) -> str:
        """The signature of a canonical request with this digest."""
        return hmac.digest(self._signing_key, f"{self._to_sign}{digest}".encode(), "sha256").hex()

    def _tick(self, now: int) -> None:
        """Renews the time stamp, what follows from it, and the signing key, which is good for a day."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{stamp[:8]}/{self.record.region}/s3/aws4_request"
        if scope != self._scope:
            key = f"AWS4{self.record.secret_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_key = key
        self._second, self._stamp, self._scope = now, stamp, scope
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        self._credential = f"AWS4-HMAC-SHA256 Credential={self.record.access_key}/{scope}"
        # All of a request without headers of its own but for its method and path, as _head() makes it.
        host, listed = self._authority, "host;x-amz-content-sha256;x-amz-date"
        self._plain_signed = (
            f"\n\nhost:{host}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{stamp}\n\n{listed}\n{UNSIGNED}"
        )
        self._plain_sent = (
            f" HTTP/1.1\r\nhost: {host}\r\nx-amz-content-sha256: {UNSIGNED}\r\nx-amz-date: {stamp}\r\n"
            f"authorization: {self._credential}, SignedHeaders={listed}, Signature="
        )
