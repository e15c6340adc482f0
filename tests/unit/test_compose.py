"""docker-compose.yml, as it is written."""

from __future__ import annotations

import re

import yaml  # type: ignore[import-untyped]

from gateway.status.traces import ENDPOINTS, EXPORTER
from tests.harness.engine import CHECKOUT

CONFIGURATION = (CHECKOUT / "gunicorn.conf.py").read_text()

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())


def test_compose_publishes_nothing_but_the_gateway_beyond_loopback() -> None:
    published = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    assert published.pop("gateway-container") == ["3000:3000"]
    ports = [port for ports in published.values() for port in ports]
    assert len(ports) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:9001", port) for port in ports)  # consoles


def test_both_files_hand_over_the_same_variables() -> None:
    stack = yaml.safe_load((CHECKOUT / "docker-stack.yml").read_text())
    compose, swarm = (
        {each.partition("=")[0] for each in found["services"]["gateway-container"]["environment"]}
        for found in (COMPOSE, stack)
    )
    # The Swarm's has a value of its own for that setting.
    assert compose - swarm == {"OBJGW_CLIENT_CONNECTIONS_FILE"}
    assert swarm < compose
    assert {*ENDPOINTS, EXPORTER, "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED"} < compose


def test_docker_gives_the_gateway_longer_to_stop_than_it_takes() -> None:
    graceful = int(re.findall(r"^graceful_timeout = (\d+)$", CONFIGURATION, re.MULTILINE)[0])
    for name in ("docker-compose.yml", "docker-stack.yml"):
        service = yaml.safe_load((CHECKOUT / name).read_text())["services"]["gateway-container"]
        assert int(service["stop_grace_period"].removesuffix("s")) >= graceful + 3, name
