"""What can be set.

Importing it reads nothing; whoever needs the settings reads them once, when it starts.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from gateway.node_list import parse_nodes

CHOICES = {"log_format": ("text", "json"), "access_log": ("on", "off"), "page": ("on", "off")}
# Variables of the image and of the compose files, which may be in the environment, too.
NOT_SETTINGS = frozenset({"OBJGW_USER", "OBJGW_IMAGE", "OBJGW_NODE_IMAGE"})
KEY_MINIMUM = 32  # characters of a link key: no link must tell it to who tries all keys
# An origin as browsers write it (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin).
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?")
OWN_PORT = {"http": ":80", "https": ":443"}  # which browsers leave out
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1


class SettingsError(ValueError):
    """A setting's value can't be used; the message names the variable and says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set.

    Each setting is an environment variable `OBJGW_<NAME>`, or a file that `OBJGW_<NAME>_FILE`
    names.

    >>> Settings.from_environ({"OBJGW_NODE_PORT": "9100"}).node_port
    9100
    """

    # A list of nodes (`gateway.node_list`). Where it is set Docker isn't asked.
    nodes: str = field(default="", repr=False)
    # What OBJGW_NODES_FILE is, and no setting of its own: the file is read again when it changes.
    nodes_file: str = field(default="", repr=False, metadata={"derived": True})
    nodes_ca: str = ""  # certificates (PEM) that TLS to listed nodes trusts; empty: the system's
    node_name: str = "amazin-object-storage-node"  # a container whose name contains it is a node
    network: str = ""  # the Docker network that nodes are on; empty: all that the gateway is on
    # On which nodes serve S3 that have no label for it. Unset, it is the usual one of each make.
    node_port: int = 0
    bucket: str = "objgw"  # made on each node where it isn't there
    discovery_seconds: float = 2.0  # between two looks at Docker
    docker_timeout: int = 5  # seconds that Docker may take for an answer
    connect_timeout: float = 2.0  # seconds to connect to a node
    node_timeout: float = 30.0  # seconds that a node may be silent within a request
    client_timeout: float = 30.0  # seconds that a client may take for each 64 KiB of a body
    client_connections: int = 1024  # of one address to one worker
    node_requests: int = 1024  # that may wait for an answer of one node, in one worker
    # Seconds for which a node that couldn't be reached or didn't answer isn't asked.
    breaker_seconds: float = 1.0
    max_object_bytes: int = 0  # 0: no maximum
    # Bearer tokens that may read and write. Where there are none at all, everyone may.
    tokens: str = field(default="", repr=False)
    read_tokens: str = field(default="", repr=False)  # bearer tokens that may only read
    # Keys of links that expire (`gateway.links`): the first one signs, each of them is taken.
    link_key: str = field(default="", repr=False)
    cors_origins: str = ""  # origins whose pages may use the gateway in a browser; or *
    log_format: str = "text"  # or json
    access_log: str = "on"  # one line a request; or off
    page: str = "on"  # the page for people; or off

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Reads the settings; a variable that is unset or empty keeps its default.

        Raises SettingsError where a value isn't of its setting's type or range, or can't be read,
        and where a variable is no setting: who misspells `OBJGW_TOKENS` must not get a gateway
        that is open to all.
        """
        settable = [setting for setting in fields(cls) if not setting.metadata]
        variables = [f"OBJGW_{setting.name.upper()}" for setting in settable]
        known = [*variables, *(f"{variable}_FILE" for variable in variables)]
        for name in sorted(set(environ).difference(known, NOT_SETTINGS)):
            if environ[name] and name.upper().startswith("OBJGW"):
                nearest = get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
                raise SettingsError(f"{name} is no setting; the nearest one is {nearest}")
        given: dict[str, Any] = {"nodes_file": environ.get("OBJGW_NODES_FILE", "")}
        for setting, variable in zip(settable, variables, strict=True):
            text = setting_text(environ, variable)
            if not text:
                continue
            kind: type = type(setting.default)
            try:
                value = given[setting.name] = kind(text)
            except ValueError:
                raise SettingsError(f"{variable}={text!r} is not a number") from None
            if kind is not str and not (0 < value < 2**63 or value == setting.default):
                raise SettingsError(f"{variable}={text!r} is out of range")
        settings = cls(**given)
        if settings.nodes:
            try:
                parse_nodes(settings.nodes)
            except ValueError as error:
                raise SettingsError(f"OBJGW_NODES, {error}") from None
        if settings.nodes_ca:
            try:
                ssl.create_default_context(cadata=settings.nodes_ca)
            except (ssl.SSLError, ValueError):
                raise SettingsError("OBJGW_NODES_CA has no certificates (PEM)") from None
        if "node_port" in given and not 0 < settings.node_port < 65536:
            raise SettingsError(f"OBJGW_NODE_PORT={settings.node_port} is out of range")
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,54}[a-z0-9]", settings.bucket):
            # There has to be room for "-layout" after it.
            raise SettingsError("OBJGW_BUCKET is no bucket name: 3 to 56 of a-z, 0-9, '.' and '-'")
        for name, choices in CHOICES.items():
            value = getattr(settings, name)
            if value not in choices:
                listed = ", ".join(choices)
                raise SettingsError(f"OBJGW_{name.upper()}={value!r} is none of {listed}")
        require_secrets(settings)
        require_origins(settings.cors_origins.split())
        return settings

    @property
    def records_bucket(self) -> str:
        """The bucket of the layout's record, beside that of the objects."""
        return f"{self.bucket}-layout"


