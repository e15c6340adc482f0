"""The fixtures of all tests that need containers, and what a run does at its start and at its end.

`shared` is a stack of three nodes that no test changes, `faulty` one whose faults are undone after
each test, `stack` an empty one of the test's own.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import docker
import docker.errors
import pytest

from gateway.nodes.sources.docker import own_container_id
from gateway.status.logs import FLUSH_SECONDS
from tests.harness.engine import Lab
from tests.harness.gateway import Gateway
from tests.harness.local import LocalStack
from tests.harness.servers import ALL, here
from tests.harness.stack import Stack
from tests.harness.waiting import random_id

# The files that take longest, of which most is waiting.
LONG = [
    "test_growing.py",
    "test_slots.py",
    "test_layout_changes.py",
    "test_unsettled.py",
    "test_soak.py",
    "test_lost_nodes.py",
    "test_swarm.py",
    "test_installations.py",
    "test_first_layout.py",
    "test_hanging_nodes.py",
]


# Tests of the whole run in the tests' container, which starts others beside itself.
CONTAINERS = own_container_id() is not None and Path("/var/run/docker.sock").exists()
WITHOUT = (
    "There are no containers here: tests/unit, and the contract on S3 servers in memory. For the "
    "rest: docker-compose build tests && docker-compose run --rm tests"
)


MAKES = here() if CONTAINERS else []  # servers of other makes, of which there is an image
MISSING = ", ".join(make.repository for make in ALL if make.name not in {m.name for m in MAKES})


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Where there are no containers, or no images of other servers, what needs them isn't
    collected.
    """
    if collection_path.name == "stack":
        return None if CONTAINERS else True
    return True if collection_path.name == "test_other_servers.py" and not MAKES else None


def pytest_report_header() -> str:
    if not CONTAINERS:
        return WITHOUT
    return f"not tested, since their images aren't on this machine: {MISSING}" if MISSING else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CONTAINERS:
        terminalreporter.write_line(WITHOUT)


def pytest_configure() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)  # so that `docker stop` cleans up as Ctrl-C does


@pytest.hookimpl(trylast=True)  # when it's known which tests are run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First, in each process, some of the files that take longest.

    xdist cuts the list in equal parts, one a process, and who has done its part gets tests from the
    end of another's. So no file's fixture is made twice that takes long, and none is left for the
    end, when the other processes are idle.
    """
    if not CONTAINERS:
        # Each fixture that needs containers stands on this one.
        items[:] = [item for item in items if "lab" not in getattr(item, "fixturenames", ())]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    rest = iter([item for item in items if item.path.name not in LONG])
    ordered: list[pytest.Item] = []
    for process in range(processes):
        size = (len(items) - len(ordered)) // (processes - process)
        for name in LONG[process::processes]:
            part = [item for item in items if item.path.name == name]
            ordered += part
            size -= len(part)
        ordered += itertools.islice(rest, max(0, size))
    items[:] = [*ordered, *rest]


def pytest_unconfigure(config: pytest.Config) -> None:
    """At the end of a run, in the process that has started the others, after they have ended."""
    if not hasattr(config, "workerinput") and Lab.used():
        Lab().clear()


BEGAN = pytest.StashKey[float]()  # Unix time at which a test's first fixture was made


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGAN] = time.time()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test or its fixture fails, the report says at once how all stacks are, shared ones
    too, and what their gateways have said since it began.
    """
    report = yield
    if report.failed:
        time.sleep(2 * FLUSH_SECONDS)  # so that what was just asked is in the log
        began = item.stash.get(BEGAN, 1.0)
        report.sections += [(f"stack {stack.name}", stack.condition(began)) for stack in Stack.open]
    return report


@pytest.fixture(scope="session")
def lab() -> Lab:
    lab = Lab()
    lab.build()
    return lab


LINK_KEY = "for-links-to-the-shared-stack-in-tests"
SHARED_SETTINGS = {"WEB_CONCURRENCY": "2", "OBJGW_LINK_KEY": LINK_KEY}
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


@contextmanager
def empty_stack(lab: Lab) -> Iterator[Stack]:
    """An empty stack, which is gone after the block."""
    stack = Stack(lab)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Three nodes and a gateway with two workers, for all tests that leave them as they were.

    Where there are no containers, they are processes.
    """
    if not CONTAINERS:
        local = LocalStack()
        SHARED.append(cast(Stack, local))
        try:
            local.add_gateway(SHARED_SETTINGS).wait_ready()
            yield cast(Stack, local)
        finally:
            local.close()
        return
    with empty_stack(request.getfixturevalue("lab")) as stack:
        SHARED.append(stack)
        stack.add_nodes("123")
        stack.add_gateway(SHARED_SETTINGS).wait_ready()
        yield stack


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
    with empty_stack(lab) as stack:
        yield stack


@pytest.fixture
def other(lab: Lab) -> Iterator[Stack]:
    """A second one: another installation."""
    with empty_stack(lab) as stack:
        yield stack


@pytest.fixture(scope="session")
def faulty_stack(lab: Lab) -> Iterator[Stack]:
    with empty_stack(lab) as stack:
        SHARED.append(stack)
        stack.add_nodes("123")
        stack.add_gateway().wait_ready()
        yield stack


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
