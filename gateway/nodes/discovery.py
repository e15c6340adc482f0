"""What the source lists: read when it tells of a change, and where a node isn't where it was.

Two threads of each worker keep the list current:

    follow    opens the stream of Docker's events, and wakes the other one: when a stream is open,
              at each event that concerns nodes, and when the stream ends
    watch     reads the list; then it waits until it is woken, or for a time

While a stream is followed, that time is `FOLLOWED_SECONDS`. It is the setting `discovery_seconds`
where there is no stream, and where events don't tell everything (a Swarm's manager hears of no
task on another host). After a reading for a change it is short for a while, as `AGAIN_SECONDS`
says. The reading that follows the opening of a stream brings what happened before.

A request doesn't ask the source. Only where its node can't be reached, or isn't who it has to be,
it has the source read once more, to learn of another address or other keys.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from functools import partial

from gateway.background import forever
from gateway.nodes.member import Member
from gateway.nodes.sources import source_of
from gateway.nodes.sources.events import Events, EventsRefused
from gateway.nodes.view import Directory

log = logging.getLogger("objgw")

RECENT_SECONDS = 0.25  # for which a reading is good enough for a node that wasn't running
FOLLOWED_SECONDS = 90.0  # between two readings at most, while events tell what changes
# Docker tells of a change before its list has it: by a moment, and on a busy host by seconds. So a
# reading for a change is followed by others, after these seconds each.
AGAIN_SECONDS = (1.0, 2.0, 4.0, 8.0)
REOPEN_SECONDS = 1.0  # between two attempts to open a stream that broke at once
REFUSED_SECONDS = 60.0  # the same where the events are refused


class Discovery:
    """The readings of the source, one at a time; `watch` and `follow` are its threads."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.settings = settings = directory.settings
        self.healthy = True  # the last reading came, and in time
        self._source = source_of(settings)
        self._reading = threading.Lock()  # held while the source is read
        self._wanted = threading.Event()  # a reading is wanted soon, and nobody waits for it
        # Monotonic times: the begin of the last reading, and the end of the last good one.
        self._began = self._read = -math.inf
        self._again = iter(AGAIN_SECONDS)  # those that are left of them
        self._followed = False  # a stream of the source's events is open
        self._refusal = ""  # why there is none, as it was logged

    @property
    def what(self) -> str:
        """The source, at the begin of a sentence."""
        return self._source.what[0].upper() + self._source.what[1:]

    @property
    def age(self) -> float:
        """Seconds since the last good reading ended; infinite before the first."""
        return time.monotonic() - self._read

    def renew(self) -> bool:
        """Whether a reading of the source that began after this call succeeded.

        Those who wait together share one reading.

        False at once while the source is known not to answer: the thread tries again.
        """
        asked = time.monotonic()
        with self._reading:
            if self.healthy and self._began < asked:
                self._read_source()
        return self.healthy

    def refresh(self) -> None:
        """Has the source read unless it just was; at the start, waits for the first view."""
        if self.age > RECENT_SECONDS:
            self.renew()
        self.wait_begun(self.settings.connect_timeout)

    def replaced(self, node: Member) -> bool:
        """Whether the source, read now, has another address or other keys for this node."""
        return self.renew() and node.closed

    def hurry(self) -> None:
        """Has the source read soon, and again after that."""
        self._again = iter(AGAIN_SECONDS)
        self._wanted.set()

    def wait_begun(self, seconds: float) -> None:
        """Where this worker has just begun, waits for its first view, at most so many seconds.

        It waits no longer where it is clear that there is none.
        """
        directory = self.directory
        if not directory.nodes:
            with directory.changed:
                directory.changed.wait_for(
                    lambda: (
                        directory.nodes
                        or (self._answered and not any(n.host for n in directory.by_name.values()))
                    ),
                    seconds,
                )

    @property
    def _answered(self) -> bool:
        """Whether a reading has ended, well or not."""
        return self._read > -math.inf or not self.healthy

    def watch(self) -> None:
        """The thread that reads the source when it is woken, and from time to time."""
        forever(self._watch, f"the reading of {self._source.what}")

    def _watch(self) -> None:
        with self._reading:
            self._read_source()
        time.sleep(0)  # the turn of those who wait for the lock, which isn't given to anybody
        self._wanted.wait(min(self._pause, next(self._again, math.inf)))
        self._wanted.clear()

    @property
    def _pause(self) -> float:
        """Seconds to the next reading, where nothing asks for one before."""
        seconds = self.settings.discovery_seconds
        if self._followed and self.healthy and self._source.events_suffice:
            return max(FOLLOWED_SECONDS, seconds)
        nodes = self.directory.by_name.values()
        calm = self.healthy and nodes and all(node.ready for node in nodes)
        return seconds if calm else min(seconds, 1.0)

    def follow(self) -> None:
        """The thread that waits for the source's events, and wakes the one that reads.

        It ends where the source has none.
        """
        if (events := self._source.events) is not None:
            forever(partial(self._follow, events), "the stream of Docker's events")

    def _follow(self, events: Events) -> None:
        """Follows one stream to its end."""
        began, refusal = time.monotonic(), ""
        try:
            for changed in events.changes():
                if self._refusal:
                    log.info("Docker's events are followed again")
                self._followed, self._refusal = True, ""
                if changed:
                    self.hurry()
                else:
                    self._wanted.set()
        except EventsRefused as error:
            refusal = str(error)
        except Exception as error:  # Docker isn't there; what reads the list says so
            log.debug("Docker's events: %s", error)
        finally:
            if self._followed:
                self.hurry()
            self._followed = False
        if refusal:
            if refusal != self._refusal:
                log.warning(
                    "Docker gives no events (%s), so its list is read every %g s; "
                    "a socket proxy needs EVENTS=1",
                    refusal,
                    self.settings.discovery_seconds,
                )
            self._refusal = refusal
            time.sleep(REFUSED_SECONDS)
        elif time.monotonic() < began + REOPEN_SECONDS:
            time.sleep(REOPEN_SECONDS)

    def _read_source(self) -> None:
        """Reads the source. Whatever it does, the last good list stays."""
        self._began = time.monotonic()
        failure = None
        try:
            found = self._source.read()
        except Exception as error:
            failure = error
        with self.directory.changed:
            if failure is None:
                self.directory.separate = self._source.separate
                self.directory.find(found)
                self._read = time.monotonic()
            if failure and self.healthy:
                told = self._source.trouble(failure)
                log.warning("%s can't be read, the last list stays: %s", self._source.what, told)
            elif not failure and not self.healthy:
                log.info("%s can be read again", self._source.what)
            self.healthy = failure is None
            self.directory.changed.notify_all()
