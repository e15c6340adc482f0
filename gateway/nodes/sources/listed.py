"""A list of nodes as their source: a setting, or a file that is read again when it has changed.

Where the list is set nobody asks Docker. Everything else is the same: the list says where to look,
and the nodes' records say who is there.
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from gateway.node_list import ListedNode, parse_nodes
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

RESOLVE_SECONDS = 2.0  # between two look-ups of a host's name
FIRST_SECONDS = 1.0  # that a reading waits for names that were never resolved


class NodeList:
    """Reads the nodes from the list."""

    what = "the list of nodes"
    events = None
    events_suffice = False
    separate = ""  # who lists them says that they belong together

    def __init__(self, settings: Settings) -> None:
        self._text, self._file = settings.nodes, settings.nodes_file
        self._nodes = parse_nodes(self._text)
        self._resolver = Resolver()

    def read(self) -> list[Endpoint]:
        """The nodes, sorted by name.

        One whose host has no address has none here. Raises OSError or ValueError where the file
        can't be read or has a wrong line; neither has a secret in its text.
        """
        if self._file and (text := Path(self._file).read_text()) != self._text:
            self._nodes = parse_nodes(text)
            self._text = text
        addresses = self._resolver.addresses({node.host for node in self._nodes})
        endpoints = [endpoint(node, addresses[node.host]) for node in self._nodes]
        return sorted(endpoints, key=lambda each: each.name)

    def trouble(self, error: Exception) -> str:
        """What is wrong with the list."""
        return str(error)


def endpoint(node: ListedNode, address: str | None) -> Endpoint:
    """Where a node of the list is reached, at this address."""
    keys = node.access_key, node.secret_key, node.region
    problem = "" if address else f"no address is known for the name {node.host}"
    return Endpoint(
        node.name, "", address, node.port, *keys, problem=problem, tls=node.tls, hostname=node.host
    )


class Resolver:
    """Names of hosts and their addresses, resolved again and again in threads of their own.

    A name server may take seconds for an answer, or give none. So nobody waits for it but the first
    reading of a name, and that not longer than `FIRST_SECONDS`.
    """

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}
        self._asked: dict[str, float] = {}  # monotonic time of the begin of the last look-up
        self._running: dict[str, threading.Thread] = {}

    def addresses(self, hosts: set[str]) -> dict[str, str | None]:
        """The address of each host as far as it is known; what is old is looked up meanwhile."""
        now = time.monotonic()
        for host in hosts:
            if host not in self._running and now - self._asked.get(host, 0.0) > RESOLVE_SECONDS:
                self._asked[host] = now
                thread = self._running[host] = threading.Thread(
                    target=self._resolve, args=(host,), name="objgw-resolve", daemon=True
                )
                thread.start()
        deadline = now + FIRST_SECONDS
        for host in hosts:
            if host not in self._known and (running := self._running.get(host)):
                running.join(max(0.0, deadline - time.monotonic()))
        return {host: self._known.get(host) for host in hosts}

    def _resolve(self, host: str) -> None:
        """The thread of one look-up. The address stays as long as the name still has it."""
        try:
            found = [each[4][0] for each in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)]
            addresses = [address for address in found if isinstance(address, str)]
            if self._known.get(host) not in addresses:
                self._known[host] = addresses[0]
        except (OSError, UnicodeError) as error:
            # No answer says nothing of the address; that there is no such name does.
            gone = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            self._known[host] = None if gone else self._known.get(host)
        finally:
            self._running.pop(host, None)
