"""Two installations that one record made one, as releases before this one did, and the way out."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial

from gateway.nodes.layout import Layout
from gateway.nodes.membership import ANYWHERE, Membership
from tests.harness.gateway import Gateway
from tests.harness.layout import Model, filled, names_of, record_of, text, write_record
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, together


def fuse(sides: list[Stack], settled: bool) -> None:
    """Gives all nodes one record, as a gateway did that saw those of both."""
    one, two = (record_of(side.nodes[0]) for side in sides)
    names = tuple(names_of(node for side in sides for node in side.nodes))
    version, epoch = max(one.version, two.version) + 1, one.memberships[0].epoch + 1
    memberships: tuple[Membership, ...] = (Membership(epoch, 0.0, names),)
    if not settled:
        memberships = (*memberships, *one.memberships[:1], *two.memberships[:1], ANYWHERE)
    origin = secrets.token_hex(8)  # as those releases made it
    fused = replace(Layout.first(names), origin=origin, version=version, memberships=memberships)
    for side in sides:
        for node in side.nodes:
            write_record(node, fused)


def all_read(gateway: Gateway, models: list[Model]) -> bool:
    return all(gateway.get(model.id).body == text(model.id, 1) for model in models)


def test_two_installations_that_were_made_one_are_parted_again_and_every_object_is_found(
    stack: Stack, other: Stack
) -> None:
    sides = [stack, other]
    together(partial(side.add_nodes, "12") for side in sides)
    held = {side: filled(side, 20) for side in sides}
    for side in sides:
        eventually(lambda side=side: all(not record_of(node).unrecorded for node in side.nodes))
    for settled in (False, True):
        fuse(sides, settled)
        for gateway, models in held.values():
            gateway.restart()
            eventually(lambda g=gateway, m=models: any(g.get(each.id).status == 503 for each in m))
        for side, theirs in ((stack, other), (other, stack)):
            gateway, models = held[side]
            foreign = names_of(theirs.nodes)
            refused = gateway.ctl("remove", "--foreign", *foreign)
            assert (refused.code, "--yes" in refused.errors) == (2, True)
            done = gateway.ctl("remove", "--foreign", "--yes", "--no-rebalance", *foreign)
            assert (done.code, ", ".join(names_of(side.nodes)) in done.output) == (0, True), done
            # The gateway goes along without a restart.
            eventually(all_read, gateway, models, within=60)
        for side in sides:
            gateway, models = held[side]
            assert gateway.ctl("rebalance").code == 0
            assert all_read(gateway, models)
            layout = gateway.layout()
            assert (layout["settled"], layout["names"]) == (True, names_of(side.nodes))
            assert layout["problems"] == []
        assert len({record_of(node).origin for side in sides for node in side.nodes}) == 2
