"""objgw.py: the WSGI callable, where it needs no node. webtest checks each answer against the WSGI
specification.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import webtest  # type: ignore[import-untyped]

from gateway.objects.listing import LISTINGS
from gateway.settings import Settings
from objgw import Gateway
from tests.harness.engine import CHECKOUT, DockerRelay


def test_importing_the_module_starts_nothing_and_asks_docker_nothing() -> None:
    relay = DockerRelay()
    script = "import objgw, threading; assert callable(objgw.app); print(threading.active_count())"
    env = {**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{relay.port}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env=env, capture_output=True, text=True
    )
    relay.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert relay.connections == 0


class Idle(Gateway):
    """A gateway that starts nothing, so that it knows no node."""

    def start(self) -> None:
        """Nothing is looked for."""


@pytest.fixture
def app() -> webtest.TestApp:
    return webtest.TestApp(Idle(Settings(tokens="", log_format="json")))


@pytest.fixture
def guarded() -> webtest.TestApp:
    return webtest.TestApp(Idle(Settings(tokens="writer", read_tokens="reader")))


# Method, path, status, and a header that is there, where the answer has one of its own.
REFUSED = [
    ("GET", "/object/", 400, ""),
    ("GET", f"/object/{'a' * 33}", 400, ""),
    ("PUT", "/object/a.b", 400, ""),
    ("DELETE", "/object/a/b", 400, ""),
    ("HEAD", "/object/caf%C3%A9", 400, ""),
    ("GET", "/object/abc%0A", 400, ""),
    ("PUT", "/object/abc?tagging", 400, ""),
    ("POST", "/object/abc", 405, "Allow"),
    ("OPTIONS", "/object/abc", 405, "Allow"),
    ("POST", "/metrics", 405, "Allow"),
    ("POST", "/objects", 405, "Allow"),
    ("OPTIONS", "/objects", 405, "Allow"),
    ("GET", "/objects?limit=0", 400, ""),
    ("HEAD", "/objects?prefix=a-b", 400, ""),
    ("GET", "/objects", 503, "Retry-After"),
    ("HEAD", "/objects", 503, "Retry-After"),
    ("GET", "/objects/", 404, ""),
    ("GET", "/object", 404, ""),
    ("GET", "/other", 404, ""),
    ("PUT", "/", 405, "Allow"),
    ("GET", "/object/abc", 503, "Retry-After"),
    ("HEAD", "/object/abc", 503, "Retry-After"),
    ("PUT", "/object/abc", 503, "Retry-After"),
    ("DELETE", "/object/abc", 503, "Retry-After"),
]


@pytest.mark.parametrize(("method", "path", "status", "header"), REFUSED)
def test_what_needs_no_node_is_refused_with_a_problem_document(
    app: webtest.TestApp, method: str, path: str, status: int, header: str
) -> None:
    answer = app.request(path, method=method, expect_errors=True)
    assert answer.status_int == status
    assert answer.content_type == "application/problem+json"
    assert not header or answer.headers[header]
    if method != "HEAD":
        assert (answer.json["status"], bool(answer.json["title"]), bool(answer.json["detail"])) == (
            status,
            True,
            True,
        )


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/object/abc"), ("PUT", "/object/abc"), ("GET", "/metrics"), ("GET", "/objects")],
)
def test_where_there_are_tokens_no_other_may_be_sent(
    guarded: webtest.TestApp, method: str, path: str
) -> None:
    for sent, status in (
        ({}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Bearer reader"}, 0),
    ):
        answer = guarded.request(path, method=method, headers=sent, expect_errors=True)
        if status or method == "PUT":
            assert answer.status_int == (status or 403)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        else:
            assert answer.status_int not in (401, 403)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_lists_that_are_refused_leave_room_for_others_and_too_many_at_once_are_503(
    accept: str,
) -> None:
    gateway = Idle(Settings())
    app = webtest.TestApp(gateway, {"SERVER_PROTOCOL": "HTTP/1.1"})
    headers = {"Accept": accept}
    for _ in range(2 * LISTINGS):
        answer = app.get("/objects", headers=headers, status=503)
        assert "No node has answered" in answer.json["detail"]
    held = gateway.listing._streams if "nd" in accept else gateway.listing._pages
    for _ in range(LISTINGS):
        assert held.acquire(blocking=False)
    assert "Too many" in app.get("/objects", headers=headers, status=503).json["detail"]
    other = {"Accept": "application/json" if "nd" in accept else "application/x-ndjson"}
    assert "No node" in app.get("/objects", headers=other, status=503).json["detail"]


def test_what_a_load_balancer_asks_needs_no_token(guarded: webtest.TestApp) -> None:
    assert guarded.get("/health/live").json == {"status": "live"}
