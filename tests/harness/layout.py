"""Clients with a model of what must be there, and what a layout looks like from outside.

Where clients work during a change, each id has one client, so that its model is exact: an
acknowledged write leaves one version that may be read; one that wasn't acknowledged may have
happened, or may happen until the next one that is.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from minio.error import S3Error

from gateway.nodes.layout import HOLD_SECONDS, RECORD, Layout
from gateway.nodes.record_json import dump, load
from tests.harness.engine import LAYOUT_BUCKET, Call
from tests.harness.gateway import Answer, Gateway, Session, history_in
from tests.harness.http import code
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, owner, random_id, together

JOIN = 60  # seconds within which a new node is in use

BROKEN = (OSError, http.client.HTTPException)

ABSENT = 0  # the version of an object that isn't there


def text(id: str, version: int) -> bytes:
    """The bytes of a version of an object; some are more than a gateway keeps to send
    them again.
    """
    line = f"{id} {version}\n".encode()
    size = 200_000 if version % 4 == 3 else 120
    return (line * (size // len(line) + 1))[:size]


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def described(version: int) -> dict[str, str]:
    """The headers that a version is stored with."""
    return {"Content-Type": f"text/x-v{version}", "x-amz-meta-version": str(version)}


@dataclass
class Model:
    """What is known of an object that one client writes."""

    id: str = field(default_factory=random_id)
    version: int = ABSENT  # that is there, unless it is one of
    unsure: set[int] = field(default_factory=set)  # which were sent since, and not acknowledged
    last: int = 0  # the highest version that was ever sent

    def acknowledged(self, version: int) -> None:
        self.version, self.unsure = version, set()

    def seen(self, version: int) -> bool:
        """Takes note of a version that was read; whether it may be there."""
        if version != self.version and version not in self.unsure:
            return False
        self.version = version
        self.unsure.discard(version)
        return True


KINDS = {"GET": 30, "HEAD": 5, "RANGE": 5, "PUT": 40, "DELETE": 20}

READS = ("GET", "HEAD", "RANGE")


class Clients:
    """Clients that read and write objects of their own, and read `fixed` ones, each request at any
    of the gateways.
    """

    def __init__(
        self, gateways: Sequence[Gateway], own: Sequence[Model] = (), fixed: Sequence[Model] = ()
    ) -> None:
        self.gateways, self.own, self.fixed = gateways, own, fixed
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # 503, and connections that broke
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._working = False

    @contextmanager
    def at_work(self, number: int = 6) -> Iterator[None]:
        """While the block runs, so many of them work; nothing that they see may be wrong."""
        self._over.clear()
        self._working = True
        threads = [
            threading.Thread(target=self._work, args=[self.own[n::number]]) for n in range(number)
        ]
        for thread in threads:
            thread.start()
        try:
            self.go_on()
            yield
            self.go_on()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
            self._working = False
        self.assert_right()

    def assert_right(self) -> None:
        assert not self.wrong, f"{len(self.wrong)} wrong, first {self.wrong[:5]}"

    def go_on(self, requests: int = 300) -> None:
        """Until so many more requests are done."""
        before = self.done.total()
        eventually(lambda: self.wrong or self.done.total() > before + requests, within=180)

    def read_all(self, within: float = 30) -> None:
        """Reads each object at each gateway, until it is answered.

        While they work, only those that nobody writes.
        """

        def read(gateway: Gateway, models: Sequence[Model]) -> None:
            with gateway.session() as session:
                for model in models:
                    eventually(self._read, session, "GET", model, within=within)

        together(
            partial(read, gateway, models[n::3])
            for models in ([] if self._working else self.own, self.fixed)
            for gateway in self.gateways
            for n in range(3)
        )
        self.assert_right()

    def _work(self, own: Sequence[Model]) -> None:
        chance = random.Random()
        with ExitStack() as stack:
            sessions = [stack.enter_context(gateway.session()) for gateway in self.gateways]
            while not self._over.wait(0.05):
                session, kind = (
                    chance.choice(sessions),
                    chance.choices(list(KINDS), list(KINDS.values()))[0],
                )
                try:
                    if self.fixed and (not own or chance.random() < 0.4):
                        self._read(session, chance.choice(READS), chance.choice(self.fixed))
                    elif kind in READS:
                        self._read(session, kind, chance.choice(own))
                    else:
                        self._write(session, kind, chance.choice(own), chance.random() < 0.3)
                except Exception as error:
                    self.wrong.append(f"{kind}: {error!r}")

    def _ask(
        self,
        session: Session,
        method: str,
        id: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer | None:
        """The answer, or None where it is refused or the connection breaks."""
        try:
            answer = session.request(method, f"/object/{id}", body, headers)
        except BROKEN:
            answer = None
        self.done[method] += 1
        if answer and answer.status != 503:
            return answer
        self.refused[method] += 1
        return None

    def _read(self, session: Session, kind: str, model: Model) -> bool:
        """Whether a read was answered; what it brought must be what may be there."""
        method = "HEAD" if kind == "HEAD" else "GET"
        answer = self._ask(
            session, method, model.id, headers={"Range": "bytes=9-99"} if kind == "RANGE" else {}
        )
        if answer is None:
            return False
        may, version = {model.version, *model.unsure}, ABSENT
        if answer.status in (200, 206):
            version = int(answer.headers["x-amz-meta-version"])
            whole = text(model.id, version)
            body = b"" if kind == "HEAD" else whole[9:100] if kind == "RANGE" else whole
            good = (
                answer.status == (206 if kind == "RANGE" else 200)
                and answer.body == body
                and answer.headers["ETag"] == etag(whole)
                and answer.headers["Content-Type"] == described(version)["Content-Type"]
                and answer.headers["Content-Length"] == str(len(body or whole))
            )
        else:
            good = answer.status == 404
        if not good or not model.seen(version):
            self.wrong.append(
                f"{kind} {model.id}: {answer.status}, version {version} where {may} may be"
            )
        return True

    def _write(self, session: Session, method: str, model: Model, conditional: bool) -> None:
        version, headers, expected = ABSENT, {}, 204
        if method == "PUT":
            version = model.last = model.last + 1
            headers, expected = described(version), 200
            if conditional and not model.unsure:
                exists = model.version != ABSENT
                if version % 2:
                    headers["If-None-Match"], expected = "*", 412 if exists else 200
                else:
                    headers["If-Match"], expected = (
                        etag(text(model.id, model.version)),
                        200 if exists else 412,
                    )
        answer = self._ask(
            session, method, model.id, text(model.id, version) if version else None, headers
        )
        if answer is None:
            model.unsure.add(version)
        elif answer.status != expected:
            self.wrong.append(f"{method} {model.id} {headers}: {answer.status} where {model} was")
        elif answer.status != 412:
            model.acknowledged(version)


def store(gateway: Gateway, models: Sequence[Model]) -> None:
    """Stores version 1 of each."""

    def put(some_models: Sequence[Model]) -> None:
        with gateway.session() as session:
            for model in some_models:
                answer = session.request(
                    "PUT", f"/object/{model.id}", text(model.id, 1), described(1)
                )
                assert answer.status == 200
                model.acknowledged(1)
                model.last = 1

    together(partial(put, models[n::8]) for n in range(8))


def names_of(nodes: Iterable[Node]) -> list[str]:
    return sorted(node.name for node in nodes)


def record_of(node: Node) -> Layout:
    """What the node's record says."""
    return load(record_bytes(node))[0]


