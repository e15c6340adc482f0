"""Health, metrics, logs and the page, as those see them who run a gateway: over HTTP, in the log, in a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from conftest import Answer, Gateway, RawConnection, Stack, eventually, random_id, still_network

OPEN = ("/health/live", "/health/ready")
GUARDED = ("/health", "/metrics", "/status.json", "/status.json?id=abc")


def health(gateway: Gateway) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gateway.request("GET", "/health").body)
    return document


def told_states(answer: Answer) -> dict[str, str]:
    """The nodes' states that an answer of /health says."""
    return {node["name"]: node["state"] for node in json.loads(answer.body)["nodes"]}


def states(gateway: Gateway) -> dict[str, str]:
    return told_states(gateway.request("GET", "/health"))


def samples(gateway: Gateway, name: str, **headers: str) -> dict[tuple[str, ...], float]:
    """A metric's values by its labels' values, in the order of the labels' names."""
    text = gateway.request("GET", "/metrics", headers=headers).body.decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name
    }


def requests(gateway: Gateway) -> Counter[tuple[str, ...]]:
    """Requests by method, node and status."""
    counts = samples(gateway, "objgw_request_seconds_count")
    return Counter({labels: int(value) for labels, value in counts.items()})


def access_lines(gateway: Gateway) -> list[str]:
    return [line for line in gateway.logs().splitlines() if " objgw.access " in line]


def wait_healthy(gateway: Gateway) -> None:
    """Until each worker has found all nodes up."""
    wanted = {node.name: "up" for node in gateway.stack.nodes}
    gateway.wait_workers(["/health"], lambda answer: told_states(answer) == wanted)


@pytest.fixture(scope="module")
def four(shared: Stack) -> Gateway:
    """A gateway with four workers on the shared nodes."""
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    wait_healthy(gateway)
    return gateway


# ---------------------------------------------------------------------------------------------------------------------
# Health
# ---------------------------------------------------------------------------------------------------------------------
def test_while_all_nodes_answer_all_of_health_says_so(shared: Stack, four: Gateway) -> None:
    said = health(four)
    assert (said["status"], said["layout"]) == (
        "ok",
        {"names": sorted(node.name for node in shared.nodes), "settled": True},
    )
    assert said["docker"]["read"]
    assert said["docker"]["answers"]
    for node in said["nodes"]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", node["since"])
    for path in OPEN:
        assert four.request("GET", path).status == 200


def test_a_node_that_stops_is_told_and_the_gateway_stays_ready(faulty: Stack) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[1]
    eventually(lambda: set(states(gateway).values()) == {"up"})
    node.stop()
    eventually(lambda: states(gateway)[node.name] == "stopped")
    assert health(gateway)["status"] == "degraded"
    assert gateway.request("GET", "/health/ready").status == 200
    node.start()
    eventually(lambda: states(gateway)[node.name] == "up")
    told = next(each for each in health(gateway)["nodes"] if each["name"] == node.name)
    assert told["last_error"]
    assert told["last_error_at"] < told["since"]
    assert samples(gateway, "objgw_node_up") == {(each.name,): 1.0 for each in faulty.nodes}


def test_a_node_that_hangs_is_told_and_holds_up_no_request_for_health(faulty: Stack) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[0]
    eventually(lambda: set(states(gateway).values()) == {"up"})
    node.container.kill("SIGSTOP")  # where Docker pauses it, it says so
    try:
        eventually(lambda: states(gateway)[node.name] == "down")
        assert samples(gateway, "objgw_node_up")[(node.name,)] == 0
        told = next(each for each in health(gateway)["nodes"] if each["name"] == node.name)
        assert told["last_error"] == "it doesn't answer in time"
        for path in (*OPEN, *GUARDED):
            eventually(
                partial(gateway.request, "GET", path, timeout=1.5)
            )  # one that waited for the node would never do
    finally:
        node.container.kill("SIGCONT")
    eventually(lambda: states(gateway)[node.name] == "up")


