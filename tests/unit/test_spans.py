"""What is said of spans that can't be exported: a line, and no secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gateway.status.observation import Observation
from gateway.status.spans import TOLD_MAX, Plain, described, plain_text, tell_plainly

SECRET = "treepotato1"


@pytest.fixture
def as_before() -> Iterator[None]:
    """Leaves the packages' loggers as they were."""
    packages = logging.getLogger("opentelemetry")
    handlers, propagate = packages.handlers, packages.propagate
    yield
    packages.handlers, packages.propagate = handlers, propagate
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("as_before")
def test_what_goes_wrong_again_and_again_is_one_line_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell_plainly()
    logger = logging.getLogger("opentelemetry.sdk._shared_internal")
    for _ in range(50):
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("Exception while exporting %s.", "Span")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("objgw.traces", "WARNING")
    assert record.getMessage().endswith(": Exception while exporting Span.")
    assert not record.exc_info


@pytest.mark.usefixtures("as_before")
def test_what_a_client_sends_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    tell_plainly()
    logging.getLogger("opentelemetry.trace.span").warning("Duplicate key: %s found.", "a")
    assert not caplog.records


@pytest.mark.usefixtures("as_before")
def test_a_minute_later_it_is_told_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("gateway.status.spans.time.monotonic", lambda: now[0])
    plain = Plain()
    for now[0] in (1000.0, 1059.0, 1061.0, 1062.0):
        plain.emit(logging.makeLogRecord({"msg": "Queue full, dropping Span."}))
    assert len(caplog.records) == 2


TEXTS = {
    "what is retried": (
        "opentelemetry.exporter", "Transient error %s, retrying in %.2fs.", ("Bad Gateway", 1.1),
        "Transient error Bad Gateway"),
    "a header of the collector's": (
        "opentelemetry.util.re", "Header format invalid! Values must be encoded: %s",
        (f"authorization=Bearer {SECRET};",), "Header format invalid! Values must be encoded"),
    "who the endpoint is for": (
        "opentelemetry.exporter", "reason: %s", (f"Invalid URL 'a:{SECRET}@host:4318/v1'",),
        "reason: Invalid URL 'host:4318/v1'"),
    "who a URL is for": (
        "opentelemetry.exporter", "at %s", (f"https://a:{SECRET}@host/v1",), "at https://host/v1"),
    "the endpoint's query": (
        "opentelemetry.exporter", "url: %s", (f"/v1/traces?key={SECRET} (Caused by …)",),
        "url: /v1/traces (Caused by …)"),
    "a long one": ("opentelemetry.exporter", "%s", ("x" * 5000,), "x" * TOLD_MAX),
}  # fmt: skip


@pytest.mark.parametrize(("name", "message", "args", "said"), TEXTS.values(), ids=TEXTS)
def test_a_line_has_no_secret(name: str, message: str, args: tuple[object], said: str) -> None:
    record = logging.LogRecord(name, logging.WARNING, "", 0, message, args, None)
    assert plain_text(record) == said


def test_a_path_that_may_have_the_signature_of_a_link_is_cut_as_in_the_log() -> None:
    observation = Observation(method="GET", path=f"/object/a?signature={'ab' * 32}&expires=1")
    _, attributes = described({"wsgi.url_scheme": "http"}, observation)
    assert attributes["url.path"] == "/object/a?signature..."
