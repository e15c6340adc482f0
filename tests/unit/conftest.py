"""Unit tests: nothing runs beside them, and what a run tells is about the change, not about its
luck.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from gateway.nodes.sources import docker as source
from gateway.nodes.sources.docker import DockerReader
from tests.harness.fake_engine import OWN, FakeEngine

set_hypothesis_home_dir(tempfile.gettempdir() + "/hypothesis")  # the checkout may be read-only
hypothesis.settings.register_profile(
    "unit", max_examples=200, deadline=None, database=None, derandomize=True
)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes of a stack that runs on this machine are no test's business."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(source, "own_container_id", lambda: OWN)
    engine = FakeEngine(tmp_path / "docker.sock")
    yield engine
    engine.shutdown()
    engine.server_close()


@pytest.fixture
def reader(engine: FakeEngine) -> Iterator[DockerReader]:
    reader = DockerReader("node", 9000, 5)
    engine.inspect("good", {"Env": ["MINIO_ROOT_USER= ring ", "MINIO_ROOT_PASSWORD=treepotato\t"]})
    yield reader
    reader.close()
