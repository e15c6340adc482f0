"""How a command can end: the exit codes, and what is raised."""

from __future__ import annotations

IGNORES_CONDITIONS = "has a server that ignores conditions on PUT"

FINE, FOUND, CANNOT, BUSY, INTERRUPTED = 0, 1, 2, 3, 130


class CommandError(Exception):
    """It can't be done; the text is for the operator, without a stack trace."""

    code = CANNOT


class Unfinished(CommandError):
    """A part of it is done, and it can be started again."""

    code = FOUND


class Busy(CommandError):
    """Another rebalance is at work."""

    code = BUSY


class NodeError(CommandError):
    """A node or Docker can't be reached or breaks off; it may be worth another try."""


class LayoutChanged(Exception):
    """The layout isn't the one any more that the work was begun with: start over."""


class LockLost(Exception):
    """The lock couldn't be renewed in time: start over."""


class Stopped(Exception):
    """The work is being given up, for a reason that the main thread knows."""
