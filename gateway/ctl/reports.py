"""The commands that only look: nodes, locate, check. Each gives its exit code."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Work, amount, table
from gateway.ctl.errors import FINE, FOUND, IGNORES_CONDITIONS, NodeTrouble, Trouble
from gateway.ctl.layout_store import LayoutStore, Survey
from gateway.ctl.listing import StoredCopy, iso_time
from gateway.ctl.rebalance import Counts, count_objects
from gateway.nodes.layout import Layout
from gateway.nodes.placement import OBJECT_ID, owner_name

Row = dict[str, Any]  # what `nodes` says of one node


def nodes(cluster: Cluster, args: argparse.Namespace) -> int:
    """The nodes, and whether the layout is settled."""
    survey = LayoutStore(cluster).survey()
    layout = survey.layout
    names = sorted({*layout.all_names, *cluster.endpoints})
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        rows = list(pool.map(partial(node_row, cluster, survey), names))
    if args.json:
        document = {"settled": layout.settled, "names": layout.names, "nodes": rows}
        print(json.dumps(document | asdict(layout), indent=1))
    else:
        table([TITLES, *map(cells, rows)])
        print()
        print_layout(layout, rows)
    return FINE


TITLES = ["NAME", "ADDRESS", "STATE", "OBJECTS", "BYTES", "SHARE", "LATENCY"]


def cells(row: Row) -> list[str]:
    """A row of the table for people."""
    latency = row["latency"]
    return [
        row["name"],
        row["address"] or "-",
        row["state"],
        "-" if row["objects"] is None else str(row["objects"]),
        "-" if row["bytes"] is None else amount(row["bytes"]),
        f"{row['share']:.1%}",
        "-" if latency is None else f"{latency * 1000:.1f} ms",
    ]


def print_layout(layout: Layout, rows: list[Row]) -> None:
    """What there is to say beside the table."""
    if layout.settled:
        print("The layout is settled: every object is with its owner.")
    else:
        print("The layout isn't settled; objgwctl.py rebalance does it.")
        print("Objects are spread over, newest first:")
        for spread in layout.spreads:
            since = "ever"
            if spread.since:
                since = f"since {datetime.fromtimestamp(spread.since).astimezone():%F %T}"
            print(f"  era {spread.era}, {since}: {', '.join(spread.names) or 'anywhere'}")
    for row in rows:
        if row["keeps_conditions"] is False:
            cost = "uploads with one are 501, and no node can join or leave"
            print(f"{row['name']} {IGNORES_CONDITIONS}: {cost}.")
    for what, which in (("Taken out", layout.removed), ("Given up", layout.lost)):
        if which:
            print(f"{what}: {', '.join(which)}")


def node_row(cluster: Cluster, survey: Survey, name: str) -> Row:
    """What `nodes` says of one. Only a node with its own record is asked for more than that."""
    endpoint, layout, record = cluster.endpoints.get(name), survey.layout, survey.records.get(name)
    row: Row = {
        "name": name,
        "address": f"{endpoint.host}:{endpoint.port}" if endpoint and endpoint.host else None,
        "state": state(cluster, survey, name),
        "objects": None,
        "bytes": None,
        "latency": None,
        "keeps_conditions": None,
        "share": 1 / len(layout.names) if name in layout.names else 0.0,
    }
    if record is None:
        return row
    try:
        client = cluster.client(name)
        client.read_record()  # opens this thread's connection
        began = time.monotonic()
        record = client.read_record()
        row["latency"] = round(time.monotonic() - began, 4)
        if record.own(name):
            row["keeps_conditions"] = cluster.keeps_conditions(name)
            held = Work()
            for copy in cluster.listing(name):
                if not copy.like_marker:
                    held.objects += 1
                    held.bytes += copy.size
            row |= {"objects": held.objects, "bytes": held.bytes}
    except NodeTrouble:
        row["state"] = "no answer"
    return row


def state(cluster: Cluster, survey: Survey, name: str) -> str:
    """A node's state in a word or two."""
    endpoint, record, layout = cluster.endpoints.get(name), survey.records.get(name), survey.layout
    if endpoint is None:
        return "missing"
    if not endpoint.host:
        return "not running"
    if record is None:
        return "no answer"
    if record.trouble(name):
        return "wrong record"
    if name not in layout.all_names:
        return "removed" if name in layout.removed else "joining"
    if not record.layout and name not in layout.fresh:
        return "empty"
    return "running" if name in layout.names else "draining"


def locate(cluster: Cluster, args: argparse.Namespace) -> int:
    """An id's owner, and its copies."""
    if not OBJECT_ID.fullmatch(args.id):
        raise Trouble("an id is 1 to 32 ASCII letters and digits")
    layout = LayoutStore(cluster).survey().layout
    owner = owner_name(layout.in_force(time.time())[0].names or layout.names, args.id)
    copies: list[StoredCopy] = []
    unreadable: list[str] = []
    for name in sorted({*layout.all_names, *cluster.endpoints}):
        try:
            copy = cluster.head(name, args.id)
        except NodeTrouble as error:
            unreadable.append(str(error))
        else:
            copies += [copy] if copy else []
    if args.json:
        rows = [copy._asdict() | {"modified": iso_time(copy.modified)} for copy in copies]
        document = {"id": args.id, "owner": owner, "copies": rows, "unreadable": unreadable}
        print(json.dumps(document, indent=1))
        return FINE
    print(f"owner: {owner}")
    for copy in copies:
        when = datetime.fromtimestamp(copy.modified).astimezone()
        what = "marker of a deleted object" if copy.deleted else amount(copy.size)
        print(f"{copy.node}: {what}, {when:%F %T}" + (f", era {copy.era}" if copy.era else ""))
    if not copies:
        print("no copy" + (" on the nodes that answer" if unreadable else ""))
    for text in unreadable:
        print(text)
    return FINE


def check(cluster: Cluster, args: argparse.Namespace) -> int:
    """Whether everything is where it belongs."""
    survey = LayoutStore(cluster).survey()
    layout = survey.layout
    counts, uploads, unreadable = Counts(), 0, []
    for name in layout.all_names:
        try:
            if problem := survey.problem(name):
                unreadable.append(problem)
            else:
                uploads += len(cluster.uploads(name))
        except Trouble as error:
            unreadable.append(str(error))
    if not unreadable:
        counts = count_objects(cluster, layout)
    wrong = counts.misplaced or counts.strays or counts.markers or uploads or unreadable
    if args.json:
        document = {"clean": not wrong, "settled": layout.settled, "uploads": uploads}
        figures = {name: count for name, count in asdict(counts).items() if name != "work"}
        document |= figures | {"unreadable": unreadable}
        print(json.dumps(document, indent=1))
        return FOUND if wrong else FINE
    for text in unreadable:
        print(f"can't be read: {text}")
    if not unreadable:
        print(f"{counts.objects} objects, {counts.misplaced} of them not with their owner")
        print(f"{counts.strays} stray copies, {counts.markers} markers of deleted objects")
    print(f"{uploads} multipart uploads that were never completed")
    if counts.foreign:
        print(f"{counts.foreign} keys that are no ids, and can't be reached through the gateway")
    if not layout.settled:
        print("the layout isn't settled")
    print("not clean" if wrong else "clean")
    return FOUND if wrong else FINE
