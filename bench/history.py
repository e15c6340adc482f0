#!/usr/bin/env python3
"""Judges the history of a soak: whether each object behaved as if there were one copy of it.

    bench/soak.py --minutes 10 --history history.jsonl
    bench/history.py history.jsonl

That is linearizability (Herlihy and Wing, 1990): each request takes effect at one moment between
its begin and its end, and all of them in the order of these moments. bench/README.md has the format.

Strategy. Objects don't depend on each other, so that each id is judged for itself. It is the search
of Wing and Gong (1993): of the requests that may come next, those that begin before any other that
is left has ended, it takes one that fits what is there, and goes on from that; where nothing fits,
it goes back. What was tried is remembered (Lowe, 2017), as the requests done and the version that
is there. Versions are written once each, so that few orders fit.

A write without an answer may take effect until `SETTLED` seconds after its end, or never:

- One whose version somebody has read took effect by the end of the first such read.
- A version that nobody has read only matters to a condition that wasn't met. All of these are one
  version, `UNREAD`, that may be there at any time after the first of them has begun.
- A DELETE leaves no version that could tell it from another, so that both are tried.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ABSENT, UNREAD = 0, -1  # the version of an object that isn't there; of one that nobody has read
SETTLED = 20.0  # seconds after which a write without an answer has taken effect, or never will
WRITES = ("PUT", "DELETE")


@dataclass(frozen=True)
class Operation:
    """A request, as a line of the history has it."""

    client: int
    operation: str  # PUT, DELETE, GET, HEAD, RANGE
    id: str
    version: int  # that was written, or read
    condition: str | int | None  # of a PUT: "absent", or the version that has to be there
    start: float  # seconds
    end: float
    outcome: str  # ok, unmet (412), unknown, unsent

    @property
    def writes(self) -> bool:
        return self.operation in WRITES

    @property
    def optional(self) -> bool:
        """Whether it may have had no effect."""
        return self.outcome == "unknown"

    def meets(self, version: int) -> bool:
        """Whether its condition is met by this version."""
        wanted = ABSENT if self.condition == "absent" else self.condition
        return wanted is None or wanted == version

    def only_sees(self, version: int) -> bool:
        """Whether it fits this version, and leaves it there."""
        if self.outcome == "unmet":
            return not self.meets(version)
        return not self.writes and version == self.version

    def after(self, version: int, unread_since: float) -> Iterator[int]:
        """The versions that may be there after it, where this one was before; none: it can't be."""
        if self.only_sees(version):
            yield version
        elif self.outcome == "unmet":
            if unread_since < self.end:
                yield UNREAD
        elif self.writes and self.meets(version):
            yield self.version


def judged(history: Iterable[Operation]) -> tuple[list[Operation], float]:
    """The operations of one id that say something, and the time from which UNREAD may be there."""
    said = [op for op in history if op.outcome != "unsent" and (op.writes or not op.optional)]
    first_read: dict[int, float] = {}
    for op in said:
        if not op.writes:
            first_read[op.version] = min(op.end, first_read.get(op.version, math.inf))
    kept, unread_since = [], math.inf
    for op in said:
        if op.optional and op.operation == "PUT":
            if op.version not in first_read:
                unread_since = min(unread_since, op.start)
                continue
            until = min(first_read[op.version], op.end + SETTLED)
            op = Operation(**{**op.__dict__, "outcome": "ok", "end": until})
        kept.append(op)
    return sorted(kept, key=lambda op: op.start), unread_since


def problem(history: Iterable[Operation]) -> Operation | None:
    """An operation of one id that fits in no order; None where there is an order for all."""
    operations, unread_since = judged(history)
    done: frozenset[int] = frozenset()
    todo = [(0, done, ABSENT)]  # all before the first number are done, and those of the set
    tried, furthest = set(todo), 0
    while todo:
        first, done, version = todo.pop()
        while first in done:
            done, first = done - {first}, first + 1
        if first == len(operations):
            return None
        furthest = max(furthest, first)
        numbers = possible(operations, first, done)
        # What fits and changes nothing is taken at once: no other order would do more with it.
        free = [number for number in numbers if operations[number].only_sees(version)]
        for number in free[:1] or numbers:
            op = operations[number]
            after = set(op.after(version, unread_since)) | ({version} if op.optional else set())
            for each in after:
                state = (first, done | {number}, each)
                if state not in tried:
                    tried.add(state)
                    todo.append(state)
    return operations[furthest]


def possible(operations: list[Operation], first: int, done: frozenset[int]) -> list[int]:
    """The operations that may be next: begun before any that is left has ended."""
    found, limit = [], math.inf
    for number in range(first, len(operations)):
        op = operations[number]
        if op.start > limit:
            break
        if number not in done:
            found.append(number)
            limit = min(limit, op.end + (SETTLED if op.optional else 0.0))
    return [number for number in found if operations[number].start <= limit]


def check(lines: Iterable[str]) -> dict[str, Any]:
    """What is said of a whole history, given as lines of JSON."""
    by_id: defaultdict[str, list[Operation]] = defaultdict(list)
    for line in lines:
        op = Operation(**json.loads(line))
        by_id[op.id].append(op)
    wrong = {id: found for id, history in by_id.items() if (found := problem(history))}
    return {
        "ids": len(by_id),
        "operations": sum(map(len, by_id.values())),
        "not linearizable": len(wrong),
        "first of them": [op.__dict__ for op in list(wrong.values())[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", help="what bench/soak.py --history has written")
    with open(parser.parse_args().file) as lines:
        report = check(lines)
    print(json.dumps(report, indent=2))
    raise SystemExit(report["not linearizable"] > 0)


if __name__ == "__main__":
    main()
