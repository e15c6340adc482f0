"""Nodes that are listed in a setting or a file, and a gateway that has no Docker to ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import pytest
import trustme

from tests.harness.checks import PROMPT, assert_unavailable, has, stores
from tests.harness.engine import Lab
from tests.harness.gateway import Gateway, put_file
from tests.harness.http import MIB
from tests.harness.layout import rebalance, wait_in_force
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.status import health
from tests.harness.waiting import eventually, random_id, together

NODES_FILE = "/srv/nodes"
CA_FILE = "/srv/ca.pem"


def line(node: Node, scheme: str = "http", host: str = "", password: str = "") -> str:
    keys = f"{quote(node.user, safe='')}:{quote(password or node.password, safe='')}"
    return f"{node.name}={scheme}://{keys}@{host or node.address}:9000"


@dataclass
class Listed:
    """A gateway without Docker, and the file that lists its nodes."""

    gateway: Gateway

    def write(self, lines: Iterable[str]) -> None:
        put_file(self.gateway.container, NODES_FILE, "\n".join(lines).encode())

    def logs(self, text: str) -> bool:
        return text in self.gateway.logs()


def add_listed(
    stack: Stack, lines: Iterable[str], files: Mapping[str, bytes] | None = None, **env: str
) -> Listed:
    env = {"OBJGW_NODES_FILE": NODES_FILE, "OBJGW_DISCOVERY_SECONDS": "0.5", **env}
    listed = Listed(stack.add_gateway(env, start=False, volumes={}))
    listed.write(lines)
    for path, text in (files or {}).items():
        put_file(listed.gateway.container, path, text)
    listed.gateway.start()
    listed.gateway.wait_up()
    return listed


def put_each(gateway: Gateway, nodes: Iterable[Node]) -> dict[Node, str]:
    """Stores an object, whose bytes are its id, on each of the nodes."""
    ids = {node: gateway.stack.id_of(node) for node in nodes}
    for id in ids.values():
        assert eventually(lambda id=id: gateway.put(id, id.encode()).status == 200, within=PROMPT)
    return ids


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[Stack]:
    stack = Stack(lab)
    try:
        stack.add_nodes("123")
        yield stack
    finally:
        stack.close()


@pytest.fixture
def gateways(three: Stack) -> Iterator[Stack]:
    """The three nodes; the gateways that a test adds go."""
    yield three
    for gateway in list(three.gateways):
        gateway.remove()


def test_the_list_and_docker_find_the_same_objects_beside_each_other(gateways: Stack) -> None:
    by_docker = gateways.add_gateway()
    by_docker.wait_ready()
    names = " ".join(line(node) for node in gateways.nodes)
    by_list = gateways.add_gateway({"OBJGW_NODES": names}, volumes={})
    by_list.wait_ready()
    for one, other in ((by_docker, by_list), (by_list, by_docker)):
        ids = put_each(one, gateways.nodes)
        assert all(has(other, id) for id in ids.values())
        for node, id in ids.items():
            assert gateways.holders(id) == [node]
    report = by_list.ctl("nodes", "--json").report
    assert report["names"] == [node.name for node in gateways.nodes]
    assert "uid=0" not in by_list.read("sh", "-c", "grep Uid /proc/[0-9]*/status | head -50")


def test_a_listed_node_that_stops_is_503_until_it_is_back(gateways: Stack) -> None:
    gateway = add_listed(gateways, map(line, gateways.nodes)).gateway
    ids = put_each(gateway, gateways.nodes)
    lost, *others = gateways.nodes
    with gateways.steady(gateway, [ids[node] for node in others]):
        lost.stop()
        assert_unavailable(gateway.get(ids[lost]))
        lost.start()
        eventually(has, gateway, ids[lost], within=PROMPT)


def test_keys_that_change_in_the_file_count_without_a_restart(gateways: Stack) -> None:
    listed = add_listed(gateways, map(line, gateways.nodes))
    ids = put_each(listed.gateway, gateways.nodes)
    *others, changed = gateways.nodes
    with gateways.steady(listed.gateway, [ids[node] for node in others]):
        changed.recreate(password="with/all:of@them?#%+ä")
        listed.write(map(line, gateways.nodes))
        eventually(has, listed.gateway, ids[changed], within=PROMPT)


def test_a_wrong_file_changes_nothing_and_the_log_names_its_line(gateways: Stack) -> None:
    lines = [line(node) for node in gateways.nodes]
    listed = add_listed(gateways, lines)
    ids = put_each(listed.gateway, gateways.nodes)
    for wrong, told in {
        "node-4=http://somekey:treepotato@10.0.0.1:x": "line 4: node-4: its port isn't 1 to 65535",
        lines[0]: f"line 4: {gateways.nodes[0].name} is in line 1, too",
    }.items():
        listed.write([*lines, wrong])
        eventually(listed.logs, told, within=PROMPT)
        listed.write(lines)
        eventually(listed.logs, "can be read again", within=PROMPT)
    assert all(has(listed.gateway, id) for id in ids.values())
    assert not listed.logs("treepotato")
    assert not listed.logs("somekey")


def test_a_line_that_is_added_grows_the_layout_and_one_that_is_removed_keeps_its_place(
    stack: Stack,
) -> None:
    nodes = stack.add_nodes("123")
    listed = add_listed(stack, map(line, nodes))
    gateway = listed.gateway
    gateway.wait_ready()
    ids = [random_id() for _ in range(100)]
    assert [gateway.put(id, id.encode()).status for id in ids] == [200] * len(ids)

    fourth = stack.add_node("4")
    listed.write(map(line, stack.nodes))
    wait_in_force(gateway, stack.nodes)
    rebalance(gateway)
    assert all(has(gateway, id) for id in ids)
    assert {holder for id in ids for holder in stack.holders(id)} == set(stack.nodes)

    listed.write(map(line, nodes))
    mine = [id for id in ids if id in fourth.ids()]
    eventually(lambda: gateway.get(mine[0]).status == 503, within=PROMPT)
    assert all(has(gateway, id) for id in ids if id not in mine)
    listed.write(map(line, stack.nodes))
    eventually(has, gateway, mine[0], within=PROMPT)
    done = gateway.ctl("remove", fourth.name)
    assert done.code == 0, done
    assert all(has(gateway, id) for id in ids)


def test_a_name_that_resolves_elsewhere_is_followed(gateways: Stack) -> None:
    """Docker's own name server has the names of the containers."""
    listed = add_listed(gateways, [line(node, host=node.name) for node in gateways.nodes])
    ids = put_each(listed.gateway, gateways.nodes)
    *others, moved = gateways.nodes
    with gateways.steady(listed.gateway, [ids[node] for node in others]):
        moved.recreate(address=gateways.new_address())
        eventually(has, listed.gateway, ids[moved], within=PROMPT)


