"""An empty WSGI app in the gateway's image: what a request costs in gunicorn alone."""

from __future__ import annotations

from typing import Any

import objgw
from gateway.settings import Settings

BODY = b"x" * 1024


class Empty(objgw.Gateway):
    """Has everything that gunicorn.conf.py asks of the gateway, and does nothing."""

    def start(self) -> None:
        pass

    def __call__(self, _environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(
            "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", "1024")]
        )
        return [BODY]


app = Empty(Settings())
