"""The commands that change which nodes there are: remove, add. Each gives its exit code.

Each looks first at everything that could stop it, says what it will do, and then makes one change
of the layout, of all names that it was given. So exit code 2 means that nothing was changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from gateway.ctl.cluster import Cluster
from gateway.ctl.commands import move_all
from gateway.ctl.console import Work
from gateway.ctl.errors import (
    FINE,
    FOUND,
    Busy,
    CommandError,
    Unfinished,
    ignoring,
)
from gateway.ctl.layout_store import LayoutStore, Survey
from gateway.ctl.lock import WorkLock
from gateway.ctl.rebalance import is_tombstone
from gateway.nodes.abilities import TO_GROW
from gateway.nodes.layout import Layout

# Epochs that objects of a node without a record may have at most, above those of the layout: each
# change of names makes one.
UNKNOWN_EPOCHS = 1000


def remove(cluster: Cluster, args: argparse.Namespace) -> int:
    """Takes nodes out."""
    store = LayoutStore(cluster)
    survey = store.survey()
    layout = survey.layout
    names = sorted(set(args.names))
    for name in names:
        if name in layout.removed or name in layout.lost:
            print(f"{name} is taken out already")
        elif name not in layout.all_names:
            known = ", ".join(layout.names)
            raise CommandError(f"{name} isn't in the layout; its names are {known}")
    names = [name for name in names if name in layout.all_names]
    if not names:
        return FINE
    if args.foreign:
        return split(store, survey, names, args)
    return give_up(store, survey, names, args) if args.lost else drain(store, survey, names, args)


def drain(store: LayoutStore, survey: Survey, names: list[str], args: argparse.Namespace) -> int:
    """Takes nodes out whose objects are moved to the others."""
    require_rest(survey.layout, names)
    for name in names:
        if problem := survey.problem(name):
            remedy = f"or give up what it held: objgwctl.py remove --lost {name}"
            raise CommandError(
                f"{problem}, so nothing can be moved from it: bring it back, {remedy}"
            )
    survey.require_all()
    if leaving := [name for name in names if name in survey.layout.names]:
        with WorkLock(store, waiting=args.wait) as lock:
            lock.change(lambda layout: layout.without(leaving, time.time()))
    code = finish(store, args, f"{listed(names)} recorded as leaving")
    if code == FINE and not args.json and not args.no_rebalance:
        print(f"{listed(names)} hold nothing any more; their containers can be removed")
    return code


def give_up(store: LayoutStore, survey: Survey, names: list[str], args: argparse.Namespace) -> int:
    """Takes nodes out whose objects are lost; one that is there, and empty, is used again."""
    layout = survey.layout
    for name in names:
        if name in survey.records and (survey.foreign(name) or survey.records[name].trouble(name)):
            raise CommandError(f"{survey.problem(name)}; to give it up, stop its container first")
    empty = [
        name for name in names if name in survey.records and not survey.records[name].own(name)
    ]
    gone = [name for name in names if name not in empty]
    if gone:
        require_rest(layout, gone)
        others = [name for name in layout.all_names if name not in names]
        problems = [problem for name in others if (problem := survey.problem(name))]
        if problems and not args.no_rebalance:
            remedy = "mend that, name those nodes too, or say --no-rebalance and rebalance later"
            reason = "; ".join(problems)
            raise CommandError(f"{reason}; so the others can't be rebalanced: {remedy}")
    confirm_loss(store.cluster, survey, names, args)
    store.change(lambda layout: given_up(layout.emptied(empty) if empty else layout, gone))
    if empty:
        print(f"{listed(empty)} given up; used again, empty")
    if not gone:
        return FINE
    print(f"{listed(gone)} given up")
    return finish(store, args, f"{listed(gone)} given up")


def split(store: LayoutStore, survey: Survey, names: list[str], args: argparse.Namespace) -> int:
    """Takes nodes out that belong to another installation, with all that they hold."""
    require_rest(survey.layout, names)
    own = [name for name in survey.layout.names if name not in names]
    if not any(name in survey.records for name in own):
        raise CommandError(f"none of this installation's own nodes answers: {', '.join(own)}")
    print(
        f"This installation will have {listed(own)} only. Its objects are looked for on all of "
        f"these until they are rebalanced. {listed(names)}: nothing is asked of them, written to "
        "them or moved any more, and what they hold isn't found here. Their own gateways go on "
        "when the same is done there, with the names of this installation."
    )
    confirm(args, f"Go on without {listed(names)}?")
    store.change(lambda layout: layout.split(names, time.time()))
    return finish(store, args, f"{listed(names)} taken out")


def require_rest(layout: Layout, names: list[str]) -> None:
    """Raises CommandError where no node would be left."""
    if set(layout.names) <= set(names):
        raise CommandError(f"no node would be left without {listed(names)}")


def finish(store: LayoutStore, args: argparse.Namespace, done: str) -> int:
    """Moves what has to be moved after a change of the layout, which is `done`."""
    if args.no_rebalance:
        print("now: objgwctl.py rebalance")
        return FINE
    try:
        return move_all(store, args)
    except (Busy, Unfinished):
        raise
    except CommandError as error:
        raise Unfinished(f"{done}; but {error}. Mend that, then: objgwctl.py rebalance") from None


def given_up(layout: Layout, names: list[str]) -> Layout:
    """A layout without nodes and what they hold, also those that were being drained."""
    if leaving := [name for name in names if name in layout.names]:
        layout = layout.without(leaving, time.time(), lost=True)
    if drained := set(names) - set(leaving):
        lost = tuple(sorted({*layout.lost, *drained}))
        layout = replace(layout, version=layout.version + 1, lost=lost)
    return layout


def confirm_loss(
    cluster: Cluster, survey: Survey, names: list[str], args: argparse.Namespace
) -> None:
    """Says what giving up nodes costs, and has it confirmed.

    Raises CommandError where it isn't.
    """
    for name in names:
        record = survey.records.get(name)
        is_there = record is not None and record.own(name) is not None
        if is_there and not args.force and next(cluster.listing(name), None):
            remedy = f"drain it with remove {name}, without --lost (or add --force)"
            raise CommandError(f"{name} answers and holds objects: {remedy}")
    for name in names:
        memberships = survey.layout.memberships
        last = next((each for each in memberships if not each.names or name in each.names), None)
        share = "an unknown share of all ids"
        if last and last.names:
            share = f"1 of {len(last.names)} nodes, so {last.share(name):.1%} of all ids"
        cost = "What it holds of them is given up; how many objects that are can't be counted."
        print(f"{name} is {share}. {cost}")
    confirm(args, f"Give up {listed(names)} and what they hold?")


def confirm(args: argparse.Namespace, question: str) -> None:
    """Has the operator say yes. Raises CommandError."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nothing was changed; say --yes to have it done")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")


