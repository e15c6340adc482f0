#!/usr/bin/env python3
"""objgwctl: what an operator runs. It shows where objects are, moves them, and takes nodes out and in.

    docker-compose exec gateway-container python objgwctl.py --help

Strategy. Nodes and keys come from Docker, as they do for the gateway; which names count, and since when, is in the
nodes' records (`objgwlayout` says what they promise). The ids' listings are sorted on each node, so one merge of all
listings gives every copy of one id at a time, in memory that doesn't grow with the number of objects.

Moving an object is GET from where its newest copy is, PUT to its owner, DELETE of the other copies. Why that can be
killed at any point, run twice at once, and run while clients read, write and delete:

- **The owner's copy is never replaced unseen.** A PUT to the owner is create-only, or on the ETag of the older copy
  that was seen there; a client's write or DELETE marker in between makes it fail (412), and all is looked at again.
- **It takes effect at once.** One PUT that carries the MD5 of the source; of a large object a multipart upload, whose
  end has the condition, because MinIO locks an object while a conditional PUT lasts, also for readers. What a killed
  one has left, the next run removes.
- **A copy goes last.** The others are deleted only when the owner has answered that it holds the newest: whatever
  moment the process dies at, each object is in at least one place, and the next run removes what is there twice.
- **No write after the layout has changed.** DELETE can't be conditional in MinIO, so each write needs what a gateway
  needs: the node's record, read within the last `LEASE_SECONDS`, that still says the same. A changed one, say because
  a node joins, makes it start over.
- **Markers go when nothing is moved any more.** First everything is moved, and a full pass finds nothing to move; that
  is recorded, and all gateways know of it a lease later; then markers are replaced by SWEPT on condition, and deleted.
  Only one process does so: it holds a lock, and stops before its next write when it couldn't renew it in time.

A connection is used only when Docker, asked while it is open, says that the node still has this address, and so is a
page of a listing: a container that took over the address of another is never mistaken for it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import heapq
import io
import itertools
import json
import math
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial, reduce
from types import FrameType
from typing import Any, NamedTuple, NoReturn, cast

import docker.errors
import minio
import minio.datatypes
import requests
import urllib3
from minio.error import MinioException, S3Error
from tqdm import tqdm

import objgw
from gateway.nodes import layout as objgwlayout
from gateway.nodes.layout import (
    DELETED,
    ERA,
    HOLD_SECONDS,
    LEASE_SECONDS,
    MARKER_ETAG,
    OBJECT_ID,
    POLL_SECONDS,
    SWEPT,
    SWEPT_ETAG,
    Layout,
    Spread,
    owner_name,
)
from gateway.nodes.sources.docker import DockerReader, NodeRecord
from gateway.s3.node import BLOCK, KEPT_SECONDS, Connection, Node, Reply, Request, Upload, UpstreamError

JOBS = 8  # objects that are moved at a time
ATTEMPTS = 6  # at an object that changes, or whose node breaks off; with pauses of 0.5, 1, 2, 4 … seconds
FAILURES = 20  # objects that couldn't be moved, from which on it gives up
LOCK = "lock"  # the lock's key, beside the record
LOCK_SECONDS = 20.0  # for which a lock is good
LOCK_RENEWED = 5.0  # seconds after which it is renewed
LOCK_MARGIN = 5.0  # seconds before its end from which nothing is written any more
SINGLE = 5 * 1024 * 1024  # bytes up to which an object is moved with one PUT, and of a part (MinIO: at least so many)
PARTS = 10_000  # of a multipart upload, at most
PAGE = 1000  # objects of one answer to a listing
OBJECT_WEIGHT = 64 * 1024  # bytes that take as long as the requests for one object do, for the estimate
PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal
PLAIN_MD5 = re.compile(r'"[0-9a-f]{32}"')
# What of an object's headers goes with it, beside x-amz-meta-*.
KEPT = ("content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "expires")

FINE, FOUND, CANNOT, BUSY, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = """exit codes:
  0    fine
  1    check found something; rebalance couldn't move everything
  2    it can't be done: wrong usage, or Docker or a node can't be reached; nothing was half-done
  3    another rebalance or remove is at work
  130  interrupted; start it again, it goes on from there
"""


class Trouble(Exception):
    """It can't be done; the text is for the operator, without a stack trace."""

    code = CANNOT


class Busy(Trouble):
    """Another rebalance is at work."""

    code = BUSY


class NodeTrouble(Trouble):
    """A node or Docker can't be reached or breaks off; it may be worth another try."""


class LayoutChanged(Exception):
    """The layout isn't the one any more that the work was begun with: start over."""


class LockLost(Exception):
    """The lock couldn't be renewed in time: start over."""


class Stopped(Exception):
    """The work is being given up, for a reason that the main thread knows."""


# ---------------------------------------------------------------------------------------------------------------------
# The nodes: Docker, one connection a thread, listings
# ---------------------------------------------------------------------------------------------------------------------


class Copy(NamedTuple):
    """An object on a node. A listing says neither era nor whether it is a marker; HEAD does, but in whole seconds."""

    node: str
    key: str
    size: int
    etag: str  # quoted
    modified: float  # Unix time, seconds
    era: int = 0
    deleted: bool = False

    @property
    def age(self) -> tuple[int, float]:
        """Of two copies the newer one has the greater."""
        return self.era, self.modified

    @property
    def like_marker(self) -> bool:
        """Whether it may be a marker, by a listing."""
        return self.etag in (MARKER_ETAG, SWEPT_ETAG)


class Wire:
    """A connection to a node, for one thread. It is opened when it is needed, and proved then."""

    def __init__(self, record: NodeRecord, settings: objgw.Settings, prove: Callable[[NodeRecord], None]) -> None:
        self.record = record
        self._node = Node(record, settings)
        self._prove = prove
        self._connection: Connection | None = None
        self._used = 0.0

    def begin(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, upload: Upload | None = None
    ) -> Reply:
        """A request and the head of its answer, whose body is read by `receive`. Raises NodeTrouble.

        A kept connection that turns out to be closed is replaced; what is sent again has the same effect twice, or a
        condition that tells.
        """
        request = Request(method, path, headers or {}, upload)
        while True:
            connection, reused = self._open()
            try:
                reply = self._node.ask(connection, request)
            except UpstreamError as error:
                self.close()
                if reused and not connection.answered and not (upload and upload.spent):
                    continue
                raise NodeTrouble(f"{self.record.name} broke off: {error}") from None
            except BaseException:
                self.close()
                raise
            self._used = time.monotonic()
            if not connection.usable and not reply.left:
                self.close()
            return reply

    def receive(self, reply: Reply, size: int) -> bytes:
        """The next bytes of an answer's body, at most `size`; none at its end. Raises NodeTrouble."""
        if reply.body:
            block, reply.body = reply.body[:size], reply.body[size:]
            return block
        if not reply.left:
            return b""
        if self._connection is None:
            raise NodeTrouble(f"{self.record.name} broke off")
        try:
            block = self._connection.receive(min(reply.left, size))
        except UpstreamError as error:
            self.close()
            raise NodeTrouble(f"{self.record.name} broke off: {error}") from None
        reply.left -= len(block)
        self._used = time.monotonic()
        return block

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Any:
        """A request with a small body, and its whole answer."""
        upload = None if body is None else Upload(io.BytesIO(body), len(body))
        reply = self.begin(method, path, headers, upload)
        reply.body = b"".join(iter(lambda: self.receive(reply, 65536), b""))
        return reply

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> tuple[Connection, bool]:
        if self._connection is not None and time.monotonic() - self._used < KEPT_SECONDS:
            self._connection.answered = False
            return self._connection, True
        self.close()
        try:
            connection = self._node.connect()
        except OSError as error:
            raise NodeTrouble(f"{self.record.name} can't be reached: {error}") from None
        try:
            self._prove(self.record)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection, False


