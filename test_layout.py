"""The layout: nodes join, leave and come back while clients go on, and nothing is lost, stale or back from the dead.

Sections: the record and its rules, without a container; clients with a model of what must be there; growing and
shrinking with 2,000 objects, `rebalance` killed and started again; an unsettled layout, request by request; layouts
that change again before anything has moved; nodes that are gone or came back empty; gateways that don't see the same;
the start.

Where clients work during a change, each id has one client, so that its model is exact: an acknowledged write leaves
one version that may be read; one that wasn't acknowledged may have happened, or may happen until the next one that is.
"""

from __future__ import annotations

import doctest
import hashlib
import http.client
import importlib
import io
import itertools
import json
import pkgutil
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest

from conftest import (
    CHECKOUT,
    LAYOUT_BUCKET,
    Answer,
    Call,
    Done,
    Gateway,
    Lab,
    Node,
    Session,
    Stack,
    eventually,
    owner,
    random_id,
    together,
)
from gateway.nodes.layout import (
    HOLD_SECONDS,
    LEASE_SECONDS,
    POLL_SECONDS,
    RECORD,
    SWITCH_SECONDS,
    Layout,
    Spread,
    merge,
)
from gateway.nodes.placement import owner_name
from test_http import Wire, code, head

MIB = 1024 * 1024
JOIN = 60  # seconds within which a new node is in use
BROKEN = (OSError, http.client.HTTPException)
OBJECTS = 2000


# ---------------------------------------------------------------------------------------------------------------------
# The record and its rules
# ---------------------------------------------------------------------------------------------------------------------
def test_the_examples_in_the_modules_hold() -> None:
    names = [module.name for module in pkgutil.walk_packages([str(CHECKOUT / "gateway")], "gateway.")]
    results = {name: doctest.testmod(importlib.import_module(name)) for name in (*names, "objgwctl")}
    assert results["gateway.nodes.layout"].attempted
    assert not [name for name, result in results.items() if result.failed]


def test_a_switch_comes_after_every_lease_and_hold_that_could_miss_it() -> None:
    assert POLL_SECONDS < LEASE_SECONDS
    assert SWITCH_SECONDS > LEASE_SECONDS + 2 * HOLD_SECONDS + POLL_SECONDS / 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12])
def test_an_id_has_the_owner_that_the_formula_says(count: int) -> None:
    names = tuple(sorted(f"node-{n}" for n in range(1, count + 1)))
    for id in [random_id() for _ in range(200)]:
        assert owner_name(names, id) == owner(id, names)


ABC = Layout("one", 7, (Spread(3, 100.0, ("a", "b", "c")),))
GROWN = ABC.joined(["d"], 200.0)
SHRUNK = GROWN.without("b", 201.0)
NEW = Spread(4, 200.0 + SWITCH_SECONDS, ("a", "b", "c", "d"))

