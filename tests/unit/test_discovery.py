"""The readings of the source: whoever waits for one gets its turn, and what brings one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator

import pytest

from gateway.nodes import discovery as module
from gateway.nodes.discovery import Discovery
from gateway.nodes.sources.events import Events
from gateway.nodes.view import Directory
from gateway.settings import Settings
from tests.harness.engine import CHECKOUT

# As under the gateway's worker, where a lock that is released goes to nobody: the thread that reads
# could have it again and again.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import threading, time
from gateway.nodes.discovery import Discovery
from gateway.nodes.sources.events import Events
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

    def changes(self) -> Generator[None]:
        yield from [None] * self.count
        raise ConnectionResetError


@pytest.mark.parametrize(("changes", "read"), [(0, False), (1, True), (3, True)])
def test_a_stream_that_never_opened_brings_no_reading(
    changes: int, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REOPEN_SECONDS", 0)
    discovery = Discovery(Directory(Settings()))
    discovery._follow(Stream(changes))
    assert discovery._wanted.is_set() is read
    assert not discovery._followed
