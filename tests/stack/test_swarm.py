"""Docker Swarm, for real: tasks come, go, wait and move, and an id has the same node throughout."""

from __future__ import annotations

import json
import re
import secrets
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.engine import CHECKOUT, DOCKER_SOCKET, MINIO, Lab
from tests.harness.swarm import GATEWAY, NODES, OVERLAY, READ, SERVICES, Engine, Swarm, swarm_of
from tests.harness.waiting import eventually


@pytest.fixture(scope="module")
def swarm(lab: Lab) -> Iterator[Swarm]:
    """One host with the stack."""
    with swarm_of(lab, "host-1") as swarm:
        swarm.deploy(dict.fromkeys("123", "host-1"))
        yield swarm


@pytest.fixture
def pile(swarm: Swarm) -> Iterator[str]:
    """The beginning of a name for services that the running gateway doesn't take for nodes."""
    marker = f"pile{secrets.token_hex(4)}"
    yield marker
    swarm.manager.shell(f"docker service ls -q -f name={marker} | xargs -r docker service rm")


def sleeping(name: str, *options: str) -> str:
    """The command for a service that does nothing, on the network of the gateway."""
    given = " ".join(
        ["-d", "--name", name, "--network", OVERLAY, "--stop-signal", "KILL", *options]
    )
    return f"service create {given} --entrypoint sleep {MINIO} 9999"


# --------------------------------------------------------------------------------------------------
# One host
# --------------------------------------------------------------------------------------------------


def test_each_id_is_stored_on_the_task_of_its_service_and_slot(swarm: Swarm) -> None:
    for name in NODES:
        id, volume = swarm.id_of(name), f"objgw_node-{name[-3]}"
        assert swarm.gateway.put(id, id.encode()).status == 200
        assert swarm.has(id)
        assert swarm.holders(id) == {("host-1", volume)}
        assert f"node {name} " in swarm.log()


def test_a_replaced_task_is_the_same_node(swarm: Swarm) -> None:
    ids = swarm.store()
    old = swarm.running(SERVICES[1])
    with (
        swarm.stack.steady(swarm.gateway, [ids[NODES[0]], ids[NODES[2]]]),
        swarm.statuses(ids[NODES[1]]) as seen,
    ):
        swarm.manager.docker(f"service update -d --force {SERVICES[1]}")
        eventually(lambda: swarm.running(SERVICES[1]) != old, within=120)
        eventually(swarm.has, ids[NODES[1]], within=120)
    assert seen == {200, 503}
    assert old in {
        task["ID"] for task in swarm.tasks(SERVICES[1])
    }  # it is listed still, and doesn't count
    for name in NODES:
        id = swarm.id_of(name)
        assert swarm.gateway.put(id, id.encode()).status == 200
        assert swarm.holders(id) == {("host-1", f"objgw_node-{name[-3]}")}


def test_a_task_that_waits_for_a_host_keeps_its_place(swarm: Swarm) -> None:
    ids = swarm.store()
    with swarm.stack.steady(swarm.gateway, [ids[NODES[1]], ids[NODES[2]]]):
        swarm.manager.docker("node update --label-rm objgw-node-1 host-1")
        eventually(lambda: swarm.gateway.get(ids[NODES[0]]).status == 503, within=120)
        assert swarm.records(SERVICES[0])[NODES[0]]["host"] is None
        refusal = swarm.gateway.put(ids[NODES[0]], b"")
        assert refusal.status == 503
        assert "Retry-After" in refusal.headers
        swarm.manager.docker("node update --label-add objgw-node-1=true host-1")
        eventually(swarm.has, ids[NODES[0]], within=120)


