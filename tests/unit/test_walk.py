"""The walk over all nodes' objects: nodes are dictionaries here, and views are real ones."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import Refusal
from gateway.nodes.layout import TOMBSTONE
from gateway.nodes.member import Member
from gateway.nodes.placement import Placement, slots_of
from gateway.nodes.view import Candidates, View
from gateway.nodes.walk import Walk
from gateway.s3.endpoint import Endpoint
from gateway.s3.listing import Entry, Page
from gateway.settings import Settings
from tests.harness.waiting import random_id

THREE, FOUR = ("node-1", "node-2", "node-3"), ("node-1", "node-2", "node-3", "node-4")
MEMBERS = {name: Member(Endpoint(name), Settings()) for name in FOUR}


def placed(*lists: tuple[str, ...]) -> Placement[Member]:
    """Where ids are by the last of these lists of names, each of which followed the one before."""
    *history, names = lists
    return Placement(tuple(MEMBERS[name] for name in names), slots_of(tuple(history), names))


def view_of(*lists: tuple[str, ...]) -> View:
    """The view of memberships with these lists of names, oldest first, of which all still count."""
    older: list[Placement[Member | None]] = []
    for number in range(1, len(lists)):
        placement = placed(*lists[:number])
        older.insert(0, Placement(tuple(placement.nodes), placement.slots))
    return View(placed(*lists), tuple(older), epoch=len(lists))


SETTLED = view_of(THREE)
JOINING = view_of(THREE, FOUR)
LEAVING = View(placed(THREE, FOUR, THREE), view_of(THREE, FOUR, THREE).older[:1], epoch=3)
BACK = view_of(FOUR, THREE, FOUR)
ANYWHERE = View(placed(THREE), anywhere=tuple(MEMBERS.values()), epoch=2)
MOVED = JOINING._replace(moved=True)
VIEWS = {
    "settled": SETTLED,
    "joining": JOINING,
    "leaving": LEAVING,
    "back": BACK,
    "anywhere": ANYWHERE,
    "moved": MOVED,
}


@dataclass
class Copy:
    entry: Entry
    epoch: int = 0
    deleted: bool = False


def copy(key: str, text: str = "x", epoch: int = 0) -> Copy:
    return Copy(Entry(key, len(text), f'"{text}"', 100.0), epoch)


def tombstone(key: str, epoch: int = 0) -> Copy:
    return Copy(Entry(key, len(TOMBSTONE), '"deleted"', 100.0), epoch, deleted=True)


@dataclass
class World:
    """Nodes, by their names what they hold; they answer as S3 does, and as GET compares copies."""

    current: View
    held: dict[str, dict[str, Copy]] = field(default_factory=lambda: {name: {} for name in MEMBERS})
    asked: Counter[str] = field(default_factory=Counter)  # listings, by node
    heads: int = 0
    before: Callable[[int, str], object] = lambda _number, _name: None  # an answer, of this number
    noted: Callable[[str], object] = lambda _query: None  # each query
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, *copies: Copy) -> None:
        self.held[name] |= {each.entry.key: each for each in copies}

    def view(self) -> View:
        return self.current

    def page(self, node: Member, query: str) -> Page:
        given = {name: values[0] for name, values in parse_qs(query[1:]).items()}
        with self.lock:
            self.noted(query[1:])
            self.before(self.asked.total(), node.name)
            self.asked[node.name] += 1
            keys = sorted(
                key
                for key in self.held[node.name]
                if key > given.get("start-after", "") and key.startswith(given.get("prefix", ""))
            )
            size = int(given["max-keys"])
            entries = [self.held[node.name][key].entry for key in keys[:size]]
            return Page(entries, "more" if len(keys) > size else "")

    def newest(self, object_id: str, _view: View, candidates: Candidates) -> Entry | None:
        self.heads += 1
        copies = [self.held[node.name].get(object_id) for node in (candidates[0], *candidates[1])]
        newest = max(filter(None, copies), key=lambda each: each.epoch, default=None)
        return newest.entry if newest and not newest.deleted else None

    def unlistable(self, node: Member, error: ValueError) -> Exception:
        return LookupError(f"{node.name}: {error}")


def pages(world: World, limit: int, prefix: str = "") -> list[list[str]]:
    """The ids of all pages, each of which is a walk of its own, as a client's requests are."""
    found: list[list[str]] = []
    after, done = "", False
    while not done:
        walk, page = Walk(world, prefix, after, limit), list[Entry]()
        while len(page) < limit and not walk.done:
            page += walk.step(limit - len(page))
        found.append([entry.key for entry in page])
        after, done = page[-1].key if page else after, walk.done
    return found


