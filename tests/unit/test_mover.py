"""The bandwidth limit of a rebalance."""

from __future__ import annotations

import threading
import time

import pytest

from gateway.ctl.errors import Stopped
from gateway.ctl.mover import Throttle
from gateway.s3.body import BLOCK


def test_without_a_limit_nothing_waits() -> None:
    stop = threading.Event()
    stop.set()  # who waits raises Stopped
    Throttle(0, 4).take(2**50, stop)


@pytest.mark.parametrize(
    ("rate", "jobs", "block"),
    [(0.0, 4, BLOCK), (1e9, 4, BLOCK), (80_000.0, 4, 20_000), (100.0, 4, 1024)],
)
def test_a_block_takes_about_a_second_of_a_jobs_share(rate: float, jobs: int, block: int) -> None:
    assert Throttle(rate, jobs).block == block


def test_threads_share_the_limit() -> None:
    throttle, began = Throttle(100_000, 4), time.monotonic()
    threads = [
        threading.Thread(target=throttle.take, args=(20_000, threading.Event())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # It takes 0.8 seconds, of which a tenth of one is given in advance.
    assert time.monotonic() - began > 0.65


def test_who_waits_is_told_to_stop_at_once() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Throttle(1, 1).take(1_000_000, stop)
