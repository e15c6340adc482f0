"""The first layout: nodes that appear one after another, and gateways that make it at once."""

from __future__ import annotations

import io

from gateway.nodes.layout import RECORD, Layout
from gateway.nodes.record_json import dump
from tests.harness.engine import LAYOUT_BUCKET
from tests.harness.http import code
from tests.harness.layout import (
    Model,
    assert_at_home,
    assert_one_request_upstream,
    names_of,
    record_of,
    store,
)
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id, together

NO_S3 = """
import http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    do_PUT = do_POST = do_DELETE = http.server.SimpleHTTPRequestHandler.do_GET
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""

CLOSING = """
import socket
server = socket.create_server(("0.0.0.0", 9000))
while True:
    server.accept()[0].close()
"""


def test_nodes_that_appear_one_after_another_before_anything_is_stored_are_settled_by_themselves_and_only_s3_joins(  # noqa: E501
    stack: Stack,
) -> None:
    gateway = stack.add_gateway()
    assert code(gateway.get(random_id())) == 503
    for suffix in "213":
        stack.add_node(suffix)
        gateway.wait_layout(names_of(stack.nodes))
        if suffix == "2":
            # the first layout, all that Docker lists, is made: from now on only S3 joins
            gateway.wait_ready()
            stack.add_fake("0", NO_S3)
            stack.add_fake("9", CLOSING)
    gateway.wait_layout(names_of(stack.nodes), settled=True, within=60)
    # Nothing had to stay where it was, so that the ids are spread as if all had been there at once.
    assert record_of(stack.nodes[0]).memberships[0].history == ()
    models = [Model() for _ in range(60)]
    store(gateway, models)
    assert_at_home(gateway, models, stack.nodes)
    assert_one_request_upstream(gateway, models[:10], stack.nodes)
    assert all(node.client().bucket_exists(LAYOUT_BUCKET) for node in stack.nodes)
    assert {id for node in stack.nodes for id in node.ids()} == {model.id for model in models}
    gateway.restart()
    gateway.wait_ready()
    assert gateway.layout()["names"] == names_of(stack.nodes)
    assert_at_home(gateway, models, stack.nodes)


def test_first_layouts_that_gateways_made_at_once_are_one_and_settled(stack: Stack) -> None:
    """Each on another node, as where each of two gateways saw one of the nodes late."""
    names = names_of(stack.add_nodes("12"))
    for node in stack.nodes:
        record = dump(Layout.first(names, unrecorded=names), node.name)
        node.client().make_bucket(LAYOUT_BUCKET)
        node.client().put_object(LAYOUT_BUCKET, RECORD, io.BytesIO(record), len(record))
    gateway, other = together([stack.add_gateway] * 2)
    for each in (gateway, other):  # of one worker, so that each has begun by then
        each.wait_ready()

    def layouts() -> set[Layout]:
        return {record_of(node) for node in stack.nodes}

    eventually(lambda: len(layouts()) == 1 and not layouts().pop().unrecorded)
    assert layouts().pop().settled
    other.remove()  # what it asks of its own accord would be counted
    models = [Model() for _ in range(20)]
    store(gateway, models)
    assert_one_request_upstream(gateway, models, stack.nodes)
