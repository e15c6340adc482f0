"""The layout's record and its rules: which memberships count, what a change makes, what two records
say together.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest

from gateway.nodes.layout import (
    HOLD_SECONDS,
    LEASE_SECONDS,
    POLL_SECONDS,
    SWITCH_SECONDS,
    WRITE_SECONDS,
    Layout,
)
from gateway.nodes.membership import ANYWHERE, Membership
from gateway.nodes.merging import merge
from gateway.nodes.poller import CALM_SECONDS
from gateway.nodes.record_json import dump, load
from tests.harness.waiting import owner


def test_a_switch_comes_after_every_lease_and_hold_that_could_miss_it() -> None:
    assert POLL_SECONDS < LEASE_SECONDS
    assert SWITCH_SECONDS > LEASE_SECONDS + 2 * HOLD_SECONDS + POLL_SECONDS / 2
    # The leader has written it when its looks stop; a worker then takes its word for a lease.
    assert SWITCH_SECONDS > WRITE_SECONDS + LEASE_SECONDS + POLL_SECONDS + HOLD_SECONDS
    assert CALM_SECONDS + POLL_SECONDS <= LEASE_SECONDS


ABC = Layout("one", 7, (Membership(3, 100.0, ("a", "b", "c")),))

GROWN = ABC.joined(["d"], 200.0)

SHRUNK = GROWN.without(["b"], 201.0)

WAS = (("a", "b", "c"),)  # the history of what comes after ABC

NEW = Membership(4, 200.0 + SWITCH_SECONDS, ("a", "b", "c", "d"), WAS)

NEW_BY_MODULO = Membership(4, 200.0 + SWITCH_SECONDS, ("a", "b", "c", "d"))

CHANGES: dict[str, tuple[Layout, Layout]] = {  # what comes of it, what must
    "grown": (GROWN, Layout("one", 8, (NEW, *ABC.memberships), unrecorded=("d",))),
    "grown before anything is stored": (
        ABC.joined(["d"], 200.0, anew=True),
        Layout("one", 8, (NEW_BY_MODULO, *ABC.memberships), unrecorded=("d",)),
    ),
    "grown twice": (
        GROWN.joined(["0"], 202.0),
        Layout(
            "one",
            9,
            (
                Membership(5, 202.0 + SWITCH_SECONDS, ("0", "a", "b", "c", "d"), (*WAS, NEW.names)),
                *GROWN.memberships,
            ),
            unrecorded=("0", "d"),
        ),
    ),
    "grown by what was removed": (
        replace(ABC, removed=("d", "e")).joined(["d"], 200.0),
        Layout("one", 8, (NEW, *ABC.memberships), unrecorded=("d",), removed=("e",)),
    ),
    "grown when all was moved": (
        replace(GROWN, moved=True).joined(["e"], 300.0),
        GROWN.joined(["e"], 300.0),
    ),
    "shrunk": (
        ABC.without(["b"], 200.0),
        Layout(
            "one",
            8,
            (Membership(4, 200.0 + SWITCH_SECONDS, ("a", "c"), WAS), *ABC.memberships),
            removed=("b",),
        ),
    ),
    "shrunk by what was lost": (
        ABC.without(["b"], 200.0, lost=True),
        Layout(
            "one",
            8,
            (Membership(4, 200.0 + SWITCH_SECONDS, ("a", "c"), WAS), *ABC.memberships),
            lost=("b",),
        ),
    ),
    "shrunk by what has just joined": (
        GROWN.without(["d"], 201.0),
        Layout(
            "one",
            9,
            (Membership(5, 201.0 + SWITCH_SECONDS, ("a", "b", "c")), *GROWN.memberships),
            removed=("d",),
        ),
    ),
    "grown by what has just left": (
        SHRUNK.joined(["b"], 202.0),
        Layout(
            "one",
            10,
            (
                Membership(6, 202.0 + SWITCH_SECONDS, ("a", "b", "c", "d"), WAS),
                *SHRUNK.memberships,
            ),
            unrecorded=("b", "d"),
        ),
    ),
    "one that is there is to get a record once more": (
        GROWN.joined(["a"], 202.0),
        Layout(
            "one",
            9,
            (Membership(5, 202.0 + SWITCH_SECONDS, NEW.names, WAS), *GROWN.memberships),
            unrecorded=("a", "d"),
        ),
    ),
    "switched no earlier than before": (
        ABC.joined(["d"], 200.0).joined(["e"], 100.0),
        Layout(
            "one",
            9,
            (
                Membership(5, 200.0 + SWITCH_SECONDS, ("a", "b", "c", "d", "e"), (*WAS, NEW.names)),
                *GROWN.memberships,
            ),
            unrecorded=("d", "e"),
        ),
    ),
    "grown above the epochs of others": (
        ABC.joined(["d"], 200.0, above=7),
        Layout("one", 8, (replace(NEW, epoch=8), *ABC.memberships), unrecorded=("d",)),
    ),
    "taken in under a name that is there": (
        ABC.joined(["b"], 200.0),
        Layout(
            "one",
            8,
            (Membership(4, 200.0 + SWITCH_SECONDS, ("a", "b", "c")), *ABC.memberships),
            unrecorded=("b",),
        ),
    ),
    "shrunk by two": (
        ABC.without(["b", "c"], 200.0),
        Layout(
            "one",
            8,
            (Membership(4, 200.0 + SWITCH_SECONDS, ("a",), WAS), *ABC.memberships),
            removed=("b", "c"),
        ),
    ),
    "anywhere, also twice": (
        ABC.anywhere().anywhere(),
        Layout("one", 9, (*ABC.memberships, ANYWHERE)),
    ),
    "known": (GROWN.known(["d"]), Layout("one", 9, GROWN.memberships)),
    "known before": (GROWN.known(["a"]), GROWN),
    "all moved": (
        GROWN.all_moved(),
        Layout("one", 9, GROWN.memberships, moved=True, unrecorded=("d",)),
    ),
    "settled": (
        replace(GROWN, moved=True, lost=("b",), removed=("e",)).settle(),
        Layout("one", 9, (NEW,), unrecorded=("d",), removed=("e",)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_layout_makes_what_the_table_says(change: str) -> None:
    made, expected = CHANGES[change]
    assert made == expected


def test_gateways_that_make_the_first_layout_at_once_leave_it_settled() -> None:
    one, other = (
        Layout.first("abc", unrecorded="abc"),
        Layout.first("abc", unrecorded="abc").known("c"),
    )
    merged = merge(one, other, 0.0)
    assert merged == merge(other, one, 5.0)
    assert (merged.version, merged.memberships, merged.unrecorded) == (
        3,
        one.memberships,
        ("a", "b", "c"),
    )
    assert not merge(one, Layout.first("abcd"), 0.0).settled


@pytest.mark.parametrize("name", ["x", ""])
def test_what_is_not_in_the_layout_can_not_be_taken_out(name: str) -> None:
    with pytest.raises(ValueError, match="isn't in the layout"):
        ABC.without([name], 0.0)


def test_the_last_node_can_not_be_taken_out() -> None:
    with pytest.raises(ValueError, match="no node would be left"):
        Layout.first(["a"]).without(["a"], 0.0)


IN_FORCE: dict[str, tuple[Layout, float, list[int]]] = {  # layout, now, the eras that count
    "one spread": (ABC, 200.0, [3]),
    "one spread, whatever the clock says": (ABC, 0.0, [3]),
    "before the switch": (GROWN, GROWN.memberships[0].since - 0.1, [3]),
    "from the switch on": (GROWN, GROWN.memberships[0].since, [4, 3]),
    "between two switches": (SHRUNK, SHRUNK.memberships[0].since - 0.5, [4, 3]),
    "after both": (SHRUNK, SHRUNK.memberships[0].since, [5, 4, 3]),
    "nothing yet": (GROWN, 0.0, [3]),
}


@pytest.mark.parametrize("row", IN_FORCE)
def test_a_spread_is_in_force_from_its_time_on(row: str) -> None:
    layout, now, eras = IN_FORCE[row]
    assert [membership.epoch for membership in layout.in_force(now)] == eras


def test_names_of_older_spreads_are_still_names_but_for_those_given_up() -> None:
    assert SHRUNK.names == ("a", "c", "d")
    assert SHRUNK.all_names == ("a", "b", "c", "d")
    assert ABC.without(["b"], 0.0, lost=True).all_names == ("a", "c")
    assert (ABC.settled, SHRUNK.settled, SHRUNK.settle().settled) == (True, False, True)


def test_a_lost_name_that_joins_again_counts_again() -> None:
    layout = ABC.without(["b"], 0.0, lost=True).joined(["b"], 10.0)
    assert layout.names == layout.all_names == ("a", "b", "c")


RECORD = b"""\
{
 "origin": "5f1c0a9be4d27731",
 "version": 12,
 "spreads": [
  {
   "era": 4,
   "since": 1764061200.25,
   "names": [
    "node-1",
    "node-2",
    "node-4"
   ]
  },
  {
   "era": 3,
   "since": 1764057600,
   "names": [
    "node-1",
    "node-2",
    "node-3"
   ]
  },
  {
   "era": 0,
   "since": 0.0,
   "names": []
  }
 ],
 "moved": true,
 "fresh": [
  "node-4"
 ],
 "removed": [
  "node-3"
 ],
 "lost": [
  "node-0"
 ],
 "node": "node-1"
}"""

RECORDED = Layout(
    "5f1c0a9be4d27731",
    12,
    (
        Membership(4, 1764061200.25, ("node-1", "node-2", "node-4")),
        Membership(3, 1764057600, ("node-1", "node-2", "node-3")),
        Membership(0, 0.0, ()),
    ),
    moved=True,
    unrecorded=("node-4",),
    removed=("node-3",),
    lost=("node-0",),
)


def test_the_record_of_existing_installations_is_read_and_written_to_the_byte() -> None:
    assert load(RECORD) == (RECORDED, "node-1")
    assert dump(RECORDED, "node-1") == RECORD


def test_histories_are_in_a_key_of_their_own_that_older_releases_refuse() -> None:
    """They refuse what they don't know, as this one does, but not within a spread."""
    grown = RECORDED.joined(["node-5"], 1764064800.0)
    document = json.loads(dump(grown, "node-1"))
    assert document.keys() - json.loads(RECORD).keys() == {"steps"}
    assert document["steps"] == [[["node-1", "node-2", "node-4"]], [], [], []]
    assert document["spreads"][1:] == json.loads(RECORD)["spreads"]
    assert {*document["spreads"][0]} == {"era", "since", "names"}
    assert load(dump(grown, "node-1")) == (grown, "node-1")


