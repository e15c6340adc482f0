"""The readings of the source: whoever waits for one gets its turn, and what brings one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator

import pytest

from gateway.nodes.discovery import AGAIN_SECONDS, FOLLOWED_SECONDS, Discovery
from gateway.nodes.sources.events import Events
from gateway.nodes.view import Directory
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings
from tests.harness.engine import CHECKOUT

# As under the gateway's worker, where a lock that is released goes to nobody: the thread that reads
# could have it again and again.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import threading, time
from gateway.nodes.discovery import Discovery
from gateway.nodes.view import Directory
from gateway.settings import Settings

class Hanging:
    what, separate, events, events_suffice, readings = "Docker", "", None, False, 0

    def read(self):
        self.readings += 1
        discovery.hurry()  # as an event does, or a stream of them that ends
        time.sleep(0.02)
        raise TimeoutError

    def trouble(self, error):
        return "it hangs"

discovery = Discovery(Directory(Settings()))
source = discovery._source = Hanging()
threading.Thread(target=discovery.watch, daemon=True).start()
while not source.readings:
    time.sleep(0)
assert not discovery.renew()
print(source.readings)
"""


def test_a_request_that_waits_for_a_reading_waits_for_no_second_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=CHECKOUT, capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


class Stream(Events):
    """So many changes, and then the connection breaks."""

    def __init__(self, changes: int) -> None:
        super().__init__("node", timeout=1)
        self.count = changes

    def changes(self) -> Generator[bool]:
        yield from [True] * self.count
        raise ConnectionResetError


@pytest.mark.parametrize(("changes", "read"), [(0, False), (1, True), (3, True)])
def test_a_stream_that_never_opened_brings_no_reading(
    changes: int, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.nodes.discovery.REOPEN_SECONDS", 0)
    discovery = Discovery(Directory(Settings()))
    discovery._follow(Stream(changes))
    assert discovery._wanted.is_set() is read
    assert not discovery._followed


class Waits:
    """In place of the event that wakes the thread: notes how long that would wait."""

    def __init__(self, discovery: Discovery, woken: list[str]) -> None:
        self.discovery, self.woken, self.seconds = discovery, woken, list[float]()

    def wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        why = self.woken[len(self.seconds) - 1]
        if why == "change":
            self.discovery.hurry()
        return bool(why)

    def set(self) -> None:
        pass

    def clear(self) -> None:
        pass


class Listed:
    """A source that has no nodes, and whose events tell everything."""

    what, separate, events, events_suffice = "Docker", "", None, True

    def read(self) -> list[Endpoint]:
        return []


def test_the_reading_for_a_change_is_followed_by_others_and_that_for_a_next_stream_is_not() -> None:
    discovery = Discovery(Directory(Settings(discovery_seconds=5)))
    woken = [""] * 5 + ["change"] + [""] * 2 + ["change"] + [""] * 5 + ["next stream"] + [""] * 6
    waits = Waits(discovery, woken)
    discovery._source, discovery._wanted = Listed(), waits  # type: ignore[assignment]
    discovery._followed = True
    for _ in woken:
        discovery._watch()
    again, usual = AGAIN_SECONDS, FOLLOWED_SECONDS
    assert waits.seconds == [*again, usual, usual, *again[:3], *again, *[usual] * 8]
    discovery._followed, waits.seconds = False, []  # the list is polled
    discovery._again = iter(again)
    for _ in range(6):
        discovery._watch()
    assert waits.seconds == [1.0] * 6
