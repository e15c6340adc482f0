"""The one worker of a gateway that looks at the nodes for all of its workers.

The workers of a gateway share a folder in memory. The one that holds the lock `leader` there is the
*leader*. When it ends, the kernel gives the lock to another worker. The leader looks at all nodes
again and again. Each second it leaves its *word* in the folder: which layout it goes by, and when
a node last answered it. A worker that goes by the same layout needn't look itself, as long as the
word isn't old: it knows what it would find.

    the word is of this layout, and not old      the worker may rest (`gateway.nodes.poller`)
    the word is of another layout                the worker looks at all nodes, and so learns of it
    the word is old, or there is none            the worker looks at all nodes, as the leader does

Where there is no folder (under another WSGI server, in a test), each process leads itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from gateway.nodes.layout import LEASE_SECONDS, Layout


class Leader:
    """The leader, as one worker sees it; `leads` says whether it is this worker.

    >>> Leader(None).leads
    True
    """

    def __init__(self, folder: Path | None) -> None:
        self.leads = folder is None
        self._folder = folder
        self._lock: int | None = None  # the descriptor of `leader`, once it is open

    def elect(self) -> bool:
        """Whether this worker has just become the leader."""
        if self.leads or not self._folder:
            return False
        if self._lock is None:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            self._lock = os.open(self._folder / "leader", flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.leads = True
        return True

    def tell(self, layout: Layout | None, answered: float) -> None:
        """Leaves the leader's word.

        `answered` is the monotonic time of the last look that a node has answered, the same clock
        for all processes of a machine.
        """
        if self._folder and layout:
            new = self._folder / "word.new"
            new.write_text(f"{answered} {layout.origin} {layout.version}")
            new.replace(self._folder / "word")

    def agrees(self, layout: Layout | None) -> bool:
        """Whether the leader goes by this layout, and has said so a moment ago."""
        if not (self._folder and layout):
            return False
        try:
            answered, origin, version = (self._folder / "word").read_text().split()
            recent = time.monotonic() < float(answered) + LEASE_SECONDS
        except (OSError, ValueError):  # no leader has said anything yet
            return False
        return recent and (origin, version) == (layout.origin, str(layout.version))
