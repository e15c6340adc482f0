"""What Docker lists becomes nodes, however odd: before an engine that is a real server."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from gateway.nodes.sources import events as event_source
from gateway.nodes.sources.docker import DockerReader
from gateway.nodes.sources.events import EventsRefused
from gateway.nodes.sources.trouble import trouble
from gateway.s3.endpoint import Endpoint
from tests.harness.fake_engine import GOOD, OWN, FakeEngine, Handler, container


def on(**networks: Any) -> dict[str, Any]:
    return {"Networks": networks}


# Fields of a container that is no node, and what the log says of it.
ODD: dict[str, tuple[dict[str, Any], str]] = {
    "networks that are null": ({"NetworkSettings": on() | {"Networks": None}}, "no network"),
    "no settings": ({"NetworkSettings": None}, "no network"),
    "a network that is null": ({"NetworkSettings": on(net=None)}, "no address"),
    "no address": ({"NetworkSettings": on(net={"IPAddress": ""})}, "no address"),
    "another network": ({"NetworkSettings": on(other={"IPAddress": "10.1.0.1"})}, "no network"),
    "networks that are a list": ({"NetworkSettings": {"Networks": [1]}}, "no network"),
    "no state": ({"State": 5, "NetworkSettings": on(net=7)}, ""),
    "settings that are a text": ({"NetworkSettings": "bridge"}, "isn't understood"),
    "names that are numbers": ({"Names": [1]}, "isn't understood"),
    "a gateway": ({"ImageID": "gateway"}, "it is a gateway"),
    "a one-off": ({"Labels": {"com.docker.compose.oneoff": "True"}}, "one-off"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_container_hides_no_other_and_is_told_once(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture, odd: str
) -> None:
    fields, reason = ODD[odd]
    engine.list(container("odd", **fields), container("good", Labels=None))
    engine.inspect("odd", None)
    for _ in range(3):
        found = {endpoint.name: endpoint for endpoint in reader.read()}
        assert found["node-good"] == GOOD
        assert found.get("node-odd", Endpoint("node-odd")).host is None
    told = [line for line in caplog.messages if "can't be used" in line]
    assert len(told) == bool(reason)
    assert all(reason in line for line in told)


def test_a_container_without_settings_has_the_keys_that_its_server_takes_then(
    engine: FakeEngine, reader: DockerReader
) -> None:
    engine.list(container("bare"))
    engine.inspect("bare", None)
    assert reader.read() == [
        Endpoint("node-bare", "bare", "10.0.0.7", 9000, "minioadmin", "minioadmin")
    ]


def test_a_node_with_an_ipv6_address_only_is_found_there(
    engine: FakeEngine, reader: DockerReader
) -> None:
    address = {"IPAddress": "", "GlobalIPv6Address": "fd00::7"}
    engine.list(container("good", NetworkSettings=on(net=address)))
    (endpoint,) = reader.read()
    assert (endpoint.host, endpoint.authority) == ("fd00::7", "[fd00::7]:9000")


def test_a_node_in_the_network_of_the_host_is_found_where_the_gateway_is_there_too(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    engine.list(container("good", NetworkSettings=on(host={"IPAddress": ""})))
    assert reader.read() == []
    assert "it shares no network with the gateway" in caplog.text
    engine.attach("host")
    assert [endpoint.host for endpoint in reader.read()] == ["127.0.0.1"]


def test_an_inspect_that_fails_is_told_with_its_status_and_is_asked_again(
    engine: FakeEngine, reader: DockerReader, caplog: pytest.LogCaptureFixture
) -> None:
    engine.list(container("bad"), container("good"))
    engine.answers["/containers/bad/json"] = (500, {"message": "the disk is broken"})
    for _ in range(2):
        bad, good = reader.read()
        assert good == GOOD
        assert bad.host is None
        assert "500" in bad.problem
        assert not reader.events_suffice
    told = [line for line in caplog.messages if "node-bad" in line]
    assert len(told) == 1
    assert "500" in told[0]
    assert "the disk is broken" in told[0]
    engine.inspect("bad", {"Env": []})
    assert [endpoint.host for endpoint in reader.read()] == ["10.0.0.7", "10.0.0.7"]
    assert reader.events_suffice


def test_a_container_that_vanishes_between_list_and_inspect_is_no_node(
    engine: FakeEngine, reader: DockerReader
) -> None:
    engine.list(container("gone"), container("good"))
    assert reader.read() == [GOOD]


# -- events


def event(kind: str, id: str, **about: str) -> dict[str, Any]:
    return {"Type": kind, "Action": "die", "Actor": {"ID": id, "Attributes": about}}


CONCERNS: dict[str, tuple[dict[str, Any], bool]] = {
    "a node": (event("container", "1", name="node-1"), True),
    "another container": (event("container", "2", name="web"), False),
    "one with the label": (event("container", "6", name="web", **{"objgw.node": "cold"}), True),
    "one that has a node's name by now": (
        event("container", "3", name="node-3", oldName="/x"),
        True,
    ),
    "one that had a node's name": (event("container", "4", name="x", oldName="/node-4"), True),
    "our own": (event("container", OWN, name="gateway"), True),
    "a node's network": (event("network", "n", container="good"), True),
    "our own network": (event("network", "n", container=OWN), True),
    "another's network": (event("network", "n", container="5"), False),
    "what isn't known": ({"Type": "new"}, True),
}


def test_events_about_nodes_wake_the_reading_and_no_others_do(
    engine: FakeEngine, reader: DockerReader
) -> None:
    engine.list(container("good"))
    reader.read()
    for name, (each, wakes) in CONCERNS.items():
        assert reader.events.concerns(json.dumps(each).encode()) is wakes, name


def test_a_stream_tells_of_its_begin_and_of_each_event_and_ends_where_it_breaks(
    engine: FakeEngine, reader: DockerReader
) -> None:
    engine.events = queue.Queue()
    changes = reader.events.changes()
    next(changes)
    for each, _ in CONCERNS.values():
        engine.events.put(each)
    for _ in range(sum(wakes for _, wakes in list(CONCERNS.values())) - 3):
        assert next(changes)  # "good" and our own aren't known before a reading
    engine.events.put(None)
    assert list(changes) == []


def test_a_stream_on_which_nothing_comes_is_opened_again(
    engine: FakeEngine, reader: DockerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_source, "QUIET_SECONDS", 2)  # it has as long to begin
    engine.events = queue.Queue()
    changes = reader.events.changes()
    assert [next(changes) for _ in range(3)] == [True, False, False]
    assert engine.asked.count("/events") == 3
    changes.close()
    for _ in range(3):
        engine.events.put(None)


def test_a_proxy_that_forbids_events_is_told_with_its_status(
    engine: FakeEngine, reader: DockerReader
) -> None:
    engine.answers["/events"] = (403, {"message": "no"})
    with pytest.raises(EventsRefused, match="403"):
        next(reader.events.changes())


# -- Docker isn't there

TROUBLES = {
    "missing": "isn't there: mount the Docker socket at this path, or set DOCKER_HOST",
    "refusing": "refuses connections: see whether Docker runs there",
    "silent": "doesn't answer in time: OBJGW_DOCKER_TIMEOUT sets",
    "ending": "ends connections without an answer: see whether Docker runs there",
    "failing": "answers with an error",
}


def end_the_connection(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("how", TROUBLES)
def test_where_docker_cannot_be_read_the_line_names_where_and_what_to_do(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    reader = DockerReader("node", 9000, 1 if how == "silent" else 30)
    if how == "missing":
        host = f"unix://{tmp_path}/nothing.sock"
        monkeypatch.setenv("DOCKER_HOST", host)
    elif how == "refusing":
        host = "tcp://127.0.0.1:9"
        monkeypatch.setenv("DOCKER_HOST", host)
    elif how == "silent":
        engine.events = queue.Queue()
        monkeypatch.setattr(Handler, "do_GET", lambda _: threading.Event().wait(3))
    elif how == "ending":
        monkeypatch.setattr(Handler, "do_GET", end_the_connection)
    else:
        engine.answers["/containers/json"] = (500, {"message": "no"})
    with pytest.raises((docker.errors.DockerException, requests.RequestException)) as raised:
        reader.read()
    said = trouble(raised.value)
    assert said.startswith(host)
    assert TROUBLES[how] in said
