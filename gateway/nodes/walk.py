"""The objects of all nodes in the order of their ids, each once: what a GET of each id would bring.

The problem. Each node lists its own objects, sorted and a page at a time. While the layout isn't
settled, an object may be listed by its owner, by an older owner, or by both; a tombstone is listed
like any object; and `rebalance` moves objects from node to node between the answers.

The answer. A `Walk` takes steps. In one step each node that may hold objects is asked for its next
page, all at once. A page says what its node has up to its last key, or to the end. So up to the
*horizon*, the least of these last keys, all is known, and the step gives those ids; the next step
goes on after the horizon.

    settled                 One request to each node, for its share (`share`). What a node holds
                            that isn't the id's owner is no object: no GET looks there. What pages
                            have beyond the horizon is kept for the next step, so that each node is
                            asked for an entry once.
    objects move            The nodes of the older memberships are asked first, and those of the
                            current one when all of them have answered, some for a second time. An
                            object that was moved away before its old node answered is listed by
                            its owner then: a move never takes an object away from its owner.
    all is moved            Only owners count, and they still have tombstones.

Which copy counts is decided as for a GET (`gateway.objects.moving`), by the listings alone where
they can tell: one copy, or the owner's where nobody can have a newer one. Where several nodes have
an older copy, and for what is as long as a tombstone, each node is asked what it has (`newest`).

A step goes by one view. Where another came into force meanwhile, it is taken again. Between two
steps the view may change: a step begins after the last id that was given, by the view of then.

Worst case of a step: the entries of one page of each node, twice while objects move, and three
requests for each id that listings can't decide. Keys that are no ids are left out; where a page has
nothing else, a step may give nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Protocol

from gateway.answers import unavailable
from gateway.background import together
from gateway.nodes.layout import TOMBSTONE_SIZES
from gateway.nodes.member import Member
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.view import Candidates, View
from gateway.s3.headers import LISTING_PAGE
from gateway.s3.listing import Entry, Page, objects_query

ATTEMPTS = 8  # of a step, each by another view


class Nodes(Protocol):
    """What a walk needs of whoever asks the nodes. Each may raise what the walk's user expects."""

    def view(self) -> View:
        """The view that is in force."""

    def page(self, node: Member, query: str) -> Page:
        """A page of a node's listing. Several threads call it."""

    def newest(self, object_id: str, view: View, candidates: Candidates) -> Entry | None:
        """The newest copy by what all candidates say; None where it is deleted, or nowhere."""

    def unlistable(self, node: Member, error: ValueError) -> Exception:
        """What is raised where a node's answer is no listing."""


def shown(entry: Entry) -> dict[str, str | int]:
    """What a list says of an object.

    >>> shown(Entry("a", 5, '"5d41"', 1795593600.25))["modified"]
    '2026-11-25T08:00:00Z'
    """
    modified = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.modified))  # RFC 3339
    return {"id": entry.key, "size": entry.size, "etag": entry.etag, "modified": modified}


def share(objects: int, nodes: int) -> int:
    """How many entries each of so many nodes is asked for, so that together they have so many.

    Ids are spread evenly, by a hash: what one node has of any so many ids is above its mean by more
    than six standard deviations once in a billion times. Then the page takes a second step.

    >>> share(1000, 3), share(1000, 1), share(10, 3)
    (425, 1000, 10)
    """
    mean = objects / nodes
    return min(objects, math.ceil(mean + 5 * math.sqrt(mean)), LISTING_PAGE)


class Span(NamedTuple):
    """What a node has of a range of keys: its ids, sorted, and up to where they are known."""

    entries: list[Entry]
    end: str | None  # the last key of the range; None where the node has no more


