"""Questions to a node for an operator's sake, which are in nobody's way.

They go over a connection on which the node's record was just read, as all requests do, and have
bounds of their own. What comes of them opens no breaker, and doesn't make the node `down`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.nodes.acquire import proved
from gateway.nodes.member import Member
from gateway.nodes.usage import ANSWER_MAX, NotTold
from gateway.s3.connection import Request
from gateway.s3.reply import Reply

ANSWER_SECONDS = 5.0  # that a node may be silent


@contextmanager
def asking(node: Member) -> Iterator[Callable[[Request], Reply]]:
    """What sends one request after the other to a node, and gives the whole answer.

    Raises NotTold where the node isn't who it was, or answers with too much, and OSError and
    UpstreamError where it gives no answer; so does what it gives.
    """
    with proved(node, ANSWER_SECONDS) as connection:
        if not (node.standing.leased and connection.usable):
            raise NotTold("it closes each connection, or isn't who it was")

        def ask(request: Request) -> Reply:
            reply = node.ask(connection, request)
            if reply.left > ANSWER_MAX:
                raise NotTold("its answer is too long")
            connection.finish(reply)
            return reply

        yield ask
