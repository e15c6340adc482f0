"""What tests say of a gateway again and again: an id is unavailable, an object is there, no node
got another's id.
"""

from __future__ import annotations

from tests.harness.gateway import Answer, Gateway
from tests.harness.node import Node
from tests.harness.stack import Stack

PROMPT = 20  # seconds within which a node is found (again)

METHODS = ("GET", "HEAD", "PUT", "DELETE")


def assert_unavailable(answer: Answer, body: bool = True) -> None:
    """It is a 503 that says when to try again and why."""
    assert answer.status == 503, answer
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    if body:
        assert answer.problem["title"] == "Service Unavailable"


def assert_unavailable_for_all_methods(gateway: Gateway, id: str) -> None:
    for method in METHODS:
        body = b"x" if method == "PUT" else None
        assert_unavailable(gateway.request(method, f"/object/{id}", body), body=method != "HEAD")


def store(stack: Stack, nodes: list[Node]) -> dict[Node, str]:
    """Puts one object, whose bytes are its id, on each of the nodes."""
    ids = {node: stack.id_of(node) for node in nodes}
    for id in ids.values():
        assert stack.gateways[0].put(id, id.encode()).status == 200
    return ids


def has(gateway: Gateway, id: str) -> bool:
    """Whether the gateway returns the object that `store` put there."""
    answer = gateway.get(id)
    return answer.status == 200 and answer.body == id.encode()


def stores(gateway: Gateway, id: str, body: bytes = b"") -> bool:
    """Whether a PUT of it succeeds."""
    return gateway.put(id, body).status == 200


def assert_only_own_ids_reached(stack: Stack) -> None:
    """No node was ever asked for an id that isn't its own."""
    for node in stack.nodes:
        strays = [call for call in node.calls() if call.key and stack.owner(call.key) is not node]
        assert not strays, f"{node.name} was asked for ids of another node: {strays}"
