"""How a command can end: the exit codes, and what is raised."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.s3.headers import IF_MATCH

FINE, FOUND, CANNOT, BUSY, INTERRUPTED = 0, 1, 2, 3, 130


def ignoring(headers: Iterable[str]) -> str:
    """What is said of a node whose server takes no notice of these headers of a PUT.

    >>> ignoring(["if-match", "if-none-match", "x-amz-meta-*"])
    'has a server that ignores conditions, x-amz-meta-* on PUT'
    """
    named = {"conditions" if name in IF_MATCH else name for name in headers}
    return f"has a server that ignores {', '.join(sorted(named))} on PUT"


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


class ClosesConnections(NodeError):
    """A node closes each connection after one answer, so that nobody can prove who it is."""

    what = "closes each connection after one answer, so it can't be proved who it is"


class LayoutChanged(Exception):
    """The layout isn't the one any more that the work was begun with: start over."""


class LockLost(Exception):
    """The lock couldn't be renewed in time: start over."""


class Stopped(Exception):
    """The work is being given up, for a reason that the main thread knows."""
