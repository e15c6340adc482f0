"""The containers of an engine's host as nodes: by their names, or by their label `objgw.node`.

Each reading asks for both kinds, since Docker's filters narrow each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import docker

from gateway.nodes.sources.found import Found, LeftOut, Own
from gateway.nodes.sources.keys import KEY_FILES, SECRETS, Config
from gateway.nodes.sources.labels import NODE, WrongLabel, labelled_name

# Compose puts 12 hex digits before a container's name while it makes its successor.
RECREATING = re.compile(r"^[0-9a-f]{12}_")
# What an engine says that is none: a field is missing, or isn't of its type.
NOT_UNDERSTOOD = (AttributeError, KeyError, TypeError, ValueError, IndexError)

# Is told of what can't be used: its id, its name, and the reason.
LeaveOut = Callable[[str, str, str], None]


class Containers:
    """The containers that may be nodes."""

    def __init__(self, node_name: str, leave_out: LeaveOut) -> None:
        self.node_name, self._leave_out = node_name, leave_out
        self.ids: set[str] = set()  # as they were listed last

    def nodes(self, client: docker.DockerClient, own: Own, manager: bool) -> Iterator[Found]:
        """The containers that are nodes.

        On a `manager` of a Swarm, those of tasks aren't among them: they are read as tasks.
        """
        listed = self._listed(client)
        self.ids = {each["Id"] for each in listed if each.get("Id")}
        for container in listed:
            name = ""
            try:
                name = next(iter(plain_names(container)), "")
                name = self._node_name(container, manager) or ""
                if name:
                    yield self._found(client, name, container, own)
            except (LeftOut, WrongLabel) as reason:
                self._leave_out(container["Id"], name, str(reason))
            except NOT_UNDERSTOOD as error:
                name, id = name or str(container.get("Names")), str(container.get("Id"))
                self._leave_out(id, name, f"what Docker lists isn't understood: {error!r}")

    def _listed(self, client: docker.DockerClient) -> list[dict[str, Any]]:
        """Those with a node's name, then those with a node's label only."""
        named: list[dict[str, Any]] = client.api.containers(
            all=True, filters={"name": re.escape(self.node_name)}
        )
        labelled = client.api.containers(all=True, filters={"label": NODE})
        ids = {each.get("Id") for each in named}
        return [*named, *(each for each in labelled if each.get("Id") not in ids)]

    def _node_name(self, container: dict[str, Any], manager: bool) -> str | None:
        """The name of the node that a container is, or None where it is none.

        None is also what is a task, where the manager's tasks are read. Raises WrongLabel.
        """
        labels = container.get("Labels") or {}
        task = labels.get("com.docker.swarm.task.id")
        if task and manager:
            return None
        name = next(iter(plain_names(container)), "").removesuffix(f".{task}")
        if label := labelled_name(labels):
            # Of a task it takes the place of the service's name, and the slot stays.
            service = labels.get("com.docker.swarm.service.name", name)
            return f"{label}{name.removeprefix(service)}" if task else label
        return name if self.node_name in name else None

    def _found(
        self, client: docker.DockerClient, name: str, container: dict[str, Any], own: Own
    ) -> Found:
        """What Docker lists of a container with a node's name. Raises LeftOut where it is none."""
        labels = container.get("Labels") or {}
        if labels.get("com.docker.compose.oneoff") == "True":
            raise LeftOut("it is a one-off container of docker-compose run")
        if own.image and container.get("ImageID") == own.image:
            raise LeftOut("it is a gateway")
        shared, host, problem = address_of(container, own)
        found = Found(
            name,
            container["Id"],
            host,
            float(container.get("Created") or 0),
            partial(inspect, client, container["Id"]),
            problem,
            shared,
        )
        return found.labelled(labels)


def plain_names(container: dict[str, Any]) -> list[str]:
    """A container's names as Docker lists them, without what Compose puts before one."""
    # A name with more than one slash is the alias of a link.
    names = container.get("Names") or ()
    return [RECREATING.sub("", name[1:]) for name in names if name.count("/") == 1]


def address_of(container: dict[str, Any], own: Own) -> tuple[list[str], str | None, str]:
    """The container's networks that we can reach, its address there, and why there is none.

    The address is None without a reason where the container doesn't run. Raises LeftOut where it
    has no such network.
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


def inspect(client: docker.DockerClient, id: str) -> Config:
    """What a container was made from."""
    config = client.api.inspect_container(id).get("Config") or {}
    # What the image set can't be told from what was given: a secret of ours may have such a name by
    # chance.
    ours = {file.name for file in SECRETS.glob("*")} - {default for _, default, _ in KEY_FILES}
    return Config(config.get("Env") or [], config.get("Image") or "", {name: name for name in ours})
