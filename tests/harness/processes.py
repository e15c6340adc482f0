"""The processes of a gateway as /proc shows them, told by a container beside it.

From within the gateway's own container, what has changed its user can't be looked into. The one
beside it has its process and network namespaces, and one right more. It answers each connection to
`PORT` with what it sees just then, and ends when the gateway's first process does.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from docker.models.containers import Container

from tests.harness.engine import Lab

PORT = 3999

# Neither it nor a health check is a child of process 1.
WATCH = r"""
import contextlib, json, os, pathlib, socketserver
def links(folder):
    for each in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(each)
def look():
    rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
    ports = {f"socket:[{row[9]}]": int(row[2][-4:], 16) for row in rows if row[1].endswith(":0BB8") and row[3] == "01"}
    found = {}
    for folder in sorted(pathlib.Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            files = list(links(folder))
        except OSError:
            continue
        if folder.name == "1" or status["PPid"] == "1":
            found[folder.name] = {
                "status": status, "descriptors": len(files), "clients": [ports[file] for file in files if file in ports]
            }
    return found
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(json.dumps(look()).encode())
class Server(socketserver.TCPServer):
    allow_reuse_address = True
Server(("0.0.0.0", PORT), Handler).serve_forever()
""".replace("PORT", str(PORT))  # noqa: E501


@dataclass(frozen=True)
class Process:
    """A process of the gateway: the fields of its status, its open files, its clients' ports."""

    status: dict[str, str]
    descriptors: int
    clients: list[int]

    @property
    def memory(self) -> int:
        """Bytes in memory (VmRSS)."""
        return int(self.status["VmRSS"].split()[0]) * 1024


class Watch:
    """The container beside a gateway; it is made when somebody first looks, and once more after the
    gateway was started anew.
    """

    def __init__(self, lab: Lab, labels: dict[str, str], of: Container, host: Container) -> None:
        """`of` is the gateway's container, `host` the one whose network it has."""
        self._lab, self._labels, self._of, self._host = lab, labels, of, host
        self._container: Container | None = None

    def look(self, address: str) -> dict[int, Process]:
        """gunicorn's processes by their ids, the arbiter (1) before the workers.

        Raises OSError or ValueError where it can't be told yet.
        """
        if self._container is None:
            self._container = self._lab.docker.containers.run(
                "python:3.13-slim",
                ["python", "-c", WATCH],
                labels=self._labels,
                pid_mode=f"container:{self._of.id}",
                network_mode=f"container:{self._host.id}",
                cap_add=["SYS_PTRACE"],
                detach=True,
            )
        try:
            with socket.create_connection((address, PORT), 20) as connection:
                told = b"".join(iter(lambda: connection.recv(65536), b""))
            return {int(id): Process(**found) for id, found in json.loads(told).items()}
        except (OSError, ValueError):
            self._container.reload()
            if self._container.status != "running":
                self.remove()
            raise

    def remove(self) -> None:
        container, self._container = self._container, None
        if container:
            self._lab.drop(container.remove, force=True)
