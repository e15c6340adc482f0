"""Docker as the source of nodes: which containers are nodes, at which address, with which keys.

A node is a container whose name contains `node_name` and that shares a Docker network with this
process, or is on the one `network` that was named. On the manager of a Swarm, tasks are nodes, too:
`gateway.nodes.sources.swarm`. A reading takes one list call, and one inspect call for each
container that is new.

Nothing here waits, retries or keeps more than the client and the keys that were read: when to read,
and what to do where Docker fails, is the caller's business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors

from gateway.nodes.sources.found import Found, Own
from gateway.nodes.sources.keys import (
    KEY_FILES,
    REGION_VARIABLES,
    SECRETS,
    Config,
    keys_from_env,
    with_key_files,
)
from gateway.nodes.sources.swarm import Swarm
from gateway.s3.endpoint import Endpoint

log = logging.getLogger("objgw")

# Compose puts 12 hex digits before a container's name while it makes its successor.
RECREATING = re.compile(r"^[0-9a-f]{12}_")
# Docker mounts these three files into every container from a folder that is named after it; with
# `network_mode: container:X` it is X's, whose networks are the ones that count.
OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ")


def own_container_id(mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The id of the container whose network this process uses; None outside a container."""
    try:
        found = OWN_CONTAINER.search(mountinfo.read_text())
    except OSError:
        return None
    return found[1] if found else None


