"""How many jobs work at a time: more while that helps, fewer when clients notice.

Nobody knows beforehand how many a node takes: that depends on its disks, and on what else it does.
So it is tried. Once a second there is a figure for how fast the work goes, and one for how long a
node takes to answer a small request, which is what a client gets too (the look at the node's record
is such a request).

    it answers much later than usual    half as many jobs, and no more for some seconds
    more jobs have helped               more of them still
    more jobs haven't helped            as many as before that, and no more for some seconds

What is usual is the shortest answer that was seen. Where nodes are slow with a single job as well,
it isn't the work that makes them so, and that is usual from then on.
"""

from __future__ import annotations

import math

FIRST = 8  # jobs to begin with
MOST = 64  # jobs, where nothing else is said
WINDOW = 1.0  # seconds between two calls of `adjust`
HELPED = 1.1  # times as fast as before, from which on more jobs have helped
NOTICED = 0.03  # seconds of an answer that no client would notice
REST = 5  # windows without more jobs after fewer
EFFECT = 2  # windows after which fewer jobs show


class Pace:
    """The number of jobs. The main thread changes it, any thread may read it."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.jobs = min(FIRST, most)
        self._before: tuple[int, float] | None = None  # jobs and speed before there were more
        self._usual = math.inf  # seconds of an answer
        self._rest = 0  # windows

    def adjust(self, speed: float, answer: float) -> None:
        """Takes what the last window has shown.

        `speed` is in any unit, `answer` in seconds.
        """
        self._usual = min(self._usual, answer)
        if self._rest > REST - EFFECT:  # what was changed shows later
            self._rest -= 1
        elif answer > max(NOTICED, 2 * self._usual):
            if self.jobs == 1:
                self._usual = answer
            self._become(self.jobs // 2)
        elif self._rest:
            self._rest -= 1
        elif self._before and speed < self._before[1] * HELPED:
            self._become(self._before[0])
        elif self.jobs < self.most:
            self._before = self.jobs, speed
            self.jobs = min(self.most, self.jobs + (self.jobs + 1) // 2)

    def _become(self, jobs: int) -> None:
        self.jobs, self._before, self._rest = max(1, jobs), None, REST
