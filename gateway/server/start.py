"""What stops the start of the server, told in one plain line, and what it does once it listens.

gunicorn would go on for seconds, or show a stack trace in each worker, or serve without what
gunicorn.conf.py sets; and a reload (SIGHUP) that can't succeed would end it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from gateway.settings import Settings, SettingsError, give_up

log = logging.getLogger("objgw")

BIND_SECONDS = 2.0  # that a predecessor has to let go of the port
INHERITED = ("GUNICORN_FD", "LISTEN_FDS")  # sockets that gunicorn or systemd has opened already

# Set by gunicorn.conf.py, where gunicorn has read it: one reading is for all workers, so that they
# agree also when one is replaced later, whatever has become of the files.
settings: Settings | None = None


def require_configuration() -> None:
    """Ends the process where gunicorn runs it and hasn't read gunicorn.conf.py.

    gunicorn looks for that file where it is started, and else takes a worker that serves one client
    at a time. Under any other WSGI server this does nothing.
    """
    if "gunicorn.arbiter" in sys.modules and settings is None:
        folder = Path(__file__).parents[2]
        give_up(f"gunicorn didn't read gunicorn.conf.py; start it in {folder}, where that file is")


def require_startable(cfg: Any) -> None:
    """Ends the process where gunicorn's settings name what can't be used."""
    problem = served_tls_problem(cfg)
    if not problem and not cfg.reuse_port and not any(map(os.environ.get, INHERITED)):
        problem = next(filter(None, map(address_problem, cfg.address)), "")
    if problem:
        give_up(problem)


def served_tls_problem(cfg: Any) -> str:
    """Why TLS can't be served by gunicorn's settings; empty where it can, or isn't to be."""
    return tls_problem(cfg.certfile, cfg.keyfile, cfg.ca_certs) if cfg.is_ssl else ""


def tls_problem(certfile: str | None, keyfile: str | None, ca_certs: str | None = None) -> str:
    """Why TLS can't be served with these files (gunicorn's settings); empty where it can."""
    files = {"certfile": certfile, "keyfile": keyfile, "ca_certs": ca_certs}
    for setting, path in files.items():
        try:
            if path:
                Path(path).read_bytes()
        except OSError as error:
            return f"{setting} {path} can't be read: {error.strerror}"
    if not certfile:
        return f"keyfile {keyfile} needs a certfile"
    named = f"certfile {certfile}" + (f" and keyfile {keyfile}" if keyfile else "")
    for setting, path, mark in (
        ("certfile", certfile, b"-----BEGIN CERTIFICATE-----"),
        ("keyfile", keyfile or certfile, b"PRIVATE KEY-----"),
    ):
        if mark not in Path(path).read_bytes():
            return f"{setting} {path} can't be used: it has no {mark.strip(b'-').decode()}"
    try:
        # Without a password OpenSSL would ask for one, on the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile, keyfile, password="")
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or str(error)
        return f"{named} can't be used: {why}"
    try:
        if ca_certs:
            context.load_verify_locations(ca_certs)
    except ssl.SSLError as error:
        return f"ca_certs {ca_certs} can't be used: {error.reason}"
    return ""


def address_problem(address: Any) -> str:
    """Why gunicorn can't listen on an address of its settings; empty where it can, or it is none
    of TCP.
    """
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            with socket.socket(family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, port))
                sock.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            return f"it can't listen on {host}:{port}: {error.strerror}"
        return ""


def guard_reload(arbiter: Any) -> None:
    """Has gunicorn's arbiter refuse a reload with files that can't be used: all stays as it is.

    A worker that doesn't start would end the gateway, and so would the settings. gunicorn has no
    hook before a reload, so that its handler of the signal is replaced.
    """
    reload = arbiter.handle_hup

    def reload_if_usable() -> None:
        if problem := reload_problem(arbiter.cfg):
            log.error("not reloaded, and all stays as it is: %s", problem)
        else:
            reload()

    arbiter.handle_hup = reload_if_usable


def reload_problem(cfg: Any) -> str:
    """Why workers wouldn't start now; empty where they would."""
    try:
        Settings.from_environ(os.environ)
    except SettingsError as error:
        return str(error)
    return served_tls_problem(cfg)


def tell_address(file: str, listener: Any, *, tls: bool) -> None:
    """Writes down where the server listens, for `gateway.server.healthcheck`."""
    name = listener.getsockname()
    address = name if isinstance(name, str) else list(name[:2])
    Path(file).write_text(json.dumps({"address": address, "tls": tls}))
