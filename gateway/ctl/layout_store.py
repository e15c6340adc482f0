"""The layout, as a command reads it from the nodes' records and changes it there.

A `Survey` is what all nodes say at one time. A change is made on a survey and written by
compare-and-swap; where somebody else changed the layout in between, all is read again.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import NamedTuple

from gateway.ctl.client import expecting
from gateway.ctl.cluster import Cluster
from gateway.ctl.errors import CommandError, NodeError
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

    def foreign(self, name: str) -> bool:
        """Whether the node's record is of another installation."""
        return self.records.get(name, NO_RECORD).foreign_to(self.layout)

    def problem(self, name: str) -> str:
        """Why it can't be relied upon that the node of this name has what it should; or nothing."""
        if name in self.unreachable:
            return self.unreachable[name]
        if name not in self.records:
            return f"{name} isn't there"
        record = self.records[name]
        if trouble := record.trouble(name):
            return f"{name}: {trouble}"
        if self.foreign(name):
            return f"{name} belongs to another installation"
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

    def survey(self) -> Survey:
        """The layout by the records of all nodes that answer. Writes nothing.

        Raises CommandError where there are no nodes, or none has a record and not all can be asked.
        """
        records: dict[str, Record] = {}
        unreachable: dict[str, str] = {}
        self.cluster.refresh()
        for name in self.cluster.endpoints:
            try:
                records[name] = self.cluster.client(name).read_record()
            except NodeError as error:
                unreachable[name] = str(error)
        found = installations(
            (name, layout) for name, record in records.items() if (layout := record.own(name))
        )
        if found:
            layouts = own_installation(found).values()
            if not layouts:
                remedy = "OBJGW_NODE_NAME decides which are meant"
                raise CommandError(f"{conflict_of(found)}; {remedy}")
            layout = reduce(partial(merge, now=time.time()), layouts)
        else:
            layout = self._first(records, unreachable.values())
        return Survey(layout, records, unreachable)

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Records what `step` makes of the layout, and gives it. What `step` raises goes through.

        Also writes where a node has an older record, or none because it is unrecorded. Raises
        CommandError.
        """
        for attempt in range(CHANGES):
            survey = self.survey()
            records = survey.records
            before = survey.layout.known(name for name in records if records[name].own(name))
            after = step(before)
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

    def _first(self, records: dict[str, Record], unreachable: Iterable[str]) -> Layout:
        """The layout where no node has a record: Docker's names. Raises CommandError."""
        if silent := "; ".join(unreachable):
            raise CommandError(
                f"no node has a record of the layout, and not all can be asked: {silent}"
            )
        if not records:
            wanted = self.cluster.settings.node_name
            raise CommandError(f"Docker lists no node: no container's name contains {wanted!r}")
        troubles = [(name, record.trouble(name)) for name, record in records.items()]
        if wrong := [f"{name}: {trouble}" for name, trouble in troubles if trouble]:
            raise CommandError("; ".join(wrong))
        return Layout.first(records, unrecorded=records)
