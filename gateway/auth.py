"""Who may do what: bearer tokens (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
from http import HTTPStatus

from gateway.answers import Refusal
from gateway.settings import Settings


class Tokens:
    """The bearer tokens that there are. Where there are none at all, everyone may do everything.

    >>> bool(Tokens(Settings())), bool(Tokens(Settings(tokens="a b")))
    (False, True)
    """

    def __init__(self, settings: Settings) -> None:
        self._tokens = [(token_digest(token), True) for token in settings.tokens.split()]
        self._tokens += [(token_digest(token), False) for token in settings.read_tokens.split()]

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def permit(self, authorization: str, *, writing: bool) -> bool:
        """Whether the request's token may write.

        Raises Refusal unless the request bears a token for what it wants (RFC 6750).

        Digests of equal length are compared, all of them, so that time says nothing of a token.
        """
        scheme, _, token = authorization.partition(" ")
        given = token_digest(token.strip())
        matches = [writes for known, writes in self._tokens if hmac.compare_digest(known, given)]
        if scheme.lower() != "bearer" or not matches:
            challenge = 'Bearer realm="objgw"' + (
                ', error="invalid_token"' if authorization else ""
            )
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "Send a valid bearer token.",
                ("WWW-Authenticate", challenge),
            )
        may_write = any(matches)
        if writing and not may_write:
            challenge = 'Bearer realm="objgw", error="insufficient_scope"'
            raise Refusal(
                HTTPStatus.FORBIDDEN, "This token may only read.", ("WWW-Authenticate", challenge)
            )
        return may_write


def token_digest(token: str) -> bytes:
    """SHA-256 of a bearer token."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()
