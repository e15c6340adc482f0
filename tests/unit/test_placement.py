"""Placement: which node owns an id."""

from __future__ import annotations

import hashlib
from collections import Counter

import hypothesis
import pytest
from hypothesis import strategies

from gateway.nodes.placement import OBJECT_ID, owner_name
from tests.harness.waiting import owner, random_id


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12])
def test_an_id_has_the_owner_that_the_formula_says(count: int) -> None:
    names = tuple(sorted(f"node-{n}" for n in range(1, count + 1)))
    for id in [random_id() for _ in range(200)]:
        assert owner_name(names, id) == owner(id, names)


IDS = strategies.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=32
)


@hypothesis.given(IDS, strategies.integers(1, 64))
def test_the_owner_is_the_digest_as_a_number_modulo_the_nodes(object_id: str, nodes: int) -> None:
    assert OBJECT_ID.fullmatch(object_id)
    names = [f"node-{number:02}" for number in range(nodes)]
    assert (
        owner_name(names, object_id)
        == names[int(hashlib.sha256(object_id.encode()).hexdigest(), 16) % nodes]
    )


def test_ids_are_spread_evenly() -> None:
    names = [f"node-{number}" for number in range(5)]
    held = Counter(owner_name(names, f"object{number}") for number in range(10_000))
    assert set(held) == set(names)
    assert all(1850 < count < 2150 for count in held.values())
