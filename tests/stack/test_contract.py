"""openapi.yaml: no request is answered otherwise than it says. schemathesis makes the requests from
it.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import schemathesis
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import checks as conformance

from tests.harness.engine import CHECKOUT
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
    case.call_and_validate(base_url=f"http://{gateway.address}:3000", checks=CHECKS)