class DockerReader:
    """Reads the nodes from Docker.

    They are containers of this host; on the manager of a Swarm, tasks of all its hosts, too.
    """

    def __init__(self, node_name: str, node_port: int, timeout: int, network: str = "") -> None:
        """`node_name` is part of the name of each node.

        `timeout` is the seconds that Docker may take for an answer. `network` is the name of the
        only Docker network that counts; empty: all do that this process is on.
        """
        self.node_name, self.node_port, self.timeout = node_name, node_port, timeout
        self.network = network
        # How the nodes are on different networks, where that is no matter of being reached.
        self.separate = ""
        self._told_nothing = False  # that no node is on the network was logged
        self._client: docker.DockerClient | None = None
        # Access key, secret key and region, by the id of the container or task.
        self._known: dict[str, tuple[str, str, str]] = {}
        self._keyless: set[str] = set()  # ids of those whose keys can't be read, which was logged
        self._swarm = Swarm(node_name)

    def read(self) -> list[Endpoint]:
        """The nodes that this process can reach, by name.

        Raises docker.errors.DockerException, or what requests and urllib3 raise, where Docker can't
        be read.
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
        self._swarm.forget()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _read(self, client: docker.DockerClient) -> list[Endpoint]:
        own = self._own(client)
        manager = self._swarm.is_manager(client)
        best: dict[str, Found] = {}
        for found in [
            *self._containers(client, own, manager),
            *(self._swarm.tasks(client, own) if manager else ()),
        ]:
            if found.name not in best or found.rank > best[found.name].rank:
                best[found.name] = found
        self.separate = separate_networks(best.values()) if own.networks is None else ""
        if self.network and not best and not self._told_nothing:
            log.warning(
                "no node is found: no container with %r in its name is on the Docker network %s, "
                "which OBJGW_NETWORK names, or the gateway's own container isn't on it",
                self.node_name,
                self.network,
            )
        self._told_nothing = bool(self.network and not best)
        endpoints = [each for name in sorted(best) if (each := self._endpoint(best[name]))]
        ids = {endpoint.container for endpoint in endpoints}
        self._known = {id: keys for id, keys in self._known.items() if id in ids}
        self._keyless &= ids
        return endpoints

    def _endpoint(self, found: Found) -> Endpoint | None:
        """None where the container was removed since it was listed."""
        keys = self._known.get(found.id)
        if keys is None:
            try:
                config = found.config()
                env = with_key_files(
                    dict(line.split("=", 1) for line in config.env if "=" in line), config.secrets
                )
            except docker.errors.NotFound:
                return None
            except (OSError, ValueError) as error:
                # The error is about a file. Its text doesn't have the file's content.
                if found.id not in self._keyless:
                    problem = error.strerror if isinstance(error, OSError) else "it isn't text"
                    log.error(
                        "node %s can't be used, a secret with its keys can't be read: %s",
                        found.name,
                        problem,
                    )
                self._keyless.add(found.id)
                return Endpoint(found.name, found.id)
            region = next(filter(None, map(env.get, REGION_VARIABLES)), "us-east-1")
            keys = self._known[found.id] = (*keys_from_env(env, config.image), region)
        return Endpoint(found.name, found.id, found.host, self.node_port, *keys)

    def _own(self, client: docker.DockerClient) -> Own:
        own = self._own_container(client)
        if not self.network:
            return own
        ids = {self.network: ""} if own.networks is None else own.networks
        return own._replace(networks={name: ids[name] for name in ids if name == self.network})

    def _own_container(self, client: docker.DockerClient) -> Own:
        id = own_container_id()
        if id is None:
            return Own()
        try:
            me = client.api.inspect_container(id)
        except docker.errors.NotFound:  # Docker is that of another machine
            return Own()
        networks = {
            name: network["NetworkID"]
            for name, network in me["NetworkSettings"]["Networks"].items()
        }
        labels = me["Config"]["Labels"] or {}
        service, task = (labels.get(f"com.docker.swarm.{what}.id") for what in ("service", "task"))
        return Own(me["Image"], service, task, None if "host" in networks else networks)

    # -- containers

    def _containers(self, client: docker.DockerClient, own: Own, manager: bool) -> Iterator[Found]:
        """The containers of this host that are nodes.

        On a `manager` of a Swarm, those of tasks aren't among them: they are read as tasks.
        """
        for container in client.api.containers(
            all=True, filters={"name": re.escape(self.node_name)}
        ):
            name = self._node_name(container, manager)
            # The latter is another gateway with a node's name.
            if name is None or (own.image and container["ImageID"] == own.image):
                continue
            shared, host = self._address(container, own)
            if shared:
                yield Found(
                    name,
                    container["Id"],
                    host,
                    container["Created"],
                    partial(self._inspect, client, container["Id"]),
                    shared,
                )

    def _node_name(self, container: dict[str, Any], manager: bool) -> str | None:
        # A name with more than one slash is the alias of a link.
        names = [name[1:] for name in container["Names"] or () if name.count("/") == 1]
        labels = container["Labels"] or {}
        task = labels.get("com.docker.swarm.task.id")
        if not names or (task and manager) or labels.get("com.docker.compose.oneoff") == "True":
            return None
        name = RECREATING.sub("", names[0]).removesuffix(f".{task}")
        return name if self.node_name in name else None

    def _address(self, container: dict[str, Any], own: Own) -> tuple[list[str], str | None]:
        """The container's networks that we can reach, and its address there.

        The address is None where the container doesn't run.
        """
        networks = container["NetworkSettings"]["Networks"]
        shared = sorted(name for name in networks if own.networks is None or name in own.networks)
        if container["State"] != "running":  # a paused one accepts connections and never answers
            return shared, None
        hosts = [networks[name]["IPAddress"] for name in shared]
        return shared, next(filter(None, hosts), None)

    @staticmethod
    def _inspect(client: docker.DockerClient, id: str) -> Config:
        config = client.api.inspect_container(id)["Config"]
        # What the image set can't be told from what was given: a secret of ours may have such a
        # name by chance.
        ours = {file.name for file in SECRETS.glob("*")} - {default for _, default, _ in KEY_FILES}
        return Config(config["Env"] or [], config["Image"], {name: name for name in ours})


def separate_networks(found: Iterable[Found]) -> str:
    """The nodes by network where there is none that all are on; else nothing."""
    found = sorted(found, key=lambda each: each.name)
    if not found or set.intersection(*(set(each.networks) for each in found)):
        return ""
    by_network: dict[str, list[str]] = {}
    for each in found:
        by_network.setdefault(min(each.networks), []).append(each.name)
    return "; ".join(f"{', '.join(names)} on {name}" for name, names in sorted(by_network.items()))