GOOD = json.loads(dump(SHRUNK, "a"))

BAD_RECORDS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<Error>",
    "no text": b"\xff\xfe",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "empty": b"{}",
    **{f"without {name}": json.dumps({k: v for k,
    v in GOOD.items() if k != name}).encode() for name in GOOD},
    **{
        f"{name}: {value}": json.dumps({**GOOD, name: value}).encode()
        for name, value in [
            ("unknown", 1), ("version", "1"), ("version", None), ("origin", 1), ("node", None),
            ("removed", [1]),
            ("lost", None), ("spreads", []), ("spreads", [1]), ("spreads", [{}]),
            ("spreads", [{"era": 1, "since": 0, "names": []}]), ("spreads", [{"era": 1, "since": 0,
            "names": [1]}]),
            ("spreads", [{"era": "1", "since": 0, "names": ["a"]}]),
            ("spreads", [{"era": 1, "since": None, "names": ["a"]}]),
            ("steps", None), ("steps", []), ("steps", [[["a"]]]), ("steps", [[], [], [], []]),
            ("steps", [[[]], [], []]), ("steps", [[["a"], []], [], []]),
            ("steps", [[[1]], [], []]), ("steps", [["a", 1], [], []]), ("steps", [1, 2, 3]),
        ]
    },
}  # fmt: skip

