"""How full the nodes are, asked by the leader once a minute.

Each node has a thread of its own for the few milliseconds that its answer takes, so that one that
is slow holds up nobody: no request, no look at its record, and no other node. Only a node that is
in order is asked (`gateway.status.asking`).

A node that doesn't say how full it is (`gateway.nodes.usage` has why) is asked again after
`RETRY_SECONDS`, then twice as long, and so on to `LONGEST_SECONDS`. The log says it once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.nodes.member import Member
from gateway.nodes.standing import reason
from gateway.nodes.usage import NotTold, Usage, usage_of
from gateway.s3.connection import UpstreamError
from gateway.status.asking import ANSWER_SECONDS, asking

log = logging.getLogger("objgw.status")

ASK_SECONDS = 60.0  # between two questions to a node
RETRY_SECONDS = 15.0  # the same after one that failed, at first
LONGEST_SECONDS = 3600.0  # the same after many
# What is older isn't known any more: three questions have failed, or the node isn't up.
STALE_SECONDS = 3 * ASK_SECONDS + 2 * ANSWER_SECONDS


class Question:
    """When a node is asked, and how it went the last time."""

    def __init__(self) -> None:
        self.due = 0.0  # monotonic
        self.pause = RETRY_SECONDS  # after the next failure
        self.asking = False
        self.told = ""  # why it isn't known, as the log has it


class Fullness:
    """How full nodes are, for `gateway.status.health`, which keeps `known`."""

    def __init__(self, bucket: str) -> None:
        self.known: dict[str, dict[str, Any]] = {}  # by the nodes' names, as `document` makes it
        self._bucket = bucket
        self._questions: dict[Member, Question] = {}

    def start(self, nodes: Iterable[Member]) -> None:
        """Starts the questions that are due, each in a thread of its own. It waits for nothing."""
        nodes = list(nodes)
        self._questions = {node: self._questions.get(node, Question()) for node in nodes}
        for node, question in self._questions.items():
            if node.in_order and not question.asking and time.monotonic() >= question.due:
                question.asking = True
                threading.Thread(
                    target=self._ask, args=(node, question), name="objgw-usage", daemon=True
                ).start()
        names = {node.name for node in nodes}
        if names:  # a leader that has just begun knows none yet
            self.known = {name: self.known[name] for name in self.known if name in names}

    def _ask(self, node: Member, question: Question) -> None:
        why = ""
        try:
            with asking(node) as ask:
                self.known[node.name] = document(usage_of(ask, self._bucket))
        except NotTold as error:
            why = str(error)
            self.known.pop(node.name, None)
        except (OSError, UpstreamError) as error:  # what was known is so for a while
            why = reason(error)
        except Exception as error:  # the next question may be luckier
            why = repr(error)
            log.exception("node %s can't be asked how full it is", node.name)
        if why and why != question.told:
            log.info("node %s: how full it is isn't known: %s", node.name, why)
        question.told = why
        question.due = time.monotonic() + (question.pause if why else ASK_SECONDS)
        question.pause = min(2 * question.pause, LONGEST_SECONDS) if why else RETRY_SECONDS
        question.asking = False


def recent(known: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """What is known of the node of this name; None where that is nothing, or too old."""
    usage = known.get(name)
    return usage if usage and time.time() - usage["at"] < STALE_SECONDS else None


def document(usage: Usage) -> dict[str, Any]:
    """How full a node is, as JSON has it, and when it said so (Unix time)."""
    return {
        "total_bytes": usage.total,
        "free_bytes": usage.free,
        "objects": usage.objects,
        "bytes": usage.bytes,
        "counted_at": usage.counted,
        "at": time.time(),
    }
