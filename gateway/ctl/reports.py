"""The commands that only look: nodes, locate, check. Each gives its exit code."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Listed, Work, amount, table
from gateway.ctl.copies import StoredCopy
from gateway.ctl.errors import FINE, FOUND, ClosesConnections, CommandError, NodeError, ignoring
from gateway.ctl.layout_store import LayoutStore, Survey
from gateway.ctl.rebalance import Counts, count_objects, is_tombstone
from gateway.nodes.abilities import TO_GROW
from gateway.nodes.layout import Layout
from gateway.nodes.placement import OBJECT_ID
from gateway.nodes.record_json import document
from gateway.s3.headers import IF_MATCH
from gateway.s3.listing import iso_time

Row = dict[str, Any]  # what is said of one node, or of one copy


def nodes(cluster: Cluster, args: argparse.Namespace) -> int:
    """The nodes, and whether the layout is settled."""
    survey = LayoutStore(cluster).survey()
    layout = survey.layout
    names = sorted({*layout.all_names, *cluster.endpoints})
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        rows = list(pool.map(partial(node_row, cluster, survey, Listed()), names))
    if args.json:
        shown = {"settled": layout.settled, "names": layout.names, "nodes": rows}
        shown["problems"] = problems_of(rows)
        print(json.dumps(shown | document(layout), indent=1))
    else:
        table([TITLES, *map(cells, rows)])
        print()
        print_layout(layout, rows)
    return FINE


TITLES = ["NAME", "ADDRESS", "STATE", "OBJECTS", "BYTES", "SHARE", "FREE", "LATENCY"]


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
        free_space(row),
        "-" if latency is None else f"{latency * 1000:.1f} ms",
    ]


def free_space(row: Row) -> str:
    """How much room a node has left, for people."""
    if row["total_bytes"] is None:
        return "-" if row["objects"] is None else "not known"
    return f"{amount(row['free_bytes'])} of {amount(row['total_bytes'])}"


def print_layout(layout: Layout, rows: list[Row]) -> None:
    """What there is to say beside the table."""
    problems = problems_of(rows)
    if layout.settled and not problems:
        print("The layout is settled; whether every object is with its owner: objgwctl.py check")
    elif layout.settled:
        print("The layout is settled, but:")
    else:
        print("The layout isn't settled; objgwctl.py rebalance does it.")
        print("Objects are spread over, newest first:")
        for membership in layout.memberships:
            since = "ever"
            if membership.since:
                since = f"since {datetime.fromtimestamp(membership.since).astimezone():%F %T}"
            print(f"  era {membership.epoch}, {since}: {', '.join(membership.names) or 'anywhere'}")
    for problem in problems:
        print(problem)
    for row in rows:
        if row["ignores"]:
            cost = "uploads with that are 501"
            if not TO_GROW.isdisjoint(row["ignores"]):
                cost += ", and no node can join or leave"
            print(f"{row['name']} {ignoring(row['ignores'])}: {cost}.")
    for what, which in (("Taken out", layout.removed), ("Given up", layout.lost)):
        if which:
            print(f"{what}: {', '.join(which)}")


# What a node's state means, and what to do; states that mean nothing special aren't here.
PROBLEMS = {
    "missing": "is in the layout, and Docker doesn't list it: its ids are 503{lost}",
    "not running": "doesn't run: its ids are 503{lost}",
    "unusable": "runs, and can't be used: {problem}",
    "no answer": "doesn't answer: its ids are 503",
    "closes connections": f"{ClosesConnections.what}: its ids are 503",
    "wrong record": "holds what belongs to another node, or a record that can't be read",
    "foreign": "belongs to another installation, and is left alone{add}",
    "unknown": "holds objects without a record, and is left alone{add}",
    "empty": "lost what it held: its ids are 503{lost}",
    "joining": "is about to join",
    "returned": "was given up, is back with its record from then, and is left alone",
}
REMEDIES = {
    "lost": " (to give up what it held: objgwctl.py remove --lost {name})",
    "add": " (objgwctl.py add {name} takes it in)",
}


def problems_of(rows: list[Row]) -> list[str]:
    """What there is to say of nodes because of which an object may not be where it belongs."""
    problems = []
    for row in rows:
        if row["state"] in PROBLEMS:
            remedies = {what: text.format(**row) for what, text in REMEDIES.items()}
            text = PROBLEMS[row["state"]].format(**row, **remedies)
            problems.append(f"{row['name']} {text}.")
    return problems


def node_row(cluster: Cluster, survey: Survey, listed: Listed, name: str) -> Row:
    """What `nodes` says of one. Only a node with its own record is asked for more than that."""
    endpoint, layout, record = cluster.endpoints.get(name), survey.layout, survey.records.get(name)
    row: Row = {
        "name": name,
        "address": endpoint.authority if endpoint and endpoint.host else None,
        "state": node_state(cluster, survey, name),
        "objects": None,
        "bytes": None,
        "total_bytes": None,
        "free_bytes": None,
        "latency": None,
        "keeps_conditions": None,
        "ignores": None,
        "share": layout.memberships[0].share(name),
        "problem": endpoint.problem if endpoint else "",
    }
    if record is None:
        return row
    try:
        client = cluster.client(name)
        client.read_record()  # opens this thread's connection
        began = time.monotonic()
        record = client.read_record()
        row["latency"] = round(time.monotonic() - began, 4)
        if record.own(name) and not survey.foreign(name):
            if (ignored := cluster.ignores(name)) is not None:
                row |= {
                    "keeps_conditions": ignored.isdisjoint(IF_MATCH),
                    "ignores": sorted(ignored),
                }
            if usage := cluster.usage(name):
                row |= {"total_bytes": usage.total, "free_bytes": usage.free}
            held = Work()
            for copy in listed.each(cluster.listing(name)):
                # A settled layout has no tombstones.
                if layout.settled or not is_tombstone(cluster, copy):
                    held.objects += 1
                    held.bytes += copy.size
            row |= {"objects": held.objects, "bytes": held.bytes}
    except ClosesConnections:
        row["state"] = "closes connections"
    except NodeError:
        row["state"] = "no answer"
    return row


def node_state(cluster: Cluster, survey: Survey, name: str) -> str:
    """A node's state in a word or two."""
    endpoint, record, layout = cluster.endpoints.get(name), survey.records.get(name), survey.layout
    if endpoint is None:
        return "missing"
    if endpoint.problem:
        return "unusable"
    if not endpoint.host:
        return "not running"
    if record is None:
        return "no answer"
    if survey.foreign(name):
        return "foreign"
    if record.trouble(name):
        return "wrong record"
    if survey.unknown(name):
        return "unknown"
    if name not in layout.all_names:
        if name in layout.removed:
            return "removed"
        return "returned" if survey.returned(name) else "joining"
    if not record.layout and name not in layout.unrecorded:
        return "empty"
    return "running" if name in layout.names else "draining"


