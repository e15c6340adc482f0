"""What threads do: in the background, again and again; and for one request, several things at once.

A thread that ends leaves a gateway that answers and no longer knows: its nodes' states, or their
addresses, stay what they were. So no error ends one, not even one that nobody has foreseen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

log = logging.getLogger("objgw")

PAUSE_SECONDS = 1.0  # after a step that failed


def forever(step: Callable[[], object], what: str) -> None:
    """Does `step` again and again, and never returns; `what` names it in the log.

    An error is logged with its traceback, once until the step succeeds or fails otherwise. The next
    step follows `PAUSE_SECONDS` later.
    """
    told = ""
    while True:
        try:
            step()
            told = ""
        except Exception as error:
            if repr(error) != told:
                told = repr(error)
                log.exception("%s failed, and goes on", what)
            time.sleep(PAUSE_SECONDS)


def together[T](jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Does all at once, each in a thread of its own; gives their results in the same order.

    Raises the error of the first that failed, once all are over.
    """
    results: list[T | None] = [None] * len(jobs)
    errors: list[Exception | None] = [None] * len(jobs)

    def work(number: int) -> None:
        try:
            results[number] = jobs[number]()
        except Exception as error:
            errors[number] = error

    threads = [
        threading.Thread(target=work, args=(number,), name="objgw-part", daemon=True)
        for number in range(len(jobs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in filter(None, errors):
        raise error
    return cast(list[T], results)