def test_without_any_node_that_answers_the_gateway_lives_and_is_not_ready(faulty: Stack) -> None:
    gateway = faulty.gateways[0]
    for node in faulty.nodes:
        node.pause()
    eventually(lambda: set(states(gateway).values()) == {"stopped"})
    ready = gateway.request("GET", "/health/ready")
    assert (ready.status, ready.problem["detail"]) == (503, "No node answers.")
    assert ready.headers["Retry-After"]
    assert gateway.request("GET", "/health").status == 503
    assert health(gateway)["status"] == "unavailable"
    assert gateway.request("GET", "/health/live").status == 200
    for node in faulty.nodes:
        node.unpause()
    eventually(lambda: gateway.request("GET", "/health/ready").status == 200)


def test_without_nodes_and_without_docker_every_path_answers(stack: Stack) -> None:
    relay = stack.add_relay()
    relay.close()
    gateway = stack.add_gateway(relay=relay)
    assert gateway.request("GET", "/health/live").status == 200
    ready = gateway.request("GET", "/health/ready")
    assert (ready.status, ready.problem["detail"]) == (503, "Docker hasn't been read yet.")
    assert health(gateway)["docker"] == {"read": False, "answers": False, "seconds_ago": None}
    assert samples(gateway, "objgw_discovery_last_success_timestamp_seconds") == {(): 0.0}
    relay.open()
    eventually(lambda: gateway.request("GET", "/health/ready").problem["detail"] == "No node answers.")
    assert health(gateway)["layout"]["names"] == []
    assert json.loads(gateway.request("GET", "/status.json").body)["nodes"] == []
    stack.add_nodes("1")
    eventually(lambda: gateway.request("GET", "/health/ready").status == 200)
    relay.close()
    eventually(lambda: not health(gateway)["docker"]["answers"])
    assert gateway.request("GET", "/health/ready").status == 200  # the last list stays
    read = samples(gateway, "objgw_discovery_last_success_timestamp_seconds")[()]
    assert time.time() - 60 < read < time.time()


def test_under_load_every_path_answers(shared: Stack, four: Gateway) -> None:
    over, ids = threading.Event(), [shared.id_of(node) for node in shared.nodes]

    def load() -> None:
        while not over.is_set():
            for id in ids:
                four.put(id, b"x")
                four.get(id)

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load) for _ in range(6)]
        try:
            for _ in range(5):
                for path in ("/", *OPEN, *GUARDED):
                    assert four.request("GET", path).status == 200
        finally:
            over.set()
        for each in loads:
            each.result()


