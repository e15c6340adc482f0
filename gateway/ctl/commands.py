"""The commands that change something: rebalance, remove, add. Each gives its exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Work, duration, say
from gateway.ctl.errors import FINE, FOUND, LayoutChanged, LockLost, Trouble
from gateway.ctl.lock import Shift
from gateway.ctl.rebalance import Options, Rebalance, census
from gateway.ctl.records import Found, Records
from gateway.nodes.layout import POLL_SECONDS, Layout


def rebalance(cluster: Cluster, args: argparse.Namespace) -> int:
    """Moves what isn't with its owner."""
    records = Records(cluster)
    if args.dry_run:
        layout, found, silent = records.current()
        records.whole(layout, found, silent)
        counted = census(cluster, layout)
        if args.json:
            print(json.dumps({"objects": counted.work.objects, "bytes": counted.work.bytes, "settled": layout.settled}))
        else:
            print(f"to be moved: {counted.work}; of {counted.objects} objects")
        return FINE
    return move_all(records, args)


def move_all(records: Records, args: argparse.Namespace) -> int:
    """Moves everything, and starts over where the layout changes."""
    options = Options(args.jobs, args.limit, args.wait)
    moved, began = Work(), time.monotonic()
    while True:
        with Shift(records, say, waiting=options.waiting) as shift:
            run = Rebalance(shift, options, say, moved)
            try:
                fine = run.run()
                break
            except LayoutChanged:
                say("the layout has changed; starting over")
            except LockLost:
                say("the lock couldn't be renewed in time; starting over")
        time.sleep(POLL_SECONDS)
    for text in run.failures:
        say(f"not moved: {text}")
    seconds = time.monotonic() - began
    if args.json:
        document = {"moved": moved.objects, "bytes": moved.bytes, "failed": len(run.failures), "settled": fine}
        print(json.dumps({**document, "moving": round(moved.seconds, 1), "seconds": round(seconds, 1)}))
    elif fine:
        what = f"{moved} moved in {duration(seconds)}" if moved.objects else "nothing had to be moved"
        print(f"{what}; the layout is settled")
    else:
        print(f"{moved} moved, {len(run.failures)} objects not; start it again when that is mended")
    return FINE if fine else FOUND


def remove(cluster: Cluster, args: argparse.Namespace) -> int:
    """Takes a node out."""
    records = Records(cluster)
    layout, found, silent = records.current()
    name = args.name
    if name not in layout.all_names:
        if name in layout.removed or name in layout.lost:
            print(f"{name} is taken out already")
            return FINE
        raise Trouble(f"{name} isn't in the layout; its names are {', '.join(layout.names)}")
    there = found.get(name)
    if args.lost and there and not there.layout:
        confirm_loss(cluster, layout, there, args)
        records.change(lambda layout: layout.emptied(name))
        print(f"{name} is given up as it was; it is used again, empty")
        return FINE
    if layout.names == (name,):
        raise Trouble(f"{name} is the only node")
    if args.lost:
        confirm_loss(cluster, layout, there, args)
        records.change(lambda layout: given_up(layout, name))
        print(f"{name} is given up")
    else:
        records.whole(layout, found, silent)
        if name in layout.names:
            with Shift(records, say, waiting=args.wait) as shift:
                shift.change(lambda layout: layout.without(name, time.time()))
    if args.no_rebalance:
        print("now: objgwctl.py rebalance")
        return FINE
    code = move_all(records, args)
    if code == FINE and not args.lost and not args.json:
        print(f"{name} holds nothing any more; its container can be removed")
    return code


def given_up(layout: Layout, name: str) -> Layout:
    """A layout without a node and what it holds, also where the node was being drained."""
    if name in layout.names:
        return layout.without(name, time.time(), lost=True)
    return replace(layout, version=layout.version + 1, lost=tuple(sorted({*layout.lost, name})))


def confirm_loss(cluster: Cluster, layout: Layout, found: Found | None, args: argparse.Namespace) -> None:
    """Says what giving up a node costs, and has it confirmed. Raises Trouble where it isn't."""
    name = args.name
    if found and found.layout and not args.force and next(cluster.listing(name), None):
        raise Trouble(f"{name} answers and holds objects: drain it with remove {name}, without --lost (or add --force)")
    names = next(spread.names for spread in layout.spreads if not spread.names or name in spread.names)
    share = f"1 of {len(names)} nodes, so {1 / len(names):.1%} of all ids" if names else "an unknown share of all ids"
    print(f"{name} is {share}. What it holds of them is given up; how many objects that are can't be counted.")
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise Trouble("say --yes to give it up")
    if input(f"Give up {name} and what it holds? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Trouble("nothing was changed")


def add(cluster: Cluster, args: argparse.Namespace) -> int:
    """Lets a name join that was taken out or given up."""
    records, name = Records(cluster), args.name
    layout, _, _ = records.current()
    if name in layout.names:
        print(f"{name} is in the layout already")
    elif name in layout.removed or name in cluster.nodes:
        records.change(lambda layout: layout.readmitted(name))
        print(f"{name} joins as soon as a gateway sees it; then: objgwctl.py rebalance")
    else:
        raise Trouble(f"Docker lists no {name}, and it was never taken out")
    return FINE
