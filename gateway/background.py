"""What a background thread does again and again, whatever happens to it.

A thread that ends leaves a gateway that answers and no longer knows: its nodes' states, or their
addresses, stay what they were. So no error ends one, not even one that nobody has foreseen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

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
