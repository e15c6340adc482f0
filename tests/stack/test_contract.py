"""openapi.yaml: no request is answered otherwise than it says. schemathesis makes the requests from
it.
"""

from __future__ import annotations

import time
from typing import Any

import hypothesis
import schemathesis
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import checks as conformance

from gateway.links import link_of, make_link
from tests.harness.engine import CHECKOUT
from tests.harness.fixtures import LINK_KEY
from tests.harness.gateway import Gateway

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


def sign(case: schemathesis.Case[Any]) -> None:
    """Makes a link of the case, where it has all of one: else nearly every request would be 403."""
    wanted = {"expires", "signature", "max"} if case.method == "PUT" else {"expires", "signature"}
    if set(case.query) == wanted:
        most = case.query["max"] if case.method == "PUT" else None
        made = make_link(LINK_KEY, case.path_parameters["id"], int(time.time()) + 3600, most)
        case.query.update(link_of(made.partition("?")[2]) or ())


@contract.parametrize()
@hypothesis.settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,  # what a run tells is about the change, not about its luck
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_request_is_answered_otherwise_than_the_contract_says(
    case: schemathesis.Case[Any], gateway: Gateway
) -> None:
    sign(case)
    case.call_and_validate(base_url=f"http://{gateway.address}:3000", checks=CHECKS)
