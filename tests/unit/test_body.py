"""A request's body: one that comes faster than it is read leaves other connections their turn."""

from __future__ import annotations

from types import SimpleNamespace

import gevent
import gevent.socket
from gunicorn.http.body import LengthReader

from gateway.server.body import RequestBody

SIZE = 1 << 16


def test_a_body_that_always_comes_lets_others_have_their_turn() -> None:
    server, client = gevent.socket.socketpair()
    with server, client:
        client.sendall(bytes(SIZE))
        unreader = SimpleNamespace(sock=server, take_buffered=lambda: b"")
        parsed = SimpleNamespace(reader=LengthReader(unreader, SIZE), failed=False)
        request = SimpleNamespace(body=parsed, unreader=unreader, _expected_100_continue=False)
        body, turns = RequestBody(request, server, 10.0), list[int]()
        other = gevent.spawn(turns.append, 1)
        read = 0
        while read < SIZE and not turns:  # all of it is there, so that no read waits
            read += len(body.read1(1))
        assert turns
        other.join()
