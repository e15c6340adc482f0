"""The examples in docstrings: each of them holds."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.harness.engine import CHECKOUT

FILES = [
    CHECKOUT / "objgw.py",
    CHECKOUT / "objgwctl.py",
    *sorted((CHECKOUT / "gateway").rglob("*.py")),
]


def module(file: Path) -> str:
    """The name under which a file is imported."""
    return ".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", [module(file) for file in FILES if ">>> " in file.read_text()])
def test_the_examples_in_a_module_hold(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert not results.failed