del BAD_RECORDS["without moved"]  # it has a default
del BAD_RECORDS["without steps"]  # as in a record of earlier releases


@pytest.mark.parametrize("row", BAD_RECORDS)
def test_a_record_that_is_not_one_is_a_value_error(row: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load(BAD_RECORDS[row])


NAMES = some.lists(some.sampled_from("abcdef"), min_size=1, unique=True).map(sorted)


@some.composite
def layouts(draw: Any) -> Layout:
    """Any layout that a few changes can make."""
    layout = replace(
        Layout.first(draw(NAMES)),
        origin=draw(some.sampled_from("xy")),
    )
    now = 0.0
    for change in draw(
        some.lists(
            some.sampled_from(["join", "without", "lost", "known", "anywhere", "moved", "settle"])
        )
    ):
        now += draw(some.floats(0, 20))
        names = draw(NAMES)
        if change == "join":
            layout = layout.joined(names, now)
        elif change == "anywhere":
            layout = layout.anywhere()
        elif change == "known":
            layout = layout.known(names)
        elif change == "moved":
            layout = layout.all_moved()
        elif change == "settle":
            layout = layout.settle()
        elif names[0] in layout.names and len(layout.names) > 1:
            layout = layout.without(names[:1], now, lost=change == "lost")
    return layout


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(layouts(), some.sampled_from("abc"))
def test_a_record_is_read_as_it_was_written(layout: Layout, node: str) -> None:
    assert load(dump(layout, node)) == (layout, node)


def homes(layout: Layout, id: str) -> set[str] | None:
    """The names where an object may be, once all spreads are in force; None: anywhere."""
    if not all(membership.names for membership in layout.memberships):
        return None
    return {owner(id, each.names, each.history) for each in layout.memberships}


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(layouts(), layouts(), some.floats(0, 100))
def test_what_two_records_say_together_does_not_depend_on_their_order_and_forgets_no_home(
    one: Layout, other: Layout, now: float
) -> None:
    merged = merge(one, other, now)
    assert merged == merge(other, one, now)
    assert merge(merged, one, now + 1) == merged or merged.origin != one.origin
    if one.origin == other.origin and one.version != other.version:
        assert merged == max(one, other, key=lambda layout: layout.version)
    elif one.memberships == other.memberships:  # both are true
        assert (merged == one) == (one == other)
        assert merged.memberships == one.memberships
        assert {*merged.unrecorded} == {*one.unrecorded, *other.unrecorded}
    else:
        assert merged.version > max(one.version, other.version)
        assert set(merged.names) == {*one.names, *other.names}
        assert homes(merged, "abc") is None
        assert merged.memberships[0].history == ()
        assert not merged.settled
        assert merged.memberships[0].since == now + SWITCH_SECONDS
        assert merged.memberships[0].epoch > max(
            membership.epoch for layout in (one, other) for membership in layout.memberships
        )
        assert not {*merged.removed, *merged.lost} & set(merged.names)
