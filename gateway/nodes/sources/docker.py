"""Docker as the source of nodes: which containers are nodes, at which address, with which keys.

A node is a container whose name contains `node_name` and that shares a Docker network with this
process, or is on the one `network` that was named. On the manager of a Swarm, tasks are nodes, too:
`gateway.nodes.sources.swarm`. A reading takes one list call, and one inspect call for each
container that is new.

Docker is taken as it comes: Podman and others list containers without settings or networks. One
that can't be understood, or can't be reached, is left out, and the log says so once, with the
reason. The others are found nevertheless.

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

from gateway.nodes.sources.events import Events
from gateway.nodes.sources.found import Found, LeftOut, Own
from gateway.nodes.sources.keys import (
    KEY_FILES,
    SECRETS,
    Config,
    environment,
    keys_from_env,
    region_from_env,
    with_key_files,
)
from gateway.nodes.sources.swarm import Swarm
from gateway.nodes.sources.trouble import docker_host, trouble
from gateway.s3.endpoint import Endpoint

log = logging.getLogger("objgw")

# Compose puts 12 hex digits before a container's name while it makes its successor.
RECREATING = re.compile(r"^[0-9a-f]{12}_")
# Docker mounts these three files into every container from a folder that is named after it; with
# `network_mode: container:X` it is X's, whose networks are the ones that count.
OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ")


# What an engine says that is none: a field is missing, or isn't of its type.
NOT_UNDERSTOOD = (AttributeError, KeyError, TypeError, ValueError, IndexError)


def own_container_id(mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The id of the container whose network this process uses; None outside a container."""
    try:
        found = OWN_CONTAINER.search(mountinfo.read_text())
    except OSError:
        return None
    return found[1] if found else None


class Unreadable(Exception):
    """A secret with a node's keys can't be read; the text says why."""


