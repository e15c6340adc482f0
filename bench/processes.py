"""Commands, Docker's engine, and the CPU and memory that containers and processes have used."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class BenchError(Exception):
    """The benchmark can't go on; the message says why."""


def run(*command: str) -> str:
    """A command's output; BenchError with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            f"{' '.join(command[:6])} …: {(done.stderr or done.stdout).strip()[-2000:]}"
        )
    return done.stdout.strip()


def engine(method: str, path: str, body: Any = None) -> Any:
    """What the engine answers; unlike a command, Ctrl-C doesn't end a request that is under way.

    https://docs.docker.com/reference/api/engine/version/v1.41/
    """
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.connect("/var/run/docker.sock")
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, body and json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read()
    if reply.status >= 300:
        raise BenchError(f"Docker: {method} {path}: {reply.status} {text.decode()}")
    return json.loads(text or "null")


def process_of(name: str) -> int:
    """The first process of a container; 0 where it doesn't run."""
    return int(engine("GET", f"/containers/{name}/json")["State"]["Pid"])


def cgroup(pid: int, controller: str, *names: str) -> str:
    """The text of the first of these files that there is in a process's cgroup, of
    version 1 or 2.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in names if controller in controllers.split(",") or not controllers else ():
            file = Path(f"/sys/fs/cgroup/{controllers}{path}/{name}")
            if file.exists():
                return file.read_text()
    raise BenchError(f"no {' or '.join(names)} in the cgroup of process {pid}")


def container_cpu(pid: int) -> float:
    """CPU seconds of the container that a process is in."""
    text = cgroup(pid, "cpuacct", "cpuacct.usage", "cpu.stat")
    found = re.search(r"usage_usec (\d+)", text)
    return int(found[1]) / 1e6 if found else int(text) / 1e9


def container_memory(pid: int) -> float:
    """The most memory that the container has had, in MiB; its page cache counts, as it does for its
    limit.
    """
    return int(cgroup(pid, "memory", "memory.max_usage_in_bytes", "memory.peak")) / 2**20


def memory(*pids: int, kind: str = "Pss") -> float:
    """The memory of processes in MiB; `Rss`, or `Pss`, which shares out what several have.

    https://docs.kernel.org/filesystems/proc.html
    """
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    found = re.findall(rf"^{kind}: +(\d+) kB$", "".join(texts), re.MULTILINE)
    return sum(map(int, found)) / 1024


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def used(seconds: float, *cpu: Callable[[], float]) -> list[float]:
    """What each of these adds to its CPU seconds in so long, in per cent of a core."""
    began, before = time.monotonic(), [each() for each in cpu]
    time.sleep(seconds)
    passed = (time.monotonic() - began) / 100
    return [(each() - then) / passed for each, then in zip(cpu, before, strict=True)]


def process_cpu(pid: int) -> float:
    """CPU seconds of a process and its children."""
    stats = [
        Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        for each in (pid, *children(pid))
    ]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")
