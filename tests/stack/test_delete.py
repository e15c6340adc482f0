"""DELETE: what was there is gone, and at a node that is down nothing is deleted."""

from __future__ import annotations

from tests.harness.gateway import Answer, Gateway
from tests.harness.http import code, store
from tests.harness.stack import Stack


def delete(gateway: Gateway, id: str) -> Answer:
    return gateway.request("DELETE", f"/object/{id}")


def test_delete_is_204_whether_the_object_is_there_or_not(gateway: Gateway) -> None:
    id = store(gateway)
    for _ in range(2):
        answer = delete(gateway, id)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Content-Length"] is None  # RFC 9110, 8.6
        assert gateway.get(id).status == gateway.head(id).status == 404


def test_a_deleted_object_can_be_made_again(gateway: Gateway) -> None:
    delete(gateway, id := store(gateway, b"old"))
    assert gateway.put(id, b"new", headers={"If-None-Match": "*"}).status == 200
    assert gateway.get(id).body == b"new"


def test_delete_at_a_dead_node_is_503_and_deletes_nothing(faulty: Stack) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[2]
    id = store(gateway, id=faulty.id_of(node))
    node.container.kill()
    answer = delete(gateway, id)
    assert code(answer) == 503
    assert int(answer.headers["Retry-After"]) > 0
    node.start()
    gateway.wait_ready([id])
    assert gateway.get(id).body == b"an object"
