"""objgw.py as a module."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.harness.engine import CHECKOUT, DockerRelay


def test_importing_the_module_starts_nothing_and_asks_docker_nothing() -> None:
    relay = DockerRelay()
    script = "import objgw, threading; assert callable(objgw.app); print(threading.active_count())"
    env = {**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{relay.port}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, env=env, capture_output=True, text=True)
    relay.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert relay.connections == 0
