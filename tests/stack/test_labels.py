"""Nodes by label: another name, another port, keys in files of the gateway's container."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from docker.models.containers import Container

from tests.harness.checks import PROMPT, assert_unavailable, has
from tests.harness.engine import MINIO, Lab
from tests.harness.fixtures import empty_stack
from tests.harness.gateway import Gateway, put_file
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import health, states
from tests.harness.waiting import eventually

ACCESS, SECRET = "/srv/access-key", "/srv/secret-key"
REGION = "eu-central-7"


def hidden(user: str, password: str) -> dict[str, str]:
    """An environment from which the gateway doesn't learn the keys."""
    return {"HIDDEN_USER": user, "HIDDEN_PASSWORD": password}


# The entrypoint of a MinIO that does.
HIDDEN = [
    *("sh", "-c"),
    'MINIO_ROOT_USER="$HIDDEN_USER" MINIO_ROOT_PASSWORD="$HIDDEN_PASSWORD" exec minio server /data',
]


def elsewhere(port: int) -> list[str]:
    """The entrypoint of a MinIO in a region and on a port that its environment doesn't tell."""
    return ["sh", "-c", f"MINIO_SITE_REGION={REGION} exec minio server --address :{port} /data"]


@dataclass
class Labelled:
    """A node by its name, one by its label, and one whose keys are in files, with a gateway."""

    stack: Stack
    plain: Node
    cold: Node
    filed: Node
    gateway: Gateway

    def write(self, path: str, key: str, mode: int = 0o644) -> None:
        put_file(self.gateway.container, path, key.encode(), mode)

    def logged(self, text: str) -> list[str]:
        return [line for line in self.gateway.logs().splitlines() if text in line]

    @contextmanager
    def beside(self, labels: Mapping[str, str], **options: Any) -> Iterator[Container]:
        """A container that serves nothing, with these labels, while the block runs."""
        containers = self.stack.lab.docker.containers
        container = containers.create(
            MINIO,
            name=f"{self.stack.name}-beside-{secrets.token_hex(4)}",
            entrypoint=["sleep", "infinity"],
            labels={**self.stack.labels, **labels},
            network=self.stack.network.name,
            **options,
        )
        try:
            yield container
        finally:
            container.remove(v=True, force=True)

    def put_each(self) -> dict[Node, str]:
        """Stores an object, whose bytes are its id, on each node."""
        ids = {node: self.stack.id_of(node) for node in self.stack.nodes}
        for id in ids.values():
            assert self.gateway.put(id, id.encode()).status == 200
        return ids


@pytest.fixture(scope="module")
def labelled(lab: Lab) -> Iterator[Labelled]:
    with empty_stack(lab) as stack:
        plain, name = stack.add_node("a"), f"{stack.name}-cold"
        cold = stack.add_node(
            "",
            name=name,
            container_name=f"{stack.name}-web",
            region=REGION,
            port=9100,
            entrypoint=elsewhere(9100),
            node_labels={"objgw.node": name, "objgw.port": "9100", "objgw.region": REGION},
        )
        files = {"objgw.access-key-file": ACCESS, "objgw.secret-key-file": SECRET}
        user, password = "filed-user", secrets.token_hex(12)
        filed = stack.add_node(
            "c", user, password, hidden(user, password), entrypoint=HIDDEN, node_labels=files
        )
        gateway = stack.add_gateway(start=False)
        made = Labelled(stack, plain, cold, filed, gateway)
        made.write(ACCESS, f"{filed.user}\n")
        made.write(SECRET, f"{filed.password}\n")
        gateway.start()
        gateway.wait_up()
        gateway.wait_layout(node.name for node in stack.nodes)
        gateway.wait_ready()
        yield made


def test_nodes_by_name_by_label_and_with_keys_in_files_stand_beside_each_other(
    labelled: Labelled,
) -> None:
    stack, gateway = labelled.stack, labelled.gateway
    for node, id in labelled.put_each().items():
        assert has(gateway, id)
        assert stack.holders(id) == [node]
    names = sorted(node.name for node in stack.nodes)
    assert sorted(states(gateway)) == gateway.layout()["names"] == names
    assert stack.marker not in labelled.cold.name


def test_keys_that_change_in_their_files_count_and_a_file_that_can_not_be_read_is_told(
    labelled: Labelled,
) -> None:
    node, gateway = labelled.filed, labelled.gateway
    ids = labelled.put_each()
    mine = ids.pop(node)
    with labelled.stack.steady(gateway, ids.values()):
        labelled.write(SECRET, "", 0o600)
        reason = "the file of its label objgw.secret-key-file can't be read: Permission denied"
        stay = f"{node.name}: {reason}; the last keys stay"
        eventually(labelled.logged, stay, within=PROMPT)
        assert has(gateway, mine)
        password = secrets.token_hex(12)
        node.env = hidden(node.user, password)
        node.recreate(password=password)
        eventually(labelled.logged, f"label and can't be used: {reason}", within=PROMPT)
        eventually(lambda: states(gateway)[node.name] == "wrong", within=PROMPT)
        assert_unavailable(gateway.get(mine))
        labelled.write(SECRET, password)
        eventually(has, gateway, mine, within=PROMPT)
        eventually(lambda: states(gateway)[node.name] == "up", within=PROMPT)


def test_a_label_that_changes_with_the_container_counts_at_once(labelled: Labelled) -> None:
    node, gateway = labelled.cold, labelled.gateway
    ids = labelled.put_each()
    mine = ids.pop(node)
    with labelled.stack.steady(gateway, ids.values()):
        node.port, node.entrypoint = 9200, elsewhere(9200)
        node.node_labels = {**node.node_labels, "objgw.port": "9200"}
        node.recreate()
        eventually(has, gateway, mine, within=PROMPT)


def test_of_two_containers_with_one_node_name_one_is_asked_and_the_other_is_told(
    labelled: Labelled,
) -> None:
    node, gateway = labelled.cold, labelled.gateway
    ids = labelled.put_each()
    mine = ids.pop(node)
    told = (
        f"{node.name} ({str(node.container.id)[:12]}) has a node's name or label and can't be used"
    )
    with labelled.stack.steady(gateway, ids.values()):
        with labelled.beside({"objgw.node": node.name}) as twin:
            assert has(gateway, mine)  # it doesn't run
            twin.start()
            eventually(labelled.logged, f"{told}: {str(twin.id)[:12]} has the same", within=PROMPT)
            eventually(lambda: gateway.get(mine).status == 503, within=PROMPT)  # the newest counts
        eventually(has, gateway, mine, within=PROMPT)


def test_what_has_a_wrong_label_is_left_out_and_told_with_the_reason(labelled: Labelled) -> None:
    gateway, name = labelled.gateway, f"{labelled.stack.name}-wrong"
    before = set(gateway.layout()["names"])
    no_port = "its label objgw.port is no port, which is 1 to 65535"
    with (
        labelled.beside({"objgw.node": name, "objgw.port": "http"}) as wrong,
        labelled.beside({"objgw.node": ""}) as unnamed,
    ):
        wrong.start()
        unnamed.start()
        told = "has a node's name or label and can't be used: its label objgw"
        eventually(labelled.logged, f"{name} {told}.port is no port", within=PROMPT)
        eventually(labelled.logged, f"{unnamed.name} {told}.node is no name", within=PROMPT)
        eventually(lambda: states(gateway).get(name) == "wrong", within=PROMPT)
        (node,) = [each for each in health(gateway)["nodes"] if each["name"] == name]
        assert (node["role"], node["last_error"]) == ("outside", no_port)
        assert set(gateway.layout()["names"]) == before