class Cluster:
    """The nodes by Docker, and what they hold."""

    def __init__(self, settings: objgw.Settings) -> None:
        self.settings = settings
        self.bucket, self.records_bucket = settings.bucket, settings.records_bucket
        self._reader = DockerReader(settings.node_name, settings.node_port, settings.docker_timeout)
        self._lock = threading.Lock()
        self._wires = threading.local()
        self._clients: dict[NodeRecord, minio.Minio] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.refresh()

    def refresh(self) -> dict[str, NodeRecord]:
        """Reads the nodes from Docker. Raises Trouble."""
        with self._lock:
            try:
                self.nodes = {record.name: record for record in self._reader.read()}
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                raise NodeTrouble(f"Docker can't be read: {error}") from None
            return self.nodes

    def prove(self, record: NodeRecord) -> None:
        """Raises NodeTrouble unless Docker, read now, still has this node at its address."""
        if self.refresh().get(record.name) != record:
            raise NodeTrouble(f"{record.name} has changed its container or address")

    def wire(self, name: str) -> Wire:
        """This thread's connection to a node. Raises NodeTrouble where it isn't running."""
        record = self.nodes.get(name)
        if record is None or not record.host:
            raise NodeTrouble(f"{name} isn't {'running' if record else 'there'}")
        wires: dict[str, Wire] = self._wires.__dict__
        wire = wires.get(name)
        if wire is None or wire.record != record:
            if wire:
                wire.close()
            wire = wires[name] = Wire(record, self.settings, self.prove)
        return wire

    def client(self, name: str) -> tuple[minio.Minio, NodeRecord]:
        """minio-py's client for a node, for what isn't done once for each object."""
        record = self.wire(name).record
        with self._lock:
            if record not in self._clients:
                timeout = urllib3.Timeout(connect=self.settings.connect_timeout, read=self.settings.node_timeout)
                retries = urllib3.Retry(total=2, backoff_factor=0.2)
                self._clients[record] = minio.Minio(
                    f"{record.host}:{record.port}", record.access_key, record.secret_key, secure=False,
                    region=record.region, http_client=urllib3.PoolManager(timeout=timeout, retries=retries),
                )  # fmt: skip
            return self._clients[record], record

    # -- objects

    def path(self, key: str) -> str:
        """The path of an object."""
        return f"/{self.bucket}/{key}"

    def head(self, name: str, key: str) -> Copy | None:
        """A copy with its era, or None where the node has none. Raises NodeTrouble."""
        reply = self.wire(name).ask("HEAD", self.path(key))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise unexpected(name, reply)
        headers = reply.headers
        era = headers.get(ERA, "")
        return Copy(
            name, key, int(headers["content-length"]), headers["etag"],
            parsedate_to_datetime(headers["last-modified"]).timestamp(),
            int(era) if era.isdecimal() else 0, DELETED in headers,
        )  # fmt: skip

    def listing(self, name: str) -> Iterator[Copy]:
        """All objects of a node, sorted by the bytes of their keys. Goes on where a node breaks off for some seconds.

        Raises Trouble.
        """
        last, failures = None, 0
        while True:
            try:
                for page in self._pages(name, last):
                    yield from page
                    last, failures = page[-1].key, 0
                return
            except NodeTrouble:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                time.sleep(2.0 ** (failures - 2))
                with contextlib.suppress(NodeTrouble):
                    self.refresh()

    def _pages(self, name: str, start_after: str | None) -> Iterator[list[Copy]]:
        client, record = self.client(name)
        listed = client.list_objects(self.bucket, recursive=True, start_after=start_after)
        pages = itertools.batched(listed, PAGE, strict=False)
        while True:
            page = None
            with self._listing(name):
                page = next(pages, None)
            if page is None:
                return
            self.prove(record)
            yield [Copy(name, each.object_name, each.size or 0, f'"{each.etag}"', modified(each)) for each in page]

    @contextlib.contextmanager
    def _listing(self, name: str) -> Iterator[None]:
        """Has what minio-py raises be Trouble; no bucket is nothing to list."""
        try:
            yield
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise NodeTrouble(f"{name} can't be listed: {error.code}") from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeTrouble(f"{name} can't be listed: {error}") from None

    def ids(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Copy]]]:
        """Each key in order, with its copies by node."""
        merged = heapq.merge(*map(self.listing, names), key=lambda copy: copy.key.encode())
        for key, copies in itertools.groupby(merged, key=lambda copy: copy.key):
            yield key, {copy.node: copy for copy in copies}

    def uploads(self, name: str) -> list[tuple[str, str]]:
        """Key and id of the multipart uploads that were never completed; of many, the first. Raises NodeTrouble."""
        client, record = self.client(name)
        found: list[tuple[str, str]] = []
        with self._listing(name):
            listed = client._list_multipart_uploads(self.bucket, max_uploads=1000).uploads
            found = [(each.object_name, each.upload_id or "") for each in listed]
        self.prove(record)
        return found

    def abort_uploads(self, name: str) -> None:
        """Removes what a killed rebalance has left; nothing else makes such uploads here. Raises NodeTrouble."""
        for key, upload in self.uploads(name):
            if OBJECT_ID.fullmatch(key):
                with self._listing(name), contextlib.suppress(S3Error):
                    self.client(name)[0]._abort_multipart_upload(self.bucket, key, upload)


def modified(listed: minio.datatypes.Object) -> float:
    """When an object of a listing was stored: Unix time, with milliseconds."""
    return cast(datetime, listed.last_modified).timestamp()


def unexpected(name: str, reply: Reply) -> Trouble:
    """What is said of an answer that nobody asked for."""
    if reply.status == 507 or reply.code == "XMinioStorageFull":
        return Trouble(f"{name} has no room left on its disk")
    return NodeTrouble(f"{name} gave an unexpected answer: {reply.status} {reply.code}")


# ---------------------------------------------------------------------------------------------------------------------
# The records
# ---------------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a node holds as its record."""

    layout: Layout | None
    etag: str | None  # of the object, also where it isn't a record
    problem: str = ""  # why it can't be used


