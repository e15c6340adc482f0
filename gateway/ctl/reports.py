"""The commands that only look: nodes, locate, check. Each gives its exit code."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Work, amount, table
from gateway.ctl.errors import FINE, FOUND, IGNORES_CONDITIONS, NodeTrouble, Trouble
from gateway.ctl.rebalance import Census, census
from gateway.ctl.records import Found, Records
from gateway.nodes.layout import Layout, Spread
from gateway.nodes.placement import OBJECT_ID, owner_name
from gateway.s3.endpoint import NodeRecord


def nodes(cluster: Cluster, args: argparse.Namespace) -> int:
    """The nodes, and whether the layout is settled."""
    records = Records(cluster)
    layout, found, silent = records.current()
    names = sorted({*layout.all_names, *cluster.nodes})
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        rows = list(pool.map(partial(node_row, records, layout, found, silent), names))
    spreads = [{"era": each.era, "since": each.since, "names": each.names} for each in layout.spreads]
    if args.json:
        document = {"settled": layout.settled, "names": layout.names, "removed": layout.removed, "nodes": rows}
        print(json.dumps({**document, "lost": layout.lost, "moved": layout.moved, "spreads": spreads}, indent=1))
        return FINE
    dash = "-"
    table([("NAME", "ADDRESS", "STATE", "OBJECTS", "BYTES", "SHARE", "LATENCY")] + [
        (
            row["name"], row["address"] or dash, row["state"],
            dash if row["objects"] is None else str(row["objects"]),
            dash if row["bytes"] is None else amount(row["bytes"]),
            f"{row['share']:.1%}", dash if row["latency"] is None else f"{row['latency'] * 1000:.1f} ms",
        )
        for row in rows
    ])  # fmt: skip
    if layout.settled:
        print("\nThe layout is settled: every object is with its owner.")
    else:
        print("\nThe layout isn't settled; objgwctl.py rebalance does it. Objects are spread over, newest first:")
        for spread in layout.spreads:
            since = f"since {datetime.fromtimestamp(spread.since).astimezone():%F %T}" if spread.since else "ever"
            print(f"  era {spread.era}, {since}: {', '.join(spread.names) or 'anywhere'}")
    for row in rows:
        if row["keeps_conditions"] is False:
            print(f"{row['name']} {IGNORES_CONDITIONS}: uploads with one are 501, and no node can join or leave.")
    for what, which in (("Taken out", layout.removed), ("Given up", layout.lost)):
        if which:
            print(f"{what}: {', '.join(which)}")
    return FINE


def node_row(
    records: Records, layout: Layout, found: Mapping[str, Found], silent: Mapping[str, str], name: str
) -> dict[str, Any]:
    """What `nodes` says of one."""
    cluster = records.cluster
    record = cluster.nodes.get(name)
    row: dict[str, Any] = {"name": name, "address": f"{record.host}:{record.port}" if record and record.host else None}
    row["state"] = state(layout, record, found.get(name))
    row |= {"objects": None, "bytes": None, "latency": None, "keeps_conditions": None}
    row["share"] = 1 / len(layout.names) if name in layout.names else 0.0
    if name in silent or name not in found:
        return row
    try:
        began = time.monotonic()
        records.read_one(name)
        row["latency"] = round(time.monotonic() - began, 4)
        row["keeps_conditions"] = cluster.keeps_conditions(name)
        counted = Work()
        for copy in cluster.listing(name):
            if not copy.like_marker:
                counted.objects += 1
                counted.bytes += copy.size
        row |= {"objects": counted.objects, "bytes": counted.bytes}
    except NodeTrouble:
        row["state"] = "no answer"
    return row


def state(layout: Layout, record: NodeRecord | None, found: Found | None) -> str:
    """A node's state in a word or two."""
    if record is None:
        return "missing"
    if not record.host:
        return "not running"
    if found is None:
        return "no answer"
    name = record.name
    if found.problem:
        return "wrong record"
    if name not in layout.all_names:
        return "removed" if name in layout.removed else "joining"
    if not found.layout and name not in layout.fresh:
        return "empty"
    return "running" if name in layout.names else "draining"


def locate(cluster: Cluster, args: argparse.Namespace) -> int:
    """An id's owner, and its copies."""
    if not OBJECT_ID.fullmatch(args.id):
        raise Trouble("an id is 1 to 32 ASCII letters and digits")
    layout, _, _ = Records(cluster).current()
    owner = owner_name(layout.in_force(time.time())[0].names or layout.names, args.id)
    copies, unknown = [], []
    for name in sorted({*layout.all_names, *cluster.nodes}):
        try:
            copies.append(cluster.head(name, args.id))
        except NodeTrouble as error:
            unknown.append(str(error))
    there = [copy for copy in copies if copy]
    if args.json:
        rows = [
            {
                "node": copy.node, "size": copy.size, "era": copy.era, "deleted": copy.deleted,
                "modified": datetime.fromtimestamp(copy.modified, UTC).isoformat(),
            }
            for copy in there
        ]  # fmt: skip
        print(json.dumps({"id": args.id, "owner": owner, "copies": rows, "unreadable": unknown}, indent=1))
        return FINE
    print(f"owner: {owner}")
    for copy in there:
        when = datetime.fromtimestamp(copy.modified).astimezone()
        what = "marker of a deleted object" if copy.deleted else amount(copy.size)
        print(f"{copy.node}: {what}, {when:%F %T}" + (f", era {copy.era}" if copy.era else ""))
    if not there:
        print("no copy" + (" on the nodes that answer" if unknown else ""))
    for text in unknown:
        print(text)
    return FINE


def check(cluster: Cluster, args: argparse.Namespace) -> int:
    """Whether everything is where it belongs."""
    records = Records(cluster)
    layout, seen, silent = records.current()
    found, uploads, unreadable = Census(), 0, []
    for name in layout.all_names:
        try:
            records.whole(replace(layout, spreads=(Spread(1, 0.0, (name,)),)), seen, silent)
            uploads += len(cluster.uploads(name))
        except Trouble as error:
            unreadable.append(str(error))
    if not unreadable:
        found = census(cluster, layout)
    clean = not (found.misplaced or found.strays or found.markers or uploads or unreadable)
    document = {
        "clean": clean, "settled": layout.settled, "objects": found.objects, "misplaced": found.misplaced,
        "strays": found.strays, "uploads": uploads, "markers": found.markers, "foreign": found.foreign,
        "unreadable": unreadable,
    }  # fmt: skip
    if args.json:
        print(json.dumps(document, indent=1))
        return FINE if clean else FOUND
    for text in unreadable:
        print(f"can't be read: {text}")
    if not unreadable:
        print(f"{found.objects} objects, {found.misplaced} of them not with their owner")
        print(f"{found.strays} stray copies, {found.markers} markers of deleted objects")
    print(f"{uploads} multipart uploads that were never completed")
    if found.foreign:
        print(f"{found.foreign} keys that are no ids, and can't be reached through the gateway")
    if not layout.settled:
        print("the layout isn't settled")
    print("clean" if clean else "not clean")
    return FINE if clean else FOUND
