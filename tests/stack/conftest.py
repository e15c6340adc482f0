"""Fixtures that several files here share."""

from __future__ import annotations

import pytest

from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.status import wait_healthy


@pytest.fixture(scope="module")
def four(shared: Stack) -> Gateway:
    """A gateway with four workers on the shared nodes."""
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    wait_healthy(gateway)
    return gateway
