"""An object's bytes on their way to the client, in constant memory.

They pass through the process in blocks, or they don't pass through it at all: where the server has
a way to send bytes out of a pipe, the kernel moves them from the node's socket to the client's
(splice(2)). What a download holds is one block, or one pipe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator

from gateway.s3.connection import Connection, UpstreamError
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.status.observation import current

log = logging.getLogger("objgw")

# Bytes of a download that are read at once. A client that never reads holds so many.
DOWNLOAD_BLOCK = 64 * 1024
PIPE = 512 * 1024  # bytes, the same of a client that takes one block within
BRISK_SECONDS = 0.05
# Empty pipes that wait for a next download: to make one and to close it takes eight system calls.
PIPES_KEPT = 8
_kept: list[tuple[int, ...]] = []


def download(
    node: Node,
    connection: Connection,
    reply: Reply,
    relay: Callable[[int, int], None] | None = None,
) -> Iterator[bytes]:
    """The bytes of an object on their way to the client.

    `relay` is the server's way to send bytes out of a pipe (`gateway.server.worker`). Where there
    is one, most bytes of a large object go from socket to socket and are no blocks here. The last
    ones always are, so that whoever takes the blocks knows of the end before the client does.

    Raises ConnectionResetError where the node breaks off. The server breaks the client's connection
    then, so that what the client has can't pass for the whole object.
    """
    left, step, observation = reply.left, DOWNLOAD_BLOCK, current.get()
    node.downloads.add(connection)
    whole = relay and not node.endpoint.tls  # what comes encrypted has to pass through here
    pipe: tuple[int, ...] = ()
    if whole and left > 2 * DOWNLOAD_BLOCK:
        pipe = _kept.pop() if _kept else wide_pipe()
    try:
        if reply.body:
            yield reply.body
        reply.body = b""
        while left:
            if relay and pipe and left > DOWNLOAD_BLOCK:
                moved = connection.receive_into(pipe[1], min(left - DOWNLOAD_BLOCK, step))
                began = time.monotonic()
                relay(pipe[0], moved)
                step = PIPE if time.monotonic() - began < BRISK_SECONDS else DOWNLOAD_BLOCK
                observation.bytes += moved
                left -= moved
                continue
            block = connection.receive(min(left, DOWNLOAD_BLOCK))
            left -= len(block)
            if not left:
                node.release(connection)
            yield block
    except UpstreamError as error:
        observation.reason = "The node broke off."
        log.warning("node %s: %d bytes before the end of an object: %s", node.name, left, error)
        raise ConnectionResetError(errno.ECONNRESET, "the node broke off") from None
    finally:
        node.downloads.discard(connection)
        if left:
            connection.close()
        if pipe and not left and len(_kept) < PIPES_KEPT:
            _kept.append(pipe)
        else:  # it may have bytes in it
            for end in pipe:
                os.close(end)


def wide_pipe() -> tuple[int, ...]:
    """A pipe with room for `PIPE` bytes, or for as much as the kernel still gives this user.

    It is empty where there can be no pipe (pipe(7)).
    """
    try:
        pipe = os.pipe()
    except OSError:
        return ()
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
    return pipe
