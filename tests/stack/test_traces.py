"""Traces: what a client's `traceparent` becomes, and spans at a real collector's protocol.

The gateway whose spans are looked at runs beside the tests (`tests.harness.traces`), with the nodes
of the shared stack.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.harness.fixtures import LINK_KEY
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.traces import Collected, Collector, TracedGateway, collecting, hanging, traced
from tests.harness.waiting import eventually, random_id

SECRET = "treepotato-of-the-collector"


def new_trace() -> tuple[str, str, dict[str, str]]:
    """The ids of a client's trace and of its span, and the headers that name them."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01", "tracestate": "a=1"}


def got_by_node(stack: Stack, name: str, id: str) -> dict[str, str]:
    """The headers of the first request for an object that its node had, by its audit log."""

    def record() -> dict[str, Any] | None:
        asked = (each for each in stack.lab.audit.of(name) if each["api"].get("object") == id)
        return next(asked, None)

    return {name.lower(): value for name, value in eventually(record)["requestHeader"].items()}


def line_of(gateway: Gateway | TracedGateway, id: str) -> str:
    """The line of the access log of an object's one request."""
    lines: list[str] = eventually(
        lambda: [line for line in gateway.logs().splitlines() if "access" in line and id in line]
    )
    assert len(lines) == 1
    return lines[0]


def test_without_the_packages_a_trace_is_passed_on_to_log_and_node(
    shared: Stack, gateway: Gateway
) -> None:
    node = shared.nodes[0]
    id, (trace_id, _, headers) = shared.id_of(node), new_trace()
    gateway.put(id, b"x", headers=headers)
    assert line_of(gateway, id).endswith(f" trace={trace_id}")
    got = got_by_node(shared, node.name, id)
    assert {name: got.get(name) for name in headers} == headers


def test_each_request_of_a_kept_connection_has_its_own_trace(
    shared: Stack, gateway: Gateway
) -> None:
    """Headers that come again as they were aren't read again (`gateway.server.fastpath`)."""
    (first, _, of_first), (second, _, of_second) = new_trace(), new_trace()
    sent = [{}, of_first, of_first, {}, of_second, of_first]
    ids = [shared.id_of(node) for node in [*shared.nodes, *shared.nodes]]
    with gateway.session() as session:
        for id, headers in zip(ids, sent, strict=True):
            assert session.request("GET", f"/object/{id}", headers=headers).status == 404
    named = [line_of(gateway, id).partition(" trace=")[2].split(" ")[0] for id in ids]
    assert named == ["", first, first, "", second, first]


def test_a_trace_that_is_not_well_formed_is_as_good_as_none(
    shared: Stack, gateway: Gateway
) -> None:
    node = shared.nodes[0]
    id, (_, _, headers) = shared.id_of(node), new_trace()
    put = gateway.put(id, b"x", headers={**headers, "traceparent": headers["traceparent"].upper()})
    assert put.status == 200
    assert "trace=" not in line_of(gateway, id)
    assert not headers.keys() & got_by_node(shared, node.name, id).keys()


def test_where_the_packages_are_missing_one_line_says_so_and_the_gateway_runs(
    shared: Stack,
) -> None:
    gateway = shared.add_gateway(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "WEB_CONCURRENCY": "2",
         "OBJGW_LOG_FORMAT": "json"}
    )  # fmt: skip
    gateway.wait_ready()
    id, (trace_id, _, headers) = shared.id_of(shared.nodes[0]), new_trace()
    assert gateway.put(id, b"x", headers=headers).status == 200
    assert json.loads(line_of(gateway, id))["trace"] == trace_id
    lines = [json.loads(line) for line in gateway.logs().splitlines()]
    (warning,) = [line for line in lines if line["logger"] == "objgw.traces"]
    assert warning["level"] == "warning"
    assert "the package opentelemetry isn't installed" in warning["message"]
    assert "requirements-otel.txt" in warning["message"]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def exporting(shared: Stack, collector: Collector) -> Iterator[TracedGateway]:
    """A gateway that exports spans at once."""
    with traced(
        shared,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRET}",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=tests",
        OBJGW_LINK_KEY=LINK_KEY,
    ) as gateway:
        yield gateway


def spans_of(collector: Collector, trace_id: str, count: int) -> list[Collected]:
    """The spans of a trace, SERVER first, once there are so many."""

    def come() -> list[Collected] | None:
        found = collector.of(trace_id)
        assert len(found) <= count
        return found if len(found) == count else None

    found: list[Collected] = eventually(come)
    return sorted(found, key=lambda each: each.span.kind != Span.SPAN_KIND_SERVER)


