"""The faults of a soak: of nodes, of the gateway, of Docker, and layouts that change."""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.harness.engine import DockerRelay
from tests.harness.gateway import Gateway
from tests.harness.node import Node
from tests.harness.stack import Stack

MIB = 1024 * 1024
RETRY_SECONDS = 0.5  # between two attempts at what a fault has prevented
CALM_ATTEMPTS = 20  # at the end, when nothing fails any more


class Faults:
    """Makes faults until it is told to stop.

    There is one of a node, one of the gateway or of Docker, and one change of the layout at a time.
    """

    def __init__(
        self, stack: Stack, gateway: Gateway, other: Gateway, relay: DockerRelay, seed: int
    ) -> None:
        """`gateway` and `relay` have the faults; in the `other` one objgwctl.py runs."""
        self.stack, self.gateway, self.other, self.relay = stack, gateway, other, relay
        self.random = random.Random(seed)
        self.over = threading.Event()
        self.node_at_work = threading.Lock()  # held while a node has a fault
        self.made: Counter[str] = Counter()
        self.most: dict[str, float] = {}

    def of_nodes(self) -> None:
        kinds = {
            "node stopped": self.stop, "node killed": self.kill, "node paused": self.pause,
            "node made anew": self.anew
        }  # fmt: skip
        for kind in self.rounds(list(kinds)):
            with self.node_at_work:
                kinds[kind](self.random.choice(self.stack.nodes))

    def of_the_gateway(self) -> None:
        kinds = {
            "Docker closed": self.close_docker,
            "Docker hung": self.hang_docker,
            "worker killed": self.kill_worker,
            "gateway stopped": self.restart,
            "gateway killed": self.kill_gateway,
        }
        for kind in self.rounds(list(kinds)):
            self.sample()
            kinds[kind]()

    def of_the_layout(self) -> None:
        """Adds a node, moves objects to it, and takes it out again."""
        for number in itertools.count(4):
            if self.over.wait(2):
                return
            with self.node_at_work:
                node = self.stack.add_node(str(number))
            if not (self.until(partial(self.has, node)) and self.carry_out("rebalance")):
                return
            self.made["node added"] += 1
            if self.over.wait(2) or not self.carry_out("remove", node.name):
                return
            self.made["node removed"] += 1
            with self.node_at_work:
                self.stack.nodes.remove(node)
                node.lose()

    def until(self, done: Callable[[], bool]) -> bool:
        """Tries again and again; False where all is over before that."""
        while not done():
            if self.over.wait(RETRY_SECONDS):
                return False
        return True

    def succeeds(self, *arguments: str) -> bool:
        """Whether objgwctl.py has done it; a node that isn't there may prevent it."""
        done = self.other.ctl(*arguments)
        if done.code:
            print(f"objgwctl.py {' '.join(arguments)}: {done.errors[-300:]}", file=sys.stderr)
        return done.code == 0

    def carry_out(self, *arguments: str) -> bool:
        """Has objgwctl.py do it: once while nodes fail, and where they prevent it, while none does.

        False where all is over before that.
        """
        if self.succeeds(*arguments):
            return True
        with self.node_at_work:
            return self.until(partial(self.succeeds, *arguments))

    def has(self, node: Node) -> bool:
        """Whether the layout has a node."""
        done = self.other.ctl("nodes", "--json")
        return done.code == 0 and node.name in json.loads(done.output)["names"]

    def settled(self) -> dict[str, Any]:
        """Moves what is left to be moved; what `objgwctl.py check` says then."""
        for _ in range(CALM_ATTEMPTS):
            if self.succeeds("rebalance"):
                break
            time.sleep(RETRY_SECONDS)
        return self.other.ask_ctl("check").report

    def rounds(self, kinds: list[str]) -> Iterator[str]:
        """One kind after the other, in an order that changes, with a pause after each."""
        while True:
            for kind in self.random.sample(kinds, len(kinds)):
                if self.over.wait(self.random.uniform(1, 3)):
                    return
                yield kind
                self.made[kind] += 1

    def wait(self) -> None:
        self.over.wait(self.random.uniform(0.5, 4))

    def stop(self, node: Node) -> None:
        node.stop()
        self.wait()
        node.start()

    def kill(self, node: Node) -> None:
        node.container.kill()
        self.wait()
        node.start()

    def pause(self, node: Node) -> None:
        node.pause()
        self.wait()
        node.unpause()

    def anew(self, node: Node) -> None:
        """As Compose does: the name is never gone, but for a moment it is that of the old
        container.
        """
        old = node.container
        old.rename(f"{self.random.getrandbits(48):012x}_{node.name}")
        old.stop(timeout=3)
        node.user, node.password = (
            f"user{self.random.getrandbits(48):x}",
            f"pass{self.random.getrandbits(96):x}",
        )
        node.create(self.stack.new_address())
        old.remove()

    def close_docker(self) -> None:
        self.relay.close()
        self.wait()
        self.relay.open()

    def hang_docker(self) -> None:
        self.relay.hang()
        self.wait()
        self.relay.open()

    def kill_worker(self) -> None:
        for worker in list(self.gateway.workers())[:1]:  # none while they are only starting
            self.gateway.run("sh", "-c", f"kill -KILL {worker} || true")

    def restart(self) -> None:
        self.gateway.container.stop(timeout=30)
        self.gateway.start()

    def kill_gateway(self) -> None:
        self.gateway.container.kill()
        self.gateway.start()

    def sample(self) -> dict[str, float]:
        """What the largest worker has, now."""
        workers = self.gateway.workers().values()
        sample = {
            "MiB of a worker": round(
                max((worker.memory for worker in workers), default=0) / MIB, 1
            ),
            "descriptors of a worker": max((worker.descriptors for worker in workers), default=0),
        }
        self.most = {name: max(value, self.most.get(name, 0)) for name, value in sample.items()}
        return sample
