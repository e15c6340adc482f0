"""The nodes by Docker, and what they hold.

The ids' listings are sorted on each node, so one merge of all listings gives every copy of one id
at a time, in memory that doesn't grow with the number of objects.

Docker says where the nodes are, not who they are: that is proved by their records
(`gateway.ctl.client`). So it is read at the beginning, and again where a node can't be reached or
isn't who it should be.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime

import docker
import docker.errors
import requests

from gateway.ctl.client import NodeClient, unexpected
from gateway.ctl.copies import StoredCopy
from gateway.ctl.errors import NodeError
from gateway.nodes.abilities import ignored_headers, keeps_conditions
from gateway.nodes.layout import DELETED, epoch_of
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.sources import source_of
from gateway.nodes.usage import ANSWER_MAX, NotTold, Usage, usage_of
from gateway.s3.body import upload_of
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.headers import IF_MATCH
from gateway.s3.listing import (
    UPLOADS_QUERY,
    Page,
    objects_query,
    parse_objects,
    parse_uploads,
    query,
)
from gateway.s3.reply import Reply
from gateway.settings import Settings

# Attempts at an object that changes, or whose node breaks off. Between them are pauses of 0.5, 1, 2
# … seconds.
MOVE_ATTEMPTS = 6
USAGE_SECONDS = 5.0  # that a node may take to say how full it is
PROBE = "encryption-probe"  # a key among the objects' that is no id, there for moments only


class Cluster:
    """The nodes by Docker, and what they hold. Any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket, self.records_bucket = settings.bucket, settings.records_bucket
        self.endpoints: dict[str, Endpoint] = {}  # by the nodes' names
        self._source = source_of(settings)
        self._lock = threading.Lock()
        self._outdated = False  # a node wasn't where Docker had said
        self._clients = threading.local()

    @property
    def separate(self) -> str:
        """How the nodes are on different networks, where they needn't belong together therefore."""
        return self._source.separate

    def refresh(self) -> None:
        """Reads the nodes from Docker. Raises NodeError; the last list stays then."""
        self._outdated = False
        with self._lock:
            try:
                self.endpoints = {endpoint.name: endpoint for endpoint in self._source.read()}
            except (
                docker.errors.DockerException,
                requests.RequestException,
                OSError,
                ValueError,
            ) as error:
                raise NodeError(f"{self._source.what} can't be read: {error}") from None

    def client(self, name: str) -> NodeClient:
        """This thread's client of a node. Raises NodeError where it can't be asked."""
        if self._outdated:
            with contextlib.suppress(NodeError):
                self.refresh()
        endpoint = self.endpoints.get(name)
        if endpoint is None or not endpoint.host:
            self._mark_outdated()
            if endpoint and endpoint.problem:
                raise NodeError(f"{name} can't be used: {endpoint.problem}")
            raise NodeError(f"{name} isn't {'running' if endpoint else 'there'}")
        clients: dict[str, NodeClient] = self._clients.__dict__
        client = clients.get(name)
        if client is None or client.endpoint != endpoint:
            if client:
                client.close()
            client = clients[name] = NodeClient(endpoint, self.settings, self._mark_outdated)
        return client

    def _mark_outdated(self) -> None:
        self._outdated = True

    # -- objects

    def path(self, key: str) -> str:
        """The path of an object."""
        return f"/{self.bucket}/{key}"

    def head(self, name: str, key: str, *, anyone: bool = False) -> StoredCopy | None:
        """A copy with its epoch, or None where the node has none.

        `anyone` says that the node needn't be of the layout. Raises NodeError.
        """
        client = self.client(name)
        reply = (client.ask_anyone if anyone else client.ask)(Request("HEAD", self.path(key)))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise unexpected(name, reply)
        headers = reply.headers
        try:
            return StoredCopy(
                name,
                key,
                int(headers["content-length"]),
                headers["etag"],
                parsedate_to_datetime(headers["last-modified"]).timestamp(),
                epoch_of(headers),
                DELETED in headers,
            )
        except (KeyError, ValueError):
            raise NodeError(f"{name} doesn't say an object's length, ETag and time") from None

    def ignores(self, name: str, *, anyone: bool = False) -> frozenset[str] | None:
        """The headers of a PUT that a node's server takes no notice of, if that is known.

        `anyone` says that the node needn't be of the layout. Raises NodeError.
        """
        client = self.client(name)
        ask = client.ask_anyone if anyone else client.ask
        if anyone:
            ask(Request("PUT", f"/{self.records_bucket}", upload=upload_of(b"")))
        kept = keeps_conditions(ask, self.records_bucket)
        others = ignored_headers(ask, self.records_bucket)
        if kept is None or others is None:
            return None
        return others if kept else others.union(IF_MATCH)

    def usage(self, name: str) -> Usage | None:
        """How full a node is, where it says so."""

        def ask(request: Request) -> Reply:
            return self.client(name).ask_briefly(request, USAGE_SECONDS, ANSWER_MAX)

        try:
            return usage_of(ask, self.bucket)
        except (NotTold, NodeError):
            return None

    def listing(self, name: str, prefix: str = "", *, anyone: bool = False) -> Iterator[StoredCopy]:
        """All objects of a node whose keys begin with a prefix, sorted by the bytes of their keys.

        `anyone` says that the node needn't be of the layout. Goes on where a node breaks off for
        some seconds. Raises NodeError.
        """
        last, failures = "", 0
        while True:
            try:
                for page in self._pages(name, last, prefix, anyone=anyone):
                    yield from page
                    last, failures = page[-1].key, 0
                return
            except NodeError:
                failures += 1
                if failures == MOVE_ATTEMPTS:
                    raise
                time.sleep(2.0 ** (failures - 2))

    def _pages(
        self, name: str, start_after: str, prefix: str, *, anyone: bool = False
    ) -> Iterator[list[StoredCopy]]:
        """The pages of a listing that have objects."""
        token = ""
        while True:
            asked = objects_query(start_after, token, prefix)
            page = self._list(name, asked, parse_objects, anyone=anyone)
            if page and page.entries:
                yield [StoredCopy(name, *entry) for entry in page.entries]
            if not (page and page.next):
                return
            token = page.next

    def page(self, name: str, asked: str) -> Page:
        """One page of a node's listing, by its query (`objects_query`). Raises NodeError."""
        return self._list(name, asked, parse_objects) or Page([], "")

    def _list[T](
        self, name: str, asked: str, parse: Callable[[bytes], T], *, anyone: bool = False
    ) -> T | None:
        """A listing of the bucket; None where there is no bucket. Raises NodeError."""
        client = self.client(name)
        ask = client.ask_anyone if anyone else client.ask
        reply = ask(Request("GET", f"/{self.bucket}{asked}"))
        if reply.code == "NoSuchBucket":
            return None
        if reply.status != 200:
            raise NodeError(f"{name} can't be listed: {reply.status} {reply.code}")
        try:
            return parse(reply.body)
        except ValueError as error:
            raise NodeError(f"{name} gives no listing of S3: {error}") from None

    def ids(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, StoredCopy]]]:
        """Each key in order, with its copies by node. Raises NodeError."""
        merged = heapq.merge(*map(self.listing, names), key=lambda copy: copy.key.encode())
        for key, copies in itertools.groupby(merged, key=lambda copy: copy.key):
            yield key, {copy.node: copy for copy in copies}

    def make_bucket(self, name: str) -> None:
        """Makes the objects' bucket, which may be there already. Raises NodeError."""
        self.client(name).ask(Request("PUT", f"/{self.bucket}", upload=upload_of(b"")))

    # -- multipart uploads

    def uploads(self, name: str) -> list[tuple[str, str]]:
        """Key and id of 1,000 multipart uploads that were never completed. Raises NodeError."""
        return self._list(name, UPLOADS_QUERY, parse_uploads) or []

    def abort_uploads(self, name: str) -> None:
        """Removes what a killed rebalance has left; nothing else makes uploads of ids here."""
        self.client(name).ask(Request("DELETE", self.path(PROBE)))
        for key, upload in self.uploads(name):
            if OBJECT_ID.fullmatch(key):
                self.abort_upload(name, key, upload)

    def abort_upload(self, name: str, key: str, upload: str) -> None:
        """Removes the parts of an upload; one that is gone is no error. Raises NodeError."""
        self.client(name).ask(Request("DELETE", self.path(key) + query(uploadId=upload)))
