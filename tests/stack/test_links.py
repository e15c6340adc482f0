"""Links that expire and pages of other origins, through a gateway with tokens; and that no
signature is in the log.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from textwrap import dedent

import pytest

from gateway.links import make_link
from tests.harness.engine import BUCKET, CHECKOUT
from tests.harness.gateway import Gateway
from tests.harness.http import EXPECT, Wire, code, pattern
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

OLD, NEW = (f"{name}-{secrets.token_hex(32)}" for name in ("old", "new"))
TOKEN = {"Authorization": "Bearer a-token"}
APP = "https://app.example"
PYTHON, SHELL = [sys.executable, "-c"], ["sh", "-euc"]


@pytest.fixture(scope="module")
def linked(shared: Stack) -> Gateway:
    """A gateway with a token, two link keys, and one origin whose pages may use it."""
    gateway = shared.add_gateway(
        {
            "OBJGW_TOKENS": "a-token",
            "OBJGW_LINK_KEY": f"{NEW} {OLD}",
            "OBJGW_CORS_ORIGINS": APP,
        }
    )

    def stores(node: Node) -> bool:
        return gateway.put(shared.id_of(node), b"body", headers=TOKEN).status == 200

    eventually(lambda: all(map(stores, shared.nodes)))
    return gateway


def read(id: str, key: str = NEW) -> str:
    """A link for GET and HEAD."""
    return make_link(key, id, int(time.time()) + 3600)


def store(id: str, most: int, key: str = NEW) -> str:
    """A link for PUT."""
    return make_link(key, id, int(time.time()) + 3600, most)


@pytest.mark.parametrize("key", [NEW, OLD], ids=["new", "old"])
def test_with_links_an_object_is_stored_and_read_without_a_token(linked: Gateway, key: str) -> None:
    id, body = random_id(), pattern(1000)
    put = linked.request("PUT", store(id, 1000, key), body, {"Content-Type": "text/x-test"})
    assert put.status == 200
    with linked.session() as session:
        for _ in range(2):  # a link may be used several times
            got = session.request("GET", read(id, key))
            assert (got.status, got.body, got.headers["Content-Type"]) == (200, body, "text/x-test")
        head = session.request("HEAD", read(id, key))
        assert (head.status, head.headers["ETag"]) == (200, put.headers["ETag"])
        part = session.request("GET", read(id, key), headers={"Range": "bytes=10-19"})
        assert (part.status, part.body) == (206, body[10:20])
        match = {"If-None-Match": put.headers["ETag"]}
        assert session.request("GET", read(id, key), headers=match).status == 304
    assert linked.get(id).status == 401


def test_conditions_hold_for_an_upload_by_a_link(linked: Gateway) -> None:
    id, create = random_id(), {"If-None-Match": "*"}
    first = linked.request("PUT", store(id, 100), b"first", create)
    assert first.status == 200
    assert code(linked.request("PUT", store(id, 100), b"second", create)) == 412
    swap = {"If-Match": first.headers["ETag"]}
    assert linked.request("PUT", store(id, 100), b"third", swap).status == 200
    assert linked.request("GET", read(id)).body == b"third"


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [99_999, 100_000, 100_001, 1_000_000])
def test_no_more_is_stored_than_the_link_says(linked: Gateway, chunks: bool, size: int) -> None:
    id, body = random_id(), pattern(size)
    assert linked.put(id, b"before", headers=TOKEN).status == 200
    answer = linked.request("PUT", store(id, 100_000), iter([body]) if chunks else body)
    assert code(answer) == (200 if size <= 100_000 else 413)
    if size > 100_000:
        assert answer.problem["detail"] == "An upload by this link may have at most 100000 bytes."
    kept = body if size <= 100_000 else b"before"
    assert linked.request("GET", read(id)).body == kept


# What a link that isn't valid says, by the method and the link.
REFUSED: dict[str, tuple[str, Callable[[str], str], int]] = {
    "expired": ("PUT", lambda id: make_link(NEW, id, int(time.time()), 10**9), 403),
    "forged": ("PUT", lambda id: store(id, 10).replace("max=10", "max=1000000000"), 403),
    "another id": ("PUT", lambda id: store("another", 10**9).replace("another", id), 403),
    "another key": ("PUT", lambda id: store(id, 10**9, "k" * 32), 403),
    "a link to read": ("PUT", read, 403),
    "more than it says": ("PUT", lambda id: store(id, 999_999), 413),
}


@pytest.mark.parametrize("expect", [True, False], ids=["with Expect", "without Expect"])
@pytest.mark.parametrize("row", REFUSED)
def test_the_body_of_a_refused_upload_is_neither_asked_for_nor_relayed(
    shared: Stack, linked: Gateway, row: str, expect: bool
) -> None:
    method, made, status = REFUSED[row]
    id = random_id()
    lines = [f"{method} {made(id)} HTTP/1.1", "Host: objgw", "Content-Length: 1000000"]
    with Wire(linked) as wire:
        wire.send("\r\n".join([*lines, *([EXPECT] if expect else []), "", ""]).encode())
        if not expect:
            wire.send(bytes(1_000_000))
        answer = wire.answer()
        assert code(answer) == status
        assert answer.headers["Connection"] == "close"
        assert wire.rest() == b""
    assert [call for call in shared.owner(id).calls() if call.key == id] == []


def test_a_link_deletes_nothing(shared: Stack, linked: Gateway) -> None:
    id = random_id()
    assert linked.put(id, b"body", headers=TOKEN).status == 200
    for link in (read(id), store(id, 10)):
        assert code(linked.request("DELETE", link)) == 403
    assert shared.owner(id).client().get_object(BUCKET, id).read() == b"body"


def test_the_gateway_takes_what_objgwctl_prints(linked: Gateway) -> None:
    id = random_id()
    put = linked.ctl("link", id, "--for", "2h", "--put", "--max", "10M")
    assert (put.code, put.errors) == (0, "")
    assert linked.request("PUT", put.output.strip(), b"by a link").status == 200
    base = f"http://{linked.address}:3000"
    got = linked.ctl("link", id, "--for", "2h", "--base", f"{base}/").output.strip()
    assert got.startswith(f"{base}/object/{id}?expires=")
    assert linked.request("GET", got.removeprefix(base)).body == b"by a link"


@pytest.mark.parametrize(("heading", "program"), [("In Python:", PYTHON), ("In a shell", SHELL)])
def test_the_gateway_takes_the_links_of_the_documents_programs(
    linked: Gateway, heading: str, program: list[str]
) -> None:
    text = (CHECKOUT / "docs" / "http.md").read_text().partition(f"\n{heading}")[2]
    code = re.findall(r"\n\n((?:(?:    .*)?\n)+)", text)[0]
    env = {**os.environ, "OBJGW_LINK_KEY": OLD}
    done = subprocess.run([*program, dedent(code)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    got, put = done.stdout.splitlines()
    assert linked.request("PUT", put, b"by a link").status == 200
    assert linked.request("GET", got).body == b"by a link"


def test_no_signature_and_no_key_is_in_the_log(linked: Gateway) -> None:
    """Requests by a link that succeed, that are refused, and that aren't HTTP."""
    sent, last = [], random_id()
    for text in (
        "GET {} HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "PUT {} HTTP/1.1\r\nHost: objgw\r\nContent-Length: 1\r\n\r\nx",
        "GET {}#fragment HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "GET {} HTTP/1.1\r\n\r\n",
        "GET {} HTTP/9.1\r\nHost: objgw\r\n\r\n",
        "GET {} HTTP/1.1 \r\nHost: objgw\r\n\r\n",
        "GET {} and more HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "{} HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "G?T{} / HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "GET  {} HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "GET\t{} HTTP/1.1\r\nHost: objgw\r\n\r\n",
        "GET /object/a HTTP/1.1\r\nHost: {}\r\n\r\n",
        "GET /object/a HTTP/1.1\r\n{}\r\nHost: objgw\r\n\r\n",
        "GET /object/a HTTP/1.1\r\nHost: objgw\r\n {}\r\n\r\n",
        "GET /object/a HTTP/1.1\r\nHost: objgw\r\nExpect: {}\r\n\r\n",
        "PUT /object/a HTTP/1.1\r\nHost: objgw\r\nTransfer-Encoding: {}\r\n\r\n",
        "PUT /object/a HTTP/1.1\r\nHost: objgw\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
    ):
        for link in (read(random_id()), store(random_id(), 10)):
            sent.append(link[-64:])
            encoded = link.replace("?", "%3F").replace("=", "%3D").replace("&", "%26")
            for each in (link, encoded, link.replace("?", "&")):
                with Wire(linked) as wire:
                    wire.send(text.format(each).encode())
                    wire.half_close()
                    told = wire.rest()
                assert link[-64:].encode() not in told, text
    signature = read(last)[-64:]  # the first of its digits in a short path would be logged
    assert linked.request("GET", f"/object/a%3Fsignature%3D{signature}").status == 401
    assert (
        linked.request("GET", f"/object/a%3Fsignature%3D{signature}", headers=TOKEN).status == 400
    )
    assert linked.request("GET", read(last), headers=TOKEN).status == 404
    linked.get(last, headers=TOKEN)
    assert re.search(r"client=[0-9.]+ link reason=\"", linked.lines(f"GET {last} 404 ")[0])
    eventually(lambda: len(linked.lines(f"GET {last} 404 ")) == 2)
    log = linked.logs()
    assert [each for each in (*sent, signature, NEW, OLD) if each[:12] in log] == []


