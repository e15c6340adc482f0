"""The nodes by Docker, and what they hold.

The ids' listings are sorted on each node, so one merge of all listings gives every copy of one id at a time, in memory
that doesn't grow with the number of objects. A page of a listing counts only when Docker, asked after it came, says
that the node still has this address.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, cast

import docker
import docker.errors
import minio
import requests
import urllib3
from minio.error import MinioException, S3Error

from gateway.ctl.errors import NodeTrouble
from gateway.ctl.wire import Wire, unexpected
from gateway.nodes.conditions import keeps_conditions
from gateway.nodes.layout import DELETED, ERA, MARKER_ETAG, SWEPT_ETAG
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.sources.docker import DockerReader
from gateway.s3.connection import Reply, Request
from gateway.s3.endpoint import NodeRecord
from gateway.settings import Settings

PAGE = 1000  # objects of one answer to a listing
ATTEMPTS = 6  # at an object that changes, or whose node breaks off; with pauses of 0.5, 1, 2, 4 … seconds


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


class Cluster:
    """The nodes by Docker, and what they hold."""

    def __init__(self, settings: Settings) -> None:
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

    def keeps_conditions(self, name: str) -> bool | None:
        """Whether a node decides the conditions of a PUT; None where it doesn't say. Raises NodeTrouble."""
        wire = self.wire(name)

        def ask(request: Request) -> Reply:
            body = b"" if request.upload else None  # each body of these requests is empty
            return cast(Reply, wire.ask(request.method, request.path, request.headers, body))

        return keeps_conditions(ask, self.records_bucket)

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
        except (ValueError, SyntaxError) as error:  # of what should be XML
            raise NodeTrouble(f"{name} gives no listing of S3: {error}") from None

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
