"""CORS: what pages of which origins are told."""

from __future__ import annotations

import pytest

from gateway.answers import Refusal
from gateway.cors import Cors

APP, LOCAL = "https://app.example", "http://localhost:8080"
TWO, ANY = Cors([APP, LOCAL]), Cors(["*"])

# The setting, what is in `Origin`, the origin that the answer allows, what it varies with.
SENT = [
    (TWO, APP, APP, "Origin"),
    (TWO, LOCAL, LOCAL, "Origin"),
    (TWO, "", "", "Origin"),
    (TWO, "null", "", "Origin"),
    (TWO, "*", "", "Origin"),
    (TWO, "https://app.example:8443", "", "Origin"),
    (TWO, "http://app.example", "", "Origin"),
    (TWO, "https://app.example.evil", "", "Origin"),
    (TWO, "https://evil.app.example", "", "Origin"),
    (TWO, "https://APP.example", "", "Origin"),
    (TWO, f"{APP},{LOCAL}", "", "Origin"),
    (ANY, APP, "*", ""),
    (ANY, "null", "*", ""),
    (ANY, "", "*", ""),
]


@pytest.mark.parametrize(("cors", "origin", "allowed", "vary"), SENT)
def test_an_answer_names_an_origin_of_the_setting_and_no_other(
    cors: Cors, origin: str, allowed: str, vary: str
) -> None:
    headers = dict(cors.headers(origin))
    assert headers.get("Access-Control-Allow-Origin", "") == allowed
    assert headers.get("Vary", "") == vary
    assert ("Access-Control-Expose-Headers" in headers) == bool(allowed)
    assert "Access-Control-Allow-Credentials" not in headers


def test_a_request_that_can_not_be_read_gets_the_only_origin_where_there_is_one() -> None:
    assert (TWO.only, ANY.only, Cors([APP]).only) == ("", "*", APP)


ASKED = {"HTTP_ORIGIN": APP, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "PUT"}


@pytest.mark.parametrize("cors", [TWO, ANY, Cors([APP])])
def test_a_preflight_is_told_the_methods_and_headers(cors: Cors) -> None:
    answer = cors.preflight(ASKED)
    assert answer
    assert answer.status == "204 No Content"
    assert dict(answer.headers) == {
        "Access-Control-Allow-Methods": "GET, HEAD, PUT, DELETE",
        "Access-Control-Allow-Headers": "Authorization, *",
        "Access-Control-Max-Age": "7200",
    }
    answer.headers.append(("X-Request-Id", "1"))  # as each answer gets one
    again = cors.preflight(ASKED)
    assert again
    assert len(again.headers) == 3


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_a_preflight_of_another_origin_is_refused(origin: str) -> None:
    with pytest.raises(Refusal, match="OBJGW_CORS_ORIGINS") as refusal:
        TWO.preflight({**ASKED, "HTTP_ORIGIN": origin})
    assert refusal.value.status == 403


@pytest.mark.parametrize("missing", ASKED)
def test_another_options_request_is_no_preflight(missing: str) -> None:
    assert TWO.preflight({name: ASKED[name] for name in ASKED if name != missing}) is None