# What is sent, and the status of the answer, which the app gives or the server by itself.
CROSSING = {
    "an object": ("GET {link} HTTP/1.1\r\nHost: objgw\r\n{origin}", 200),
    "a range": ("GET {link} HTTP/1.1\r\nHost: objgw\r\nRange: bytes=0-1\r\n{origin}", 206),
    "not modified": ("GET {link} HTTP/1.1\r\nHost: objgw\r\nIf-None-Match: *\r\n{origin}", 304),
    "no token": ("GET /object/{id} HTTP/1.1\r\nHost: objgw\r\n{origin}", 401),
    "an expired link": ("GET {expired} HTTP/1.1\r\nHost: objgw\r\n{origin}", 403),
    "no object": ("GET {missing} HTTP/1.1\r\nHost: objgw\r\n{origin}", 404),
    "a condition": ('GET {link} HTTP/1.1\r\nHost: objgw\r\nIf-Match: "x"\r\n{origin}', 412),
    "beyond the end": ("GET {link} HTTP/1.1\r\nHost: objgw\r\nRange: bytes=99-\r\n{origin}", 416),
    "no host": ("GET {link} HTTP/1.1\r\n{origin}", 400),
    "an oversized header": (
        f"GET {{link}} HTTP/1.1\r\nHost: objgw\r\nX: {'x' * 9000}\r\n{{origin}}",
        431,
    ),
    "an oversized target": (f"GET /object/{'a' * 5000} HTTP/1.1\r\nHost: objgw\r\n{{origin}}", 414),
}


