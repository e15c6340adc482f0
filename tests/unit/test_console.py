"""What a command shows of its work, with and without a terminal."""

from __future__ import annotations

import io
import sys
from threading import Thread

import pytest

from gateway.ctl import console
from gateway.ctl.console import Listed


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_listing_shows_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(Listed().each("abc")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""  # it took no 5 seconds
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    assert list(Listed().each("abc")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"{n} objects listed" for n in (1, 2, 3)]


def test_on_a_terminal_listing_has_one_line_that_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "TERMINAL_SECONDS", 0.0)
    assert list(Listed().each("ab")) == ["a", "b"]
    *shown, last = terminal.getvalue().split("\r")[1:]
    assert [text.split(",")[0] for text in shown] == ["1 objects listed", "2 objects listed"]
    assert last == console.CLEAR_LINE
    assert "\n" not in terminal.getvalue()


def test_listings_of_several_threads_are_counted_together() -> None:
    listed = Listed()
    threads = [Thread(target=lambda: list(listed.each(range(10000)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed.objects == 40000
