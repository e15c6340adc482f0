"""What Docker lists, read every few seconds, and sooner where a request has to know more.

Is a connection still the node's? Requests that have to know wait here, any number of them for the same answer.
"""

from __future__ import annotations

import logging
import math
import time

from gateway.nodes.member import Member
from gateway.nodes.sources.docker import DockerReader
from gateway.nodes.view import Directory

log = logging.getLogger("objgw")

RECENT_SECONDS = 0.25  # for which a node that wasn't running is taken not to be
PROOF_SECONDS = 0.2  # that a new connection waits for an answer on another one before Docker is asked


class Discovery:
    """The reading of Docker, by a thread that `Records.start` starts."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.settings = settings = directory.settings
        self.healthy = True  # the last reading of Docker came, and in time
        self._reader = DockerReader(settings.node_name, settings.node_port, settings.docker_timeout)
        self._changed = directory.changed
        self._wanted = False
        self._begun = self._done = 0  # readings of Docker
        self._read = -math.inf  # monotonic time at which the last good one ended

    # -- for requests

    def renew(self) -> bool:
        """Has Docker read and waits for it: True once a reading that began after this call has succeeded.

        False as soon as one fails, and while Docker is known not to answer. Any number of callers share a reading.
        """
        ticket = self.ask()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= ticket or not self.healthy)
            return self.healthy

    @property
    def age(self) -> float:
        """Seconds since the last good reading of Docker ended; infinite before the first."""
        return time.monotonic() - self._read

    def refresh(self) -> None:
        """Has Docker read unless it just was, or can't be; at the start, waits for the first view."""
        if time.monotonic() - self._read > RECENT_SECONDS:
            self.renew()
        self.wait_begun(self.settings.connect_timeout)

    def wait_begun(self, seconds: float) -> None:
        """Where this worker has just begun, waits until it has a view, or knows that there is none; at most so long."""
        if not self.directory.nodes:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self.directory.nodes
                        or (self._done and not any(node.host for node in self.directory.by_name.values()))
                    ),
                    seconds,
                )

    def current(self, node: Member) -> bool:
        """Whether Docker, read now, still has this node at its address with its keys (or can't be read)."""
        return not self.renew() or not node.closed

    def confirm(self, node: Member) -> bool:
        """Whether a connection to the node that is open already leads to it, and not to another with its old address.

        Docker, read from now on, says so. An answer to a request that another connection sends from now on says the
        same; under load it comes sooner.
        """
        opened = time.monotonic()
        if node.busy and node.wait_for(lambda: node.proved > opened or node.closed, PROOF_SECONDS):
            return not node.closed
        ticket = self.ask()
        node.wait_for(lambda: node.proved > opened or node.closed or self._done >= ticket or not self.healthy)
        return not node.closed

    # -- Docker

    def ask(self) -> int:
        """Wakes the thread, and gives the number of the first reading that begins from now on."""
        with self._changed:
            self._wanted = self._wanted or self.healthy
            self._changed.notify_all()
            return self._begun + 1

    def watch(self) -> None:
        """The thread that reads Docker."""
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
                    self.directory.find(records)
                    self._read = time.monotonic()
                if failure and self.healthy:
                    log.warning("Docker can't be read, the last list stays: %s", failure)
                elif not failure and not self.healthy:
                    log.info("Docker answers again")
                self.healthy = failure is None
                self._done = self._begun
                self._changed.notify_all()
            for node in list(self.directory.by_name.values()):
                node.wake()
            time.sleep(0.02)  # callers that come in a burst share the next reading
            with self._changed:
                calm = (
                    self.healthy
                    and self.directory.by_name
                    and all(node.ready for node in self.directory.by_name.values())
                )
                pause = self.settings.discovery_seconds
                self._changed.wait_for(lambda: self._wanted, pause if calm else min(pause, 1.0))
