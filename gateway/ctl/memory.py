"""S3 servers that hold objects in memory: for a first look without Docker, and for tests.

Each is moto's S3 (https://docs.getmoto.org) under gunicorn, in a process of its own, on loopback.
moto is one of the packages of requirements-dev.txt.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
STOP_SECONDS = 5.0  # that a process may take to end


def app() -> object:
    """The WSGI application of one server."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


class MemoryNode:
    """One server. As a context manager it ends its process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys = f"key{secrets.token_hex(4)}", secrets.token_hex(16)
        # The server's process inherits the socket, so that nobody can take its port in between.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            bound = f"fd://{listener.fileno()}"
            # In a folder without gunicorn.conf.py, which is the gateway's.
            self._folder = tempfile.TemporaryDirectory(prefix="objgw-memory-")
            options = "-k gthread --threads 32 --keep-alive 75 --timeout 0 --no-control-socket"
            self._process = start(
                [
                    *options.split(),
                    "--log-level",
                    "warning",
                    "-b",
                    bound,
                    "gateway.ctl.memory:app()",
                ],
                Path(self._folder.name),
                (listener.fileno(),),
            )

    @property
    def line(self) -> str:
        """The node in a list of nodes (`gateway.node_list`)."""
        return f"{self.name}=http://{':'.join(self.keys)}@127.0.0.1:{self.port}"

    def __enter__(self) -> MemoryNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; its objects are gone."""
        end(self._process)
        self._folder.cleanup()


def start(
    options: Sequence[str],
    folder: Path,
    descriptors: tuple[int, ...] = (),
    env: Mapping[str, str] | None = None,
    errors: int | None = None,
) -> subprocess.Popen[bytes]:
    """A gunicorn, in a session of its own, so that Ctrl-C is for the one who started it.

    `errors` is the descriptor to which it logs, where that isn't this process's standard error.
    """
    command = [sys.executable, "-m", "gunicorn", *options]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **(env or {})}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        pass_fds=descriptors,
        start_new_session=True,
        stderr=errors,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)  # gunicorn's quick stop
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
