"""The WSGI callable in this process: webtest checks each answer against the WSGI specification."""

from __future__ import annotations

import secrets

import pytest
import webtest  # type: ignore[import-untyped]

from gateway.settings import Settings
from objgw import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id


@pytest.fixture(scope="module")
def app(shared: Stack) -> webtest.TestApp:
    """The WSGI callable in this process, with the shared stack's nodes.

    The network is named, because the tests' container is on those of all stacks, and the threads
    that this starts go on: they would take another test's nodes, which have a label, for this
    stack's.
    """
    settings = Settings(node_name=shared.marker, network=str(shared.network.name))
    app = webtest.TestApp(Gateway(settings))
    for node in shared.nodes:
        path = f"/object/{shared.id_of(node)}"
        eventually(lambda path=path: app.get(path, expect_errors=True).status_int == 404)
    return app


def test_the_callable_keeps_to_wsgi_whatever_it_answers(app: webtest.TestApp) -> None:
    id, body = random_id(), secrets.token_bytes(200_000)
    assert app.get(f"/object/{id}", status=404).content_type == "application/problem+json"
    assert app.put(f"/object/{id}", body, content_type="text/plain", status=200).headers["ETag"]
    assert app.get(f"/object/{id}", status=200).body == body
    assert app.head(f"/object/{id}", status=200).content_length == len(body)
    app.delete(f"/object/{id}", status=204)
    assert app.get("/object/a.b", status=400).json["status"] == 400
    assert app.get("/other", status=404).json["status"] == 404
    assert app.get("/", status=200).content_type == "text/html"
    eventually(lambda: app.get("/health", expect_errors=True).status_int == 200)
    assert app.get("/health", status=200).json["layout"]["settled"]
    assert "objgw_request_seconds_count" in app.get("/metrics", status=200)
    assert app.post("/metrics", b"x", status=405).headers["Allow"]
    assert app.post(f"/object/{id}", b"x", status=405).headers["Allow"]
