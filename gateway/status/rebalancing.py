"""Whether somebody moves objects while the layout isn't settled, by the lock of those who do.

The leader looks at the lock every few seconds, and only while there is something to be moved.
"""

from __future__ import annotations

import logging
import threading
import time

from gateway.nodes.store import UnexpectedAnswer, read_object
from gateway.nodes.usage import NotTold
from gateway.nodes.view import Directory
from gateway.nodes.work import LOCK, lock_of
from gateway.s3.connection import UpstreamError
from gateway.status.asking import asking

log = logging.getLogger("objgw.status")

LOOK_SECONDS = 5.0  # between two looks at the lock


class Rebalancing:
    """Whether objects are being moved: `known`, which is None where nobody knows."""

    def __init__(self, directory: Directory) -> None:
        self.known: bool | None = None
        self._directory = directory
        self._due = 0.0  # monotonic time of the next look
        self._looking = False

    def start(self) -> None:
        """Starts a look at the lock, if one is due. It waits for nothing."""
        if self._directory.settled:
            self.known, self._due = False, 0.0
        elif not self._looking and time.monotonic() >= self._due:
            self._looking, self._due = True, time.monotonic() + LOOK_SECONDS
            threading.Thread(target=self._look, name="objgw-lock", daemon=True).start()

    def _look(self) -> None:
        try:
            self.known = self._locked()
        except (NotTold, UnexpectedAnswer, OSError, UpstreamError):
            self.known = None
        except Exception:  # the next look may be luckier
            self.known = None
            log.exception("it can't be seen whether objects are being moved")
        self._looking = False

    def _locked(self) -> bool | None:
        """Whether somebody has the lock. Raises what `asking` and `read_object` raise."""
        layout = self._directory.layout
        node = self._directory.named(layout.all_names[0]) if layout else None
        if node is None or not node.in_order:
            return None
        with asking(node) as ask:
            lock = lock_of(read_object(ask, f"/{node.records_bucket}/{LOCK}"))
        return lock.until > time.time()
