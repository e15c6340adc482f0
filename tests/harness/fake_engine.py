"""A Docker engine that answers what a test tells it to: a real server, on a Unix socket."""

from __future__ import annotations

import http.server
import json
import queue
import socketserver
import threading
from pathlib import Path
from typing import Any

from gateway.s3.endpoint import Endpoint

OWN = "f" * 64  # the id of the container that the gateway runs in


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEngine

    def do_GET(self) -> None:
        engine, path = self.server, self.path.partition("?")[0]
        path = path.removeprefix("/v1.41")
        engine.asked.append(path)
        if path == "/events" and engine.events is not None:
            self.stream(engine.events)
            return
        status, document = engine.answers.get(path, (404, {"message": "no such thing"}))
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events: queue.Queue[dict[str, Any] | None]) -> None:
        """Sends events as the engine does, a chunk each. None breaks the stream off."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        while (event := events.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FakeEngine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A Docker engine on a Unix socket, which answers what a test tells it to."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.asked: list[str] = []
        self.events: queue.Queue[dict[str, Any] | None] | None = None
        self.answers: dict[str, tuple[int, Any]] = {
            "/version": (200, {"ApiVersion": "1.41"}),
            "/info": (200, {}),
        }
        self.attach("net")
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def attach(self, network: str) -> None:
        """Puts the gateway's own container on this network only."""
        settings = {"Networks": {network: {"NetworkID": "1"}}}
        own = {"Image": "gateway", "Config": {}, "NetworkSettings": settings}
        self.answers[f"/containers/{OWN}/json"] = (200, own)

    def list(self, *containers: dict[str, Any]) -> None:
        self.answers["/containers/json"] = (200, containers)

    def inspect(self, id: str, config: Any) -> None:
        self.answers[f"/containers/{id}/json"] = (200, {"Config": config})


def container(id: str, **fields: Any) -> dict[str, Any]:
    """A container as Docker lists it, on the gateway's network, with these fields changed."""
    networks = {"net": {"IPAddress": "10.0.0.7", "GlobalIPv6Address": ""}}
    return {
        "Id": id,
        "Names": [f"/node-{id}"],
        "Created": 1,
        "State": "running",
        "ImageID": "minio",
        "Labels": {},
        "NetworkSettings": {"Networks": networks},
    } | fields


GOOD = Endpoint("node-good", "good", "10.0.0.7", 9000, "ring", "treepotato")
