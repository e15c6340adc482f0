"""Growing and shrinking with 2,000 objects under load; `rebalance` killed and started again."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.harness.engine import LAYOUT_BUCKET, Lab
from tests.harness.gateway import Gateway
from tests.harness.layout import (
    Clients,
    Model,
    assert_at_home,
    assert_one_request_upstream,
    let_in,
    rebalance,
    store,
    take_out,
    wait_in_force,
)
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id, together

OBJECTS = 2000

# --------------------------------------------------------------------------------------------------
# Growing and shrinking with 2,000 objects
# --------------------------------------------------------------------------------------------------


@dataclass
class Big:
    """Three nodes with 2,000 objects behind a gateway of three workers.

    Each test leaves three nodes.
    """

    stack: Stack
    gateway: Gateway
    fixed: list[Model]

    def drop(self, node: Node) -> None:
        """Remove the container of a node that was taken out."""
        node.remove()
        self.stack.nodes.remove(node)


@pytest.fixture(scope="module")
def big(lab: Lab) -> Iterator[Big]:
    stack = Stack(lab)
    try:
        stack.add_nodes("123")
        gateway = stack.add_gateway({"WEB_CONCURRENCY": "3"})
        gateway.wait_ready()
        fixed = [Model() for _ in range(OBJECTS)]
        store(gateway, fixed)
        yield Big(stack, gateway, fixed)
    finally:
        stack.close()


def test_2000_objects_are_read_without_a_miss_while_a_fourth_node_joins_and_leaves_under_load(
    big: Big,
) -> None:
    gateway, three = big.gateway, list(big.stack.nodes)
    clients = Clients([gateway], [Model() for _ in range(120)], big.fixed)
    with clients.at_work():
        fourth = big.stack.add_node("4")
        wait_in_force(gateway, big.stack.nodes)
        clients.read_all()  # before anything has moved
        assert gateway.layout()["settled"] is False
        rebalance(gateway)
    clients.read_all()
    assert_at_home(gateway, [*clients.own, *clients.fixed], big.stack.nodes)
    held = {node["name"]: node["objects"] for node in gateway.layout()["nodes"]}
    assert held == {node.name: len(node.ids()) for node in big.stack.nodes}
    for node in big.stack.nodes:
        assert 0.20 < len(node.ids() & {model.id for model in big.fixed}) / OBJECTS < 0.30
    assert_one_request_upstream(gateway, big.fixed[:40], big.stack.nodes)

    with clients.at_work():
        done = gateway.ctl("remove", fourth.name)
        assert done.code == 0, str(done)
    clients.read_all()
    assert_at_home(gateway, [*clients.own, *clients.fixed], three, [fourth])
    assert fourth.ids() == set()
    assert_one_request_upstream(gateway, big.fixed[:40], big.stack.nodes)
    assert gateway.layout()["removed"] == [fourth.name]
    assert [clients.refused[method] for method in ("GET", "HEAD")] == [0, 0]
    big.drop(fourth)


def killed_rebalance(gateway: Gateway, after: bytes, seconds: float) -> int:
    """The exit code of a rebalance that is killed so long after it has printed this, unless it has
    ended by then.
    """
    api, own_id = gateway.stack.lab.docker.api, f"/tmp/{random_id()}"
    command = ["sh", "-c", f"echo $$ >{own_id}; exec python objgwctl.py rebalance"]
    running = api.exec_create(gateway.container.id, command, user="root")["Id"]
    output, over = b"", threading.Event()

    def read() -> None:
        nonlocal output
        for piece in api.exec_start(running, stream=True):
            output += piece
        over.set()

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: over.is_set() or after in output, within=60)
    if not over.wait(seconds):
        kill = f"until [ -s {own_id} ]; do sleep 0.01; done; kill -KILL $(cat {own_id}) || true"
        gateway.run("sh", "-c", kill)
    reader.join()
    state: dict[str, Any] = eventually(
        lambda: (now := api.exec_inspect(running)) and not now["Running"] and now
    )
    return int(state["ExitCode"])


def test_a_rebalance_that_is_killed_ten_times_loses_nothing_and_leaves_nothing_twice(
    big: Big,
) -> None:
    gateway, three = big.gateway, list(big.stack.nodes)
    clients = Clients([gateway], [Model() for _ in range(60)], big.fixed)
    fifth = big.stack.add_node("5")
    wait_in_force(gateway, big.stack.nodes)
    points = (
        [(b"", 1.5)] * 2 + [(b"moving", 1.0)] * 6 + [(b"moving", 8.0)] * 2
    )  # killed within so long after that
    joined = True
    with clients.at_work(3):
        for after, seconds in random.sample(points, len(points)):
            while (
                code := killed_rebalance(gateway, after, random.uniform(0, seconds))
            ) == 0:  # the other way, then
                joined = not joined
                (let_in if joined else take_out)(gateway, fifth)
            assert code == 137
            release_lock(three)
        clients.read_all()
        rebalance(gateway)
    clients.read_all()
    if joined:
        assert_at_home(gateway, [*clients.own, *clients.fixed], [*three, fifth])
        assert gateway.ctl("remove", fifth.name).code == 0
    assert_at_home(gateway, [*clients.own, *clients.fixed], three, [fifth])
    assert [clients.refused[method] for method in ("GET", "HEAD")] == [0, 0]
    big.drop(fifth)


def release_lock(nodes: Iterable[Node]) -> None:
    """As if the time were over for which the lock of a rebalance that was killed is good."""
    for node in nodes:
        node.client().remove_object(LAYOUT_BUCKET, "lock")


def test_the_last_acknowledged_write_wins_over_a_rebalance_and_nothing_deleted_comes_back(
    big: Big,
) -> None:
    """Of three rebalances at once one does it all; the others say so."""
    gateway, three = big.gateway, list(big.stack.nodes)
    own = [Model() for _ in range(600)]
    store(gateway, own)
    clients = Clients([gateway], own)
    sixth = big.stack.add_node("6")
    for nodes, others in (([*three, sixth], []), (three, [sixth])):
        if others:
            take_out(gateway, sixth)
        wait_in_force(gateway, nodes, others)
        with clients.at_work(6):  # each id is as good as untouched when it begins
            done = together([partial(gateway.ctl, "rebalance")] * 3)
        assert sorted(each.code for each in done) == [0, 3, 3], str(done)
        clients.read_all()
        assert_at_home(gateway, [*own, *big.fixed], nodes, others)
    assert clients.refused.total() == 0
    big.drop(sixth)
