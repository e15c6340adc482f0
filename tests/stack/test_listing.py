"""The list of objects, over real nodes: pages and the stream, and what breaks them.

What is listed of several copies, and while objects move, is in tests/unit/test_walk.py and in
test_unsettled.py.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import partial

import pytest

from tests.harness.engine import BUCKET, Call, Lab
from tests.harness.fakes import RECORDS
from tests.harness.gateway import Answer, Gateway
from tests.harness.http import BROKEN, Wire, code
from tests.harness.listing import NDJSON, page, pages, stream
from tests.harness.stack import Stack
from tests.harness.status import access_lines, requests
from tests.harness.waiting import eventually, together


def new_prefix() -> str:
    return f"L{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def listed(shared: Stack) -> tuple[str, list[str]]:
    """A prefix, and the 40 ids that begin with it; the nodes also hold keys that are no ids."""
    prefix = new_prefix()
    ids = [f"{prefix}{end}" for end in [*map(str, range(30)), *"abcdeABCDE"]]
    stored = together(
        partial(shared.gateways[0].put, id, b"x" * number) for number, id in enumerate(ids)
    )
    assert {answer.status for answer in stored} == {200}
    for node in shared.nodes:
        for end in ("-", "/a/b", ".txt", " é", "x" * 40):
            node.client().put_object(BUCKET, f"{prefix}{end}", io.BytesIO(b"other"), 5)
    return prefix, sorted(ids)


@pytest.mark.parametrize("limit", [1, 7, 39, 40, 41, 1000])
def test_all_pages_have_each_id_once_in_the_order_of_bytes(
    gateway: Gateway, listed: tuple[str, list[str]], limit: int
) -> None:
    prefix, ids = listed
    assert [each["id"] for each in pages(gateway, prefix, limit)] == ids


def test_the_stream_has_what_the_pages_have_and_each_says_what_head_says(
    gateway: Gateway, listed: tuple[str, list[str]]
) -> None:
    prefix, ids = listed
    found = stream(gateway, f"?prefix={prefix}")
    assert found == pages(gateway, prefix, 1000)
    assert [each["id"] for each in found] == ids
    for each in found:
        head = gateway.head(each["id"]).headers
        modified = parsedate_to_datetime(head["Last-Modified"])
        assert each == {
            "id": each["id"],
            "size": int(head["Content-Length"]),
            "etag": head["ETag"],
            "modified": f"{modified:%Y-%m-%dT%H:%M:%SZ}",
        }


RANGES = {
    "?prefix={p}&after={p}9": "abcde",
    "?prefix={p}&after={p}d": "e",
    "?prefix={p}&after={p}e": "",
    "?prefix={p}&after=zzz": "",
    "?prefix={p}A": "A",
    "?prefix={p}F": "",
    "?prefix={p}&after=0&limit=1": "0",
    "?prefix={p}&after=&limit=1": "0",
}


@pytest.mark.parametrize("query", RANGES)
def test_a_list_begins_after_an_id_and_has_those_of_a_prefix(
    gateway: Gateway, listed: tuple[str, list[str]], query: str
) -> None:
    prefix, sent = listed[0], query.format(p=listed[0])
    ends = [each["id"].removeprefix(prefix) for each in page(gateway, sent)["objects"]]
    if "9" in query:
        assert ends == list("ABCDEabcde")
    else:
        assert ends == list(RANGES[query])
    if "limit" not in query:
        lines = stream(gateway, sent)
        assert [each["id"].removeprefix(prefix) for each in lines] == ends


def test_a_list_of_everything_begins_with_the_first_id_and_ends(gateway: Gateway) -> None:
    assert page(gateway)["objects"][:5] == stream(gateway)[:5]
    ids = [each["id"] for each in stream(gateway)]
    assert ids == sorted(set(ids))


def test_one_page_asks_each_node_once(shared: Stack, listed: tuple[str, list[str]]) -> None:
    def asks_once() -> bool:
        before = {node: len(node.calls()) for node in shared.nodes}
        # With this prefix there are no other keys, which would take their part of the nodes' pages.
        assert len(page(shared.gateways[0], f"?prefix={listed[0]}1&limit=10")["objects"]) == 10
        for node in shared.nodes:
            assert node.calls()[before[node] :] == [Call("ListObjectsV2", "", 200)]
        return True

    eventually(asks_once)  # another gateway may count objects, by the same call


REFUSED = [
    ("GET", "?limit=0", 400, "1 to 1000"),
    ("GET", "?limit=-1", 400, "1 to 1000"),
    ("GET", "?limit=1001", 400, "1 to 1000"),
    ("GET", "?limit=", 400, "1 to 1000"),
    ("GET", "?limit=ten", 400, "1 to 1000"),
    ("GET", "?limit=1.5", 400, "1 to 1000"),
    ("GET", "?limit=%D9%A1", 400, "1 to 1000"),
    ("GET", "?limit=5&limit=5", 400, "twice"),
    ("GET", "?prefix=a-b", 400, "prefix"),
    ("GET", "?prefix=a/", 400, "prefix"),
    ("GET", "?prefix=%00", 400, "prefix"),
    ("GET", "?prefix=%FF", 400, "prefix"),
    ("GET", f"?prefix={'a' * 33}", 400, "prefix"),
    ("GET", "?after=a%20b", 400, "after"),
    ("GET", "?after=a+b", 400, "after"),
    ("GET", "?start=a", 400, "start"),
    ("GET", "?Prefix=a", 400, "Prefix"),
    ("GET", "?list-type=2", 400, "list-type"),
    ("POST", "", 405, "GET"),
    ("PUT", "", 405, "GET"),
    ("DELETE", "", 405, "GET"),
    ("OPTIONS", "", 405, "GET"),
]


@pytest.mark.parametrize(("method", "query", "status", "word"), REFUSED)
def test_a_request_that_is_no_list_is_refused_with_its_reason(
    gateway: Gateway, method: str, query: str, status: int, word: str
) -> None:
    for headers in ({}, NDJSON):
        answer = gateway.request(method, f"/objects{query}", headers=headers)
        assert code(answer) == status
        assert word in answer.problem["detail"] or headers
        assert status != 405 or answer.headers["Allow"] == "GET, HEAD"
    if method == "GET":
        assert gateway.request("HEAD", f"/objects{query}").status == status


def test_what_a_stream_cannot_do_is_refused(gateway: Gateway) -> None:
    assert gateway.request("GET", "/objects?limit=5", headers=NDJSON).problem["status"] == 400
    with Wire(gateway) as wire:
        wire.send(b"GET /objects HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n")
        assert "HTTP/1.0" in wire.answer().problem["detail"]
    with Wire(gateway) as wire:
        wire.send(b"GET /objects?limit=1 HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200


def test_head_is_what_get_is_without_the_list(
    gateway: Gateway, listed: tuple[str, list[str]]
) -> None:
    target = f"/objects?prefix={listed[0]}"
    with gateway.session() as session:
        for headers in ({}, NDJSON):
            got, asked = (
                session.request(each, target, headers=headers) for each in ("GET", "HEAD")
            )
            assert (asked.status, asked.body) == (200, b"")
            for name in ("Content-Type", "Content-Length", "Cache-Control", "Vary"):
                assert asked.headers[name] == got.headers[name]


def test_a_list_is_counted_and_logged_as_one(shared: Stack, listed: tuple[str, list[str]]) -> None:
    gateway = shared.add_gateway()
    gateway.wait_ready()
    before = requests(gateway)
    for headers in ({}, NDJSON):
        sent = gateway.request("GET", f"/objects?prefix={listed[0]}", headers=headers)
        assert sent.headers["Server-Timing"].startswith("upstream;dur=")
        line = f"GET '/objects' 200 node=all bytes={len(sent.body)} "
        (told,) = eventually(
            lambda line=line: [each for each in access_lines(gateway) if line in each]
        )
        assert re.search(r" seconds=[0-9.]+ request=\w+ client=[0-9.]+$", told)
    assert not [line for line in access_lines(gateway) if "/objects" in line and "broken" in line]
    gateway.request("GET", "/objects?limit=0")
    counted = requests(gateway) - before
    assert counted == Counter({("LIST", "all", "200"): 2, ("LIST", "none", "400"): 1})


def test_a_client_that_goes_away_within_the_stream_harms_nobody(
    gateway: Gateway, listed: tuple[str, list[str]]
) -> None:
    for _ in range(40):  # more than may be under way at once
        with Wire(gateway) as wire:
            wire.send(
                b"GET /objects HTTP/1.1\r\nHost: objgw\r\nAccept: application/x-ndjson\r\n\r\n"
            )
            wire.file.readline()
    assert [each["id"] for each in stream(gateway, f"?prefix={listed[0]}")] == listed[1]


def test_a_node_that_cannot_be_asked_makes_it_503_and_never_a_shorter_list(
    faulty: Stack,
) -> None:
    gateway, prefix = faulty.gateways[0], new_prefix()
    ids = sorted(f"{prefix}{number}" for number in range(20))
    for id in ids:
        assert gateway.put(id, b"x").status == 200

    def refused() -> list[Answer]:
        return [
            gateway.request(method, f"/objects?prefix={prefix}", headers=headers)
            for headers in ({}, NDJSON)
            for method in ("GET", "HEAD")
        ]

    lost = faulty.nodes[1]
    lost.stop()
    for answer in refused():
        assert code(answer) == 503
        assert answer.headers["Retry-After"]
        assert not answer.body or lost.name in answer.problem["detail"]
    lost.start()
    eventually(lambda: gateway.request("GET", f"/objects?prefix={prefix}").status == 200)
    assert [each["id"] for each in stream(gateway, f"?prefix={prefix}")] == ids
    assert [each["id"] for each in pages(gateway, prefix, 6)] == ids


def test_objgwctl_lists_the_same_and_what_one_node_holds(
    shared: Stack, gateway: Gateway, listed: tuple[str, list[str]]
) -> None:
    prefix, ids = listed
    found = stream(gateway, f"?prefix={prefix}")
    done = gateway.ctl("list", "--json", "--prefix", prefix)
    assert (done.code, [json.loads(line) for line in done.output.splitlines()]) == (0, found)
    for node in shared.nodes:
        done = gateway.ctl("list", "--json", "--prefix", prefix, "--node", node.name)
        mine = [each for each in found if shared.owner(each["id"]) is node]
        assert [json.loads(line) for line in done.output.splitlines()] == mine
    plain = gateway.ctl("list", "--prefix", prefix).output.splitlines()
    assert [line.split()[-1] for line in plain] == ids
    assert plain[0].split()[0] == found[0]["modified"]
    assert gateway.ctl("list", "--prefix", "a-b").code == 2
    assert gateway.ctl("list", "--node", "nobody").code == 2


# --------------------------------------------------------------------------------------------------
# A node whose listings can be wrong
# --------------------------------------------------------------------------------------------------

# By the prefix that is asked for: what comes to the first request, and to one that goes on.
FAKE_NODE = r"""
import json, os, urllib.parse
ANSWERS = json.loads(os.environ["ANSWERS"])
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _, path, _, _ in requests(self):
            given = dict(urllib.parse.parse_qsl(path.partition("?")[2]))
            answers = ANSWERS.get(given.get("prefix"), [["200 OK", "", 0]])
            status, sent, missing = answers["start-after" in given and len(answers) > 1]
            sent = sent.replace("HUGE", " " * (5 << 20))  # too long for the environment
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(sent) + missing}\r\n\r\n"
            self.wfile.write((head + sent).encode())
            if missing:
                return
