"""A list of nodes in a setting: `name=URL`, one a line or separated by blanks.

    node-1=http://KEY:SECRET@10.0.0.7:9000
    node-2=https://KEY:SECRET@store.example:9000?region=eu-west-1
    # the same with an IPv6 address
    node-3=http://KEY:SECRET@[2001:db8::7]:9000

Key and secret are percent-encoded where they have other characters than a URL allows there (RFC
3986, 3.2.1). Without a port it is that of the scheme, 80 or 443.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DEFAULT_PORT = {"http": 80, "https": 443}


class ListedNode(NamedTuple):
    """A node as the list has it."""

    name: str
    tls: bool
    host: str  # a name or an address; one of IPv6 without brackets
    port: int
    access_key: str
    secret_key: str
    region: str


def parse_nodes(text: str) -> tuple[ListedNode, ...]:
    """The nodes of a list, in its order.

    Raises ValueError, which names the line and what is wrong with it. It never has a part of the
    line but the node's name, because every other part may be, or have, a secret.

    >>> [(node.name, node.host, node.port) for node in parse_nodes("a=http://k:s@store:9000")]
    [('a', 'store', 9000)]
    """
    nodes: dict[str, tuple[int, ListedNode]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for entry in [] if line.lstrip().startswith("#") else line.split():
            name, separator, url = entry.partition("=")
            if not separator or not NAME.fullmatch(name):
                raise ValueError(
                    f"line {number}: a node is name=URL, and its name has letters, digits, "
                    "'.', '_' and '-'"
                )
            if name in nodes:
                raise ValueError(f"line {number}: {name} is in line {nodes[name][0]}, too")
            try:
                nodes[name] = number, _parse_url(name, url)
            except ValueError as error:
                # urllib's own errors have parts of the URL, so they aren't shown.
                why = str(error) if type(error) is _WrongURL else "its URL can't be read"
                raise ValueError(f"line {number}: {name}: {why}") from None
    if not nodes:
        raise ValueError("there is no node in it")
    return tuple(node for _, node in nodes.values())


class _WrongURL(ValueError):
    """What is wrong with a URL, in words that have no part of it."""


def _parse_url(name: str, url: str) -> ListedNode:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORT:
        raise _WrongURL("its URL begins neither with http:// nor with https://")
    if not parts.hostname:
        raise _WrongURL("its URL has no host")
    if not parts.username or not parts.password:
        raise _WrongURL("its URL has no KEY:SECRET@ before the host")
    if parts.path not in ("", "/") or parts.fragment:
        raise _WrongURL("its URL has a path; '/', '?' and '#' in a key are percent-encoded")
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    region = query.pop("region", "us-east-1")
    if query or not re.fullmatch(r"[A-Za-z0-9-]+", region):
        raise _WrongURL("after '?' only region=NAME is known")
    try:
        port = parts.port if parts.port is not None else DEFAULT_PORT[parts.scheme]
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise _WrongURL("its port isn't 1 to 65535")
    keys = unquote(parts.username, errors="strict"), unquote(parts.password, errors="strict")
    return ListedNode(name, parts.scheme == "https", parts.hostname, port, *keys, region)
