"""The nodes' records of the layout, as a command reads and changes them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import NamedTuple, cast

from gateway.ctl.cluster import Cluster
from gateway.ctl.errors import NodeTrouble, Trouble
from gateway.ctl.wire import unexpected
from gateway.nodes.layout import RECORD, Layout, merge


class Found(NamedTuple):
    """What a node holds as its record."""

    layout: Layout | None
    etag: str | None  # of the object, also where it isn't a record
    problem: str = ""  # why it can't be used


class Records:
    """The nodes' records: read, merged, and changed by compare-and-swap."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._path = f"/{cluster.records_bucket}/{RECORD}"

    def read_one(self, name: str) -> Found:
        """A node's record. Raises NodeTrouble."""
        reply = self.cluster.wire(name).ask("GET", self._path)
        if reply.status == 404:
            return Found(None, None)
        if reply.status != 200:
            raise unexpected(name, reply)
        try:
            layout, node = Layout.load(reply.body)
        except ValueError as error:
            return Found(None, reply.headers["etag"], f"its record can't be read: {error}")
        if node != name:
            return Found(None, reply.headers["etag"], f"it holds what belongs to {node}")
        return Found(layout, reply.headers["etag"])

    def read(self) -> tuple[dict[str, Found], dict[str, str]]:
        """The records of all nodes that answer, and why the others don't."""
        found: dict[str, Found] = {}
        silent: dict[str, str] = {}
        for name in self.cluster.refresh():
            try:
                found[name] = self.read_one(name)
            except NodeTrouble as error:
                silent[name] = str(error)
        return found, silent

    def merged(self, found: Mapping[str, Found]) -> Layout | None:
        """What the records say together; None where there is none."""
        layouts = [each.layout for each in found.values() if each.layout]
        return reduce(partial(merge, now=time.time()), layouts) if layouts else None

    def current(self) -> tuple[Layout, dict[str, Found], dict[str, str]]:
        """The layout, without writing anything. Raises Trouble where there are no nodes."""
        found, silent = self.read()
        return self.merged(found) or self._first(found, silent), found, silent

    def change(self, step: Callable[[Layout], Layout]) -> Layout:
        """Records what `step` makes of the layout, and gives it. What `step` raises goes through.

        Also writes where a node has an older record, or none because it is fresh. Raises Trouble.
        """
        for attempt in range(20):
            found, silent = self.read()
            before = self.merged(found)
            if before is None:
                before = self._first(found, silent)
            else:
                before = before.known(name for name, each in found.items() if each.layout)
            after = step(before)
            targets = [
                name for name in sorted(found)
                if name in after.all_names
                and (found[name].layout or (name in after.fresh and not found[name].problem))
            ]  # fmt: skip
            if not targets:
                raise Trouble(f"no node of the layout answers ({', '.join(before.names)})")
            first = next((name for name in targets if name in before.names), targets[0])
            if found[first].layout == after or self._write(first, found[first], after):
                for name in targets:
                    if name != first and found[name].layout != after:
                        with contextlib.suppress(NodeTrouble):  # who polls it writes it
                            self._write(name, found[name], after)
                return after
            time.sleep(0.05 * (attempt + 1) * (0.5 + secrets.randbelow(100) / 100))
        raise Trouble("the layout is being changed by others all the time; try again")

    def _first(self, found: Mapping[str, Found], silent: Mapping[str, str]) -> Layout:
        """The layout where no node has a record: Docker's names."""
        if silent:
            raise Trouble(f"no node has a record of the layout, and not all can be asked: {'; '.join(silent.values())}")
        if not found:
            raise Trouble(f"Docker lists no node: no container's name contains {self.cluster.settings.node_name!r}")
        wrong = [f"{name}: {each.problem}" for name, each in found.items() if each.problem]
        if wrong:
            raise Trouble("; ".join(wrong))
        return Layout.first(found, fresh=found)

    def _write(self, name: str, seen: Found, layout: Layout) -> bool:
        """Writes a record where it is as it was seen; whether it was. Raises NodeTrouble."""
        return self.put(name, self._path, layout.dump(name), seen.etag) is not None

    def put(self, name: str, path: str, body: bytes, etag: str | None) -> str | None:
        """Compare-and-swap of a small object: its new ETag, or None where it isn't as it was seen (None: not there)."""
        wire = self.cluster.wire(name)
        headers = {"if-match": etag} if etag else {"if-none-match": "*"}
        headers["content-type"] = "application/json"
        reply = wire.ask("PUT", path, headers, body)
        if reply.status == 404 and reply.code == "NoSuchBucket":
            wire.ask("PUT", f"/{self.cluster.records_bucket}", body=b"")
            reply = wire.ask("PUT", path, headers, body)
        if reply.status == 200:
            return cast(str, reply.headers["etag"])
        if reply.status == 412 or (reply.status == 404 and reply.code == "NoSuchKey"):
            return None
        raise unexpected(name, reply)

    def whole(self, layout: Layout, found: Mapping[str, Found], silent: Mapping[str, str]) -> None:
        """Raises Trouble unless every node that objects may be on answers and is the one it was."""
        problems = []
        for name in layout.all_names:
            if name in silent:
                problems.append(silent[name])
            elif name not in found:
                problems.append(f"{name} isn't there")
            elif found[name].problem:
                problems.append(f"{name}: {found[name].problem}")
            elif not found[name].layout and name not in layout.fresh:
                problems.append(f"{name} has lost its record, so it is empty (then: objgwctl.py remove --lost {name})")
        if problems:
            raise Trouble("; ".join(problems))
