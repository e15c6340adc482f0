"""objgw.py: the WSGI callable, where it needs no node. webtest checks each answer against the WSGI
specification.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import webtest  # type: ignore[import-untyped]

from gateway.links import make_link
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


LINK_KEY, APP = "k" * 32, "https://app.example"


@pytest.fixture
def linked() -> webtest.TestApp:
    return webtest.TestApp(
        Idle(Settings(tokens="writer", link_key=LINK_KEY, cors_origins=f"{APP} http://other"))
    )


READ, STORE = make_link(LINK_KEY, "abc", 10**12), make_link(LINK_KEY, "abc", 10**12, 5)
EXPIRED = make_link(LINK_KEY, "abc", 1)
TOKEN = {"Authorization": "Bearer writer"}

# Method, path, headers, status (503: it is permitted, and there is no node), words of the reason.
LINKED: list[tuple[str, str, dict[str, str], int, str]] = [
    ("GET", READ, {}, 503, ""),
    ("HEAD", READ, {}, 503, ""),
    ("PUT", STORE, {}, 503, ""),
    ("GET", READ, TOKEN, 503, ""),
    ("GET", READ, {"Authorization": "Bearer wrong"}, 503, ""),
    ("GET", EXPIRED, {}, 403, "expired at 1970-01-01T00:00:01Z"),
    ("GET", EXPIRED, TOKEN, 403, "expired"),
    ("PUT", READ, {}, 403, "A link for PUT has expires, max and signature, once each."),
    ("GET", STORE, {}, 403, "A link for GET has expires and signature, once each."),
    ("HEAD", STORE, {}, 403, ""),
    ("DELETE", READ, {}, 403, "no links for DELETE"),
    ("DELETE", STORE, TOKEN, 403, "no links for DELETE"),
    ("PUT", f"{STORE}&tagging", {}, 403, "once each"),
    ("GET", f"{READ}&x=1", TOKEN, 403, "once each"),
    ("POST", READ, {}, 405, "Use GET"),
    ("POST", EXPIRED, {}, 405, "Use GET"),
    ("GET", READ.replace("/abc", "/a.c"), {}, 400, "An id is"),
    ("GET", READ.replace("/abc", "/abd"), {}, 403, "isn't that of"),
    ("GET", "/object/abc?id=xyz", {}, 401, "bearer token"),
    ("GET", "/object/abc?max=5", TOKEN, 503, ""),
    ("PUT", "/object/abc?max=5", TOKEN, 400, "take no query"),
    ("PUT", STORE, {"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 501, ""),
    ("GET", READ.replace("/object/abc", "/health"), {}, 401, "bearer token"),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "reason"), LINKED)
def test_a_request_with_a_link_goes_by_the_link_alone(
    linked: webtest.TestApp,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    reason: str,
) -> None:
    answer = linked.request(path, method=method, headers=headers, expect_errors=True)
    assert answer.status_int == status, answer.text
    assert method == "HEAD" or reason in answer.json["detail"]
    assert "signature=" not in str(answer)
    assert path[-64:] not in str(answer)


@pytest.mark.parametrize("path", [READ, EXPIRED, STORE])
def test_a_gateway_without_a_link_key_refuses_links_also_where_all_is_open(
    app: webtest.TestApp, guarded: webtest.TestApp, path: str
) -> None:
    for each in (app, guarded):
        answer = each.get(path, expect_errors=True)
        assert (answer.status_int, answer.json["detail"]) == (
            403,
            "This gateway takes no links: no OBJGW_LINK_KEY is set.",
        )


# Method, path, headers, status.
CROSSING: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/health/live", {}, 200),
    ("GET", "/object/abc", {}, 401),
    ("DELETE", "/object/abc", {"Authorization": "Bearer wrong"}, 401),
    ("GET", EXPIRED, {}, 403),
    ("GET", "/object/abc", TOKEN, 503),
    ("GET", "/object/a.b", TOKEN, 400),
    ("GET", "/other", TOKEN, 404),
    ("POST", "/object/abc", TOKEN, 405),
    ("OPTIONS", "/object/abc", TOKEN, 405),
    ("OPTIONS", "/object/abc", {}, 401),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), CROSSING)
def test_every_answer_names_the_origin_that_asks(
    linked: webtest.TestApp, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    for origin in (APP, "http://other", "https://evil.example", ""):
        sent = {**headers, "Origin": origin} if origin else headers
        answer = linked.request(path, method=method, headers=sent, expect_errors=True)
        assert answer.status_int == status
        allowed = "" if origin == "https://evil.example" else origin
        assert answer.headers.get("Access-Control-Allow-Origin", "") == allowed
        assert answer.headers["Vary"] == "Origin"
        exposed = answer.headers.get("Access-Control-Expose-Headers", "")
        assert bool(exposed) == bool(allowed)
        assert not allowed or {"ETag", "Content-Range", "X-Request-Id"} < set(exposed.split(", "))


def preflight(app: webtest.TestApp, path: str, origin: str) -> webtest.TestResponse:
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    return app.request(path, method="OPTIONS", headers=asked, expect_errors=True)


@pytest.mark.parametrize("path", ["/object/abc", STORE, "/health", "/other"])
def test_a_preflight_needs_no_token(linked: webtest.TestApp, path: str) -> None:
    answer = preflight(linked, path, APP)
    assert (answer.status_int, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, PUT, DELETE"
    assert answer.headers["Vary"] == "Origin"
    refused = preflight(linked, path, "https://evil.example")
    assert (refused.status_int, refused.json["status"]) == (403, 403)
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_without_the_setting_no_answer_says_anything_of_origins(app: webtest.TestApp) -> None:
    for path in ("/object/abc", "/health/live", "/other"):
        for answer in (
            app.get(path, headers={"Origin": APP}, expect_errors=True),
            preflight(app, path, APP),
        ):
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
            assert "Vary" not in answer.headers
    assert preflight(app, "/object/abc", APP).status_int == 405
