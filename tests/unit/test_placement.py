"""Placement: which node owns an id, and which slots a change of the names hands over."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies

from gateway.nodes.membership import Membership
from gateway.nodes.placement import OBJECT_ID, SLOTS_EACH, Names, slots_of
from tests.harness.waiting import owner, random_id, slots_after


def first(names: Sequence[str]) -> Membership:
    """These names, and none before them."""
    return Membership(1, 0.0, tuple(sorted(names)))


def numbered(count: int) -> Membership:
    return first([f"node-{number:02}" for number in range(count)])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12])
def test_an_id_has_the_owner_that_the_formula_says(count: int) -> None:
    membership = numbered(count)
    for id in [random_id() for _ in range(200)]:
        assert membership.owner(id) == owner(id, membership.names)


IDS = strategies.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=32
)


@hypothesis.given(IDS, strategies.integers(1, 64))
def test_before_a_change_the_owner_is_the_digest_as_a_number_modulo_the_nodes(
    object_id: str, nodes: int
) -> None:
    assert OBJECT_ID.fullmatch(object_id)
    membership = numbered(nodes)
    place = int(hashlib.sha256(object_id.encode()).hexdigest(), 16)
    assert membership.owner(object_id) == membership.names[place % nodes]


def test_ids_are_spread_evenly() -> None:
    membership = numbered(5)
    for each in (membership, membership.followed_by([*membership.names[1:], "new"], 0.0)):
        held = Counter(each.owner(f"object{number}") for number in range(10_000))
        assert set(held) == set(each.names)
        assert all(1850 < count < 2150 for count in held.values())


# --------------------------------------------------------------------------------------------------
# The slots, after any changes of the names
# --------------------------------------------------------------------------------------------------

NAMES = strategies.sets(strategies.sampled_from("abcdefg"), min_size=1).map(sorted)
# Any names after any names: several may join and leave in one step.
STEPS = strategies.lists(NAMES, min_size=1, max_size=5)


def after(steps: Sequence[Sequence[str]]) -> list[Membership]:
    """The memberships that these lists of names make, one after another."""
    memberships = [first(steps[0])]
    for names in steps[1:]:
        memberships.append(memberships[-1].followed_by(names, 0.0))
    return memberships


def owners(membership: Membership, number: int) -> list[str]:
    """The owner of each of so many slots, which is a multiple of those that there are."""
    nodes, slots = membership.placement
    return [nodes[node] for node in slots * (number // len(slots))]


few = hypothesis.settings(max_examples=30, deadline=None)


@few
@hypothesis.given(STEPS)
def test_the_slots_are_those_of_a_second_implementation(steps: list[list[str]]) -> None:
    for each in after(steps):
        slots = slots_after(*each.history, each.names)
        assert tuple(owners(each, len(slots))) == slots


@few
@hypothesis.given(STEPS)
def test_after_any_changes_no_name_has_more_than_one_slot_more_than_another(
    steps: list[list[str]],
) -> None:
    for each in after(steps):
        counts = Counter(each.placement.slots)
        assert counts.keys() == set(range(len(each.names)))
        assert max(counts.values()) - min(counts.values()) <= 1
        assert sum(each.share(name) for name in each.names) == pytest.approx(1)
        assert all(
            each.share(name) == pytest.approx(1 / len(each.names), 0.01) for name in each.names
        )
        assert each.share("nobody") == 0


@few
@hypothesis.given(NAMES, NAMES)
def test_a_change_moves_no_slot_that_need_not_move(before: list[str], then: list[str]) -> None:
    old, new = first(before), first(before).followed_by(then, 0.0)
    slots = len(before) * SLOTS_EACH
    moved = [
        (one, other)
        for one, other in zip(owners(old, slots), owners(new, slots), strict=True)
        if one != other
    ]
    left, joined, stayed = {*before} - {*then}, {*then} - {*before}, {*then} & {*before}
    if before == then:
        assert moved == []
        return
    # What those who leave had has to go, and those who join have to have as many as any has at
    # least. Whoever stays gives only to those who join, and takes only from those who leave.
    least = max(len(left) * SLOTS_EACH, len(joined) * (slots // len(then)))
    assert least <= len(moved) <= least + len(then)
    assert all(one in left or other in joined for one, other in moved)
    for name in stayed:
        gave = sum(one == name for one, _ in moved)
        took = sum(other == name for _, other in moved)
        assert not (gave and took)


@few
@hypothesis.given(STEPS, NAMES)
def test_a_change_that_is_taken_back_leaves_what_was_before(
    steps: list[list[str]], names: list[str]
) -> None:
    last = after(steps)[-1]
    back = last.followed_by(names, 0.0).followed_by(last.names, 0.0)
    assert (back.history, back.placement) == (last.history, last.placement)


def test_the_same_lists_of_names_give_these_very_slots_in_every_release() -> None:
    """A gateway of another release that gave others would look for objects elsewhere."""
    history: tuple[Names, ...] = (("a", "b", "c"), ("a", "b", "c", "d"), ("a", "c", "d"))
    slots = slots_of(history, ("a", "c", "d", "e", "f"))
    assert hashlib.sha256(bytes(slots)).hexdigest() == (
        "55c88a0a524af56aa44065542cd993467c0cc9a0362611d7c8dbfb86a8e666dc"
    )


@pytest.mark.parametrize(("count", "joined"), [(1, 2), (2, 3), (3, 4), (4, 7), (12, 13)])
def test_a_fourth_node_takes_a_quarter_where_the_plain_formula_would_move_three_quarters(
    count: int, joined: int
) -> None:
    names = numbered(joined).names
    old, new = first(names[:count]), first(names[:count]).followed_by(names, 0.0)
    ids = [f"object{number}" for number in range(10_000)]
    moved = sum(old.owner(id) != new.owner(id) for id in ids) / len(ids)
    assert moved == pytest.approx((joined - count) / joined, abs=0.02)
