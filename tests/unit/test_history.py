"""The judge of a soak's history: histories that one copy of an object could have, and others."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from history import SETTLED, Operation, check, problem

# Each row: operation, version, start, end, and what differs: outcome or condition.
Row = tuple[Any, ...]
RIGHT: dict[str, list[Row]] = {
    "nothing": [],
    "never written": [("GET", 0, 0, 1)],
    "one after another": [("PUT", 1, 0, 1), ("GET", 1, 2, 3), ("PUT", 2, 4, 5), ("GET", 2, 6, 7)],
    "a read beside a write, before it": [("PUT", 1, 0, 9), ("GET", 0, 1, 2), ("GET", 1, 3, 4)],
    "two writes at once, either way": [
        ("PUT", 1, 0, 9),
        ("PUT", 2, 0, 9),
        ("GET", 2, 10, 11),
    ],
    "deleted": [("PUT", 1, 0, 1), ("DELETE", 0, 2, 3), ("GET", 0, 4, 5)],
    "without an answer, and it had an effect, later": [
        ("PUT", 1, 0, 1),
        ("PUT", 2, 2, 3, "unknown"),
        ("GET", 1, 4, 5),
        ("GET", 2, 6, 7),
    ],
    "without an answer, and it had none": [("PUT", 1, 0, 1, "unknown"), ("GET", 0, 99, 100)],
    "a DELETE without an answer, and it had an effect": [
        ("PUT", 1, 0, 1),
        ("DELETE", 0, 2, 3, "unknown"),
        ("GET", 0, 4, 5),
    ],
    "a DELETE without an answer, and it had none": [
        ("PUT", 1, 0, 1),
        ("DELETE", 0, 2, 3, "unknown"),
        ("GET", 1, 4, 5),
        ("GET", 1, 99, 100),
    ],
    "created once": [
        ("PUT", 1, 0, 3, "ok", "absent"),
        ("PUT", 2, 0, 3, "unmet", "absent"),
        ("GET", 1, 4, 5),
    ],
    "replaced by who had seen it": [
        ("PUT", 1, 0, 1),
        ("PUT", 2, 2, 5, "ok", 1),
        ("PUT", 3, 2, 5, "unmet", 1),
        ("GET", 2, 6, 7),
    ],
    "a condition that a write without an answer and without a reader explains": [
        ("PUT", 1, 0, 1),
        ("PUT", 2, 2, 3, "unknown"),
        ("PUT", 3, 4, 5, "unmet", 1),
        ("PUT", 4, 6, 7),
    ],
    "never sent": [("PUT", 1, 0, 1, "unsent"), ("GET", 0, 2, 3)],
    "a read without an answer": [("PUT", 1, 0, 1), ("GET", 0, 2, 3, "unknown")],
}
WRONG: dict[str, list[Row]] = {
    "a lost write": [("PUT", 1, 0, 1), ("GET", 0, 2, 3)],
    "an old version": [("PUT", 1, 0, 1), ("PUT", 2, 2, 3), ("GET", 1, 4, 5)],
    "back and forth": [("PUT", 1, 0, 1), ("PUT", 2, 2, 9), ("GET", 2, 3, 4), ("GET", 1, 5, 6)],
    "read before it was written": [("GET", 1, 0, 1), ("PUT", 1, 2, 3)],
    "read, and never written": [("GET", 7, 0, 1)],
    "it comes back after a DELETE": [("PUT", 1, 0, 1), ("DELETE", 0, 2, 3), ("GET", 1, 4, 5)],
    "without an answer, and gone after it was seen": [
        ("PUT", 1, 0, 1),
        ("PUT", 2, 2, 3, "unknown"),
        ("GET", 2, 4, 5),
        ("GET", 1, 6, 7),
    ],
    "without an answer, and an effect too late": [
        ("PUT", 1, 0, 1, "unknown"),
        ("PUT", 2, 2, 3),
        ("GET", 2, 2 + SETTLED, 3 + SETTLED),
        ("GET", 1, 4 + SETTLED, 5 + SETTLED),
    ],
    "created twice": [("PUT", 1, 0, 3, "ok", "absent"), ("PUT", 2, 0, 3, "ok", "absent")],
    "not created where nothing was": [("PUT", 1, 0, 1, "unmet", "absent")],
    "replaced although another came first": [
        ("PUT", 1, 0, 1),
        ("PUT", 2, 2, 3),
        ("PUT", 3, 4, 5, "ok", 1),
    ],
    "not replaced although it was as seen": [("PUT", 1, 0, 1), ("PUT", 2, 2, 3, "unmet", 1)],
    "two readers see two orders": [
        ("PUT", 1, 0, 9),
        ("PUT", 2, 0, 9),
        ("GET", 1, 10, 11),
        ("GET", 2, 12, 13),
    ],
}


def history(rows: list[Row]) -> list[Operation]:
    """The rows as operations, each of a client of its own."""
    operations = []
    for client, (operation, version, start, end, *rest) in enumerate(rows):
        outcome, condition = [*rest, "ok", None][0], rest[1] if len(rest) > 1 else None
        operations.append(
            Operation(client, operation, "a", version, condition, start, end, outcome)
        )
    return operations


@pytest.mark.parametrize("name", RIGHT)
def test_a_history_that_one_copy_could_have_is_right(name: str) -> None:
    assert problem(history(RIGHT[name])) is None


@pytest.mark.parametrize("name", WRONG)
def test_a_history_that_no_single_copy_could_have_is_wrong(name: str) -> None:
    assert problem(history(WRONG[name])) is not None


def made_up(seed: int) -> list[Operation]:
    """What many clients would see of one copy, whose requests overlap."""
    luck, version, there, rows, seen = random.Random(seed), 0, 0, list[Row](), 0
    for moment in range(2000):
        start, end = moment - luck.random() * 6, moment + luck.random() * 6
        kind = luck.choice(["PUT", "PUT", "GET", "GET", "GET", "create", "match"])
        if kind == "GET":
            rows.append(("GET", there, start, end))
            seen = there
            continue
        version += 1
        condition = {"create": "absent", "match": seen}.get(kind)
        met = condition in (None, there) or (condition == "absent" and not there)
        outcome = "ok" if met else "unmet"
        if met:
            there = version
            outcome = luck.choice(["ok", "ok", "ok", "unknown"])
        rows.append(("PUT", version, start, end, outcome, condition))
    return history(rows)


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_is_judged_quickly_and_one_stale_read_in_it_is_found(seed: int) -> None:
    operations = made_up(seed)
    assert problem(operations) is None
    written = [op for op in operations if op.writes and op.outcome == "ok" and op.end < 500]
    stale = Operation(0, "GET", "a", written[0].version, None, 1500, 1501, "ok")
    assert problem([*operations, stale]) is not None


def test_each_id_is_judged_for_itself_and_the_report_names_what_does_not_fit() -> None:
    rows = [op.__dict__ for op in history([("PUT", 1, 0, 1), ("GET", 1, 2, 3)])]
    rows += [{**row, "id": "b"} for row in rows[1:]]
    report = check(map(json.dumps, rows))
    assert (report["ids"], report["operations"], report["not linearizable"]) == (2, 3, 1)
    assert [op["id"] for op in report["first of them"]] == ["b"]
