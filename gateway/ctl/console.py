"""What a command shows while it works: lines, tables, and a bar of how far it is."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from tqdm import tqdm

OBJECT_WEIGHT = 64 * 1024  # bytes that are taken to last as long as the requests for one object
PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal
TERMINAL_SECONDS = 0.2  # the same where there is one, on which the line is written over
CLEAR_LINE = "\x1b[K"  # from the cursor to the end (ECMA-48, EL)


def say(text: str) -> None:
    """A plain line on what is going on."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Iterable[Iterable[str]]) -> None:
    """Prints rows with aligned columns."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def amount(size: float) -> str:
    """Bytes for people.

    >>> amount(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@dataclass
class Work:
    """What is to be moved, or was."""

    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0  # that it took

    @property
    def weight(self) -> int:
        """A measure of how long it takes, in bytes."""
        return self.bytes + self.objects * OBJECT_WEIGHT

    def __str__(self) -> str:
        return f"{self.objects} object{'' if self.objects == 1 else 's'} ({amount(self.bytes)})"


class Listed:
    """How many objects were listed so far, on stderr; how many there are nobody knows before.

    On a terminal one line shows it and goes at the end; else there is a line every few seconds.
    """

    def __init__(self) -> None:
        self.objects = 0
        self._began = self._shown = time.monotonic()
        self._lock = threading.Lock()
        self._terminal = sys.stderr.isatty()
        self._pause = TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS

    def each[T](self, listing: Iterable[T]) -> Iterator[T]:
        """The objects of a listing, counted. Several threads may have one each."""
        try:
            for item in listing:
                with self._lock:
                    self.objects += 1
                    if time.monotonic() - self._shown >= self._pause:
                        self._show()
                yield item
        finally:
            if self._terminal and self._shown > self._began:
                print(f"\r{CLEAR_LINE}", end="", file=sys.stderr, flush=True)

    def _show(self) -> None:
        self._shown = time.monotonic()
        text = f"{self.objects} objects listed, {self.objects / (self._shown - self._began):.0f}/s"
        if self._terminal:
            print(f"\r{text}{CLEAR_LINE}", end="", file=sys.stderr, flush=True)
        else:
            say(text)


class Progress:
    """How far it is: a bar on a terminal, else a line every few seconds; on stderr.

    The total grows while the listing goes on. `show` and `close` are for the main thread, the rest
    may be called by any.
    """

    def __init__(self) -> None:
        self.total, self.done = Work(), Work()  # bytes done are those that have passed
        self.moved_bytes = 0  # of the objects that are done
        self._listing = True
        self._began = self._shown = time.monotonic()
        self._lock = threading.Lock()
        self._bar: tqdm[NoReturn] | None = None

    def found(self, size: int) -> None:
        """One object more is to be moved, of so many bytes."""
        with self._lock:
            self.total.objects += 1
            self.total.bytes += size

    def listed(self) -> None:
        """No more will be found."""
        self._listing = False

    def passed(self, size: int) -> None:
        """So many bytes more were read."""
        with self._lock:
            self.done.bytes += size

    def moved(self, size: int) -> None:
        """One object more is done, for which so many bytes were moved."""
        with self._lock:
            self.done.objects += 1
            self.moved_bytes += size

    def show(self) -> None:
        """Draws the bar, or writes a line when it is time."""
        if not self.total.objects:
            return
        if self._bar is None and sys.stderr.isatty():
            self._bar = tqdm(
                bar_format="{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}",
                dynamic_ncols=True,
                file=sys.stderr,
                total=self.total.weight,
            )
        if self._bar is not None:
            self._bar.total = self.total.weight
            self._bar.set_postfix_str(f"{self._rates()}{self._more()}", refresh=False)
            self._bar.update(min(self.done.weight, self.total.weight) - self._bar.n)
        elif time.monotonic() - self._shown > PLAIN_SECONDS:
            self._shown = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.close()

    def _more(self) -> str:
        return ", more are being listed" if self._listing else ""

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 0.001)
        return f"{self.done.objects / seconds:.0f} objects/s, {amount(self.done.bytes / seconds)}/s"

    def _line(self) -> str:
        left = max(0, self.total.weight - self.done.weight) * (time.monotonic() - self._began)
        rest = f", about {duration(left / self.done.weight)} left" if self.done.weight else ""
        return f"{self.done} of {self.total}{self._more()}, {self._rates()}{rest}"
