"""objgwctl.py's command line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import pytest

from objgwctl import bandwidth, parse, positive
from tests.harness.engine import CHECKOUT


def test_objgwctl_gives_its_help_also_with_a_setting_that_can_not_be_used_and_names_it_only_where_it_matters() -> (  # noqa: E501
    None
):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OBJGW_NODE_PORT": "abc"}
        command = [sys.executable, "objgwctl.py", *arguments]
        return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)

    given = run("--help")
    assert (given.returncode, given.stderr) == (0, "")
    refused = run("nodes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "objgwctl: OBJGW_NODE_PORT='abc' is not a number\n"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1", 1),
        ("20M", 20 * 2**20),
        ("1.5k", 1536),
        ("2 GiB/s", None),
        ("3GiB/s", 3 * 2**30),
        ("4mb", 4 * 2**20),
    ]
    + [(wrong, None) for wrong in ("", "0", "0.0M", "-1", "M", "1T", "1e3", "20M/min")],
)
def test_a_bandwidth_is_a_number_of_bytes_a_second_or_refused(
    text: str, rate: float | None
) -> None:
    if rate is None:
        with pytest.raises(argparse.ArgumentTypeError, match="for example 20M"):
            bandwidth(text)
    else:
        assert bandwidth(text) == rate


@pytest.mark.parametrize(
    ("text", "jobs"), [("1", 1), ("256", 256), ("0", 0), ("257", 0), ("-1", 0), ("x", 0), ("", 0)]
)
def test_a_number_of_jobs_is_1_to_256_or_refused(text: str, jobs: int) -> None:
    if jobs:
        assert positive(text) == jobs
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="1 to 256"):
            positive(text)


WRONG = [
    [],
    ["rebuild"],
    ["locate"],
    ["add"],
    ["remove"],
    ["nodes", "--limit", "1M"],
    ["rebalance", "--limit", "fast"],
    ["rebalance", "--jobs", "0"],
    ["rebalance", "NAME"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_is_exit_code_2_and_says_how_it_goes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert "usage: objgwctl.py" in capsys.readouterr().err


def test_each_command_has_what_it_is_given() -> None:
    given = parse(["remove", "node-2", "--lost", "--yes", "--jobs", "3", "--limit", "1M", "--json"])
    assert (given.command, given.names, given.lost, given.yes, given.json) == (
        "remove",
        ["node-2"],
        True,
        True,
        True,
    )
    assert (given.jobs, given.limit, given.wait, given.no_rebalance) == (3, 2**20, False, False)
    assert parse(["rebalance"]).limit == 0
