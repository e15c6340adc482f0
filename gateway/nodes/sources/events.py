"""Docker's events, which say at once that a container or its networks have changed.

    GET /events?filters=...     one request, whose answer goes on: one JSON object for each event
    https://docs.docker.com/reference/api/engine/version/v1.41/#tag/System/operation/SystemEvents

An event only wakes whoever reads the list of nodes; what has changed, the list says. So an event
that is lost or not understood does no harm beyond its delay. The engine sends only kinds of events
that can concern a node, and of those only the ones count that are about a container with a node's
name or label, or about this process's own.

A stream can hang without an end: what stands before the engine may drop it silently. So one on
which nothing has come for `QUIET_SECONDS` is given up, and the next one is opened. What happened in
between is found by the reading that follows each opening.

What it costs: one connection to the engine, and one request each `QUIET_SECONDS`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Set
from typing import Any

import docker
import requests
import urllib3

from gateway.nodes.sources.labels import NODE

# `die` comes with each end of a container, whether it was stopped, killed or ended by itself.
FILTERS = {
    "type": ["container", "network"],
    "event": [
        *("create", "start", "die", "pause", "unpause", "rename", "destroy"),
        *("connect", "disconnect"),
    ],
}
QUIET_SECONDS = 60.0  # without an event, after which a stream may hang


class EventsRefused(Exception):
    """Docker, or a proxy before it, gives no events; the text says why."""


class Broken(Exception):
    """The stream has ended."""


class Events:
    """The events of the engine that concern nodes."""

    def __init__(self, node_name: str, timeout: int) -> None:
        """`node_name` is part of each node's name; `timeout` is the seconds to connect."""
        self.node_name, self.timeout = node_name, timeout
        # The ids of containers whose networks count: those that may be nodes, and our own.
        self.containers: Set[str] = frozenset()
        self._client: docker.DockerClient | None = None

    def changes(self) -> Generator[bool]:
        """Yields whenever a stream is open, and then at each event that concerns nodes.

        False says that the stream is only a next one, because nothing came on the last one. Ends
        where a stream breaks. Raises EventsRefused where there is none to be had, and
        docker.errors.DockerException, or what requests raises, where the engine can't be reached.
        """
        try:
            if self._client is None:
                self._client = docker.from_env(timeout=self.timeout)
            first = True
            while True:
                with self._open(self._client) as response:
                    yield first
                    first = False
                    for line in lines_until_quiet(response):
                        if self.concerns(line):
                            yield True
        except Broken:
            return
        except Exception:
            self._close()
            raise

    def concerns(self, line: bytes) -> bool:
        """Whether an event may be about a node, or about a network that it shares with us."""
        try:
            event: dict[str, Any] = json.loads(line)
            about: dict[str, str] = event["Actor"]["Attributes"]
            if event["Type"] == "network":
                return about.get("container") in self.containers
            names = (about.get("name", ""), about.get("oldName", ""))
            return (
                event["Actor"]["ID"] in self.containers
                or NODE in about  # which has a container's labels, too
                or any(self.node_name in name for name in names)
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return True  # it is none that we know, and a reading costs little

    def _open(self, client: docker.DockerClient) -> requests.Response:
        """The answer whose body is the stream.

        The SDK's own `events` sets no time-out, so that it would wait for ever where it hangs.
        """
        api: Any = client.api  # a requests.Session
        try:
            response: requests.Response = api.get(
                f"{api.base_url}/v{api.api_version}/events",
                params={"filters": json.dumps(FILTERS)},
                stream=True,
                timeout=(self.timeout, QUIET_SECONDS),
            )
        except requests.exceptions.ReadTimeout:
            raise EventsRefused(f"no answer within {QUIET_SECONDS:.0f} s") from None
        if response.status_code != requests.codes.ok:
            response.close()
            raise EventsRefused(f"{response.status_code} {response.reason}")
        return response

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def lines_until_quiet(response: requests.Response) -> Iterator[bytes]:
    """The lines of an answer; they end when no other one comes in time.

    Raises Broken where the stream ends.
    """
    try:
        yield from filter(None, response.iter_lines(chunk_size=None))
    except requests.exceptions.RequestException as error:
        if any(isinstance(each, urllib3.exceptions.ReadTimeoutError) for each in error.args):
            return
        raise Broken from error
    raise Broken