class Records:
    """The nodes' records: read, merged, and changed by compare-and-swap."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._path = f"/{cluster.records_bucket}/{objgwlayout.RECORD}"

    def read_one(self, name: str) -> Found:
        """A node's record. Raises NodeTrouble."""
        reply = self.cluster.wire(name).ask("GET", self._path)
        if reply.status == 404:
            return Found(None, None)
        if reply.status != 200:
            raise unexpected(name, reply)
        try:
            layout, node = Layout.load(reply.body)
        except ValueError as error:
            return Found(None, reply.headers["etag"], f"its record can't be read: {error}")
        if node != name:
            return Found(None, reply.headers["etag"], f"it holds what belongs to {node}")
        return Found(layout, reply.headers["etag"])

    def read(self) -> tuple[dict[str, Found], dict[str, str]]:
        """The records of all nodes that answer, and why the others don't."""
        found: dict[str, Found] = {}
        silent: dict[str, str] = {}
        for name in self.cluster.refresh():
            try:
                found[name] = self.read_one(name)
            except NodeTrouble as error:
                silent[name] = str(error)
        return found, silent

    def merged(self, found: Mapping[str, Found]) -> Layout | None:
        """What the records say together; None where there is none."""
        layouts = [each.layout for each in found.values() if each.layout]
        return reduce(partial(objgwlayout.merge, now=time.time()), layouts) if layouts else None

    def current(self) -> tuple[Layout, dict[str, Found], dict[str, str]]:
        """The layout, without writing anything. Raises Trouble where there are no nodes."""
        found, silent = self.read()
        return self.merged(found) or self._first(found, silent), found, silent

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Records what `step` makes of the layout, and gives it. What `step` raises goes through.

        Also writes where a node has an older record, or none because it is fresh. Raises Trouble.
        """
        for attempt in range(20):
            found, silent = self.read()
            before = self.merged(found)
            if before is None:
                before = self._first(found, silent)
            else:
                before = before.known(name for name, each in found.items() if each.layout)
            after = step(before)
            targets = [
                name for name in sorted(found)
                if name in after.all_names
                and (found[name].layout or (name in after.fresh and not found[name].problem))
            ]  # fmt: skip
            if not targets:
                raise Trouble(f"no node of the layout answers ({', '.join(before.names)})")
            first = next((name for name in targets if name in before.names), targets[0])
            if found[first].layout == after or self._write(first, found[first], after):
                for name in targets:
                    if name != first and found[name].layout != after:
                        with contextlib.suppress(NodeTrouble):  # who polls it writes it
                            self._write(name, found[name], after)
                return after
            time.sleep(0.05 * (attempt + 1) * (0.5 + secrets.randbelow(100) / 100))
        raise Trouble("the layout is being changed by others all the time; try again")

    def _first(self, found: Mapping[str, Found], silent: Mapping[str, str]) -> Layout:
        """The layout where no node has a record: Docker's names."""
        if silent:
            raise Trouble(f"no node has a record of the layout, and not all can be asked: {'; '.join(silent.values())}")
        if not found:
            raise Trouble(f"Docker lists no node: no container's name contains {self.cluster.settings.node_name!r}")
        wrong = [f"{name}: {each.problem}" for name, each in found.items() if each.problem]
        if wrong:
            raise Trouble("; ".join(wrong))
        return Layout.first(found, fresh=found)

    def _write(self, name: str, seen: Found, layout: Layout) -> bool:
        """Writes a record where it is as it was seen; whether it was. Raises NodeTrouble."""
        return self.put(name, self._path, layout.dump(name), seen.etag) is not None

    def put(self, name: str, path: str, body: bytes, etag: str | None) -> str | None:
        """Compare-and-swap of a small object: its new ETag, or None where it isn't as it was seen (None: not there)."""
        wire = self.cluster.wire(name)
        headers = {"if-match": etag} if etag else {"if-none-match": "*"}
        headers["content-type"] = "application/json"
        reply = wire.ask("PUT", path, headers, body)
        if reply.status == 404 and reply.code == "NoSuchBucket":
            wire.ask("PUT", f"/{self.cluster.records_bucket}", body=b"")
            reply = wire.ask("PUT", path, headers, body)
        if reply.status == 200:
            return cast(str, reply.headers["etag"])
        if reply.status == 412 or (reply.status == 404 and reply.code == "NoSuchKey"):
            return None
        raise unexpected(name, reply)

    def whole(self, layout: Layout, found: Mapping[str, Found], silent: Mapping[str, str]) -> None:
        """Raises Trouble unless every node that objects may be on answers and is the one it was."""
        problems = []
        for name in layout.all_names:
            if name in silent:
                problems.append(silent[name])
            elif name not in found:
                problems.append(f"{name} isn't there")
            elif found[name].problem:
                problems.append(f"{name}: {found[name].problem}")
            elif not found[name].layout and name not in layout.fresh:
                problems.append(f"{name} has lost its record, so it is empty (then: objgwctl.py remove --lost {name})")
        if problems:
            raise Trouble("; ".join(problems))


# ---------------------------------------------------------------------------------------------------------------------
# Lock and lease
# ---------------------------------------------------------------------------------------------------------------------


