"""The page for people: the files in `web/`, made one document at the start.

A browser gets the page with its style and its scripts in it, in one answer. So they are of one
version, also behind a load balancer while one gateway after the other is updated; and the page's
policy can name each of them by its hash. `script-src 'self'` would let a browser run what somebody
has stored, because objects have the page's origin.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from gateway.answers import Headers

FOLDER = Path(__file__).with_name("web")
LINK = re.compile(r'<link rel="stylesheet" href="([a-z.]+)">|<script src="([a-z.]+)"></script>')
INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def page() -> tuple[Headers, bytes]:
    """The page's headers, and the page."""
    document = LINK.sub(inlined, (FOLDER / "page.html").read_text())
    body = document.encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", policy(document)),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
    ]
    return headers, body


def inlined(link: re.Match[str]) -> str:
    """The file that the page links, as an element of the page."""
    style, script = link.groups()
    kind = "style" if style else "script"
    return f"<{kind}>{(FOLDER / (style or script)).read_text()}</{kind}>"


def policy(document: str) -> str:
    """What a browser may do in this page: run and apply what is in it now, and ask the gateway.

    https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(document):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    rules = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        *(f"{kind}-src {' '.join(allowed)}" for kind, allowed in hashes.items()),
    ]
    return "; ".join(rules)
