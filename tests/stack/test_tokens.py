"""Tokens: who may read and write, and that none is in the log."""

from __future__ import annotations

import io
import secrets
import tarfile

import pytest

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import Wire, code, head
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

OLD, NEW, READER, FILED = (
    f"{name}-{secrets.token_urlsafe(24)}" for name in ("old", "new", "reader", "filed")
)


@pytest.fixture(scope="module")
def guarded(shared: Stack) -> Gateway:
    """A gateway with two tokens in its environment, and two that may read in a file."""
    gateway = shared.add_gateway(
        {"OBJGW_TOKENS": f"{OLD} {NEW}", "OBJGW_READ_TOKENS_FILE": "/run/read-tokens"}, start=False
    )
    text, archive = f"{READER}\n{FILED}\n".encode(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        file = tarfile.TarInfo("read-tokens")
        file.size, file.mode = len(text), 0o444  # as Docker makes secrets
        tar.addfile(file, io.BytesIO(text))
    gateway.container.put_archive("/run", archive.getvalue())
    gateway.start()
    gateway.wait_up()
    eventually(lambda: all(allowed(gateway, "PUT", shared.id_of(node)) for node in shared.nodes))
    return gateway


def allowed(gateway: Gateway, method: str, id: str, authorization: str = f"Bearer {OLD}") -> bool:
    body = b"body" if method == "PUT" else None
    return (
        gateway.request(method, f"/object/{id}", body, {"Authorization": authorization}).status
        < 300
    )


AUTHORIZATIONS: dict[
    str, tuple[str | None, int, int]
] = {  # what is sent, status of reading, of writing
    "none": (None, 401, 401),
    "empty": ("", 401, 401),
    "wrong": ("Bearer wrong", 401, 401),
    "too short": (f"Bearer {OLD[:-1]}", 401, 401),
    "too long": (f"Bearer {OLD}x", 401, 401),
    "two in one": (f"Bearer {OLD} {NEW}", 401, 401),
    "no token": ("Bearer", 401, 401),
    "no token but a blank": ("Bearer ", 401, 401),
    "no scheme": (OLD, 401, 401),
    "another scheme": (f"Basic {OLD}", 401, 401),
    "bytes that are no ASCII": ("Bearer \xe9\xff", 401, 401),
    "reads, from a file": (f"Bearer {READER}", 200, 403),
    "also reads, from a file": (f"Bearer {FILED}", 200, 403),
    "writes": (f"Bearer {OLD}", 200, 200),
    "also writes": (f"Bearer {NEW}", 200, 200),
    "scheme in lower case": (f"bearer {NEW}", 200, 200),
}


@pytest.mark.parametrize("row", AUTHORIZATIONS)
def test_a_token_permits_what_it_says_and_no_other_does(
    shared: Stack, guarded: Gateway, row: str
) -> None:
    authorization, reading, writing = AUTHORIZATIONS[row]
    headers = {} if authorization is None else {"Authorization": authorization}
    id = random_id()
    assert allowed(guarded, "PUT", id)
    for method, expected in (
        ("GET", reading),
        ("HEAD", reading),
        ("PUT", writing),
        ("DELETE", writing),
    ):
        answer = guarded.request(
            method, f"/object/{id}", b"other" if method == "PUT" else None, headers
        )
        assert answer.status == (204 if method == "DELETE" and expected == 200 else expected), (
            method
        )
        if expected == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        if expected == 403:
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        if expected in (401, 403) and method != "HEAD":
            assert answer.problem["status"] == expected
    if writing != 200:
        assert shared.owner(id).client().get_object(BUCKET, id).read() == b"body"


@pytest.mark.parametrize("expect", [True, False], ids=["with Expect", "without Expect"])
@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", f"Bearer {READER}"], ids=["wrong", "reads"]
)
def test_the_body_of_an_upload_without_the_right_token_is_neither_asked_for_nor_relayed(
    shared: Stack, guarded: Gateway, expect: bool, authorization: str
) -> None:
    id = random_id()
    extra = ["Expect: 100-continue"] if expect else []
    with Wire(guarded) as wire:
        wire.send(
            head("PUT", id, f"Authorization: {authorization}", "Content-Length: 1000000", *extra)
        )
        if not expect:
            wire.send(bytes(1_000_000))
        answer = wire.answer()
        assert code(answer) == (401 if "wrong" in authorization else 403)
        assert answer.headers["Connection"] == "close"
        assert wire.rest() == b""
    assert [call for call in shared.owner(id).calls() if call.key == id] == []


def test_no_token_is_in_the_log(guarded: Gateway) -> None:
    for token in (OLD, NEW, READER, FILED):
        id = random_id()
        guarded.get(random_id(), headers={"Authorization": f"Bearer {token}x\0"})
        guarded.get(id, headers={"Authorization": f"Bearer {token}"})
        assert guarded.lines(f"GET {id} ")
    log = guarded.logs()
    assert [token for token in (OLD, NEW, READER, FILED) if token in log] == []
    assert "no token is set" not in log


def test_without_tokens_everything_is_open_and_the_log_says_so(
    shared: Stack, gateway: Gateway
) -> None:
    assert (
        gateway.put(shared.id_of(shared.nodes[0]), headers={"Authorization": "Bearer any"}).status
        == 200
    )
    assert gateway.lines("no token is set: whoever reaches the gateway may read and write")


def test_a_token_file_that_is_not_there_stops_the_start_with_one_line_that_names_it(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway({"OBJGW_TOKENS_FILE": "/run/secrets/tokens"}, start=False)
    gateway.container.start()
    assert gateway.container.wait(timeout=60)["StatusCode"] != 0
    assert len([line for line in gateway.logs().splitlines() if "OBJGW_TOKENS_FILE" in line]) == 1
    assert "Traceback" not in gateway.logs()
