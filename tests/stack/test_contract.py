"""openapi.yaml: no request is answered otherwise than it says. schemathesis makes the requests from
it. Besides, each answer of each test is compared with it (`tests.harness.contract`).
"""

from __future__ import annotations

import time
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import checks as conformance

from gateway.links import link_of, make_link
from tests.harness.contract import contract as document
from tests.harness.contract import operations
from tests.harness.engine import CHECKOUT
from tests.harness.fixtures import LINK_KEY
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

contract = schemathesis.openapi.from_path(CHECKOUT / "openapi.yaml")

CHECKS = [
    conformance.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
    conformance.unsupported_method,
]

set_hypothesis_home_dir("/tmp/hypothesis")  # the checkout is read-only


TOKEN = {"Authorization": "Bearer a-token"}
APP = "https://app.example"


@pytest.fixture(scope="module")
def guarded(shared: Stack) -> Gateway:
    """A gateway with all that changes answers: a token, links, and pages of another origin."""
    gateway = shared.add_gateway(
        {
            "WEB_CONCURRENCY": "2",
            "OBJGW_TOKENS": "a-token",
            "OBJGW_LINK_KEY": LINK_KEY,
            "OBJGW_CORS_ORIGINS": APP,
        }
    )
    gateway.wait_ready()
    return gateway


def sign(case: schemathesis.Case[Any]) -> None:
    """Makes a link of the case, where it has all of one: else nearly every request would be 403."""
    wanted = {"expires", "signature", "max"} if case.method == "PUT" else {"expires", "signature"}
    if set(case.query) == wanted and "id" in case.path_parameters:
        most = case.query["max"] if case.method == "PUT" else None
        made = make_link(LINK_KEY, case.path_parameters["id"], int(time.time()) + 3600, most)
        case.query.update(link_of(made.partition("?")[2]) or ())


def admit(case: schemathesis.Case[Any]) -> None:
    """Gives most cases the token, and the origin that may ask where they have one that could be:
    else nearly every request would be 401, and every preflight 403.
    """
    if "Authorization" not in case.headers or len(case.headers) % 4:
        case.headers["Authorization"] = TOKEN["Authorization"]
    if len(case.headers.get("Origin") or "") % 2:
        case.headers["Origin"] = APP


def settings(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,  # what a run tells is about the change, not about its luck
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def ask(case: schemathesis.Case[Any], gateway: Gateway) -> None:
    sign(case)
    admit(case)
    case.call_and_validate(base_url=f"http://{gateway.address}:3000", checks=CHECKS)


@contract.exclude(method="OPTIONS").parametrize()
@settings(150)
def test_no_request_is_answered_otherwise_than_the_contract_says(
    case: schemathesis.Case[Any], guarded: Gateway
) -> None:
    ask(case, guarded)


@contract.include(method="OPTIONS").parametrize()
@settings(50)  # it is the same for all paths
def test_no_preflight_is_answered_otherwise_than_the_contract_says(
    case: schemathesis.Case[Any], guarded: Gateway
) -> None:
    ask(case, guarded)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"])
@pytest.mark.parametrize("path", document()["paths"])
def test_a_path_takes_the_methods_that_the_contract_has_and_no_other(
    guarded: Gateway, path: str, method: str
) -> None:
    target = path.format(id=random_id())
    answer = guarded.request(method, target, headers=TOKEN)
    has = method in (operations(target) or {}) and method != "OPTIONS"
    assert (answer.status != 405) == has
    if method == "OPTIONS":
        for origin, status in ((APP, 204), ("https://evil.example", 403)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
            assert guarded.request(method, target, headers=asked).status == status


def test_a_path_that_the_contract_does_not_have_is_404(guarded: Gateway) -> None:
    for path in ("/object", "/objects/", "/healthz", "/health/", "/status", "/metrics.json", "//"):
        assert operations(path) is None
        assert guarded.request("GET", path, headers=TOKEN).status == 404
