"""The health check of the image: `python -m gateway.server.healthcheck`.

It asks the gateway of this container for `/health/live`, at the address and with the protocol that
gunicorn was told, whatever those are: gunicorn.conf.py writes them down. It succeeds with 200.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

SECONDS = 4.0  # for each step
# A container without IPv6 has no ::1; what listens on :: has 127.0.0.1, too.
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "localhost"}


def connect(address: Any, *, tls: bool) -> socket.socket:
    """A connection to what listens there. Raises OSError."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(address)
    else:
        host, port = address
        sock = socket.create_connection((ANYWHERE.get(host, host), port), SECONDS)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is for the names that clients use
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


def problem(folder: str) -> str:
    """What is wrong with the gateway that wrote down its address in this folder; or nothing."""
    files = sorted(Path(folder).glob("objgw-*.address"), key=lambda file: file.stat().st_mtime)
    if not files:
        return "no gateway listens"
    told = json.loads(files[-1].read_text())
    connection = http.client.HTTPConnection("gateway")
    try:
        connection.sock = connect(told["address"], tls=told["tls"])
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        if "CERTIFICATE_REQUIRED" in str(error):  # only a server that lives wants a client's
            return ""
        return f"{told['address']} doesn't answer: {error}"
    return "" if status == 200 else f"{told['address']} answers {status}"


if __name__ == "__main__":
    sys.exit(problem("/dev/shm") or 0)