@pytest.mark.parametrize("row", CROSSING)
def test_a_page_of_the_origin_can_read_every_answer(linked: Gateway, row: str) -> None:
    id = random_id()
    assert linked.put(id, b"an object", headers=TOKEN).status == 200
    text, status = CROSSING[row]
    expired, missing = make_link(NEW, id, 1), read(random_id())
    for origin in (APP, "https://evil.example"):
        line = f"Origin: {origin}\r\n"
        request = text.format(id=id, link=read(id), expired=expired, missing=missing, origin=line)
        with Wire(linked) as wire:
            wire.send(f"{request}\r\n".encode())
            answer = wire.answer()
        assert code(answer) == status
        assert answer.headers["Vary"] == "Origin"
        allowed = answer.headers["Access-Control-Allow-Origin"]
        if status in (414, 431):  # the server couldn't read whose request it was
            assert allowed == APP
        else:
            assert allowed == (APP if origin == APP else None)
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_plain_requests_on_a_kept_connection_are_told_the_origin(linked: Gateway) -> None:
    """They take a short way past the server's parser."""
    id = random_id()
    assert linked.put(id, b"an object", headers=TOKEN).status == 200
    with linked.session() as session:
        for origin in (APP, APP, "https://evil.example", APP):
            answer = session.request("GET", f"/object/{id}", headers={**TOKEN, "Origin": origin})
            assert (answer.status, answer.headers["Vary"]) == (200, "Origin")
            allowed = answer.headers["Access-Control-Allow-Origin"]
            assert allowed == (APP if origin == APP else None)


def test_the_shared_gateway_says_nothing_of_origins(gateway: Gateway) -> None:
    answer = gateway.request("GET", "/health/live", headers={"Origin": APP})
    assert json.loads(answer.body)["status"] == "live"
    assert not {"Access-Control-Allow-Origin", "Vary"} & set(answer.headers)
