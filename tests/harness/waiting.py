"""Small helpers for everything that waits, and for ids.

Waiting is always for a condition (`eventually`), never for a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import secrets
import string
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import minio
import urllib3

NOT_YET = (
    AssertionError,
    OSError,
    ValueError,  # an answer that isn't whole
    http.client.HTTPException,
    minio.error.MinioException,
    urllib3.exceptions.HTTPError,
)


def eventually(condition: Callable[..., Any], *args: Any, within: float = 60) -> Any:
    """The first true value of `condition(*args)`, asked again and again; AssertionError after
    `within` seconds without.

    NOT_YET of it is what is raised when the time is over.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            value, why = condition(*args), None
        except NOT_YET as error:
            value, why = None, error
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why or condition}") from why
        time.sleep(0.05)


def always(condition: Callable[..., Any], *args: Any, seconds: float) -> None:
    """Assert that `condition(*args)` holds all the time for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(*args)
        time.sleep(0.05)


def together(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of the calls, made at the same time (Docker takes most of a second for some)."""
    with ThreadPoolExecutor(8) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextmanager
def meanwhile(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """While the block runs, a thread does this work, which has to end once the event is set.

    What the work raises, the end of the block raises.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, over)
        try:
            yield
        finally:
            over.set()
        working.result()


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Runs the block while no other process of this run is in one of the same name."""
    with open(f"/tmp/objgw-test-{what}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def still_network() -> Iterator[None]:
    """While the block runs, no process of this run puts the tests' container on a network, or takes
    it off one.

    A browser would give up what it's asking for (ERR_NETWORK_CHANGED).
    """
    with alone("network"):
        yield


def random_id() -> str:
    """A good id that was never used before."""
    length = 8 + secrets.randbelow(25)
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def owner(id: str, names: Iterable[str], history: Iterable[Iterable[str]] = ()) -> str:
    """The node name that owns the id, where these lists of names were before: written down here a
    second time, so that the gateway can't change it unseen.
    """
    slots = slots_after(*(tuple(sorted(each)) for each in (*history, names)))
    return slots[int(hashlib.sha256(id.encode()).hexdigest(), 16) % len(slots)]


@lru_cache
def slots_after(first: tuple[str, ...], *later: tuple[str, ...]) -> tuple[str, ...]:
    """By slot the name that has it, after these lists of names."""
    if not later:
        return first
    has = {name: list(range(n, 4096 * len(first), len(first))) for n, name in enumerate(first)}
    for names in later:
        left = sorted(slot for name in has.keys() - set(names) for slot in has[name])
        has = {name: has.get(name, []) for name in names}
        for slot in left:
            min(has.values(), key=len).append(slot)
        for slots in has.values():
            slots.sort()
        while len(most := max(has.values(), key=len)) - len(min(has.values(), key=len)) > 1:
            min(has.values(), key=len).append(most.pop(0))
    return tuple(name for _, name in sorted((slot, name) for name in has for slot in has[name]))
