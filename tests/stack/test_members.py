"""`objgwctl.py` nodes, add and remove: what they say, and that nothing is done by halves."""

from __future__ import annotations

from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.layout import names_of, record_of, wait_in_force
from tests.harness.stack import Stack
from tests.harness.status import health, samples
from tests.harness.waiting import eventually

SETTLED = "The layout is settled; "


def told(gateway: Gateway) -> str:
    done = gateway.ctl("nodes")
    assert done.code == 0, done
    return done.output


def test_dead_nodes_are_told_and_nothing_is_given_up_by_halves(stack: Stack) -> None:
    *alive, lost, missing = stack.add_nodes("1234")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    kept = [store(gateway, id=stack.id_of(node)) for node in alive]
    eventually(lambda: all(not record_of(node).unrecorded for node in stack.nodes))
    eventually(lambda: SETTLED in told(gateway))
    before = record_of(alive[0])
    missing.remove()
    lost.lose()
    stack.nodes[:] = alive

    said = told(gateway)
    assert SETTLED not in said
    assert f"{missing.name} is in the layout, and Docker doesn't list it" in said
    assert f"remove --lost {lost.name}" in said
    refused = gateway.ctl("remove", lost.name)
    assert (refused.code, f"remove --lost {lost.name}" in refused.errors) == (2, True)
    refused = gateway.ctl("remove", "--lost", "--yes", lost.name)
    assert (refused.code, missing.name in refused.errors) == (2, True)
    assert "given up" not in refused.output.replace("is given up; how many", "")
    refused = gateway.ctl("remove", "--lost", "--yes", lost.name, "no-such-node")
    assert refused.code == 2
    assert record_of(alive[0]) == before

    done = gateway.ctl("remove", "--lost", "--yes", lost.name, missing.name)
    assert done.code == 0, done
    assert gateway.layout()["names"] == names_of(alive)
    assert len(record_of(alive[0]).memberships) == 1
    assert SETTLED in told(gateway)
    assert {gateway.get(id).status for id in kept} == {200}
    assert gateway.ctl("remove", *names_of(alive)).code == 2  # none would be left


def test_nodes_that_leave_together_are_told_also_when_one_of_them_is_gone(stack: Stack) -> None:
    stays, *leaving = stack.add_nodes("123")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    ids = [store(gateway, id=stack.id_of(node)) for node in stack.nodes]
    eventually(lambda: all(not record_of(node).unrecorded for node in stack.nodes))
    assert gateway.ctl("remove", "--no-rebalance", *names_of(leaving)).code == 0
    assert len(record_of(stays).memberships) == 2  # one change for both
    wait_in_force(gateway, [stays], leaving)

    def roles() -> dict[str, tuple[str, str]]:
        return {each["name"]: (each["role"], each["state"]) for each in health(gateway)["nodes"]}

    gone, other = leaving
    assert roles()[gone.name] == ("leaving", "up")
    gone.stop()
    eventually(lambda: roles()[gone.name] == ("leaving", "stopped"))
    assert roles() == {
        stays.name: ("member", "up"),
        gone.name: ("leaving", "stopped"),
        other.name: ("leaving", "up"),
    }
    assert health(gateway)["status"] == "degraded"
    assert samples(gateway, "objgw_node_up")[(gone.name,)] == 0
    assert gateway.get(ids[1]).status == 503
    assert f"{gone.name} doesn't run" in told(gateway)
    gone.start()
    assert gateway.ctl("add", *names_of(leaving)).code == 0
    wait_in_force(gateway, stack.nodes)
    eventually(lambda: {gateway.get(id).status for id in ids} == {200})
    assert gateway.ctl("rebalance").code == 0
    assert {gateway.get(id).status for id in ids} == {200}
    assert {role for role, _ in roles().values()} == {"member"}