class DockerReader:
    """Reads the nodes from Docker.

    They are containers of this host; on the manager of a Swarm, tasks of all its hosts, too.
    """

    what = "Docker"

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
        # What was logged of containers and tasks that can't be used: the reason by the id.
        self._told: dict[str, str] = {}
        self._unusable: dict[str, str] = {}  # the same of the reading that is under way
        self._swarm = Swarm(node_name)
        self.events = Events(node_name, timeout)
        # Whether events tell all that can change: no event tells of another host's task, or that
        # a secret can be read by now.
        self.events_suffice = False

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

    def trouble(self, error: Exception) -> str:
        """What is wrong with Docker, and what to do about it."""
        return trouble(error)

    def _read(self, client: docker.DockerClient) -> list[Endpoint]:
        own_id = own_container_id()
        own = self._own(client, own_id)
        manager = self._swarm.is_manager(client)
        self._unusable = {}
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
        self._told = self._unusable
        self.events.containers |= {own_id} if own_id else set()
        self.events_suffice = not manager and not any(each.problem for each in endpoints)
        return endpoints

    def _cannot_use(self, id: str, name: str, reason: str) -> None:
        """Says once why a container or a task is no node, or one that can't be asked."""
        self._unusable[id] = reason
        if self._told.get(id) != reason:
            log.warning("%s has a node's name and can't be used: %s", name, reason)

    def _endpoint(self, found: Found) -> Endpoint | None:
        """None where the container was removed since it was listed."""
        keys, problem = self._known.get(found.id), found.problem
        if keys is None and not problem:
            try:
                keys, problem = self._keys(found.config()), ""
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                problem = f"Docker can't say what it was made from: {error}"
            except Unreadable as error:
                problem = str(error)
            except NOT_UNDERSTOOD as error:
                problem = f"what Docker says of it isn't understood: {error!r}"
        if problem or keys is None:
            self._cannot_use(found.id, found.name, problem)
            return Endpoint(found.name, found.id, problem=problem)
        self._known[found.id] = keys
        return Endpoint(found.name, found.id, found.host, self.node_port, *keys)

    @staticmethod
    def _keys(config: Config) -> tuple[str, str, str]:
        """Access key, secret key and region. Raises Unreadable."""
        try:
            env = with_key_files(environment(config.env), config.secrets)
        except (OSError, ValueError) as error:
            # The error is about a file. Its text doesn't have the file's content.
            why = error.strerror if isinstance(error, OSError) else "it isn't text"
            raise Unreadable(f"a secret with its keys can't be read: {why}") from None
        return (*keys_from_env(env, config.image), region_from_env(env))

    def _own(self, client: docker.DockerClient, id: str | None) -> Own:
        own = self._own_container(client, id)
        if not self.network:
            return own
        ids = {self.network: ""} if own.networks is None else own.networks
        return own._replace(networks={name: ids[name] for name in ids if name == self.network})

    def _own_container(self, client: docker.DockerClient, id: str | None) -> Own:
        local = "127.0.0.1" if docker_host().startswith("unix:") else None
        if id is None:
            return Own(host=local)
        try:
            me = client.api.inspect_container(id)
        except docker.errors.NotFound:  # Docker is that of another machine
            return Own()
        attached = (me.get("NetworkSettings") or {}).get("Networks") or {}
        networks = {name: network["NetworkID"] for name, network in attached.items()}
        labels = me["Config"].get("Labels") or {}
        service, task = (labels.get(f"com.docker.swarm.{what}.id") for what in ("service", "task"))
        if "host" in networks:
            return Own(me["Image"], service, task, host=local)
        return Own(me["Image"], service, task, networks)

    # -- containers

    def _containers(self, client: docker.DockerClient, own: Own, manager: bool) -> Iterator[Found]:
        """The containers of this host that are nodes.

        On a `manager` of a Swarm, those of tasks aren't among them: they are read as tasks.
        """
        listed = client.api.containers(all=True, filters={"name": re.escape(self.node_name)})
        self.events.containers = {each["Id"] for each in listed if each.get("Id")}
        for container in listed:
            name = ""
            try:
                name = self._node_name(container, manager) or ""
                if name:
                    yield self._found(client, name, container, own)
            except LeftOut as reason:
                self._cannot_use(container["Id"], name, str(reason))
            except NOT_UNDERSTOOD as error:
                name, id = name or str(container.get("Names")), str(container.get("Id"))
                self._cannot_use(id, name, f"what Docker lists isn't understood: {error!r}")

    def _found(
        self, client: docker.DockerClient, name: str, container: dict[str, Any], own: Own
    ) -> Found:
        """What Docker lists of a container with a node's name. Raises LeftOut where it is none."""
        labels = container.get("Labels") or {}
        if labels.get("com.docker.compose.oneoff") == "True":
            raise LeftOut("it is a one-off container of docker-compose run")
        if own.image and container.get("ImageID") == own.image:
            raise LeftOut("it is a gateway")
        shared, host, problem = self._address(container, own)
        return Found(
            name,
            container["Id"],
            host,
            container.get("Created") or 0,
            partial(self._inspect, client, container["Id"]),
            problem,
            shared,
        )

    def _node_name(self, container: dict[str, Any], manager: bool) -> str | None:
        """The name of the node that a container is, or None where it has no node's name.

        None is also what is a task, where the manager's tasks are read.
        """
        # A name with more than one slash is the alias of a link.
        names = [name[1:] for name in container.get("Names") or () if name.count("/") == 1]
        task = (container.get("Labels") or {}).get("com.docker.swarm.task.id")
        if not names or (task and manager):
            return None
        name = RECREATING.sub("", names[0]).removesuffix(f".{task}")
        return name if self.node_name in name else None

    def _address(self, container: dict[str, Any], own: Own) -> tuple[list[str], str | None, str]:
        """The container's networks that we can reach, its address there, and why there is none.

        The address is None without a reason where the container doesn't run. Raises LeftOut where
        it has no such network.
        """
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        shared = sorted(name for name in networks if own.networks is None or name in own.networks)
        if not shared:
            raise LeftOut("it shares no network with the gateway")
        if container["State"] != "running":  # a paused one accepts connections and never answers
            return shared, None, ""
        attached = [networks[name] or {} for name in shared]
        for field in ("IPAddress", "GlobalIPv6Address"):
            if host := next(filter(None, (each.get(field) for each in attached)), None):
                return shared, host, ""
        if "host" in shared and own.host:
            return shared, own.host, ""
        return shared, None, "it has no address on a network that the gateway reaches"

    @staticmethod
    def _inspect(client: docker.DockerClient, id: str) -> Config:
        config = client.api.inspect_container(id).get("Config") or {}
        # What the image set can't be told from what was given: a secret of ours may have such a
        # name by chance.
        ours = {file.name for file in SECRETS.glob("*")} - {default for _, default, _ in KEY_FILES}
        names = {name: name for name in ours}
        return Config(config.get("Env") or [], config.get("Image") or "", names)


def separate_networks(found: Iterable[Found]) -> str:
    """The nodes by network where there is none that all are on; else nothing."""
    found = sorted(found, key=lambda each: each.name)
    if not found or set.intersection(*(set(each.networks) for each in found)):
        return ""
    by_network: dict[str, list[str]] = {}
    for each in found:
        by_network.setdefault(min(each.networks), []).append(each.name)
    return "; ".join(f"{', '.join(names)} on {name}" for name, names in sorted(by_network.items()))