def test_names_come_and_go_with_the_scale_and_not_with_the_tasks(swarm: Swarm, pile: str) -> None:
    swarm.manager.docker(sleeping(pile, "--replicas 2 --update-parallelism 0"))
    before = swarm.records(pile, {f"{pile}.1": True, f"{pile}.2": True})
    old = {each["container"] for each in before.values()}
    swarm.manager.docker(f"service update -d --force {pile}")
    eventually(
        lambda: (
            not old
            & {task["ID"] for task in swarm.tasks(pile) if task["DesiredState"] == "running"}
        )
    )
    after = swarm.records(pile, {f"{pile}.1": True, f"{pile}.2": True})
    assert not old & {each["container"] for each in after.values()}
    swarm.manager.docker(f"service scale -d {pile}=3")
    swarm.records(pile, {f"{pile}.{slot}": True for slot in "123"})
    swarm.manager.docker(f"service update -d --constraint-add node.hostname==nowhere {pile}")
    swarm.records(pile, {f"{pile}.{slot}": False for slot in "123"})
    swarm.manager.docker(f"service scale -d {pile}=0")
    swarm.records(pile, {})


def test_labels_of_a_service_and_of_its_containers_say_what_its_tasks_are(
    swarm: Swarm, pile: str
) -> None:
    given = f"--label objgw.node=cold-{pile} --label objgw.port=1 --container-label objgw.port=9100"
    swarm.manager.docker(sleeping(f"{pile}-web", "--replicas 2", given))
    records = swarm.records("no-name-has-this", {f"cold-{pile}.1": True, f"cold-{pile}.2": True})
    assert {record["port"] for record in records.values()} == {9100}
    swarm.manager.docker(f"service update -d --label-add objgw.port=9200 {pile}-web")
    swarm.manager.docker(f"service update -d --container-label-rm objgw.port {pile}-web")

    def changed() -> bool:
        now = swarm.records("no-name-has-this")
        return {record["port"] for record in now.values() if record["host"]} == {9200}

    eventually(changed, within=120)
    # Whatever name others look for, they would find these, too.
    swarm.manager.docker(f"service rm {pile}-web")
    eventually(lambda: not swarm.records("no-name-has-this"), within=120)


def test_a_task_of_a_global_service_is_named_after_its_host(swarm: Swarm, pile: str) -> None:
    swarm.manager.docker(sleeping(pile, "--mode global"))
    swarm.records(pile, {f"{pile}.{swarm.manager.docker_read('node ls -q')}": True})


def test_jobs_and_services_on_other_networks_are_no_nodes(swarm: Swarm, pile: str) -> None:
    swarm.manager.docker("network create -d overlay elsewhere")
    swarm.manager.docker(sleeping(f"{pile}-far").replace(OVERLAY, "elsewhere"))
    swarm.manager.docker(sleeping(f"{pile}-job", "--mode replicated-job"))
    for service in (f"{pile}-far", f"{pile}-job"):
        eventually(swarm.running, service, within=120)
    swarm.manager.docker(sleeping(f"{pile}-near"))
    swarm.records(pile, {f"{pile}-near.1": True})


def test_containers_beside_the_services_count_as_ever(swarm: Swarm, pile: str) -> None:
    """On a network that both can be attached to; so can a gateway that is no task."""
    swarm.manager.docker("network create -d overlay --attachable both")
    swarm.manager.docker(
        f"run -d --name {pile}-alone --network both --entrypoint sleep {MINIO} 9999"
    )
    swarm.manager.docker(sleeping(f"{pile}-task").replace(OVERLAY, "both"))
    eventually(swarm.running, f"{pile}-task", within=120)
    run = (
        f"docker run --rm --network both -v {DOCKER_SOCKET}:{DOCKER_SOCKET} "
        f"{swarm.stack.lab.image} python -c"
    )
    (records,) = eventually(lambda: [json.loads(swarm.manager.read(*run.split(), READ, pile))])
    assert [record["name"] for record in records] == [f"{pile}-alone", f"{pile}-task.1"]
    assert len({record["host"] for record in records} - {None}) == 2
    swarm.manager.docker(f"rm -f {pile}-alone")


