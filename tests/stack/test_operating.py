"""What docs/operating.md has an operator do to nodes and gateways, as far as no other file does it.

A backup is what a stopped node's volume holds; here Docker's archives read and write it.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterable

from tests.harness.gateway import Gateway
from tests.harness.layout import names_of, rebalance, record_of
from tests.harness.node import Node
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, meanwhile, random_id


def backed_up(node: Node) -> bytes:
    """All that a node's volume holds, as a tar archive."""
    node.stop()
    stream, _ = node.container.get_archive("/data/.")
    archive = b"".join(stream)
    node.start()
    return archive


def restore(node: Node, archive: bytes) -> None:
    """Makes the node anew, with what the archive holds in place of what it held."""
    node.lose()
    node.create(node.address, start=False)
    assert node.container.put_archive("/data", archive)
    node.start()


def store(gateway: Gateway, ids: Iterable[str], version: str) -> None:
    for id in ids:
        assert gateway.put(id, f"{id} {version}".encode()).status == 200


def versions(gateway: Gateway, ids: Iterable[str]) -> set[str]:
    """The versions that the objects have; a status where it isn't 200."""
    answers = [gateway.get(id) for id in ids]
    return {
        each.body.decode().split()[-1] if each.status == 200 else str(each.status)
        for each in answers
    }


def test_what_a_backup_or_a_node_that_was_given_up_brings_back_replaces_nothing_newer(
    stack: Stack,
) -> None:
    (first,) = stack.add_nodes("1")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    before = random_id()
    store(gateway, [before], "old")  # without any object, nothing would be unsettled
    stack.add_node("2")
    gateway.wait_layout(names_of(stack.nodes), settled=False)
    ids = [stack.id_of(first) for _ in range(60)]
    store(gateway, ids, "old")  # with an epoch, since the layout isn't settled
    rebalance(gateway)
    assert gateway.delete(before).status == 204
    archive = backed_up(first)

    third = stack.add_node("3")
    gateway.wait_layout(names_of(stack.nodes), settled=False)
    rebalance(gateway)
    gateway.wait_layout(names_of(stack.nodes), settled=True)  # from now on, writes have no epoch
    moved = [id for id in ids if stack.owner(id) is third]
    changed, deleted, kept = moved[::3], moved[1::3], moved[2::3]
    assert changed
    assert deleted
    assert kept
    store(gateway, changed, "new")
    assert {gateway.delete(id).status for id in deleted} == {204}

    restore(first, archive)
    stayed = [id for id in ids if id not in moved]
    eventually(lambda: versions(gateway, stayed) == {"old"})
    eventually(lambda: record_of(first) == record_of(third))  # its own was an older one
    assert versions(gateway, changed) == {"new"}
    assert versions(gateway, deleted) == {"404"}
    found = gateway.ask_ctl("check").report
    assert (found["clean"], found["strays"], found["misplaced"]) == (
        False,
        len(changed) + len(kept),
        len(deleted),
    )

    seen = set[str]()

    def watch(over: threading.Event) -> None:
        while not over.is_set():
            seen.update(versions(gateway, changed))

    with meanwhile(watch):
        rebalance(gateway)
    assert seen == {"new"}
    assert versions(gateway, changed) == {"new"}
    assert versions(gateway, kept) == {"old"}
    assert versions(gateway, deleted) == {"old"}  # nobody knows any more that it was deleted
    assert gateway.ask_ctl("check").report["clean"] is True

    third.remove()
    assert gateway.ctl("remove", "--lost", "--yes", third.name).code == 0
    store(gateway, moved, "newest")
    third.create(third.address)  # with what it held
    eventually(lambda: "is left alone" in gateway.ctl("nodes").output)
    refused = gateway.ctl("add", third.name)
    assert refused.code == 2
    assert "objects would be again as they were" in refused.errors
    assert versions(gateway, moved) == {"newest"}


def test_tokens_are_changed_without_a_gap_by_a_file_and_hup(shared: Stack) -> None:
    """The file is the gateway's user's alone, and root has no right to read it. `objgwctl.py` reads
    it, and refuses one without a token.
    """
    file = "/srv/objgw/tokens"
    gateway = shared.add_gateway(
        {"OBJGW_TOKENS_FILE": file, "WEB_CONCURRENCY": "2", "OBJGW_CONNECT_TIMEOUT": "20"},
        start=False,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID"],
    )

    def write(text: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo("tokens")
            member.size, member.mode, member.uid = len(text), 0o400, 65534
            tar.addfile(member, io.BytesIO(text.encode()))
        assert gateway.container.put_archive("/srv/objgw", archive.getvalue())

    def status(token: str) -> int:
        return gateway.get("up", headers={"Authorization": f"Bearer {token}"}).status

    write("first")
    gateway.start()
    eventually(lambda: status("first") == 404)
    assert status("second") == 401
    seen = set[int]()

    def use(over: threading.Event) -> None:
        while not over.is_set():
            seen.add(status("first"))

    with meanwhile(use):
        write("first second")
        assert gateway.ctl("locate", "up").code == 0
        gateway.reload()
        eventually(lambda: [status("second") for _ in range(20)] == [404] * 20)
    assert seen == {404}
    write("second")
    gateway.reload()
    eventually(lambda: [status("first") for _ in range(20)] == [401] * 20)
    assert status("second") == 404
    write(" ")
    refused = gateway.ctl("locate", "up")
    assert (refused.code, refused.errors) == (
        2,
        "objgwctl: the file of OBJGW_TOKENS_FILE has nothing but blanks\n",
    )
    gateway.reload()
    eventually(lambda: "not reloaded, and all stays as it is: the file of" in gateway.logs())
    assert (status("first"), status("second")) == (401, 404)
