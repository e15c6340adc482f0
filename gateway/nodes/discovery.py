"""What the source lists: read every few seconds, and at once where a node isn't where it was.

A request doesn't ask the source. Only where its node can't be reached, or isn't who it has to be,
it has the source read once more, to learn of another address or other keys.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from gateway.nodes.member import Member
from gateway.nodes.sources.docker import DockerReader
from gateway.nodes.view import Directory

log = logging.getLogger("objgw")

RECENT_SECONDS = 0.25  # for which a reading is good enough for a node that wasn't running


class Discovery:
    """The readings of the source, one at a time; `watch` is the thread that makes most of them."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.settings = settings = directory.settings
        self.healthy = True  # the last reading came, and in time
        self._source = DockerReader(
            settings.node_name, settings.node_port, settings.docker_timeout, settings.network
        )
        self._reading = threading.Lock()  # held while the source is read
        self._wanted = threading.Event()  # a reading is wanted soon, and nobody waits for it
        # Monotonic times: the begin of the last reading, and the end of the last good one.
        self._began = self._read = -math.inf

    @property
    def age(self) -> float:
        """Seconds since the last good reading ended; infinite before the first."""
        return time.monotonic() - self._read

    def renew(self) -> bool:
        """Whether a reading of the source that began after this call succeeded.

        Those who wait together share one reading.

        False at once while the source is known not to answer: the thread tries again.
        """
        asked = time.monotonic()
        with self._reading:
            if self.healthy and self._began < asked:
                self._read_source()
        return self.healthy

    def refresh(self) -> None:
        """Has the source read unless it just was; at the start, waits for the first view."""
        if self.age > RECENT_SECONDS:
            self.renew()
        self.wait_begun(self.settings.connect_timeout)

    def replaced(self, node: Member) -> bool:
        """Whether the source, read now, has another address or other keys for this node."""
        return self.renew() and node.closed

    def hurry(self) -> None:
        """Has the source read soon."""
        self._wanted.set()

    def wait_begun(self, seconds: float) -> None:
        """Where this worker has just begun, waits for its first view, at most so many seconds.

        It waits no longer where it is clear that there is none.
        """
        directory = self.directory
        if not directory.nodes:
            with directory.changed:
                directory.changed.wait_for(
                    lambda: (
                        directory.nodes
                        or (self._answered and not any(n.host for n in directory.by_name.values()))
                    ),
                    seconds,
                )

    @property
    def _answered(self) -> bool:
        """Whether a reading has ended, well or not."""
        return self._read > -math.inf or not self.healthy

    def watch(self) -> None:
        """The thread that reads the source again and again, more often while a node isn't ready."""
        while True:
            with self._reading:
                self._read_source()
            calm = (
                self.healthy
                and self.directory.by_name
                and all(n.ready for n in self.directory.by_name.values())
            )
            pause = self.settings.discovery_seconds
            self._wanted.wait(pause if calm else min(pause, 1.0))
            self._wanted.clear()

    def _read_source(self) -> None:
        """Reads the source. Whatever it does, the last good list stays."""
        self._began = time.monotonic()
        failure = None
        try:
            found = self._source.read()
        except Exception as error:
            failure = error
        with self.directory.changed:
            if failure is None:
                self.directory.separate = self._source.separate
                self.directory.find(found)
                self._read = time.monotonic()
            if failure and self.healthy:
                log.warning("Docker can't be read, the last list stays: %s", failure)
            elif not failure and not self.healthy:
                log.info("Docker answers again")
            self.healthy = failure is None
            self.directory.changed.notify_all()