class Shift:
    """The right to write: a lock that keeps others from the same work, and a look at each node's record every second.

    As a context manager it takes the lock and gives it back. `check` is called before each write.
    """

    def __init__(self, records: Records, say: Callable[[str], None], *, waiting: bool) -> None:
        self.records, self.cluster, self._say, self._waiting = records, records.cluster, say, waiting
        self.layout = Layout.first(["none"])
        self.stop = threading.Event()
        self._news: Layout | None = None  # the newest record that a node was seen with
        self._emptied = ""  # a node that has lost its record
        self._seen: dict[str, float] = {}  # node -> monotonic time at which the last good look at its record began
        self._who = secrets.token_hex(8)
        self._place = ""  # the node that has the lock
        self._path = f"/{self.cluster.records_bucket}/{LOCK}"
        self._etag: str | None = None
        self._since = time.time()
        self._good_until = -math.inf  # monotonic
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Shift:
        self.layout = self.records.change(lambda layout: layout)
        layout, found, silent = self.records.current()
        self.records.whole(layout, found, silent)
        self._place = layout.all_names[0]
        self._take()
        try:
            self.layout = self.records.change(lambda layout: layout)
            self._seen = dict.fromkeys(self.layout.all_names, -math.inf)
            self._start(self._renewing)
            for name in self.layout.all_names:
                self._start(partial(self._watching, name))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(self.cluster.settings.connect_timeout)
        if self._etag:
            with contextlib.suppress(Trouble):
                lock = json.dumps({"who": self._who, "since": self._since, "until": 0}).encode()
                if self.records.put(self._place, self._path, lock, self._etag):  # it is still ours
                    self.cluster.wire(self._place).ask("DELETE", self._path)
            self._etag = None

    def check(self, *names: str) -> None:
        """Raises unless these nodes may be written to now: Stopped, LayoutChanged, LockLost, NodeTrouble."""
        patience = time.monotonic() + self.cluster.settings.node_timeout
        while True:
            if self.stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now > self._good_until:
                raise LockLost
            if self._emptied or (self._news is not None and outdated(self.layout, self._news)):
                raise LayoutChanged
            late = [name for name in names if now - self._seen[name] > LEASE_SECONDS]
            if not late:
                return
            if now > patience:
                raise NodeTrouble(f"{late[0]}'s record can't be read in time")
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Waits, and raises what `check` does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self.stop.wait(min(left, 0.2))

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Changes the layout that the work was begun with, or raises LayoutChanged."""

        def guarded(layout: Layout) -> Layout:
            if same_work(layout, self.layout):
                return step(layout)
            raise LayoutChanged

        self.check()
        self.layout = self.records.change(guarded)
        return self.layout

    # -- the lock

    def _take(self) -> None:
        """Takes the lock. One that isn't renewed is taken over when it is over. Raises Busy."""
        renewed = ""
        while True:
            holder, etag = self._holder()
            if holder is None or holder["until"] < time.time():
                if self._write(etag):
                    return
                continue
            if renewed and etag != renewed and not self._waiting:
                since = datetime.fromtimestamp(holder["since"]).astimezone().isoformat(" ", "seconds")
                raise Busy(f"another rebalance is at work (since {since})")
            if not renewed:
                self._say("there is a lock; waiting to see whether its holder is alive")
            renewed = etag or ""
            time.sleep(0.5)

    def _holder(self) -> tuple[dict[str, Any] | None, str | None]:
        reply = self.cluster.wire(self._place).ask("GET", self._path)
        if reply.status == 404:
            return None, None
        if reply.status != 200:
            raise unexpected(self._place, reply)
        try:
            holder = json.loads(reply.body)
            return {"until": float(holder["until"]), "since": float(holder["since"])}, reply.headers["etag"]
        except (ValueError, KeyError, TypeError):
            return None, reply.headers["etag"]

    def _write(self, etag: str | None) -> bool:
        began, now = time.monotonic(), time.time()
        lock = {"who": self._who, "since": self._since, "until": now + LOCK_SECONDS}
        new = self.records.put(self._place, self._path, json.dumps(lock).encode(), etag)
        if new is None:
            return False
        self._etag, self._good_until = new, began + LOCK_SECONDS - LOCK_MARGIN
        return True

    def _renewing(self) -> None:
        pause = LOCK_RENEWED
        while not self.stop.wait(pause):
            pause = LOCK_RENEWED
            try:
                if not self._write(self._etag):
                    self._good_until, self._etag = -math.inf, None  # somebody else's
                    return
            except Trouble:
                pause = 0.5

    # -- the lease

    def _watching(self, name: str) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            with contextlib.suppress(Trouble):
                layout = self.records.read_one(name).layout
                if layout is None and name not in self.layout.fresh:
                    self._emptied = name
                elif layout is not None and outdated(self.layout, layout):
                    self._news = layout
                else:
                    self._seen[name] = began
            self.stop.wait(max(0.0, began + POLL_SECONDS - time.monotonic()))

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self._threads.append(thread)


def outdated(layout: Layout, other: Layout) -> bool:
    """Whether a record says that the work is another than with this layout."""
    newer = other.origin != layout.origin or other.version > layout.version
    return newer and not same_work(layout, other)


def same_work(one: Layout, other: Layout) -> bool:
    """Whether two layouts say the same of where objects belong, and of how far the work is."""
    fields = ("origin", "spreads", "lost", "moved")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


# ---------------------------------------------------------------------------------------------------------------------
# Moving one object
# ---------------------------------------------------------------------------------------------------------------------


