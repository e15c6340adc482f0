"""What a PUT or DELETE may ask for: tables of requests, as WSGI has them, and what of each goes to
the node.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.answers import Refusal
from gateway.objects.writes import deleting, writing

PLAIN = {"content-type": "application/octet-stream"}
DIGEST = "0123456789abcdef" * 4


def environ(**headers: Any) -> dict[str, Any]:
    """A WSGI environment with these headers, and what servers put there besides."""
    return {
        "REQUEST_METHOD": "PUT",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        **headers,
    }


HANDED_ON: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"CONTENT_TYPE": "text/plain"}, {"content-type": "text/plain"}),
    ({"CONTENT_TYPE": ""}, {}),
    ({"HTTP_CACHE_CONTROL": ""}, {"cache-control": ""}),
    ({"HTTP_CONTENT_DISPOSITION": "\xa0x\x85"}, {"content-disposition": "\xa0x\x85"}),
    ({"HTTP_X_AMZ_META_A_B": "c"}, {"x-amz-meta-a-b": "c"}),
    ({"HTTP_X_AMZ_CHECKSUM_CRC32": "AAAA"}, {"x-amz-checksum-crc32": "AAAA"}),
    ({"HTTP_X_AMZ_CONTENT_SHA256": DIGEST.upper()}, {"x-amz-content-sha256": DIGEST}),
    ({"HTTP_X_AMZ_CONTENT_SHA256": "UNSIGNED-PAYLOAD"}, {}),
    ({"HTTP_IF_MATCH": '"a"'}, {"if-match": '"a"'}),
    ({"HTTP_IF_MATCH": "*", "HTTP_IF_UNMODIFIED_SINCE": "x"}, {"if-match": "*"}),
    ({"HTTP_IF_NONE_MATCH": 'W/"a"'}, {"if-none-match": '"a"'}),
    ({"HTTP_IF_MODIFIED_SINCE": "x", "HTTP_IF_RANGE": '"a"', "HTTP_RANGE": "bytes=0-"}, {}),
    (
        {"HTTP_EXPIRES": "Sun, 06 Nov 1994 08:49:37 GMT"},
        {"expires": "Sun, 06 Nov 1994 08:49:37 GMT"},
    ),
    (
        {
            "HTTP_X_AMZ_DATE": "x",
            "HTTP_X_AMZN_TRACE_ID": "x",
            "HTTP_COOKIE": "x",
            "HTTP_TRAILER": "X-End",
        },
        {},
    ),
    ({"objgw.underscored": ["HTTP_X_FORWARDED_FOR"]}, {}),
    ({"QUERY_STRING": ""}, {}),
]


@pytest.mark.parametrize(("headers", "sent"), HANDED_ON, ids=str)
def test_what_the_node_can_do_goes_to_it_and_nothing_else(
    headers: dict[str, Any], sent: dict[str, str]
) -> None:
    assert writing(environ(**headers)) == PLAIN | sent


REFUSED: list[tuple[int, dict[str, Any]]] = [
    (400, {"QUERY_STRING": "tagging"}),
    (400, {"HTTP_CONTENT_RANGE": ""}),
    (400, {"HTTP_X_AMZ_COPY_SOURCE": "/a/b"}),
    (400, {"HTTP_X_AMZ_META_": "v"}),
    (400, {"HTTP_X_AMZ_META_OBJGW_EPOCH": "1"}),
    (400, {"HTTP_X_AMZ_META_A": "\xe4"}),
    (400, {"HTTP_X_MINIO_EXTRACT": "true"}),
    (400, {"HTTP_X_AMZ_CONTENT_SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}),
    (400, {"HTTP_X_AMZ_CONTENT_SHA256": DIGEST[1:]}),
    (400, {"HTTP_CONTENT_ENCODING": "gzip,aws-chunked"}),
    (400, {"HTTP_CONTENT_MD5": ""}),
    (400, {"HTTP_IF_MATCH": ""}),
    (400, {"HTTP_IF_MATCH": 'W/"a'}),
    (400, {"HTTP_IF_NONE_MATCH": '"a", "b"'}),
    (400, {"HTTP_EXPIRES": "0"}),
    (400, {"HTTP_DIGEST": "x"}),
    (400, {"HTTP_TRAILER": "X-End, Content-MD5"}),
    (400, {"objgw.underscored": ["HTTP_X_AMZ_META_A"]}),
    (400, {"objgw.underscored": ["HTTP_IF_UNMODIFIED_SINCE"]}),
    (501, {"HTTP_IF_UNMODIFIED_SINCE": "Sun, 06 Nov 1994 08:49:37 GMT"}),
    (501, {"HTTP_IF": "(<x>)"}),
    (501, {"HTTP_IF_SCHEDULE_TAG_MATCH": '"a"'}),
]


@pytest.mark.parametrize(("status", "headers"), REFUSED, ids=str)
def test_what_nobody_carries_out_is_refused_with_a_reason(
    status: int, headers: dict[str, Any]
) -> None:
    with pytest.raises(Refusal) as refusal:
        writing(environ(**headers))
    assert (refusal.value.status, bool(refusal.value.detail)) == (status, True)


DELETES: list[tuple[int, dict[str, Any]]] = [
    (0, {}),
    (0, {"HTTP_IF_MODIFIED_SINCE": "x", "HTTP_X_AMZ_META_A": "b", "HTTP_X_AMZ_DATE": "x"}),
    (400, {"QUERY_STRING": "versionId=1"}),
    (400, {"HTTP_X_AMZ_IF_MATCH_SIZE": "9"}),
    (400, {"objgw.underscored": ["HTTP_IF_MATCH"]}),
    (501, {"HTTP_IF_MATCH": "*"}),
    (501, {"HTTP_IF_NONE_MATCH": ""}),
    (501, {"HTTP_IF_UNMODIFIED_SINCE": "x"}),
]


@pytest.mark.parametrize(("status", "headers"), DELETES, ids=str)
def test_a_delete_on_a_condition_is_refused(status: int, headers: dict[str, Any]) -> None:
    if not status:
        deleting(environ(**headers))
        return
    with pytest.raises(Refusal) as refusal:
        deleting(environ(**headers))
    assert refusal.value.status == status
