"""A first look without Docker: three S3 servers in memory, and the gateway before them."""

from __future__ import annotations

import http.client
import importlib.util
import time
from contextlib import ExitStack, suppress

from gateway.ctl.console import say
from gateway.ctl.errors import CANNOT, FINE, CommandError
from gateway.ctl.memory import CHECKOUT, MemoryNode, end, start

NODES = 3
READY_SECONDS = 60.0  # within which the gateway has to be ready


def demo(port: int) -> int:
    """Runs the demonstration, on this port of 127.0.0.1, until it is interrupted; its exit code."""
    if importlib.util.find_spec("moto") is None:
        raise CommandError("demo needs more packages: pip install -r requirements-dev.txt")
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        names = [f"node-{number}" for number in range(1, NODES + 1)]
        nodes = [stack.enter_context(MemoryNode(name)) for name in names]
        gateway = start(
            ["-b", f"127.0.0.1:{port}", "objgw:app"],
            CHECKOUT,
            env={"OBJGW_NODES": "\n".join(node.line for node in nodes)},
        )
        stack.callback(end, gateway)
        with suppress(KeyboardInterrupt):
            deadline = time.monotonic() + READY_SECONDS
            while not is_ready(port):
                if gateway.poll() is not None or time.monotonic() > deadline:
                    say("the gateway hasn't started; the lines above say why")
                    return CANNOT
                time.sleep(0.1)
            print(
                f"objgw is at {url}, with {NODES} S3 servers that hold objects in memory: "
                "they are gone at the end.\n"
                f"  curl -T README.md {url}/object/readme1\n"
                f"  curl {url}/object/readme1\n"
                "Ctrl-C ends it.",
                flush=True,
            )
            gateway.wait()
            return CANNOT
    say("ended; the objects are gone")
    return FINE


def is_ready(port: int) -> bool:
    """Whether a gateway on this port of loopback is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    return False