def test_a_request_is_a_span_within_the_clients_trace_and_its_exchange_one_within_that(
    shared: Stack, exporting: TracedGateway, collector: Collector
) -> None:
    node = shared.nodes[0]
    id, (trace_id, span_id, headers) = shared.id_of(node), new_trace()
    put = exporting.put(id, b"12345", headers=headers)
    server, client = spans_of(collector, trace_id, 2)
    assert (server.parent, client.parent) == (span_id, server.id)
    assert (server.span.name, client.span.name) == ("PUT /object/{id}", "PUT")
    assert (server.span.kind, client.span.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert server.span.trace_state == client.span.trace_state == "a=1"
    assert server.span.start_time_unix_nano <= client.span.start_time_unix_nano
    assert client.span.end_time_unix_nano <= server.span.end_time_unix_nano
    assert server.attributes == {
        "http.request.method": "PUT", "http.route": "/object/{id}", "url.path": f"/object/{id}",
        "url.scheme": "http", "http.response.status_code": 200, "client.address": "127.0.0.1",
        "server.address": exporting.address, "objgw.node": node.name,
        "objgw.request_id": put.headers["X-Request-Id"],
    }  # fmt: skip
    assert client.attributes == {
        "http.request.method": "PUT", "http.response.status_code": 200,
        "server.address": node.address, "server.port": 9000, "objgw.node": node.name,
        "url.full": f"http://{node.address}:9000/objgw/{id}",
    }  # fmt: skip
    assert server.resource["service.name"] == "objgw"
    assert server.resource["deployment.environment"] == "tests"
    assert line_of(exporting, id).endswith(f" trace={trace_id}")
    got = got_by_node(shared, node.name, id)
    assert got["traceparent"] == f"00-{trace_id}-{client.id}-01"
    assert got["tracestate"] == "a=1"


def test_a_request_without_a_trace_begins_one(
    shared: Stack, exporting: TracedGateway, collector: Collector
) -> None:
    id = shared.id_of(shared.nodes[0])
    assert exporting.get(id).status == 404
    trace_id = line_of(exporting, id).partition(" trace=")[2].split()[0]
    server, client = spans_of(collector, trace_id, 2)
    assert (server.parent, client.parent) == ("", server.id)
    # A 404 is an error of the one who asks (the semantic conventions' "Status").
    assert server.span.status.code == Status.STATUS_CODE_UNSET
    assert client.span.status.code == Status.STATUS_CODE_ERROR
    assert client.attributes["error.type"] == "404"


def test_a_client_that_does_not_sample_gets_no_spans_and_the_node_its_trace(
    shared: Stack, exporting: TracedGateway, collector: Collector
) -> None:
    node = shared.nodes[0]
    id, (trace_id, span_id, _) = shared.id_of(node), new_trace()
    exporting.put(id, b"x", headers={"traceparent": f"00-{trace_id}-{span_id}-00"})
    _, parent = shared.id_of(node), got_by_node(shared, node.name, id)["traceparent"].split("-")
    assert (parent[1], parent[3]) == (trace_id, "00")
    # What comes later has come, and this hasn't.
    later, _, headers = new_trace()
    exporting.get(id, headers=headers)
    spans_of(collector, later, 2)
    assert not collector.of(trace_id)


def test_a_list_has_a_span_for_each_node(
    shared: Stack, exporting: TracedGateway, collector: Collector
) -> None:
    trace_id, _, headers = new_trace()
    assert exporting.request("GET", "/objects?prefix=zz", headers=headers).status == 200
    server, *clients = spans_of(collector, trace_id, 1 + len(shared.nodes))
    assert server.attributes["http.route"] == "/objects"
    assert {each.parent for each in clients} == {server.id}
    assert {each.attributes["objgw.node"] for each in clients} == {
        node.name for node in shared.nodes
    }


def test_no_span_and_no_line_has_a_secret(
    shared: Stack, exporting: TracedGateway, collector: Collector
) -> None:
    node, link = shared.nodes[0], "expires=4102444800&signature=" + "5e" * 32
    trace_id, _, headers = new_trace()
    headers["Authorization"] = "Bearer bluegreen-token"
    exporting.request("GET", f"/object/{shared.id_of(node)}?{link}", headers=headers)
    spans_of(collector, trace_id, 1)
    told = " ".join(str(each.span) + str(each.resource) for each in collector.spans)
    for text in (told, exporting.logs()):
        for secret in ("5e" * 8, "bluegreen", SECRET, node.password, LINK_KEY):
            assert secret not in text
    assert {each["authorization"] for each in collector.headers} == {f"Bearer {SECRET}"}


def test_requests_about_the_gateway_itself_have_no_spans(
    exporting: TracedGateway, collector: Collector
) -> None:
    trace_id, _, headers = new_trace()
    assert exporting.request("GET", "/health/live", headers=headers).status == 200
    later, _, headers = new_trace()
    exporting.get(random_id(), headers=headers)
    spans_of(collector, later, 2)
    assert not collector.of(trace_id)


def test_what_is_not_exported_yet_is_when_the_gateway_stops(
    shared: Stack, collector: Collector
) -> None:
    with traced(
        shared,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.endpoint}/v1/traces",
        OTEL_BSP_SCHEDULE_DELAY="3600000",
        OTEL_SERVICE_NAME="shop",
    ) as gateway:
        trace_id, _, headers = new_trace()
        gateway.get(shared.id_of(shared.nodes[0]), headers=headers)
        assert not collector.of(trace_id)
        assert gateway.stop() == 0
        assert [each.resource["service.name"] for each in collector.of(trace_id)] == ["shop"] * 2


@pytest.mark.parametrize("how", ["down", "hanging"])
def test_a_collector_that_is_down_or_hangs_is_one_line_and_delays_nothing(
    shared: Stack, how: str
) -> None:
    id = shared.id_of(shared.nodes[0])
    with hanging() as endpoint, traced(
        shared,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint if how == "hanging" else "http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="3600",
        OTEL_BSP_SCHEDULE_DELAY="1",
        OTEL_BSP_MAX_QUEUE_SIZE="10",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10",
        GUNICORN_CMD_ARGS="--graceful-timeout 3600",
    ) as gateway:  # fmt: skip
        gateway.put(id, b"12345")
        with gateway.session() as session:
            for _ in range(200):
                assert session.request("GET", f"/object/{id}").body == b"12345"
        eventually(lambda: "objgw.traces" in gateway.logs())
        assert gateway.stop() == 0
        told = [line for line in gateway.logs().splitlines() if "objgw.traces" in line]
        assert len(told) == 1
        assert "WARNING objgw.traces spans aren't all exported, requests go on: " in told[0]
        assert "Traceback" not in gateway.logs()