def test_keys_that_can_not_be_read_make_a_node_unusable_and_the_log_says_so_once(
    swarm: Swarm, pile: str
) -> None:
    password = secrets.token_hex(20)
    swarm.add_secret(pile, password)
    env = "--env MINIO_ROOT_USER=someone --env MINIO_ROOT_PASSWORD_FILE"
    swarm.manager.docker(sleeping(f"{pile}-locked", f"{env}=/run/secrets/{pile} --secret {pile}"))
    swarm.manager.docker(
        sleeping(f"{pile}-open", f"{env}=nothing --env MINIO_ROOT_PASSWORD=something")
    )

    def read() -> tuple[str, list[str], list[dict[str, Any]]]:
        command = f"docker exec {swarm.gateway_container()} python -c '{READ}' {pile} 2>&1"
        done = swarm.manager.read("sh", "-c", command)
        *lines, printed = done.splitlines()
        records = json.loads(printed)
        assert len(records) == 2
        return done, lines, records

    done, lines, (locked, usable) = eventually(read)
    assert (locked["name"], locked["host"]) == (f"{pile}-locked.1", None)
    assert (usable["name"], usable["access_key"], usable["secret_key"]) == (
        f"{pile}-open.1",
        "someone",
        "something",
    )
    assert len([line for line in lines if f"{pile}-locked.1" in line]) == 1
    assert "No such file" in done
    assert password not in done


def test_a_node_is_added_and_taken_out_as_the_documents_say(swarm: Swarm) -> None:
    """`objgwctl.py` begins as root, which may not read the gateway's secrets."""
    ids, fourth = swarm.store(), SERVICES[0].replace("node-1", "node-4")
    _, _, text = (CHECKOUT / "docs/swarm.md").read_text().partition("**A fourth node**")
    (described,) = re.findall(r"\n\n((?:    .*\n|\n)*?)\nThe gateways are replaced", text)
    swarm.manager.add_files({"node-4.yml": textwrap.dedent(described)})
    swarm.passwords["4"] = secrets.token_hex(20)
    swarm.stack.secrets.add(swarm.passwords["4"])
    swarm.manager.docker("node update --label-add objgw-node-4=true host-1")
    swarm.add_secret("objgw-node-4", swarm.passwords["4"])

    swarm.deploy_files("stack.yml", "changes.yml", "node-4.yml")
    names = [*NODES, f"{fourth}.1"]
    eventually(lambda: swarm.ctl("nodes")["names"] == names, within=120)

    def all_run() -> bool:
        return {node["state"] for node in swarm.ctl("nodes")["nodes"]} == {"running"}

    eventually(all_run, within=120)
    swarm.ctl("rebalance")
    eventually(lambda: swarm.ctl("check")["clean"], within=120)
    assert all(map(swarm.has, ids.values()))

    swarm.ctl("remove", f"{fourth}.1")
    swarm.manager.docker(f"service rm {fourth}")
    swarm.deploy_files("stack.yml", "changes.yml")
    eventually(lambda: [swarm.manager.docker("secret rm objgw-node-4")], within=120)
    eventually(lambda: swarm.ctl("nodes")["names"] == NODES, within=120)
    eventually(lambda: swarm.ctl("check")["clean"], within=120)
    eventually(lambda: all(map(swarm.has, ids.values())), within=120)


def test_keys_can_be_rotated(swarm: Swarm) -> None:
    """A secret never changes: another one takes its place, in the gateway first, whatever its file
    is called there.
    """
    ids, password = swarm.store(), secrets.token_hex(20)
    swarm.add_secret("objgw-node-3b", password)
    swarm.stack.secrets.add(password)
    swarm.manager.docker(
        f"service update --secret-add "
        f"source=objgw-node-3b,target=third,uid=65534,mode=0400 {GATEWAY}"
    )
    eventually(swarm.has, ids[NODES[2]], within=120)
    with swarm.stack.steady(swarm.gateway, [ids[NODES[0]], ids[NODES[1]]]):
        swap = "--secret-rm objgw-node-3 --secret-add source=objgw-node-3b,target=objgw-node-3"
        swarm.manager.docker(f"service update {swap} {SERVICES[2]}")
        eventually(swarm.has, ids[NODES[2]], within=120)
    assert swarm.records(SERVICES[2])[NODES[2]]["secret_key"] == password