class Walk:
    """The objects whose ids begin with a prefix and come after another id. For one thread."""

    def __init__(
        self, nodes: Nodes, prefix: str = "", after: str = "", size: int = LISTING_PAGE
    ) -> None:
        """`size` is how many objects a step is to give, where there are so many."""
        self.done = False  # all were given
        self._nodes, self._prefix, self._after, self._size = nodes, prefix, after, size
        self._view: View | None = None
        self._known: dict[Member, Span] = {}  # what is left of the last step's pages

    def step(self, limit: int = 0) -> list[Entry]:
        """The next objects, sorted: so many, or fewer at the end of what one step has.

        Without a limit, all that it has. Raises Refusal where views change faster than it can
        take the step, and what its `Nodes` do.
        """
        for _ in range(ATTEMPTS):
            view = self._nodes.view()
            pages = self._pages(view)
            horizon = min((span.end for _, span in pages if span.end is not None), default=None)
            found, more = self._found(view, pages, horizon, limit)
            if self._nodes.view() is view:
                self.done = horizon is None and not more
                self._after = found[-1].key if more else horizon or self._after
                return found
            self._view = None
        raise unavailable("The layout changed again and again meanwhile; try again.")

    def _pages(self, view: View) -> list[tuple[Member, Span]]:
        """What the nodes have after the last id, each with its node."""
        settled = view.settled or view.moved
        if view is not self._view or not settled:
            self._view, self._known = view, {}
        if settled:
            self._known = {
                node: Span([each for each in span.entries if each.key > self._after], span.end)
                for node, span in self._known.items()
                if span.end is None or span.end > self._after
            }
            size = share(self._size, len(view.nodes))
            missing = [node for node in view.nodes if node not in self._known]
            self._known |= self._ask(missing, size)
            return list(self._known.items())
        older = {node: None for each in view.older for node in each.nodes if node}
        sources = [*older, *(node for node in view.anywhere if node not in older)]
        size = min(self._size, LISTING_PAGE)
        first = self._ask(sources, size)
        return [*first, *self._ask(view.nodes, size)]

    def _ask(self, nodes: Iterable[Member], size: int) -> list[tuple[Member, Span]]:
        """The next page of each of these nodes, asked at once for so many entries."""
        query = objects_query(self._after, prefix=self._prefix, size=size)

        def ask(node: Member) -> tuple[Member, Span]:
            page = self._nodes.page(node, query)
            try:
                return node, self._span(page, size)
            except ValueError as error:
                raise self._nodes.unlistable(node, error) from None

        return together([partial(ask, node) for node in nodes])

    def _span(self, page: Page, size: int) -> Span:
        """What a page says. Raises ValueError where it isn't what was asked for."""
        ids = [entry for entry in page.entries if OBJECT_ID.fullmatch(entry.key)]
        last = self._after
        for entry in ids:
            if not (entry.key > last and entry.key.startswith(self._prefix)):
                raise ValueError("a listing that isn't sorted, or not after the key asked for")
            last = entry.key
        if not page.next:
            return Span(ids, None)
        if not page.entries or page.entries[-1].key <= self._after or len(ids) > size:
            raise ValueError("a listing that doesn't go on")
        return Span(ids, max(page.entries[-1].key, last))

    def _found(
        self, view: View, pages: list[tuple[Member, Span]], horizon: str | None, limit: int
    ) -> tuple[list[Entry], bool]:
        """The objects up to the horizon, so many at most, and whether there is one more."""
        copies: dict[str, dict[Member, Entry]] = {}
        for node, span in pages:  # of two pages of a node the later one counts
            for each in span.entries:
                if horizon is None or each.key <= horizon:
                    copies.setdefault(each.key, {})[node] = each
        found: list[Entry] = []
        for object_id in sorted(copies):
            if (entry := self._newest(object_id, view, copies[object_id])) is None:
                continue
            if limit and len(found) == limit:
                return found, True
            found.append(entry)
        return found, False

    def _newest(self, object_id: str, view: View, copies: dict[Member, Entry]) -> Entry | None:
        """The copy that a GET would bring, or None where it would bring none."""
        if view.settled:
            return copies.get(view.owner(object_id))
        candidates = view.candidates(object_id)
        owners, others = copies.get(candidates.owner), candidates.others
        listed = [owners] if owners else []
        if not view.moved and not (owners and candidates.owner_has_newest):
            listed += [copies[node] for node in others if node in copies]
        if not listed:
            return None
        if len(listed) == 1 and listed[0].size not in TOMBSTONE_SIZES:
            return listed[0]
        return self._nodes.newest(object_id, view, candidates)
