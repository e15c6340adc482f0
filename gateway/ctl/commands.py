"""The command that moves objects: rebalance. It gives its exit code."""

from __future__ import annotations

import argparse
import json
import time

from gateway.ctl.cluster import Cluster
from gateway.ctl.console import Work, duration, say
from gateway.ctl.errors import FINE, FOUND, CommandError, LayoutChanged, LockLost, Unfinished
from gateway.ctl.layout_store import LayoutStore
from gateway.ctl.lock import WorkLock
from gateway.ctl.rebalance import Options, Rebalance, count_objects
from gateway.nodes.layout import POLL_SECONDS


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
            except CommandError as error:
                again = "what is moved stays moved; start objgwctl.py rebalance again"
                raise Unfinished(f"{error}; {again}") from None
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
