"""Placement: which node owns an id."""

from __future__ import annotations

import pytest

from gateway.nodes.placement import owner_name
from tests.harness.waiting import owner, random_id


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12])
def test_an_id_has_the_owner_that_the_formula_says(count: int) -> None:
    names = tuple(sorted(f"node-{n}" for n in range(1, count + 1)))
    for id in [random_id() for _ in range(200)]:
        assert owner_name(names, id) == owner(id, names)
