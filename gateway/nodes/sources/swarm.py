"""The tasks of a Swarm as nodes, on whatever host they run: read on a manager.

A task of a service whose name contains `node_name`, or that has the label `objgw.node`, is a node.
The node is then the place, not the task: `<service>.<slot>`, or `<service>.<id of the Swarm's
node>` where the service is global, with the label in place of the service's name where there is
one. Labels are those of the service and those of its containers, which win.

Each reading asks for services and for tasks, and every `SWARM_SECONDS` whether this is a manager at
all. No call tells what is in a secret, so a node's secrets are read where the same ones are mounted
into this container.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import docker
import docker.errors

from gateway.nodes.sources.containers import LeaveOut
from gateway.nodes.sources.found import Found, Own
from gateway.nodes.sources.keys import SECRETS, Config
from gateway.nodes.sources.labels import WrongLabel, labelled_name

SWARM_SECONDS = 30.0  # between two questions whether the engine manages a Swarm


class Swarm:
    """The Swarm that the engine may manage."""

    def __init__(self, node_name: str, leave_out: LeaveOut) -> None:
        self.node_name, self._leave_out = node_name, leave_out
        # Files in `SECRETS` by the id of their secret, where this process is a task.
        self._mounted: dict[str, str] = {}
        self._manager = False
        # Monotonic time at which the engine last said whether it is a manager.
        self._asked = -math.inf

    def forget(self) -> None:
        """Has the engine asked again: it may be the manager of nothing by the next reading."""
        self._asked = -math.inf

    def is_manager(self, client: docker.DockerClient) -> bool:
        if time.monotonic() > self._asked + SWARM_SECONDS:
            try:
                self._manager = bool(client.api.info().get("Swarm", {}).get("ControlAvailable"))
            except docker.errors.APIError as error:
                if error.response is None or error.response.status_code != HTTPStatus.FORBIDDEN:
                    raise
                self._manager = False  # what stands before the engine forbids to ask
            self._asked = time.monotonic()
        return self._manager

    def tasks(self, client: docker.DockerClient, own: Own) -> Iterator[Found]:
        """The tasks that are to run, of services that are nodes.

        Those that were replaced are to be shut down.
        """
        api: Any = client.api  # whose stubs have no types for these
        services = self._services(api, own)
        if not services:
            return
        # "ready" is what the next task of a place is to be until the one before it has stopped.
        wanted = {
            "service": [*services, *filter(None, [own.service])],
            "desired-state": ["running", "ready"],
        }
        for task in (tasks := api.tasks(filters=wanted)):
            if task["ID"] == own.task:
                self._mounted = {secret["SecretID"]: file for file, secret in self._secrets(task)}
        for task in tasks:
            shared = shared_networks(task, own)
            place = task.get("Slot") or task.get("NodeID")
            if task["ServiceID"] == own.service or not shared or not place:
                continue
            name, labels = services[task["ServiceID"]]
            found = Found(
                f"{name}.{place}",
                task["ID"],
                task_host(task, shared),
                datetime.fromisoformat(task["CreatedAt"]).timestamp(),
                partial(self._specification, task),
                networks=shared,
            )
            yield found.labelled(labels)

    def _services(self, api: Any, own: Own) -> dict[str, tuple[str, dict[str, str]]]:
        """The services whose tasks are nodes, by their ids: what nodes are named after, and labels.

        Jobs are none of them, because they come to an end. They are all asked for: Docker's filter
        by name takes only a name's beginning.
        """
        services = {}
        for service in api.services():
            id, spec, labels = service["ID"], service["Spec"], labels_of_service(service)
            if id == own.service or spec["Mode"].keys().isdisjoint(("Replicated", "Global")):
                continue
            try:
                name = labelled_name(labels)
            except WrongLabel as error:
                self._leave_out(id, spec["Name"], str(error))
                continue
            if name or self.node_name in spec["Name"]:
                services[id] = name or spec["Name"], labels
        return services

    def _specification(self, task: dict[str, Any]) -> Config:
        spec = task["Spec"].get("ContainerSpec") or {}
        # A gateway that isn't a task has secrets as somebody mounted them: by their names, it is
        # hoped.
        ours = {
            file: self._mounted.get(each["SecretID"], each["SecretName"])
            for file, each in self._secrets(task)
        }
        return Config(spec.get("Env") or [], spec.get("Image", ""), ours)

    @staticmethod
    def _secrets(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """A task's secrets, each with the name of its file in `SECRETS`."""
        for secret in (task["Spec"].get("ContainerSpec") or {}).get("Secrets") or ():
            if secret.get("File"):
                yield secret["File"]["Name"].removeprefix(f"{SECRETS}/"), secret


def labels_of_service(service: dict[str, Any]) -> dict[str, str]:
    """Its own labels, and those that its containers get, which win."""
    spec = service["Spec"]
    of_containers = (spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
    return {**(spec.get("Labels") or {}), **(of_containers.get("Labels") or {})}


def shared_networks(task: dict[str, Any], own: Own) -> list[str]:
    """The ids of the networks that a task shares with this process, sorted.

    The routing mesh isn't among them, because it is in no specification.
    """
    networks = {network["Target"] for network in task["Spec"].get("Networks") or ()}
    return sorted(networks if own.networks is None else networks & set(own.networks.values()))


def task_host(task: dict[str, Any], shared: list[str]) -> str | None:
    """A task's address in one of these networks; None where it doesn't run."""
    if not task["DesiredState"] == task["Status"]["State"] == "running":
        return None
    attached = {
        each["Network"]["ID"]: each["Addresses"] for each in task.get("NetworksAttachments") or ()
    }
    hosts = [address.split("/")[0] for id in shared for address in attached.get(id) or ()]
    return hosts[0] if hosts else None
