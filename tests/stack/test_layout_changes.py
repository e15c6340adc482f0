"""Layouts that change again before anything has moved; what is under way meanwhile.

And gateways of which one doesn't see what the other sees.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from contextlib import ExitStack

from tests.harness.gateway import Done
from tests.harness.http import MIB, Wire, code, head
from tests.harness.layout import (
    ABSENT,
    BROKEN,
    JOIN,
    Clients,
    Model,
    assert_at_home,
    assert_one_request_upstream,
    change_a_third,
    filled,
    let_in,
    names_of,
    rebalance,
    store,
    take_out,
    text,
    wait_in_force,
)
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner, random_id

# --------------------------------------------------------------------------------------------------
# Layouts that change again before anything has moved; requests that are under way when it changes
# --------------------------------------------------------------------------------------------------


def test_nodes_that_join_one_after_another_without_a_rebalance_between_lose_nothing(
    stack: Stack,
) -> None:
    stack.add_nodes("123")
    gateway, models = filled(stack, 180)
    for suffix in "45":
        stack.add_node(suffix)
        wait_in_force(gateway, stack.nodes)
        Clients([gateway], models).read_all()
        change_a_third(gateway, models)
    assert gateway.layout()["settled"] is False
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, stack.nodes)
    assert_one_request_upstream(
        gateway, [model for model in models if model.version != ABSENT][:20], stack.nodes
    )


def test_what_was_written_to_a_node_that_leaves_again_before_a_rebalance_wins_and_the_node_stays_out(  # noqa: E501
    stack: Stack,
) -> None:
    two = stack.add_nodes("12")
    gateway, models = filled(stack, 180)
    third = stack.add_node("3")
    wait_in_force(gateway, stack.nodes)
    change_a_third(gateway, models)
    take_out(gateway, third)
    wait_in_force(gateway, two, [third])
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    let_in(gateway, third)
    wait_in_force(gateway, stack.nodes)
    Clients([gateway], models).read_all()
    change_a_third(gateway, models)
    take_out(gateway, third)
    wait_in_force(gateway, two, [third])
    Clients([gateway], models).read_all()
    rebalance(gateway)
    Clients([gateway], models).read_all()
    assert_at_home(gateway, models, two, [third])

    third.recreate()  # it stays out until it is added
    gateway.restart()
    gateway.wait_ready(stack.id_of(node) for node in two)
    layout = gateway.layout()
    assert (layout["names"], layout["removed"]) == (names_of(two), [third.name])
    assert (
        gateway.ctl("remove", "no-such-node").code == gateway.ctl("add", "no-such-node").code == 2
    )
    Clients([gateway], models).read_all()


def test_what_is_under_way_while_objects_move_is_whole_and_uploads_across_the_switch_are_right_or_not_acknowledged(  # noqa: E501
    stack: Stack,
) -> None:
    old = stack.add_node("1")
    gateway = stack.add_gateway({"OBJGW_CLIENT_TIMEOUT": "300"})  # clients wait for the layout here
    gateway.wait_ready()
    names = [f"{stack.marker}-{suffix}" for suffix in "12"]

    def moving_id() -> str:
        return next(id for id in iter(random_id, None) if owner(id, names, [names[:1]]) == names[1])

    body, large, slow, quick = (
        bytes(range(256)) * 1000,
        random.randbytes(24 * MIB),
        moving_id(),
        moving_id(),
    )
    begun = [0, 1, 100_000, len(body) - 1] * 2
    ids = [moving_id() for _ in begun]
    for id in ids:
        assert gateway.put(id, b"the old object").status == 200
    for id in (slow, quick):
        assert gateway.put(id, large).status == 200
    with ExitStack() as wires:
        uploads: list[tuple[Wire, str, bytes]] = []
        for number, (id, sent) in enumerate(zip(ids, begun, strict=True)):
            wire = wires.enter_context(Wire(gateway))
            chunks = number % 8 >= 4
            wire.send(
                head(
                    "PUT",
                    id,
                    "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}",
                )
            )
            wire.send(b"%x\r\n" % len(body) if chunks else b"", body[:sent])
            uploads.append((wire, id, body[sent:] + (b"\r\n0\r\n\r\n" if chunks else b"")))
        new = stack.add_node("2")
        wait_in_force(gateway, stack.nodes)
        for wire, id, rest in uploads:
            try:
                wire.send(rest)
                status = wire.answer().status
            except BROKEN:
                status = 0
            assert status in (0, 200, 503)
            assert gateway.get(id).body == (body if status == 200 else b"the old object")
            assert status != 200 or id in new.ids()
    for id in ids:
        assert gateway.put(id, b"the new object").status == 200

    done, slowest = list[Done](), 0.0
    with Wire(gateway) as download:
        download.send(head("GET", slow))
        assert download.file.readline() == b"HTTP/1.1 200 OK\r\n"
        mover = threading.Thread(
            target=lambda: done.append(gateway.ctl("rebalance", "--limit", "4M"))
        )  # 12 seconds
        mover.start()
        while mover.is_alive() and {slow, quick} - new.ids():
            began = time.monotonic()
            assert gateway.get(quick, headers={"Range": "bytes=0-9"}).body == large[:10]
            assert gateway.head(quick).status == 200
            slowest = max(slowest, time.monotonic() - began)
            mover.join(0.05)
        http.client.parse_headers(download.file)
        assert download.file.read(len(large)) == large
        mover.join()
    assert done[0].code == 0, str(done)
    assert slowest < 8
    assert {gateway.get(id).body for id in (slow, quick)} == {large}
    assert {gateway.get(id).body for id in ids} == {b"the new object"}
    assert_at_home(gateway, [Model(id, 1) for id in (slow, quick, *ids)], stack.nodes)
    assert old.ids() & {slow, quick, *ids} == set()


# --------------------------------------------------------------------------------------------------
# Gateways that don't see the same
# --------------------------------------------------------------------------------------------------


def test_a_gateway_that_docker_does_not_answer_during_a_growth_loses_nothing_and_reads_nothing_stale(  # noqa: E501
    stack: Stack,
) -> None:
    relay = stack.add_relay()
    three = stack.add_nodes("123")
    seeing = stack.add_gateway()
    blind = stack.add_gateway({"OBJGW_DOCKER_TIMEOUT": "3"}, relay=relay)
    for gateway in (seeing, blind):
        gateway.wait_ready()
    fixed = [Model() for _ in range(300)]
    store(seeing, fixed)
    clients = Clients([seeing, blind], [Model() for _ in range(90)], fixed)
    relay.hang()
    with clients.at_work():
        fourth = stack.add_node("4")
        wait_in_force(seeing, stack.nodes)
        clients.go_on(600)
        rebalance(seeing)
        clients.go_on(600)
    Clients([seeing], clients.own, fixed).read_all()
    assert_at_home(seeing, [*clients.own, *fixed], stack.nodes)
    for model in fixed:
        answer = blind.get(model.id)
        if stack.owner(model.id) is fourth:
            assert code(answer) == 503
        else:
            assert (answer.status, answer.body) == (200, text(model.id, 1))
    with clients.at_work():
        relay.open()
        eventually(lambda: blind.get(stack.id_of(fourth)).status == 404, within=JOIN)
    clients.refused.clear()
    clients.read_all(within=0)
    assert clients.refused.total() == 0
    assert_at_home(blind, [*clients.own, *fixed], [*three, fourth])