class Throttle:
    """A bandwidth limit that all threads share; no limit where it is 0 bytes a second."""

    def __init__(self, rate: float, jobs: int) -> None:
        self.rate = rate
        # Small enough that a node never waits long for the next one: MinIO gives up after 30 seconds.
        self.block = min(BLOCK, max(1024, int(rate / jobs))) if rate else BLOCK
        self._lock = threading.Lock()
        self._free = time.monotonic()  # when all that was asked for so far has passed

    def take(self, size: int, stop: threading.Event) -> None:
        """Waits until so many bytes may pass."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - 0.1) + size / self.rate
            delay = self._free - now
        if delay > 0 and stop.wait(delay):
            raise Stopped


class Mover:
    """Brings objects to their owner."""

    def __init__(self, shift: Shift, throttle: Throttle, passed: Callable[[int], None] = lambda _: None) -> None:
        """`passed` is told of bytes that were read, by any thread."""
        self.shift, self.cluster, self.throttle, self.passed = shift, shift.cluster, throttle, passed
        self.names = shift.layout.names
        self.places = shift.layout.all_names

    def place(self, key: str, listed: dict[str, Copy]) -> int:
        """Sees to it that an object's newest copy is with its owner, and nowhere else; the bytes that were moved.

        `listed` may be out of date. Raises Trouble where it can't be done, Stopped, LayoutChanged.
        """
        owner, pause, copies = owner_name(self.names, key), 0.5, listed
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                if attempt or len(listed) > 1:
                    copies = self.look(key, listed)
                if not copies:
                    return 0
                newest = max(copies.values(), key=lambda copy: (*copy.age, copy.node == owner))
                if newest.node == owner or self.copy(newest, owner, copies.get(owner)):
                    self.drop(key, [name for name in copies if name != owner])
                    return 0 if newest.node == owner else newest.size
            except NodeTrouble:
                if last:
                    raise
                if self.shift.stop.wait(pause):
                    raise Stopped from None
                pause *= 2
                with contextlib.suppress(NodeTrouble):
                    self.cluster.refresh()
        raise NodeTrouble(f"{key} changes all the time")

    def look(self, key: str, listed: Mapping[str, Copy]) -> dict[str, Copy]:
        """All copies as they are now. HEAD says whole seconds, so the time is the listing's where it is the same."""
        copies = {}
        for name in self.places:
            copy = self.cluster.head(name, key)
            if copy:
                known = listed.get(name)
                if known and known.etag == copy.etag and int(known.modified) == int(copy.modified):
                    copy = copy._replace(modified=known.modified)
                copies[name] = copy
        return copies

    def copy(self, newest: Copy, owner: str, older: Copy | None) -> bool:
        """Copies to the owner if it still has what was seen; False where something has changed meanwhile."""
        wire = self.cluster.wire(newest.node)
        reply = wire.begin("GET", self.cluster.path(newest.key))
        try:
            if reply.status == 404 or (reply.status == 200 and reply.headers.get("etag") != newest.etag):
                return False
            if reply.status != 200:
                raise unexpected(newest.node, reply)
            headers = moved_headers(reply.headers)
            condition = {"if-match": older.etag} if older else {"if-none-match": "*"}
            store = self._store if newest.size <= SINGLE else self._store_parts
            return store(newest, owner, older, headers, condition, partial(self._read, wire, reply))
        finally:
            if reply.body or reply.left:
                wire.close()

    def _read(self, wire: Wire, reply: Reply, size: int) -> bytes:
        """The next `size` bytes of an object, fewer at its end, no faster than the limit allows."""
        blocks = []
        while size and (block := wire.receive(reply, min(size, self.throttle.block))):
            self.throttle.take(len(block), self.shift.stop)
            if self.shift.stop.is_set():
                raise Stopped
            self.passed(len(block))
            blocks.append(block)
            size -= len(block)
        return b"".join(blocks)

    def _store(
        self, newest: Copy, owner: str, older: Copy | None,
        headers: dict[str, str], condition: dict[str, str], read: Callable[[int], bytes],
    ) -> bool:  # fmt: skip
        """One PUT, of an object that was read before: MinIO locks an object from the beginning of a conditional PUT to
        its end, also for readers."""
        body = read(newest.size + 1)
        if PLAIN_MD5.fullmatch(newest.etag):
            headers["content-md5"] = base64.b64encode(bytes.fromhex(newest.etag.strip('"'))).decode()
        headers["x-minio-source-mtime"] = datetime.fromtimestamp(newest.modified, UTC).isoformat()
        self._ready(owner, older)
        wire = self.cluster.wire(owner)
        stored = wire.ask("PUT", self.cluster.path(newest.key), headers | condition, body)
        if stored.status == 200:
            self._verify(newest, owner, hashlib.md5(body, usedforsecurity=False).hexdigest(), stored.headers["etag"])
            return True
        if stored.code == "NoSuchBucket":
            wire.ask("PUT", f"/{self.cluster.bucket}", body=b"")
            return False
        if stored.status == 412 or stored.code == "NoSuchKey":
            return False
        raise unexpected(owner, stored)

    def _store_parts(
        self, newest: Copy, owner: str, older: Copy | None,
        headers: dict[str, str], condition: dict[str, str], read: Callable[[int], bytes],
    ) -> bool:  # fmt: skip
        """A multipart upload, so that the lock is short for a large object too: its end is what has the condition.

        MinIO keeps the ETag that it is told, which is the source's; so clients see the same as before. No other node
        can be mistaken for the owner: it doesn't know the upload.
        """
        client, bucket, key = self.cluster.client(owner)[0], self.cluster.bucket, newest.key
        titled = {name.title(): value for name, value in headers.items()}
        plain = bool(PLAIN_MD5.fullmatch(newest.etag))
        if plain:
            titled["X-Minio-Source-Etag"] = newest.etag.strip('"')
        upload = ""
        try:
            upload = client._create_multipart_upload(bucket, key, cast(Any, titled))
            size, md5, etags = max(SINGLE, -(-newest.size // PARTS)), hashlib.md5(usedforsecurity=False), list[str]()
            while block := read(size):
                md5.update(block)
                etags.append(client._upload_part(bucket, key, block, None, upload, len(etags) + 1))
                self._verify(newest, owner, hashlib.md5(block, usedforsecurity=False).hexdigest(), f'"{etags[-1]}"')
            if plain and newest.etag != f'"{md5.hexdigest()}"':
                raise Trouble(f"its bytes on {newest.node} aren't those of its ETag")
            self._ready(owner, older)
            titled = {name.title(): value for name, value in condition.items()}
            titled["X-Minio-Source-Mtime"] = datetime.fromtimestamp(newest.modified, UTC).isoformat()
            complete_upload(client, bucket, key, upload, etags, titled)
            upload = ""
        except S3Error as error:
            if error.code in ("PreconditionFailed", "NoSuchKey"):
                return False
            if error.code == "NoSuchBucket":
                client.make_bucket(bucket)
                return False
            if error.code == "XMinioStorageFull":
                raise Trouble(f"{owner} has no room left on its disk") from None
            raise NodeTrouble(f"{owner} gave an unexpected answer: {error.code}") from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeTrouble(f"{owner} broke off: {error}") from None
        finally:
            if upload:
                with contextlib.suppress(MinioException, urllib3.exceptions.HTTPError, OSError):
                    client._abort_multipart_upload(bucket, key, upload)
        return True

    def _ready(self, owner: str, older: Copy | None) -> None:
        """Before an upload takes effect. An ETag doesn't tell when a client has just written what was there before, so
        that is looked at as well. Raises NodeTrouble, and what `check` does."""
        self.shift.check(owner)
        if older:
            now = self.cluster.head(owner, older.key)
            if now is None or (now.etag, int(now.modified), now.era) != (older.etag, int(older.modified), older.era):
                raise NodeTrouble(f"{older.key} was written meanwhile")

    def _verify(self, newest: Copy, owner: str, md5: str, etag: str) -> None:
        """Raises Trouble unless the owner has the bytes that were read."""
        if PLAIN_MD5.fullmatch(etag) and etag != f'"{md5}"':
            raise Trouble(f"{owner} has stored something else than {newest.node} has sent")

    def drop(self, key: str, names: Iterable[str]) -> None:
        """Deletes copies that aren't needed any more."""
        for name in names:
            self.shift.check(name)
            reply = self.cluster.wire(name).ask("DELETE", self.cluster.path(key))
            if reply.status not in (204, 404):
                raise unexpected(name, reply)

    def sweep(self, copy: Copy) -> bool:
        """Removes a marker, when nothing is moved any more; False where it is none (any more).

        No gateway writes onto SWEPT, it waits until that is gone; so the DELETE can't meet an object.
        """
        path, wire = self.cluster.path(copy.key), self.cluster.wire(copy.node)
        head = wire.ask("HEAD", path)
        if head.status == 404 or DELETED not in head.headers:
            return False
        self.shift.check(copy.node)
        if head.headers["etag"] != SWEPT_ETAG:
            headers = {**moved_headers(head.headers), "if-match": MARKER_ETAG}
            reply = wire.ask("PUT", path, headers, SWEPT)
            if reply.status in (404, 412):
                return False
            if reply.status != 200:
                raise unexpected(copy.node, reply)
            self.shift.check(copy.node)
        self.drop(copy.key, [copy.node])
        return True


def moved_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with which an object is stored elsewhere as it is here."""
    return {name: value for name, value in headers.items() if name in KEPT or name.startswith("x-amz-meta-")}


def complete_upload(
    client: minio.Minio, bucket: str, key: str, upload: str, etags: Iterable[str], headers: dict[str, str]
) -> None:
    """Ends a multipart upload on conditions, which minio-py has no call for. Raises S3Error.

    MinIO may begin with 200 to a long one, and say in the body that it failed.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    """
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    query = {"uploadId": upload}
    response = client._execute(
        "POST", bucket, key, body=body, headers=cast(Any, headers), query_params=cast(Any, query)
    )
    if b"<Error>" in response.data:
        raise S3Error.fromxml(cast(Any, response))


# ---------------------------------------------------------------------------------------------------------------------
# Progress
# ---------------------------------------------------------------------------------------------------------------------


def amount(size: float) -> str:
    """Bytes for people.

    >>> amount(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@dataclass
class Work:
    """What is to be moved, or was."""

    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0  # that it took

    @property
    def weight(self) -> int:
        """A measure of how long it takes, in bytes."""
        return self.bytes + self.objects * OBJECT_WEIGHT

    def __str__(self) -> str:
        return f"{self.objects} object{'' if self.objects == 1 else 's'} ({amount(self.bytes)})"


class Progress:
    """How far it is: a bar on a terminal, else a line every few seconds; on stderr.

    `passed` may be called by any thread, the others by the main thread.
    """

    def __init__(self, total: Work) -> None:
        self.total, self.done, self._began, self._shown = total, Work(), time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        self._bar: tqdm[NoReturn] | None = None
        if sys.stderr.isatty():
            form = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"
            self._bar = tqdm(total=total.weight, bar_format=form, dynamic_ncols=True, file=sys.stderr)

    def passed(self, size: int) -> None:
        """So many bytes more are on the other side."""
        with self._lock:
            self.done.bytes += size

    def show(self) -> None:
        """Draws the bar, or writes a line when it is time."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._rates(), refresh=False)
            self._bar.update(min(self.done.weight, self.total.weight) - self._bar.n)
        elif time.monotonic() - self._shown > PLAIN_SECONDS:
            self._shown = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.close()

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 0.001)
        return f"{self.done.objects / seconds:.0f} objects/s, {amount(self.done.bytes / seconds)}/s"

    def _line(self) -> str:
        left = max(0, self.total.weight - self.done.weight) * (time.monotonic() - self._began)
        rest = f", about {duration(left / self.done.weight)} left" if self.done.weight else ""
        return f"{self.done} of {self.total}, {self._rates()}{rest}"


# ---------------------------------------------------------------------------------------------------------------------
# Rebalance: all objects
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Census:
    """What is where, by the listings of all nodes."""

    objects: int = 0
    misplaced: int = 0  # objects that their owner hasn't got
    strays: int = 0  # copies beside the owner's
    markers: int = 0
    foreign: int = 0  # keys that are no ids: not ours
    work: Work = field(default_factory=Work)


def census(cluster: Cluster, layout: Layout) -> Census:
    """Counts what is where. Raises NodeTrouble."""
    found = Census()
    for key, copies in cluster.ids(layout.all_names):
        if not OBJECT_ID.fullmatch(key):
            found.foreign += 1
            continue
        owner = owner_name(layout.names, key)
        if owner in copies and copies[owner].like_marker and is_marker(cluster, copies[owner]):
            found.markers += 1
        else:
            found.objects += 1
        if copies.keys() == {owner}:
            continue
        found.work.objects += 1
        if owner in copies:
            found.strays += len(copies) - 1
        else:
            found.misplaced += 1
            found.strays += len(copies) - 1
            found.work.bytes += max(copies.values(), key=lambda copy: copy.age).size
    return found


def is_marker(cluster: Cluster, copy: Copy) -> bool:
    """Whether what looks like a marker in a listing is one."""
    head = cluster.head(copy.node, copy.key)
    return head is not None and head.deleted


@dataclass(frozen=True)
class Options:
    """How it is moved."""

    jobs: int = JOBS
    limit: float = 0.0  # bytes a second; 0: no limit
    waiting: bool = False  # for another rebalance to end


class Rebalance:
    """One run, with one layout."""

    def __init__(self, shift: Shift, options: Options, say: Callable[[str], None], moved: Work) -> None:
        self.shift, self.cluster, self.options, self.say = shift, shift.cluster, options, say
        self.moved = moved
        self.failures: list[str] = []

    def run(self) -> bool:
        """Moves everything and settles the layout. False where some objects couldn't be moved; `failures` says why.

        Raises Trouble, LayoutChanged, LockLost.
        """
        for name in self.shift.layout.all_names:
            self.cluster.abort_uploads(name)
        if self.shift.layout.settled:
            found = census(self.cluster, self.shift.layout)
            if not found.work.objects and not found.markers:
                return True
            self.say("objects aren't where the settled layout says; gateways look everywhere until they are")
            self.shift.change(Layout.anywhere)
            self._pause_for_gateways()
        self._wait_for_switch()
        while (found := census(self.cluster, self.shift.layout)).work.objects:
            self.shift.check()
            if self.shift.layout.moved:
                self.shift.change(lambda layout: replace(layout, version=layout.version + 1, moved=False))
                self._pause_for_gateways()
            self._pass(found.work)
            if self.failures:
                return False
        if not self.shift.layout.moved:
            self.shift.change(Layout.all_moved)
        self._pause_for_gateways()
        while self._sweep():
            pass
        self.shift.change(Layout.settle)
        return True

    def _pause_for_gateways(self) -> None:
        """Until all gateways know the layout."""
        self.shift.pause(LEASE_SECONDS + POLL_SECONDS + 1)

    def _wait_for_switch(self) -> None:
        """Until no gateway writes by an older spread."""
        left = self.shift.layout.spreads[0].since + HOLD_SECONDS + LEASE_SECONDS - time.time()
        if left > 0:
            self.say(f"the layout changes for all gateways in {duration(left)}")
            self.shift.pause(left)

    def _pass(self, total: Work) -> None:
        """Moves what isn't with its owner, several objects at a time."""
        self.say(f"moving {total}")
        progress, began = Progress(total), time.monotonic()
        mover = Mover(self.shift, Throttle(self.options.limit, self.options.jobs), progress.passed)
        pending: set[Future[int]] = set()
        pool = ThreadPoolExecutor(self.options.jobs, "mover")
        try:
            for key, copies in self.cluster.ids(mover.places):
                if not OBJECT_ID.fullmatch(key) or copies.keys() == {owner_name(mover.names, key)}:
                    continue
                while len(pending) >= self.options.jobs * 8:
                    pending = self._collect(pending, progress)
                pending.add(pool.submit(self._move, mover, key, copies))
            while pending:
                pending = self._collect(pending, progress)
        except BaseException:
            self.shift.stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            progress.close()
            self.moved.seconds += time.monotonic() - began

    def _move(self, mover: Mover, key: str, copies: dict[str, Copy]) -> int:
        try:
            return mover.place(key, copies)
        except Trouble as error:
            self.failures.append(f"{key}: {error}")
            if len(self.failures) > FAILURES:
                raise Trouble(f"too many objects can't be moved; the last one is {key}: {error}") from None
            return -1

    def _collect(self, pending: set[Future[int]], progress: Progress) -> set[Future[int]]:
        finished, pending = wait(pending, 1.0, FIRST_COMPLETED)
        for future in finished:
            size = future.result()
            if size >= 0:
                progress.done.objects += 1
                self.moved.objects += 1
                self.moved.bytes += size
        progress.show()
        return pending

    def _sweep(self) -> int:
        """Removes the markers that there are; how many."""
        mover, swept = Mover(self.shift, Throttle(0, 1)), 0
        for key, copies in self.cluster.ids(mover.places):
            if OBJECT_ID.fullmatch(key):
                swept += sum(mover.sweep(copy) for copy in copies.values() if copy.like_marker)
        return swept


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A plain line on what is going on."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Iterable[Iterable[str]]) -> None:
    """Prints rows with aligned columns."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def nodes(cluster: Cluster, args: argparse.Namespace) -> int:
    """The nodes, and whether the layout is settled."""
    records = Records(cluster)
    layout, found, silent = records.current()
    names = sorted({*layout.all_names, *cluster.nodes})
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        rows = list(pool.map(partial(node_row, records, layout, found, silent), names))
    spreads = [{"era": each.era, "since": each.since, "names": each.names} for each in layout.spreads]
    if args.json:
        document = {"settled": layout.settled, "names": layout.names, "removed": layout.removed, "nodes": rows}
        print(json.dumps({**document, "lost": layout.lost, "moved": layout.moved, "spreads": spreads}, indent=1))
        return FINE
    dash = "-"
    table([("NAME", "ADDRESS", "STATE", "OBJECTS", "BYTES", "SHARE", "LATENCY")] + [
        (
            row["name"], row["address"] or dash, row["state"],
            dash if row["objects"] is None else str(row["objects"]),
            dash if row["bytes"] is None else amount(row["bytes"]),
            f"{row['share']:.1%}", dash if row["latency"] is None else f"{row['latency'] * 1000:.1f} ms",
        )
        for row in rows
    ])  # fmt: skip
    if layout.settled:
        print("\nThe layout is settled: every object is with its owner.")
    else:
        print("\nThe layout isn't settled; objgwctl.py rebalance does it. Objects are spread over, newest first:")
        for spread in layout.spreads:
            since = f"since {datetime.fromtimestamp(spread.since).astimezone():%F %T}" if spread.since else "ever"
            print(f"  era {spread.era}, {since}: {', '.join(spread.names) or 'anywhere'}")
    for what, which in (("Taken out", layout.removed), ("Given up", layout.lost)):
        if which:
            print(f"{what}: {', '.join(which)}")
    return FINE


def node_row(
    records: Records, layout: Layout, found: Mapping[str, Found], silent: Mapping[str, str], name: str
) -> dict[str, Any]:
    """What `nodes` says of one."""
    cluster = records.cluster
    record = cluster.nodes.get(name)
    row: dict[str, Any] = {"name": name, "address": f"{record.host}:{record.port}" if record and record.host else None}
    row["state"] = state(layout, record, found.get(name))
    row |= {"objects": None, "bytes": None, "latency": None}
    row["share"] = 1 / len(layout.names) if name in layout.names else 0.0
    if name in silent or name not in found:
        return row
    try:
        began = time.monotonic()
        records.read_one(name)
        row["latency"] = round(time.monotonic() - began, 4)
        counted = Work()
        for copy in cluster.listing(name):
            if not copy.like_marker:
                counted.objects += 1
                counted.bytes += copy.size
        row |= {"objects": counted.objects, "bytes": counted.bytes}
    except NodeTrouble:
        row["state"] = "no answer"
    return row


def state(layout: Layout, record: NodeRecord | None, found: Found | None) -> str:
    """A node's state in a word or two."""
    if record is None:
        return "missing"
    if not record.host:
        return "not running"
    if found is None:
        return "no answer"
    name = record.name
    if found.problem:
        return "wrong record"
    if name not in layout.all_names:
        return "removed" if name in layout.removed else "joining"
    if not found.layout and name not in layout.fresh:
        return "empty"
    return "running" if name in layout.names else "draining"


def locate(cluster: Cluster, args: argparse.Namespace) -> int:
    """An id's owner, and its copies."""
    if not OBJECT_ID.fullmatch(args.id):
        raise Trouble("an id is 1 to 32 ASCII letters and digits")
    layout, _, _ = Records(cluster).current()
    owner = owner_name(layout.in_force(time.time())[0].names or layout.names, args.id)
    copies, unknown = [], []
    for name in sorted({*layout.all_names, *cluster.nodes}):
        try:
            copies.append(cluster.head(name, args.id))
        except NodeTrouble as error:
            unknown.append(str(error))
    there = [copy for copy in copies if copy]
    if args.json:
        rows = [
            {
                "node": copy.node, "size": copy.size, "era": copy.era, "deleted": copy.deleted,
                "modified": datetime.fromtimestamp(copy.modified, UTC).isoformat(),
            }
            for copy in there
        ]  # fmt: skip
        print(json.dumps({"id": args.id, "owner": owner, "copies": rows, "unreadable": unknown}, indent=1))
        return FINE
    print(f"owner: {owner}")
    for copy in there:
        when = datetime.fromtimestamp(copy.modified).astimezone()
        what = "marker of a deleted object" if copy.deleted else amount(copy.size)
        print(f"{copy.node}: {what}, {when:%F %T}" + (f", era {copy.era}" if copy.era else ""))
    if not there:
        print("no copy" + (" on the nodes that answer" if unknown else ""))
    for text in unknown:
        print(text)
    return FINE


def check(cluster: Cluster, args: argparse.Namespace) -> int:
    """Whether everything is where it belongs."""
    records = Records(cluster)
    layout, seen, silent = records.current()
    found, uploads, unreadable = Census(), 0, []
    for name in layout.all_names:
        try:
            records.whole(replace(layout, spreads=(Spread(1, 0.0, (name,)),)), seen, silent)
            uploads += len(cluster.uploads(name))
        except Trouble as error:
            unreadable.append(str(error))
    if not unreadable:
        found = census(cluster, layout)
    clean = not (found.misplaced or found.strays or found.markers or uploads or unreadable)
    document = {
        "clean": clean, "settled": layout.settled, "objects": found.objects, "misplaced": found.misplaced,
        "strays": found.strays, "uploads": uploads, "markers": found.markers, "foreign": found.foreign,
        "unreadable": unreadable,
    }  # fmt: skip
    if args.json:
        print(json.dumps(document, indent=1))
        return FINE if clean else FOUND
    for text in unreadable:
        print(f"can't be read: {text}")
    if not unreadable:
        print(f"{found.objects} objects, {found.misplaced} of them not with their owner")
        print(f"{found.strays} stray copies, {found.markers} markers of deleted objects")
    print(f"{uploads} multipart uploads that were never completed")
    if found.foreign:
        print(f"{found.foreign} keys that are no ids, and can't be reached through the gateway")
    if not layout.settled:
        print("the layout isn't settled")
    print("clean" if clean else "not clean")
    return FINE if clean else FOUND


def rebalance(cluster: Cluster, args: argparse.Namespace) -> int:
    """Moves what isn't with its owner."""
    records = Records(cluster)
    if args.dry_run:
        layout, found, silent = records.current()
        records.whole(layout, found, silent)
        counted = census(cluster, layout)
        if args.json:
            print(json.dumps({"objects": counted.work.objects, "bytes": counted.work.bytes, "settled": layout.settled}))
        else:
            print(f"to be moved: {counted.work}; of {counted.objects} objects")
        return FINE
    return move_all(records, args)


def move_all(records: Records, args: argparse.Namespace) -> int:
    """Moves everything, and starts over where the layout changes."""
    options = Options(args.jobs, args.limit, args.wait)
    moved, began = Work(), time.monotonic()
    while True:
        with Shift(records, say, waiting=options.waiting) as shift:
            run = Rebalance(shift, options, say, moved)
            try:
                fine = run.run()
                break
            except LayoutChanged:
                say("the layout has changed; starting over")
            except LockLost:
                say("the lock couldn't be renewed in time; starting over")
        time.sleep(POLL_SECONDS)
    for text in run.failures:
        say(f"not moved: {text}")
    seconds = time.monotonic() - began
    if args.json:
        document = {"moved": moved.objects, "bytes": moved.bytes, "failed": len(run.failures), "settled": fine}
        print(json.dumps({**document, "moving": round(moved.seconds, 1), "seconds": round(seconds, 1)}))
    elif fine:
        what = f"{moved} moved in {duration(seconds)}" if moved.objects else "nothing had to be moved"
        print(f"{what}; the layout is settled")
    else:
        print(f"{moved} moved, {len(run.failures)} objects not; start it again when that is mended")
    return FINE if fine else FOUND


def remove(cluster: Cluster, args: argparse.Namespace) -> int:
    """Takes a node out."""
    records = Records(cluster)
    layout, found, silent = records.current()
    name = args.name
    if name not in layout.all_names:
        if name in layout.removed or name in layout.lost:
            print(f"{name} is taken out already")
            return FINE
        raise Trouble(f"{name} isn't in the layout; its names are {', '.join(layout.names)}")
    there = found.get(name)
    if args.lost and there and not there.layout:
        confirm_loss(cluster, layout, there, args)
        records.change(lambda layout: layout.emptied(name))
        print(f"{name} is given up as it was; it is used again, empty")
        return FINE
    if layout.names == (name,):
        raise Trouble(f"{name} is the only node")
    if args.lost:
        confirm_loss(cluster, layout, there, args)
        records.change(lambda layout: given_up(layout, name))
        print(f"{name} is given up")
    else:
        records.whole(layout, found, silent)
        if name in layout.names:
            with Shift(records, say, waiting=args.wait) as shift:
                shift.change(lambda layout: layout.without(name, time.time()))
    if args.no_rebalance:
        print("now: objgwctl.py rebalance")
        return FINE
    code = move_all(records, args)
    if code == FINE and not args.lost and not args.json:
        print(f"{name} holds nothing any more; its container can be removed")
    return code


def given_up(layout: Layout, name: str) -> Layout:
    """A layout without a node and what it holds, also where the node was being drained."""
    if name in layout.names:
        return layout.without(name, time.time(), lost=True)
    return replace(layout, version=layout.version + 1, lost=tuple(sorted({*layout.lost, name})))


def confirm_loss(cluster: Cluster, layout: Layout, found: Found | None, args: argparse.Namespace) -> None:
    """Says what giving up a node costs, and has it confirmed. Raises Trouble where it isn't."""
    name = args.name
    if found and found.layout and not args.force and next(cluster.listing(name), None):
        raise Trouble(f"{name} answers and holds objects: drain it with remove {name}, without --lost (or add --force)")
    names = next(spread.names for spread in layout.spreads if not spread.names or name in spread.names)
    share = f"1 of {len(names)} nodes, so {1 / len(names):.1%} of all ids" if names else "an unknown share of all ids"
    print(f"{name} is {share}. What it holds of them is given up; how many objects that are can't be counted.")
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise Trouble("say --yes to give it up")
    if input(f"Give up {name} and what it holds? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Trouble("nothing was changed")


def add(cluster: Cluster, args: argparse.Namespace) -> int:
    """Lets a name join that was taken out or given up."""
    records, name = Records(cluster), args.name
    layout, _, _ = records.current()
    if name in layout.names:
        print(f"{name} is in the layout already")
    elif name in layout.removed or name in cluster.nodes:
        records.change(lambda layout: layout.readmitted(name))
        print(f"{name} joins as soon as a gateway sees it; then: objgwctl.py rebalance")
    else:
        raise Trouble(f"Docker lists no {name}, and it was never taken out")
    return FINE


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


def bandwidth(text: str) -> float:
    """Bytes a second.

    >>> bandwidth("20M")
    20971520.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?(?:/s)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes a second, for example 20M")
    return float(found[1]) * 1024.0 ** " KMG".index(found[2].upper() or " ")


def positive(text: str) -> int:
    """A number of jobs."""
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} isn't 1 to 256")
    return int(text)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "objgwctl.py", description="Shows where objgw's objects are, and moves them.", epilog=EXIT_CODES,
        formatter_class=formatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES, formatter_class=formatter)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="for scripts")
        return added

    command("nodes", nodes, "the nodes, what they hold, and whether every object is where it belongs")
    command("locate", locate, "the owner of an id, and where its copies are").add_argument("id", metavar="ID")
    command("check", check, "look for objects that aren't with their owner, stray copies and leftovers")
    moving = command("rebalance", rebalance, "move every object to its owner; clients go on meanwhile")
    moving.add_argument("--dry-run", action="store_true", help="only say what would be moved")
    taking = command("remove", remove, "take a node out: move what it holds to the others")
    taking.add_argument("name", metavar="NAME")
    taking.add_argument("--lost", action="store_true", help="the node is gone: give up what it held")
    taking.add_argument("--yes", action="store_true", help="with --lost: don't ask")
    taking.add_argument("--force", action="store_true", help="with --lost: also where the node is there")
    taking.add_argument("--no-rebalance", action="store_true", help="only record it")
    for each in (moving, taking):
        each.add_argument("--jobs", type=positive, default=JOBS, help=f"objects at a time (default {JOBS})")
        each.add_argument("--limit", type=bandwidth, default=0.0, metavar="RATE", help="bytes a second, as 20M")
        each.add_argument("--wait", action="store_true", help="where another rebalance is at work, wait for its end")
    command("add", add, "let a node join again that was taken out").add_argument("name", metavar="NAME")
    return parser.parse_args(argv)


def interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the command; its exit code."""
    args = parse()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return cast(int, args.run(Cluster(objgw.Settings.from_environ(os.environ)), args))
    except KeyboardInterrupt:
        say("interrupted; it can be started again at any time")
        return INTERRUPTED
    except BrokenPipeError:
        return FINE
    except Trouble as error:
        say(f"objgwctl: {error}")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
