"""CORS: which pages of other origins may use the gateway in a browser.

https://fetch.spec.whatwg.org/#http-cors-protocol

A browser shows a page the answer of another origin only if that answer names the page's origin. Of
requests that a form couldn't send, such as a PUT or one with a token, it first asks by an OPTIONS
(the preflight) whether they may be sent. All answers say so, refusals too: else a page would only
learn that something failed.

A page sends its token in `Authorization` itself. There is nothing here that a browser would send by
itself (cookies), so that `Access-Control-Allow-Credentials` is never sent; and without it `*`
stands for all names in the lists below.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from gateway.answers import Answer, Environ, Headers, Refusal

EXPOSED = (
    "Access-Control-Expose-Headers",
    # The last one stands for x-amz-meta-*, whose names nobody knows here.
    "Accept-Ranges, Allow, Content-Disposition, Content-Encoding, Content-Length, Content-Range, "
    "Date, ETag, Last-Modified, Retry-After, Server-Timing, WWW-Authenticate, X-Request-Id, *",
)
VARY = ("Vary", "Origin")
PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD, PUT, DELETE"),
    # `*` doesn't stand for Authorization.
    ("Access-Control-Allow-Headers", "Authorization, *"),
    ("Access-Control-Max-Age", "7200"),  # seconds; Chromium keeps none for longer
]


class Cors:
    """The origins whose pages may use the gateway, as browsers write them; `*` for all pages.

    >>> Cors(["*"]).headers("https://app.example")[0]
    ('Access-Control-Allow-Origin', '*')
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)
        # For a request that can't be read: the one origin that there is, or empty for several.
        self.only = next(iter(self._origins)) if len(self._origins) == 1 else ""

    def headers(self, origin: str) -> Headers:
        """What every answer has in addition, for a request with this `Origin`; empty for none.

        With `*` all get the same answer, so that a cache needn't tell origins apart.
        """
        if "*" in self._origins:
            return [("Access-Control-Allow-Origin", "*"), EXPOSED]
        if origin in self._origins:
            return [("Access-Control-Allow-Origin", origin), EXPOSED, VARY]
        return [VARY]

    def preflight(self, environ: Environ) -> Answer | None:
        """The answer to a preflight, which needs no token; None where the request is another one.

        It lists the same methods for all paths: the request itself is told what its path takes.
        Raises Refusal (403) for an origin that may not use the gateway.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
            return None
        if not self._origins & {"*", origin}:
            raise Refusal(HTTPStatus.FORBIDDEN, "OBJGW_CORS_ORIGINS doesn't have this origin.")
        return Answer("204 No Content", [*PREFLIGHT])
