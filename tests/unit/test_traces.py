"""Whether spans are exported, and what is said where they can't be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from gateway.status.traces import begin_exporting, wanted
from tests.harness.engine import CHECKOUT

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}

DECIDED: dict[str, tuple[Mapping[str, str], str, str]] = {
    "nothing set": ({}, "", ""),
    "an endpoint": (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    "one for traces": (TRACES, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
    "an exporter": ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER", ""),
    "a name alone": ({"OTEL_SERVICE_NAME": "shop"}, "", ""),
    "an empty one": ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "", ""),
    "no exporter": ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, "", ""),
    "disabled": ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, "", ""),
    "not disabled": (
        {**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, "OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    "another exporter": (
        {"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", "'zipkin' is none of"),
    "two exporters": (
        {"OTEL_TRACES_EXPORTER": "otlp,console"}, "OTEL_TRACES_EXPORTER", "is none of otlp, none"),
    "its protocol": (
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        "OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    "another protocol": (
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL='grpc' isn't http/protobuf"),
    "the protocol for traces, which wins": (
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
         "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        "OTEL_EXPORTER_OTLP_ENDPOINT", ""),
}  # fmt: skip


@pytest.mark.parametrize(("environ", "variable", "why"), DECIDED.values(), ids=DECIDED)
def test_the_variables_decide(environ: Mapping[str, str], variable: str, why: str) -> None:
    found, reason = wanted(environ)
    assert found == variable
    assert why in reason
    assert bool(why) == bool(reason)


def test_what_can_not_be_done_is_one_warning_and_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO):
        assert begin_exporting({"OTEL_TRACES_EXPORTER": "zipkin"}) is None
        monkeypatch.delitem(sys.modules, "gateway.status.spans", raising=False)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
        assert begin_exporting(ENDPOINT) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "the package opentelemetry isn't installed" in caplog.messages[1]
    assert "pip install -r requirements-otel.txt" in caplog.messages[1]
    assert not any(record.exc_info for record in caplog.records)


def test_where_nothing_asks_for_spans_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, objgw; objgw.app.recorder.start(); "
        "print(*[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    told = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    for more, imported in (({}, False), (ENDPOINT, True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=CHECKOUT,
            env={**told, **more},
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(done.stdout.strip()) is imported, done