def locate(cluster: Cluster, args: argparse.Namespace) -> int:
    """An id's owner, and its copies."""
    if not OBJECT_ID.fullmatch(args.id):
        raise CommandError("an id is 1 to 32 ASCII letters and digits")
    layout = LayoutStore(cluster).survey().layout
    newest = layout.in_force(time.time())[0]
    owner = (newest if newest.names else layout.memberships[0]).owner(args.id)
    copies: list[StoredCopy] = []
    unreadable: list[str] = []
    for name in sorted({*layout.all_names, *cluster.endpoints}):
        try:
            copy = cluster.head(name, args.id)
        except NodeError as error:
            unreadable.append(str(error))
        else:
            copies += [copy] if copy else []
    if args.json:
        rows = [copy_document(copy) for copy in copies]
        shown = {"id": args.id, "owner": owner, "copies": rows, "unreadable": unreadable}
        print(json.dumps(shown, indent=1))
        return FINE
    print(f"owner: {owner}")
    for copy in copies:
        when = datetime.fromtimestamp(copy.modified).astimezone()
        what = "marker of a deleted object" if copy.deleted else amount(copy.size)
        print(f"{copy.node}: {what}, {when:%F %T}" + (f", era {copy.epoch}" if copy.epoch else ""))
    if not copies:
        print("no copy" + (" on the nodes that answer" if unreadable else ""))
    for text in unreadable:
        print(text)
    return FINE


def copy_document(copy: StoredCopy) -> Row:
    """A copy as JSON has it."""
    return {
        "node": copy.node,
        "key": copy.key,
        "size": copy.size,
        "etag": copy.etag,
        "modified": iso_time(copy.modified),
        "era": copy.epoch,
        "deleted": copy.deleted,
    }


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
        except CommandError as error:
            unreadable.append(str(error))
    if not unreadable:
        counts = count_objects(cluster, layout)
    wrong = counts.misplaced or counts.strays or counts.tombstones or uploads or unreadable
    if args.json:
        shown: Row = {"clean": not wrong, "settled": layout.settled, "uploads": uploads}
        shown |= {
            "objects": counts.objects,
            "misplaced": counts.misplaced,
            "strays": counts.strays,
            "markers": counts.tombstones,
            "foreign": counts.other_keys,
            "unreadable": unreadable,
        }
        print(json.dumps(shown, indent=1))
        return FOUND if wrong else FINE
    for text in unreadable:
        print(f"can't be read: {text}")
    if not unreadable:
        print(f"{counts.objects} objects, {counts.misplaced} of them not with their owner")
        print(f"{counts.strays} stray copies, {counts.tombstones} markers of deleted objects")
    print(f"{uploads} multipart uploads that were never completed")
    if counts.other_keys:
        print(f"{counts.other_keys} keys that are no ids, and can't be reached through the gateway")
    if not layout.settled:
        print("the layout isn't settled")
    print("not clean" if wrong else "clean")
    return FOUND if wrong else FINE
