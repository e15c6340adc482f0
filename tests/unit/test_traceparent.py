"""`traceparent` to the letter: https://www.w3.org/TR/trace-context/#traceparent-header."""

from __future__ import annotations

import pytest

from gateway.status.traceparent import TraceContext, context_of, header_lines

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

TAKEN = {
    "sampled": (f"00-{TRACE}-{PARENT}-01", 1),
    "not sampled": (f"00-{TRACE}-{PARENT}-00", 0),
    "with the random flag": (f"00-{TRACE}-{PARENT}-03", 3),
    "with flags that nobody knows": (f"00-{TRACE}-{PARENT}-ff", 255),
    "a later version": (f"01-{TRACE}-{PARENT}-01", 1),
    "the last version": (f"fe-{TRACE}-{PARENT}-00", 0),
    "a later version that has more": (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", 1),
    "a later version that ends with a dash": (f"cc-{TRACE}-{PARENT}-01-", 1),
    "a later version's flags": (f"cc-{TRACE}-{PARENT}-fe", 0),
}
IGNORED = {
    "nothing": "",
    "a trace id of zeros": f"00-{'0' * 32}-{PARENT}-01",
    "a parent id of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "version ff": f"ff-{TRACE}-{PARENT}-01",
    "version ff with more": f"ff-{TRACE}-{PARENT}-01-x",
    "upper case": f"00-{TRACE.upper()}-{PARENT}-01",
    "a parent id in upper case": f"00-{TRACE}-{PARENT.upper()}-01",
    "flags in upper case": f"00-{TRACE}-{PARENT}-0A",
    "a version in upper case": f"CC-{TRACE}-{PARENT}-01",
    "version 00 with more": f"00-{TRACE}-{PARENT}-01-x",
    "version 00 with a dash at its end": f"00-{TRACE}-{PARENT}-01-",
    "a later version that goes on without a dash": f"cc-{TRACE}-{PARENT}-01x",
    "a later version with a dot": f"cc-{TRACE}-{PARENT}-01.x",
    "a short trace id": f"00-{TRACE[1:]}-{PARENT}-01",
    "a long trace id": f"00-{TRACE}a-{PARENT}-01",
    "a short parent id": f"00-{TRACE}-{PARENT[1:]}-01",
    "short flags": f"00-{TRACE}-{PARENT}-1",
    "no flags": f"00-{TRACE}-{PARENT}",
    "a short version": f"0-{TRACE}-{PARENT}-01",
    "what isn't hexadecimal": f"00-{TRACE[1:]}g-{PARENT}-01",
    "digits that aren't ASCII": f"00-{TRACE[1:]}\xb2-{PARENT}-01",
    "underscores": f"00_{TRACE}_{PARENT}_01",
    "a blank in front": f" 00-{TRACE}-{PARENT}-01",
    "a line end": f"00-{TRACE}-{PARENT}-01\n",
    "two headers": f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01",
}


@pytest.mark.parametrize(("header", "flags"), TAKEN.values(), ids=TAKEN)
def test_what_is_well_formed_is_taken(header: str, flags: int) -> None:
    assert context_of({"HTTP_TRACEPARENT": header}) == TraceContext(TRACE, PARENT, flags, "")


@pytest.mark.parametrize("header", IGNORED.values(), ids=IGNORED)
def test_what_is_not_is_as_good_as_none(header: str) -> None:
    assert context_of({"HTTP_TRACEPARENT": header, "HTTP_TRACESTATE": "a=1"}) is None


def test_without_the_header_there_is_no_trace() -> None:
    assert context_of({"HTTP_TRACESTATE": "a=1"}) is None


@pytest.mark.parametrize(
    ("came", "taken"),
    [
        ("a=1", "a=1"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("a=1,\tb=2", "a=1,\tb=2"),
        ("a=" + "x" * 4094, "a=" + "x" * 4094),
        ("a=" + "x" * 4095, ""),
        ("a=\xe4", ""),
        ("a=1\r\nx-amz-acl: public-read", ""),
        ("", ""),
    ],
)
def test_what_comes_with_it_is_passed_on_where_it_can_be(came: str, taken: str) -> None:
    header = f"00-{TRACE}-{PARENT}-01"
    context = context_of({"HTTP_TRACEPARENT": header, "HTTP_TRACESTATE": came})
    assert context
    assert context.state == taken
    lines = header_lines(context).split("\r\n")
    assert lines == [f"traceparent: {header}", *([f"tracestate: {taken}"] if taken else []), ""]


@pytest.mark.parametrize(
    ("came", "sent"),
    [
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-ff"),
        (f"cc-{TRACE}-{PARENT}-ff-more", f"00-{TRACE}-{PARENT}-01"),
    ],
)
def test_a_node_gets_the_version_that_the_gateway_knows(came: str, sent: str) -> None:
    context = context_of({"HTTP_TRACEPARENT": came})
    assert context
    assert header_lines(context) == f"traceparent: {sent}\r\n"
