"""Who leads among the workers of a gateway, and for how long the others take its word."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.nodes.layout import LEASE_SECONDS, Layout
from gateway.nodes.leader import Leader
from tests.harness.engine import CHECKOUT

LAYOUT = Layout.first(["node-1", "node-2"])
NEXT = LAYOUT.joined(["node-3"], now=0.0)


# Another worker, until it is killed.
WORKER = """
import signal, sys
from pathlib import Path
from gateway.nodes.leader import Leader
print(Leader(Path(sys.argv[1])).elect(), flush=True)
signal.pause()
"""


def test_one_of_several_workers_leads_and_another_one_when_it_ends(tmp_path: Path) -> None:
    second = Leader(tmp_path)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout
            assert first.stdout.readline() == "True\n"
            assert (second.elect(), second.leads) == (False, False)
        finally:
            first.kill()
    assert (second.elect(), second.leads) == (True, True)
    assert not second.elect()  # it leads already


def test_a_process_without_a_folder_leads_itself() -> None:
    leader = Leader(None)
    leader.tell(LAYOUT, time.monotonic())
    assert (leader.leads, leader.elect(), leader.agrees(LAYOUT)) == (True, False, False)


@pytest.mark.parametrize(
    ("told", "age", "asked", "agrees"),
    [
        (LAYOUT, 0.0, LAYOUT, True),
        (LAYOUT, LEASE_SECONDS - 1, LAYOUT, True),
        (LAYOUT, LEASE_SECONDS, LAYOUT, False),  # it is old
        (LAYOUT, math.inf, LAYOUT, False),  # no node has answered yet
        (NEXT, 0.0, LAYOUT, False),
        (LAYOUT, 0.0, NEXT, False),
        (Layout.first(["node-1", "node-2"]), 0.0, LAYOUT, False),  # another installation's
        (None, 0.0, LAYOUT, False),
        (LAYOUT, 0.0, None, False),
    ],
)
def test_the_word_counts_for_the_same_layout_and_while_it_is_fresh(
    tmp_path: Path, told: Layout | None, age: float, asked: Layout | None, agrees: bool
) -> None:
    Leader(tmp_path).tell(told, time.monotonic() - age)
    assert Leader(tmp_path).agrees(asked) is agrees


@pytest.mark.parametrize(
    "text", ["", "x", "1e9", f"now {LAYOUT.origin} 1"], ids=["none", "x", "number", "no time"]
)
def test_what_is_no_word_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "word").write_text(text)
    assert not Leader(tmp_path).agrees(LAYOUT)
