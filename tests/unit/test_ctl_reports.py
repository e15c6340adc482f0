"""What `objgwctl.py nodes` calls a node, and says of it."""

from __future__ import annotations

import pytest

from gateway.ctl.cluster import Cluster
from gateway.ctl.errors import NodeError
from gateway.ctl.layout_store import Survey
from gateway.ctl.reports import node_state, problems_of
from gateway.nodes.layout import Layout
from gateway.nodes.store import Record
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

LAYOUT = Layout.first(["a", "b"])
UNREADABLE = "a secret with its keys can't be read: Permission denied"


def cluster_of(*endpoints: Endpoint) -> Cluster:
    """Nodes as a source has listed them."""
    cluster = Cluster(Settings(nodes="a=http://key:secret@127.0.0.1:9000"))
    cluster.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
    return cluster


@pytest.mark.parametrize(
    ("endpoint", "record", "state"),
    [
        (Endpoint("b", "id", "10.0.0.1"), None, "missing"),
        (Endpoint("a", "id"), None, "not running"),
        (Endpoint("a", "id", problem=UNREADABLE), None, "unusable"),
        (Endpoint("a", "id", "10.0.0.1"), None, "no answer"),
        (Endpoint("a", "id", "10.0.0.1"), Record(LAYOUT, "a", '"1"'), "running"),
    ],
)
def test_a_member_is_called_what_it_is(
    endpoint: Endpoint, record: Record | None, state: str
) -> None:
    survey = Survey(LAYOUT, {"a": record} if record else {}, {}, {})
    assert node_state(cluster_of(endpoint), survey, "a") == state


def test_a_node_that_is_back_after_it_was_given_up_is_not_about_to_join() -> None:
    before = Layout.first(["a", "b", "c"])
    layout = before.without(["c"], 0.0, lost=True).all_moved().settle()
    survey = Survey(layout, {"c": Record(before, "c", '"1"')}, {}, {})
    state = node_state(cluster_of(Endpoint("c", "id", "10.0.0.1")), survey, "c")
    assert state == "returned"
    (told,) = problems_of([{"name": "c", "state": state}])
    assert told == "c was given up, is back with its record from then, and is left alone."


def test_a_node_whose_keys_can_not_be_read_is_not_said_to_be_stopped() -> None:
    cluster = cluster_of(Endpoint("a", "id", problem=UNREADABLE))
    with pytest.raises(NodeError, match=f"^a can't be used: {UNREADABLE}$"):
        cluster.client("a")
    (told,) = problems_of([{"name": "a", "state": "unusable", "problem": UNREADABLE}])
    assert told == f"a runs, and can't be used: {UNREADABLE}."