def record_bytes(node: Node) -> bytes:
    """The node's record, as JSON."""
    return node.client().get_object(LAYOUT_BUCKET, RECORD).read()


def write_record(node: Node, layout: Layout) -> None:
    """Makes this the node's record, by hand."""
    client, record = node.client(), dump(layout, node.name)
    with suppress(S3Error):  # it is there, or a gateway makes it just now
        client.make_bucket(LAYOUT_BUCKET)
    client.put_object(LAYOUT_BUCKET, RECORD, io.BytesIO(record), len(record))


def wait_in_force(gateway: Gateway, nodes: Sequence[Node], others: Sequence[Node] = ()) -> None:
    """Until new objects land on these nodes as their names say, and not on the others.

    So many of them that not all of their owners can be what they were before. The stack knows by
    which lists of names they have owners then.
    """
    names, stack = names_of(nodes), gateway.stack

    def switched() -> bool:
        newest = record_of(nodes[0]).memberships[0]
        assert newest.names == tuple(names)
        stack.history = history_in(json.loads(record_bytes(nodes[0])))
        return time.time() > newest.since + HOLD_SECONDS

    def lands() -> bool:
        ids = [
            id
            for name in names
            for id in itertools.islice(
                (i for i in iter(random_id, None) if owner(i, names, stack.history) == name), 10
            )
        ]
        assert {gateway.put(id).status for id in ids} == {200}
        assert places([*nodes, *others], ids) == {
            id: [owner(id, names, stack.history)] for id in ids
        }
        return True

    eventually(switched, within=JOIN)
    eventually(lands, within=JOIN)