@pytest.mark.parametrize("path", ["/", *OPEN, "/health", "/metrics", "/status.json"])
def test_paths_about_the_gateway_take_get_and_head_only(gateway: Gateway, path: str) -> None:
    eventually(lambda: gateway.request("GET", "/health/ready").status == 200)
    head = gateway.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for method in ("PUT", "POST", "DELETE", "OPTIONS"):
        answer = gateway.request(method, path)
        assert (answer.status, answer.problem["title"]) == (405, "Method Not Allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


def test_where_there_are_tokens_only_what_shows_nothing_is_open(shared: Stack) -> None:
    tokens = {"OBJGW_TOKENS": "treepotato1", "OBJGW_READ_TOKENS": "baconpapaya2"}
    gateway = shared.add_gateway(tokens)
    eventually(lambda: gateway.request("GET", "/health/ready").status == 200)
    for path in ("/", *OPEN):
        assert gateway.request("GET", path).status == 200
    for path in GUARDED:
        assert gateway.request("GET", path).status == 401
        assert gateway.request("GET", path, headers={"Authorization": "Bearer bluegreen3"}).status == 401
        for token in tokens.values():
            assert gateway.request("GET", path, headers={"Authorization": f"Bearer {token}"}).status == 200
    assert not re.search("treepotato|baconpapaya|bluegreen", gateway.logs())


def test_the_page_and_its_data_can_be_switched_off(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_PAGE": "off"})
    assert [gateway.request("GET", path).status for path in ("/", "/status.json", "/health/live")] == [404, 404, 200]


def test_a_node_is_watched_on_by_another_worker_when_the_one_that_did_ends(faulty: Stack) -> None:
    gateway = faulty.add_gateway({"WEB_CONCURRENCY": "3"})
    wait_healthy(gateway)

    def since() -> dict[str, str]:
        return {node["name"]: node["since"] for node in health(gateway)["nodes"]}

    before = since()
    for worker in gateway.workers():
        gateway.run("sh", "-c", f"kill -9 {worker}")
        eventually(lambda: len(gateway.workers()) == 3)
    wait_healthy(gateway)
    assert since() == before
    faulty.nodes[0].stop()
    eventually(lambda: states(gateway)[faulty.nodes[0].name] == "stopped")


# ---------------------------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------------------------
def send(gateway: Gateway, work: Iterable[tuple[str, str]]) -> set[str]:
    """The requests, one after the other on one connection; the workers that took part."""
    with gateway.session() as session:
        return {session.request(method, path, b"12345" if method == "PUT" else None).worker for method, path in work}


# What a client asks for an object of its own, and the answers.
LIFE = (("PUT", "200"), ("GET", "200"), ("GET", "200"), ("HEAD", "200"), ("DELETE", "204"), ("GET", "404"))
# What has no node, with its labels.
ASTRAY = {
    ("GET", "/object/no-id"): ("GET", "none", "400"),
    ("GET", "/nowhere"): ("GET", "none", "404"),
    ("BREW", "/object/abc"): ("other", "none", "405"),
    ("POST", "/"): ("other", "none", "405"),
}


def test_across_four_workers_the_metrics_are_exactly_the_requests_that_were_answered(
    shared: Stack, four: Gateway
) -> None:
    clients = 12
    expected = Counter({(method, node.name, status): 0 for node in shared.nodes for method, status in LIFE})
    for node in shared.nodes:
        expected.update({(method, node.name, status): clients for method, status in {*LIFE}})
        expected[("GET", node.name, "200")] += clients
    expected.update(dict.fromkeys(list(ASTRAY.values())[:3], clients))  # the last one is about the gateway itself
    workers, rounds = set[str](), 0
    while rounds < 5 or len(workers) < 4:
        assert rounds < 100, "not each worker takes part"
        rounds += 1
        work = [
            [(method, f"/object/{id}") for id in map(shared.id_of, shared.nodes) for method, _ in LIFE] + [*ASTRAY]
            for _ in range(clients)
        ]
        before, bodies = requests(four), samples(four, "objgw_object_bytes_sum")
        with ThreadPoolExecutor(clients) as pool:
            workers.update(*pool.map(partial(send, four), work))
        counted, after = requests(four), samples(four, "objgw_object_bytes_sum")
        assert counted - before == expected
        for node in shared.nodes:
            assert after[("PUT", node.name)] - bodies.get(("PUT", node.name), 0) == clients * 5
            assert after[("GET", node.name)] - bodies.get(("GET", node.name), 0) == clients * 10
    files = four.read("sh", "-c", "ls /dev/shm/objgw-*").split()
    assert len([file for file in files if re.fullmatch(r"histogram_\d+\.db", file)]) == 4


def test_a_large_download_is_counted_when_its_last_byte_is_there(shared: Stack, four: Gateway) -> None:
    id, body = shared.id_of(shared.nodes[0]), os.urandom(3_000_000)
    assert four.put(id, body).status == 200
    for _ in range(10):
        before = samples(four, "objgw_object_bytes_sum").get(("GET", shared.nodes[0].name), 0)
        assert four.get(id).body == body
        assert samples(four, "objgw_object_bytes_sum")[("GET", shared.nodes[0].name)] - before == len(body)


def test_what_a_worker_had_counted_stays_when_it_ends(shared: Stack) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2"})
    gateway.wait_ready()
    for _ in range(20):
        gateway.get("a-b")
    before, workers = requests(gateway), set(gateway.workers())
    for worker in workers:
        gateway.run("sh", "-c", f"kill -9 {worker}")
    eventually(lambda: len(gateway.workers()) == 2 and not workers & set(gateway.workers()))
    assert requests(gateway) - before == Counter()
    assert before - requests(gateway) == Counter()
    gateway.get("a-b")
    assert requests(gateway) - before == Counter({("GET", "none", "400"): 1})
    files = gateway.read("sh", "-c", "ls /dev/shm/objgw-*").split()
    assert {file.rsplit("_", 1)[1] for file in files if file.endswith(".db")} == {"0.db", "1.db"}  # as many as workers


def test_a_silent_node_is_in_the_metrics_and_in_the_log_once(faulty: Stack) -> None:
    gateway = faulty.add_gateway(
        {"OBJGW_NODE_TIMEOUT": "5", "OBJGW_CONNECT_TIMEOUT": "5", "OBJGW_BREAKER_SECONDS": "60"}
    )
    gateway.wait_ready()
    node = faulty.nodes[2]
    id = faulty.id_of(node)
    node.container.kill("SIGSTOP")
    try:
        eventually(lambda: gateway.get(id).status == 503)  # it may answer for a moment
        before = requests(gateway)
        assert [gateway.get(id).status for _ in range(20)] == [503] * 20
        assert samples(gateway, "objgw_upstream_errors_total")[(node.name,)] >= 1
        assert samples(gateway, "objgw_breaker_open")[(node.name,)] == 1
        assert requests(gateway) - before == Counter({("GET", node.name, "503"): 20})
        assert gateway.logs().count(f"node {node.name} is refused for a while") == 1
    finally:
        node.container.kill("SIGCONT")


def test_the_exposition_keeps_to_the_conventions(shared: Stack, four: Gateway) -> None:
    four.put(shared.id_of(shared.nodes[0]), b"12345")  # a metric is there from the first time that it counts something
    answer = four.request("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    checked = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    names, methods = {node.name for node in shared.nodes} | {"none"}, {"GET", "HEAD", "PUT", "DELETE", "other"}
    for family in parse_text(answer.body.decode()):
        assert re.fullmatch(r"objgw_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert set(sample.labels) <= {"method", "status", "node", "state", "le", "version", "python"}
            assert sample.labels.get("node", "none") in names
            assert sample.labels.get("method", "GET") in methods
            assert re.fullmatch(r"\d{3}", sample.labels.get("status", "200"))
    openmetrics = four.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    parsed = parse_openmetrics(openmetrics.body.decode())  # type: ignore[no-untyped-call]
    families = {family.name for family in parsed}
    assert families >= {
        "objgw_request_seconds", "objgw_object_bytes", "objgw_node_up", "objgw_breaker_open",
        "objgw_upstream_connections", "objgw_discovery_last_success_timestamp_seconds", "objgw_layout_settled",
        "objgw_build_info",
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Logs and request ids
# ---------------------------------------------------------------------------------------------------------------------
LINE = re.compile(
    r"(?P<time>\S+Z) INFO objgw\.access (?P<method>\S+) (?P<what>\S+|'.*'|\".*\") (?P<status>\d{3}) node=(?P<node>\S+) "
    r"bytes=(?P<bytes>\d+) seconds=(?P<seconds>\d+\.\d{6}) request=(?P<request>\S+)"
)


def line_of(gateway: Gateway, request: str) -> dict[str, str]:
    """The access log's one line of a request."""

    def found() -> list[str]:
        return [line for line in access_lines(gateway) if f"request={request}" in line]

    lines = eventually(found)
    assert len(lines) == 1
    match = LINE.fullmatch(lines[0])
    assert match
    return match.groupdict()


def test_a_request_has_one_line_with_all_that_is_known_of_it(shared: Stack, gateway: Gateway) -> None:
    node = shared.nodes[0]
    id = shared.id_of(node)
    put = gateway.put(id, b"12345")
    line = line_of(gateway, put.headers["X-Request-Id"])
    assert (line["method"], line["what"], line["status"], line["node"], line["bytes"]) == (
        "PUT", id, "200", node.name, "5",
    )  # fmt: skip
    got = gateway.get(id, headers={"X-Request-Id": "my.own-id:1"})
    assert got.headers["X-Request-Id"] == "my.own-id:1"
    assert line_of(gateway, "my.own-id:1")["bytes"] == "5"
    dur = re.fullmatch(r"upstream;dur=(\d+\.\d)", got.headers["Server-Timing"])
    assert dur
    assert float(dur[1]) / 1000 <= float(line_of(gateway, "my.own-id:1")["seconds"]) + 0.0001


def test_the_node_gets_the_id_of_the_request(shared: Stack, gateway: Gateway) -> None:
    node, id = shared.nodes[1], shared.id_of(shared.nodes[1])
    gateway.put(id, b"x", headers={"X-Request-Id": f"for-{id}"})

    def record() -> dict[str, Any] | None:
        return next((each for each in shared.lab.audit.of(node.name) if each["api"].get("object") == id), None)

    headers = {name.lower(): value for name, value in eventually(record)["requestHeader"].items()}
    assert headers["x-request-id"] == f"for-{id}"


BAD_REQUEST_IDS = ["", "a b", "a\tb", 'a"b', "a\x7fb", "\xe9", "x" * 129, "a,b", "a;b", "<b>", "a\\nb", "%0a{}"]


@pytest.mark.parametrize("value", BAD_REQUEST_IDS)
def test_an_id_of_a_request_that_is_not_sane_is_replaced(gateway: Gateway, value: str) -> None:
    answer = gateway.get(random_id(), headers={"X-Request-Id": value})
    if answer.status == 404:  # the server refuses some of them
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-Id"])
    else:
        assert answer.status == 400


INJECTIONS = [
    "/object/a%0Ab",
    "/object/%1b[2Jx",
    "/x%0d%0a2026-01-01T00:00:00.000Z INFO forged",
    "/%22,%22x%22:%22",
    "/%e2%80%a8",
    "/object/%00",
]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_clients_send_can_not_forge_a_line(shared: Stack, form: str) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT": form})
    asked = {gateway.request("GET", path.replace(" ", "%20")).headers["X-Request-Id"]: path for path in INJECTIONS}
    eventually(lambda: all(request in gateway.logs() for request in asked))
    lines = gateway.logs().split("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", gateway.logs())
    assert not [line for line in lines if line.startswith("2026-01-01T00:00:00.000Z")]
    for request in asked:
        assert len([line for line in lines if request in line]) == 1


def test_with_the_setting_every_line_is_json(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT": "json"})
    id = shared.id_of(shared.nodes[0])
    wait_healthy(gateway)
    put = gateway.put(id, b"12345")
    gateway.get("a'b\"")
    gateway.container.stop(timeout=20)
    lines = [json.loads(line) for line in gateway.logs().splitlines()]
    assert {"objgw", "gunicorn.error", "objgw.access", "objgw.status"} <= {line["logger"] for line in lines}
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    mine = next(line for line in lines if line.get("request") == put.headers["X-Request-Id"])
    assert mine.pop("seconds") > 0
    del mine["time"]
    assert mine == {
        "level": "info", "logger": "objgw.access", "method": "PUT", "id": id, "status": 200,
        "node": shared.nodes[0].name, "bytes": 5, "complete": True, "request": put.headers["X-Request-Id"],
    }  # fmt: skip
    assert [line["path"] for line in lines if line.get("status") == 400] == ["/object/a'b\""]


def test_the_form_of_the_log_may_be_in_a_file_and_counts_for_every_line(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_LOG_FORMAT_FILE": "/run/form"}, start=False)
    text, archive = b"json\n", io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        file = tarfile.TarInfo("form")
        file.size, file.mode = len(text), 0o444  # as Docker makes secrets
        tar.addfile(file, io.BytesIO(text))
    gateway.container.put_archive("/run", archive.getvalue())
    gateway.start()
    wait_healthy(gateway)
    gateway.get(random_id())
    gateway.container.stop(timeout=20)
    lines = [json.loads(line) for line in gateway.logs().splitlines()]
    assert {"objgw", "gunicorn.error", "objgw.access"} <= {line["logger"] for line in lines}


def test_without_the_access_log_there_is_no_line_a_request(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_ACCESS_LOG": "off"})
    request = gateway.get(random_id()).headers["X-Request-Id"]
    gateway.container.stop(timeout=20)
    assert request not in gateway.logs()


def test_no_line_is_lost_or_mingled_when_the_gateway_stops(shared: Stack) -> None:
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "4"})
    gateway.wait_ready()
    before = len(access_lines(gateway))
    eventually(lambda: len(access_lines(gateway)) == sum(requests(gateway).values()))
    before = len(access_lines(gateway))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(send, gateway), [[("GET", "/object/no-id")] * 100] * 8))
    gateway.container.stop(timeout=20)
    lines = access_lines(gateway)
    assert len(lines) - before == 800
    assert all(LINE.fullmatch(line) for line in lines)


def test_a_download_that_is_broken_off_says_so_in_its_line(shared: Stack, gateway: Gateway) -> None:
    id = shared.id_of(shared.nodes[0])
    gateway.put(id, bytes(20_000_000))
    connection = RawConnection(gateway.address, 3000, timeout=20)
    connection.request("GET", f"/object/{id}")
    response = connection.getresponse()
    request = response.headers["X-Request-Id"]
    response.read(10)
    response.close()
    connection.close()
    eventually(lambda: any(f"request={request} broken off" in line for line in access_lines(gateway)))


def test_a_browser_that_is_sent_to_an_object_runs_nothing_of_it(gateway: Gateway) -> None:
    id = random_id()
    gateway.put(id, b"<script>fetch('/object/stolen')</script>", headers={"Content-Type": "text/html"})
    for answer in (gateway.get(id), gateway.head(id), gateway.get(id, headers={"Range": "bytes=0-5"})):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox"


# ---------------------------------------------------------------------------------------------------------------------
# The page, in a browser
# ---------------------------------------------------------------------------------------------------------------------
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,900",
)  # fmt: skip


class Browser(webdriver.Chrome):
    """Chromium, with what a person does on the page."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        super().__init__(options, webdriver.ChromeService("/usr/bin/chromedriver"))

    def look(self, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Be a screen of this width, in pixels, of a person who likes it light or dark."""
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def text(self, id: str) -> str:
        return self.find_element(By.ID, id).text

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page where SCREENSHOTS says, if it does."""
        if folder := os.environ.get("SCREENSHOTS"):
            metrics = self.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": metrics["width"], "height": metrics["height"], "scale": 1}
            shot = self.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """The console's errors and violations of the policy; no refusals of the gateway, no advice to use HTTPS."""
        messages = [entry["message"] for entry in self.get_log("browser")]  # type: ignore[no-untyped-call]
        return [each for each in messages if not re.search("responded with a status|insecure connection", each)]

    def downloaded(self, id: str) -> bytes:
        """What was saved; the browser adds to the name what the type calls for."""
        return next((file.read_bytes() for file in self.downloads.glob(f"{id}*")), b"")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with still_network():
        browser = Browser(tmp_path)
        try:
            yield browser
            assert browser.complaints() == []
        finally:
            browser.quit()


def open_page(browser: Browser, gateway: Gateway) -> None:
    browser.get(f"http://{gateway.address}:3000/")


def row_of(browser: Browser, node: str) -> str:
    """The text of the node's row; empty before the page has drawn it."""
    script = "return [...document.querySelectorAll('#nodes tr')].map((row) => row.innerText)"
    rows: list[str] = browser.execute_script(script)
    return next((row for row in rows if node in row), "")


def test_a_person_uploads_looks_up_and_downloads(
    shared: Stack, four: Gateway, browser: Browser, tmp_path: Path
) -> None:
    open_page(browser, four)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    body, id = os.urandom(2_000_000), random_id()
    (tmp_path / "photo.png").write_bytes(body)
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "photo.png"))
    browser.find_element(By.ID, "new-id").send_keys(id)
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()
    eventually(lambda: browser.text("uploaded") == f"Stored photo.png, 2.0 MB, as {id}")
    eventually(lambda: shared.owner(id).name in browser.text("found"))
    assert "image/png" in browser.text("found")
    assert "2,000,000 bytes" in browser.text("found")
    assert four.get(id).body == body
    browser.find_element(By.CSS_SELECTOR, "#found a").click()
    eventually(lambda: browser.downloaded(id) == body)
    # a new id is made where none is given
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "photo.png"))
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()
    stored = eventually(lambda: re.search(r", as ([a-z0-9]{16})$", browser.text("uploaded")))
    assert four.get(stored[1]).body == body
    eventually(lambda: re.search(r"Counted \d+ s ago", browser.text("counted")))
    browser.shoot("light")


