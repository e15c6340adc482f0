"""openapi.yaml as a check of answers: each that a gateway gives must be there, with its headers."""

from __future__ import annotations

import re
from email.message import Message
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

import yaml  # type: ignore[import-untyped]

from tests.harness.engine import CHECKOUT

METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")
# Headers of HTTP itself, which no contract names; the body's type is compared by itself.
FRAMING = {"content-type", "content-length", "transfer-encoding", "connection", "date"}
# What a node says of its object; a fake one may not.
OF_NODES = {"etag", "last-modified", "accept-ranges"}
# What a gateway may say to a path, or a method, that isn't in the contract.
ANYWHERE = {400, 401, 414, 417, 431, 500, 501, 503}
NO_PATH, NO_METHOD = ANYWHERE | {404}, ANYWHERE | {403, 404, 405}


@cache
def contract() -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "openapi.yaml").read_text())
    return document


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for, or the part itself."""
    while "$ref" in part:
        names, found = part["$ref"].removeprefix("#/").split("/"), contract()
        for name in names:
            found = found[name]
        part = found
    return part


def operations(path: str) -> dict[str, dict[str, Any]] | None:
    """The operations of a request's path by their methods; None where there is no such path."""
    known = "/object/{id}" if path.startswith("/object/") else path
    item = contract()["paths"].get(known)
    if item is None:
        return None
    return {name.upper(): each for name, each in item.items() if name.upper() in METHODS}


def assert_in_contract(method: str, target: str, status: int, given: Message) -> None:
    """Assert that the contract has an answer with these headers, or has no such request."""
    told = f"{method} {target} {status}: openapi.yaml"
    path = re.sub("^https?://[^/]*", "", target).partition("?")[0]  # RFC 9112, 3.2.2
    found = operations(unquote_to_bytes(path).decode("latin-1"))
    operation = (found or {}).get(method)
    if operation is None:
        others = NO_PATH if found is None else NO_METHOD
        # A preflight is answered without a look at its path.
        preflight = {204, 403, 405} if method == "OPTIONS" else set[int]()
        assert status in others | preflight, f"{told} doesn't have it"
        if found and status == 405:
            taken = {each.strip() for each in given["Allow"].split(",")}
            assert taken == found.keys() - {"OPTIONS"}, f"{told} has other methods"
        return
    assert str(status) in operation["responses"], f"{told} doesn't have this status"
    response = resolved(operation["responses"][str(status)])
    headers = {name.lower(): resolved(each) for name, each in response.get("headers", {}).items()}
    names = {name.lower() for name in given if not name.lower().startswith("x-amz-meta-")}
    assert names <= headers.keys() | FRAMING, f"{told} lacks {names - headers.keys() - FRAMING}"
    required = {name for name, each in headers.items() if each.get("required")} - OF_NODES
    assert required <= names | FRAMING, f"{told} has {required - names} besides"
    if method != "HEAD" and "Content-Type" in given:
        kinds = response.get("content", {})
        kind = str(given["Content-Type"]).partition(";")[0]
        assert "*/*" in kinds or kind in kinds, f"{told} doesn't have {kind}"
