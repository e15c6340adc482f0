"""An object's bytes on their way, as blocks or through a pipe, to their end or to a break."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.objects.download import DOWNLOAD_BLOCK, download
from gateway.s3.connection import Connection
from gateway.s3.endpoint import Endpoint
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.settings import Settings
from gateway.status.observation import Observation, current

BODY = os.urandom(1_000_000)


@contextmanager
def node_that_sends(data: bytes, *, closes: bool = False) -> Iterator[tuple[Node, Connection]]:
    """A node, and a connection to it on which these bytes come."""
    mine, theirs = socket.socketpair()

    def send() -> None:
        try:
            theirs.sendall(data)
        except OSError:  # nobody reads any more
            return
        if closes:
            theirs.close()

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield Node(Endpoint("node-1"), Settings()), Connection(mine)
    finally:
        mine.close()
        sending.join()
        theirs.close()


class Client:
    """Takes what a download gives, in the server's two ways."""

    def __init__(self) -> None:
        self.received, self.relayed = b"", 0
        self.pipes: set[int] = set()  # their inodes

    def take(self, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            self.received += block

    def relay(self, pipe: int, size: int) -> None:
        self.pipes.add(os.fstat(pipe).st_ino)
        while size:
            moved = os.read(pipe, size)
            self.received += moved
            self.relayed += len(moved)
            size -= len(moved)


@pytest.fixture(autouse=True)
def observation() -> Iterator[Observation]:
    observation = Observation()
    token = current.set(observation)
    yield observation
    current.reset(token)


@pytest.mark.parametrize("first", [0, 1, 1000])
@pytest.mark.parametrize("size", [1000, DOWNLOAD_BLOCK, DOWNLOAD_BLOCK + 1001, len(BODY)])
def test_blocks_are_the_object_and_the_connection_is_kept(size: int, first: int) -> None:
    with node_that_sends(BODY[first:size]) as (node, connection):
        reply = Reply(200, {}, BODY[:first], size - first)
        blocks = list(download(node, connection, reply))
        assert b"".join(blocks) == BODY[:size]
        assert max(map(len, blocks)) <= DOWNLOAD_BLOCK
        assert not node.downloads
        if size > first:
            assert node.kept() is connection


def test_the_connection_is_another_requests_before_the_last_block_is_sent() -> None:
    with node_that_sends(BODY) as (node, connection):
        taken = 0
        for block in download(node, connection, Reply(200, {}, b"", len(BODY))):
            taken += len(block)
            assert (connection in node.downloads) is True
            assert (node.kept() is connection) is (taken == len(BODY))


def test_most_of_a_large_object_goes_through_the_pipe_and_its_end_never_does(
    observation: Observation,
) -> None:
    client = Client()
    with node_that_sends(BODY[10:]) as (node, connection):
        reply = Reply(200, {}, BODY[:10], len(BODY) - 10)
        client.take(download(node, connection, reply, client.relay))
        assert client.received == BODY
        assert len(BODY) - DOWNLOAD_BLOCK - 10 == client.relayed
        assert observation.bytes == client.relayed  # blocks are counted by who takes them
        assert node.kept() is connection


@pytest.mark.parametrize(("first", "pipes"), [(len(BODY), 1), (900_000, 2)])
def test_a_pipe_serves_the_next_download_unless_one_was_broken_off(first: int, pipes: int) -> None:
    client = Client()
    for sent in (first, len(BODY)):
        with node_that_sends(BODY[:sent], closes=True) as (node, connection):
            reply = Reply(200, {}, b"", len(BODY))
            with suppress(ConnectionResetError):
                client.take(download(node, connection, reply, client.relay))
    assert client.received == BODY[:first] + BODY
    assert len(client.pipes) == pipes


def test_a_small_object_does_not_go_through_a_pipe() -> None:
    client, size = Client(), 2 * DOWNLOAD_BLOCK
    with node_that_sends(BODY[:size]) as (node, connection):
        blocks = list(download(node, connection, Reply(200, {}, b"", size), client.relay))
    assert (b"".join(blocks), client.relayed) == (BODY[:size], 0)


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("sent", [0, 1000, 900_000, len(BODY) - 1])
def test_a_node_that_breaks_off_breaks_the_download_and_its_connection_is_not_kept(
    sent: int, relayed: bool
) -> None:
    client = Client()
    with node_that_sends(BODY[:sent], closes=True) as (node, connection):
        blocks = download(
            node, connection, Reply(200, {}, b"", len(BODY)), client.relay if relayed else None
        )
        with pytest.raises(ConnectionResetError):
            client.take(blocks)
        assert client.received == BODY[:sent]
        assert node.kept() is None
        assert not node.downloads
        assert connection.sock.fileno() == -1


def test_a_client_that_leaves_ends_the_download_and_its_connection() -> None:
    with node_that_sends(BODY) as (node, connection):
        blocks = iter(download(node, connection, Reply(200, {}, b"", len(BODY))))
        next(blocks)
        blocks.close()  # type: ignore[attr-defined]
        assert not node.downloads
        assert node.kept() is None
        assert connection.sock.fileno() == -1