def listed(names: list[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names)


def add(cluster: Cluster, args: argparse.Namespace) -> int:
    """Takes nodes in, whatever they hold."""
    store = LayoutStore(cluster)
    names = sorted(set(args.names))
    survey = store.survey(names)
    layout = survey.layout
    for name in names:
        require_addable(cluster, survey, name)
    present = [name for name in names if is_member(survey, name)]
    for name in present:
        print(f"{name} is in the layout already")
    names = [name for name in names if name not in present]
    if not names:
        return FINE
    above = 0
    foreign = [name for name in names if survey.foreign(name)]
    unknown = [name for name in names if survey.unknown(name)]
    for name in names:
        above = max(above, announce(cluster, survey, name))
    if foreign:
        confirm(args, f"Take in {listed(names)}?")
    for name in names:
        if ignored := TO_GROW & (cluster.ignores(name, anyone=True) or set()):
            raise CommandError(f"{name} {ignoring(ignored)}, so that it can't join")
    # Objects of a node that the memberships have are found by them.
    anywhere = foreign or unknown or not set(names) <= set(layout.all_names)

    def step(layout: Layout) -> Layout:
        joined = layout.joined(names, time.time(), above)
        return joined.anywhere() if anywhere else joined

    after = store.change(step, names)
    refused = [name for name in foreign if not store.take(name, after)]
    if refused:
        print(f"{listed(refused)}: the record is being changed by others; add them once more")
        return FOUND
    print(f"{listed(names)}: in use within seconds; then: objgwctl.py rebalance")
    return FINE


def is_member(survey: Survey, name: str) -> bool:
    """Whether a node is in the layout as it is, so that there is nothing to do."""
    return name in survey.layout.names and not (survey.foreign(name) or survey.unknown(name))


def require_addable(cluster: Cluster, survey: Survey, name: str) -> None:
    """Raises CommandError where a node can't be taken in."""
    if name not in survey.records:
        if name not in cluster.endpoints:
            network = cluster.settings.network
            where = f" on the Docker network {network}" if network else ""
            raise CommandError(f"Docker lists no {name}{where}; start its container first")
        raise CommandError(survey.unreachable.get(name, f"{name} isn't there"))
    record = survey.records[name]
    if not survey.foreign(name) and record.trouble(name):
        raise CommandError(f"{name}: {record.trouble(name)}")
    lost = name in survey.layout.all_names and not record.layout
    if lost and not survey.unknown(name) and name not in survey.layout.unrecorded:
        raise CommandError(survey.problem(name))
    # Nothing tells which of two copies is newer where one is from before the node was out: while a
    # layout is settled, what is written has no epoch.
    if survey.returned(name) and next(cluster.listing(name, anyone=True), None):
        raise CommandError(
            f"{name} was given up or taken out, and holds what it held then, so that objects would "
            "be again as they were: give it an empty volume; docs/recipes.md says how to get "
            "single objects back"
        )


def announce(cluster: Cluster, survey: Survey, name: str) -> int:
    """Says what taking a node in means; the highest epoch that its objects may have.

    Raises CommandError where it holds markers of deleted objects: they would delete others' objects
    of the same ids.
    """
    layout, record = survey.layout, survey.records[name]
    if record.layout and not survey.foreign(name):
        return 0
    held = Work()
    for copy in cluster.listing(name, anyone=True):
        if is_tombstone(cluster, copy, anyone=True):
            remedy = "objgwctl.py rebalance in its own installation removes them"
            raise CommandError(f"{name} holds markers of deleted objects; {remedy}")
        held.objects += 1
        held.bytes += copy.size
    print(f"{name} holds {held}.", end=" ")
    if record.layout and survey.foreign(name):
        theirs = record.layout
        print(
            f"It belongs to another installation, of {listed(list(theirs.all_names))}. It is taken "
            "away from there: gateways of that installation refuse its ids with 503 from then on."
        )
    else:
        print("It has no record of the layout.")
    if held.objects:
        print("Its objects are found here then. Of two with one id, the newer one stays.")
    if name in layout.names:
        print(f"It takes the place of the node {name}, and what that held is given up.")
    if record.layout:
        return record.layout.memberships[0].epoch
    return layout.memberships[0].epoch + UNKNOWN_EPOCHS if held.objects else 0
