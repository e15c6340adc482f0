"""The end of a connection: what was sent arrives, or the client sees that the connection broke.

The problem. The kernel takes bytes long before the client has them: some MiB wait in its send
queue, and more in a proxy on the way. When a container ends, its network namespace goes, and what
waits there goes with it, without a word to the client. Only the client's own close proves that it
has everything.

    a large answer is sent     `wait_taken`: until the client's kernel has it, or its next request
    the connection closes      `linger`: our FIN, and then the client's
    the answer was broken off  `reset`: nothing that is left passes for a whole answer

Whoever waits here is bounded. A client that has bytes to take must keep the pace that it must keep
within a body; after the last one it has some seconds. What a waiting connection holds is a greenlet
and its socket. When the time to stop is over, the worker ends all that are left (GreenletExit).
"""

from __future__ import annotations

import contextlib
import fcntl
import struct
import sys
import termios
import time
from socket import IPPROTO_TCP, SHUT_WR, SO_LINGER, SOL_SOCKET, TCP_INFO
from typing import Any

import gevent
from gevent.socket import wait_read

from gateway.server.body import PACE

LINGER_SECONDS = 2.0  # that a client has to close after the last byte of a small answer
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.25  # seconds between two looks at the send queue
NO_TCP, TCP_ESTABLISHED, TCP_CLOSE = 0, 1, 7  # the latter as in include/net/tcp_states.h


class Closes(Exception):
    """The connection ends after an answer that was sent as a whole."""


class Broken(Exception):
    """The connection ends within an answer."""


def unsent(sock: Any) -> int:
    """Bytes that were written and that the client's kernel hasn't acknowledged (tcp(7), SIOCOUTQ).

    A FIN that isn't acknowledged counts as one.
    """
    return queued(sock, termios.TIOCOUTQ)


def unread(sock: Any) -> int:
    """Bytes that have come and that nobody has read (tcp(7), SIOCINQ)."""
    return queued(sock, termios.FIONREAD)


def queued(sock: Any, request: int) -> int:
    """What this request of ioctl(2) says of a socket's queue, in bytes; none where it is closed."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), request, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def tcp_state(sock: Any) -> int:
    """The connection's state (tcp(7), TCP_INFO); `NO_TCP` on a Unix socket."""
    try:
        return int(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0])
    except OSError:
        return NO_TCP


class Queue:
    """The bytes that a client still has to take, and whether it keeps its pace.

    It must take 64 KiB, or what is left, within each `patience` seconds.
    """

    def __init__(self, sock: Any, patience: float) -> None:
        self._sock, self._patience = sock, patience
        self.left = unsent(sock)
        self._pace()

    def _pace(self) -> None:
        self._due, self._deadline = self.left - PACE, time.monotonic() + self._patience

    def moves(self) -> bool:
        """Whether something is left and will be taken, as far as one can tell now."""
        self.left = unsent(self._sock)
        if self.left <= self._due:
            self._pace()
        in_time = self.left > 0 and time.monotonic() <= self._deadline
        return in_time and tcp_state(self._sock) != TCP_CLOSE


def wait_taken(sock: Any, patience: float) -> int:
    """Waits until the client's kernel has all that was written, and gives the bytes that it hasn't.

    Those are none where its next request comes meanwhile. It gives up where the client has gone, or
    takes fewer than 64 KiB in `patience` seconds.
    """
    queue, pause = Queue(sock, patience), FIRST_PAUSE
    try:
        while queue.moves():
            if readable(sock, pause):
                if tcp_state(sock) in (TCP_ESTABLISHED, NO_TCP):
                    return 0
                gevent.sleep(pause)  # it has closed its sending side, or all of the connection
            pause = min(2 * pause, LONGEST_PAUSE)
    except gevent.GreenletExit:
        queue.moves()
    return queue.left


def readable(sock: Any, seconds: float) -> bool:
    """Whether there is something to be read within so many seconds."""
    try:
        wait_read(sock.fileno(), seconds)
    except TimeoutError:
        return False
    return True


def linger(sock: Any, patience: float, seconds: float = LINGER_SECONDS) -> None:
    """Closes the sending side, and waits for the client's close.

    What still comes is thrown away: to close with bytes unread would reset the connection, and what
    was sent would be lost (RFC 9112, 9.6). It waits while the client keeps its pace, and so many
    seconds after it has taken everything.
    """
    ended, pause = False, FIRST_PAUSE
    with contextlib.suppress(OSError):  # it has gone by itself
        sock.shutdown(SHUT_WR)
        queue = Queue(sock, patience)
        until = time.monotonic() + seconds
        while (moves := queue.moves()) or (not ended and not queue.left):
            now = time.monotonic()
            if moves:
                until = now + seconds
            elif now >= until:
                return
            if ended:  # it has closed its sending side, and may still read
                gevent.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            elif readable(sock, min(1.0, until - now)):
                sock.settimeout(seconds)
                ended = not sock.recv(65536)


def reset(sock: Any) -> None:
    """Makes the close of this socket a reset: the client sees at once that the connection broke."""
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