# --------------------------------------------------------------------------------------------------
# Two hosts
# --------------------------------------------------------------------------------------------------


def copy(volume: str, source: Engine, target: Engine) -> None:
    """What is in the volume of one engine replaces what is in that of the other."""
    folder = f"/var/lib/docker/volumes/{volume}/_data"
    stream, _ = source.container.get_archive(f"{folder}/.")
    target.docker(f"volume create {volume}")
    target.shell(f"rm -rf {folder}/* {folder}/.minio.sys")
    assert target.container.put_archive(folder, b"".join(stream))


@pytest.mark.swarm2
def test_a_node_that_moves_to_another_host_is_the_same_node(lab: Lab) -> None:
    with swarm_of(lab, "host-1", "host-2") as swarm:
        first, second = swarm.engines
        swarm.deploy({"1": "host-1", "2": "host-1", "3": "host-2"})
        ids = swarm.store()
        assert swarm.holders(ids[NODES[0]]) == {("host-1", "objgw_node-1")}
        assert swarm.holders(ids[NODES[2]]) == {("host-2", "objgw_node-3")}  # by the overlay

        moving, old = ids[NODES[1]], swarm.running(SERVICES[1])
        with swarm.stack.steady(swarm.gateway, [ids[NODES[0]], ids[NODES[2]]]):
            first.docker("node update --label-rm objgw-node-2 host-1")
            eventually(lambda: swarm.gateway.get(moving).status == 503, within=120)
            with swarm.statuses(moving) as seen:
                assert swarm.records(SERVICES[1])[NODES[1]]["host"] is None
                eventually(
                    lambda: not first.docker_read(f"ps -q --filter name={NODES[1]}"), within=120
                )
                copy("objgw_node-2", first, second)
            assert seen == {503}
            first.docker("node update --label-add objgw-node-2=true host-2")
            eventually(swarm.has, moving, within=120)
        assert swarm.running(SERVICES[1]) != old
        assert not first.docker_read(f"ps -q --filter name={NODES[1]}")
        assert second.docker_read(f"ps -q --filter name={NODES[1]}")
        assert swarm.gateway.put(moving, b"after").status == 200
        assert swarm.gateway.get(moving).body == b"after"

        # Without its volume the place is the same, and nobody is told that what was stored never
        # was.
        id = ids[NODES[0]]
        first.docker("node update --label-rm objgw-node-1 host-1")
        eventually(lambda: swarm.gateway.get(id).status == 503, within=120)
        first.docker("node update --label-add objgw-node-1=true host-2")
        eventually(lambda: "lost" in swarm.gateway.get(id).problem["detail"], within=120)
        first.docker("node update --label-rm objgw-node-1 host-2")
        eventually(lambda: swarm.gateway.get(id).status == 503, within=120)
        first.docker("node update --label-add objgw-node-1=true host-1")
        eventually(swarm.has, id, within=120)

        # A worker knows its own containers alone; their names are the same.
        run = (
            f"docker run --rm -v {DOCKER_SOCKET}:{DOCKER_SOCKET} --network host {lab.image} "
            f"python -c"
        )
        (records,) = eventually(
            lambda: [json.loads(second.read(*run.split(), READ, "amazin-object-storage-node"))]
        )
        assert [record["name"] for record in records if record["host"]] == NODES[1:]

        # A host that is gone with the task that ran on it.
        with swarm.stack.steady(swarm.gateway, [id]):
            second.container.stop(timeout=1)
            eventually(lambda: swarm.gateway.get(ids[NODES[2]]).status == 503, within=120)
            second.container.start()
            eventually(swarm.has, ids[NODES[2]], within=120)
