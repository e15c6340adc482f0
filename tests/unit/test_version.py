"""The version: the release's number, and a digest that is another one for other code."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.version import RELEASE, digest, version

CHECKOUT = Path(__file__).parents[2]


def test_the_version_is_a_release_and_the_code_that_runs() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[a-z]+)?\+[0-9a-f]{8}", version())
    assert version() == f"{RELEASE}+{digest(CHECKOUT / 'gateway')}"


def test_the_contract_for_machines_has_the_same_release() -> None:
    contract = (CHECKOUT / "openapi.yaml").read_text()
    assert f'\n  version: "{RELEASE}"\n' in contract


def test_the_digest_is_of_what_the_code_is_and_of_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "gateway"
    (package / "status" / "web").mkdir(parents=True)
    page = [f"gateway/status/web/page.{kind}" for kind in ("html", "css", "js")]
    for path in page:
        (tmp_path / path).write_text("of the page")
    (package / "a.py").write_text("one = 1")
    (tmp_path / "objgw.py").write_text("app = None")
    seen = [digest(package)]
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("compiled")
    (tmp_path / "conftest.py").write_text("tests aren't in the image")
    assert digest(package) == seen[0]
    for path in (*page, "gateway/a.py", "objgw.py"):
        with (tmp_path / path).open("a") as file:
            file.write(" ")
        seen.append(digest(package))
    (package / "a.py").rename(package / "b.py")
    seen.append(digest(package))
    assert len({*seen}) == 7
