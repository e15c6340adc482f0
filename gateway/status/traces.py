"""Whether spans are exported: decided once, when a worker starts, by the OTEL_ variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

Where they aren't, nothing of opentelemetry's is imported. What is wrong with the variables or with
what is installed is a warning, and never ends the gateway: traces aren't what it is for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from gateway.answers import Environ
from gateway.status.observation import Observation, Trace
from gateway.status.traceparent import TraceContext

log = logging.getLogger("objgw.traces")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER = "OTEL_TRACES_EXPORTER"
INSTALL = "build the image with --build-arg OTEL=1, or `pip install -r requirements-otel.txt`"


class Begins(Protocol):
    """What begins the spans of a request (`gateway.status.spans.Spans`)."""

    def begin(
        self, environ: Environ, observation: Observation, came: TraceContext | None
    ) -> Trace: ...


def wanted(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable because of which spans are to be exported, and why they can't be.

    Both are empty where none are to be; the reason is empty where they can be.

    >>> wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    ('OTEL_EXPORTER_OTLP_ENDPOINT', '')
    """
    set_ones = [name for name in (EXPORTER, *ENDPOINTS) if environ.get(name)]
    exporter = environ.get(EXPORTER, "").strip()
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not set_ones or exporter == "none" or disabled:
        return "", ""
    if exporter not in ("", "otlp"):
        return EXPORTER, f"{exporter!r} is none of otlp, none"
    for name in PROTOCOLS:
        if protocol := environ.get(name, "").strip():
            why = f"{name}={protocol!r} isn't http/protobuf" if protocol != "http/protobuf" else ""
            return set_ones[0], why
    return set_ones[0], ""


def begin_exporting(environ: Mapping[str, str]) -> Begins | None:
    """Starts to export spans, where they are wanted. To be called in the process that serves."""
    variable, why = wanted(environ)
    if not variable:
        return None
    if not why:
        try:
            from gateway.status.spans import Spans
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            why = f"the package {missing or 'for it'} isn't installed: {INSTALL}"
    if not why:
        try:
            return Spans()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    log.warning("%s is set, and no spans are exported: %s", variable, why)
    return None