def test_with_the_keyboard_alone_an_object_is_found_and_downloaded(
    shared: Stack, gateway: Gateway, browser: Browser
) -> None:
    id = random_id()
    gateway.put(id, b"for the keyboard", headers={"Content-Type": "text/plain"})
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    def reach(wanted: str) -> None:
        for _ in range(12):
            press(Keys.TAB)
            active = browser.switch_to.active_element
            if wanted in (active.get_attribute("id"), active.text):
                assert "solid" in active.value_of_css_property("outline")  # it can be seen where one is
                return
        raise AssertionError(f"{wanted} can't be reached")

    reach("id")
    press(id, Keys.ENTER)
    eventually(lambda: shared.owner(id).name in browser.text("found"))
    reach("Download")
    press(Keys.ENTER)
    eventually(lambda: browser.downloaded(id) == b"for the keyboard")


def test_an_id_that_is_not_there_is_told_with_the_node_that_would_have_it(
    shared: Stack, gateway: Gateway, browser: Browser
) -> None:
    id = random_id()
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    told = f"There is no object with this id. It would be on {shared.owner(id).name}."
    eventually(lambda: browser.text("found") == told)


def test_a_node_that_stops_is_seen_without_a_reload(faulty: Stack, browser: Browser) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[1]
    open_page(browser, gateway)
    eventually(lambda: "up" in row_of(browser, node.name))
    node.stop()
    eventually(lambda: "stopped" in row_of(browser, node.name))
    assert browser.text("summary") == "Some nodes don't answer"
    for _ in range(30):
        for each in faulty.nodes:
            gateway.get(faulty.id_of(each))
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "#plot .failed"))
    browser.shoot("node-stopped")
    browser.look(scheme="dark")
    browser.shoot("node-stopped-dark")
    node.start()
    eventually(lambda: browser.text("summary") == "All nodes answer")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off(shared: Stack, gateway: Gateway, browser: Browser, scheme: str) -> None:
    id = shared.id_of(shared.nodes[0])
    gateway.put(id, b"small", headers={"Content-Type": "text/plain"})
    browser.look(360, 740, scheme)
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    eventually(lambda: "text/plain" in browser.text("found"))
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")
    eventually(lambda: re.search(r"Counted \d+ s ago", browser.text("counted")))
    browser.shoot(f"phone-{scheme}")


