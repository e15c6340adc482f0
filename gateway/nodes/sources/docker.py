"""Docker as the source of nodes: which containers are nodes, where they are reached, and with which keys.

A node is a container whose name contains `node_name` and that shares a Docker network with this process. One list call
for each reading, and one inspect call for each container not seen before.

On the manager of a Swarm, so is each task of a service whose name contains `node_name`, on whatever host it runs. The
node is then the place, not the task: `<service>.<slot>`, or `<service>.<id of the Swarm's node>` where the service is
global. Each reading asks for services and for tasks, and every `SWARM_SECONDS` whether this is a manager at all. No
call tells what is in a secret, so a node's secrets are read where the same ones are mounted into this container.

Nothing here waits, retries or keeps more than the client and the keys that were read: when to read, and what to do
where Docker fails, is the caller's business.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import docker
import docker.errors

log = logging.getLogger("objgw")

SWARM_SECONDS = 30.0  # between two questions whether the engine manages a Swarm
SECRETS = Path("/run/secrets")  # where Docker mounts secrets

# Compose puts 12 hex digits before a container's name while it makes its successor.
RECREATING = re.compile(r"^[0-9a-f]{12}_")
# Docker mounts these three files into every container from a folder that is named after it; with
# `network_mode: container:X` it is X's, whose networks are the ones that count.
OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ")
# In the order in which they win. The first pair of which both are set counts.
KEY_VARIABLES = (
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
    ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),
)
# Variables that name a file, what the image of MinIO sets them to, and the variable that takes the file's content, the
# last one last (loadEnvVarsFromFiles in MinIO's cmd/common-main.go). A file that isn't there doesn't count.
KEY_FILES = (
    ("MINIO_ACCESS_KEY_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_SECRET_KEY_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ROOT_USER_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_ROOT_PASSWORD_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
)
# https://min.io/docs/minio/linux/reference/minio-server/settings/core.html#region
REGION_VARIABLES = ("MINIO_SITE_REGION", "MINIO_REGION", "MINIO_REGION_NAME")


class NodeRecord(NamedTuple):
    """What Docker says of a node. `host` is None where its container doesn't run (or isn't there)."""

    name: str
    container: str = ""
    host: str | None = None
    port: int = 0
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def __repr__(self) -> str:  # the keys must not reach a log
        return f"{self.name} ({self.container[:12] or 'no container'}, {self.host or 'not running'})"


def keys_from_env(env: Mapping[str, str], image: str = "") -> tuple[str, str]:
    """The access and secret key of a server with this environment.

    >>> keys_from_env({"MINIO_ACCESS_KEY": "ring", "MINIO_SECRET_KEY": "treepotato"})
    ('ring', 'treepotato')
    """
    for user, password in KEY_VARIABLES:
        if env.get(user) and env.get(password):
            return env[user], env[password]
    default = "rustfsadmin" if "rustfs" in image else "minioadmin"
    return default, default


def with_key_files(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment after the server has read the files that it names.

    `secrets` has, by the name of each file in the node's `SECRETS` folder, the name of the same secret's file in ours.
    Raises OSError or ValueError where ours can't be read.
    """
    filled = dict(env)
    for variable, default, target in KEY_FILES:
        secret = secrets.get(env.get(variable, default).removeprefix(f"{SECRETS}/"))
        if secret and (content := (SECRETS / secret).read_text().strip()):
            filled[target] = content
    return filled


