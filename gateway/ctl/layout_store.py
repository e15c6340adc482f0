"""The layout, as a command reads it from the nodes' records and changes it there.

A `Survey` is what all nodes say at one time. A change is made on a survey and written by
compare-and-swap; where somebody else changed the layout in between, all is read again.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection
from functools import partial, reduce
from typing import NamedTuple

from gateway.ctl.client import expecting
from gateway.ctl.cluster import Cluster
from gateway.ctl.errors import CommandError, NodeError
from gateway.nodes.holdings import (
    Holdings,
    first_conflict,
    holdings_of,
    holdings_request,
    is_unknown,
    may_be_given,
)
from gateway.nodes.layout import Layout
from gateway.nodes.merging import conflict_of, installations, merge, own_installation
from gateway.nodes.store import (
    NO_RECORD,
    Record,
    write_record,
    writing_order,
)

CHANGES = 20  # attempts at a change that others come before


class Survey(NamedTuple):
    """What the nodes' records say together, and each of them."""

    layout: Layout
    records: dict[str, Record]  # of the nodes that answer
    unreachable: dict[str, str]  # why the others don't
    holdings: dict[str, Holdings]  # what those of them hold that have no record

    def foreign(self, name: str) -> bool:
        """Whether the node's record is of another installation."""
        return self.records.get(name, NO_RECORD).foreign_to(self.layout)

    def unknown(self, name: str) -> bool:
        """Whether the node holds objects of which no record says whose they are."""
        held = self.holdings.get(name)
        return name in self.records and is_unknown(name, self.records[name], held, self.layout)

    def returned(self, name: str) -> bool:
        """Whether the node is out of the layout, and has a record from when it was in it."""
        record = self.records.get(name, NO_RECORD)
        out = name not in self.layout.all_names
        return out and record.own(name) is not None and not self.foreign(name)

    def may_be_given(self, name: str, layout: Layout) -> bool:
        """Whether the node may be given this layout as its record."""
        return may_be_given(name, self.records[name], self.holdings.get(name), layout)

    def problem(self, name: str) -> str:
        """Why it can't be relied upon that the node of this name has what it should; or nothing."""
        if name in self.unreachable:
            return self.unreachable[name]
        if name not in self.records:
            return f"{name} isn't there"
        record = self.records[name]
        if self.foreign(name):
            return f"{name} belongs to another installation (objgwctl.py add {name} takes it in)"
        if trouble := record.trouble(name):
            return f"{name}: {trouble}"
        if self.unknown(name):
            return f"{name} holds objects without a record (objgwctl.py add {name} takes it in)"
        if not record.layout and name not in self.layout.unrecorded:
            remedy = f"objgwctl.py remove --lost {name}"
            return f"{name} has lost its record, so it is empty (then: {remedy})"
        return ""

    def require_all(self) -> None:
        """Raises CommandError unless every node that may have objects can be relied upon.

        It answers, and is the one it was.
        """
        problems = [problem for name in self.layout.all_names if (problem := self.problem(name))]
        if problems:
            raise CommandError("; ".join(problems))


class LayoutStore:
    """The layout in the nodes' records: read, merged, and changed by compare-and-swap."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def survey(self, wanted: Collection[str] = ()) -> Survey:
        """The layout by the records of all nodes that answer. Writes nothing.

        `wanted` are names that an operator says belong to it, also where there is no record.

        Raises CommandError where there are no nodes, or none has a record and not all can be asked,
        or where it isn't clear which nodes belong together.
        """
        records: dict[str, Record] = {}
        unreachable: dict[str, str] = {}
        holdings: dict[str, Holdings] = {}
        self.cluster.refresh()
        for name in self.cluster.endpoints:
            try:
                client = self.cluster.client(name)
                records[name] = client.read_record()
                if not records[name].etag:
                    asked = holdings_request(self.cluster.bucket)
                    holdings[name] = holdings_of(client.ask_anyone(asked))
            except NodeError as error:
                unreachable[name] = str(error)
                records.pop(name, None)
        found = installations(
            (name, layout) for name, record in records.items() if (layout := record.own(name))
        )
        if found:
            layouts = own_installation(found).values()
            if not layouts:
                raise CommandError(conflict_of(found).text)
            layout = reduce(partial(merge, now=time.time()), layouts)
        else:
            layout = self._first(records, unreachable, holdings, wanted)
        return Survey(layout, records, unreachable, holdings)

    def change(self, step: Callable[[Layout], Layout], wanted: Collection[str] = ()) -> Layout:
        """Records what `step` makes of the layout, and gives it. What `step` raises goes through.

        Also writes where a node has an older record, or none because it is unrecorded. `wanted` are
        the names that are taken in by that. Raises CommandError.
        """
        for attempt in range(CHANGES):
            survey = self.survey(wanted)
            before = survey.layout.known(
                name for name, record in survey.records.items() if record.is_of(name, survey.layout)
            )
            after = step(before)
            records = {
                name: record
                for name, record in survey.records.items()
                if survey.may_be_given(name, after)
            }
            first, *others = writing_order(records, before, after) or [""]
            if not first:
                raise CommandError(f"no node of the layout answers ({', '.join(before.names)})")
            if self._write(first, records[first], after):
                for name in others:
                    with contextlib.suppress(NodeError):  # a gateway that looks at it writes it
                        self._write(name, records[name], after)
                return after
            time.sleep(0.05 * (attempt + 1) * (0.5 + secrets.randbelow(100) / 100))
        raise CommandError("the layout is being changed by others all the time; try again")

    def _write(self, name: str, record: Record, layout: Layout) -> bool:
        """Whether the node has this layout as its record now. Raises CommandError."""
        if record.layout == layout:
            return True
        ask, bucket = self.cluster.client(name).ask_anyone, self.cluster.records_bucket
        with expecting(name):
            return write_record(ask, bucket, name, layout, record.etag) is not None

    def take(self, name: str, layout: Layout) -> bool:
        """Replaces a foreign node's record by this layout; whether it has it now.

        Raises CommandError.
        """
        for _ in range(CHANGES):
            if self._write(name, self.cluster.client(name).read_record(), layout):
                return True
        return False

    def _first(
        self,
        records: dict[str, Record],
        unreachable: dict[str, str],
        holdings: dict[str, Holdings],
        wanted: Collection[str],
    ) -> Layout:
        """The layout where no node has a record: Docker's names.

        Where nodes hold what isn't in place, an operator has to want all of those. Raises
        CommandError.
        """
        if silent := "; ".join(unreachable.values()):
            raise CommandError(
                f"no node has a record of the layout, and not all can be asked: {silent}"
            )
        if not records:
            wanted = self.cluster.settings.node_name
            raise CommandError(f"Docker lists no node: no container's name contains {wanted!r}")
        troubles = [(name, record.trouble(name)) for name, record in records.items()]
        if wrong := [f"{name}: {trouble}" for name, trouble in troubles if trouble]:
            raise CommandError("; ".join(wrong))
        separate = self.cluster.separate
        conflict = first_conflict(records, holdings, separate)
        needed = {name for name in records if separate or not holdings[name].empty}
        if conflict and not needed <= set(wanted):
            raise CommandError(conflict.text)
        return Layout.first(records, unrecorded=records)
