"""Which user a process becomes, by its environment. What needs root is noted, and not done."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.privileges import drop_privileges

DOCKER_ONLY = {"OBJGW_USER": "65534"}
LISTED = {**DOCKER_ONLY, "OBJGW_NODES_FILE": "/run/secrets/nodes"}
PROXIED = {**DOCKER_ONLY, "DOCKER_HOST": "tcp://proxy:2375"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What was called, with its argument; the process seems to be root's."""
    made: list[tuple[str, Any]] = []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda value, name=name: made.append((name, value)))
    return made


@pytest.mark.parametrize("environ", [LISTED, PROXIED])
def test_without_a_socket_to_open_no_group_is_kept(
    calls: list[tuple[str, Any]], environ: dict[str, str]
) -> None:
    assert drop_privileges(environ) == (logging.INFO, "running as user 65534, groups []")
    assert calls == [("setgroups", []), ("setgid", 65534), ("setuid", 65534)]


def test_the_group_of_the_docker_socket_is_kept(
    calls: list[tuple[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "sock").touch()
    os.chown(tmp_path / "sock", -1, os.getgid())
    drop_privileges({**DOCKER_ONLY, "DOCKER_HOST": f"unix://{tmp_path}/sock"})
    assert calls[0] == ("setgroups", [os.getgid()])


def test_where_the_socket_is_not_there_yet_it_stays_root_and_says_so(
    calls: list[tuple[str, Any]], tmp_path: Path
) -> None:
    level, text = drop_privileges({**DOCKER_ONLY, "DOCKER_HOST": f"unix://{tmp_path}/sock"})
    assert level == logging.WARNING
    assert text == f"unix://{tmp_path}/sock isn't there, so its group isn't known: running as root"
    assert not calls


def test_outside_the_image_and_for_other_users_nothing_changes(
    calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drop_privileges({}) == (logging.NOTSET, "")
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert drop_privileges(DOCKER_ONLY) == (logging.NOTSET, "")
    assert not calls
