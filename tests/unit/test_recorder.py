"""The line of a request that was refused or broken off: why, for whom, and how much was sent."""

from __future__ import annotations

import hashlib
import io
import json
from http import HTTPStatus
from typing import Any

import pytest

from gateway.answers import Answer, Refusal
from gateway.settings import Settings
from gateway.status.metrics import Metrics
from gateway.status.observation import ALL_NODES, Observation
from gateway.status.recorder import Recorder, json_line, text_line

SECRET = "treepotato1"
TOKEN = hashlib.sha256(SECRET.encode()).hexdigest()[:8]


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder(Metrics(), Settings(access_log="off"))


def observed(recorder: Recorder, method: str = "GET", **environ: Any) -> Observation:
    request = {"REQUEST_METHOD": method, "PATH_INFO": "/object/abc", "REMOTE_ADDR": "10.0.0.1"}
    return recorder.begin({**request, "HTTP_X_REQUEST_ID": "r1", **environ})


def lines(observation: Observation, complete: bool = True) -> tuple[str, dict[str, Any]]:
    """What both forms say."""
    return text_line(observation, 0.5, complete), json.loads(json_line(observation, 0.5, complete))


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        (f"Bearer {SECRET}", TOKEN),
        (f"bearer  {SECRET} ", TOKEN),
        ("Basic dXNlcjpwYXNz", None),
        ("", None),
    ],
)
def test_the_line_of_a_refusal_has_its_reason_the_client_and_a_digest_of_the_token(
    recorder: Recorder, authorization: str, token: str | None
) -> None:
    observation = observed(recorder, HTTP_AUTHORIZATION=authorization)
    answer = observation.end(Refusal(HTTPStatus.FORBIDDEN, 'Only "read".').answer())
    text, document = lines(observation)
    told = f" token={token}" if token else ""
    assert text.endswith(f'request=r1 client=10.0.0.1{told} reason="Only \\"read\\"."\n')
    assert {name: document[name] for name in ("client", "token", "reason", "status")} == {
        "client": "10.0.0.1", "token": token, "reason": 'Only "read".', "status": 403,
    }  # fmt: skip
    assert document["bytes"] == sum(map(len, answer.body))
    assert SECRET not in text + str(document)


def test_the_line_of_a_refused_upload_has_the_bytes_that_came_and_not_those_announced(
    recorder: Recorder,
) -> None:
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(bytes(5000))}
    request = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/object/abc", **environ}
    observation = recorder.begin(request)
    observation.asks("node-1", 0, 1_000_000)
    assert len(request["wsgi.input"].read1(4000)) + len(request["wsgi.input"].read(500)) == 4500
    observation.end(Refusal(HTTPStatus.BAD_REQUEST, "The body ended early.").answer())
    text, document = lines(observation)
    assert " bytes=4500 " in text
    assert " client=- " in text
    assert document["bytes"] == 4500


@pytest.mark.parametrize("by", ["client", "node"])
def test_the_line_of_a_download_that_is_broken_off_says_by_whom(
    recorder: Recorder, by: str
) -> None:
    observation = observed(recorder)
    headers = [("Content-Length", "100")]
    answer = observation.end(Answer("200 OK", headers, iter([bytes(10), bytes(10), bytes(80)])))
    body: Any = answer.body
    next(body), next(body)
    if by == "node":
        observation.reason = "The node broke off."
    body.close()
    text, document = lines(observation, complete=False)
    assert " bytes=20 " in text
    assert f'request=r1 broken off client=10.0.0.1 reason="The {by} ' in text
    assert document["complete"] is False
    assert document["reason"].startswith(f"The {by} ")


# Whether it goes by a link, the node, the token that came: what the line says besides, and as JSON.
WHO: dict[str, tuple[bool, str, str, str, dict[str, Any]]] = {
    "a list": (False, ALL_NODES, SECRET, f" token={TOKEN}", {"token": TOKEN}),
    "a list for everyone": (False, ALL_NODES, "", "", {"token": None}),
    "a link": (True, "node-1", "", " link", {"token": None, "link": True}),
    "a link, and a token": (True, "node-1", SECRET, " link", {"token": None, "link": True}),
}


@pytest.mark.parametrize("row", WHO)
def test_the_line_of_a_list_and_of_a_link_says_who_asked(recorder: Recorder, row: str) -> None:
    link, node, sent, said, members = WHO[row]
    observation = observed(recorder, HTTP_AUTHORIZATION=f"Bearer {sent}" if sent else "")
    observation.link, observation.node = link, node
    observation.end(Answer("200 OK", [], [b"12345"]))
    text, document = lines(observation)
    assert text.endswith(f" request=r1 client=10.0.0.1{said}\n")
    assert members.items() <= document.items()
    assert document["client"] == "10.0.0.1"
    assert "reason" not in document


@pytest.mark.parametrize("between", ["=", "%3D", ":", ""])
@pytest.mark.parametrize("before", ["?", "&", "?expires=1&", "/?SIGNATURE=1&"])
def test_no_line_has_the_signature_of_a_link_whose_query_became_part_of_the_path(
    recorder: Recorder, before: str, between: str
) -> None:
    path = f"/object/a{before}signature{between}{'0af' * 21}0"
    observation = observed(recorder, PATH_INFO=path)
    observation.end(Refusal(HTTPStatus.BAD_REQUEST, "No id.").answer())
    text, document = lines(observation)
    assert "0af" not in text + str(document)
    assert document["path"].startswith("/object/a")


@pytest.mark.parametrize(
    ("method", "path", "label"),
    [
        ("GET", "/objects", "LIST"),
        ("HEAD", "/objects", "LIST"),
        ("OPTIONS", "/objects", "other"),
        ("DELETE", "/objects", "DELETE"),
        ("GET", "/object/objects", "GET"),
        ("OPTIONS", "/object/abc", "other"),
        ("OPTIONS", "/health", "other"),
    ],
)
def test_a_list_is_counted_as_one_and_no_other_request_is(
    recorder: Recorder, method: str, path: str, label: str
) -> None:
    def count() -> float:
        labels = {"method": label, "status": "299", "node": "none"}
        name = "objgw_request_seconds_count"
        return recorder.metrics._own.get_sample_value(name, labels) or 0.0

    before = count()
    observed(recorder, method, PATH_INFO=path, **{"wsgi.input": io.BytesIO()}).end(
        Answer("299 Counted", [], [])
    )
    assert count() == before + 1


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
def test_the_line_of_a_request_that_belongs_to_a_trace_names_it(
    recorder: Recorder, header: str, trace: bool, status: str
) -> None:
    observation = observed(recorder, HTTP_TRACEPARENT=header)
    observation.end(Answer(status, [], [b"12345"], "" if status == "200 OK" else "No."))
    text, document = lines(observation)
    assert document.get("trace") == (header[3:35] if trace else None)
    assert (f" request=r1 trace={header[3:35]}" in text) == trace
    assert ("trace" in text) == trace


def test_the_line_of_a_request_that_succeeds_has_nothing_more_to_say(recorder: Recorder) -> None:
    observation = observed(recorder)
    observation.end(Answer("200 OK", [], [b"12345"]))
    text, document = lines(observation)
    assert text.endswith(" request=r1\n")
    assert not {"client", "token", "reason"} & document.keys()
