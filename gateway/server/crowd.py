"""The connections of each client's address to one worker, of which there may be so many."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger("objgw")


class Crowd:
    """The connections of each address, and which addresses have more than they may.

    The log says it once of an address, and again only after it had half as many. Of several
    workers, one says it (`gateway.status.logs.SaidOnce`).
    """

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()
        self._refused: set[str] = set()  # addresses of which the log has said it

    def came(self, address: str, most: int) -> bool:
        """Counts a connection of this address; whether it is one of at most so many."""
        self._connections[address] += 1
        if self._connections[address] <= most:
            return True
        if address not in self._refused:
            self._refused.add(address)
            log.warning(
                "%s has more connections to one worker than OBJGW_CLIENT_CONNECTIONS=%d allows; "
                "others of it are refused with 503",
                address or "a Unix socket",
                most,
            )
        return False

    def went(self, address: str, most: int) -> None:
        """Notes the end of a connection that was counted."""
        self._connections[address] -= 1
        if self._connections[address] <= most // 2:
            self._refused.discard(address)
        if not self._connections[address]:
            del self._connections[address]
