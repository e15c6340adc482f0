"""Which layouts are of one installation, and which installation a gateway serves that begins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.nodes.layout import Layout
from gateway.nodes.merging import (
    BEGINNING_SECONDS,
    installations,
    merge,
    one_installation,
    own_installation,
    precedes,
    split_off,
)
from gateway.nodes.record_json import dump, load


def begun(at: int, names: str, number: int = 1) -> Layout:
    """A layout of these names, of one letter each, that was begun at this Unix time."""
    return replace(Layout.first(names, unrecorded=names), origin=f"{at:08x}-{number:016x}")


NOW = 1_795_000_000
OLD = replace(Layout.first("abc"), origin="0123456789abcdef")
PAIRS: dict[str, tuple[Layout, Layout, bool]] = {
    "one origin": (begun(NOW, "ab"), begun(NOW, "abc"), True),
    "begun together on the same names": (begun(NOW, "ab"), begun(NOW + 1, "ab", 2), True),
    "begun together, one saw a name less": (begun(NOW, "ab"), begun(NOW, "b", 2), True),
    "begun together, one on all its nodes": (
        begun(NOW, "abc").known("a"),
        begun(NOW, "abc", 2).known("abc"),
        True,
    ),
    "begun together, each on all its nodes": (
        begun(NOW, "ab").known("ab"),
        begun(NOW, "ab", 2).known("ab"),
        False,
    ),
    "each on all its nodes, one has grown since": (
        begun(NOW, "ab").known("ab"),
        begun(NOW, "ab", 2).known("ab").joined("c", 100.0),
        False,
    ),
    "begun together on other names": (begun(NOW, "ab"), begun(NOW, "cd", 2), False),
    "begun together, one took a name over": (
        begun(NOW, "ab"),
        begun(NOW, "cd", 2).joined("a", 100.0),
        False,
    ),
    "begun together, one took a name over long ago": (
        begun(NOW, "ab"),
        begun(NOW, "cd", 2).joined("a", 100.0).settle(),
        False,
    ),
    "begun together, one has grown since": (
        begun(NOW, "ab"),
        begun(NOW, "ab", 2).joined("c", 100.0),
        True,
    ),
    "parted at the same time": (
        begun(NOW, "abcd").split("ab", 100.0),
        begun(NOW, "abcd").split("cd", 100.0),
        False,
    ),
    "begun at another time": (begun(NOW, "ab"), begun(NOW + BEGINNING_SECONDS + 1, "ab", 2), False),
    "of a release that didn't say when": (OLD, replace(OLD, origin="fedcba9876543210"), False),
    "of such a release, and of this one": (OLD, begun(NOW, "abc"), False),
}


@pytest.mark.parametrize("row", PAIRS)
def test_two_origins_are_one_installation_only_where_gateways_began_together(row: str) -> None:
    one, other, same = PAIRS[row]
    assert one_installation(one, other) is one_installation(other, one) is same


def test_a_layout_is_of_one_installation_with_what_becomes_of_it() -> None:
    layout = Layout.first("ab")
    assert one_installation(layout, layout.joined("c", 100.0))


ABC, DEF, G = begun(NOW, "abc"), begun(NOW, "def", 2), begun(NOW, "g", 3)
FUSED = begun(NOW, "abcd", 4)
PARTED, OTHERS = FUSED.split("cd", 100.0), FUSED.split("ab", 100.0)
# By node what it holds as its own record, and the nodes of the installation that is served.
SIGHTS: dict[str, tuple[dict[str, Layout], str]] = {
    "one installation": ({"a": ABC, "b": ABC, "c": ABC}, "abc"),
    "one installation, most of it down": ({"c": ABC}, "c"),
    "a disk of another, first by name": ({"a": ABC, "b": ABC, "0": DEF}, "ab"),
    "a disk of another under a member's name": ({"a": DEF, "b": ABC, "c": ABC}, "bc"),
    "two installations": ({"a": ABC, "b": ABC, "c": ABC, "d": DEF, "e": DEF, "f": DEF}, ""),
    "two installations, a node down in each": ({"a": ABC, "b": ABC, "d": DEF, "e": DEF}, ""),
    "two of which less than half is in sight": ({"a": ABC, "d": DEF}, ""),
    "one, and another of one node": ({"a": ABC, "b": ABC, "c": ABC, "g": G}, ""),
    "parted, one node not told yet": ({"a": PARTED, "b": FUSED}, "ab"),
    "parted, one node not told yet, and it knows more": (
        {"a": PARTED, "b": replace(FUSED, version=9)},
        "ab",
    ),
    "parted, the others not yet": ({"a": PARTED, "b": PARTED, "c": FUSED, "d": FUSED}, "ab"),
    "parted, seen by the others": ({"c": FUSED, "d": FUSED}, "cd"),
    "both parted": ({"a": PARTED, "b": PARTED, "c": OTHERS, "d": OTHERS}, ""),
    "two that are one": ({"a": ABC, "b": begun(NOW, "abc", 9)}, "ab"),
    "a disk of another of the same age": (
        {"a": ABC.known("abc"), "b": begun(NOW, "abc", 9).known("abc"), "c": ABC.known("abc")},
        "ac",
    ),
}


@pytest.mark.parametrize("row", SIGHTS)
def test_a_gateway_that_begins_serves_the_installation_that_is_clearly_its_own(row: str) -> None:
    records, own = SIGHTS[row]
    assert set(own_installation(installations(records.items()))) == set(own)


def test_a_layout_that_was_parted_has_its_own_names_and_objects_anywhere_on_their_nodes() -> None:
    assert (PARTED.names, PARTED.all_names, PARTED.settled) == (("a", "b"), ("a", "b"), False)
    assert not PARTED.memberships[-1].names
    assert PARTED.memberships[0].epoch > FUSED.memberships[0].epoch
    assert PARTED.version > FUSED.version
    assert load(dump(PARTED, "a")) == (PARTED, "a")
    settled = PARTED.settle()
    assert (set(settled.mentioned), settled.split_from) == ({"a", "b"}, FUSED.origin)
    with pytest.raises(ValueError, match="no node would be left"):
        FUSED.split("abcd", 100.0)


def test_records_from_before_a_parting_are_older_ones_on_the_own_nodes_only() -> None:
    assert precedes(FUSED, "b", PARTED)
    assert not precedes(FUSED, "c", PARTED)
    assert not precedes(PARTED, "b", FUSED)
    assert merge(FUSED, PARTED, 1.0) == merge(PARTED, FUSED, 1.0) == PARTED


def test_a_gateway_goes_along_with_a_parting_only_where_it_has_no_node_of_the_others() -> None:
    assert split_off(FUSED, {"a": PARTED, "b": FUSED}, "b") == PARTED
    assert split_off(FUSED, {"a": PARTED, "b": PARTED}, "") == PARTED
    assert split_off(FUSED, {"a": PARTED, "c": FUSED}, "c") is None
    assert split_off(FUSED, {"a": FUSED, "b": FUSED}, "ab") is None
    assert split_off(ABC, {"a": PARTED}, "") is None
