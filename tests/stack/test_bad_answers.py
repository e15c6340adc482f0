"""A node whose answers stop, never come or aren't HTTP: a client is never given them for an object.

The node isn't MinIO but `FAKE_NODE`, for answers that MinIO can't be made to give.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest

from tests.harness.engine import Lab
from tests.harness.fakes import RECORDS
from tests.harness.gateway import Gateway
from tests.harness.http import BROKEN, code
from tests.harness.stack import Stack

# A node in whose answers everything can be wrong: ANSWERS is {id: [what it sends, filler bytes
# behind, what then]}.
FAKE_NODE = r"""
import json, os
ANSWERS = json.loads(os.environ["ANSWERS"])
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _, path, _, _ in requests(self):
            sent, filler, then = ANSWERS.get(path.rpartition("/")[2], ANSWERS["good"])
            self.wfile.write(sent.encode("latin-1") + b"x" * filler)
            if then == "hang":
                threading.Event().wait()
            if then == "close":
                return
serve(Handler)
"""

OK = 'HTTP/1.1 200 OK\r\nETag: "0"\r\n'

XML = "<Error><Code>InternalError</Code></Error>"

Fault = tuple[str, str, int, str]  # its name, what comes, filler bytes behind it, what then

# The client must see a broken connection.
STOPS: list[Fault] = [
    (f"stops{n}", f"{OK}Content-Length: 1048576\r\n\r\n", n, "close")
    for n in (0, 1, 65_536, 262_144, 1_048_575)
] + [("hangsMidway", f"{OK}Content-Length: 1048576\r\n\r\n", 70_000, "hang")]

# The client must be told 502 or 503: nothing was relayed yet.
FAULTS: list[Fault] = [
    ("neverAnswers", "", 0, "hang"),
    ("closesAtOnce", "", 0, "close"),
    ("stopsInTheStatusLine", "HTTP/1.1 2", 0, "close"),
    ("stopsInTheHeaders", f"{OK}Content-Len", 0, "close"),
    ("isNotHTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n", 0, "close"),
    ("hasNoStatus", "HTTP/1.1 OK\r\n\r\n", 0, "close"),
    ("isOldHTTP", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n", 4, "close"),
    ("hasNoLength", f"{OK}\r\n", 100, "close"),
    ("hasANegativeLength", f"{OK}Content-Length: -4\r\n\r\n", 4, "close"),
    ("hasAnUnderscoreInItsLength", f"{OK}Content-Length: 1_0\r\n\r\n", 10, "close"),
    ("hasTwoLengths", f"{OK}Content-Length: 8\r\nContent-Length: 4\r\n\r\n", 4, "close"),
    ("hasAWordForALength", f"{OK}Content-Length: four\r\n\r\n", 4, "close"),
    ("isCutInChunks", f"{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nxxxx\r\n", 0, "close"),
    ("isLongerThanItSays", f"{OK}Content-Length: 4\r\n\r\n", 8, "close"),
    ("hasEndlessHeaders", OK, 200_000, "close"),
    ("hasAHeaderWithoutAColon", f"{OK}Content-Length: 4\r\ngarbage\r\n\r\n", 4, "close"),
    ("hasNULInAHeader", f"{OK}Content-Length: 4\r\nx-amz-meta-a: \0\r\n\r\n", 4, "close"),
    (
        "isAServerError",
        f"HTTP/1.1 500 Internal Server Error\r\nContent-Length: {len(XML)}\r\n\r\n{XML}",
        0,
        "keep",
    ),
    ("isBusy", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    (
        "isARedirect",
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
        0,
        "keep",
    ),
    ("isATeapot", "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    ("isCreated", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
    (
        "isAnErrorCutShort",
        f"HTTP/1.1 404 Not Found\r\nContent-Length: 900\r\n\r\n{XML}",
        0,
        "close",
    ),
    (
        "isAnEndlessError",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9000000\r\n\r\n",
        300_000,
        "close",
    ),
    ("isForbidden", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 0, "keep"),
]

GOOD: Fault = ("good", f"{OK}Content-Length: 0\r\n\r\n", 0, "keep")

# Good for a GET, not for a PUT.
NO_ETAG: Fault = ("hasNoETag", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "keep")


def named(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", [fault[0] for fault in faults])


@pytest.fixture(scope="module")
def with_fake(lab: Lab) -> Iterator[Gateway]:
    """A gateway whose one node is FAKE_NODE."""
    stack = Stack(lab)
    try:
        answers = json.dumps(
            {
                name: [sent, filler, then]
                for name, sent, filler, then in [*STOPS, *FAULTS, NO_ETAG, GOOD]
            }
        )
        stack.add_fake("1", RECORDS + FAKE_NODE, {"ANSWERS": answers})
        gateway = stack.add_gateway({"OBJGW_NODE_TIMEOUT": "3", "OBJGW_BREAKER_SECONDS": "0.001"})
        gateway.wait_ready(["good"])
        yield gateway
    finally:
        stack.close()


@named(STOPS)
def test_an_answer_that_stops_early_breaks_the_connection(with_fake: Gateway, fault: str) -> None:
    with pytest.raises(BROKEN):
        with_fake.get(fault, timeout=10)
    assert with_fake.get("good").status == 200


@named(FAULTS)
def test_a_download_that_a_node_answers_badly_gets_502_or_503(
    with_fake: Gateway, fault: str
) -> None:
    assert code(with_fake.get(fault)) in (502, 503)
    assert with_fake.get("good").status == 200


@named(FAULTS[:5] + FAULTS[-8:])
def test_an_upload_that_a_node_answers_badly_gets_502_or_503(
    with_fake: Gateway, fault: str
) -> None:
    assert code(with_fake.put(fault, b"body")) in (502, 503)
    assert with_fake.get("good").status == 200


def test_a_node_that_gives_no_etag_for_an_upload_makes_502(with_fake: Gateway) -> None:
    assert code(with_fake.put("hasNoETag", b"body")) == 502
