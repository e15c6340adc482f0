"""What a look at a node's record says of the node: a table of answers, one after another."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from gateway.nodes.holdings import Holdings
from gateway.nodes.layout import LEASE_SECONDS, Layout
from gateway.nodes.record_json import dump
from gateway.nodes.standing import Standing
from gateway.s3.reply import Reply

LAYOUT = Layout.first(["node-1", "node-2"])


def answer(status: int, body: bytes = b"", code: str = "") -> Reply:
    body = body or (f"<Error><Code>{code}</Code></Error>".encode() if code else b"")
    return Reply(status, {"etag": '"1"'}, body, 0)


OWN, OTHERS = answer(200, dump(LAYOUT, "node-1")), answer(200, dump(LAYOUT, "node-2"))
STRANGE = answer(200, dump(replace(LAYOUT, origin="0123456789abcdef"), "node-1"))
NOT_CHANGED, MISSING = answer(304), answer(404, code="NoSuchKey")
# The answers to the looks, whether a request may go to the node, what is said of it otherwise, and
# of its trouble.
LOOKS: dict[str, tuple[list[Reply], bool, str, str]] = {
    "its record": ([OWN], True, "", ""),
    "its record, as before": ([OWN, NOT_CHANGED], True, "", ""),
    "not changed, and never read": ([NOT_CHANGED], False, "isn't a server of S3", ""),
    "another's record": ([OTHERS], False, "belongs to another", "holds what belongs to node-2"),
    "another's record by now": (
        [OWN, OTHERS],
        False,
        "belongs to another",
        "holds what belongs to node-2",
    ),
    "another installation's record": (
        [STRANGE],
        False,
        "belongs to another",
        "another installation",
    ),
    "lost": ([OWN, MISSING], False, "lost what it held", "lost what it held"),
    "lost with its bucket": (
        [OWN, answer(404, code="NoSuchBucket")],
        False,
        "lost what it held",
        "lost",
    ),
    "back": ([OWN, MISSING, OWN], True, "", ""),
    "a page of a web server": ([answer(200, b"<html>")], False, "can't be read", ""),
    "a page that isn't there": ([answer(404)], False, "isn't a server of S3", ""),
    "nothing of the kind": ([answer(200, b'{"node": "node-1"}')], False, "can't be read", ""),
    "a wrong key": ([answer(403, code="InvalidAccessKeyId")], False, "the access key", ""),
    "a wrong secret by now": (
        [OWN, answer(403, code="SignatureDoesNotMatch")],
        False,
        "its secret key isn't",
        "",
    ),
    "a wrong region": ([answer(400, code="AuthorizationHeaderMalformed")], False, "its region", ""),
    "a wrong clock": ([OWN, answer(403, code="RequestTimeTooSkewed")], False, "its clock", ""),
    "no right to read": ([answer(403, code="AccessDenied")], False, "no right to read", ""),
    "another refusal": ([answer(405, code="MethodNotAllowed")], False, "refuses", ""),
    "starting": ([answer(503, code="XMinioServerNotInitialized")], False, "can't serve", ""),
    "a hiccup": ([OWN, answer(503), OWN], True, "", ""),
}


@pytest.mark.parametrize("row", LOOKS)
def test_only_a_node_that_gives_its_own_record_is_usable(row: str) -> None:
    replies, usable, refusal, trouble = LOOKS[row]
    standing = Standing("node-1")
    standing.expect(LAYOUT)
    for reply in replies:
        standing.take(time.monotonic() + 1, reply)
    assert standing.usable is usable
    assert trouble in standing.trouble
    assert bool(trouble) == bool(standing.trouble)
    if not usable:
        assert refusal in standing.refusal


def test_a_node_that_is_starting_keeps_what_is_known_of_it_and_no_lease_is_renewed() -> None:
    standing, now = Standing("node-1"), time.monotonic()
    standing.take(now - LEASE_SECONDS, OWN)
    standing.take(now, answer(503, code="XMinioServerNotInitialized"))
    assert (standing.starting, standing.usable, standing.leased) == (True, True, False)
    assert standing.coming
    assert "can't serve" in standing.refusal
    standing.take(now, NOT_CHANGED)
    assert (standing.starting, standing.leased) == (False, True)


def test_a_lease_lasts_from_the_sending_of_the_look() -> None:
    standing, now = Standing("node-1"), time.monotonic()
    standing.take(now, OWN)
    assert standing.leased
    standing.take(now - LEASE_SECONDS, NOT_CHANGED)
    assert (standing.usable, standing.leased) == (True, False)


def test_a_node_that_never_had_a_record_has_only_just_come() -> None:
    standing = Standing("node-1")
    standing.expect(replace(LAYOUT, unrecorded=("node-1",)))
    standing.take(time.monotonic(), MISSING)
    assert (standing.usable, standing.trouble) == (False, "")
    assert "only just come" in standing.refusal
    assert standing.coming  # so that a request waits for it
    standing.wrote(LAYOUT, '"2"')
    assert (standing.usable, standing.coming) == (True, False)


UNRECORDED = replace(LAYOUT, unrecorded=("node-1",))
# The layout, what the node without a record holds, and whether it is unknown, new, and writable.
HELD: dict[str, tuple[Layout | None, Holdings | None, bool, bool, bool]] = {
    "not listed yet": (LAYOUT, None, False, False, False),
    "empty": (UNRECORDED, Holdings(), False, True, True),
    "empty, no layout yet": (None, Holdings(), False, True, False),
    "objects": (LAYOUT, Holdings(("a",)), True, False, False),
    "objects, no layout yet": (None, Holdings(("a",)), True, False, False),
    "objects that may be anywhere": (UNRECORDED.anywhere(), Holdings(("a",)), False, False, True),
    "not to be listed": (LAYOUT, Holdings(problem="why"), True, False, False),
}


@pytest.mark.parametrize("row", HELD)
def test_a_node_without_a_record_is_written_to_only_where_it_is_known_what_it_holds(
    row: str,
) -> None:
    layout, held, unknown, new, writable = HELD[row]
    standing = Standing("node-1")
    if layout:
        standing.expect(layout)
    standing.take(time.monotonic(), MISSING)
    assert standing.to_be_listed
    if held:
        standing.lists(held)
        assert not standing.to_be_listed
    assert (standing.unknown, standing.new, standing.writable) == (unknown, new, writable)
    assert ("add node-1" in standing.trouble) is unknown
    standing.take(time.monotonic(), OWN)
    assert (standing.unknown, standing.new, standing.to_be_listed) == (False, False, False)


def test_a_record_that_was_missing_before_the_layout_had_the_node_is_no_loss() -> None:
    standing = Standing("node-1")
    standing.take(time.monotonic() - 1, MISSING)
    standing.expect(LAYOUT)
    assert not standing.trouble


def test_a_look_that_failed_takes_nothing_back_but_says_why() -> None:
    standing = Standing("node-1")
    standing.take(time.monotonic(), OWN)
    standing.failed(ConnectionRefusedError())
    assert (standing.usable, standing.error) == (True, "it refuses connections")
    standing.take(time.monotonic(), NOT_CHANGED)
    assert standing.error == ""