def own_container_id(mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The id of the container whose network this process uses; None outside a container."""
    try:
        found = OWN_CONTAINER.search(mountinfo.read_text())
    except OSError:
        return None
    return found[1] if found else None


class Config(NamedTuple):
    """What a container was made from; `secrets` as in `with_key_files`."""

    env: list[str]
    image: str
    secrets: Mapping[str, str]


class Found(NamedTuple):
    """A container or a task with a node's name. Of several with one name, one that runs counts, then the newest."""

    name: str
    id: str
    host: str | None  # None where it doesn't run
    created: float  # seconds since the epoch
    config: Callable[[], Config]

    @property
    def rank(self) -> tuple[bool, float]:
        return self.host is not None, self.created


class Own(NamedTuple):
    """What this process runs in. Without networks every container can be reached."""

    image: str | None = None
    service: str | None = None  # the id, as that of the task: none where it isn't one of a Swarm
    task: str | None = None
    networks: Mapping[str, str] | None = None  # their ids by their names


class DockerReader:
    """Reads the nodes from Docker: containers, and on the manager of a Swarm the tasks of all its hosts."""

    def __init__(self, node_name: str, node_port: int, timeout: int) -> None:
        """`node_name` is part of the name of each node, `timeout` the seconds that Docker may take for an answer."""
        self.node_name, self.node_port, self.timeout = node_name, node_port, timeout
        self._client: docker.DockerClient | None = None
        self._known: dict[str, tuple[str, str, str]] = {}  # container or task id -> access key, secret key, region
        self._keyless: set[str] = set()  # ids of those whose keys can't be read, which was logged
        self._mounted: dict[
            str, str
        ] = {}  # names of files in `SECRETS` by the id of their secret, where this is a task
        self._manager = False
        self._asked = -math.inf  # monotonic time at which the engine last said whether it's a manager

    def read(self) -> list[NodeRecord]:
        """The nodes that this process can reach, by name.

        Raises docker.errors.DockerException, or what requests and urllib3 raise, where Docker can't be read.
        """
        try:
            if self._client is None:
                self._client = docker.from_env(timeout=self.timeout)
            return self._read(self._client)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drops the connection to Docker; the next read makes a new one."""
        self._asked = -math.inf  # it may be the manager of nothing by then
        if self._client is not None:
            self._client.close()
            self._client = None

    def _read(self, client: docker.DockerClient) -> list[NodeRecord]:
        own = self._own(client)
        manager = self._is_manager(client)
        best: dict[str, Found] = {}
        for found in [*self._containers(client, own, manager), *(self._tasks(client, own) if manager else ())]:
            if found.name not in best or found.rank > best[found.name].rank:
                best[found.name] = found
        records = [record for name in sorted(best) if (record := self._record(best[name]))]
        ids = {record.container for record in records}
        self._known = {id: keys for id, keys in self._known.items() if id in ids}
        self._keyless &= ids
        return records

    def _record(self, found: Found) -> NodeRecord | None:
        """None where the container was removed since it was listed."""
        keys = self._known.get(found.id)
        if keys is None:
            try:
                config = found.config()
                env = with_key_files(dict(line.split("=", 1) for line in config.env if "=" in line), config.secrets)
            except docker.errors.NotFound:
                return None
            except (OSError, ValueError) as error:  # of a file; its content isn't in the error's text
                if found.id not in self._keyless:
                    problem = error.strerror if isinstance(error, OSError) else "it isn't text"
                    log.error("node %s can't be used, a secret with its keys can't be read: %s", found.name, problem)
                self._keyless.add(found.id)
                return NodeRecord(found.name, found.id)
            region = next(filter(None, map(env.get, REGION_VARIABLES)), "us-east-1")
            keys = self._known[found.id] = (*keys_from_env(env, config.image), region)
        return NodeRecord(found.name, found.id, found.host, self.node_port, *keys)

    def _own(self, client: docker.DockerClient) -> Own:
        id = own_container_id()
        if id is None:
            return Own()
        try:
            me = client.api.inspect_container(id)
        except docker.errors.NotFound:  # Docker is that of another machine
            return Own()
        networks = {name: network["NetworkID"] for name, network in me["NetworkSettings"]["Networks"].items()}
        labels = me["Config"]["Labels"] or {}
        service, task = (labels.get(f"com.docker.swarm.{what}.id") for what in ("service", "task"))
        return Own(me["Image"], service, task, None if "host" in networks else networks)

    # -- containers

    def _containers(self, client: docker.DockerClient, own: Own, manager: bool) -> Iterator[Found]:
        """The containers of this host; without those of tasks where `manager` says that tasks are read as such."""
        for container in client.api.containers(all=True, filters={"name": re.escape(self.node_name)}):
            name = self._node_name(container, manager)
            if name is None or (own.image and container["ImageID"] == own.image):  # another gateway, oddly named
                continue
            reachable, host = self._address(container, own)
            if reachable:
                yield Found(
                    name, container["Id"], host, container["Created"], partial(self._inspect, client, container["Id"])
                )

    def _node_name(self, container: dict[str, Any], manager: bool) -> str | None:
        names = [name[1:] for name in container["Names"] or () if name.count("/") == 1]  # more: a link's alias
        labels = container["Labels"] or {}
        task = labels.get("com.docker.swarm.task.id")
        if not names or (task and manager) or labels.get("com.docker.compose.oneoff") == "True":
            return None
        name = RECREATING.sub("", names[0]).removesuffix(f".{task}")
        return name if self.node_name in name else None

    def _address(self, container: dict[str, Any], own: Own) -> tuple[bool, str | None]:
        """Whether the container has a network that we can reach, and its address there if it runs."""
        networks = container["NetworkSettings"]["Networks"]
        shared = sorted(name for name in networks if own.networks is None or name in own.networks)
        if container["State"] != "running":  # a paused one accepts connections and never answers
            return bool(shared), None
        hosts = [networks[name]["IPAddress"] for name in shared]
        return bool(shared), next(filter(None, hosts), None)

    @staticmethod
    def _inspect(client: docker.DockerClient, id: str) -> Config:
        config = client.api.inspect_container(id)["Config"]
        # What the image set can't be told from what was given: a secret of ours may have such a name by chance.
        ours = {file.name for file in SECRETS.glob("*")} - {default for _, default, _ in KEY_FILES}
        return Config(config["Env"] or [], config["Image"], {name: name for name in ours})

    # -- tasks of a Swarm

    def _is_manager(self, client: docker.DockerClient) -> bool:
        if time.monotonic() > self._asked + SWARM_SECONDS:
            try:
                self._manager = bool(client.api.info().get("Swarm", {}).get("ControlAvailable"))
            except docker.errors.APIError as error:
                if error.response is None or error.response.status_code != HTTPStatus.FORBIDDEN:
                    raise
                self._manager = False  # what stands before the engine forbids to ask
            self._asked = time.monotonic()
        return self._manager

    def _tasks(self, client: docker.DockerClient, own: Own) -> Iterator[Found]:
        """The tasks that are to run, of services that are nodes. Those that were replaced are to be shut down."""
        api: Any = client.api  # whose stubs have no types for these
        services = {
            service["ID"]: service["Spec"]["Name"]
            for service in api.services()  # Docker's filter by name takes only its beginning
            if self.node_name in service["Spec"]["Name"]
            and service["ID"] != own.service
            and not service["Spec"]["Mode"].keys().isdisjoint(("Replicated", "Global"))  # jobs come to an end
        }
        if not services:
            return
        # "ready" is what the next task of a place is to be until the one before it has stopped.
        wanted = {"service": [*services, *filter(None, [own.service])], "desired-state": ["running", "ready"]}
        for task in (tasks := api.tasks(filters=wanted)):
            if task["ID"] == own.task:
                self._mounted = {secret["SecretID"]: file for file, secret in self._secrets(task)}
        for task in tasks:
            attached = {each["Network"]["ID"]: each["Addresses"] for each in task.get("NetworksAttachments") or ()}
            # The routing mesh isn't among the networks of a specification.
            networks = {network["Target"] for network in task["Spec"].get("Networks") or ()}
            shared = sorted(networks if own.networks is None else networks & set(own.networks.values()))
            place = task.get("Slot") or task.get("NodeID")
            if task["ServiceID"] == own.service or not shared or not place:
                continue
            running = task["DesiredState"] == task["Status"]["State"] == "running"
            hosts = [address.split("/")[0] for id in shared for address in attached.get(id) or ()]
            yield Found(
                f"{services[task['ServiceID']]}.{place}",
                task["ID"],
                hosts[0] if hosts and running else None,
                datetime.fromisoformat(task["CreatedAt"]).timestamp(),
                partial(self._specification, task),
            )

    def _specification(self, task: dict[str, Any]) -> Config:
        spec = task["Spec"].get("ContainerSpec") or {}
        # A gateway that isn't a task has secrets as somebody mounted them: by their names, it is hoped.
        ours = {file: self._mounted.get(each["SecretID"], each["SecretName"]) for file, each in self._secrets(task)}
        return Config(spec.get("Env") or [], spec.get("Image", ""), ours)

    @staticmethod
    def _secrets(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """A task's secrets, each with the name of its file in `SECRETS`."""
        for secret in (task["Spec"].get("ContainerSpec") or {}).get("Secrets") or ():
            if secret.get("File"):
                yield secret["File"]["Name"].removeprefix(f"{SECRETS}/"), secret