serve(Handler)
"""

ENTRY = (
    '<Contents><Key>{}</Key><Size>5</Size><ETag>"x"</ETag>'
    "<LastModified>2026-11-25T08:00:00.250Z</LastModified></Contents>"
)
MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
ERROR = "<Error><Code>{}</Code></Error>"


def xml(*keys: str, end: str = "") -> str:
    return f"<ListBucketResult>{end}{''.join(map(ENTRY.format, keys))}</ListBucketResult>"


Fault = tuple[str, str, int]  # status, body, bytes that are missing of it
REFUSALS: dict[str, tuple[Fault, int]] = {
    "noXML": (("200 OK", "hello", 0), 502),
    "html": (("200 OK", "<html></html>", 0), 502),
    "nothing": (("200 OK", "", 0), 502),
    "cut": (("200 OK", xml("cut1")[:-5], 0), 502),
    "short": (("200 OK", xml("short1"), 100), 503),
    "entity": (("200 OK", f'<!DOCTYPE a [<!ENTITY e "x">]>{xml("entity&e;")}', 0), 502),
    "unsorted": (("200 OK", xml("unsorted2", "unsorted1"), 0), 502),
    "twice": (("200 OK", xml("twice1", "twice1"), 0), 502),
    "another": (("200 OK", xml("other"), 0), 502),
    "endless": (("200 OK", xml(end=MORE), 0), 502),
    "huge": (("200 OK", xml() + "HUGE", 0), 503),
    "denied": (("403 Forbidden", ERROR.format("AccessDenied"), 0), 502),
    "busy": (("503 Service Unavailable", ERROR.format("SlowDown"), 0), 503),
    "failed": (("500 Internal Server Error", ERROR.format("InternalError"), 0), 502),
}
# The first page is good, and the next one isn't.
BREAKS: dict[str, Fault] = {
    f"breaks{name}": fault for name, (fault, _) in REFUSALS.items() if name != "another"
}
GOOD: dict[str, list[Fault]] = {
    "nobucket": [("404 Not Found", ERROR.format("NoSuchBucket"), 0)],
    "empty": [("200 OK", xml(), 0)],
    "two": [("200 OK", xml("two1", "two1/x", end=MORE), 0), ("200 OK", xml("two2"), 0)],
}


@pytest.fixture(scope="module")
def fake(lab: Lab) -> Iterator[Gateway]:
    stack = Stack(lab)
    try:
        answers: dict[str, list[Fault]] = {name: [fault] for name, (fault, _) in REFUSALS.items()}
        for name, fault in BREAKS.items():
            answers[name] = [("200 OK", xml(f"{name}1", end=MORE), 0), fault]
        answers |= GOOD
        stack.add_fake("1", RECORDS + FAKE_NODE, {"ANSWERS": json.dumps(answers)})
        gateway = stack.add_gateway({"OBJGW_BREAKER_SECONDS": "0.1"})
        gateway.wait_up()
        eventually(lambda: gateway.request("GET", "/objects?prefix=empty").status == 200)
        yield gateway
    finally:
        stack.close()


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_listing_is_refused_and_never_an_empty_list(fake: Gateway, name: str) -> None:
    for headers in ({}, NDJSON):
        answer = fake.request("GET", f"/objects?prefix={name}", headers=headers)
        assert code(answer) == REFUSALS[name][1]


@pytest.mark.parametrize("name", BREAKS)
def test_a_stream_whose_node_fails_within_it_breaks_before_its_last_chunk(
    fake: Gateway, name: str
) -> None:
    connection = http.client.HTTPConnection(fake.address, 3000, timeout=40)
    connection.request("GET", f"/objects?prefix={name}", headers=NDJSON)
    response = connection.getresponse()
    assert response.status == 200
    assert json.loads(response.readline())["id"] == f"{name}1"
    with pytest.raises(BROKEN):
        response.read()
    connection.close()
    # A page that needs the second answer is refused.
    answer = fake.request("GET", f"/objects?prefix={name}")
    assert code(answer) == REFUSALS[name.removeprefix("breaks")][1]


def test_a_broken_stream_is_logged_with_its_reason(fake: Gateway) -> None:
    with pytest.raises(BROKEN):
        fake.request("GET", "/objects?prefix=breaksbusy", headers=NDJSON)
    line = eventually(
        lambda: [each for each in access_lines(fake) if "broken off" in each and "busy" in each]
    )[-1]
    assert " GET '/objects' 200 node=all " in line


@pytest.mark.parametrize(
    ("name", "ids"), [("nobucket", []), ("empty", []), ("two", ["two1", "two2"])]
)
def test_a_node_without_a_bucket_or_objects_has_none(
    fake: Gateway, name: str, ids: list[str]
) -> None:
    assert [each["id"] for each in page(fake, f"?prefix={name}")["objects"]] == ids
    assert [each["id"] for each in stream(fake, f"?prefix={name}")] == ids
