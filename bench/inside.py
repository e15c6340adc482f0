"""Where the commands run that need nodes to do harm to: in the tests' container, with the tests'
harness.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness.stack import Stack

FOLDER = "/out"  # in the tests' container: where a command may leave files for the user
CHECKOUT = Path(__file__).resolve().parent.parent


@contextmanager
def in_tests_container(script: str, folder: Path | None = None) -> Iterator[Stack]:
    """An empty stack, gone afterwards.

    Outside the tests' container the command is run again inside of it instead, where `folder` is
    `FOLDER`.
    """
    if "BENCH_INSIDE" not in os.environ:
        os.chdir(CHECKOUT)
        compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        subprocess.run([*compose, "build", "tests"], stdout=subprocess.DEVNULL, check=True)
        command = ["python", f"bench/{Path(script).name}", *sys.argv[1:]]
        mount = ["-v", f"{folder}:{FOLDER}"] if folder else []
        inside = ["run", "--rm", "-T", "-e", "BENCH_INSIDE=1", *mount, "tests"]
        os.execvp(compose[0], [*compose, *inside, *command])
    sys.path.append(str(CHECKOUT))
    from tests.harness.engine import Lab
    from tests.harness.stack import Stack

    lab = Lab()
    lab.sweep_leftovers()
    try:
        lab.build()
        stack = Stack(lab)
        try:
            yield stack
        finally:
            with redirect_stdout(sys.stderr):  # the gateways' logs
                stack.close()
    finally:
        lab.clear()
