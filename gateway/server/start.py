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

from gevent.ssl import SSLContext

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


def require_startable(cfg: Any) -> SSLContext | None:
    """What TLS is served with, if at all (`tls_context`).

    Ends the process where gunicorn's settings name what can't be used.
    """
    try:
        tls = tls_context(cfg)
    except SettingsError as error:
        give_up(str(error))
    if cfg.max_requests:
        give_up("max_requests isn't carried out: no worker ends after a number of requests")
    binds = not (cfg.reuse_port or any(map(os.environ.get, INHERITED)))
    if problem := next(filter(None, map(address_problem, cfg.address if binds else ())), ""):
        give_up(problem)
    return tls


def tls_context(cfg: Any) -> SSLContext | None:
    """What TLS is served with by gunicorn's settings; None where it isn't to be.

    The arbiter makes it for all workers, so that one that is replaced later serves what the others
    do, whatever has become of the files. It is gevent's, which doesn't block a worker. Raises
    SettingsError.
    """
    if not cfg.is_ssl:
        return None
    certfile, keyfile = cfg.certfile, cfg.keyfile
    if not certfile:
        raise SettingsError(f"keyfile {keyfile} needs a certfile")
    for setting, path, mark in (
        ("certfile", certfile, b"-----BEGIN CERTIFICATE-----"),
        ("keyfile", keyfile or certfile, b"PRIVATE KEY-----"),
        ("ca_certs", cfg.ca_certs or certfile, b""),
    ):
        try:
            found = mark in Path(path).read_bytes()
        except OSError as error:
            raise SettingsError(f"{setting} {path} can't be read: {error.strerror}") from error
        if not found:
            missing = mark.strip(b"-").decode()
            raise SettingsError(f"{setting} {path} can't be used: it has no {missing}")
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    what = f"certfile {certfile}" + (f" and keyfile {keyfile}" if keyfile else "")
    try:
        # Without a password OpenSSL would ask for one, on the terminal.
        context.load_cert_chain(certfile, keyfile, password="")
        if cfg.ca_certs:
            what = f"ca_certs {cfg.ca_certs}"
            context.load_verify_locations(cfg.ca_certs)
        if cfg.ciphers:
            what = f"ciphers {cfg.ciphers}"
            context.set_ciphers(cfg.ciphers)
        what = f"cert_reqs {cfg.cert_reqs}"
        context.verify_mode = cfg.cert_reqs
    except (OSError, ValueError) as error:  # among them all of OpenSSL's
        why = getattr(error, "reason", None) or error.args[-1]
        raise SettingsError(f"{what} can't be used: {why}") from error
    return context


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

    Such settings would end the gateway. gunicorn has no hook before a reload, so that its handler
    of the signal is replaced.
    """
    reload = arbiter.handle_hup

    def reload_if_usable() -> None:
        try:
            Settings.from_environ(os.environ)
            arbiter.tls = tls_context(arbiter.cfg)
        except SettingsError as error:
            log.error("not reloaded, and all stays as it is: %s", error)
        else:
            reload()

    arbiter.handle_hup = reload_if_usable


def tell_address(file: str, listener: Any, *, tls: bool) -> None:
    """Writes down where the server listens, for `gateway.server.healthcheck`."""
    name = listener.getsockname()
    address = name if isinstance(name, str) else list(name[:2])
    Path(file).write_text(json.dumps({"address": address, "tls": tls}))
