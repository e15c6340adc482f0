"""Bearer tokens: who may do what (RFC 6750)."""

from __future__ import annotations

import pytest

from gateway.answers import Refusal
from gateway.auth import Tokens
from gateway.settings import Settings

TOKENS = Tokens(Settings(tokens="first second", read_tokens="reader"))

# What is sent, the status of reading, of writing (0: it is permitted).
SENT = [
    ("", 401, 401),
    ("Bearer", 401, 401),
    ("Bearer ", 401, 401),
    ("first", 401, 401),
    ("Basic first", 401, 401),
    ("Bearer firs", 401, 401),
    ("Bearer firstx", 401, 401),
    ("Bearer first second", 401, 401),
    ("Bearer \xe9\xff", 401, 401),
    ("Bearer \u20ac", 401, 401),
    ("Bearer first", 0, 0),
    ("bearer second", 0, 0),
    ("BEARER  second ", 0, 0),
    ("Bearer reader", 0, 403),
]


@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
@pytest.mark.parametrize(("sent", "reads", "writes"), SENT)
def test_a_token_permits_what_it_says_and_no_other_does(
    sent: str, reads: int, writes: int, writing: bool
) -> None:
    status = writes if writing else reads
    if not status:
        assert TOKENS.permit(sent, writing=writing) == (not writes)
        return
    with pytest.raises(Refusal) as refusal:
        TOKENS.permit(sent, writing=writing)
    assert refusal.value.status == status
    assert not [
        token
        for token in ("first", "second", "reader")
        if token in str(refusal.value.answer().headers)
    ]