def stream(world: World, size: int = 3) -> list[str]:
    walk, found = Walk(world, size=size), list[str]()
    while not walk.done:
        found += [entry.key for entry in walk.step()]
    return found


def flat(lists: Iterable[Iterable[str]]) -> list[str]:
    return [each for part in lists for each in part]


IDS = st.text("AZaz09", min_size=1, max_size=4)
KEYS = st.lists(IDS | st.sampled_from(["a-b", "a/b/c", "é", "z~", "a" * 33]), max_size=30)


@given(keys=KEYS, limit=st.integers(1, 12), prefix=IDS | st.just(""))
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_pages_and_the_stream_give_each_id_once_in_order_and_no_other_key(
    view: View, keys: list[str], limit: int, prefix: str
) -> None:
    world, ids = World(view), {key for key in keys if key.isalnum() and key.isascii()}
    ids -= {"a" * 33}
    for number, key in enumerate(keys):
        if key not in ids:
            world.put(FOUR[number % 3], copy(key))
            continue
        candidates = view.candidates(key)
        nodes = [candidates.owner, *(() if view.moved else candidates.others)]
        world.put(nodes[number % len(nodes)].name, copy(key))
    wanted = sorted(id for id in ids if id.startswith(prefix))
    found = pages(world, limit, prefix)
    assert flat(found) == wanted
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert stream(world) == sorted(ids)


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_one_page_of_a_settled_layout_asks_each_node_once(limit: int) -> None:
    world = World(SETTLED)
    for id in (random_id() for _ in range(300)):
        world.put(SETTLED.owner(id).name, copy(id))
    walk = Walk(world, size=limit)
    assert len(walk.step(limit)) == min(limit, 300)
    assert world.asked == Counter(THREE)
    assert world.heads == 0


@pytest.mark.parametrize("nodes", [1, 3, 4])
def test_a_full_page_asks_each_node_once_and_for_little_more_than_its_share(nodes: int) -> None:
    world = World(View(placed(FOUR[:nodes]), epoch=1))
    for id in (random_id() for _ in range(4000)):
        world.put(world.current.owner(id).name, copy(id))
    largest = 0

    def note(query: str) -> None:
        nonlocal largest
        largest = max(largest, int(parse_qs(query)["max-keys"][0]))

    world.noted = note
    walk = Walk(world, size=1000)
    assert len(walk.step(1000)) == 1000
    assert world.asked == Counter(FOUR[:nodes])
    assert largest == {1: 1000, 3: 425, 4: 330}[nodes]


