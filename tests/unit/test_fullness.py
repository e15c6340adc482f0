"""When nodes are asked how full they are, and what comes of answers that say nothing.

The node is a real server on a socket, which has its record and answers as a test wants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.nodes.acquire import prove
from gateway.nodes.layout import Layout
from gateway.nodes.member import Member
from gateway.nodes.record_json import dump
from gateway.nodes.usage import ANSWER_MAX
from gateway.s3.breaker import State
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings
from gateway.status import asking, fullness
from gateway.status.fullness import ASK_SECONDS, LONGEST_SECONDS, RETRY_SECONDS, Fullness, recent
from tests.harness.fakes import serving
from tests.harness.waiting import eventually

LAYOUT = Layout.first(["node-1"])
GIB = 1 << 30
SERVER = """
ASKED, ANSWER, SILENT = [], [b""], threading.Event()
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _, path, _, _ in requests(self):
            ASKED.append(path)
            if ANSWER[0] is None:
                SILENT.wait(10)
                return
            self.wfile.write(ANSWER[0])
"""


def answer(body: bytes, status: int = 200, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d It\r\nContent-Length: %d\r\n\r\n%b" % (status, size, body)


TELLS = answer(
    b'{"Disks": [{"pool_index": 0, "disk_index": 0, "totalspace": %d, "availspace": %d}],'
    b' "Backend": {"StandardSCData": [1]}}' % (4 * GIB, GIB)
)
LATE = "it doesn't answer in time"
# Answers that say nothing, and how the log says it; None is silence.
SAY_NOTHING: dict[str, tuple[bytes | None, str]] = {
    "refuses": (answer(b'{"Code":"AccessDenied"}', 403), "its keys have no right to ask"),
    "another make": (
        answer(b"<Error><Code>NoSuchBucket</Code></Error>", 404),
        "no admin interface",
    ),
    "nonsense": (answer(b"<html>hello</html>"), "what it answers can't be read"),
    "in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "what it answers can't be read",
    ),
    "no length": (
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        "what it sends isn't HTTP/1.1 as S3 speaks it",
    ),
    "no HTTP": (b"220 hello\r\n", "what it sends isn't HTTP/1.1 as S3 speaks it"),
    "huge": (answer(b"", length=ANSWER_MAX + 1), "its answer is too long"),
    "broken off": (answer(b"{", length=100), LATE),
    "silent": (None, LATE),
}


class Asked:
    """A node that is in order, what it was asked, and what it answers."""

    def __init__(self, port: int, script: dict[str, Any]) -> None:
        endpoint = Endpoint("node-1", "id", "127.0.0.1", port, "key", "secret")
        self.node, self.fullness = Member(endpoint, Settings()), Fullness("objgw")
        self.questions: list[str] = script["ASKED"]
        self._answer: list[bytes | None] = script["ANSWER"]
        self.node.standing.expect(LAYOUT)
        self.node.ready = self.node.standing.keeps_conditions = True
        self.node.standing.ignored, self.node.standing.stores_cut = frozenset(), False
        self.node.release(prove(self.node, 5))
        assert self.node.in_order

    def ask(self, told: bytes | None) -> int:
        """Starts the question, if it is due; how many requests came, once it is over."""
        before, self._answer[0] = len(self.questions), told
        self.fullness.start([self.node])
        (question,) = self.fullness._questions.values()
        eventually(lambda: not question.asking)
        return len(self.questions) - before

    @property
    def pause(self) -> float:
        """Seconds until the next question."""
        (question,) = self.fullness._questions.values()
        return question.due - time.monotonic()

    def pass_by(self) -> None:
        """Lets the time until the next question pass."""
        (question,) = self.fullness._questions.values()
        question.due = time.monotonic()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 5)
    with serving(SERVER) as (port, script):
        script["RECORDS"] |= {"/objgw-layout": b"", "/objgw-layout/layout": dump(LAYOUT, "node-1")}
        yield Asked(port, script)
        script["SILENT"].set()


def test_a_node_is_asked_at_once_and_then_once_a_minute(asked: Asked) -> None:
    assert asked.ask(TELLS) == 2
    known = recent(asked.fullness.known, "node-1")
    assert known
    assert (known["total_bytes"], known["free_bytes"]) == (4 * GIB, GIB)
    assert (known["objects"], known["bytes"], known["counted_at"]) == (None, None, None)
    assert asked.ask(TELLS) == 0
    assert ASK_SECONDS - 5 < asked.pause <= ASK_SECONDS
    asked.pass_by()
    assert asked.ask(TELLS) == 2


@pytest.mark.parametrize("row", SAY_NOTHING)
def test_an_answer_that_says_nothing_is_told_once_and_asked_for_ever_more_seldom(
    asked: Asked, row: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, why = SAY_NOTHING[row]
    if why == LATE:
        monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)
    caplog.set_level(logging.INFO, "objgw.status")
    pause = RETRY_SECONDS
    for _ in range(4):
        assert asked.ask(told) == 1
        assert pause - 5 < asked.pause <= pause
        pause = min(2 * pause, LONGEST_SECONDS)
        asked.pass_by()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("node node-1: how full it is isn't known: ")
    assert why in said[0]
    assert recent(asked.fullness.known, "node-1") is None
    node = asked.node
    assert (node.in_order, node.breaker.state, node._waiting) == (True, State.CLOSED, {})
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 5)
    assert asked.ask(TELLS) == 2  # it may yet learn to
    assert recent(asked.fullness.known, "node-1")


def test_a_node_that_was_silent_once_is_known_until_that_is_old(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.ask(TELLS)
    asked.pass_by()
    asked.ask(None)
    assert recent(asked.fullness.known, "node-1")
    later = time.time() + fullness.STALE_SECONDS
    monkeypatch.setattr("gateway.status.fullness.time.time", lambda: later)
    assert recent(asked.fullness.known, "node-1") is None


def test_a_node_that_no_longer_tells_is_not_known_at_once(asked: Asked) -> None:
    asked.ask(TELLS)
    asked.pass_by()
    asked.ask(SAY_NOTHING["refuses"][0])
    assert asked.fullness.known == {}


def test_a_node_that_is_not_in_order_is_not_asked(asked: Asked) -> None:
    asked.node.standing.error = "it refuses connections"
    assert asked.ask(TELLS) == 0
    asked.node.standing.error = ""
    assert asked.ask(TELLS) == 2


def test_a_node_that_holds_what_belongs_to_another_is_not_asked(asked: Asked) -> None:
    asked.node.standing.name = "node-2"
    asked.node.forget()
    assert asked.ask(TELLS) == 0
    assert asked.fullness.known == {}


def test_a_node_that_is_gone_is_forgotten(asked: Asked) -> None:
    asked.ask(TELLS)
    asked.fullness.start([Member(Endpoint("node-2"), Settings())])
    assert asked.fullness.known == {}


def test_a_node_that_is_silent_keeps_no_other_from_being_asked(asked: Asked) -> None:
    other = Asked(asked.node.endpoint.port, {"ASKED": asked.questions, "ANSWER": asked._answer})
    asked._answer[0] = None
    asked.fullness.start([asked.node])
    eventually(lambda: asked.questions)
    assert other.ask(TELLS) == 2
