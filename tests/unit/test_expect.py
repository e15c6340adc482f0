"""Which uploads wait for a node's 100 Continue: RFC 9110, 10.1.1."""

from __future__ import annotations

import pytest

from gateway.s3.body import REPLAY_BYTES, upload_of
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.signing import Signer

UPLOADS = {
    "empty": ({}, 0, False),
    "empty, with a condition": ({"if-none-match": "*"}, 0, False),
    "small": ({}, 5, False),
    "small, with a condition": ({"if-match": '"x"'}, 5, True),
    "too large to be sent twice": ({}, REPLAY_BYTES + 1, True),
}


@pytest.mark.parametrize(("headers", "length", "waits"), UPLOADS.values(), ids=UPLOADS)
def test_an_upload_waits_where_it_can_not_be_sent_twice_and_never_without_a_body(
    headers: dict[str, str], length: int, waits: bool
) -> None:
    request = Request("PUT", "/objgw/x", headers, upload_of(bytes(length)))
    assert request.careful is waits
    assert (b"expect: 100-continue\r\n" in Signer(Endpoint("a")).head(request)) is waits
