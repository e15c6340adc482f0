"""Values of headers that come back byte for byte, also after a rebalance."""

from __future__ import annotations

import pytest

from tests.harness.engine import BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, NO_DATES, code, pattern
from tests.harness.stack import Stack
from tests.harness.waiting import random_id


def latin(text: str) -> str:
    """What HTTP's headers have for this text in UTF-8."""
    return text.encode().decode("latin-1")


EXACT = [
    ("Content-Disposition", latin("attachment; filename=voilà")),  # ends with the byte A0
    ("Content-Disposition", latin("attachment; filename=…")),
    ("Content-Disposition", "\x85begins with NEL, ends with NBSP\xa0"),
    ("Content-Language", "\xa0"),
    ("Cache-Control", latin("no-store, x=Å")),  # ends with the byte 85
    ("Content-Type", latin("text/x; name=voilà")),
    ("Expires", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("Expires", "Thu, 29 Feb 2024 23:59:59 GMT"),
    ("x-amz-meta-a", "b, c;  d"),
]


@pytest.mark.parametrize(("name", "value"), EXACT)
def test_a_value_comes_back_byte_for_byte(gateway: Gateway, name: str, value: str) -> None:
    id = random_id()
    assert gateway.put(id, b"body", headers={name: value}).status == 200
    assert (
        gateway.get(id).headers.get_all(name) == gateway.head(id).headers.get_all(name) == [value]
    )


@pytest.mark.parametrize("value", NO_DATES)
def test_expires_that_is_no_date_as_servers_write_it_is_400(gateway: Gateway, value: str) -> None:
    id = random_id()
    assert code(gateway.put(id, b"body", headers={"Expires": value})) == 400
    assert gateway.get(id).status == 404


def test_a_rebalance_takes_headers_along_byte_for_byte(stack: Stack) -> None:
    stack.add_nodes("1")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    stored = {
        random_id(): (name, value, size)
        for name, value in EXACT
        for size in (10, 6 * MIB)
        for _ in range(3)
    }
    for id, (name, value, size) in stored.items():
        assert gateway.put(id, pattern(size), headers={name: value}).status == 200
    before = {id: stack.nodes[0].client().stat_object(BUCKET, id).metadata for id in stored}
    stack.add_node("2")
    gateway.wait_layout([node.name for node in stack.nodes])
    done = gateway.ctl("rebalance")
    assert done.code == 0, str(done)
    moved = [id for id in stored if stack.owner(id) is stack.nodes[1]]
    assert {stored[id][2] for id in moved} == {10, 6 * MIB}
    for id, (name, value, size) in stored.items():
        answer = gateway.get(id)
        assert answer.headers.get_all(name) == [value]
        assert answer.body == pattern(size)
        node = stack.owner(id)
        kept, old = node.client().stat_object(BUCKET, id).metadata, before[id]
        assert kept is not None
        assert old is not None
        assert {name: kept[name] for name in kept if name.lower() in ANSWERED} == {
            name: old[name] for name in old if name.lower() in ANSWERED
        }
        assert node.ids() >= {id}


ANSWERED = {name.lower() for name, _ in EXACT} | {"etag", "last-modified", "content-length"}
