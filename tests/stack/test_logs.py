"""Logs and request ids."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.harness.gateway import Gateway, RawConnection
from tests.harness.http import Wire, head
from tests.harness.stack import Stack
from tests.harness.status import access_lines, requests, send, wait_healthy
from tests.harness.waiting import eventually, random_id

LINE = re.compile(
    r"(?P<time>\S+Z) INFO objgw\.access (?P<method>\S+) (?P<what>\S+|'.*'|\".*\") "
    r"(?P<status>\d{3}) node=(?P<node>\S+) "
    r"bytes=(?P<bytes>\d+) seconds=(?P<seconds>\d+\.\d{6}) request=(?P<request>\S+)"
    r"(?P<broken> broken off)?"
    r"( client=(?P<client>\S+)( token=(?P<token>[0-9a-f]{8}))? reason=(?P<reason>\".*\"))?"
)


def line_of(gateway: Gateway, request: str) -> dict[str, str | None]:
    """The access log's one line of a request."""

    def found() -> list[str]:
        return [line for line in access_lines(gateway) if f"request={request}" in line]

    lines = eventually(found)
    assert len(lines) == 1
    match = LINE.fullmatch(lines[0])
    assert match
    return match.groupdict()


def test_a_request_has_one_line_with_all_that_is_known_of_it(
    shared: Stack, gateway: Gateway
) -> None:
    node = shared.nodes[0]
    id = shared.id_of(node)
    put = gateway.put(id, b"12345")
    line = line_of(gateway, put.headers["X-Request-Id"])
    assert (line["method"], line["what"], line["status"], line["node"], line["bytes"]) == (
        "PUT", id, "200", node.name, "5",
    )  # fmt: skip
    got = gateway.get(id, headers={"X-Request-Id": "my.own-id:1"})
    assert got.headers["X-Request-Id"] == "my.own-id:1"
    assert line_of(gateway, "my.own-id:1")["bytes"] == "5"
    dur = re.fullmatch(r"upstream;dur=(\d+\.\d)", got.headers["Server-Timing"])
    assert dur
    seconds = line_of(gateway, "my.own-id:1")["seconds"]
    assert float(dur[1]) / 1000 <= float(seconds or 0) + 0.0001


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_line_of_a_refusal_says_what_the_client_was_told_and_who_it_is(
    shared: Stack, form: str
) -> None:
    token, digest = "treepotato1", hashlib.sha256(b"treepotato1").hexdigest()[:8]
    gateway = shared.add_gateway({"OBJGW_READ_TOKENS": token, "OBJGW_LOG_FORMAT": form})
    refused = [
        gateway.get(random_id()),
        gateway.get(random_id(), headers={"Authorization": "Bearer bluegreen3"}),
        gateway.put(random_id(), b"12345", headers={"Authorization": f"Bearer {token}"}),
        gateway.get("no-id", headers={"Authorization": f"Bearer {token}"}),
    ]
    assert [answer.status for answer in refused] == [401, 401, 403, 400]
    eventually(lambda: all(each.headers["X-Request-Id"] in gateway.logs() for each in refused))
    tokens = [None, hashlib.sha256(b"bluegreen3").hexdigest()[:8], digest, digest]
    for answer, named in zip(refused, tokens, strict=True):
        request = answer.headers["X-Request-Id"]
        if form == "text":
            said: dict[str, Any] = dict(line_of(gateway, request))
            said["reason"] = json.loads(said["reason"])
        else:
            lines = [json.loads(line) for line in gateway.logs().splitlines()]
            said = next(line for line in lines if line.get("request") == request)
        assert said["reason"] == answer.problem["detail"]
        assert said["client"] == shared.tests_address()
        assert said["token"] == named
    assert not re.search("treepotato|bluegreen", gateway.logs())


def test_the_line_of_an_upload_that_is_cut_has_the_bytes_that_came(
    shared: Stack, gateway: Gateway
) -> None:
    id = shared.id_of(shared.nodes[0])
    with Wire(gateway) as wire:
        wire.send(
            head("PUT", id, "Content-Length: 1000000", f"X-Request-Id: cut-{id}"), bytes(5000)
        )
        wire.half_close()
        wire.rest()
    line = line_of(gateway, f"cut-{id}")
    assert (line["status"], line["bytes"]) == ("400", "5000")
    assert "ended before its Content-Length" in str(line["reason"])


def test_the_node_gets_the_id_of_the_request(shared: Stack, gateway: Gateway) -> None:
    node, id = shared.nodes[1], shared.id_of(shared.nodes[1])
    gateway.put(id, b"x", headers={"X-Request-Id": f"for-{id}"})

    def record() -> dict[str, Any] | None:
        return next(
            (each for each in shared.lab.audit.of(node.name) if each["api"].get("object") == id),
            None,
        )

    headers = {name.lower(): value for name, value in eventually(record)["requestHeader"].items()}
    assert headers["x-request-id"] == f"for-{id}"


BAD_REQUEST_IDS = [
    "",
    "a b",
    "a\tb",
    'a"b',
    "a\x7fb",
    "\xe9",
    "x" * 129,
    "a,b",
    "a;b",
    "<b>",
    "a\\nb",
    "%0a{}",
]


@pytest.mark.parametrize("value", BAD_REQUEST_IDS)
def test_an_id_of_a_request_that_is_not_sane_is_replaced(gateway: Gateway, value: str) -> None:
    answer = gateway.get(random_id(), headers={"X-Request-Id": value})
    if answer.status == 404:  # the server refuses some of them
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-Id"])
    else:
        assert answer.status == 400


