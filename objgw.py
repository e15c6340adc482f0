"""objgw: one URL in front of several MinIO servers that run as Docker containers.

A request for `/object/{id}` is relayed to the one node that owns the id. The module reads in the order in which a
request goes through it, bottom to top of what it needs:

- **settings**: environment variables, read once.
- **nodes**: a thread asks Docker every few seconds which nodes there are; requests only read its last result, a
  sorted tuple. An id's owner is `nodes[sha256(id) % len(nodes)]`. A node is a name: its address and keys may change,
  and a name once seen keeps its place, so that ids don't move when a container stops or is made anew.
- **storage**: a pool of kept connections a node, a SigV4 signature with the day's key kept, and one HTTP exchange.
- **gateway**: the WSGI callable. It decides on an `Answer` first and sends last; every refusal is an exception. Where
  HTTP and S3 differ is in `objgwhttp`.

What it promises: one request upstream for each request; bodies stream in constant memory; a connection to a node is
used only after Docker, asked when it was open already, said that the node is still there, so that a container which
took over the address of another is never mistaken for it. Worst case for a request: as many attempts as `ATTEMPTS`,
each bounded by the connect and node time-outs; only what can be sent again, whole and without another effect, is.

Importing the module starts nothing and asks Docker nothing: the first request does, or `app.start()`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import io
import logging
import math
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, NamedTuple

import docker
import docker.errors

from objgwhttp import (
    NOT_MODIFIED,
    S3_MAXIMUM,
    Answer,
    Environ,
    Refusal,
    StartResponse,
    answered,
    precondition,
    reading,
    unavailable,
    unchanged,
    writing,
)

log = logging.getLogger("objgw")

# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------

BLOCK = 256 * 1024  # bytes that an upload is read and sent in
DOWNLOAD_BLOCK = 64 * 1024  # bytes, the same of a download: what a client that never reads holds
REPLAYABLE = 64 * 1024  # bytes of an upload that are kept until its answer, so that they can be sent again
ANSWER_HEAD_MAX = 64 * 1024  # bytes of a node's status line and headers
ERROR_BODY_MAX = 64 * 1024  # bytes of a node's error document
RECENT_SECONDS = 0.25  # for which a node that wasn't running is taken not to be
PROOF_SECONDS = 0.2  # that a new connection waits for an answer on another one before Docker is asked
ATTEMPTS = 3  # a kept connection that was closed, then an address or a key that changed, then the truth
KEPT_SECONDS = 20.0  # that a connection may wait in a pool; MinIO closes it after 30 by default


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

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Reads the settings; a variable that is unset or empty keeps its default.

        Raises SettingsError where a value isn't of its setting's type or range, or its file can't be read.
        """
        given: dict[str, Any] = {}
        for setting in fields(cls):
            variable = f"OBJGW_{setting.name.upper()}"
            text = environ.get(variable, "").strip()
            if not text and environ.get(f"{variable}_FILE"):
                try:
                    text = Path(environ[f"{variable}_FILE"]).read_text().strip()
                except (OSError, ValueError) as error:
                    raise SettingsError(f"{variable}_FILE can't be read: {error}") from None
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
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", settings.bucket):
            raise SettingsError("OBJGW_BUCKET is no bucket name: 3 to 63 of a-z, 0-9, '.' and '-'")
        return settings


# ---------------------------------------------------------------------------------------------------------------------
# Nodes: Docker -> sorted list
# ---------------------------------------------------------------------------------------------------------------------

# Compose puts 12 hex digits before a container's name while it makes its successor.
RECREATING = re.compile(r"^[0-9a-f]{12}_")
# Docker mounts these three files into every container from a folder that is named after it; with
# `network_mode: container:X` it is X's, whose networks are the ones that count.
OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ")
# In the order in which they win. The first pair of which both are set counts.
KEY_VARIABLES = (
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
    ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),
)
# https://min.io/docs/minio/linux/reference/minio-server/settings/core.html#region
REGION_VARIABLES = ("MINIO_SITE_REGION", "MINIO_REGION", "MINIO_REGION_NAME")