def test_a_stream_of_a_settled_layout_asks_for_no_entry_twice() -> None:
    world = World(SETTLED)
    for id in (random_id() for _ in range(300)):
        world.put(SETTLED.owner(id).name, copy(id))
    stream(world, size=10)
    assert world.asked == {name: -(-len(world.held[name]) // 10) for name in THREE}


def id_with(view: View, *, others: int, newest: bool = True) -> str:
    """An id with so many other candidates."""
    for id in iter(random_id, None):
        candidates = view.candidates(id)
        if len(candidates.others) == others and candidates.owner_has_newest is newest:
            return id
    raise AssertionError


# By what view, what the owner and another candidate have, and the ETag of what is listed.
O, N = copy("", "old"), copy("", "new", 9)  # noqa: E741 - as in the table
T, L = tombstone("", 9), Copy(Entry("", len(TOMBSTONE), '"like"', 100.0))
COPIES: list[tuple[View, Copy | None, Copy | None, str | None]] = [
    (JOINING, None, None, None),
    (JOINING, O, None, '"old"'),
    (JOINING, None, O, '"old"'),
    (JOINING, N, O, '"new"'),
    (JOINING, T, None, None),
    (JOINING, T, O, None),
    (JOINING, None, T, None),
    (JOINING, L, None, '"like"'),
    (JOINING, None, L, '"like"'),
    (BACK, O, N, '"new"'),
    (BACK, N, O, '"new"'),
    (BACK, O, T, None),
    (BACK, O, None, '"old"'),
    (ANYWHERE, None, O, '"old"'),
    (ANYWHERE, T, O, None),
    (MOVED, O, None, '"old"'),
    (MOVED, T, None, None),
    (MOVED, None, O, None),  # a GET finds nothing either: nobody else is asked any more
]


@pytest.mark.parametrize(("view", "at_owner", "elsewhere", "etag"), COPIES)
def test_of_several_copies_the_one_is_listed_that_a_get_would_bring(
    view: View, at_owner: Copy | None, elsewhere: Copy | None, etag: str | None
) -> None:
    world = World(view)
    id = id_with(view, others=3 if view is ANYWHERE else 1, newest=view is not BACK)
    candidates = view.candidates(id)
    for node, held in ((candidates.owner, at_owner), (candidates.others[0], elsewhere)):
        if held:
            named = Copy(held.entry._replace(key=id), held.epoch, held.deleted)
            world.put(node.name, named)
    entries = Walk(world).step()
    assert [(entry.key, entry.etag) for entry in entries] == ([(id, etag)] if etag else [])


def test_what_a_node_holds_that_is_no_candidate_is_not_listed() -> None:
    world, id = World(SETTLED), random_id()
    stray = next(node for node in SETTLED.nodes if node is not SETTLED.owner(id))
    world.put(stray.name, copy(id))
    assert stream(world) == []


@pytest.mark.parametrize("view", [JOINING, LEAVING, BACK, ANYWHERE], ids=list(VIEWS)[1:5])
@pytest.mark.parametrize("moment", range(8))
def test_an_object_that_is_moved_between_two_answers_is_listed_once(
    view: View, moment: int
) -> None:
    for _ in range(10):
        world = World(view)
        ids = [random_id() for _ in range(12)]
        for number, id in enumerate(ids):
            others = view.candidates(id).others
            node = others[number % len(others)] if others else view.owner(id)
            world.put(node.name, copy(id))

        def move(number: int, _name: str, world: World = world) -> None:
            if number != moment:
                return
            for name, held in world.held.items():
                for id in [id for id in held if view.owner(id).name != name]:
                    world.put(view.owner(id).name, held.pop(id))

        world.before = move
        assert flat(pages(world, 1000)) == sorted(ids)
        world.asked.clear()
        assert stream(world) == sorted(ids)


@pytest.mark.parametrize("moment", range(9))
def test_where_the_layout_changes_within_a_step_it_is_taken_again_and_goes_on_after_it(
    moment: int,
) -> None:
    world = World(SETTLED)
    ids = sorted(random_id() for _ in range(60))
    for id in ids:
        world.put(SETTLED.owner(id).name, copy(id))

    def change(number: int, _name: str) -> None:
        """The fourth node joined, and all is moved and settled by this answer."""
        if number == moment:
            world.current = View(placed(THREE, FOUR), epoch=2)
            for name, held in world.held.items():
                for id in [id for id in held if world.current.owner(id).name != name]:
                    world.put(world.current.owner(id).name, held.pop(id))

    world.before = change
    assert stream(world, size=5) == ids


def test_a_layout_that_never_stays_is_503_after_some_attempts() -> None:
    world = World(SETTLED)

    def change(number: int, _name: str) -> None:
        world.current = View(placed(THREE), epoch=number)

    world.before = change
    with pytest.raises(Refusal, match="layout changed") as refused:
        Walk(world).step()
    assert refused.value.status == 503


def test_what_one_node_refuses_ends_the_step_whatever_the_others_say() -> None:
    def refuse(_number: int, name: str) -> None:
        if name == "node-2":
            raise Refusal(refused, "no")  # type: ignore[arg-type]

    refused, world = 503, World(SETTLED)
    world.before = refuse
    with pytest.raises(Refusal, match="no"):
        Walk(world).step()
    assert world.asked["node-1"] == world.asked["node-3"] == 1


def entries(*keys: str) -> list[Entry]:
    return [Entry(key, 1, '"x"', 1.0) for key in keys]


NO_PAGES = {
    "not sorted": Page(entries("ab", "aa"), ""),
    "an id twice": Page(entries("ab", "ab"), ""),
    "not after the id asked for": Page(entries("aa", "ab"), ""),
    "not of the prefix": Page(entries("ab", "b"), ""),
    "it never goes on": Page(entries("a/"), "more"),
    "nothing, and more to come": Page([], "more"),
    "more than was asked for": Page(entries("ab", "ac", "ad", "ae"), "more"),
}


@pytest.mark.parametrize("page", NO_PAGES.values(), ids=NO_PAGES)
def test_a_listing_that_is_not_what_was_asked_for_is_refused(page: Page) -> None:
    class Lying(World):
        def page(self, _node: Member, _query: str) -> Page:
            return page

    with pytest.raises(LookupError, match="node-1"):
        Walk(Lying(View(placed(("node-1",)))), "a", "aa", size=3).step()
