"""Privileges: what the gateway's processes may, with docker-compose.yml's settings."""

from __future__ import annotations

import os

import pytest
import yaml  # type: ignore[import-untyped]

from tests.harness.engine import CHECKOUT, DOCKER_SOCKET
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, pattern
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())

# --------------------------------------------------------------------------------------------------
# Privileges
# --------------------------------------------------------------------------------------------------

SETUID, SETGID = 1 << 7, 1 << 6  # capabilities(7)


@pytest.fixture(scope="module")
def confined(shared: Stack) -> Gateway:
    """A gateway with all that docker-compose.yml says of privileges and limits."""
    service = COMPOSE["services"]["gateway-container"]
    names = ("read_only", "cap_drop", "cap_add", "security_opt", "mem_limit", "pids_limit")
    spool = shared.lab.docker.volumes.create(f"{shared.name}-spool", labels=shared.labels)
    targets = dict(volume.split(":") for volume in service["volumes"])
    gateway = shared.add_gateway(
        {"WEB_CONCURRENCY": "2"},
        volumes={
            str(spool.name): {"bind": targets["spool"], "mode": "rw"},
            DOCKER_SOCKET: {"bind": targets[DOCKER_SOCKET], "mode": "rw"},
        },
        **{name: service[name] for name in names},
    )
    gateway.wait_ready()
    return gateway


def test_all_processes_are_nobody_with_the_group_of_the_docker_socket_and_no_capability(
    confined: Gateway,
) -> None:
    processes = confined.processes()
    assert len(processes) == 3
    for process in processes.values():
        status = process.status
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].split() == [str(os.stat(DOCKER_SOCKET).st_gid)]
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert int(status["CapBnd"], 16) == SETUID | SETGID


def test_a_gateway_on_a_read_only_file_system_stores_uploads_without_a_length(
    confined: Gateway,
) -> None:
    id, body = random_id(), pattern(10 * MIB)
    assert confined.put(id, (body[at : at + MIB] for at in range(0, len(body), MIB))).status == 200
    assert confined.get(id).body == body
    writable = (
        "import os; print([p for p in ('/', '/srv/objgw', '/etc', '/var', '/root') if "
        "os.access(p, os.W_OK)])"
    )
    assert confined.read("python", "-c", writable) == "[]\n"


def test_memory_and_processes_are_limited(confined: Gateway) -> None:
    confined.container.reload()
    limits = confined.container.attrs["HostConfig"]
    assert 0 < limits["Memory"] <= 1024 * MIB
    assert 0 < limits["PidsLimit"] <= 256
    assert limits["ReadonlyRootfs"]
    assert not limits["Privileged"]
