"""What a node without a record holds, and whether it may be taken into a layout by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.nodes.holdings import (
    Holdings,
    first_conflict,
    holdings_of,
    is_unknown,
    may_be_given,
)
from gateway.nodes.layout import TOMBSTONE, Layout
from gateway.nodes.store import NO_RECORD, Record
from gateway.s3.reply import Reply
from tests.harness.waiting import owner


def listing(*keys: str, size: int = 1) -> bytes:
    sized = f"<Size>{size}</Size>"
    bodies = (
        f"<Key>{key}</Key>{sized}" if key > "b" else f"{sized}<Key>{key}</Key>" for key in keys
    )
    return b"".join(f"<Contents>{body}</Contents>".encode() for body in bodies)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()


LISTINGS: dict[str, tuple[int, bytes, Holdings]] = {
    "nothing": (200, listing(), Holdings()),
    "no bucket": (404, error("NoSuchBucket"), Holdings()),
    "objects": (200, listing("a", "b1"), Holdings(("a", "b1"))),
    "other keys": (200, listing("a", "b/c"), Holdings(("a",), other_keys=True)),
    "as long as a tombstone": (
        200,
        listing("a", size=len(TOMBSTONE)),
        Holdings(("a",), like_tombstones=("a",)),
    ),
    "a first page": (
        200,
        listing(*map(str, range(1000))),
        Holdings(tuple(map(str, range(1000))), complete=False),
    ),
    "no right": (
        403,
        error("AccessDenied"),
        Holdings(problem="its objects can't be listed: 403 AccessDenied"),
    ),
    "another 404": (404, b"", Holdings(problem="its objects can't be listed: 404")),
}


@pytest.mark.parametrize("row", LISTINGS)
def test_what_a_node_holds_is_what_the_first_page_of_its_listing_says(row: str) -> None:
    status, body, holdings = LISTINGS[row]
    found = holdings_of(Reply(status, {}, body, 0))
    assert found == holdings
    assert found.empty is (row in ("nothing", "no bucket"))


IDS = [f"id{number}" for number in range(40)]


def of(name: str, names: str) -> Holdings:
    """The objects that plain modulo over these names puts on this one."""
    return Holdings(tuple(id for id in IDS if owner(id, list(names)) == name))


EMPTY, OTHER = Holdings(), Holdings((), other_keys=True)
PLAIN = {name: of(name, "abc") for name in "abc"}
# The names in sight, what the nodes hold that answer, how they are on different networks, and what
# an operator is told where there is no first layout.
FIRSTS: dict[str, tuple[str, dict[str, Holdings], str, str]] = {
    "all empty": ("abc", dict.fromkeys("abc", EMPTY), "", ""),
    "all where modulo puts them": ("abc", PLAIN, "", ""),
    "one down": ("abc", {"a": PLAIN["a"], "b": PLAIN["b"]}, "", ""),
    "one empty": ("abc", {**PLAIN, "b": EMPTY}, "", ""),
    "with keys that no gateway wrote": ("abc", {**PLAIN, "b": OTHER}, "", ""),
    "one more, empty": ("abcd", {**PLAIN, "d": EMPTY}, "", "add a b c"),
    "one more, with objects": ("abcd", {**PLAIN, "d": PLAIN["a"]}, "", "add a b c d"),
    "one of somebody": ("abc", {"a": EMPTY, "b": PLAIN["a"], "c": EMPTY}, "", "add b."),
    "one can't be listed": ("abc", {**PLAIN, "a": Holdings(problem="why")}, "", "add a b c"),
    "no common network": ("ab", dict.fromkeys("ab", EMPTY), "a on x; b on y", "a on x; b on y"),
}


@pytest.mark.parametrize("row", FIRSTS)
def test_the_first_layout_is_made_only_where_nobody_can_have_another(row: str) -> None:
    names, holdings, separate, told = FIRSTS[row]
    conflict = first_conflict(names, holdings, separate)
    assert bool(conflict) is bool(told)
    if conflict:
        assert told in conflict.text
        assert "OBJGW_NETWORK" in conflict.text
        assert "OBJGW_NODE_NAME" in conflict.text


LAYOUT = Layout.first("abc", unrecorded="ab")
OURS = Record(LAYOUT, "a", '"1"')
FOREIGN = Record(replace(LAYOUT, origin="0123456789abcdef"), "a", '"1"')
# A node by its name, record and holdings; the layout; whether it is unknown, and may be given it.
NODES: dict[str, tuple[str, Record, Holdings | None, Layout, bool, bool]] = {
    "new": ("d", NO_RECORD, EMPTY, LAYOUT, False, False),
    "new, in the layout": ("a", NO_RECORD, EMPTY, LAYOUT, False, True),
    "new, not listed yet": ("a", NO_RECORD, None, LAYOUT, False, False),
    "with objects in place": ("a", NO_RECORD, PLAIN["a"], LAYOUT, False, True),
    "with others' objects": ("a", NO_RECORD, PLAIN["b"], LAYOUT, True, False),
    "with others' objects, anywhere": ("a", NO_RECORD, PLAIN["b"], LAYOUT.anywhere(), False, True),
    "with objects, outside": ("d", NO_RECORD, PLAIN["a"], LAYOUT, True, False),
    "with objects, and its record is gone": ("c", NO_RECORD, PLAIN["c"], LAYOUT, True, False),
    "empty, and its record is gone": ("c", NO_RECORD, EMPTY, LAYOUT, False, False),
    "with its record": ("a", OURS, None, LAYOUT, False, True),
    "foreign": ("a", FOREIGN, None, LAYOUT, False, False),
}


@pytest.mark.parametrize("row", NODES)
def test_only_a_node_of_which_it_is_known_what_it_holds_is_given_the_record(row: str) -> None:
    name, record, held, layout, unknown, given = NODES[row]
    assert is_unknown(name, record, held, layout) is unknown
    assert may_be_given(name, record, held, layout) is given
