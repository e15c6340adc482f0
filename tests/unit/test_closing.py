"""How connections end, on real ones: nobody who takes what was sent loses it, and nobody who
doesn't is waited for longer than is said.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from gateway.server.closing import linger, reset, unsent, wait_taken

PATIENCE = 0.4  # seconds that a client has for each 64 KiB

Pair = tuple[socket.socket, socket.socket]  # the server's end and the client's


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield server, client


def fill(server: socket.socket) -> int:
    """Writes until the kernel takes no more; the number of bytes."""
    server.setblocking(False)
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += server.send(bytes(65536))
    server.setblocking(True)
    return written


def received(client: socket.socket, pause: float = 0.0) -> int:
    """Reads until the server's FIN, 64 KiB at a time; the number of bytes."""
    got = 0
    while data := client.recv(65536):
        got += len(data)
        time.sleep(pause)
    return got


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_what_a_client_has_taken_is_known_once_it_has_and_not_before(pair: Pair) -> None:
    server, client = pair
    written, got = fill(server), list[int]()
    assert unsent(server) > 0
    reader = threading.Thread(target=lambda: got.append(received(client, 0.001)))
    reader.start()
    assert wait_taken(server, 60) == 0
    server.shutdown(socket.SHUT_WR)
    reader.join()
    assert got == [written]


def test_the_next_request_says_that_the_client_has_the_answer(pair: Pair) -> None:
    server, client = pair
    fill(server)
    client.sendall(b"GET")
    assert wait_taken(server, 60) == 0
    assert server.recv(3) == b"GET"


def test_a_client_that_takes_nothing_is_given_up_when_its_time_is_over(pair: Pair) -> None:
    server, _ = pair
    fill(server)
    assert PATIENCE <= seconds(lambda: wait_taken(server, PATIENCE)) < PATIENCE + 10
    assert wait_taken(server, 0.01) == unsent(server) > 0


def test_a_client_that_leaves_is_known_to_lack_the_rest(pair: Pair) -> None:
    server, client = pair
    written = fill(server)
    got = len(client.recv(1000))
    client.close()
    assert seconds(lambda: wait_taken(server, 60)) < 5
    assert 0 < wait_taken(server, 60) <= written - got


def test_a_closed_connection_waits_for_a_client_that_reads_on(pair: Pair) -> None:
    server, client = pair
    written, got = fill(server), list[int]()

    def read() -> None:
        got.append(received(client, 0.001))
        client.close()

    reader = threading.Thread(target=read)
    reader.start()
    linger(server, 60, 60)
    reader.join()
    assert got == [written]


def test_a_client_that_has_closed_its_sending_side_still_gets_everything(pair: Pair) -> None:
    server, client = pair
    written, got = fill(server), list[int]()
    client.shutdown(socket.SHUT_WR)
    reader = threading.Thread(target=lambda: got.append(received(client, 0.001)))
    reader.start()
    linger(server, 60, 60)
    assert unsent(server) == 0
    reader.join()
    assert got == [written]


def test_a_client_that_never_closes_is_waited_for_a_moment(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"the answer")
    assert 0.2 <= seconds(lambda: linger(server, PATIENCE, 0.2)) < 10
    assert client.recv(100) == b"the answer"
    assert client.recv(100) == b""


def test_a_client_that_never_reads_is_waited_for_no_longer_than_its_pace_allows(pair: Pair) -> None:
    server, _ = pair
    fill(server)
    assert seconds(lambda: linger(server, PATIENCE, 60)) < PATIENCE + 10


def test_a_client_that_sends_on_and_on_is_waited_for_a_moment(pair: Pair) -> None:
    server, client = pair
    over = threading.Event()

    def send() -> None:
        with suppress(OSError):
            while not over.wait(0.01):
                client.sendall(b"x")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert seconds(lambda: linger(server, PATIENCE, 0.3)) < 10
    finally:
        over.set()
        sender.join()


def test_a_connection_that_broke_is_reset(pair: Pair) -> None:
    server, client = pair
    fill(server)
    reset(server)
    server.close()
    with pytest.raises(ConnectionResetError):
        received(client)
