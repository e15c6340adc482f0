"""Health, as those see it who run a gateway: over HTTP."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.status import GUARDED, OPEN, health, samples, states, wait_healthy
from tests.harness.waiting import eventually


def test_while_all_nodes_answer_all_of_health_says_so(shared: Stack, four: Gateway) -> None:
    said = health(four)
    assert (said["status"], said["layout"]) == (
        "ok",
        {"names": sorted(node.name for node in shared.nodes), "settled": True, "moving": False},
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
    eventually(
        lambda: gateway.request("GET", "/health/ready").problem["detail"] == "No node answers."
    )
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
        assert (
            gateway.request("GET", path, headers={"Authorization": "Bearer bluegreen3"}).status
            == 401
        )
        for token in tokens.values():
            assert (
                gateway.request("GET", path, headers={"Authorization": f"Bearer {token}"}).status
                == 200
            )
    may_write = []
    for token in tokens.values():
        sent = {"Authorization": f"Bearer {token}"}
        status = json.loads(gateway.request("GET", "/status.json", headers=sent).body)
        may_write.append(status["may_write"])
    assert may_write == [True, False]
    assert not re.search("treepotato|baconpapaya|bluegreen", gateway.logs())


def test_the_page_and_its_data_can_be_switched_off(shared: Stack) -> None:
    gateway = shared.add_gateway({"OBJGW_PAGE": "off"})
    assert [
        gateway.request("GET", path).status for path in ("/", "/status.json", "/health/live")
    ] == [404, 404, 200]


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


SERVER = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(%d)
        self.send_header("Content-Length", "%d")
        self.end_headers()
        self.wfile.write(%r)

    do_PUT = do_HEAD = do_GET

http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""


def server(status: int, body: bytes) -> str:
    """A script that answers everything so."""
    return SERVER % (status, len(body), body)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()


# Servers that answer and serve no request, and what is said of each.
UNUSABLE = {
    "web": (server(404, b"<html>not found</html>"), "it isn't a server of S3"),
    "hello": (server(200, b"hello"), "its record"),
    "clock": (server(403, error("RequestTimeTooSkewed")), "its clock"),
    "refuses": (server(403, error("AccessDenied")), "has no right to read"),
    "banner": (
        "import socket\nwith socket.create_server(('0.0.0.0', 9000)) as listener:\n"
        "    while True:\n        with listener.accept()[0] as client:\n"
        "            client.send(b'220 hello\\r\\n')",
        "what it sends isn't HTTP/1.1 as S3 speaks it",
    ),
}


def test_up_is_only_a_node_that_would_serve_a_signed_request_now(stack: Stack) -> None:
    said = {f"{stack.marker}-{name}": reason for name, (_, reason) in UNUSABLE.items()}
    for name, (script, _) in UNUSABLE.items():
        stack.add_fake(name, script)
    good, wrong_keys, wrong_region = (
        stack.add_node("1"),
        stack.add_node(
            "keys",
            "other-user",
            "other-password",
            env={"MINIO_ROOT_USER": "other-user", "MINIO_ROOT_PASSWORD": "told-password"},
            entrypoint=["sh", "-c", "MINIO_ROOT_PASSWORD=other-password exec minio server /data"],
        ),
        stack.add_node(
            "region",
            entrypoint=["sh", "-c", "MINIO_REGION=eu-west-9 exec minio server /data"],
        ),
    )
    said |= {wrong_keys.name: "its secret key isn't", wrong_region.name: "its region isn't"}
    gateway = stack.add_gateway()
    wanted = {**dict.fromkeys(said, "down"), good.name: "up"}
    eventually(lambda: states(gateway) == wanted)
    ups = {(name,): float(state == "up") for name, state in wanted.items()}
    # There is a layout only after the others were waited for: they may have the record.
    eventually(lambda: samples(gateway, "objgw_node_up") == ups)
    for path in ("/health", "/status.json"):
        document = json.loads(gateway.request("GET", path).body)
        assert document["status"] == "degraded"
        for node in document["nodes"]:
            assert said.get(node["name"], "") in (node["last_error"] or ""), node
    for name, reason in said.items():
        assert gateway.lines(f"WARNING objgw.status node {name} is down: ")
        assert gateway.lines(reason)
