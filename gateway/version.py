"""Which version of the gateway runs: the release's number, and a digest of the code.

Who builds the image from a checkout, as docker-compose.yml does, has no number for what is in it.
The digest tells one build from another, and is the same for the same code.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

RELEASE = "1.0.0-dev"  # openapi.yaml has the same; https://semver.org
PACKAGE = Path(__file__).parent
CODE = (".py", ".html", ".css", ".js")  # how the names of its files end
BESIDE = ("objgw.py", "objgwctl.py", "gunicorn.conf.py")


@functools.cache
def version() -> str:
    """The version of this process, as https://semver.org/#spec-item-10 has it.

    >>> version().partition("+")[0] == RELEASE
    True
    """
    return f"{RELEASE}+{digest(PACKAGE)}"


def digest(package: Path) -> str:
    """The beginning of the SHA-256 of a package's files, and of what is beside it."""
    files = [path for path in package.rglob("*") if path.suffix in CODE]
    files += [path for name in BESIDE if (path := package.parent / name).exists()]
    named = {str(path.relative_to(package.parent)): path for path in files}
    sha256 = hashlib.sha256()
    for name in sorted(named):
        code = named[name].read_bytes()
        sha256.update(f"{name} {len(code)}\n".encode() + code)
    return sha256.hexdigest()[:8]
