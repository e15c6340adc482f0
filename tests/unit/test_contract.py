"""openapi.yaml and the code have the same paths, settings of links, and release."""

from __future__ import annotations

from gateway.settings import Settings
from gateway.status.recorder import LISTING
from objgw import Gateway
from tests.harness.contract import contract


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
