"""objgwctl.py's command line."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.harness.engine import CHECKOUT


def test_objgwctl_gives_its_help_also_with_a_setting_that_can_not_be_used_and_names_it_only_where_it_matters() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OBJGW_NODE_PORT": "abc"}
        command = [sys.executable, "objgwctl.py", *arguments]
        return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)

    given = run("--help")
    assert (given.returncode, given.stderr) == (0, "")
    refused = run("nodes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "objgwctl: OBJGW_NODE_PORT='abc' is not a number\n"
