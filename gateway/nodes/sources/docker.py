"""Docker as the source of nodes: which containers are nodes, at which address, with which keys.

A node is a container whose name contains `node_name`, or that has the label `objgw.node`, and that
shares a Docker network with this process, or is on the one `network` that was named:
`gateway.nodes.sources.containers`. On the manager of a Swarm, tasks are nodes, too:
`gateway.nodes.sources.swarm`. A reading takes two list calls, and an inspect call for this
process's own container and for each one that is new.

What a node is asked with comes from its labels; what they don't say, from the settings; and what
those don't say, from its image and its environment.

Docker is taken as it comes: Podman and others list containers without settings or networks. One
that can't be understood, or can't be reached, is left out, and the log says so once, with the
reason. The others are found nevertheless.

Nothing here waits, retries or keeps more than the client and the keys that were read: when to read,
and what to do where Docker fails, is the caller's business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import docker
import docker.errors

from gateway.nodes.sources.containers import NOT_UNDERSTOOD, Containers
from gateway.nodes.sources.events import Events
from gateway.nodes.sources.found import Found, Own
from gateway.nodes.sources.keys import (
    Config,
    NoKeys,
    environment,
    keys_of,
    read_key,
    region_from_env,
)
from gateway.nodes.sources.labels import KEY_FILES
from gateway.nodes.sources.makes import Pair, make_of
from gateway.nodes.sources.swarm import Swarm
from gateway.nodes.sources.trouble import docker_host, trouble
from gateway.s3.endpoint import Endpoint

log = logging.getLogger("objgw")

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

    what = "Docker"

    def __init__(self, node_name: str, node_port: int, timeout: int, network: str = "") -> None:
        """`node_name` is part of the name of each node that has no label; `node_port` is the port
        of those that have no label for it, or 0 for the one that is usual for their make.

        `timeout` is the seconds that Docker may take for an answer. `network` is the name of the
        only Docker network that counts; empty: all do that this process is on.
        """
        self.node_name, self.node_port, self.timeout = node_name, node_port, timeout
        self.network = network
        # How the nodes are on different networks, where that is no matter of being reached.
        self.separate = ""
        self._told_nothing = False  # that no node is on the network was logged
        self._client: docker.DockerClient | None = None
        # What each container or task was made from, by its id; and the keys that were read last, by
        # its id and the files that its labels name.
        self._made: dict[str, Config] = {}
        self._keys: dict[tuple[str, Pair | None], Pair] = {}
        # What was logged of containers, tasks and services: the line by the id.
        self._told: dict[str, str] = {}
        self._telling: dict[str, str] = {}  # the same of the reading that is under way
        self._containers = Containers(node_name, self._leave_out)
        self._swarm = Swarm(node_name, self._leave_out)
        self.events = Events(node_name, timeout)
        # Whether events tell all that can change: no event tells of another host's task, that a
        # file with a key has changed, or that a secret can be read by now.
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
        self._telling = {}
        found = [
            *self._containers.nodes(client, own, manager),
            *(self._swarm.tasks(client, own) if manager else ()),
        ]
        best = self._best(found)
        self.separate = separate_networks(best.values()) if own.networks is None else ""
        if self.network and not best and not self._told_nothing:
            log.warning(
                "no node is found: no container with %r in its name, or the label objgw.node, is "
                "on the Docker network %s, which OBJGW_NETWORK names, or the gateway's own "
                "container isn't on it",
                self.node_name,
                self.network,
            )
        self._told_nothing = bool(self.network and not best)
        endpoints = [each for name in sorted(best) if (each := self._endpoint(best[name]))]
        self._forget_others(endpoints)
        self.events.containers = self._containers.ids | ({own_id} if own_id else set())
        changing = any(each.labels.key_files for each in best.values())
        problems = any(each.problem for each in endpoints)
        self.events_suffice = not (manager or changing or problems)
        return endpoints

    def _forget_others(self, endpoints: list[Endpoint]) -> None:
        """Forgets what was kept of containers and tasks that aren't there any more."""
        ids = {endpoint.container for endpoint in endpoints}
        self._made = {id: made for id, made in self._made.items() if id in ids}
        self._keys = {of: keys for of, keys in self._keys.items() if of[0] in ids}
        self._told = self._telling

    def _best(self, found: Iterable[Found]) -> dict[str, Found]:
        """By name the one that counts; of the others, those that run are told of."""
        best: dict[str, Found] = {}
        for each in sorted(found, key=lambda each: each.rank, reverse=True):
            first = best.setdefault(each.name, each)
            if first is not each and (each.host or each.problem):
                self._leave_out(
                    each.id,
                    f"{each.name} ({each.id[:12]})",
                    f"{first.id[:12]} has the same node name, and counts: of those that run and "
                    "can be used, it is the newest",
                )
        return best

    def _leave_out(self, id: str, name: str, reason: str) -> None:
        """Says once why a container or a task is no node, or one that can't be asked."""
        self._tell(id, f"{name} has a node's name or label and can't be used: {reason}")

    def _tell(self, id: str, line: str) -> None:
        """Logs a line about a container or a task, unless the last reading has brought it, too."""
        self._telling[id] = line
        if self._told.get(id) != line:
            log.warning("%s", line)

    def _endpoint(self, found: Found) -> Endpoint | None:
        """None where the container was removed since it was listed."""
        problem = found.problem
        if not problem:
            try:
                return self._usable(found)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                problem = f"Docker can't say what it was made from: {error}"
            except NoKeys as error:
                problem = str(error)
            except NOT_UNDERSTOOD as error:
                problem = f"what Docker says of it isn't understood: {error!r}"
        self._leave_out(found.id, found.name, problem)
        return Endpoint(found.name, found.id, problem=problem)

    def _usable(self, found: Found) -> Endpoint:
        """Raises NoKeys, one of NOT_UNDERSTOOD, or docker.errors.APIError."""
        if found.id not in self._made:
            self._made[found.id] = found.config()
        made = self._made[found.id]
        region = found.labels.region or region_from_env(environment(made.env), made.image)
        port = found.labels.port or self.node_port or make_of(made.image).port
        keys = self._keys_of(found, made)
        return Endpoint(found.name, found.id, found.host, port, *keys, region)

    def _keys_of(self, found: Found, made: Config) -> Pair:
        """The keys in the files that labels name, as they are now; else those of the environment.

        A file that can't be read any more may be about to be written: the last keys stay, and the
        log says so. Raises NoKeys where there are none.
        """
        files = found.labels.key_files
        keys = self._keys.get((found.id, files))
        if files is None:  # its server, too, has read them once
            keys = keys or keys_of(made)
        else:
            try:
                keys = keys_in(files)
            except NoKeys as error:
                if keys is None:
                    raise
                self._tell(found.id, f"{found.name}: {error}; the last keys stay")
        self._keys[found.id, files] = keys
        return keys

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


def keys_in(files: Pair) -> Pair:
    """The access and the secret key in the files that labels name. Raises NoKeys."""
    keys = []
    for label, path in zip(KEY_FILES, files, strict=True):
        try:
            keys.append(read_key(path))
        except NoKeys as error:
            raise NoKeys(f"the file of its label {label} {error}") from None
    return keys[0], keys[1]


def separate_networks(found: Iterable[Found]) -> str:
    """The nodes by network where there is none that all are on; else nothing."""
    found = sorted(found, key=lambda each: each.name)
    if not found or set.intersection(*(set(each.networks) for each in found)):
        return ""
    by_network: dict[str, list[str]] = {}
    for each in found:
        by_network.setdefault(min(each.networks), []).append(each.name)
    return "; ".join(f"{', '.join(names)} on {name}" for name, names in sorted(by_network.items()))