def test_with_tokens_the_page_shows_nothing_before_it_has_one(shared: Stack, browser: Browser) -> None:
    gateway = shared.add_gateway({"OBJGW_TOKENS": "treepotato"})
    open_page(browser, gateway)
    eventually(lambda: browser.switch_to.active_element.get_attribute("id") == "token")
    assert not browser.find_element(By.ID, "content").is_displayed()
    browser.shoot("token")
    browser.switch_to.active_element.send_keys("wrong", Keys.ENTER)
    eventually(lambda: browser.text("token-result") == "The gateway doesn't know this token.")
    browser.find_element(By.ID, "token").send_keys("treepotato", Keys.ENTER)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    id = random_id()
    gateway.put(id, b"behind a token", headers={"Authorization": "Bearer treepotato"})
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "#found a"))
    browser.find_element(By.CSS_SELECTOR, "#found a").click()
    eventually(lambda: browser.downloaded(id) == b"behind a token")
    browser.refresh()  # nothing is kept
    eventually(lambda: browser.find_element(By.ID, "token").is_displayed())


def test_the_page_runs_only_what_is_its_own(gateway: Gateway, browser: Browser) -> None:
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    assert browser.complaints() == []
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.bad = 1'}))"
    )
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=/object/a onerror=window.bad=1>')")
    assert browser.execute_script("return window.bad") is None
    assert len(browser.complaints()) >= 2


def test_the_page_shows_no_key_and_no_address(shared: Stack, gateway: Gateway) -> None:
    for path in ("/", "/status.json", "/health", "/metrics"):
        body = gateway.request("GET", path).body.decode()
        assert not [secret for secret in shared.secrets if secret in body]
        assert not re.search(r"https?://(?!www\.w3\.org)", body.split("# HELP")[0])
