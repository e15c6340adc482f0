"""Spans of OpenTelemetry: one for a client's request, and one for each request to a node within it.

Only `gateway.status.traces` imports this, in a worker that is to export spans, because the packages
are optional (requirements-otel.txt). Their SDK reads the OTEL_ variables. Attributes have the names
of https://opentelemetry.io/docs/specs/semconv/http/http-spans/. None of them is a query, which may
be a link, nor a header of the client's but `Host`.

A collector that is down or slow delays no request: a finished span is put in a queue of bounded
length (OTEL_BSP_MAX_QUEUE_SIZE), and a thread of the SDK's, which under gevent is a greenlet, sends
what is in it. Spans for which there is no room are lost, and one line a minute says that some are.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from gateway.answers import Environ
from gateway.s3.connection import Connection, Request
from gateway.s3.node import Node
from gateway.s3.reply import Reply
from gateway.status.observation import NO_NODE, Observation
from gateway.status.traceparent import TraceContext, header_lines
from gateway.version import version

log = logging.getLogger("objgw.traces")

# Spans that are sent at once. To encode one takes 40 microseconds, in which under gevent nobody is
# served; the SDK's own number is 512.
BATCH = 128
FINISH_SECONDS = 2.0  # that the last spans have at the end of the process
TOLD_SECONDS = 60.0  # for which one line tells of what goes wrong
TOLD_MAX = 300  # characters of it
# What may be a secret in the text of an error: the query of a URL, or who it is for.
SECRET = re.compile(r"[^\s'\"/]*@|\?[^\s'\")]*")
METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "TRACE"})
OBJECT, LISTING = "/object/", "/objects"
HOST_MAX = 255  # of the Host header, as of a name (RFC 1035, 2.3.4)
PORT = re.compile(r":\d*\Z")


class Spans:
    """Makes the spans of one worker, and has them exported."""

    def __init__(self) -> None:
        """Raises what the SDK does where a variable can't be used."""
        tell_plainly()
        resource = Resource.create({"service.name": "objgw", "service.version": version()})
        # What the variables say wins over that.
        provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        batch = None if os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else BATCH
        exporter = OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=batch))
        self._tracer = provider.get_tracer("objgw", version())
        self._over, self._finished = threading.Event(), threading.Event()
        self._provider = provider
        # No thread can be started at the end of the process, when this one is needed.
        threading.Thread(target=self._finish, name="objgw-spans", daemon=True).start()
        atexit.register(self.finish)

    def begin(
        self, environ: Environ, observation: Observation, came: TraceContext | None
    ) -> Traced:
        """The trace of a request that has just come, with a span that has begun."""
        parent = Context() if came is None else set_span_in_context(remote(came), Context())
        name, attributes = described(environ, observation)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        return Traced(self._tracer, span)

    def finish(self) -> None:
        """Exports what waits, for as long as `FINISH_SECONDS`."""
        self._over.set()
        self._finished.wait(FINISH_SECONDS)

    def _finish(self) -> None:
        self._over.wait()
        self._provider.shutdown()
        self._finished.set()


class Traced:
    """The trace of one request, with the gateway's spans."""

    __slots__ = ("_context", "_span", "_tracer", "id")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span
        self._context = set_span_in_context(span, Context())
        self.id = format_trace_id(span.get_span_context().trace_id)

    def exchange(self, node: Node, connection: Connection, request: Request, attempt: int) -> Reply:
        """As `Node.exchange`, in a span of its own, which ends with the head of the answer."""
        path, endpoint = request.path.partition("?")[0], node.endpoint
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": endpoint.hostname or endpoint.host or "",
            "server.port": endpoint.port,
            "url.full": f"http{'s' * endpoint.tls}://{endpoint.authority}{path}",
            "objgw.node": node.name,
        }
        if attempt:
            attributes["http.request.resend_count"] = attempt
        span = self._tracer.start_span(request.method, self._context, SpanKind.CLIENT, attributes)
        try:
            sent = request._replace(trace=header_lines(told(span)))
            reply = node.exchange(connection, sent)
            span.set_attribute("http.response.status_code", reply.status)
            if reply.status >= 400:
                failed(span, str(reply.status))
        except BaseException as error:
            failed(span, type(error).__name__, str(error))
            raise
        finally:
            span.end()
        return reply

    def end(self, observation: Observation, complete: bool) -> None:
        """The request is over; `complete` as for `Observation.log`."""
        span, status = self._span, observation.status
        span.set_attribute("http.response.status_code", int(status))
        if observation.node != NO_NODE:
            span.set_attribute("objgw.node", observation.node)
        if not complete:
            failed(span, "broken_off", observation.reason)
        elif status >= "500":
            failed(span, status, observation.reason)
        span.end()


def described(environ: Environ, observation: Observation) -> tuple[str, dict[str, str]]:
    """The name of the span of a client's request, and what is known of it at its begin."""
    method, path = observation.method, observation.path
    route = f"{OBJECT}{{id}}" if path.startswith(OBJECT) else path if path == LISTING else ""
    known = method if method in METHODS else "_OTHER"
    attributes = {
        "http.request.method": known,
        "url.path": observation.shown_path,
        "url.scheme": environ["wsgi.url_scheme"],
        "client.address": observation.client,
        "objgw.request_id": observation.request_id,
    }
    if route:
        attributes["http.route"] = route
    if host := environ.get("HTTP_HOST", ""):
        attributes["server.address"] = PORT.sub("", host)[:HOST_MAX]
    return f"{'HTTP' if known == '_OTHER' else known} {route}".strip(), attributes


def remote(came: TraceContext) -> NonRecordingSpan:
    """The client's span, as a parent."""
    state = TraceState.from_header([came.state] if came.state else [])
    return NonRecordingSpan(
        SpanContext(
            int(came.trace_id, 16),
            int(came.parent_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(came.flags),
            trace_state=state,
        )
    )


def told(span: Span) -> TraceContext:
    """What a node is told of the span of its request."""
    context = span.get_span_context()
    return TraceContext(
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
        context.trace_flags,
        context.trace_state.to_header(),
    )


def failed(span: Span, kind: str, why: str = "") -> None:
    """Notes that a span ended with an error, of a kind of which there are few."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, why or None)


def tell_plainly() -> None:
    """From now on what the packages log is a plain line a minute, and no traceback."""
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [Plain()], False
    # It says what is wrong with a client's tracestate.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)


class Plain(logging.Handler):
    """Tells what opentelemetry's packages say, as the gateway tells things."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0  # the monotonic time from which a line is told again

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a line, unless one was logged just now."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + TOLD_SECONDS
        log.warning("spans aren't all exported, requests go on: %s", plain_text(record))


def plain_text(record: logging.LogRecord) -> str:
    """What a log record of opentelemetry's says, without what may be secret."""
    if record.name == "opentelemetry.util.re":  # it quotes OTEL_EXPORTER_OTLP_HEADERS
        return record.msg.partition(": %s")[0]
    text = record.getMessage().partition(", retrying in ")[0]
    return SECRET.sub("", text)[:TOLD_MAX]
