"""A node's keys: as its server itself finds them, in its environment and its secrets, or in files.

The files are those that a container's labels name, in the gateway's own container. They are read
again at each reading of Docker, so that they may change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.nodes.sources.makes import (
    GARAGE_KEYS,
    RUSTFS_KEYS,
    SEAWEEDFS_KEYS,
    VERSITYGW_KEYS,
    Pair,
    make_of,
)

SECRETS = Path("/run/secrets")  # where Docker mounts secrets

# Variables that name a file, what the image of MinIO sets them to, and the variable that takes the
# file's content, the last one last (loadEnvVarsFromFiles in MinIO's cmd/common-main.go). A file
# that isn't there doesn't count.
KEY_FILES = (
    ("MINIO_ACCESS_KEY_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_SECRET_KEY_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ROOT_USER_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_ROOT_PASSWORD_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
    *(
        (f"{name}_FILE", "", name)
        for pair in (*RUSTFS_KEYS, *GARAGE_KEYS, *VERSITYGW_KEYS, *SEAWEEDFS_KEYS)
        for name in pair
    ),
)
MAX_KEY_BYTES = 4096  # of a file with a key; no server has longer ones


class NoKeys(Exception):
    """A node's keys can't be had; the text says why, and has neither a key nor a path."""


class Config(NamedTuple):
    """What a container was made from; `secrets` as in `with_key_files`."""

    env: list[str]
    image: str
    secrets: Mapping[str, str]


def environment(lines: Iterable[str]) -> dict[str, str]:
    """A container's environment, from lines `NAME=value`, as MinIO reads it.

    Blanks around a value don't count, so that a variable of blanks alone is empty.

    >>> environment(["MINIO_ROOT_USER= ring ", "MINIO_REGION=  ", "a line without a value"])
    {'MINIO_ROOT_USER': 'ring', 'MINIO_REGION': ''}
    """
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip() for name, _, value in pairs}


def region_from_env(env: Mapping[str, str], image: str = "") -> str:
    """The region for which a server with this environment wants requests to be signed."""
    make = make_of(image)
    return next(filter(None, map(env.get, make.regions)), make.region)


def keys_from_env(env: Mapping[str, str], image: str = "") -> Pair:
    """The access and secret key of a server with this environment.

    The first pair of which both are set counts. Raises NoKeys where there is none, and the server
    isn't known to have keys of its own then.

    >>> keys_from_env({"MINIO_ACCESS_KEY": "ring", "MINIO_SECRET_KEY": "treepotato"})
    ('ring', 'treepotato')
    """
    make = make_of(image)
    for user, password in make.keys:
        if env.get(user) and env.get(password):
            return env[user], env[password]
    for variable, default, _ in KEY_FILES:
        if env.get(variable, default) not in ("", default):
            raise NoKeys(f"the file of its {variable} isn't among the gateway's secrets")
    if make.default_keys is None:
        wanted = " and ".join(make.keys[0])
        raise NoKeys(f"its environment has no keys ({wanted}), and its labels name no files")
    return make.default_keys


def with_key_files(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment after the server has read the files that it names.

    `secrets` has, by the name of each file in the node's `SECRETS` folder, the name of the same
    secret's file in ours. Raises OSError or ValueError where ours can't be read.
    """
    filled = dict(env)
    for variable, default, target in KEY_FILES:
        secret = secrets.get(env.get(variable, default).removeprefix(f"{SECRETS}/"))
        if secret and (content := (SECRETS / secret).read_text("utf-8").strip()):
            filled[target] = content
    return filled


def keys_of(config: Config) -> Pair:
    """The keys that a server has by what its container was made from. Raises NoKeys."""
    try:
        env = with_key_files(environment(config.env), config.secrets)
    except (OSError, ValueError) as error:
        # The error is about a file. Its text doesn't have the file's content.
        why = error.strerror if isinstance(error, OSError) else "it isn't text"
        raise NoKeys(f"a secret with its keys can't be read: {why}") from None
    return keys_from_env(env, config.image)


def read_key(path: str) -> str:
    """The key in a file: one line, without the blanks around it. Raises NoKeys.

    Whoever labels a container chooses the path. So nothing but a short regular file is read, and
    nothing but a line of text is taken, since an access key goes into a header.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise NoKeys("is no regular file")
        with open(path, "rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        raise NoKeys(f"can't be read: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a path with a NUL
        raise NoKeys("isn't text") from None
    if len(content) > MAX_KEY_BYTES:
        raise NoKeys(f"has more than {MAX_KEY_BYTES} bytes")
    if not text:
        raise NoKeys("is empty")
    if any(character < " " or character == "\x7f" for character in text):
        raise NoKeys("isn't one line of text")
    return text
