"""What requests go by: the view that a directory makes of the nodes that there are and a layout."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gateway.nodes.layout import HOLD_SECONDS, SWITCH_SECONDS, Layout
from gateway.nodes.view import Directory, View
from gateway.s3.endpoint import Endpoint
from gateway.settings import Settings

IDS = [f"id{number}" for number in range(200)]

LONG_AGO = time.time() - 1000  # so that what was changed then is in force


def endpoint(name: str, host: str | None = "127.0.0.1", key: str = "key") -> Endpoint:
    return Endpoint(name, f"container-{name}", host, 9000, "user", key)


def directory_of(names: str, layout: Layout | None) -> Directory:
    """One that was told of nodes of these names (a letter each) and of a layout."""
    directory = Directory(Settings())
    directory.layout = layout
    find(directory, *map(endpoint, names))
    return directory


def find(directory: Directory, *endpoints: Endpoint) -> None:
    """As discovery does when it has read the source."""
    with directory.changed:
        directory.find(list(endpoints))


def use(directory: Directory, layout: Layout) -> None:
    """As is done when another layout was read."""
    with directory.changed:
        directory.layout = layout
        directory.arrange()


def owners(view: View) -> dict[str, str]:
    return {id: view.candidates(id).owner.name for id in IDS}


# --------------------------------------------------------------------------------------------------
# Candidates
# --------------------------------------------------------------------------------------------------


def test_before_there_is_a_layout_there_are_no_nodes_to_ask() -> None:
    directory = directory_of("ab", None)
    assert directory.nodes == ()
    assert [*directory.by_name] == ["a", "b"]


def test_while_the_layout_is_settled_an_id_has_its_owner_alone() -> None:
    directory = directory_of("cab", Layout.first("abc"))
    assert [node.name for node in directory.nodes] == ["a", "b", "c"]
    assert directory.settled
    assert set(owners(directory.view).values()) == {"a", "b", "c"}
    for id in IDS:
        assert directory.view.candidates(id).others == ()
        assert directory.view.candidates(id).owner_has_newest


@pytest.mark.parametrize("change", ["a name joins", "a name leaves"])
def test_after_a_change_the_owner_of_before_is_a_candidate_too(change: str) -> None:
    before = Layout.first("abc")
    joined = change == "a name joins"
    after = before.joined("d", LONG_AGO) if joined else before.without("b", LONG_AGO)
    was = owners(directory_of("abcd", before).view)
    directory = directory_of("abcd", after)
    assert not directory.settled
    assert set(owners(directory.view).values()) == ({*"abcd"} if joined else {*"ac"})
    moved = 0
    for id in IDS:
        found = directory.view.candidates(id)
        expected = [was[id]] if was[id] != found.owner.name else []
        assert [node.name for node in found.others] == expected
        assert found.owner_has_newest
        moved += len(expected)
    assert 0 < moved < len(IDS)


def test_where_an_id_came_back_to_an_earlier_owner_its_copy_may_be_an_old_one() -> None:
    directory = directory_of("abcd", Layout.first("abc").joined("d", LONG_AGO))
    between = owners(directory.view)
    assert directory.layout
    use(directory, directory.layout.without("d", LONG_AGO))
    for id in IDS:
        found = directory.view.candidates(id)
        there_meanwhile = between[id] != found.owner.name
        assert found.owner_has_newest is not there_meanwhile
        assert [node.name for node in found.others] == [between[id]] * there_meanwhile


def test_a_node_that_was_given_up_is_no_candidate() -> None:
    layout = Layout.first("abc").without("b", LONG_AGO, lost=True)
    view = directory_of("abc", layout).view
    names = {node.name for id in IDS for node in (*view.candidates(id).others,)}
    assert "b" not in names


def test_where_nobody_knows_where_objects_are_all_nodes_are_candidates() -> None:
    view = directory_of("abc", Layout.first("abc").anywhere()).view
    for id in IDS:
        found = view.candidates(id)
        assert {found.owner.name, *(node.name for node in found.others)} == {*"abc"}


# --------------------------------------------------------------------------------------------------
# Nodes that come, go and change
# --------------------------------------------------------------------------------------------------


def test_a_name_of_the_layout_keeps_its_place_when_it_is_not_listed() -> None:
    directory = directory_of("abc", Layout.first("abc"))
    before = owners(directory.view)
    find(directory, endpoint("a"), endpoint("c"))
    assert owners(directory.view) == before
    assert directory.by_name["b"].host is None


def test_a_node_at_another_address_or_with_other_keys_takes_the_place_of_the_one_before() -> None:
    directory = directory_of("abc", Layout.first("abc"))
    a, b, c = directory.nodes
    find(directory, endpoint("a", "127.0.0.2"), endpoint("b", key="other"), endpoint("c"))
    assert [node.closed for node in (a, b, c)] == [True, True, False]
    assert [node.closed for node in directory.nodes] == [False] * 3
    assert directory.nodes[2] is c
    assert directory.due.is_set()


def test_a_node_without_a_place_is_forgotten_and_closed_when_it_is_not_listed() -> None:
    directory = directory_of("abcd", Layout.first("abc"))
    extra = directory.by_name["d"]
    find(directory, *map(endpoint, "abc"))
    assert extra.closed
    assert directory.named("d") is None


def test_a_view_that_is_like_the_one_before_is_the_one_before() -> None:
    directory = directory_of("abc", Layout.first("abc"))
    before = directory.view
    find(directory, *map(endpoint, "abc"))
    assert directory.view is before
    assert directory.layout
    use(directory, replace(directory.layout, moved=True))
    assert directory.view is not before


# --------------------------------------------------------------------------------------------------
# A switch
# --------------------------------------------------------------------------------------------------


def test_until_a_switch_the_view_is_as_before_and_says_until_when() -> None:
    now = time.time()
    directory = directory_of("abcd", Layout.first("abc"))
    before = owners(directory.view)
    assert directory.view.until == math.inf
    assert directory.layout
    use(directory, directory.layout.joined("d", now))
    assert owners(directory.view) == before
    assert directory.settled
    assert directory.view.until == pytest.approx(now + SWITCH_SECONDS - HOLD_SECONDS)


def test_around_a_switch_a_request_waits_for_the_next_view(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("gateway.nodes.view.time", SimpleNamespace(time=lambda: now))
    directory = directory_of("abcd", Layout.first("abc"))
    assert directory.layout
    use(directory, directory.layout.joined("d", now))
    before, taken = directory.view, list[View]()
    assert directory.current_view() is before
    now += SWITCH_SECONDS
    request = threading.Thread(target=lambda: taken.append(directory.current_view()))
    request.start()
    use(directory, directory.layout)  # just now the view is still the one of before
    request.join(0.05)
    assert request.is_alive()
    now += 2 * HOLD_SECONDS
    use(directory, directory.layout)
    request.join(20)
    assert taken == [directory.view]
    assert [node.name for node in taken[0].nodes] == [*"abcd"]
