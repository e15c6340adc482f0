"""Nodes that are gone, or came back empty: nothing is lost in silence, nothing is taken for what it
was.
"""

from __future__ import annotations

from tests.harness.layout import (
    ABSENT,
    JOIN,
    Clients,
    assert_at_home,
    assert_split,
    change_a_third,
    filled,
    names_of,
    rebalance,
    record_of,
    wait_in_force,
)
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner


def test_ids_of_a_node_that_docker_does_not_list_are_503_until_it_is_back_also_after_a_restart(
    stack: Stack,
) -> None:
    one, lost, three = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    others = [stack.id_of(one), stack.id_of(three)]
    lost_ids = [model.id for model in models if stack.owner(model.id) is lost]

    with stack.steady(gateway, others):
        lost.remove()
        assert_split(gateway, models, lost)
    gateway.restart()
    gateway.wait_ready(others)
    assert_split(gateway, models, lost)
    for id in (*lost_ids, stack.id_of(lost)):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert (
                gateway.request(method, f"/object/{id}", b"x" if method == "PUT" else None).status
                == 503
            )
    assert gateway.layout()["names"] == names_of(stack.nodes)
    lost.create(lost.address)
    eventually(lambda: gateway.get(lost_ids[0]).status == 200, within=JOIN)
    Clients([gateway], models).read_all()


def test_a_node_that_came_back_empty_is_not_taken_for_what_it_was_until_that_is_given_up(
    stack: Stack,
) -> None:
    one, lost, three = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    others = [stack.id_of(one), stack.id_of(three)]
    gone = [model for model in models if stack.owner(model.id) is lost]
    eventually(lambda: record_of(lost).unrecorded == ())

    with stack.steady(gateway, others):
        lost.lose()
        lost.create(lost.address)
        for _ in range(5):
            assert_split(gateway, models, lost)
    gateway.restart()
    gateway.wait_ready(others)
    assert_split(gateway, models, lost)
    assert gateway.ctl("check", "--json").code != 0
    assert (
        gateway.put(gone[0].id, b"new").status == 503
    )  # what the node doesn't prove to be, it isn't given

    assert gateway.ctl("remove", "--lost", lost.name).code == 2  # without --yes
    assert_split(gateway, models, lost)
    done = gateway.ctl("remove", "--lost", lost.name, "--yes")
    assert done.code == 0, str(done)
    for model in gone:
        eventually(lambda id=model.id: gateway.get(id).status == 404, within=JOIN)
        model.version = ABSENT
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    assert_at_home(gateway, models, stack.nodes)


def test_a_node_that_is_gone_for_good_is_given_up_and_another_of_its_name_joins(
    stack: Stack,
) -> None:
    *two, lost = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    lost.lose()
    stack.nodes.remove(lost)
    for model in models:
        if owner(model.id, names_of([*two, lost])) == lost.name:
            model.version = ABSENT
    kept = [model for model in models if model.version != ABSENT]
    clients = Clients([gateway], [], kept)
    assert gateway.ctl("remove", lost.name).code == 2  # it would lose something
    assert gateway.ctl("remove", "--lost", lost.name, "--yes", "--no-rebalance").code == 0
    wait_in_force(gateway, two)
    clients.read_all()
    assert {gateway.get(model.id).status for model in models if model.version == ABSENT} == {404}
    change_a_third(gateway, models)
    lost.create(lost.address)
    stack.nodes.append(lost)
    wait_in_force(gateway, stack.nodes)
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    lost.remove()  # and comes back with what it held
    assert_split(gateway, [model for model in models if stack.owner(model.id) is lost], lost)
    lost.create(lost.address)
    eventually(lambda: gateway.get(stack.id_of(lost)).status == 404, within=JOIN)
    Clients([gateway], models).read_all()
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, stack.nodes)
