"""Docker Swarm, for real: engines of their own, with docker-stack.yml deployed on them.

Strategy. An engine is a container with a `dockerd` in it, so that the machine's own engine is no
part of any Swarm, and what runs on it goes with that container. Each is a host with a name; two of
them on a Docker network are two hosts, joined by overlay networks. They get their images from the
machine's engine. Commands are Docker's command line within the engine, as people type them.

The stack is deployed as it is in the repository but for one gateway in place of two, published by
its host alone: the routing mesh needs IPVS, which not every kernel has. Nor has Swarm a new one
started where a busy machine makes it slow to say that it is healthy. What the gateway makes of
tasks without having to serve them is asked of `DockerReader`, run in the gateway's container.
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

from tests.harness.engine import BUCKET, CHECKOUT, DOCKER_SOCKET, MINIO, Lab, read_in
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner, random_id, together

OVERLAY = "objgw_amazin-object-storage"

SERVICES = [f"objgw_amazin-object-storage-node-{number}" for number in "123"]

NODES = [f"{service}.1" for service in SERVICES]

GATEWAY = "objgw_gateway-container"

IMAGE = """
FROM python:3.13-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io docker-cli iptables \
    && rm -rf /var/lib/apt/lists/*
"""  # noqa: E501

# What a container can't write by default, an engine has to. With version 2 of control groups, a
# group that has processes can't give its controllers to those below it: so they move into one of
# their own.
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
"""  # noqa: E501

CHANGES = """
version: "3.9"
services:
  gateway-container:
    healthcheck: {disable: true}
    ports: [{target: 3000, published: 3000, mode: host}]
    environment: {OBJGW_DISCOVERY_SECONDS: "0.5", WEB_CONCURRENCY: "1"}
    deploy: {replicas: 1, update_config: {order: stop-first}}
"""

# In the gateway's container, as a user without any right but the socket's group: what is read,
# twice at least and until it's of the wanted names, with (true) or without an address, as JSON.
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
"""  # noqa: E501


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
        self.address: str = self.container.attrs["NetworkSettings"]["Networks"][stack.network.name][
            "IPAddress"
        ]
        eventually(lambda: self.container.exec_run(["docker", "info"]).exit_code == 0, within=120)

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """The output of a command that must succeed, within five minutes."""

        def ran() -> tuple[int, str, str]:
            done: Any = self.container.exec_run(
                ["timeout", "300", *command], environment=env, demux=True
            )
            out, err = ((stream or b"").decode() for stream in done.output)
            # Swarm itself wrote what was to be changed, between the command's look at it and the
            # change.
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
    """Engines that are one Swarm with the stack on it; the first is its manager, and has the
    gateway.
    """

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
            other.docker(
                f"swarm join --token {first.docker_read('swarm join-token -q worker')} "
                f"{first.address}:2377"
            )

    def deploy(self, hosts: dict[str, str]) -> None:
        """The stack, with its nodes on these hosts."""
        for number, host in hosts.items():
            self.manager.docker(f"node update --label-add objgw-node-{number}=true {host}")
            self.add_secret(f"objgw-node-{number}", self.passwords[number])
        self.manager.add_files(
            {"stack.yml": (CHECKOUT / "docker-stack.yml").read_text(), "changes.yml": CHANGES}
        )
        self.deploy_files("stack.yml", "changes.yml")
        self.wait_ready()

    def deploy_files(self, *names: str) -> None:
        """`docker stack deploy` with these files of the manager, the first one first."""
        files = [word for name in names for word in ("-c", f"/{name}")]
        self.manager.run(
            *["docker", "stack", "deploy", *files, "objgw"],
            env={"OBJGW_IMAGE": self.stack.lab.image},
        )

    def ctl(self, *arguments: str) -> dict[str, Any]:
        """What `objgwctl.py` reports, run in the gateway's container as root, as people do."""
        command = f"docker exec {self.gateway_container()} python objgwctl.py"
        output = self.manager.run(*command.split(), *arguments, "--json")
        report: dict[str, Any] = json.loads(output)
        return report

    def add_secret(self, name: str, text: str) -> None:
        self.manager.shell(f"printf %s {text} | docker secret create {name} -")

    def wait_ready(self) -> None:
        eventually(
            lambda: all(self.gateway.get(self.id_of(name)).status == 404 for name in NODES),
            within=300,
        )

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
        tasks: list[dict[str, Any]] = json.loads(
            self.manager.docker_read(f"inspect --type task {' '.join(ids)}")
        )
        return tasks

    def running(self, service: str) -> str:
        """The id of the one task that runs; AssertionError where that isn't so."""
        ids = [task["ID"] for task in self.tasks(service) if task["Status"]["State"] == "running"]
        assert len(ids) == 1
        return str(ids[0])

    def gateway_container(self) -> str:
        return self.manager.docker_read(
            f"ps -q --filter label=com.docker.swarm.service.name={GATEWAY}"
        )

    def records(
        self, marker: str, wanted: Mapping[str, bool] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What the gateway reads of nodes whose names contain `marker`, by name.

        With `wanted`, once they are of these names and run, or don't.
        """
        arguments = [marker] if wanted is None else [marker, json.dumps(wanted)]
        command = ["docker", "exec", self.gateway_container(), "python", "-c", READ, *arguments]
        records = {
            record["name"]: record
            for record in eventually(lambda: [json.loads(self.manager.read(*command))])[0]
        }
        assert (
            wanted is None
            or {name: bool(record["host"]) for name, record in records.items()} == wanted
        )
        return records

    def log(self) -> str:
        """Of the gateway, tasks that were replaced included."""
        found = f"docker ps -aq --filter label=com.docker.swarm.service.name={GATEWAY}"
        return self.manager.read(
            "sh", "-c", f"for id in $({found}); do docker logs $id 2>&1 || true; done"
        )

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
        for container in lab.docker.containers.list(
            filters={"label": f"objgw.test.stack={stack.name}"}
        ):
            print(f"---- {container.name}\n{container.logs(tail=30).decode(errors='replace')}")
        stack.close()
