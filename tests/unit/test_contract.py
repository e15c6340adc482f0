"""openapi.yaml and the code have the same paths, parameters and headers."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import pytest

from gateway.objects.semantics import ANSWERED, CONDITIONS, HARMLESS
from gateway.objects.writes import HANDED_ON, HANDED_ON_AMZ
from gateway.s3.headers import STORED
from gateway.settings import Settings
from gateway.status.recorder import LISTING
from objgw import Gateway
from tests.harness.contract import contract, resolved
from tests.harness.engine import CHECKOUT


def test_the_contract_has_the_paths_that_the_gateway_serves_and_no_other() -> None:
    served = {"/object/{id}", LISTING, *Gateway(Settings()).status._routes}
    assert contract()["paths"].keys() == served


def test_each_operation_says_what_any_request_may_be_answered_with() -> None:
    """What the server itself refuses, and a failure."""
    for path, item in contract()["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                anywhere = {"400", "414", "417", "431", "500", "501", "503"}
                assert anywhere <= operation["responses"].keys(), (method, path)


def test_the_contract_has_each_status_that_is_in_the_code() -> None:
    files = [CHECKOUT / "objgw.py", *(CHECKOUT / "gateway").rglob("*.py")]
    named = {name for file in files for name in re.findall(r"HTTPStatus\.(\w+)", file.read_text())}
    operations = [
        operation
        for item in contract()["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    documented = {status for operation in operations for status in operation["responses"]}
    assert {str(HTTPStatus[name].value) for name in named} <= documented


def parameters(path: str, method: str) -> set[str]:
    """The names of an operation's parameters, in lower case."""
    item: dict[str, Any] = contract()["paths"][path]
    given = [*item.get("parameters", ()), *item[method].get("parameters", ())]
    return {resolved(each)["name"].lower() for each in given}


OF_ALL = {"x-request-id", "origin", "traceparent", "tracestate"}
LINK = {"id", "expires", "signature"}
TAKEN = {
    "get": {*CONDITIONS.values(), "range", "if-range", *LINK},
    "head": {*CONDITIONS.values(), *LINK},
    # A body's type is its content's; x-amz-meta-name stands for all of these.
    "put": {*HANDED_ON.values(), *LINK, "max", "x-amz-meta-name"} - {"content-type"},
    "delete": {"id"},
}


@pytest.mark.parametrize("method", TAKEN)
def test_the_contract_has_the_headers_that_an_object_s_request_may_have(method: str) -> None:
    found = parameters("/object/{id}", method) - OF_ALL
    checksums = {name for name in found if name.startswith("x-amz-checksum-")}
    assert found - checksums == TAKEN[method]
    if method == "put":
        kinds = HANDED_ON_AMZ.pattern.rpartition("CHECKSUM_(?:")[2].rstrip(")").lower().split("|")
        assert checksums == {f"x-amz-checksum-{kind}" for kind in kinds}


def test_the_contract_has_the_parameters_of_the_list() -> None:
    for method in ("get", "head"):
        assert parameters("/objects", method) == {"prefix", "after", "limit", *OF_ALL}


def test_the_contract_has_the_headers_that_an_object_s_answer_may_have() -> None:
    answers = contract()["paths"]["/object/{id}"]["get"]["responses"]
    names = {*ANSWERED, *(name.lower() for name, _ in HARMLESS)} - {"content-type"}
    for status in ("200", "206"):
        found = {name.lower() for name in answers[status]["headers"]}
        assert names - ({"content-range"} if status == "200" else set()) <= found
    assert set(STORED) <= {*ANSWERED}