class NodeRecord(NamedTuple):
    """What Docker says of a node. `host` is None where its container doesn't run (or isn't there)."""

    name: str
    container: str = ""
    host: str | None = None
    port: int = 0
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def __repr__(self) -> str:  # the keys must not reach a log
        return f"{self.name} ({self.container[:12] or 'no container'}, {self.host or 'not running'})"


def keys_from_env(env: Mapping[str, str], image: str = "") -> tuple[str, str]:
    """The access and secret key of a server with this environment.

    >>> keys_from_env({"MINIO_ACCESS_KEY": "ring", "MINIO_SECRET_KEY": "treepotato"})
    ('ring', 'treepotato')
    """
    for user, password in KEY_VARIABLES:
        if env.get(user) and env.get(password):
            return env[user], env[password]
    default = "rustfsadmin" if "rustfs" in image else "minioadmin"
    return default, default


def own_container_id(mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The id of the container whose network this process uses; None outside a container."""
    try:
        found = OWN_CONTAINER.search(mountinfo.read_text())
    except OSError:
        return None
    return found[1] if found else None


class DockerReader:
    """Reads the nodes from Docker: one list call, and one inspect call for each container not seen before."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: docker.DockerClient | None = None
        self._known: dict[str, tuple[str, str, str]] = {}  # container id -> access key, secret key, region

    def read(self) -> list[NodeRecord]:
        """The nodes that this process can reach, by name.

        Raises docker.errors.DockerException, or what requests and urllib3 raise, where Docker can't be read.
        """
        try:
            if self._client is None:
                self._client = docker.from_env(timeout=self.settings.docker_timeout)
            return self._read(self._client)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drops the connection to Docker; the next read makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _read(self, client: docker.DockerClient) -> list[NodeRecord]:
        own_image, own_networks = self._own(client)
        listed = client.api.containers(all=True, filters={"name": re.escape(self.settings.node_name)})
        best: dict[str, tuple[tuple[bool, int], dict[str, Any], str | None]] = {}
        for container in listed:
            name = self._node_name(container)
            if name is None or (own_image and container["ImageID"] == own_image):  # another gateway, oddly named
                continue
            reachable, host = self._address(container, own_networks)
            rank = (host is not None, container["Created"])
            if reachable and (name not in best or rank > best[name][0]):
                best[name] = rank, container, host
        records = []
        for name, (_, container, host) in sorted(best.items()):
            keys = self._keys(client, container)
            if keys:
                records.append(NodeRecord(name, container["Id"], host, self.settings.node_port, *keys))
        self._known = {record.container: self._known[record.container] for record in records}
        return records

    def _node_name(self, container: dict[str, Any]) -> str | None:
        names = [name[1:] for name in container["Names"] or () if name.count("/") == 1]  # more: a link's alias
        if not names or (container["Labels"] or {}).get("com.docker.compose.oneoff") == "True":
            return None
        name = RECREATING.sub("", names[0])
        return name if self.settings.node_name in name else None

    def _own(self, client: docker.DockerClient) -> tuple[str | None, set[str] | None]:
        """This process's image and networks; no networks means that every container can be reached."""
        own = own_container_id()
        if own is None:
            return None, None
        try:
            me = client.api.inspect_container(own)
        except docker.errors.NotFound:  # Docker is that of another machine
            return None, None
        networks = set(me["NetworkSettings"]["Networks"])
        return me["Image"], None if "host" in networks else networks

    def _address(self, container: dict[str, Any], own: set[str] | None) -> tuple[bool, str | None]:
        """Whether the container has a network that we can reach, and its address there if it runs."""
        networks = container["NetworkSettings"]["Networks"]
        shared = sorted(name for name in networks if own is None or name in own)
        if container["State"] != "running":  # a paused one accepts connections and never answers
            return bool(shared), None
        hosts = [networks[name]["IPAddress"] for name in shared]
        return bool(shared), next(filter(None, hosts), None)

    def _keys(self, client: docker.DockerClient, container: dict[str, Any]) -> tuple[str, str, str] | None:
        known = self._known.get(container["Id"])
        if known is None:
            try:
                config = client.api.inspect_container(container["Id"])["Config"]
            except docker.errors.NotFound:  # removed since it was listed
                return None
            env = dict(line.split("=", 1) for line in config["Env"] or () if "=" in line)
            region = next(filter(None, map(env.get, REGION_VARIABLES)), "us-east-1")
            known = self._known[container["Id"]] = (*keys_from_env(env, config["Image"]), region)
        return known


class Discovery:
    """The node list, kept current by one thread.

    >>> discovery = Discovery(Settings())   # starts nothing
    >>> discovery.nodes                     # the last result, a tuple sorted by name
    ()
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.nodes: tuple[Node, ...] = ()
        self.healthy = True  # the last reading came, and in time
        self._reader = DockerReader(settings)
        self._changed = threading.Condition()
        self._wanted = False
        self._begun = self._done = 0  # readings of Docker
        self._read = -math.inf  # monotonic time at which the last good one ended
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread; once is enough, more does no harm."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="objgw-discovery", daemon=True)
                self._thread.start()

    def renew(self) -> bool:
        """Has Docker read and waits for it: True once a reading that began after this call has succeeded.

        False as soon as one fails, and while Docker is known not to answer. Any number of callers share a reading.
        """
        ticket = self._ask()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= ticket or not self.healthy)
            return self.healthy

    def recent(self) -> tuple[Node, ...]:
        """The nodes by a reading of the last `RECENT_SECONDS`, if Docker can be read."""
        if time.monotonic() - self._read > RECENT_SECONDS:
            self.renew()
        return self.nodes

    def current(self, node: Node) -> bool:
        """Whether Docker, read now, still has this node at its address with its keys (or can't be read)."""
        return not self.renew() or node in self.nodes

    def confirm(self, node: Node) -> bool:
        """Whether a connection to the node that is open already leads to it, and not to another with its old address.

        Docker, read from now on, says so. An answer to a request that another connection sends from now on says the
        same; under load it comes sooner.
        """
        opened = time.monotonic()
        if node.busy and node.wait_for(lambda: node.proved > opened or node.closed, PROOF_SECONDS):
            return not node.closed
        ticket = self._ask()
        node.wait_for(lambda: node.proved > opened or node.closed or self._done >= ticket or not self.healthy)
        return not node.closed

    def _ask(self) -> int:
        """Wakes the thread, and gives the number of the first reading that begins from now on."""
        with self._changed:
            self._wanted = self._wanted or self.healthy
            self._changed.notify_all()
            return self._begun + 1

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._begun += 1
                self._wanted = False
            failure = None
            try:
                records = self._reader.read()
            except Exception as error:  # whatever Docker does, the last good list stays
                failure = error
            with self._changed:
                if failure is None:
                    self._publish(records)
                    self._read = time.monotonic()
                if failure and self.healthy:
                    log.warning("Docker can't be read, the last list stays: %s", failure)
                elif not failure and not self.healthy:
                    log.info("Docker answers again")
                self.healthy = failure is None
                self._done = self._begun
                self._changed.notify_all()
            for node in self.nodes:
                node.wake()
            time.sleep(0.02)  # callers that come in a burst share the next reading
            with self._changed:
                settled = self.healthy and self.nodes and all(node.ready for node in self.nodes)
                pause = self.settings.discovery_seconds
                self._changed.wait_for(lambda: self._wanted, pause if settled else min(pause, 1.0))

    def _publish(self, records: list[NodeRecord]) -> None:
        """Makes `records` the current nodes. A name that was there before and isn't now keeps its place."""
        before = {node.name: node for node in self.nodes}
        found = {record.name: record for record in records}
        after = []
        for name in sorted(before.keys() | found.keys()):
            record = found.get(name, NodeRecord(name))
            node = before.get(name)
            if node is None or node.record != record:
                log.info("node %s, was %s", record, node.record if node else "not there")
                if node:
                    node.close()
                node = Node(record, self.settings)
            after.append(node)
            if node.host and not node.ready and not node.preparing:
                node.preparing = True
                threading.Thread(target=self._prepare, args=(node,), name="objgw-prepare", daemon=True).start()
        self.nodes = tuple(after)

    def _prepare(self, node: Node) -> None:
        """Makes the bucket of a node that was just found, before the first PUT needs it."""
        try:
            connection = node.connect()
            if self.confirm(node):
                node.make_bucket(connection)
                node.release(connection)
            else:
                connection.close()
        except (OSError, UpstreamError) as error:  # it is starting; the next reading has it tried again
            log.debug("node %s isn't ready: %s", node.name, error)
        finally:
            node.preparing = False


def owner(nodes: tuple[Node, ...], object_id: str) -> Node:
    """The node of an id: SHA-256 of the id, as a big-endian number, modulo the number of nodes."""
    digest = hashlib.sha256(object_id.encode("ascii")).digest()
    return nodes[int.from_bytes(digest) % len(nodes)]


# ---------------------------------------------------------------------------------------------------------------------
# Storage: one signed, streamed request to one MinIO
# ---------------------------------------------------------------------------------------------------------------------

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
DIGITS = re.compile(r"[0-9]{1,18}")
UNSIGNED = "UNSIGNED-PAYLOAD"
ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")


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
    """What is asked of a node. Header names are in lower case; a path has nothing that would need escaping."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    upload: Upload | None = None

    @property
    def careful(self) -> bool:
        """Whether the body is sent only after the node's `100 Continue` (RFC 9110, 10.1.1), so that a dead connection
        or a rejected key shows while it can still be sent elsewhere: a body that can't be sent twice, or mustn't be,
        because a second create-only PUT would fail on the first.
        """
        return self.upload is not None and (not self.upload.whole or not self.headers.keys().isdisjoint(IF_MATCH))


IF_MATCH = ("if-match", "if-none-match")


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
            self.sock.sendall(data)
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
        if reply.headers.get("connection", "").lower() == "close":
            self.usable = False
        if reply.status >= 300:
            while reply.left:
                if len(reply.body) > ERROR_BODY_MAX:
                    raise UpstreamError("the answer's error document is too long")
                more = self.receive(min(reply.left, 65536))
                reply.body += more
                reply.left -= len(more)
        return reply

    def end(self) -> None:
        """Makes whoever waits on it get an UpstreamError."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sock.close()


def parse_reply(head: str, body: bytes, method: str) -> Reply:
    """Parses an HTTP/1.1 status line and headers (RFC 9112). Raises ValueError or IndexError on anything else."""
    lines = head.split("\r\n")
    if not lines[0].startswith("HTTP/1.1 "):
        raise ValueError(lines[0])
    status = int(lines[0][9:12])
    if CONTROL.search(head):
        raise ValueError("control characters")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        value = value.strip()
        if not colon or (name == "content-length" and (name in headers or not DIGITS.fullmatch(value))):
            raise ValueError(line)
        headers[name] = value
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
        self.preparing = False
        self._settings = settings
        self._authority = f"{record.host}:{record.port}"
        self._idle: list[Connection] = []  # the last one used is used next, so that others can grow old and go
        self._waiting: set[Connection] = set()  # those in use on which no answer has come
        self.downloads: set[Connection] = set()  # those in use by the body of an answer
        self.proved = 0.0  # monotonic time of sending the last request that was answered
        self._news = threading.Condition()  # of that, and of Docker
        self._waiters = 0
        self.connecting = 0  # requests that have no connection yet
        self.broken_until = 0.0  # monotonic time before which nobody asks it; 0 when it isn't broken
        self.closed = False  # Docker says something else of its name by now
        self._second = 0
        self._stamp = self._scope = self._credential = ""
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
        for connection in self._waiting | self.downloads:
            connection.end()
        self.wake()

    def forget(self) -> None:
        """Closes the kept connections: one of them was found dead, so the others most likely are."""
        while self._idle:
            self._idle.pop().close()

    # -- requests

    def exchange(self, connection: Connection, request: Request) -> Reply:
        """One request and its answer, whose body may still have to be received.

        Before the first upload it makes the bucket; where that is refused, the answer is that. Raises UpstreamError,
        and BodyError when the client breaks off.
        """
        self._waiting.add(connection)
        try:
            if request.upload is not None and not self.ready:
                reply = self.make_bucket(connection)
                if not self.ready:
                    return reply
            return self._exchange(connection, request)
        finally:
            self._waiting.discard(connection)

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

        The body isn't hashed: the way to the node is a Docker network, and the length is checked.
        https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
        """
        now = int(time.time())
        if now != self._second:
            self._tick(now)
        method, path, headers, upload = request
        signed = {"host": self._authority, "x-amz-content-sha256": UNSIGNED, "x-amz-date": self._stamp}
        sent = "".join([f"{name}: {value}\r\n" for name, value in signed.items()])
        for name, value in headers.items():
            sent += f"{name}: {value}\r\n"
            if name.startswith("x-amz-"):
                signed[name] = " ".join(value.split())
        if upload is not None:
            sent += f"content-length: {upload.length}\r\n"
            if request.careful:
                sent += "expect: 100-continue\r\n"
        names = sorted(signed)
        listed = ";".join(names)
        fields = "".join([f"{name}:{signed[name]}\n" for name in names])
        digest = hashlib.sha256(f"{method}\n{path}\n\n{fields}\n{listed}\n{UNSIGNED}".encode("latin-1")).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._stamp}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._signing_key, text.encode(), "sha256").hex()
        authorization = f"{self._credential}, SignedHeaders={listed}, Signature={signature}"
        return f"{method} {path} HTTP/1.1\r\n{sent}authorization: {authorization}\r\n\r\n".encode("latin-1")

    def _tick(self, now: int) -> None:
        """Renews the time stamp, and the signing key, which is good for a day."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{stamp[:8]}/{self.record.region}/s3/aws4_request"
        if scope != self._scope:
            key = f"AWS4{self.record.secret_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_key = key
        self._second, self._stamp, self._scope = now, stamp, scope
        self._credential = f"AWS4-HMAC-SHA256 Credential={self.record.access_key}/{scope}"


# ---------------------------------------------------------------------------------------------------------------------
# Gateway: the WSGI callable
# ---------------------------------------------------------------------------------------------------------------------

OBJECT_ID = re.compile(r"[A-Za-z0-9]{1,32}")
METHODS = ("GET", "HEAD", "PUT", "DELETE")
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
        self._started = False
        self._tokens = [(token_digest(token), True) for token in settings.tokens.split()]
        self._tokens += [(token_digest(token), False) for token in settings.read_tokens.split()]

    def start(self) -> None:
        """Starts to look for nodes. The first request does so too."""
        self._started = True
        if not self._tokens:
            log.warning("no token is set: whoever reaches the gateway may read and write")
        self.discovery.start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._started:
            self.start()
        try:
            answer = self.answer(environ)
        except Refusal as refusal:
            answer = refusal.answer()
        except BodyError as error:
            answer = Refusal(error.status, f"{error} Nothing was stored.").answer()
        except Exception:
            log.exception("%s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            answer = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed; its log says why.").answer()
        start_response(answer.status, answer.headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else answer.body

    def answer(self, environ: Environ) -> Answer:
        """Decides on a request. Raises Refusal, and BodyError when the client breaks off."""
        path = environ["PATH_INFO"]
        if not path.startswith("/object/"):
            raise Refusal(HTTPStatus.NOT_FOUND, "Objects are at /object/{id}.")
        method = environ["REQUEST_METHOD"]
        if self._tokens:
            self._permit(environ.get("HTTP_AUTHORIZATION", ""), writing=method not in ("GET", "HEAD"))
        object_id = path[8:]
        if not OBJECT_ID.fullmatch(object_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "An id is 1 to 32 ASCII letters and digits.")
        if method == "GET" or method == "HEAD":
            return self._read(method, object_id, environ)
        if method == "PUT":
            return self._write(object_id, environ)
        if method == "DELETE":
            return self._delete(object_id)
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET, HEAD, PUT or DELETE.", ("Allow", ", ".join(METHODS)))

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

    def _read(self, method: str, object_id: str, environ: Environ) -> Answer:
        headers, conditions = reading(method, environ)
        node, connection, reply = self._exchange(object_id, method, headers)
        if "range" in headers and not unchanged(environ.get("HTTP_IF_RANGE"), reply.status, reply.headers):
            node.leave(connection, reply)
            del headers["range"]
            node, connection, reply = self._exchange(object_id, method, headers)
        if reply.status not in (200, 206):
            node.release(connection)
            if reply.status == 304:
                return not_modified(reply)
            raise refusal(node, reply)
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
            body: Iterable[bytes] = download(node, connection, reply)
        else:
            node.release(connection)
            body = [reply.body]
        return Answer(f"{status.value} {status.phrase}", answered(reply.headers), body)

    def _write(self, object_id: str, environ: Environ) -> Answer:
        headers = writing(environ)
        self._owner(object_id)  # refuses before the body is read
        maximum = self.settings.max_object_bytes or S3_MAXIMUM
        if "HTTP_TRANSFER_ENCODING" in environ:
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":  # RFC 9112, 6.1
                raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "The only transfer coding is chunked.")
            stream, length = spool(environ["wsgi.input"], maximum)
        else:
            stream, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
        if length > maximum:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"An object may have at most {maximum} bytes.")
        node, connection, reply = self._exchange(object_id, "PUT", headers, Upload(stream, length))
        node.release(connection)
        if reply.status != 200 or "etag" not in reply.headers:
            raise refusal(node, reply, writing=True)
        return Answer("200 OK", [("ETag", reply.headers["etag"]), ("Content-Length", "0")])

    def _delete(self, object_id: str) -> Answer:
        node, connection, reply = self._exchange(object_id, "DELETE", {})
        node.release(connection)
        if reply.status != 204 and reply.status != 404:
            raise refusal(node, reply)
        return Answer("204 No Content", [])

    # -- the way to the node

    def _owner(self, object_id: str) -> Node:
        """The node of an id. Raises Refusal where there is none, or it isn't running, by a recent reading of Docker."""
        nodes = self.discovery.nodes
        if not (nodes and owner(nodes, object_id).host):
            nodes = self.discovery.recent()
        if not nodes:
            raise unavailable("No node is known yet.")
        node = owner(nodes, object_id)
        if not node.host:
            raise unavailable("The node of this id is not running.")
        return node

    def _exchange(
        self, object_id: str, method: str, headers: Mapping[str, str], upload: Upload | None = None
    ) -> tuple[Node, Connection, Reply]:
        """One request to the owner, sent again only where that can't do harm: none of it was answered, it has the same
        effect twice, and its body is still at hand.

        Raises Refusal (503) where the owner can't be reached or breaks off.
        """
        request = Request(method, f"/{self.settings.bucket}/{object_id}", headers, upload)
        trying = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            node = self._owner(object_id)
            trying = trying or node.admit()
            connection = node.kept()
            if connection is None:
                node.connecting += 1
                try:
                    connection = self._connect(node)
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
            return Refusal(HTTPStatus.PRECONDITION_FAILED, "There is no object with this id.")
        if writing:
            return unavailable("The node of this id lost its bucket, which is made again; try again.")
        return Refusal(HTTPStatus.NOT_FOUND, "There is no object with this id.")
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


def download(node: Node, connection: Connection, reply: Reply) -> Iterator[bytes]:
    """The bytes of an object on their way to the client.

    Where the node breaks off, ConnectionResetError makes the server break the client's connection, so that what it
    has can't pass for the whole. A connection of which something is unread is never used again.
    """
    left = reply.left
    node.downloads.add(connection)
    try:
        if reply.body:
            yield reply.body
        reply.body = b""
        while left:
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
        if left:
            connection.close()


try:
    app = Gateway(Settings.from_environ(os.environ))
except SettingsError as error:
    print(f"objgw: {error}", file=sys.stderr)
    sys.exit(4)  # gunicorn's APP_LOAD_ERROR: it stops, where after another status it would start workers for ever