def require_secrets(settings: Settings) -> None:
    """Raises SettingsError where a token or a link key can't be used; it isn't in the message."""
    for name, kind in (("tokens", "token"), ("read_tokens", "token"), ("link_key", "key")):
        if not all(TOKEN.fullmatch(secret) for secret in getattr(settings, name).split()):
            allowed = "A-Z, a-z, 0-9, -._~+/, and = at its end"
            raise SettingsError(f"OBJGW_{name.upper()}: a {kind} may only have {allowed}")
    tokens, readers = set(settings.tokens.split()), set(settings.read_tokens.split())
    if tokens & readers:
        raise SettingsError("OBJGW_READ_TOKENS has a token that is in OBJGW_TOKENS, too")
    keys = set(settings.link_key.split())
    if keys & (tokens | readers):  # who may read could make a link to write
        raise SettingsError("OBJGW_LINK_KEY has a key that is a token, too")
    if any(len(key) < KEY_MINIMUM for key in keys):
        advice = f"a key has at least {KEY_MINIMUM} characters, for example those of"
        raise SettingsError(f"OBJGW_LINK_KEY: {advice} `openssl rand -hex 32`")


def require_origins(origins: Sequence[str]) -> None:
    """Raises SettingsError where no browser would send one of these origins."""
    if origins == ["*"]:
        return
    for origin in origins:
        found = ORIGIN.fullmatch(origin)
        if not found or (found[2] and found[2] == OWN_PORT.get(found[1])):
            raise SettingsError(
                f"OBJGW_CORS_ORIGINS: {origin!r} is no origin as browsers send it: "
                "scheme://host or scheme://host:port in lower case, without a path, a slash at its "
                "end or the scheme's own port; or * alone"
            )


def setting_text(environ: Mapping[str, str], variable: str) -> str:
    """The text of a variable, or of the file that `<variable>_FILE` names; empty where none is set.

    Raises SettingsError where both are set, where the file can't be read, and where the text is
    blank: a secret that got lost on its way isn't the wish to have no tokens.
    """
    text, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if text and path:
        raise SettingsError(f"{variable} and {variable}_FILE are both set; unset one of them")
    if path:
        try:
            text = Path(path).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{variable}_FILE can't be read: {error}") from None
    if (text or path) and not text.strip():
        source = f"the file of {variable}_FILE" if path else variable
        raise SettingsError(f"{source} has nothing but blanks")
    return text.strip()


def give_up(why: str) -> NoReturn:
    """Ends the process with a line that says why.

    It ends with gunicorn's APP_LOAD_ERROR: gunicorn stops then, where after another status it would
    start workers for ever.
    """
    print(f"objgw: {why}", file=sys.stderr)
    sys.exit(4)


def read_or_exit() -> Settings:
    """The settings of this process. Where one can't be used, it ends: `give_up`."""
    try:
        return Settings.from_environ(os.environ)
    except SettingsError as error:
        give_up(str(error))
