"""Labels of a container, or of a Swarm's service, that say what kind of node it is.

    objgw.node              the name of the node; what has this label is a node, whatever its name
    objgw.port              the port on which it serves S3
    objgw.region            the region for which requests to it are signed
    objgw.access-key-file   files in the gateway's container, in which its keys are
    objgw.secret-key-file

They win over what the name, the image and the environment say. A label that can't be used makes a
node that can't be used, and not one with the default: it was meant to be something else. What is
said of a wrong one has no value of it, because it may be a key that was taken for a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from gateway.node_list import NAME

NODE, PORT, REGION = "objgw.node", "objgw.port", "objgw.region"
KEY_FILES = ("objgw.access-key-file", "objgw.secret-key-file")


class WrongLabel(Exception):
    """A label can't be used; the text says which one and why."""


class Labels(NamedTuple):
    """What labels say of a node; what they don't say is zero, empty, or None."""

    port: int = 0
    region: str = ""
    key_files: tuple[str, str] | None = None  # of the access key and of the secret key


def labelled_name(labels: Mapping[str, str]) -> str | None:
    """The node's name that a label gives; None where there is no such label.

    Raises WrongLabel where it is no name.

    >>> labelled_name({"objgw.node": "cold-1"})
    'cold-1'
    """
    name = labels.get(NODE)
    if name is not None and not NAME.fullmatch(name):
        raise WrongLabel(
            f"its label {NODE} is no name: 1 to 128 letters, digits, '.', '_' and '-', "
            "the first one a letter or a digit"
        )
    return name


def labels_of(labels: Mapping[str, str]) -> Labels:
    """What these labels say, other ones aside. Raises WrongLabel."""
    port, region = labels.get(PORT), labels.get(REGION)
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise WrongLabel(f"its label {PORT} is no port, which is 1 to 65535")
    if region is not None and not re.fullmatch(r"[A-Za-z0-9-]+", region):
        raise WrongLabel(f"its label {REGION} is no region: letters, digits and '-'")
    return Labels(int(port or 0), region or "", _key_files(labels))


def _key_files(labels: Mapping[str, str]) -> tuple[str, str] | None:
    access, secret = (labels.get(name) for name in KEY_FILES)
    if access is None and secret is None:
        return None
    for name, path, other in zip(KEY_FILES, (access, secret), reversed(KEY_FILES), strict=True):
        if path is None:
            raise WrongLabel(f"it has the label {other}, and not {name}")
        if not path.startswith("/"):
            raise WrongLabel(f"its label {name} is no path that begins with '/'")
    return access or "", secret or ""
