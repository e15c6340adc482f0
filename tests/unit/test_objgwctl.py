"""objgwctl.py's command line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import pytest

from gateway.answers import Refusal
from gateway.links import Links, link_of
from objgwctl import bandwidth, base, lifetime, parse, positive, size
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


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1", 1), ("10M", 10 * 2**20), ("1.5k", 1536), ("0.1", None), ("1" * 16, None)]
    + [(wrong, None) for wrong in ("", "0", "-1", "M", "10M/s", "1T")],
)
def test_a_size_is_a_number_of_bytes_or_refused(text: str, bytes_: int | None) -> None:
    if bytes_ is None:
        with pytest.raises(argparse.ArgumentTypeError, match="for example 20M"):
            size(text)
    else:
        assert size(text) == bytes_


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800), ("999999d", 86399913600)]
    + [(wrong, None) for wrong in ("", "0h", "2", "h", "-2h", "2 h", "1.5h", "2H", "1000000d")],
)
def test_a_lifetime_is_a_number_with_its_unit_or_refused(text: str, seconds: int | None) -> None:
    if seconds is None:
        with pytest.raises(argparse.ArgumentTypeError, match="for example 90s"):
            lifetime(text)
    else:
        assert lifetime(text) == seconds


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example", "https://a.example"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000"),
        ("https://a.example/objgw/", "https://a.example/objgw"),
    ]
    + [
        (wrong, None)
        for wrong in ("", "a.example", "https://", "https://a?x", "ftp://a", "http:///x")
    ],
)
def test_a_base_is_a_url_or_refused(text: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(argparse.ArgumentTypeError, match="for example https"):
            base(text)
    else:
        assert base(text) == url


KEYS = "n" * 32, "k" * 32


def link(*arguments: str, keys: str = " ".join(KEYS)) -> subprocess.CompletedProcess[str]:
    """What objgwctl.py link says. Docker isn't there."""
    env = {**os.environ, "OBJGW_LINK_KEY": keys, "DOCKER_HOST": "tcp://127.0.0.1:9"}
    command = [sys.executable, "objgwctl.py", "link", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("method", "arguments", "begin", "most"),
    [
        ("GET", [], "/object/readme1?expires=", None),
        ("GET", ["--base", "https://a.example/"], "https://a.example/object/readme1?", None),
        ("PUT", ["--put", "--max", "10M"], "/object/readme1?expires=", 10 * 2**20),
    ],
)
def test_a_link_is_printed_that_the_gateway_takes(
    method: str, arguments: list[str], begin: str, most: int | None
) -> None:
    done = link("readme1", "--for", "2h", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(begin)
    sent = link_of(done.stdout.strip().partition("?")[2])
    assert sent is not None
    # It was made within the last minutes, with the first of the keys.
    assert Links(KEYS[:1]).permit(method, "readme1", sent, time.time() + 7000) == most
    with pytest.raises(Refusal, match="expired"):
        Links(KEYS[:1]).permit(method, "readme1", sent, time.time() + 7200)


@pytest.mark.parametrize(
    ("arguments", "keys", "told"),
    [
        (["readme1"], "", "OBJGW_LINK_KEY isn't set"),
        (["readme1"], "short", "at least 32 characters"),
        (["read.me"], KEYS[0], "an id is"),
        (["readme1", "--put"], KEYS[0], "--put and --max go together"),
        (["readme1", "--max", "10M"], KEYS[0], "--put and --max go together"),
    ],
)
def test_a_link_that_can_not_be_made_is_exit_code_2_and_says_why(
    arguments: list[str], keys: str, told: str
) -> None:
    done = link(*arguments, "--for", "2h", keys=keys)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


WRONG = [
    ["link", "readme1"],
    ["link", "--for", "2h"],
    ["link", "readme1", "--for", "2"],
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
