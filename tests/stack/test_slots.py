"""Growing from one node to seven and back: which objects move, and how many of them."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.layout import (
    JOIN,
    Clients,
    Model,
    assert_at_home,
    filled,
    names_of,
    places,
    rebalance,
    take_out,
)
from tests.harness.node import Node
from tests.harness.stack import Stack

OBJECTS = 600
CHANCE = 0.10  # by which the part of so many objects may differ from the part of all ids


def home_of(nodes: list[Node], models: list[Model]) -> dict[str, str]:
    """By id the name of the node that has it; exactly one has."""
    found = places(nodes, [model.id for model in models])
    assert {len(names) for names in found.values()} == {1}
    return {id: name for id, (name,) in found.items()}


def assert_moved_little(
    gateway: Gateway, before: dict[str, str], models: list[Model], nodes: list[Node]
) -> None:
    """After a rebalance from `before` to these nodes no object has moved that needn't have.

    Of those who stayed nobody has got an object from another of them, and the nodes have as many
    as their part of the ids is.
    """
    old, new = set(before.values()), set(names_of(nodes))
    gateway.wait_layout(new, settled=True)
    after = home_of([*gateway.stack.nodes], models)
    assert all(after[id] == gateway.stack.owner(id).name for id in after)
    moved = {id: (before[id], after[id]) for id in after if before[id] != after[id]}
    needless = [way for way in moved.values() if way[0] in new and way[1] in old]
    assert not needless
    least = len(new - old) / len(new) + len(old - new) / len(old)
    assert len(moved) / len(models) == pytest.approx(least, abs=CHANCE)
    for name in new:
        held = sum(after[id] == name for id in after) / len(models)
        assert held == pytest.approx(1 / len(new), abs=CHANCE)


def test_growing_to_2_3_4_and_7_nodes_and_back_to_3_moves_the_least_and_loses_nothing_under_load(
    stack: Stack,
) -> None:
    stack.add_nodes("1")
    gateway, fixed = filled(stack, OBJECTS)
    clients = Clients([gateway], [Model() for _ in range(60)], fixed)
    with clients.at_work(3):
        for suffixes in ("2", "3", "4", "567"):
            before = home_of(stack.nodes, fixed)
            stack.add_nodes(suffixes)
            gateway.wait_layout(names_of(stack.nodes), within=JOIN)
            rebalance(gateway)
            assert_moved_little(gateway, before, fixed, stack.nodes)
        before = home_of(stack.nodes, fixed)
        three, four = stack.nodes[:3], stack.nodes[3:]
        for node in reversed(four):
            take_out(gateway, node)
        rebalance(gateway)
        stack.nodes = three
        assert_moved_little(gateway, before, fixed, three)
    clients.read_all()
    assert_at_home(gateway, [*clients.own, *fixed], three, four)
    assert [clients.refused[method] for method in ("GET", "HEAD")] == [0, 0]
