"""Whether a node is asked at all: after a failure nobody asks it for a while, then one request tries."""

from __future__ import annotations

import logging
import time

from gateway.answers import unavailable
from gateway.settings import Settings

log = logging.getLogger("objgw")


class Breaker:
    """The breaker of one node, in one worker."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.broken_until = 0.0  # monotonic time before which nobody asks the node; 0 when it isn't broken
        self._name = name
        self._settings = settings

    def admit(self) -> bool:
        """Whether this request is the one that tries a node which was broken.

        When the pause after a failure is over one request tries, and the others are refused until it knows. Raises
        Refusal for them.
        """
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
            log.warning("node %s is refused for a while: %s", self._name, error)
        self.broken_until = time.monotonic() + self._settings.breaker_seconds

    def mended(self) -> None:
        """Lets all requests to the node again, if it was broken."""
        if self.broken_until:
            log.info("node %s answers again", self._name)
            self.broken_until = 0.0