def places(nodes: Iterable[Node], ids: Iterable[str]) -> dict[str, list[str]]:
    """The names of the nodes that hold each id."""
    held = {node.name: node.ids() for node in nodes}
    return {id: [name for name in sorted(held) if id in held[name]] for id in ids}


def assert_at_home(
    gateway: Gateway, models: Iterable[Model], nodes: Sequence[Node], others: Sequence[Node] = ()
) -> None:
    """All is settled and clean: each object is on its owner and nowhere else, a deleted one
    nowhere.
    """
    models, names, layout = list(models), names_of(nodes), gateway.layout()
    gateway.stack.history = history = history_in(layout)
    wrong = {
        id: (found, expected)
        for (id, found), expected in zip(
            places([*nodes, *others], [model.id for model in models]).items(),
            [
                [owner(model.id, names, history)] if model.version != ABSENT else []
                for model in models
            ],
            strict=True,
        )
        if found != expected
    }
    assert not wrong, (
        f"{len(wrong)} objects aren't (only) where they belong, first {next(iter(wrong.items()))}"
    )
    done = gateway.ask_ctl("check")
    assert layout["settled"]
    assert layout["names"] == names
    assert done.code == 0, str(done)
    report = done.report
    assert report["clean"] is True
    assert [report[what] for what in ("misplaced", "strays", "uploads", "markers")] == [
        0,
        0,
        0,
        0,
    ], str(report)
    assert report["objects"] == len({id for node in [*nodes, *others] for id in node.ids()})


def assert_one_request_upstream(
    gateway: Gateway, models: Sequence[Model], nodes: Sequence[Node]
) -> None:
    """A GET of each is one request upstream."""
    before = {node: len(node.calls()) for node in nodes}
    for model in models:
        assert gateway.get(model.id).body == text(model.id, model.version)
    calls = [call for node in nodes for call in node.calls()[before[node] :]]
    assert Counter(calls) == Counter(Call("GetObject", model.id, 200) for model in models)


def rebalance(gateway: Gateway) -> None:
    done = gateway.ctl("rebalance")
    assert done.code == 0, str(done)


def take_out(gateway: Gateway, node: Node) -> None:
    """The node leaves; what it holds stays there for now."""
    done = gateway.ctl("remove", node.name, "--no-rebalance")
    assert done.code == 0, str(done)


def let_in(gateway: Gateway, node: Node) -> None:
    """A node that was taken out joins again."""
    done = gateway.ctl("add", node.name)
    assert done.code == 0, str(done)


def filled(stack: Stack, objects: int) -> tuple[Gateway, list[Model]]:
    """A gateway to the stack's nodes, and so many objects that it has stored."""
    gateway, models = stack.add_gateway(), [Model() for _ in range(objects)]
    gateway.wait_ready()
    store(gateway, models)
    return gateway, models


def change_a_third(gateway: Gateway, models: Sequence[Model]) -> None:
    """Of each six objects, one is written, one is deleted; one more is made."""
    clients = Clients([gateway], models)
    with gateway.session() as session:
        for number, model in enumerate(random.sample(models, len(models))):
            if number % 6 == 0 or model.version == ABSENT:
                clients._write(session, "PUT", model, False)
            elif number % 6 == 1:
                clients._write(session, "DELETE", model, False)
    assert clients.refused.total() == 0
    clients.read_all()


def assert_split(gateway: Gateway, models: Iterable[Model], lost: Node) -> None:
    """Ids of this node are 503, all others as ever."""
    for model in models:
        answer = gateway.get(model.id)
        if gateway.stack.owner(model.id) is lost:
            assert code(answer) == 503
        else:
            assert (answer.status, answer.body) == (200, text(model.id, model.version))
