"""What a client gets: an `Answer`, or a `Refusal`, which becomes one (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

RETRY_AFTER = "2"  # seconds; within them a started node is found
Headers = list[tuple[str, str]]
StartResponse = Callable[[str, Headers], Any]
Environ = dict[str, Any]


class Answer(NamedTuple):
    """What a client gets. It is decided as a whole before anything of it is sent."""

    status: str
    headers: Headers
    body: Iterable[bytes] = ()
    reason: str = ""  # of a refusal, as the client is told


class Refusal(Exception):
    """A request that gets no object, and what the client is told: RFC 9457 problem details.

    >>> Refusal(HTTPStatus.NOT_FOUND, "There is no object with this id.").answer().status
    '404 Not Found'
    """

    def __init__(self, status: HTTPStatus, detail: str, *headers: tuple[str, str]) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers

    def answer(self) -> Answer:
        """The answer as `application/problem+json`."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status,
            "detail": self.detail,
        }
        body = json.dumps(document).encode() + b"\n"
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            *self.headers,
        ]
        status = f"{self.status.value} {self.status.phrase}"
        return Answer(status, headers, [body], self.detail)


def require_reading(environ: Environ) -> None:
    """Raises Refusal (405) unless the request is a GET or HEAD, for a path that takes no other."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Use GET or HEAD.", ("Allow", "GET, HEAD"))


def unavailable(detail: str) -> Refusal:
    """503: it may work later, and nothing was decided about the object."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, ("Retry-After", RETRY_AFTER))
