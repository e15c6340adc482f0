"""Labels of containers and of a Swarm's services, before an engine that is a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.nodes.sources.docker import DockerReader
from gateway.s3.endpoint import Endpoint
from tests.harness.fake_engine import GOOD, FakeEngine, container

KEYS = ["MINIO_ROOT_USER=ring", "MINIO_ROOT_PASSWORD=treepotato"]

# A container's labels, the image and the environment that it was made from, OBJGW_NODE_PORT (0:
# unset); and the name, port, region and access key with which it is a node.
Expected = tuple[str, int, str, str]
LABELLED: dict[str, tuple[dict[str, str], str, list[str], int, Expected]] = {
    "no labels": ({}, "minio/minio", KEYS, 0, ("node-x", 9000, "us-east-1", "ring")),
    "a port of the setting": ({}, "x", KEYS, 9300, ("node-x", 9300, "us-east-1", "ring")),
    "a name": ({"objgw.node": "cold"}, "x", KEYS, 0, ("cold", 9000, "us-east-1", "ring")),
    "a port": ({"objgw.port": "9100"}, "x", KEYS, 0, ("node-x", 9100, "us-east-1", "ring")),
    "a port before the setting": (
        {"objgw.port": "9100"},
        "dxflrs/garage",
        KEYS,
        9300,
        ("node-x", 9100, "garage", "ring"),
    ),
    "the setting before the image": (
        {},
        "versity/versitygw:v1.8.0",
        ["ROOT_ACCESS_KEY=vgw", "ROOT_SECRET_KEY=vgw-password"],
        9300,
        ("node-x", 9300, "us-east-1", "vgw"),
    ),
    "an image": (
        {},
        "versity/versitygw:v1.8.0",
        ["ROOT_ACCESS_KEY=vgw", "ROOT_SECRET_KEY=vgw-password", "VGW_REGION=vgw-1"],
        0,
        ("node-x", 7070, "vgw-1", "vgw"),
    ),
    "a region before the environment": (
        {"objgw.region": "eu-1"},
        "minio/minio",
        [*KEYS, "MINIO_REGION=losing-1"],
        0,
        ("node-x", 9000, "eu-1", "ring"),
    ),
}


def read_with(port: int) -> Endpoint:
    reader = DockerReader("node", port, 5)
    try:
        (endpoint,) = reader.read()
        return endpoint
    finally:
        reader.close()


@pytest.mark.parametrize("row", LABELLED)
def test_a_label_wins_then_the_setting_then_the_image(engine: FakeEngine, row: str) -> None:
    labels, image, env, port, expected = LABELLED[row]
    engine.list(container("x", Labels=labels))
    engine.inspect("x", {"Env": env, "Image": image})
    found = read_with(port)
    assert (found.name, found.port, found.region, found.access_key) == expected


def test_what_has_the_label_is_a_node_whatever_its_name_is_and_what_has_neither_is_none(
    engine: FakeEngine, reader: DockerReader
) -> None:
    cold = container("good", Names=["/web"], Labels={"objgw.node": "cold"})
    engine.list(cold, container("other", Names=["/web-2"], Labels={"objgw.port": "80"}))
    assert reader.read() == [GOOD._replace(name="cold")]
    engine.list(cold | {"Names": None})
    assert reader.read() == [GOOD._replace(name="cold")]


@pytest.mark.parametrize("name", ["", "cold 1", "a/b"])
def test_a_label_that_is_no_name_leaves_a_container_out_also_one_with_a_node_s_name(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    engine.list(container("x", Labels={"objgw.node": name}), container("good"))
    engine.inspect("x", {"Env": KEYS})
    for _ in range(3):
        assert reader.read() == [GOOD]
    (line,) = caplog.messages
    assert "node-x has a node's name or label and can't be used: its label objgw.node" in line


def test_a_wrong_label_keeps_a_node_s_place_and_is_told_once(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    engine.list(container("x", Labels={"objgw.port": "http"}), container("good"))
    for _ in range(3):
        good, wrong = reader.read()
        assert (good, wrong.name, wrong.host) == (GOOD, "node-x", None)
        assert wrong.problem == "its label objgw.port is no port, which is 1 to 65535"
    (line,) = caplog.messages
    assert wrong.problem in line
    engine.list(container("y", Names=["/node-x"], Labels={"objgw.port": "80"}), container("good"))
    engine.inspect("y", {"Env": KEYS})
    assert [each.port for each in reader.read()] == [9000, 80]


# Containers of one name, by their fields; the one that counts, and those that are told of.
TWINS: dict[str, tuple[list[dict[str, Any]], str, list[str]]] = {
    "both run": ([{"Created": 2}, {"Created": 1}], "a", ["b"]),
    "both run, the other way round": ([{"Created": 1}, {"Created": 2}], "b", ["a"]),
    "made in one second": ([{}, {}], "b", ["a"]),
    "the older one runs": ([{"Created": 2, "State": "exited"}, {"Created": 1}], "b", []),
    "none runs": ([{"Created": 2, "State": "exited"}, {"State": "exited"}], "a", []),
    "the newer one is wrong": ([{"Created": 2}, {"Created": 1}], "b", ["a"]),
    "three": ([{"Created": 1}, {"Created": 3}, {"Created": 2}], "b", ["a", "c"]),
}


@pytest.mark.parametrize("row", TWINS)
def test_of_several_with_one_name_one_counts_and_the_others_that_run_are_told_once(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    twins, chosen, told = TWINS[row]
    listed = []
    for id, fields in zip("abc", twins, strict=False):
        labels = {"objgw.node": "twin"}
        if "wrong" in row and id != chosen:
            labels["objgw.port"] = "wrong"
        listed.append(container(id, Labels=labels, **fields))
        engine.inspect(id, {"Env": KEYS})
    for order in (listed, listed[::-1], listed):
        engine.list(*order)
        (found,) = reader.read()
        assert (found.name, found.container) == ("twin", chosen)
    assert sorted(line.partition(")")[0] for line in caplog.messages) == [
        f"twin ({id}" for id in told
    ]
    assert all(f": {chosen} has the same node name" in line for line in caplog.messages)


@pytest.fixture
def filed(engine: FakeEngine, tmp_path: Path) -> Path:
    """A folder with the files of keys that the labels of a container name."""
    (tmp_path / "access").write_text("of-access\n")
    (tmp_path / "secret").write_text("of-secret\n")
    labels = {f"objgw.{which}-key-file": f"{tmp_path}/{which}" for which in ("access", "secret")}
    engine.list(container("x", Labels=labels))
    engine.inspect("x", {"Env": KEYS})
    return tmp_path


def test_keys_come_from_the_files_that_labels_name_and_are_read_again(
    filed: Path, engine: FakeEngine, reader: DockerReader
) -> None:
    def keys() -> tuple[str, str]:
        (found,) = reader.read()
        return found.access_key, found.secret_key

    assert keys() == ("of-access", "of-secret")
    assert not reader.events_suffice  # no event tells that a file has changed
    (filed / "secret").write_text("changed")
    assert keys() == ("of-access", "changed")
    assert engine.asked.count("/containers/x/json") == 1
    engine.list(container("x"))
    assert keys() == ("ring", "treepotato")
    assert reader.events_suffice


def test_without_a_file_a_node_can_not_be_used_until_it_is_there(
    filed: Path, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    (filed / "secret").unlink()
    for _ in range(3):
        (found,) = reader.read()
        assert found.problem.endswith(
            "objgw.secret-key-file can't be read: No such file or directory"
        )
    (line,) = caplog.messages
    assert str(filed) not in line
    assert "of-access" not in line
    (filed / "secret").write_text("there")
    (found,) = reader.read()
    assert (found.problem, found.secret_key) == ("", "there")


def test_while_a_file_can_not_be_read_any_more_the_last_keys_stay_and_the_log_says_so_once(
    filed: Path, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    (before,) = reader.read()
    caplog.clear()
    (filed / "access").write_text("")
    for _ in range(3):
        assert reader.read() == [before]
    assert caplog.messages == [
        "node-x: the file of its label objgw.access-key-file is empty; the last keys stay"
    ]
    (filed / "access").write_text("new")
    (found,) = reader.read()
    assert (found.access_key, found.secret_key) == ("new", "of-secret")


# -- labels in a Swarm


def service(name: str, labels: dict[str, str] | None, of_containers: Any = None) -> dict[str, Any]:
    template = {"ContainerSpec": {"Labels": of_containers}}
    mode = {"Replicated": {"Replicas": 1}}
    spec = {"Name": name, "Labels": labels, "Mode": mode, "TaskTemplate": template}
    return {"ID": f"service-{name}", "Spec": spec}


def task(of: dict[str, Any], slot: int = 1) -> dict[str, Any]:
    container = {"Env": KEYS, "Image": "minio/minio:x@sha256:0"}
    return {
        "ID": f"task-{of['Spec']['Name']}-{slot}",
        "ServiceID": of["ID"],
        "Slot": slot,
        "CreatedAt": "2026-11-28T12:00:00Z",
        "DesiredState": "running",
        "Status": {"State": "running"},
        "Spec": {"ContainerSpec": container, "Networks": [{"Target": "1"}]},
        "NetworksAttachments": [{"Network": {"ID": "1"}, "Addresses": ["10.0.0.9/24"]}],
    }


def swarm(engine: FakeEngine, *services: dict[str, Any], slots: int = 1) -> None:
    engine.answers["/info"] = (200, {"Swarm": {"ControlAvailable": True}})
    engine.answers["/services"] = (200, services)
    tasks = [task(each, slot + 1) for each in services for slot in range(slots)]
    engine.answers["/tasks"] = (200, tasks)
    engine.list()


# The name of a service, its labels and those of its containers; the name and port of its node.
SERVICES: dict[str, tuple[str, Any, Any, tuple[str, int] | None]] = {
    "no labels": ("a-node", None, None, ("a-node.1", 9000)),
    "no node": ("web", {"objgw.port": "80"}, None, None),
    "labels of the service": (
        "web",
        {"objgw.node": "cold", "objgw.port": "9100"},
        None,
        ("cold.1", 9100),
    ),
    "labels of its containers": ("web", {}, {"objgw.node": "cold"}, ("cold.1", 9000)),
    "both": (
        "a-node",
        {"objgw.node": "losing", "objgw.port": "9100"},
        {"objgw.node": "cold"},
        ("cold.1", 9100),
    ),
    "no name": ("a-node", {"objgw.node": "a b"}, None, None),
}


@pytest.mark.parametrize("row", SERVICES)
def test_labels_of_a_service_and_of_its_containers_count_for_its_tasks(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    name, labels, of_containers, expected = SERVICES[row]
    swarm(engine, service(name, labels, of_containers))
    for _ in range(2):
        found = [(each.name, each.port) for each in reader.read()]
        assert found == ([expected] if expected else [])
    assert len(caplog.messages) == (row == "no name")


def test_a_labelled_service_has_a_node_for_each_of_its_slots_and_two_services_don_t_share_one(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"objgw.node": "cold", "objgw.region": "a b"}
    swarm(engine, service("web", labels), slots=2)
    found = reader.read()
    assert [each.name for each in found] == ["cold.1", "cold.2"]
    assert all("objgw.region is no region" in each.problem for each in found)
    swarm(engine, *(service(name, {"objgw.node": "cold"}) for name in ("web", "web-2")))
    (one,) = reader.read()
    assert (one.name, one.container) == ("cold.1", "task-web-2-1")
    assert "cold.1 (task-web-1) has a node's name or label and can't be used" in caplog.text


def test_on_a_worker_the_container_of_a_task_has_the_name_that_a_manager_gives_the_task(
    engine: FakeEngine, reader: DockerReader
) -> None:
    of_swarm = {"com.docker.swarm.task.id": "t1", "com.docker.swarm.service.name": "web"}
    labels = of_swarm | {"objgw.node": "cold"}
    engine.list(
        container("good", Names=["/web.3.t1"], Labels=labels),
    )
    assert reader.read() == [GOOD._replace(name="cold.3")]
    engine.answers["/info"] = (200, {"Swarm": {"ControlAvailable": True}})
    engine.answers["/services"] = engine.answers["/tasks"] = (200, [])
    reader.close()
    assert reader.read() == []
