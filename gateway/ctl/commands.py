"""The commands that change something: rebalance, remove, add. Each gives its exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Work, duration, say
from gateway.ctl.errors import FINE, FOUND, CommandError, LayoutChanged, LockLost
from gateway.ctl.layout_store import LayoutStore, Survey
from gateway.ctl.lock import WorkLock
from gateway.ctl.rebalance import Options, Rebalance, count_objects
from gateway.nodes.layout import POLL_SECONDS, Layout


def rebalance(cluster: Cluster, args: argparse.Namespace) -> int:
    """Moves what isn't with its owner."""
    store = LayoutStore(cluster)
    if not args.dry_run:
        return move_all(store, args)
    survey = store.survey()
    survey.require_all()
    counts = count_objects(cluster, survey.layout)
    if args.json:
        work = {"objects": counts.work.objects, "bytes": counts.work.bytes}
        print(json.dumps({**work, "settled": survey.layout.settled}))
    else:
        print(f"to be moved: {counts.work}; of {counts.objects} objects")
    return FINE


def move_all(store: LayoutStore, args: argparse.Namespace) -> int:
    """Moves everything, and starts over where the layout changes."""
    options = Options(args.jobs, args.limit, args.wait)
    moved, began = Work(), time.monotonic()
    while True:
        with WorkLock(store, waiting=options.waiting) as lock:
            run = Rebalance(lock, options, moved)
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
        document = {
            "moved": moved.objects,
            "bytes": moved.bytes,
            "failed": len(run.failures),
            "settled": fine,
            "moving": round(moved.seconds, 1),
            "seconds": round(seconds, 1),
        }
        print(json.dumps(document))
    elif fine:
        done = f"{moved} moved in {duration(seconds)}"
        print(f"{done if moved.objects else 'nothing had to be moved'}; the layout is settled")
    else:
        failed = f"{len(run.failures)} objects not"
        print(f"{moved} moved, {failed}; start it again when that is mended")
    return FINE if fine else FOUND


def remove(cluster: Cluster, args: argparse.Namespace) -> int:
    """Takes a node out."""
    store, name = LayoutStore(cluster), args.name
    survey = store.survey()
    layout, record = survey.layout, survey.records.get(name)
    if name not in layout.all_names:
        if name in layout.removed or name in layout.lost:
            print(f"{name} is taken out already")
            return FINE
        raise CommandError(f"{name} isn't in the layout; its names are {', '.join(layout.names)}")
    if args.lost and record and not record.own(name):
        confirm_loss(cluster, survey, args)
        store.change(lambda layout: layout.emptied(name))
        print(f"{name} is given up as it was; it is used again, empty")
        return FINE
    if layout.names == (name,):
        raise CommandError(f"{name} is the only node")
    if args.lost:
        confirm_loss(cluster, survey, args)
        store.change(lambda layout: given_up(layout, name))
        print(f"{name} is given up")
    else:
        survey.require_all()
        if name in layout.names:
            with WorkLock(store, waiting=args.wait) as lock:
                lock.change(lambda layout: layout.without(name, time.time()))
    if args.no_rebalance:
        print("now: objgwctl.py rebalance")
        return FINE
    code = move_all(store, args)
    if code == FINE and not args.lost and not args.json:
        print(f"{name} holds nothing any more; its container can be removed")
    return code


def given_up(layout: Layout, name: str) -> Layout:
    """A layout without a node and what it holds, also where the node was being drained."""
    if name in layout.names:
        return layout.without(name, time.time(), lost=True)
    return replace(layout, version=layout.version + 1, lost=tuple(sorted({*layout.lost, name})))


def confirm_loss(cluster: Cluster, survey: Survey, args: argparse.Namespace) -> None:
    """Says what giving up a node costs, and has it confirmed.

    Raises CommandError where it isn't.
    """
    name, record = args.name, survey.records.get(args.name)
    is_there = record is not None and record.own(name) is not None
    if is_there and not args.force and next(cluster.listing(name), None):
        remedy = f"drain it with remove {name}, without --lost (or add --force)"
        raise CommandError(f"{name} answers and holds objects: {remedy}")
    memberships = survey.layout.memberships
    last = next(each for each in memberships if not each.names or name in each.names)
    share = "an unknown share of all ids"
    if last.names:
        share = f"1 of {len(last.names)} nodes, so {last.share(name):.1%} of all ids"
    cost = "What it holds of them is given up; how many objects that are can't be counted."
    print(f"{name} is {share}. {cost}")
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("say --yes to give it up")
    if input(f"Give up {name} and what it holds? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")


def add(cluster: Cluster, args: argparse.Namespace) -> int:
    """Lets a name join that was taken out or given up."""
    store, name = LayoutStore(cluster), args.name
    survey = store.survey()
    layout = survey.layout
    if survey.foreign(name):
        raise CommandError(f"{name} belongs to another installation; a node that joins is empty")
    if name in layout.names:
        print(f"{name} is in the layout already")
    elif name in layout.removed or name in cluster.endpoints:
        store.change(lambda layout: layout.readmitted(name))
        print(f"{name} joins as soon as a gateway sees it; then: objgwctl.py rebalance")
    else:
        raise CommandError(f"Docker lists no {name}, and it was never taken out")
    return FINE
