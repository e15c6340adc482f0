"""Why Docker can't be read, in words for whoever has to mend it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import requests

# What is wrong, and what to do, by the system's error from which the SDK's error comes.
REMEDIES = (
    (FileNotFoundError, "isn't there: mount the Docker socket at this path, or set DOCKER_HOST"),
    (PermissionError, "may not be opened by user {user}: give the gateway the socket's group"),
    (ConnectionRefusedError, "refuses connections: see whether Docker runs there"),
    (
        (ConnectionResetError, BrokenPipeError),
        "ends connections without an answer: see whether Docker runs there",
    ),
    (
        (TimeoutError, requests.exceptions.Timeout),
        "doesn't answer in time: OBJGW_DOCKER_TIMEOUT sets the seconds that it has",
    ),
)


def docker_host() -> str:
    """Where Docker is asked, as docker.from_env has it."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def trouble(error: BaseException) -> str:
    """Why Docker can't be read: where it was asked, what is wrong, and what to do about it.

    >>> trouble(FileNotFoundError()).partition(" isn't there: ")[2]
    'mount the Docker socket at this path, or set DOCKER_HOST'
    """
    errors = [*chain(error)]
    for kind, words in REMEDIES:
        if any(isinstance(each, kind) for each in errors):
            return f"{docker_host()} {words.format(user=os.getuid())}"
    return f"{docker_host()} answers with an error: {error}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it comes from; requests and urllib3 have them among their arguments."""
    yield error
    for each in (*error.args, error.__cause__, error.__context__):
        if isinstance(each, BaseException):
            yield from chain(each)
