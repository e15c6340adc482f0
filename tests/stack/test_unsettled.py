"""An unsettled layout, request by request: a node has joined, and nothing has moved yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from gateway.nodes.layout import TOMBSTONE
from tests.harness.engine import Lab
from tests.harness.gateway import Gateway
from tests.harness.http import MIB, code
from tests.harness.layout import (
    ABSENT,
    JOIN,
    Clients,
    Model,
    assert_at_home,
    etag,
    names_of,
    places,
    rebalance,
    wait_in_force,
)
from tests.harness.listing import NDJSON, listed_meanwhile, pages, stream
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner, random_id, together

HEADERS = {
    "Content-Type": "text/x-first; charset=utf-8",
    "Cache-Control": "max-age=60",
    "Content-Disposition": 'attachment; filename="a b.txt"',
    "Content-Language": "de",
    "x-amz-meta-note": "kept",
}

BODIES = [b"ten bytes!", b"", bytes(range(256)) * 400, b"the usual object, of some bytes"]


@dataclass
class Unsettled:
    """Three nodes with objects, and a fourth that joined: nothing has moved yet.

    `there` is what must be there by now: bytes, or None of what was deleted.
    """

    stack: Stack
    gateway: Gateway
    old: list[Node]
    there: dict[str, bytes | None] = field(default_factory=dict)
    untouched: list[str] = field(default_factory=list)

    def take(
        self, size: int | None = None, old: Node | None = None, new: Node | None = None
    ) -> str:
        """The id of an object (of that size, with that old owner) that has moved on paper only,
        and is the test's now.
        """
        for id in self.untouched:
            fits = size in (None, len(self.there[id] or b"")) and (
                not old or self.old_owner(id) is old
            )
            if fits and (not new or self.stack.owner(id) is new):
                self.untouched.remove(id)
                return id
        raise AssertionError("no such object is left")

    def old_owner(self, id: str) -> Node:
        name = owner(id, names_of(self.old))
        return next(node for node in self.old if node.name == name)

    def new_id(self, old: Node, new: Node) -> str:
        """An id that nothing was ever stored under, with these owners."""
        return next(
            id
            for id in iter(random_id, None)
            if self.old_owner(id) is old and self.stack.owner(id) is new
        )

    def put(self, id: str, body: bytes, status: int = 200, **conditions: str) -> None:
        named = {name.replace("_", "-"): value for name, value in conditions.items()}
        answer = self.gateway.put(id, body, headers={"Content-Type": "text/x-second", **named})
        assert code(answer) == status
        if status == 200:
            self.there[id] = body

    def delete(self, id: str) -> None:
        assert self.gateway.delete(id).status == 204
        self.there[id] = None

    def assert_read(self, id: str) -> None:
        """GET and HEAD bring what must be there."""
        body, got, asked = self.there[id], self.gateway.get(id), self.gateway.head(id)
        if body is None:
            assert (code(got), asked.status) == (404, 404)
            return
        assert (got.status, got.body, asked.status) == (200, body, 200)
        for answer in (got, asked):
            assert answer.headers["ETag"] == etag(body)
            assert answer.headers["Content-Length"] == str(len(body))
            assert "objgw" not in str(answer.headers).lower()
            if answer.headers["Content-Type"] != "text/x-second":
                assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@contextmanager
def unsettled_stack(
    lab: Lab, objects: int = 400, bodies: Sequence[bytes] = BODIES
) -> Iterator[Unsettled]:
    stack = Stack(lab)
    try:
        stack.add_nodes("123")
        gateway = stack.add_gateway()
        gateway.wait_ready()
        layout = Unsettled(stack, gateway, list(stack.nodes))
        for number in range(objects):
            layout.there[random_id()] = bodies[number % len(bodies)]
        stored = together(
            partial(gateway.put, id, body or b"", headers=HEADERS)
            for id, body in layout.there.items()
        )
        assert {answer.status for answer in stored} == {200}
        stack.add_node("4")
        wait_in_force(gateway, stack.nodes)
        layout.untouched = [
            id for id in layout.there if stack.owner(id) is not layout.old_owner(id)
        ]
        yield layout
    finally:
        stack.close()


@pytest.fixture(scope="module")
def unsettled(lab: Lab) -> Iterator[Unsettled]:
    with unsettled_stack(lab) as layout:
        yield layout


@pytest.fixture
def another_unsettled(lab: Lab) -> Iterator[Unsettled]:
    """One for a test that settles it."""
    with unsettled_stack(lab) as layout:
        yield layout


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_an_object_that_has_not_moved_yet_is_read_as_ever(
    unsettled: Unsettled, body: bytes
) -> None:
    gateway, id = unsettled.gateway, unsettled.take(len(body))
    unsettled.assert_read(id)
    date = gateway.head(id).headers["Last-Modified"]
    for headers, status in [
        ({"If-None-Match": etag(body)}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": etag(body)}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Modified-Since": date}, 304),
        ({"If-Unmodified-Since": date}, 200),
        ({"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 412),
    ]:
        for method in ("GET", "HEAD"):
            answer = gateway.request(method, f"/object/{id}", headers=headers)
            assert answer.status == status, (method, headers)
            assert answer.body == (body if status == 200 and method == "GET" else answer.body)
    for value, status, part in [
        ("bytes=2-5", 206, body[2:6]),
        ("bytes=-3", 206, body[-3:]),
        ("bytes=200000-", 416, b""),
    ]:
        answer = gateway.get(id, headers={"Range": value})
        if body:
            assert code(answer) == status
            assert status == 416 or answer.body == part
    if body:
        assert (
            gateway.get(id, headers={"Range": "bytes=2-5", "If-Range": etag(body)}).body
            == body[2:6]
        )
        assert gateway.get(id, headers={"Range": "bytes=2-5", "If-Range": '"other"'}).body == body
    assert places(unsettled.stack.nodes, [id])[id] == [unsettled.old_owner(id).name]


@pytest.mark.parametrize("size", [10, 100_000])
def test_create_only_of_an_object_that_has_not_moved_yet_is_412(
    unsettled: Unsettled, size: int
) -> None:
    id = unsettled.take()
    unsettled.put(id, b"x" * size, 412, If_None_Match="*")
    unsettled.assert_read(id)
    assert places(unsettled.stack.nodes, [id])[id] == [unsettled.old_owner(id).name]


@pytest.mark.parametrize("size", [10, 100_000])
def test_if_match_with_the_etag_of_an_object_that_has_not_moved_yet_replaces_it_at_its_owner(
    unsettled: Unsettled, size: int
) -> None:
    id = unsettled.take()
    unsettled.put(id, b"x" * size, 412, If_Match='"other"')
    unsettled.assert_read(id)
    unsettled.put(id, b"y" * size, If_Match=etag(unsettled.there[id] or b""))
    unsettled.assert_read(id)
    owner_node = unsettled.stack.owner(id)
    assert id in owner_node.ids()
    unsettled.put(id, b"z" * size, 412, If_Match=etag(b"x" * size))
    unsettled.put(id, b"z" * size, If_Match=etag(b"y" * size))
    unsettled.assert_read(id)


def test_if_match_where_nothing_is_stored_is_412_and_create_only_works_once(
    unsettled: Unsettled,
) -> None:
    for id in [random_id() for _ in range(12)]:
        unsettled.put(id, b"x", 412, If_Match=etag(b"x"))
        unsettled.put(id, b"x", 412, If_Match="*")
        unsettled.put(id, b"first", If_None_Match="*")
        unsettled.put(id, b"second", 412, If_None_Match="*")
        unsettled.assert_read(id)


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_was_deleted_before_it_moved_is_gone_and_can_be_made_again(
    unsettled: Unsettled, size: int
) -> None:
    gateway, gone, again, third = unsettled.gateway, *(unsettled.take() for _ in range(3))
    for id in (gone, again, third):
        unsettled.delete(id)
        unsettled.assert_read(id)
        for headers in ({"Range": "bytes=0-3"}, {"If-None-Match": '"x"'}, {"If-Match": "*"}):
            answer = gateway.get(id, headers=headers)
            assert code(answer) == 404
        unsettled.put(id, b"x" * size, 412, If_Match="*")
        unsettled.put(id, b"x" * size, 412, If_Match=etag(b"deleted"))
        unsettled.delete(id)
        unsettled.assert_read(id)
    unsettled.put(again, b"again" * size, If_None_Match="*")
    unsettled.put(again, b"x" * size, 412, If_None_Match="*")
    unsettled.put(third, b"again" * size)
    for id in (again, third):
        unsettled.assert_read(id)
    unsettled.delete(third)
    unsettled.assert_read(third)


def test_deleted_and_never_stored_ids_are_204_on_delete(unsettled: Unsettled) -> None:
    for id in [random_id() for _ in range(8)]:
        for _ in range(2):
            unsettled.delete(id)
            unsettled.assert_read(id)


@pytest.mark.parametrize("of", ["settled", "unsettled"])
@pytest.mark.parametrize(
    "name", ["x-amz-meta-objgw-era", "x-amz-meta-objgw-deleted", "X-Amz-Meta-Objgw-Other"]
)
def test_metadata_of_the_gateways_own_is_refused_and_never_shown(
    gateway: Gateway, unsettled: Unsettled, of: str, name: str
) -> None:
    asked = gateway if of == "settled" else unsettled.gateway
    for body in (b"x", b"x" * 200_000, iter([b"chunk"])):
        id = random_id()
        answer = asked.put(id, body, headers={name: "9"})
        assert code(answer) == 400
        assert asked.get(id).status == 404
        assert asked.put(id, b"y", headers={"x-amz-meta-objg": "1"}).status == 200
        for method in ("GET", "HEAD", "PUT"):
            answer = asked.request(method, f"/object/{id}", b"y" if method == "PUT" else None)
            assert answer.status == 200
            assert "objgw-" not in str(answer.headers).lower()
        assert asked.delete(id).status == 204


def test_locate_says_who_owns_an_id_and_where_its_copies_are(unsettled: Unsettled) -> None:
    gateway, id, body = unsettled.gateway, unsettled.take(10), BODIES[0]
    old, new = unsettled.old_owner(id).name, unsettled.stack.owner(id).name

    def copies() -> dict[str, tuple[int, bool]]:
        report = gateway.ask_ctl("locate", id).report
        assert (report["id"], report["owner"]) == (id, new)
        return {copy["node"]: (copy["size"], bool(copy["deleted"])) for copy in report["copies"]}

    assert copies() == {old: (len(body), False)}
    unsettled.put(id, b"second")
    assert copies()[new] == (6, False)
    unsettled.delete(id)
    assert copies()[new][1] is True


def test_the_list_has_each_object_once_with_what_a_read_brings_and_none_that_was_deleted(
    unsettled: Unsettled,
) -> None:
    gateway, there = unsettled.gateway, unsettled.there
    written, deleted, again = (unsettled.take() for _ in range(3))
    unsettled.put(written, b"second")
    unsettled.put(unsettled.take(), b"x" * len(TOMBSTONE))
    for id in (deleted, again, random_id()):
        unsettled.delete(id)
    unsettled.put(again, b"third")
    found = stream(gateway)
    assert found == pages(gateway) == pages(gateway, limit=23)
    assert [(each["id"], each["etag"], each["size"]) for each in found if each["id"] in there] == [
        (id, etag(body), len(body)) for id, body in sorted(there.items()) if body is not None
    ]
    told = gateway.ctl("list", "--json").output.splitlines()
    assert [json.loads(line) for line in told] == found
    held = gateway.ctl("list", "--json", "--node", unsettled.stack.nodes[-1].name).output
    assert {json.loads(line)["id"] for line in held.splitlines()} & {written, deleted, again} == {
        written,
        again,
    }


def test_while_an_old_owner_is_down_a_miss_there_is_503_and_404_elsewhere(
    unsettled: Unsettled,
) -> None:
    gateway, (down, *up) = unsettled.gateway, unsettled.old
    fourth = unsettled.stack.nodes[-1]
    not_moved, written, deleted = (unsettled.take(old=down, new=fourth) for _ in range(3))
    unsettled.put(written, b"at its owner")
    moved_on_paper = unsettled.take(old=up[0], new=fourth)
    never, elsewhere = unsettled.new_id(down, fourth), unsettled.new_id(up[0], fourth)
    down.stop()
    for method in ("GET", "HEAD"):
        for id in (not_moved, never, unsettled.new_id(down, down)):
            assert gateway.request(method, f"/object/{id}").status == 503
        assert gateway.request(method, f"/object/{elsewhere}").status == 404
    for headers in ({}, NDJSON):
        assert code(gateway.request("GET", "/objects", headers=headers)) == 503
    assert code(gateway.put(not_moved, b"x", headers={"If-None-Match": "*"})) == 503
    assert code(gateway.put(not_moved, b"x", headers={"If-Match": etag(b"y")})) == 503
    unsettled.assert_read(written)
    unsettled.assert_read(moved_on_paper)
    for _ in range(3):
        unsettled.put(elsewhere, b"stored meanwhile")
        unsettled.assert_read(elsewhere)
    unsettled.put(never, b"stored meanwhile")
    unsettled.assert_read(never)
    unsettled.delete(deleted)
    unsettled.assert_read(deleted)
    assert gateway.ctl("rebalance").code not in (0, 3)
    down.start()
    eventually(lambda: gateway.get(not_moved).status == 200, within=JOIN)
    for id in (not_moved, written, deleted, moved_on_paper, never, elsewhere):
        unsettled.assert_read(id)
    assert gateway.get(unsettled.new_id(down, fourth)).status == 404


def test_after_a_restart_of_all_gateways_an_unsettled_layout_is_as_before(
    unsettled: Unsettled,
) -> None:
    gateway = unsettled.gateway
    not_moved, written, deleted = (unsettled.take() for _ in range(3))
    unsettled.put(written, b"written")
    unsettled.delete(deleted)
    before = gateway.layout()
    gateway.restart()
    gateway.wait_ready()
    for id in (not_moved, written, deleted):
        unsettled.assert_read(id)
    after = gateway.layout()
    assert [after[name] for name in ("settled", "names", "removed")] == [
        before[name] for name in ("settled", "names", "removed")
    ]
    assert after["settled"] is False


def test_a_worker_that_has_just_begun_knows_where_else_to_look_before_it_says_that_nothing_is_there(
    unsettled: Unsettled,
) -> None:
    gateway = unsettled.gateway
    for _ in range(3):
        read, deleted = [unsettled.take() for _ in range(5)], [unsettled.take() for _ in range(3)]
        (worker,) = gateway.workers()
        gateway.run("sh", "-c", f"kill -KILL {worker}")
        answers = together(
            [
                *(partial(gateway.get, id) for id in read),
                *(partial(gateway.delete, id) for id in deleted),
            ]
        )
        assert {answer.status for answer in answers[: len(read)]} <= {200, 503}
        for id, answer in zip(deleted, answers[len(read) :], strict=True):
            assert answer.status in (204, 503)
            unsettled.there[id] = None if answer.status == 204 else unsettled.there[id]
        gateway.wait_ready()
        for id in (*read, *deleted):
            unsettled.assert_read(id)


def test_once_rebalanced_all_of_it_is_at_its_owner_with_its_headers_and_deleted_objects_are_nowhere(
    another_unsettled: Unsettled,
) -> None:
    unsettled = another_unsettled
    stack, gateway, there = unsettled.stack, unsettled.gateway, unsettled.there
    fresh, gone, large = unsettled.take(), unsettled.take(), unsettled.take()
    unsettled.put(fresh, b"fresh")
    unsettled.delete(gone)
    unsettled.put(large, bytes(12 * MIB))
    for id in there:
        unsettled.assert_read(id)
    assert not gateway.ask_ctl("check").report["clean"]
    with listed_meanwhile(gateway, there):
        rebalance(gateway)
    for id in there:
        unsettled.assert_read(id)
    models = [Model(id, ABSENT if body is None else 1) for id, body in there.items()]
    assert_at_home(gateway, models, stack.nodes)
    assert {id for node in stack.nodes for id in node.ids()} >= {
        id for id in there if there[id] is not None
    }
    for id in (fresh, gone):
        unsettled.put(id, b"once more", 412 if id == fresh else 200, If_None_Match="*")
        unsettled.delete(id)
        unsettled.assert_read(id)
    assert_at_home(gateway, [Model(fresh), Model(gone)], stack.nodes)


@pytest.mark.large
def test_10_000_objects_are_listed_each_once_while_clients_write_and_objects_move(
    lab: Lab,
) -> None:
    with unsettled_stack(lab, 10_000, [b"", b"ten bytes!", b"x" * len(TOMBSTONE)]) as unsettled:
        gateway, there = unsettled.gateway, unsettled.there
        for _ in range(500):
            unsettled.delete(unsettled.take())
        clients = Clients([gateway], [Model() for _ in range(100)])
        with clients.at_work(3):
            with listed_meanwhile(gateway, there):
                clients.go_on()
            with listed_meanwhile(gateway, there):
                rebalance(gateway)
        with listed_meanwhile(gateway, there):
            clients.read_all()