@dataclass
class Authority:
    """Who says that a node's certificate is good."""

    ca: trustme.CA

    def serve(self, node: Node, *names: str) -> None:
        """Makes a node speak TLS, with a certificate for these names and addresses."""
        certificate = self.ca.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        node.stop()
        put_file(node.container, "/data/public.crt", chain)
        put_file(node.container, "/data/private.key", certificate.private_key_pem.bytes())
        node.container.start()


def add_tls_node(stack: Stack, suffix: str) -> Node:
    """A node that speaks TLS once an `Authority` has made it."""
    script = (
        "mkdir -p /tmp/certs; cp /data/public.crt /data/private.key /tmp/certs/ 2>/dev/null; "
        "exec minio server --certs-dir /tmp/certs /data"
    )
    return stack.add_node(suffix, entrypoint=["sh", "-c", script])


def test_a_rebalance_moves_small_and_large_objects_between_nodes_that_speak_tls(
    stack: Stack,
) -> None:
    ca = trustme.CA()
    nodes = [add_tls_node(stack, suffix) for suffix in "ab"]
    for node in nodes:
        Authority(ca).serve(node, node.address)
    lines = [line(node, "https") for node in nodes]
    files = {CA_FILE: ca.cert_pem.bytes()}
    listed = add_listed(stack, lines[:1], files, OBJGW_NODES_CA_FILE=CA_FILE)
    bodies = {random_id(): bytes([n]) * (100 if n % 4 else 6 * MIB) for n in range(24)}
    for id, body in bodies.items():
        eventually(stores, listed.gateway, id, body, within=PROMPT)
    listed.write(lines)
    listed.gateway.wait_layout(node.name for node in nodes)
    rebalance(listed.gateway)
    rows = listed.gateway.layout()["nodes"]
    assert sum(row["objects"] for row in rows) == len(bodies)
    assert all(row["objects"] for row in rows)
    assert {id: listed.gateway.get(id).body for id in bodies} == bodies


def test_tls_to_nodes_is_used_where_the_certificate_is_good_and_else_refused_with_the_reason(
    stack: Stack,
) -> None:
    ca, other = trustme.CA(), trustme.CA()
    nodes = together(partial(add_tls_node, stack, suffix) for suffix in "abc")
    good, untrusted, misnamed = nodes
    Authority(ca).serve(good, good.address)
    Authority(other).serve(untrusted, untrusted.address)
    Authority(ca).serve(misnamed, "elsewhere.example")
    lines = [line(node, "https") for node in nodes]
    authorities = ca.cert_pem.bytes()
    for chosen, reason in {
        good: "",
        untrusted: "its certificate isn't trusted: ",
        misnamed: "its certificate is for another name",
    }.items():
        listed = add_listed(
            stack,
            [lines[nodes.index(chosen)]],
            {CA_FILE: authorities},
            OBJGW_NODES_CA_FILE=CA_FILE,
            OBJGW_BUCKET=f"objgw-{chosen.name[-1]}",
        )
        gateway, id, body = listed.gateway, random_id(), random_id().encode() * 50_000
        if reason:
            assert_unavailable(gateway.put(id, b"x"))
            eventually(listed.logs, f"node {chosen.name} can't be asked: {reason}", within=PROMPT)
            continue
        eventually(stores, gateway, id, body, within=PROMPT)
        assert gateway.get(id).body == body
        assert gateway.get(id, headers={"Range": "bytes=5-9"}).body == body[5:10]
        (row,) = gateway.ctl("nodes", "--json").report["nodes"]
        assert row["objects"] == 1
        usage = eventually(lambda gateway=gateway: health(gateway)["nodes"][0]["usage"])
        assert usage["total_bytes"] == row["total_bytes"] > row["free_bytes"]
