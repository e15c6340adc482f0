"""Threads that work off a listing while it goes on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.ctl import crew
from gateway.ctl.crew import Crew
from gateway.ctl.errors import Stopped
from gateway.ctl.pace import Pace


def nothing(_: float) -> None:
    """Looks at nothing."""


def test_all_items_are_worked_off_once_by_several_threads() -> None:
    done, threads = list[int](), set[str]()
    together = threading.Barrier(4)

    def work(item: int) -> None:
        if item < 4:
            together.wait(10)
        done.append(item)
        threads.add(threading.current_thread().name)

    Crew(work, Pace(4), threading.Event()).run(range(1000), nothing)
    assert sorted(done) == list(range(1000))
    assert len(threads) == 4


def test_work_begins_while_the_listing_goes_on() -> None:
    first = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert first.wait(10)
        yield 2

    crew_of_one = Crew[int](lambda _: first.set(), Pace(1), threading.Event())
    crew_of_one.run(items(), nothing)


def test_the_listing_is_ahead_of_the_work_by_no_more_than_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "AHEAD", 10)
    listed, ahead = itertools.count(), list[int]()
    latest = 0

    def items() -> Iterator[int]:
        nonlocal latest
        for _ in range(200):
            latest = next(listed)
            yield latest

    two = Crew[int](lambda item: ahead.append(latest - item), Pace(2), threading.Event())
    two.run(items(), nothing)
    assert max(ahead) <= 10 + 3  # what each thread has, and what the listing holds


def test_threads_come_and_go_as_the_pace_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WINDOW", 0.01)
    pace, seen = Pace(8), list[int]()
    wanted = iter([2, 6, 1, 8])
    busy, peak, guard = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal busy, peak
        with guard:
            busy += 1
            peak = max(peak, busy)
        time.sleep(0.001)
        with guard:
            busy -= 1

    def look(_: float) -> None:
        nonlocal peak
        if (jobs := next(wanted, None)) is not None:
            pace.jobs, peak = jobs, 0
            seen.append(jobs)

    Crew(work, pace, threading.Event()).run(range(2000), look)
    assert seen == [2, 6, 1, 8]
    assert 1 < peak <= 8


@pytest.mark.parametrize("where", ["work", "items", "look"])
def test_what_any_thread_raises_ends_all_and_is_raised(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "WINDOW", 0.01)
    stop = threading.Event()

    def items() -> Iterator[int]:
        for number in itertools.count():
            if where == "items" and number == 50:
                raise KeyError(where)
            yield number

    def work(item: int) -> None:
        if where == "work" and item == 50:
            raise KeyError(where)
        if stop.wait(0.001):
            raise Stopped

    def look(_: float) -> None:
        if where == "look":
            raise KeyError(where)

    with pytest.raises(KeyError, match=where):
        Crew(work, Pace(4), stop).run(items(), look)
    assert stop.is_set()
