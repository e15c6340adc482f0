"""A collector of OTLP/HTTP, and a gateway whose spans it gets.

The gateway's image has no packages for spans, so this one is a process in the tests' container,
which has them. Its nodes are those of a stack, by a list. It has port 3000 of a loopback address.
"""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.ctl.memory import end
from tests.harness.gateway import Client
from tests.harness.local import loopback_address, start_gateway
from tests.harness.stack import Stack


@dataclass
class Collected:
    """A span as the collector got it, with what its process says of itself."""

    span: Span
    resource: dict[str, Any]

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return plain(self.span.attributes)


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes of OTLP as a dictionary."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@dataclass
class Collector:
    """What came, in the order in which it came; spans of the gateway's start too."""

    port: int = 0
    spans: list[Collected] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, trace_id: str) -> list[Collected]:
        """The spans of a trace."""
        return [each for each in self.spans if each.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        """Takes an `ExportTraceServiceRequest`."""
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = plain(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [Collected(span, resource) for span in scope.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that answers."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            found = self.path == "/v1/traces"
            if found:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hanging() -> Iterator[str]:
    """The endpoint of a collector that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class TracedGateway(Client):
    """A gateway in a process, with these variables."""

    def __init__(self, stack: Stack, env: Mapping[str, str]) -> None:
        self.stack, self.address, self.concurrency = stack, loopback_address(), 1
        self._log = os.memfd_create("log")
        nodes = "\n".join(node.line for node in stack.nodes)
        self._process = start_gateway(
            self.address, {"OBJGW_NODES": nodes, "WEB_CONCURRENCY": "1", **env}, self._log
        )

    def logs(self) -> str:
        """What it has logged so far."""
        # At an offset of its own: the processes go on writing at theirs.
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode(errors="replace")

    def stop(self) -> int:
        """Ends it as `docker stop` does, and gives its exit code.

        It takes seconds. By itself the SDK would wait for half a minute.
        """
        self._process.terminate()
        return self._process.wait(25)

    def close(self) -> None:
        """Ends it, however it is."""
        end(self._process)
        print(self.logs())
        os.close(self._log)


@contextmanager
def traced(stack: Stack, **env: str) -> Iterator[TracedGateway]:
    """A gateway in a process while the block runs; it serves when the block begins."""
    gateway = TracedGateway(stack, env)
    try:
        gateway.wait_up()
        gateway.wait_ready()
        yield gateway
    finally:
        gateway.close()