INJECTIONS = [
    "/object/a%0Ab",
    "/object/%1b[2Jx",
    "/x%0d%0a2026-01-01T00:00:00.000Z INFO forged",
    "/%22,%22x%22:%22",
    "/%e2%80%a8",
    "/object/%00",
]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_clients_send_can_not_forge_a_line(shared: Stack, form: str) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT": form})
    asked = {
        gateway.request("GET", path.replace(" ", "%20")).headers["X-Request-Id"]: path
        for path in INJECTIONS
    }
    eventually(lambda: all(request in gateway.logs() for request in asked))
    lines = gateway.logs().split("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", gateway.logs())
    assert not [line for line in lines if line.startswith("2026-01-01T00:00:00.000Z")]
    for request in asked:
        assert len([line for line in lines if request in line]) == 1


def test_with_the_setting_every_line_is_json(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT": "json"})
    id = shared.id_of(shared.nodes[0])
    wait_healthy(gateway)
    put = gateway.put(id, b"12345")
    gateway.get("a'b\"")
    gateway.container.stop(timeout=20)
    lines = [json.loads(line) for line in gateway.logs().splitlines()]
    assert {"objgw", "gunicorn", "objgw.access", "objgw.status"} <= {
        line["logger"] for line in lines
    }
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    mine = next(line for line in lines if line.get("request") == put.headers["X-Request-Id"])
    assert mine.pop("seconds") > 0
    del mine["time"]
    assert mine == {
        "level": "info", "logger": "objgw.access", "method": "PUT", "id": id, "status": 200,
        "node": shared.nodes[0].name, "bytes": 5, "complete": True,
        "request": put.headers["X-Request-Id"],
    }  # fmt: skip
    assert [line["path"] for line in lines if line.get("status") == 400] == ["/object/a'b\""]


def test_the_form_of_the_log_may_be_in_a_file_and_counts_for_every_line(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT_FILE": "/run/form"}, start=False)
    text, archive = b"json\n", io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        file = tarfile.TarInfo("form")
        file.size, file.mode = len(text), 0o444  # as Docker makes secrets
        tar.addfile(file, io.BytesIO(text))
    gateway.container.put_archive("/run", archive.getvalue())
    gateway.start()
    wait_healthy(gateway)
    gateway.get(random_id())
    gateway.container.stop(timeout=20)
    lines = [json.loads(line) for line in gateway.logs().splitlines()]
    assert {"objgw", "gunicorn", "objgw.access"} <= {line["logger"] for line in lines}


def test_without_the_access_log_there_is_no_line_a_request(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_ACCESS_LOG": "off"})
    request = gateway.get(random_id()).headers["X-Request-Id"]
    gateway.container.stop(timeout=20)
    assert request not in gateway.logs()


def test_no_line_is_lost_or_mingled_when_the_gateway_stops(shared: Stack) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    before = len(access_lines(gateway))
    eventually(lambda: len(access_lines(gateway)) == sum(requests(gateway).values()))
    before = len(access_lines(gateway))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(send, gateway), [[("GET", "/object/no-id")] * 100] * 8))
    gateway.container.stop(timeout=20)
    lines = access_lines(gateway)
    assert len(lines) - before == 800
    assert all(LINE.fullmatch(line) for line in lines)


def test_a_download_that_is_broken_off_says_so_in_its_line(shared: Stack, gateway: Gateway) -> None:
    id = shared.id_of(shared.nodes[0])
    gateway.put(id, bytes(20_000_000))
    connection = RawConnection(gateway.address, 3000, timeout=20)
    connection.request("GET", f"/object/{id}")
    response = connection.getresponse()
    request = response.headers["X-Request-Id"]
    response.read(10)
    response.close()
    connection.close()
    eventually(
        lambda: any(f"request={request} broken off" in line for line in access_lines(gateway))
    )
    line = line_of(gateway, request)
    assert line["client"] == shared.tests_address()
    assert "The client went away" in str(line["reason"])
    assert 0 < int(line["bytes"] or 0) < 20_000_000


def test_a_browser_that_is_sent_to_an_object_runs_nothing_of_it(gateway: Gateway) -> None:
    id = random_id()
    gateway.put(
        id, b"<script>fetch('/object/stolen')</script>", headers={"Content-Type": "text/html"}
    )
    for answer in (
        gateway.get(id),
        gateway.head(id),
        gateway.get(id, headers={"Range": "bytes=0-5"}),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox"


MALFORMED = {
    "a header without its colon": "GET /object/abc HTTP/1.1\r\nHost: a\r\nAuthorization Bearer {}",
    "a header first": "Authorization: Bearer {}\r\nGET /object/abc HTTP/1.1\r\nHost: a",
    "a header that is folded": "GET /object/abc HTTP/1.1\r\nHost: a\r\nX: y\r\n Bearer {}",
    "a body without a length": "GET /object/abc HTTP/1.1\r\nHost: a\r\n\r\npassword={}",
}


@pytest.mark.parametrize("row", MALFORMED)
def test_of_what_is_no_http_the_log_has_no_text(gateway: Gateway, row: str) -> None:
    secret = random_id()
    before = gateway.logs().count("Invalid request from")
    with Wire(gateway) as wire:
        wire.send(MALFORMED[row].format(secret).encode() + b"\r\n\r\n")
        assert b" 400 " in wire.rest()
    eventually(lambda: gateway.logs().count("Invalid request from") > before)
    assert secret not in gateway.logs()
