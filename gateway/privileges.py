"""Which user the gateway's processes are: gunicorn's, and `objgwctl.py` in the same container.

The container starts as root, because only what runs there knows the group of the Docker socket. The
image names the user in OBJGW_USER. Root has no capabilities left to read other users' files, so a
secret that is for the gateway's user is read by that user only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

SOCKET = "unix:///var/run/docker.sock"
LISTS = ("OBJGW_NODES", "OBJGW_NODES_FILE")  # where one is set, Docker isn't asked


def drop_privileges(environ: Mapping[str, str]) -> tuple[int, str]:
    """Becomes the user that OBJGW_USER names, for good, with no group but the Docker socket's.

    Where Docker Desktop runs, that is root's. Where the socket isn't there yet nobody knows its
    group; then the process stays what it is. Nothing is done where the process isn't root's.

    Gives what there is to say of it: a level of `logging`, and a text, which is empty for nothing.
    """
    if os.getuid() or not environ.get("OBJGW_USER"):
        return logging.NOTSET, ""
    user, host = int(environ["OBJGW_USER"]), environ.get("DOCKER_HOST") or SOCKET
    needed = host.startswith("unix://") and not any(map(environ.get, LISTS))
    try:
        groups = [os.stat(host.removeprefix("unix://")).st_gid] if needed else []
    except FileNotFoundError:
        text = f"{host} isn't there, so its group isn't known: running as root"
        return logging.WARNING, text
    os.setgroups(groups)
    os.setgid(user)
    os.setuid(user)
    return logging.INFO, f"running as user {user}, groups {groups}"
