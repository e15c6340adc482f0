"""Fixtures that several files here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.browser import Browser
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.status import wait_healthy
from tests.harness.waiting import still_network


@pytest.fixture(scope="module")
def four(shared: Stack) -> Gateway:
    """A gateway with four workers on the shared nodes."""
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    wait_healthy(gateway)
    return gateway


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with still_network():
        browser = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """One that is open anyway, on an empty page: the gateway's page keeps nothing in it."""
    with still_network():
        chromium.look()
        chromium.leave()  # the page of a test of clients, which complains of what is cut
        for file in chromium.downloads.glob("*"):
            file.unlink()
        try:
            yield chromium
            assert chromium.complaints() == []
        finally:
            chromium.leave()
