"""Docker Swarm, for real: engines of their own, with docker-stack.yml deployed on them.

Strategy. An engine is a container with a `dockerd` in it, so that the machine's own engine is no part of any Swarm, and
what runs on it goes with that container. Each is a host with a name; two of them on a Docker network are two
hosts, joined by overlay networks. They get their images from the machine's engine. Commands are Docker's command line
within the engine, as people type them.

The stack is deployed as it is in the repository but for one gateway in place of two, published by its host alone: the
routing mesh needs IPVS, which not every kernel has. Nor has Swarm a new one started where a busy machine makes it slow
to say that it is healthy. What the gateway makes of tasks without having to serve them is
asked of `DockerReader`, run in the gateway's container.
"""

from __future__ import annotations

import io
import json
import secrets
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from conftest import (
    BUCKET,
    CHECKOUT,
    DOCKER_SOCKET,
    MINIO,
    Gateway,
    Lab,
    Stack,
    eventually,
    owner,
    random_id,
    read_in,
    together,
)

OVERLAY = "objgw_amazin-object-storage"
SERVICES = [f"objgw_amazin-object-storage-node-{number}" for number in "123"]
NODES = [f"{service}.1" for service in SERVICES]
GATEWAY = "objgw_gateway-container"

IMAGE = """
FROM python:3.13-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io docker-cli iptables \
    && rm -rf /var/lib/apt/lists/*
"""
# What a container can't write by default, an engine has to. With version 2 of control groups, a group that has
# processes can't give its controllers to those below it: so they move into one of their own.
START = """
for folder in /proc/sys /sys /sys/fs/cgroup /sys/fs/cgroup/*/; do
    mount -o remount,bind,rw $folder 2>/dev/null || true
done
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/engine
    for id in $(cat /sys/fs/cgroup/cgroup.procs); do echo $id >/sys/fs/cgroup/engine/cgroup.procs || true; done
    sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi
exec dockerd
"""
CHANGES = """
version: "3.9"
services:
  gateway-container:
    healthcheck: {disable: true}
    ports: [{target: 3000, published: 3000, mode: host}]
    environment: {OBJGW_DISCOVERY_SECONDS: "0.5", WEB_CONCURRENCY: "1"}
    deploy: {replicas: 1, update_config: {order: stop-first}}
"""
# In the gateway's container, as a user without any right but the socket's group: what is read, twice at least and until
# it's of the wanted names, with (true) or without an address, as JSON.
READ = """
import json, logging, os, sys, time
from gateway.nodes.sources.docker import DockerReader
logging.basicConfig()
os.setgroups([os.stat("/var/run/docker.sock").st_gid]), os.setgid(65534), os.setuid(65534)
reader = DockerReader(sys.argv[1], 9000, 30)
reader.read()
for _ in range(200):
    records = reader.read()
    if not sys.argv[2:] or {record.name: bool(record.host) for record in records} == json.loads(sys.argv[2]):
        break
    time.sleep(0.2)
print(json.dumps([record._asdict() for record in records]))
"""


