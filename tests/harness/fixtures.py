"""The fixtures of all tests that need containers, and what a run does at its start and at its end.

`shared` is a stack of three nodes that no test changes, `faulty` one whose faults are undone after
each test, `stack` an empty one of the test's own.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import docker
import docker.errors
import pytest

from tests.harness.engine import Lab
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

LONG = [
    "test_swarm.py",
    "test_growing.py",
    "test_slots.py",
    "test_layout_changes.py",
    "test_unsettled.py",
    "test_soak.py",
]


def pytest_configure() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)  # so that `docker stop` cleans up as Ctrl-C does


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the files that take longest: of a process's tests, those at the end may become
    another's.

    So no file's fixture is made twice that takes long, and none is left for the end, when the other
    process is idle.
    """
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_unconfigure(config: pytest.Config) -> None:
    """At the end of a run, in the process that has started the others, after they have ended."""
    if not hasattr(config, "workerinput") and Lab.used():
        Lab().clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test or its fixture fails, the report says at once how all stacks are, shared ones
    too.
    """
    report = yield
    if report.failed:
        report.sections += [(f"stack {stack.name}", stack.condition()) for stack in Stack.open]
    return report


@pytest.fixture(scope="session")
def lab() -> Lab:
    lab = Lab()
    lab.build()
    return lab


SHARED: list[Stack] = []  # the stacks that many tests use


@contextmanager
def own_gateways() -> Iterator[None]:
    """Removes the gateways that were added to shared stacks while the block ran, but for the first
    of a stack.
    """
    before = {gateway for stack in SHARED for gateway in stack.gateways}
    yield
    for stack in SHARED:
        for gateway in stack.gateways[1:]:
            if gateway not in before:
                gateway.remove()


@pytest.fixture(scope="module", autouse=True)
def gateways_of_a_module() -> Iterator[None]:
    with own_gateways():
        yield


@pytest.fixture(autouse=True)
def gateways_of_a_test() -> Iterator[None]:
    with own_gateways():
        yield


@pytest.fixture(scope="session")
def shared(lab: Lab) -> Iterator[Stack]:
    """Three nodes and a gateway with two workers, for all tests that leave them as they were."""
    stack = Stack(lab)
    SHARED.append(stack)
    try:
        stack.add_nodes("123")
        stack.add_gateway({"WEB_CONCURRENCY": "2"}).wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def gateway(shared: Stack) -> Gateway:
    """The gateway of the shared stack."""
    return shared.gateways[0]


@pytest.fixture(scope="module")
def landmark(shared: Stack) -> tuple[str, bytes]:
    """An object that is there all the time: its id and its bytes."""
    id, body = random_id(), b"what only a GET of the landmark brings"
    assert shared.gateways[0].put(id, body).status == 200
    return id, body


@pytest.fixture
def stack(lab: Lab) -> Iterator[Stack]:
    """An empty stack of the test's own, for what can't be undone."""
    stack = Stack(lab)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def faulty_stack(lab: Lab) -> Iterator[Stack]:
    stack = Stack(lab)
    SHARED.append(stack)
    try:
        stack.add_nodes("123")
        stack.add_gateway().wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def faulty(faulty_stack: Stack) -> Iterator[Stack]:
    """Three nodes and a gateway, for faults that can be undone: they are, after each test."""
    yield faulty_stack
    for node in faulty_stack.nodes:
        try:
            node.container.reload()
        except docker.errors.NotFound:
            node.create(node.address)
        if node.container.status == "paused":
            node.unpause()
        elif node.container.status != "running":
            node.start()
    faulty_stack.gateways[0].wait_ready()
