"""The trace that a client's request belongs to, as its headers say (W3C Trace Context).

https://www.w3.org/TR/trace-context/#traceparent-header

`traceparent` is taken to the letter or not at all: then the request is treated as if neither header
had come, since a `tracestate` means nothing without it. What is taken is in the line of the access
log, and the node gets it with the request. That alone takes no package (`Passed`); where spans are
exported, `gateway.status.spans` puts them in between.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.answers import Environ
from gateway.s3.connection import Connection, Request
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.status.observation import Observation

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
NO_TRACE, NO_PARENT = "0" * 32, "0" * 16
SAMPLED = 1  # the flag of which every version knows
TRACESTATE = re.compile(r"[\t -~]{1,4096}")  # at least 512 have to be passed on (3.3.1.5)


class TraceContext(NamedTuple):
    """Where in which trace a request was sent."""

    trace_id: str
    parent_id: str  # of the span that sent it
    flags: int
    state: str  # `tracestate` as it came; empty where there is none that can be passed on


def context_of(environ: Environ) -> TraceContext | None:
    """What a request's headers say; None where they say nothing that can be taken.

    Of a later version than 00, only what this one has is taken, and passed on as 00 (3.2.4).
    """
    found = TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    if not found:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == NO_TRACE:
        return None
    if parent_id == NO_PARENT:
        return None
    taken = int(flags, 16) if version == "00" else int(flags, 16) & SAMPLED
    state = environ.get("HTTP_TRACESTATE", "")
    return TraceContext(trace_id, parent_id, taken, state if TRACESTATE.fullmatch(state) else "")


def header_lines(context: TraceContext) -> str:
    """The header lines by which a request to a node belongs to the trace.

    >>> header_lines(TraceContext("4b" * 16, "00f067aa0ba902b7", 1, "a=1")).splitlines()[1]
    'tracestate: a=1'
    """
    trace_id, parent_id, flags, state = context
    told = f"tracestate: {state}\r\n" if state else ""
    return f"traceparent: 00-{trace_id}-{parent_id}-{flags:02x}\r\n{told}"


class Passed:
    """A client's trace in which the gateway has no spans: the node gets what the gateway got."""

    __slots__ = ("_lines", "id")

    def __init__(self, context: TraceContext) -> None:
        self.id = context.trace_id
        self._lines = header_lines(context)

    def exchange(
        self,
        node: Node,
        connection: Connection,
        request: Request,
        attempt: int,  # noqa: ARG002 - a span has it
    ) -> Reply:
        """As `Node.exchange`, with the client's headers."""
        return node.exchange(connection, request._replace(trace=self._lines))

    def end(self, observation: Observation, complete: bool) -> None:
        """Nothing was begun."""
