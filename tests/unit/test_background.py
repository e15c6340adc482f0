"""Threads that nothing ends, and lines that are said once."""

from __future__ import annotations

import logging
import threading
from contextvars import Context
from functools import partial
from pathlib import Path

import pytest

from gateway import background
from gateway.background import forever, together
from gateway.nodes.discovery import Discovery
from gateway.nodes.leader import Leader
from gateway.nodes.member import Member
from gateway.nodes.poller import Poller
from gateway.nodes.records import Records
from gateway.nodes.view import Directory
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings
from gateway.status import logs
from gateway.status.health import Watch
from gateway.status.logs import Lines, SaidOnce
from gateway.status.metrics import Metrics
from gateway.status.routes import Status


class EndOfTest(BaseException):
    """Ends a thread's loop, which no Exception does."""


def test_a_step_that_fails_is_logged_once_until_it_succeeds_or_fails_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0)
    outcomes: list[BaseException | None] = [
        *[ValueError("one")] * 5, *[KeyError("two")] * 5, None, *[KeyError("two")] * 5, EndOfTest(),
    ]  # fmt: skip

    def step() -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    with pytest.raises(EndOfTest):
        forever(step, "the test")
    assert caplog.messages == ["the test failed, and goes on"] * 3
    assert all(record.exc_info for record in caplog.records)


def test_several_things_are_done_at_once_and_the_first_error_comes_when_all_are_over() -> None:
    met = threading.Barrier(3)

    def meet(number: int) -> int:
        met.wait(30)
        return number

    assert together([partial(meet, number) for number in range(3)]) == [0, 1, 2]
    done = list[int]()

    def fail(number: int) -> int:
        done.append(number)
        if number:
            raise ValueError(number)
        return 0

    with pytest.raises(ValueError, match="1"):
        together([partial(fail, number) for number in range(3)])
    assert sorted(done) == [0, 1, 2]
    assert together([]) == []


LOOPS = [
    "Discovery.watch", "Discovery.follow", "Poller.poll", "Records._keep_records", "Status._run",
    "Lines._run",
]  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_no_thread_of_the_gateway_ends_on_an_error_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    directory = Directory(Settings())
    discovery = Discovery(directory)
    leader = Leader(None)
    poller = Poller(directory, discovery, leader)
    targets = {
        "Discovery.watch": (discovery.watch, discovery, "_read_source"),
        "Discovery.follow": (discovery.follow, discovery._source.events, "changes"),
        "Poller.poll": (poller.poll, directory, "arrange"),
        "Records._keep_records": (
            (records := Records(directory, discovery, leader))._keep_records,
            records,
            "_keep",
        ),
        "Status._run": (
            (status := Status(discovery, Metrics(), leader))._run,
            status._watch,
            "tick",
        ),
        "Lines._run": ((lines := Lines(2))._run, lines, "flush"),
    }
    run, thing, name = targets[loop]
    rounds = 0

    def unforeseen(*_: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds > 3:
            raise EndOfTest
        raise ZeroDivisionError("what nobody foresaw")

    monkeypatch.setattr(thing, name, unforeseen)
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0)
    monkeypatch.setattr("gateway.nodes.discovery.REOPEN_SECONDS", 0)
    poller.looked.set()
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EndOfTest):
        run()
    assert "what nobody foresaw" in caplog.text
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == (loop != "Discovery.follow")  # what reads the list says that Docker is away


def test_a_count_of_objects_that_fails_ends_as_one_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory(Settings())

    def unforeseen(*_: object) -> None:
        raise TypeError("inet_pton() argument 2 must be str, not None")

    monkeypatch.setattr("gateway.status.health.census", unforeseen)
    watch = Watch(directory, Metrics(), Leader(None))
    watch._count((Member(Endpoint("node-1"), Settings()),))
    assert watch.snapshot()["census"]["node-1"]["objects"] is None
    assert len(caplog.records) == 1


def line(message: str, name: str = "objgw") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "file", 1, message, (), None)


def test_what_one_worker_has_said_the_others_say_only_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    now, once = 1000.0, SaidOnce()
    monkeypatch.setattr("gateway.status.logs.time.time", lambda: now)

    def says(worker: int, message: str, name: str = "objgw") -> bool:
        monkeypatch.setattr("gateway.status.logs.os.getpid", lambda: worker)
        # An earlier test's request isn't the one that this is said in.
        return Context().run(once.filter, line(message, name))

    assert says(1, "node 1 is stopped")
    assert not says(2, "node 1 is stopped")
    assert says(2, "node 2 is stopped")
    assert says(1, "node 1 is stopped")  # once more
    assert all(says(worker, "Worker exiting", "gunicorn.error") for worker in (1, 2))
    now += logs.REPEAT_SECONDS + 1
    assert says(2, "node 1 is stopped")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", f"{tmp_path}/gone")
    assert says(1, "node 1 is stopped")
