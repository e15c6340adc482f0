"""Lines of the log: one form, which no text from outside can break, and pieces that other processes
can't get into.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from contextlib import suppress

import pytest

from gateway.settings import Settings
from gateway.status.logs import (
    PIPE_BUF,
    REQUEST_ID,
    JsonFormatter,
    LineFormatter,
    Lines,
    log_settings,
    stamp,
)


def record(message: str, *arguments: object, failed: bool = False) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("why")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("objgw", logging.WARNING, "file", 1, message, arguments, error)
    made.created = 1.5
    return made


@pytest.mark.parametrize(
    "outside", ["a\nb", "a\r\nb", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029"]
)
def test_control_characters_of_a_message_never_reach_the_log(outside: str) -> None:
    line = LineFormatter().format(record("node %s", outside))
    assert line.startswith("1970-01-01T00:00:01.500Z WARNING objgw node ")
    assert re.fullmatch(r"[\x20-\x7e]*", line)
    assert len(JsonFormatter().format(record("node %s", outside)).splitlines()) == 1
    assert (
        json.loads(JsonFormatter().format(record("node %s", outside)))["message"]
        == f"node {outside}"
    )


def test_an_exception_comes_with_its_traceback() -> None:
    assert "ValueError: why" in LineFormatter().format(record("it failed", failed=True))
    said = json.loads(JsonFormatter().format(record("it failed", failed=True)))
    assert (said["level"], said["logger"], said["message"]) == ("warning", "objgw", "it failed")
    assert "ValueError: why" in said["exception"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9996, "1970-01-01T00:00:01.999Z"),
        (951782400.25, "2000-02-29T00:00:00.250Z"),
    ],
)
def test_a_time_is_rfc_3339_with_milliseconds(seconds: float, text: str) -> None:
    assert stamp(seconds) == text


@pytest.mark.parametrize("id", ["", "a b", "a\n", "ä", "a" * 129, '"', "%0a"])
def test_what_a_log_would_have_to_escape_is_no_request_id(id: str) -> None:
    assert not REQUEST_ID.fullmatch(id)


@pytest.mark.parametrize(
    ("form", "formatter"), [("text", "LineFormatter"), ("json", "JsonFormatter")]
)
def test_the_setting_says_the_form_of_all_lines(form: str, formatter: str) -> None:
    assert log_settings(Settings(log_format=form))["formatters"]["line"]["class"].endswith(
        f".{formatter}"
    )


def test_lines_come_out_whole_and_in_order_in_pieces_that_a_pipe_takes_at_once() -> None:
    ours, theirs = socket.socketpair(
        socket.AF_UNIX, socket.SOCK_DGRAM
    )  # keeps apart what was written at once
    lines, wanted = (
        Lines(ours.fileno()),
        [f"{number} {'x' * (number * 37 % 900)}\n" for number in range(60)],
    )
    for line in wanted:
        lines.add(line)
    lines.flush()
    theirs.setblocking(False)
    pieces = []
    with ours, theirs, suppress(BlockingIOError):
        while True:
            pieces.append(theirs.recv(65536).decode())
    assert "".join(pieces) == "".join(wanted)
    assert all(piece.endswith("\n") and len(piece) <= PIPE_BUF for piece in pieces)
    assert len(pieces) > 1
