"""A node's keys, as its server itself finds them: in its environment and its secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

SECRETS = Path("/run/secrets")  # where Docker mounts secrets

# In the order in which they win. The first pair of which both are set counts.
KEY_VARIABLES = (
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
    ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),
)
# Variables that name a file, what the image of MinIO sets them to, and the variable that takes the
# file's content, the last one last (loadEnvVarsFromFiles in MinIO's cmd/common-main.go). A file
# that isn't there doesn't count.
KEY_FILES = (
    ("MINIO_ACCESS_KEY_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_SECRET_KEY_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ROOT_USER_FILE", "access_key", "MINIO_ROOT_USER"),
    ("MINIO_ROOT_PASSWORD_FILE", "secret_key", "MINIO_ROOT_PASSWORD"),
)
# The first one that is set wins, as in MinIO (LookupSite in its internal/config/config.go). The
# last one is that of old releases; newer ones ignore it.
REGION_VARIABLES = ("MINIO_REGION", "MINIO_SITE_REGION", "MINIO_REGION_NAME")


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


def region_from_env(env: Mapping[str, str]) -> str:
    """The region for which a server with this environment wants requests to be signed."""
    return next(filter(None, map(env.get, REGION_VARIABLES)), "us-east-1")


def keys_from_env(env: Mapping[str, str], image: str = "") -> tuple[str, str]:
    """The access and secret key of a server with this environment.

    >>> keys_from_env({"MINIO_ACCESS_KEY": "ring", "MINIO_SECRET_KEY": "treepotato"})
    ('ring', 'treepotato')
    """
    for user, password in KEY_VARIABLES:
        if env.get(user) and env.get(password):
            return env[user], env[password]
    default = "rustfsadmin" if "rustfs" in image else "minioadmin"
    return default, default


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
