"""The page, made of its files."""

from __future__ import annotations

import base64
import hashlib
import re

from gateway.status.page import FOLDER, page


def test_the_page_has_all_of_its_files_in_it_and_links_none() -> None:
    headers, body = page()
    document = body.decode()
    for path in FOLDER.iterdir():
        if path.name != "page.html":
            assert path.read_text() in document, path
    assert not re.search(r"<link[^>]+stylesheet|<script[^>]|@import|url\(", document)
    assert dict(headers)["Content-Length"] == str(len(body))


def test_the_policy_allows_the_scripts_and_the_style_that_are_in_the_page_and_no_other() -> None:
    headers, body = page()
    rules = dict(
        rule.split(" ", 1) for rule in dict(headers)["Content-Security-Policy"].split("; ")
    )
    assert rules["default-src"] == "'none'"
    for kind in ("script", "style"):
        parts = re.findall(rb"<%b>(.*?)</%b>" % (2 * (kind.encode(),)), body, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts]
        assert rules[f"{kind}-src"].split() == [f"'sha256-{each}'" for each in digests]


def test_each_part_of_the_page_that_a_script_names_is_there() -> None:
    document = page()[1].decode()
    ids = re.findall(r' id="([a-z-]+)"', document)
    assert len(ids) == len({*ids})
    assert {*re.findall(r'\$\("([a-z-]+)"\)', document)} <= {*ids}
    # What is taken as HTML is never text of somebody else's.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", document)