class Engine:
    """A Docker engine in a container, named as its host."""

    def __init__(self, stack: Stack, image: str, name: str) -> None:
        self.name = name
        self.container = stack.lab.docker.containers.run(
            image,
            ["sh", "-c", START],
            name=f"{stack.name}-{name}",
            hostname=name,
            labels=stack.labels,
            network=stack.network.name,
            # Nearly privileged: not on every machine is there all of it to be given.
            cap_add=["ALL"],
            cap_drop=["SYS_RESOURCE"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            device_cgroup_rules=["a *:* rwm"],
            cgroupns="private",
            tmpfs={"/run": ""},
            volumes=["/var/lib/docker", f"{DOCKER_SOCKET}:/machine.sock"],
            restart_policy={"Name": "on-failure"},  # containerd has 15 seconds to start, not more
            detach=True,
        )
        self.container.reload()
        self.address: str = self.container.attrs["NetworkSettings"]["Networks"][stack.network.name]["IPAddress"]
        eventually(lambda: self.container.exec_run(["docker", "info"]).exit_code == 0, within=120)

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """The output of a command that must succeed, within five minutes."""

        def ran() -> tuple[int, str, str]:
            done: Any = self.container.exec_run(["timeout", "300", *command], environment=env, demux=True)
            out, err = ((stream or b"").decode() for stream in done.output)
            # Swarm itself wrote what was to be changed, between the command's look at it and the change.
            assert "update out of sequence" not in err
            return done.exit_code, out, err

        code, out, err = eventually(ran)
        assert code == 0, f"{command}: {out}{err}"
        return str(out).strip()

    def shell(self, script: str) -> str:
        return self.run("sh", "-ec", script)

    def docker(self, command: str) -> str:
        """`docker …`, on this engine."""
        return self.run("docker", *command.split())

    def read(self, *command: str) -> str:
        """The same of a command that only reads."""
        return read_in(self.container, *command).strip()

    def docker_read(self, command: str) -> str:
        """`docker …`, where it only reads."""
        return self.read("docker", *command.split())

    def load(self, *images: str) -> None:
        """Images of the machine's engine."""
        self.shell(f"docker -H unix:///machine.sock save {' '.join(images)} | docker load")

    def add_files(self, files: dict[str, str]) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        assert self.container.put_archive("/", archive.getvalue())


class Swarm:
    """Engines that are one Swarm with the stack on it; the first is its manager, and has the gateway."""

    def __init__(self, stack: Stack, hosts: Iterable[str]) -> None:
        """`hosts` are their names."""
        self.stack = stack
        self.passwords = {number: secrets.token_hex(20) for number in "123"}
        stack.secrets |= set(self.passwords.values())
        built, _ = stack.lab.docker.images.build(fileobj=io.BytesIO(IMAGE.encode()), rm=True)
        self.engines = [Engine(stack, str(built.id), name) for name in hosts]
        self.manager = self.engines[0]
        together(partial(engine.load, MINIO, stack.lab.image) for engine in self.engines)
        self.gateway = Gateway(stack, self.manager.container, stack.network, self.manager.address)

    def join(self) -> None:
        first = self.manager
        first.docker(f"swarm init --advertise-addr {first.address}")
        for other in self.engines[1:]:
            other.docker(f"swarm join --token {first.docker_read('swarm join-token -q worker')} {first.address}:2377")

    def deploy(self, hosts: dict[str, str]) -> None:
        """The stack, with its nodes on these hosts."""
        for number, host in hosts.items():
            self.manager.docker(f"node update --label-add objgw-node-{number}=true {host}")
            self.add_secret(f"objgw-node-{number}", self.passwords[number])
        self.manager.add_files({"stack.yml": (CHECKOUT / "docker-stack.yml").read_text(), "changes.yml": CHANGES})
        self.manager.run(
            *["docker", "stack", "deploy", "-c", "/stack.yml", "-c", "/changes.yml", "objgw"],
            env={"OBJGW_IMAGE": self.stack.lab.image},
        )
        self.wait_ready()

    def add_secret(self, name: str, text: str) -> None:
        self.manager.shell(f"printf %s {text} | docker secret create {name} -")

    def wait_ready(self) -> None:
        eventually(lambda: all(self.gateway.get(self.id_of(name)).status == 404 for name in NODES), within=300)

    def id_of(self, name: str) -> str:
        """A new id that belongs to the node of this name."""
        return next(id for id in iter(random_id, None) if owner(id, NODES) == name)

    def store(self) -> dict[str, str]:
        """The name of each node, with the new id of an object that was stored on it."""
        ids = {name: self.id_of(name) for name in NODES}
        for id in ids.values():
            assert self.gateway.put(id, id.encode()).status == 200
        return ids

    def has(self, id: str) -> bool:
        answer = self.gateway.get(id)
        return (answer.status, answer.body) == (200, id.encode())

    def holders(self, id: str) -> set[tuple[str, str]]:
        """The host and the volume of each copy."""
        found = set()
        for engine in self.engines:
            listing = f"ls -d /var/lib/docker/volumes/*/_data/{BUCKET}/{id} || true"
            for path in engine.read("sh", "-c", listing).splitlines():
                found.add((engine.name, path.split("/")[5]))
        return found

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """All that Swarm knows of, those that were replaced included."""
        ids = self.manager.docker_read(f"service ps -q --no-trunc {service}").split()
        if not ids:
            return []
        tasks: list[dict[str, Any]] = json.loads(self.manager.docker_read(f"inspect --type task {' '.join(ids)}"))
        return tasks

    def running(self, service: str) -> str:
        """The id of the one task that runs; AssertionError where that isn't so."""
        ids = [task["ID"] for task in self.tasks(service) if task["Status"]["State"] == "running"]
        assert len(ids) == 1
        return str(ids[0])

    def gateway_container(self) -> str:
        return self.manager.docker_read(f"ps -q --filter label=com.docker.swarm.service.name={GATEWAY}")

    def records(self, marker: str, wanted: Mapping[str, bool] | None = None) -> dict[str, dict[str, Any]]:
        """What the gateway reads of nodes whose names contain `marker`, by name.

        With `wanted`, once they are of these names and run, or don't.
        """
        arguments = [marker] if wanted is None else [marker, json.dumps(wanted)]
        command = ["docker", "exec", self.gateway_container(), "python", "-c", READ, *arguments]
        records = {
            record["name"]: record for record in eventually(lambda: [json.loads(self.manager.read(*command))])[0]
        }
        assert wanted is None or {name: bool(record["host"]) for name, record in records.items()} == wanted
        return records

    def log(self) -> str:
        """Of the gateway, tasks that were replaced included."""
        found = f"docker ps -aq --filter label=com.docker.swarm.service.name={GATEWAY}"
        return self.manager.read("sh", "-c", f"for id in $({found}); do docker logs $id 2>&1 || true; done")

    @contextmanager
    def statuses(self, id: str) -> Iterator[set[int]]:
        """The statuses that a GET of the id was answered with while the block ran."""
        seen, over = set[int](), threading.Event()

        def ask() -> None:
            while not over.wait(0.02):
                seen.add(self.gateway.get(id).status)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            try:
                yield seen
            finally:
                over.set()
            asking.result()


@contextmanager
def swarm_of(lab: Lab, *hosts: str) -> Iterator[Swarm]:
    stack = Stack(lab)
    try:
        swarm = Swarm(stack, hosts)
        swarm.join()
        yield swarm
        log = swarm.log()
        print(log[-6000:])
        assert not [password for password in stack.secrets if password in log]
    finally:
        for container in lab.docker.containers.list(filters={"label": f"objgw.test.stack={stack.name}"}):
            print(f"---- {container.name}\n{container.logs(tail=30).decode(errors='replace')}")
        stack.close()


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
    given = " ".join(["-d", "--name", name, "--network", OVERLAY, "--stop-signal", "KILL", *options])
    return f"service create {given} --entrypoint sleep {MINIO} 9999"


# ---------------------------------------------------------------------------------------------------------------------
# One host
# ---------------------------------------------------------------------------------------------------------------------
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
    assert old in {task["ID"] for task in swarm.tasks(SERVICES[1])}  # it is listed still, and doesn't count
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
    eventually(lambda: not old & {task["ID"] for task in swarm.tasks(pile) if task["DesiredState"] == "running"})
    after = swarm.records(pile, {f"{pile}.1": True, f"{pile}.2": True})
    assert not old & {each["container"] for each in after.values()}
    swarm.manager.docker(f"service scale -d {pile}=3")
    swarm.records(pile, {f"{pile}.{slot}": True for slot in "123"})
    swarm.manager.docker(f"service update -d --constraint-add node.hostname==nowhere {pile}")
    swarm.records(pile, {f"{pile}.{slot}": False for slot in "123"})
    swarm.manager.docker(f"service scale -d {pile}=0")
    swarm.records(pile, {})


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
    swarm.manager.docker(f"run -d --name {pile}-alone --network both --entrypoint sleep {MINIO} 9999")
    swarm.manager.docker(sleeping(f"{pile}-task").replace(OVERLAY, "both"))
    eventually(swarm.running, f"{pile}-task", within=120)
    run = f"docker run --rm --network both -v {DOCKER_SOCKET}:{DOCKER_SOCKET} {swarm.stack.lab.image} python -c"
    (records,) = eventually(lambda: [json.loads(swarm.manager.read(*run.split(), READ, pile))])
    assert [record["name"] for record in records] == [f"{pile}-alone", f"{pile}-task.1"]
    assert len({record["host"] for record in records} - {None}) == 2
    swarm.manager.docker(f"rm -f {pile}-alone")


def test_keys_that_can_not_be_read_make_a_node_unusable_and_the_log_says_so_once(swarm: Swarm, pile: str) -> None:
    password = secrets.token_hex(20)
    swarm.add_secret(pile, password)
    env = "--env MINIO_ROOT_USER=someone --env MINIO_ROOT_PASSWORD_FILE"
    swarm.manager.docker(sleeping(f"{pile}-locked", f"{env}=/run/secrets/{pile} --secret {pile}"))
    swarm.manager.docker(sleeping(f"{pile}-open", f"{env}=nothing --env MINIO_ROOT_PASSWORD=something"))

    def read() -> tuple[str, list[str], list[dict[str, Any]]]:
        command = f"docker exec {swarm.gateway_container()} python -c '{READ}' {pile} 2>&1"
        done = swarm.manager.read("sh", "-c", command)
        *lines, printed = done.splitlines()
        records = json.loads(printed)
        assert len(records) == 2
        return done, lines, records

    done, lines, (locked, usable) = eventually(read)
    assert (locked["name"], locked["host"]) == (f"{pile}-locked.1", None)
    assert (usable["name"], usable["access_key"], usable["secret_key"]) == (f"{pile}-open.1", "someone", "something")
    assert len([line for line in lines if f"{pile}-locked.1" in line]) == 1
    assert "No such file" in done
    assert password not in done


def test_keys_can_be_rotated(swarm: Swarm) -> None:
    """A secret never changes: another one takes its place, in the gateway first, whatever its file is called there."""
    ids, password = swarm.store(), secrets.token_hex(20)
    swarm.add_secret("objgw-node-3b", password)
    swarm.stack.secrets.add(password)
    swarm.manager.docker(f"service update --secret-add source=objgw-node-3b,target=third,uid=65534,mode=0400 {GATEWAY}")
    eventually(swarm.has, ids[NODES[2]], within=120)
    with swarm.stack.steady(swarm.gateway, [ids[NODES[0]], ids[NODES[1]]]):
        swap = "--secret-rm objgw-node-3 --secret-add source=objgw-node-3b,target=objgw-node-3"
        swarm.manager.docker(f"service update {swap} {SERVICES[2]}")
        eventually(swarm.has, ids[NODES[2]], within=120)
    assert swarm.records(SERVICES[2])[NODES[2]]["secret_key"] == password


# ---------------------------------------------------------------------------------------------------------------------
# Two hosts
# ---------------------------------------------------------------------------------------------------------------------
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
                eventually(lambda: not first.docker_read(f"ps -q --filter name={NODES[1]}"), within=120)
                copy("objgw_node-2", first, second)
            assert seen == {503}
            first.docker("node update --label-add objgw-node-2=true host-2")
            eventually(swarm.has, moving, within=120)
        assert swarm.running(SERVICES[1]) != old
        assert not first.docker_read(f"ps -q --filter name={NODES[1]}")
        assert second.docker_read(f"ps -q --filter name={NODES[1]}")
        assert swarm.gateway.put(moving, b"after").status == 200
        assert swarm.gateway.get(moving).body == b"after"

        # Without its volume the place is the same, and nobody is told that what was stored never was.
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
        run = f"docker run --rm -v {DOCKER_SOCKET}:{DOCKER_SOCKET} --network host {lab.image} python -c"
        (records,) = eventually(lambda: [json.loads(second.read(*run.split(), READ, "amazin-object-storage-node"))])
        assert [record["name"] for record in records if record["host"]] == NODES[1:]

        # A host that is gone with the task that ran on it.
        with swarm.stack.steady(swarm.gateway, [id]):
            second.container.stop(timeout=1)
            eventually(lambda: swarm.gateway.get(ids[NODES[2]]).status == 503, within=120)
            second.container.start()
            eventually(swarm.has, ids[NODES[2]], within=120)
