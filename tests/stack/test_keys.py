"""Keys of nodes: where they are read from, and that nobody is shown them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.harness.checks import METHODS, has, store
from tests.harness.engine import Lab
from tests.harness.stack import Stack
from tests.harness.waiting import random_id, together


def of_rustfs(user: str, password: str) -> dict[str, Any]:
    """A MinIO that takes its keys from the variables of RustFS."""
    server = (
        'MINIO_ROOT_USER="$RUSTFS_ACCESS_KEY" MINIO_ROOT_PASSWORD="$RUSTFS_SECRET_KEY" exec '
        "minio server /data"
    )
    env = {"RUSTFS_ACCESS_KEY": user, "RUSTFS_SECRET_KEY": password}
    return {"user": user, "password": password, "env": env, "entrypoint": ["sh", "-c", server]}


KEYS: dict[str, dict[str, Any]] = {
    "MINIO_ROOT_USER": {},
    "MINIO_ACCESS_KEY": {
        "user": "access-user",
        "password": "access-password",
        "env": {"MINIO_ACCESS_KEY": "access-user", "MINIO_SECRET_KEY": "access-password"},
    },
    "MINIO_ROOT_USER before MINIO_ACCESS_KEY": {
        "user": "winning-user",
        "password": "winning-password",
        "env": {
            "MINIO_ACCESS_KEY": "losing-user",
            "MINIO_SECRET_KEY": "losing-password",
            "MINIO_ROOT_USER": "winning-user",
            "MINIO_ROOT_PASSWORD": "winning-password",
        },
    },
    "RUSTFS_ACCESS_KEY": of_rustfs("rust-user", "rust-password"),
    "nothing set": {"user": "minioadmin", "password": "minioadmin", "env": {}},
    "values with an equals sign": {
        "user": "user+a/b.c",
        "password": "pass=word==with/signs+&%41 and blank",
    },
    "a site region": {"region": "eu-central-7"},
    "a region before a site region": {
        "env": {
            "MINIO_ROOT_USER": "region-user",
            "MINIO_ROOT_PASSWORD": "region-password",
            "MINIO_REGION": "eu-north-3",
            "MINIO_SITE_REGION": "losing-1",
        },
        "user": "region-user",
        "password": "region-password",
        "region": "eu-north-3",
    },
    "blanks, which MinIO trims": {
        "env": {
            "MINIO_ROOT_USER": " trimmed-user ",
            "MINIO_ROOT_PASSWORD": "\ttrimmed-gr\u00fcn-\u9375 ",
            "MINIO_ACCESS_KEY": "  ",
            "MINIO_SITE_REGION": " ",
        },
        "user": "trimmed-user",
        "password": "trimmed-gr\u00fcn-\u9375",
    },
}


@pytest.fixture(scope="module")
def keyed(lab: Lab) -> Iterator[Stack]:
    """A node for each way to set keys, in the order of KEYS."""
    stack = Stack(lab)
    try:
        together(
            partial(stack.add_node, str(number), **keys)
            for number, keys in enumerate(KEYS.values())
        )
        stack.nodes.sort(key=lambda node: node.name)
        stack.add_gateway().wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.mark.parametrize("number", range(len(KEYS)), ids=list(KEYS))
def test_a_node_is_used_with_the_keys_and_region_that_its_environment_sets(
    keyed: Stack, number: int
) -> None:
    gateway, node = keyed.gateways[0], keyed.nodes[number]
    id = keyed.id_of(node)
    assert gateway.put(id, id.encode()).status == 200
    assert has(gateway, id)
    assert keyed.holders(id) == [node]
    assert gateway.delete(id).status == 204


def test_a_node_s_user_may_be_any_text(stack: Stack) -> None:
    node = stack.add_node("1", "gr\u00fcn-\u9375", "geheim-\u9375-\U0001f511")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    id = store(stack, [node])[node]
    assert has(gateway, id)


def test_ids_of_a_node_that_refuses_the_keys_of_its_environment_get_503_and_others_are_untouched(
    stack: Stack,
) -> None:
    server = "MINIO_ROOT_USER=other-user MINIO_ROOT_PASSWORD=other-password exec minio server /data"
    wrong = {"MINIO_ROOT_USER": "told-user", "MINIO_ROOT_PASSWORD": "told-password"}
    bad = stack.add_node(
        "1", "other-user", "other-password", env=wrong, entrypoint=["sh", "-c", server]
    )
    good = stack.add_node("2")
    stack.secrets |= {"told-user", "told-password"}
    gateway = stack.add_gateway()
    gateway.wait_ready([stack.id_of(good)])
    with stack.steady(gateway, [stack.id_of(good)]):
        for request in (gateway.get, gateway.put, gateway.delete):
            answer = request(stack.id_of(bad))
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "refuses the gateway's requests" in answer.problem["detail"]
        assert gateway.head(stack.id_of(bad)).status == 503
    assert bad.ids() == set()
    assert "told-password" not in gateway.logs()


def test_neither_answers_nor_the_log_show_keys_and_answers_show_no_address(faulty: Stack) -> None:
    node, other = faulty.nodes[:2]
    gateway = faulty.add_gateway({"OBJGW_NODE_TIMEOUT": "3"})
    gateway.wait_ready()
    ids = store(faulty, faulty.nodes)
    answers = [
        gateway.get(ids[node]),
        gateway.get(random_id()),
        gateway.get("no-id"),
        gateway.request("POST", "/x"),
    ]
    for fault in (node.pause, node.unpause, node.stop, node.remove):
        fault()
        answers += [gateway.request(method, f"/object/{ids[node]}") for method in METHODS]
        answers += [gateway.request(method, f"/object/{ids[other]}") for method in METHODS]
    assert {answer.status for answer in answers} >= {200, 204, 400, 404, 503}
    shown = "".join(f"{answer.headers}{answer.body!r}" for answer in answers)
    for each in (node, other):
        for secret in (each.user, each.password, each.address):
            assert secret not in shown
        assert each.user not in gateway.logs()
        assert each.password not in gateway.logs()
    assert "Traceback" not in shown