CHANGES: dict[str, tuple[Layout, Layout]] = {  # what comes of it, what must
    "grown": (GROWN, Layout("one", 8, (NEW, *ABC.spreads), fresh=("d",))),
    "grown by what is there": (ABC.joined(["a", "e"], 0.0), ABC.joined(["e"], 0.0)),
    "grown twice": (
        GROWN.joined(["0"], 202.0),
        Layout(
            "one", 9, (Spread(5, 202.0 + SWITCH_SECONDS, ("0", "a", "b", "c", "d")), *GROWN.spreads), fresh=("0", "d")
        ),
    ),
    "grown by what was removed": (
        replace(ABC, removed=("d", "e")).joined(["d"], 200.0),
        Layout("one", 8, (NEW, *ABC.spreads), fresh=("d",), removed=("e",)),
    ),
    "grown when all was moved": (replace(GROWN, moved=True).joined(["e"], 300.0), GROWN.joined(["e"], 300.0)),
    "shrunk": (
        ABC.without("b", 200.0),
        Layout("one", 8, (Spread(4, 200.0 + SWITCH_SECONDS, ("a", "c")), *ABC.spreads), removed=("b",)),
    ),
    "shrunk by what was lost": (
        ABC.without("b", 200.0, lost=True),
        Layout("one", 8, (Spread(4, 200.0 + SWITCH_SECONDS, ("a", "c")), *ABC.spreads), lost=("b",)),
    ),
    "shrunk by what has just joined": (
        GROWN.without("d", 201.0),
        Layout("one", 9, (Spread(5, 201.0 + SWITCH_SECONDS, ("a", "b", "c")), *GROWN.spreads), removed=("d",)),
    ),
    "switched no earlier than before": (
        ABC.joined(["d"], 200.0).joined(["e"], 100.0),
        Layout(
            "one", 9, (Spread(5, 200.0 + SWITCH_SECONDS, ("a", "b", "c", "d", "e")), *GROWN.spreads), fresh=("d", "e")
        ),
    ),
    "readmitted": (
        replace(ABC, removed=("d", "e")).readmitted("d"),
        Layout("one", 8, ABC.spreads, fresh=("d",), removed=("e",)),
    ),
    "known, and about to join again": (
        ABC.readmitted("d").known(["a", "d"]),
        Layout("one", 8, ABC.spreads, fresh=("d",)),
    ),
    "known": (GROWN.known(["d"]), Layout("one", 9, GROWN.spreads)),
    "known before": (GROWN.known(["a"]), GROWN),
    "all moved": (GROWN.all_moved(), Layout("one", 9, GROWN.spreads, moved=True, fresh=("d",))),
    "settled": (
        replace(GROWN, moved=True, lost=("b",), removed=("e",)).settle(),
        Layout("one", 9, (NEW,), fresh=("d",), removed=("e",)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_layout_makes_what_the_table_says(change: str) -> None:
    made, expected = CHANGES[change]
    assert made == expected


def test_gateways_that_make_the_first_layout_at_once_leave_it_settled() -> None:
    one, other = Layout.first("abc", fresh="abc"), Layout.first("abc", fresh="abc").known("c")
    merged = merge(one, other, 0.0)
    assert merged == merge(other, one, 5.0)
    assert (merged.version, merged.spreads, merged.fresh) == (3, one.spreads, ("a", "b", "c"))
    assert not merge(one, Layout.first("abcd"), 0.0).settled


@pytest.mark.parametrize("name", ["x", ""])
def test_what_is_not_in_the_layout_can_not_be_taken_out(name: str) -> None:
    with pytest.raises(ValueError, match="isn't in the layout"):
        ABC.without(name, 0.0)


def test_the_last_node_can_not_be_taken_out() -> None:
    with pytest.raises(ValueError, match="only node"):
        Layout.first(["a"]).without("a", 0.0)


IN_FORCE: dict[str, tuple[Layout, float, list[int]]] = {  # layout, now, the eras that count
    "one spread": (ABC, 200.0, [3]),
    "one spread, whatever the clock says": (ABC, 0.0, [3]),
    "before the switch": (GROWN, GROWN.spreads[0].since - 0.1, [3]),
    "from the switch on": (GROWN, GROWN.spreads[0].since, [4, 3]),
    "between two switches": (SHRUNK, SHRUNK.spreads[0].since - 0.5, [4, 3]),
    "after both": (SHRUNK, SHRUNK.spreads[0].since, [5, 4, 3]),
    "nothing yet": (GROWN, 0.0, [3]),
}


@pytest.mark.parametrize("row", IN_FORCE)
def test_a_spread_is_in_force_from_its_time_on(row: str) -> None:
    layout, now, eras = IN_FORCE[row]
    assert [spread.era for spread in layout.in_force(now)] == eras


def test_names_of_older_spreads_are_still_names_but_for_those_given_up() -> None:
    assert SHRUNK.names == ("a", "c", "d")
    assert SHRUNK.all_names == ("a", "b", "c", "d")
    assert ABC.without("b", 0.0, lost=True).all_names == ("a", "c")
    assert (ABC.settled, SHRUNK.settled, SHRUNK.settle().settled) == (True, False, True)


def test_a_lost_name_that_joins_again_counts_again() -> None:
    layout = ABC.without("b", 0.0, lost=True).joined(["b"], 10.0)
    assert layout.names == layout.all_names == ("a", "b", "c")


GOOD = json.loads(SHRUNK.dump("a"))
BAD_RECORDS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<Error>",
    "no text": b"\xff\xfe",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "empty": b"{}",
    **{f"without {name}": json.dumps({k: v for k, v in GOOD.items() if k != name}).encode() for name in GOOD},
    **{
        f"{name}: {value}": json.dumps({**GOOD, name: value}).encode()
        for name, value in [
            ("unknown", 1), ("version", "1"), ("version", None), ("origin", 1), ("node", None), ("removed", [1]),
            ("lost", None), ("spreads", []), ("spreads", [1]), ("spreads", [{}]),
            ("spreads", [{"era": 1, "since": 0, "names": []}]), ("spreads", [{"era": 1, "since": 0, "names": [1]}]),
            ("spreads", [{"era": "1", "since": 0, "names": ["a"]}]),
            ("spreads", [{"era": 1, "since": None, "names": ["a"]}]),
        ]
    },
}  # fmt: skip
del BAD_RECORDS["without moved"]  # it has a default


@pytest.mark.parametrize("row", BAD_RECORDS)
def test_a_record_that_is_not_one_is_a_value_error(row: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Layout.load(BAD_RECORDS[row])


NAMES = some.lists(some.sampled_from("abcdef"), min_size=1, unique=True).map(sorted)


@some.composite
def layouts(draw: Any) -> Layout:
    """Any layout that a few changes can make."""
    layout = replace(Layout.first(draw(NAMES), anywhere=draw(some.booleans())), origin=draw(some.sampled_from("xy")))
    now = 0.0
    for change in draw(some.lists(some.sampled_from(["join", "without", "lost", "known", "moved", "settle"]))):
        now += draw(some.floats(0, 20))
        names = draw(NAMES)
        if change == "join":
            layout = layout.joined(names, now)
        elif change == "known":
            layout = layout.known(names)
        elif change == "moved":
            layout = layout.all_moved()
        elif change == "settle":
            layout = layout.settle()
        elif names[0] in layout.names and len(layout.names) > 1:
            layout = layout.without(names[0], now, lost=change == "lost")
    return layout


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(layouts(), some.sampled_from("abc"))
def test_a_record_is_read_as_it_was_written(layout: Layout, node: str) -> None:
    assert Layout.load(layout.dump(node)) == (layout, node)


def homes(layout: Layout, id: str) -> set[str] | None:
    """The names where an object may be, once all spreads are in force; None: anywhere."""
    if not all(spread.names for spread in layout.spreads):
        return None
    return {owner(id, spread.names) for spread in layout.spreads}


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(layouts(), layouts(), some.floats(0, 100))
def test_what_two_records_say_together_does_not_depend_on_their_order_and_forgets_no_home(
    one: Layout, other: Layout, now: float
) -> None:
    merged = merge(one, other, now)
    assert merged == merge(other, one, now)
    assert merge(merged, one, now + 1) == merged or merged.origin != one.origin
    if one.origin == other.origin and one.version != other.version:
        assert merged == max(one, other, key=lambda layout: layout.version)
    elif one.spreads == other.spreads:  # both are true
        assert (merged == one) == (one == other)
        assert merged.spreads == one.spreads
        assert {*merged.fresh} == {*one.fresh, *other.fresh}
    else:
        assert merged.version > max(one.version, other.version)
        assert set(merged.names) == {*one.names, *other.names}
        assert homes(merged, "abc") is None
        assert not merged.settled
        assert merged.spreads[0].since == now + SWITCH_SECONDS
        assert merged.spreads[0].era > max(spread.era for layout in (one, other) for spread in layout.spreads)
        assert not {*merged.removed, *merged.lost} & set(merged.names)


# ---------------------------------------------------------------------------------------------------------------------
# Clients with a model
# ---------------------------------------------------------------------------------------------------------------------
ABSENT = 0  # the version of an object that isn't there


def text(id: str, version: int) -> bytes:
    """The bytes of a version of an object; some are more than a gateway keeps to send them again."""
    line = f"{id} {version}\n".encode()
    size = 200_000 if version % 4 == 3 else 120
    return (line * (size // len(line) + 1))[:size]


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def described(version: int) -> dict[str, str]:
    """The headers that a version is stored with."""
    return {"Content-Type": f"text/x-v{version}", "x-amz-meta-version": str(version)}


@dataclass
class Model:
    """What is known of an object that one client writes."""

    id: str = field(default_factory=random_id)
    version: int = ABSENT  # that is there, unless it is one of
    unsure: set[int] = field(default_factory=set)  # which were sent since, and not acknowledged
    last: int = 0  # the highest version that was ever sent

    def acknowledged(self, version: int) -> None:
        self.version, self.unsure = version, set()

    def seen(self, version: int) -> bool:
        """Takes note of a version that was read; whether it may be there."""
        if version != self.version and version not in self.unsure:
            return False
        self.version = version
        self.unsure.discard(version)
        return True


KINDS = {"GET": 30, "HEAD": 5, "RANGE": 5, "PUT": 40, "DELETE": 20}
READS = ("GET", "HEAD", "RANGE")


class Clients:
    """Clients that read and write objects of their own, and read `fixed` ones, each request at any of the gateways."""

    def __init__(self, gateways: Sequence[Gateway], own: Sequence[Model] = (), fixed: Sequence[Model] = ()) -> None:
        self.gateways, self.own, self.fixed = gateways, own, fixed
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # 503, and connections that broke
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._working = False

    @contextmanager
    def at_work(self, number: int = 6) -> Iterator[None]:
        """While the block runs, so many of them work; nothing that they see may be wrong."""
        self._over.clear()
        self._working = True
        threads = [threading.Thread(target=self._work, args=[self.own[n::number]]) for n in range(number)]
        for thread in threads:
            thread.start()
        try:
            self.go_on()
            yield
            self.go_on()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
            self._working = False
        self.assert_right()

    def assert_right(self) -> None:
        assert not self.wrong, f"{len(self.wrong)} wrong, first {self.wrong[:5]}"

    def go_on(self, requests: int = 300) -> None:
        """Until so many more requests are done."""
        before = self.done.total()
        eventually(lambda: self.wrong or self.done.total() > before + requests, within=60)

    def read_all(self, within: float = 30) -> None:
        """Reads each object at each gateway, until it is answered. While they work, only those that nobody writes."""

        def read(gateway: Gateway, models: Sequence[Model]) -> None:
            with gateway.session() as session:
                for model in models:
                    eventually(self._read, session, "GET", model, within=within)

        together(
            partial(read, gateway, models[n::3])
            for models in ([] if self._working else self.own, self.fixed)
            for gateway in self.gateways
            for n in range(3)
        )
        self.assert_right()

    def _work(self, own: Sequence[Model]) -> None:
        chance = random.Random()
        with ExitStack() as stack:
            sessions = [stack.enter_context(gateway.session()) for gateway in self.gateways]
            while not self._over.wait(0.02):
                session, kind = chance.choice(sessions), chance.choices(list(KINDS), list(KINDS.values()))[0]
                try:
                    if self.fixed and (not own or chance.random() < 0.4):
                        self._read(session, chance.choice(READS), chance.choice(self.fixed))
                    elif kind in READS:
                        self._read(session, kind, chance.choice(own))
                    else:
                        self._write(session, kind, chance.choice(own), chance.random() < 0.3)
                except Exception as error:
                    self.wrong.append(f"{kind}: {error!r}")

    def _ask(
        self,
        session: Session,
        method: str,
        id: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer | None:
        """The answer, or None where it is refused or the connection breaks."""
        try:
            answer = session.request(method, f"/object/{id}", body, headers)
        except BROKEN:
            answer = None
        self.done[method] += 1
        if answer and answer.status != 503:
            return answer
        self.refused[method] += 1
        return None

    def _read(self, session: Session, kind: str, model: Model) -> bool:
        """Whether a read was answered; what it brought must be what may be there."""
        method = "HEAD" if kind == "HEAD" else "GET"
        answer = self._ask(session, method, model.id, headers={"Range": "bytes=9-99"} if kind == "RANGE" else {})
        if answer is None:
            return False
        may, version = {model.version, *model.unsure}, ABSENT
        if answer.status in (200, 206):
            version = int(answer.headers["x-amz-meta-version"])
            whole = text(model.id, version)
            body = b"" if kind == "HEAD" else whole[9:100] if kind == "RANGE" else whole
            good = (
                answer.status == (206 if kind == "RANGE" else 200)
                and answer.body == body
                and answer.headers["ETag"] == etag(whole)
                and answer.headers["Content-Type"] == described(version)["Content-Type"]
                and answer.headers["Content-Length"] == str(len(body or whole))
            )
        else:
            good = answer.status == 404
        if not good or not model.seen(version):
            self.wrong.append(f"{kind} {model.id}: {answer.status}, version {version} where {may} may be")
        return True

    def _write(self, session: Session, method: str, model: Model, conditional: bool) -> None:
        version, headers, expected = ABSENT, {}, 204
        if method == "PUT":
            version = model.last = model.last + 1
            headers, expected = described(version), 200
            if conditional and not model.unsure:
                exists = model.version != ABSENT
                if version % 2:
                    headers["If-None-Match"], expected = "*", 412 if exists else 200
                else:
                    headers["If-Match"], expected = etag(text(model.id, model.version)), 200 if exists else 412
        answer = self._ask(session, method, model.id, text(model.id, version) if version else None, headers)
        if answer is None:
            model.unsure.add(version)
        elif answer.status != expected:
            self.wrong.append(f"{method} {model.id} {headers}: {answer.status} where {model} was")
        elif answer.status != 412:
            model.acknowledged(version)


def store(gateway: Gateway, models: Sequence[Model]) -> None:
    """Stores version 1 of each."""

    def put(some_models: Sequence[Model]) -> None:
        with gateway.session() as session:
            for model in some_models:
                answer = session.request("PUT", f"/object/{model.id}", text(model.id, 1), described(1))
                assert answer.status == 200
                model.acknowledged(1)
                model.last = 1

    together(partial(put, models[n::8]) for n in range(8))


# ---------------------------------------------------------------------------------------------------------------------
# What a layout looks like from outside
# ---------------------------------------------------------------------------------------------------------------------
def names_of(nodes: Iterable[Node]) -> list[str]:
    return sorted(node.name for node in nodes)


def record_of(node: Node) -> Layout:
    """What the node's record says."""
    return Layout.load(node.client().get_object(LAYOUT_BUCKET, RECORD).read())[0]


def wait_in_force(gateway: Gateway, nodes: Sequence[Node], others: Sequence[Node] = ()) -> None:
    """Until new objects land on these nodes as their names say, and not on the others.

    So many of them that not all of their owners can be what they were before.
    """
    names = names_of(nodes)

    def switched() -> bool:
        newest = record_of(nodes[0]).spreads[0]
        assert newest.names == tuple(names)
        return time.time() > newest.since + HOLD_SECONDS

    def lands() -> bool:
        ids = [
            id
            for name in names
            for id in itertools.islice((i for i in iter(random_id, None) if owner(i, names) == name), 10)
        ]
        assert {gateway.put(id).status for id in ids} == {200}
        assert places([*nodes, *others], ids) == {id: [owner(id, names)] for id in ids}
        return True

    eventually(switched, within=JOIN)
    eventually(lands, within=JOIN)


def places(nodes: Iterable[Node], ids: Iterable[str]) -> dict[str, list[str]]:
    """The names of the nodes that hold each id."""
    held = {node.name: node.ids() for node in nodes}
    return {id: [name for name in sorted(held) if id in held[name]] for id in ids}


def assert_at_home(
    gateway: Gateway, models: Iterable[Model], nodes: Sequence[Node], others: Sequence[Node] = ()
) -> None:
    """All is settled and clean: each object is on its owner and nowhere else, a deleted one nowhere."""
    models, names = list(models), names_of(nodes)
    wrong = {
        id: (found, expected)
        for (id, found), expected in zip(
            places([*nodes, *others], [model.id for model in models]).items(),
            [[owner(model.id, names)] if model.version != ABSENT else [] for model in models],
            strict=True,
        )
        if found != expected
    }
    assert not wrong, f"{len(wrong)} objects aren't (only) where they belong, first {next(iter(wrong.items()))}"
    layout, done = gateway.layout(), gateway.ask_ctl("check")
    assert layout["settled"]
    assert layout["names"] == names
    assert done.code == 0, done
    report = done.report
    assert report["clean"] is True
    assert [report[what] for what in ("misplaced", "strays", "uploads", "markers")] == [0, 0, 0, 0], report
    assert report["objects"] == len({id for node in [*nodes, *others] for id in node.ids()})


def assert_one_request_upstream(gateway: Gateway, models: Sequence[Model], nodes: Sequence[Node]) -> None:
    """A GET of each is one request upstream."""
    before = {node: len(node.calls()) for node in nodes}
    for model in models:
        assert gateway.get(model.id).body == text(model.id, model.version)
    calls = [call for node in nodes for call in node.calls()[before[node] :]]
    assert Counter(calls) == Counter(Call("GetObject", model.id, 200) for model in models)


def rebalance(gateway: Gateway) -> None:
    done = gateway.ctl("rebalance")
    assert done.code == 0, done


def take_out(gateway: Gateway, node: Node) -> None:
    """The node leaves; what it holds stays there for now."""
    done = gateway.ctl("remove", node.name, "--no-rebalance")
    assert done.code == 0, done


def let_in(gateway: Gateway, node: Node) -> None:
    """A node that was taken out joins again."""
    done = gateway.ctl("add", node.name)
    assert done.code == 0, done


# ---------------------------------------------------------------------------------------------------------------------
# Growing and shrinking with 2,000 objects
# ---------------------------------------------------------------------------------------------------------------------
@dataclass
class Big:
    """Three nodes with 2,000 objects behind a gateway of three workers. Each test leaves three nodes."""

    stack: Stack
    gateway: Gateway
    fixed: list[Model]

    def drop(self, node: Node) -> None:
        """Remove the container of a node that was taken out."""
        node.remove()
        self.stack.nodes.remove(node)


@pytest.fixture(scope="module")
def big(lab: Lab) -> Iterator[Big]:
    stack = Stack(lab)
    try:
        stack.add_nodes("123")
        gateway = stack.add_gateway({"WEB_CONCURRENCY": "3"})
        gateway.wait_ready()
        fixed = [Model() for _ in range(OBJECTS)]
        store(gateway, fixed)
        yield Big(stack, gateway, fixed)
    finally:
        stack.close()


def test_2000_objects_are_read_without_a_miss_while_a_fourth_node_joins_and_leaves_under_load(big: Big) -> None:
    gateway, three = big.gateway, list(big.stack.nodes)
    clients = Clients([gateway], [Model() for _ in range(120)], big.fixed)
    with clients.at_work():
        fourth = big.stack.add_node("4")
        wait_in_force(gateway, big.stack.nodes)
        clients.read_all()  # before anything has moved
        assert gateway.layout()["settled"] is False
        rebalance(gateway)
    clients.read_all()
    assert_at_home(gateway, [*clients.own, *clients.fixed], big.stack.nodes)
    held = {node["name"]: node["objects"] for node in gateway.layout()["nodes"]}
    assert held == {node.name: len(node.ids()) for node in big.stack.nodes}
    for node in big.stack.nodes:
        assert 0.20 < len(node.ids() & {model.id for model in big.fixed}) / OBJECTS < 0.30
    assert_one_request_upstream(gateway, big.fixed[:40], big.stack.nodes)

    with clients.at_work():
        done = gateway.ctl("remove", fourth.name)
        assert done.code == 0, done
    clients.read_all()
    assert_at_home(gateway, [*clients.own, *clients.fixed], three, [fourth])
    assert fourth.ids() == set()
    assert_one_request_upstream(gateway, big.fixed[:40], big.stack.nodes)
    assert gateway.layout()["removed"] == [fourth.name]
    assert [clients.refused[method] for method in ("GET", "HEAD")] == [0, 0]
    big.drop(fourth)


def killed_rebalance(gateway: Gateway, after: bytes, seconds: float) -> int:
    """The exit code of a rebalance that is killed so long after it has printed this, unless it has ended by then."""
    api, own_id = gateway.stack.lab.docker.api, f"/tmp/{random_id()}"
    command = ["sh", "-c", f"echo $$ >{own_id}; exec python objgwctl.py rebalance"]
    running = api.exec_create(gateway.container.id, command, user="root")["Id"]
    output, over = b"", threading.Event()

    def read() -> None:
        nonlocal output
        for piece in api.exec_start(running, stream=True):
            output += piece
        over.set()

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: over.is_set() or after in output, within=60)
    if not over.wait(seconds):
        kill = f"until [ -s {own_id} ]; do sleep 0.01; done; kill -KILL $(cat {own_id}) || true"
        gateway.run("sh", "-c", kill)
    reader.join()
    state: dict[str, Any] = eventually(lambda: (now := api.exec_inspect(running)) and not now["Running"] and now)
    return int(state["ExitCode"])


def test_a_rebalance_that_is_killed_ten_times_loses_nothing_and_leaves_nothing_twice(big: Big) -> None:
    gateway, three = big.gateway, list(big.stack.nodes)
    clients = Clients([gateway], [Model() for _ in range(60)], big.fixed)
    fifth = big.stack.add_node("5")
    wait_in_force(gateway, big.stack.nodes)
    points = [(b"", 1.5)] * 2 + [(b"moving", 1.0)] * 6 + [(b"moving", 8.0)] * 2  # killed within so long after that
    joined = True
    with clients.at_work(3):
        for after, seconds in random.sample(points, len(points)):
            while (code := killed_rebalance(gateway, after, random.uniform(0, seconds))) == 0:  # the other way, then
                joined = not joined
                (let_in if joined else take_out)(gateway, fifth)
            assert code == 137
            release_lock(three)
        clients.read_all()
        rebalance(gateway)
    clients.read_all()
    if joined:
        assert_at_home(gateway, [*clients.own, *clients.fixed], [*three, fifth])
        assert gateway.ctl("remove", fifth.name).code == 0
    assert_at_home(gateway, [*clients.own, *clients.fixed], three, [fifth])
    assert [clients.refused[method] for method in ("GET", "HEAD")] == [0, 0]
    big.drop(fifth)


def release_lock(nodes: Iterable[Node]) -> None:
    """As if the time were over for which the lock of a rebalance that was killed is good."""
    for node in nodes:
        node.client().remove_object(LAYOUT_BUCKET, "lock")


def test_the_last_acknowledged_write_wins_over_a_rebalance_and_nothing_deleted_comes_back(big: Big) -> None:
    """Of three rebalances at once one does it all; the others say so."""
    gateway, three = big.gateway, list(big.stack.nodes)
    own = [Model() for _ in range(600)]
    store(gateway, own)
    clients = Clients([gateway], own)
    sixth = big.stack.add_node("6")
    for nodes, others in (([*three, sixth], []), (three, [sixth])):
        if others:
            take_out(gateway, sixth)
        wait_in_force(gateway, nodes, others)
        with clients.at_work(6):  # each id is as good as untouched when it begins
            done = together([partial(gateway.ctl, "rebalance")] * 3)
        assert sorted(each.code for each in done) == [0, 3, 3], done
        clients.read_all()
        assert_at_home(gateway, [*own, *big.fixed], nodes, others)
    assert clients.refused.total() == 0
    big.drop(sixth)


# ---------------------------------------------------------------------------------------------------------------------
# An unsettled layout, request by request
# ---------------------------------------------------------------------------------------------------------------------
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

    def take(self, size: int | None = None, old: Node | None = None, new: Node | None = None) -> str:
        """The id of an object (of that size, with that home) that has moved on paper only, and is the test's now."""
        for id in self.untouched:
            fits = size in (None, len(self.there[id] or b"")) and (not old or self.old_home(id) is old)
            if fits and (not new or self.stack.owner(id) is new):
                self.untouched.remove(id)
                return id
        raise AssertionError("no such object is left")

    def old_home(self, id: str) -> Node:
        name = owner(id, names_of(self.old))
        return next(node for node in self.old if node.name == name)

    def new_id(self, old: Node, new: Node) -> str:
        """An id that nothing was ever stored under, with these homes."""
        return next(id for id in iter(random_id, None) if self.old_home(id) is old and self.stack.owner(id) is new)

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
def unsettled_stack(lab: Lab) -> Iterator[Unsettled]:
    stack = Stack(lab)
    try:
        stack.add_nodes("123")
        gateway = stack.add_gateway()
        gateway.wait_ready()
        layout = Unsettled(stack, gateway, list(stack.nodes))
        for number in range(240):
            id, body = random_id(), BODIES[number % len(BODIES)]
            assert gateway.put(id, body, headers=HEADERS).status == 200
            layout.there[id] = body
        stack.add_node("4")
        wait_in_force(gateway, stack.nodes)
        layout.untouched = [id for id in layout.there if stack.owner(id) is not layout.old_home(id)]
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
def test_an_object_that_has_not_moved_yet_is_read_as_ever(unsettled: Unsettled, body: bytes) -> None:
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
        assert gateway.get(id, headers={"Range": "bytes=2-5", "If-Range": etag(body)}).body == body[2:6]
        assert gateway.get(id, headers={"Range": "bytes=2-5", "If-Range": '"other"'}).body == body
    assert places(unsettled.stack.nodes, [id])[id] == [unsettled.old_home(id).name]


@pytest.mark.parametrize("size", [10, 100_000])
def test_create_only_of_an_object_that_has_not_moved_yet_is_412(unsettled: Unsettled, size: int) -> None:
    id = unsettled.take()
    unsettled.put(id, b"x" * size, 412, If_None_Match="*")
    unsettled.assert_read(id)
    assert places(unsettled.stack.nodes, [id])[id] == [unsettled.old_home(id).name]


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


def test_if_match_where_nothing_is_stored_is_412_and_create_only_works_once(unsettled: Unsettled) -> None:
    for id in [random_id() for _ in range(12)]:
        unsettled.put(id, b"x", 412, If_Match=etag(b"x"))
        unsettled.put(id, b"x", 412, If_Match="*")
        unsettled.put(id, b"first", If_None_Match="*")
        unsettled.put(id, b"second", 412, If_None_Match="*")
        unsettled.assert_read(id)


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_was_deleted_before_it_moved_is_gone_and_can_be_made_again(unsettled: Unsettled, size: int) -> None:
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
@pytest.mark.parametrize("name", ["x-amz-meta-objgw-era", "x-amz-meta-objgw-deleted", "X-Amz-Meta-Objgw-Other"])
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
    old, new = unsettled.old_home(id).name, unsettled.stack.owner(id).name

    def copies() -> dict[str, tuple[int, bool]]:
        report = gateway.ask_ctl("locate", id).report
        assert (report["id"], report["owner"]) == (id, new)
        return {copy["node"]: (copy["size"], bool(copy["deleted"])) for copy in report["copies"]}

    assert copies() == {old: (len(body), False)}
    unsettled.put(id, b"second")
    assert copies()[new] == (6, False)
    unsettled.delete(id)
    assert copies()[new][1] is True


def test_while_an_old_home_is_down_a_miss_there_is_503_and_404_elsewhere(unsettled: Unsettled) -> None:
    gateway, (down, *up) = unsettled.gateway, unsettled.old
    fourth = unsettled.stack.nodes[-1]
    not_moved, written, deleted = (unsettled.take(old=down, new=fourth) for _ in range(3))
    unsettled.put(written, b"at its owner")
    moved_on_paper = unsettled.take(old=up[0], new=fourth)
    never, elsewhere = unsettled.new_id(down, fourth), unsettled.new_id(up[0], fourth)
    down.stop()
    for method in ("GET", "HEAD"):
        for id in (not_moved, never, unsettled.new_id(up[0], down)):
            assert gateway.request(method, f"/object/{id}").status == 503
        assert gateway.request(method, f"/object/{elsewhere}").status == 404
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


def test_after_a_restart_of_all_gateways_an_unsettled_layout_is_as_before(unsettled: Unsettled) -> None:
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
            [*(partial(gateway.get, id) for id in read), *(partial(gateway.delete, id) for id in deleted)]
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
    rebalance(gateway)
    for id in there:
        unsettled.assert_read(id)
    models = [Model(id, ABSENT if body is None else 1) for id, body in there.items()]
    assert_at_home(gateway, models, stack.nodes)
    assert {id for node in stack.nodes for id in node.ids()} >= {id for id in there if there[id] is not None}
    for id in (fresh, gone):
        unsettled.put(id, b"once more", 412 if id == fresh else 200, If_None_Match="*")
        unsettled.delete(id)
        unsettled.assert_read(id)
    assert_at_home(gateway, [Model(fresh), Model(gone)], stack.nodes)


# ---------------------------------------------------------------------------------------------------------------------
# Layouts that change again before anything has moved; requests that are under way when it changes
# ---------------------------------------------------------------------------------------------------------------------
def filled(stack: Stack, objects: int) -> tuple[Gateway, list[Model]]:
    """A gateway to the stack's nodes, and so many objects that it has stored."""
    gateway, models = stack.add_gateway(), [Model() for _ in range(objects)]
    gateway.wait_ready()
    store(gateway, models)
    return gateway, models


def change_a_third(gateway: Gateway, models: Sequence[Model]) -> None:
    """Of each six objects, one is written, one is deleted; one more is made."""
    clients = Clients([gateway], models)
    with gateway.session() as session:
        for number, model in enumerate(random.sample(models, len(models))):
            if number % 6 == 0 or model.version == ABSENT:
                clients._write(session, "PUT", model, False)
            elif number % 6 == 1:
                clients._write(session, "DELETE", model, False)
    assert clients.refused.total() == 0
    clients.read_all()


def test_nodes_that_join_one_after_another_without_a_rebalance_between_lose_nothing(stack: Stack) -> None:
    stack.add_nodes("123")
    gateway, models = filled(stack, 180)
    for suffix in "45":
        stack.add_node(suffix)
        wait_in_force(gateway, stack.nodes)
        Clients([gateway], models).read_all()
        change_a_third(gateway, models)
    assert gateway.layout()["settled"] is False
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, stack.nodes)
    assert_one_request_upstream(gateway, [model for model in models if model.version != ABSENT][:20], stack.nodes)


def test_what_was_written_to_a_node_that_leaves_again_before_a_rebalance_wins_and_the_node_stays_out(
    stack: Stack,
) -> None:
    two = stack.add_nodes("12")
    gateway, models = filled(stack, 180)
    third = stack.add_node("3")
    wait_in_force(gateway, stack.nodes)
    change_a_third(gateway, models)
    take_out(gateway, third)
    wait_in_force(gateway, two, [third])
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    let_in(gateway, third)
    wait_in_force(gateway, stack.nodes)
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    take_out(gateway, third)
    wait_in_force(gateway, two, [third])
    Clients([gateway], models).read_all()
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, two, [third])

    third.recreate()  # it stays out until it is added
    gateway.restart()
    gateway.wait_ready(stack.id_of(node) for node in two)
    layout = gateway.layout()
    assert (layout["names"], layout["removed"]) == (names_of(two), [third.name])
    assert gateway.ctl("remove", "no-such-node").code == gateway.ctl("add", "no-such-node").code == 2
    Clients([gateway], models).read_all()


def test_what_is_under_way_while_objects_move_is_whole_and_uploads_across_the_switch_are_right_or_not_acknowledged(
    stack: Stack,
) -> None:
    old = stack.add_node("1")
    gateway = stack.add_gateway({"OBJGW_CLIENT_TIMEOUT": "300"})  # clients wait for the layout here
    gateway.wait_ready()
    names = [f"{stack.marker}-{suffix}" for suffix in "12"]

    def moving_id() -> str:
        return next(id for id in iter(random_id, None) if owner(id, names) == names[1])

    body, large, slow, quick = bytes(range(256)) * 1000, random.randbytes(24 * MIB), moving_id(), moving_id()
    begun = [0, 1, 100_000, len(body) - 1] * 2
    ids = [moving_id() for _ in begun]
    for id in ids:
        assert gateway.put(id, b"the old object").status == 200
    for id in (slow, quick):
        assert gateway.put(id, large).status == 200
    with ExitStack() as wires:
        uploads: list[tuple[Wire, str, bytes]] = []
        for number, (id, sent) in enumerate(zip(ids, begun, strict=True)):
            wire = wires.enter_context(Wire(gateway))
            chunks = number % 8 >= 4
            wire.send(head("PUT", id, "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}"))
            wire.send(b"%x\r\n" % len(body) if chunks else b"", body[:sent])
            uploads.append((wire, id, body[sent:] + (b"\r\n0\r\n\r\n" if chunks else b"")))
        new = stack.add_node("2")
        wait_in_force(gateway, stack.nodes)
        for wire, id, rest in uploads:
            try:
                wire.send(rest)
                status = wire.answer().status
            except BROKEN:
                status = 0
            assert status in (0, 200, 503)
            assert gateway.get(id).body == (body if status == 200 else b"the old object")
            assert status != 200 or id in new.ids()
    for id in ids:
        assert gateway.put(id, b"the new object").status == 200

    done, slowest = list[Done](), 0.0
    with Wire(gateway) as download:
        download.send(head("GET", slow))
        assert download.file.readline() == b"HTTP/1.1 200 OK\r\n"
        mover = threading.Thread(target=lambda: done.append(gateway.ctl("rebalance", "--limit", "4M")))  # 12 seconds
        mover.start()
        while mover.is_alive() and {slow, quick} - new.ids():
            began = time.monotonic()
            assert gateway.get(quick, headers={"Range": "bytes=0-9"}).body == large[:10]
            assert gateway.head(quick).status == 200
            slowest = max(slowest, time.monotonic() - began)
        http.client.parse_headers(download.file)
        assert download.file.read(len(large)) == large
        mover.join()
    assert done[0].code == 0, done
    assert slowest < 8
    assert {gateway.get(id).body for id in (slow, quick)} == {large}
    assert {gateway.get(id).body for id in ids} == {b"the new object"}
    assert_at_home(gateway, [Model(id, 1) for id in (slow, quick, *ids)], stack.nodes)
    assert old.ids() & {slow, quick, *ids} == set()


# ---------------------------------------------------------------------------------------------------------------------
# Nodes that are gone, or came back empty
# ---------------------------------------------------------------------------------------------------------------------
def assert_split(gateway: Gateway, models: Iterable[Model], lost: Node) -> None:
    """Ids of this node are 503, all others as ever."""
    for model in models:
        answer = gateway.get(model.id)
        if gateway.stack.owner(model.id) is lost:
            assert code(answer) == 503
        else:
            assert (answer.status, answer.body) == (200, text(model.id, model.version))


def test_ids_of_a_node_that_docker_does_not_list_are_503_until_it_is_back_also_after_a_restart(stack: Stack) -> None:
    one, lost, three = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    others = [stack.id_of(one), stack.id_of(three)]
    lost_ids = [model.id for model in models if stack.owner(model.id) is lost]

    with stack.steady(gateway, others):
        lost.remove()
        assert_split(gateway, models, lost)
    gateway.restart()
    gateway.wait_ready(others)
    assert_split(gateway, models, lost)
    for id in (*lost_ids, stack.id_of(lost)):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert gateway.request(method, f"/object/{id}", b"x" if method == "PUT" else None).status == 503
    assert gateway.layout()["names"] == names_of(stack.nodes)
    lost.create(lost.address)
    eventually(lambda: gateway.get(lost_ids[0]).status == 200, within=JOIN)
    Clients([gateway], models).read_all()


def test_a_node_that_came_back_empty_is_not_taken_for_what_it_was_until_that_is_given_up(stack: Stack) -> None:
    one, lost, three = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    others = [stack.id_of(one), stack.id_of(three)]
    gone = [model for model in models if stack.owner(model.id) is lost]
    eventually(lambda: record_of(lost).fresh == ())

    with stack.steady(gateway, others):
        lost.lose()
        lost.create(lost.address)
        for _ in range(5):
            assert_split(gateway, models, lost)
    gateway.restart()
    gateway.wait_ready(others)
    assert_split(gateway, models, lost)
    assert gateway.ctl("check", "--json").code != 0
    assert gateway.put(gone[0].id, b"new").status == 503  # what the node doesn't prove to be, it isn't given

    assert gateway.ctl("remove", "--lost", lost.name).code == 2  # without --yes
    assert_split(gateway, models, lost)
    done = gateway.ctl("remove", "--lost", lost.name, "--yes")
    assert done.code == 0, done
    for model in gone:
        eventually(lambda id=model.id: gateway.get(id).status == 404, within=JOIN)
        model.version = ABSENT
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    assert_at_home(gateway, models, stack.nodes)


def test_a_node_that_is_gone_for_good_is_given_up_and_another_of_its_name_joins(stack: Stack) -> None:
    *two, lost = stack.add_nodes("123")
    gateway, models = filled(stack, 60)
    lost.lose()
    stack.nodes.remove(lost)
    for model in models:
        if owner(model.id, names_of([*two, lost])) == lost.name:
            model.version = ABSENT
    kept = [model for model in models if model.version != ABSENT]
    clients = Clients([gateway], [], kept)
    assert gateway.ctl("remove", lost.name).code == 2  # it would lose something
    assert gateway.ctl("remove", "--lost", lost.name, "--yes", "--no-rebalance").code == 0
    wait_in_force(gateway, two)
    clients.read_all()
    assert {gateway.get(model.id).status for model in models if model.version == ABSENT} == {404}
    change_a_third(gateway, models)
    lost.create(lost.address)
    stack.nodes.append(lost)
    wait_in_force(gateway, stack.nodes)
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    lost.remove()  # and comes back with what it held
    assert_split(gateway, [model for model in models if stack.owner(model.id) is lost], lost)
    lost.create(lost.address)
    eventually(lambda: gateway.get(stack.id_of(lost)).status == 404, within=JOIN)
    Clients([gateway], models).read_all()
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, stack.nodes)


# ---------------------------------------------------------------------------------------------------------------------
# Gateways that don't see the same
# ---------------------------------------------------------------------------------------------------------------------
def test_a_gateway_that_docker_does_not_answer_during_a_growth_loses_nothing_and_reads_nothing_stale(
    stack: Stack,
) -> None:
    relay = stack.add_relay()
    three = stack.add_nodes("123")
    seeing = stack.add_gateway()
    blind = stack.add_gateway({"OBJGW_DOCKER_TIMEOUT": "3"}, relay=relay)
    for gateway in (seeing, blind):
        gateway.wait_ready()
    fixed = [Model() for _ in range(300)]
    store(seeing, fixed)
    clients = Clients([seeing, blind], [Model() for _ in range(90)], fixed)
    relay.hang()
    with clients.at_work():
        fourth = stack.add_node("4")
        wait_in_force(seeing, stack.nodes)
        clients.go_on(600)
        rebalance(seeing)
        clients.go_on(600)
    Clients([seeing], clients.own, fixed).read_all()
    assert_at_home(seeing, [*clients.own, *fixed], stack.nodes)
    for model in fixed:
        answer = blind.get(model.id)
        if stack.owner(model.id) is fourth:
            assert code(answer) == 503
        else:
            assert (answer.status, answer.body) == (200, text(model.id, 1))
    with clients.at_work():
        relay.open()
        eventually(lambda: blind.get(stack.id_of(fourth)).status == 404, within=JOIN)
    clients.refused.clear()
    clients.read_all(within=0)
    assert clients.refused.total() == 0
    assert_at_home(blind, [*clients.own, *fixed], [*three, fourth])


# ---------------------------------------------------------------------------------------------------------------------
# The start
# ---------------------------------------------------------------------------------------------------------------------
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


def test_nodes_that_appear_one_after_another_before_anything_is_stored_are_settled_by_themselves_and_only_s3_joins(
    stack: Stack,
) -> None:
    gateway = stack.add_gateway()
    assert code(gateway.get(random_id())) == 503
    for suffix in "213":
        stack.add_node(suffix)
        gateway.wait_layout(names_of(stack.nodes))
        if suffix == "2":
            gateway.wait_ready()  # the first layout, all that Docker lists, is made: from now on only S3 joins
            stack.add_fake("0", NO_S3)
            stack.add_fake("9", CLOSING)
    gateway.wait_layout(names_of(stack.nodes), settled=True, within=60)
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
        record = Layout.first(names, fresh=names).dump(node.name)
        node.client().make_bucket(LAYOUT_BUCKET)
        node.client().put_object(LAYOUT_BUCKET, RECORD, io.BytesIO(record), len(record))
    gateway, other = together([stack.add_gateway] * 2)
    for each in (gateway, other):  # of one worker, so that each has begun by then
        each.wait_ready()

    def layouts() -> set[Layout]:
        return {record_of(node) for node in stack.nodes}

    eventually(lambda: len(layouts()) == 1 and not layouts().pop().fresh)
    assert layouts().pop().settled
    models = [Model() for _ in range(20)]
    store(gateway, models)
    assert_one_request_upstream(gateway, models, stack.nodes)
