"""The list of nodes in a setting or a file: what it may have, and how it says what is wrong."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from gateway.node_list import ListedNode, parse_nodes
from gateway.nodes.sources import listed
from gateway.nodes.sources.listed import NodeList, Resolver
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.signing import Signer
from gateway.settings import Settings, SettingsError

GOOD = {
    "a=http://k:s@10.0.0.7:9000": ListedNode("a", False, "10.0.0.7", 9000, "k", "s", "us-east-1"),
    "a=https://k:s@Store.example": ListedNode(
        "a", True, "store.example", 443, "k", "s", "us-east-1"
    ),
    "a.b_c-1=http://k:s@store/?region=eu-west-1": ListedNode(
        "a.b_c-1", False, "store", 80, "k", "s", "eu-west-1"
    ),
    "a=http://k%40x:s%2F%3A%23%3Ft@h:1": ListedNode(
        "a", False, "h", 1, "k@x", "s/:#?t", "us-east-1"
    ),
    "a=http://k:s=t=@h:1": ListedNode("a", False, "h", 1, "k", "s=t=", "us-east-1"),
    "a=http://%C3%BC:p%C3%A4@h:1": ListedNode("a", False, "h", 1, "ü", "pä", "us-east-1"),
    "a=http://k:s@[2001:db8::7]:9000": ListedNode(
        "a", False, "2001:db8::7", 9000, "k", "s", "us-east-1"
    ),
}

# What is wrong with a line, and what the message has of it.
WRONG = {
    "": "no node",
    "# a=http://k:s@h": "no node",
    "http://secretkey:secret@h:1": "line 1: a node is name=URL",
    "secret": "line 1: a node is name=URL",
    "=http://secretkey:secret@h:1": "line 1: a node is name=URL",
    "n/1=http://secretkey:secret@h:1": "line 1: a node is name=URL",
    "n=ftp://secretkey:secret@h:1": "line 1: n: its URL begins neither",
    "n=secretkey:secret@h:1": "line 1: n: its URL begins neither",
    "n=http://h:1": "line 1: n: its URL has no KEY:SECRET@",
    "n=http://secretkey@h:1": "line 1: n: its URL has no KEY:SECRET@",
    "n=http://secretkey:@h:1": "line 1: n: its URL has no KEY:SECRET@",
    "n=http://:secret@h:1": "line 1: n: its URL has no KEY:SECRET@",
    "n=http://secretkey:secret@:1": "line 1: n: its URL has no host",
    "n=http://secretkey:secret@h:0": "line 1: n: its port isn't",
    "n=http://secretkey:secret@h:65536": "line 1: n: its port isn't",
    "n=http://secretkey:secret@h:x": "line 1: n: its port isn't",
    "n=http://secretkey:secret@h:1/bucket": "line 1: n: its URL has a path",
    "n=http://secretkey:sec/secret@h:1": "line 1: n: its URL has",
    "n=http://secretkey:sec#secret@h:1": "line 1: n: its URL has",
    "n=http://secretkey:secret@h:1?zone=x": "line 1: n: after '?'",
    "n=http://secretkey:secret@h:1?region=": "line 1: n: after '?'",
    "n=http://secretkey:secret@h:1?region=a%0Ab": "line 1: n: after '?'",
    "n=http://secretkey:secret@h:1?secret": "line 1: n: its URL can't be read",
    "n=http://secretkey:secret@[::1:1": "line 1: n: its URL can't be read",
    "n=http://secretkey:secret%FF@h:1": "line 1: n: its URL can't be read",
    "a=http://k:s@h\n\nn=http://secretkey:secret@h:x": "line 3: n: its port",
    "n=http://k:s@h\n# n\nn=http://secretkey:secret@h": "line 3: n is in line 1, too",
    "n=http://k:s@h n=http://secretkey:secret@h": "line 1: n is in line 1, too",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_line_is_a_name_and_a_url(text: str) -> None:
    assert parse_nodes(text) == (GOOD[text],)


def test_nodes_are_separated_by_blanks_or_lines_and_lines_may_be_comments() -> None:
    text = "# two\n  b=http://k:s@h:1\ta=http://k:s@h:2 \n\n#\n c=http://k:s@h:3\n"
    assert [(node.name, node.port) for node in parse_nodes(text)] == [("b", 1), ("a", 2), ("c", 3)]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_line_is_named_and_nothing_secret_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(WRONG[text])) as raised:
        parse_nodes(text)
    assert "secret" not in str(raised.value)


def test_a_wrong_list_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="OBJGW_NODES, line 1: a: its port"):
        Settings.from_environ({"OBJGW_NODES": "a=http://k:secret@h:x"})


def test_the_settings_never_show_the_list() -> None:
    settings = Settings.from_environ({"OBJGW_NODES": "a=http://k:secret@h:1"})
    assert "secret" not in repr(settings)


def settings_of(path: Path, text: str) -> Settings:
    path.write_text(text)
    return Settings.from_environ({"OBJGW_NODES_FILE": str(path)})


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    source = NodeList(settings_of(path, "b=http://k:s@127.0.0.1:1\na=http://k:s@127.0.0.2:1"))
    a = Endpoint("a", "", "127.0.0.2", 1, "k", "s", hostname="127.0.0.2")
    b = Endpoint("b", "", "127.0.0.1", 1, "k", "s", hostname="127.0.0.1")
    assert source.read() == [a, b]
    path.write_text("a=http://k:other@127.0.0.2:1")
    assert source.read() == [a._replace(secret_key="other")]


@pytest.mark.parametrize("text", ["", "a=http://k:secret@127.0.0.1:x", "secret"])
def test_a_wrong_file_is_an_error_until_it_is_mended(tmp_path: Path, text: str) -> None:
    path, good = tmp_path / "nodes", "a=http://k:s@127.0.0.1:1"
    source = NodeList(settings_of(path, good))
    before = source.read()
    for _ in range(2):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"line|no node") as raised:
            source.read()
        assert "secret" not in str(raised.value)
    path.unlink()
    with pytest.raises(OSError, match="nodes"):
        source.read()
    path.write_text(good)
    assert source.read() == before


@pytest.mark.parametrize(
    ("host", "authority"),
    [("10.0.0.7", "10.0.0.7:9000"), ("store", "store:9000"), ("2001:db8::7", "[2001:db8::7]:9000")],
)
def test_requests_name_the_host_as_the_list_does(host: str, authority: str) -> None:
    endpoint = Endpoint("a", "", "10.0.0.7", 9000, "k", "s", hostname=host)
    head = Signer(endpoint).head(Request("GET", "/b/a"))
    assert f"\r\nhost: {authority}\r\n".encode() in head


def test_an_endpoint_shows_no_key() -> None:
    endpoint = Endpoint("a", "", None, 9000, "key", "secret", hostname="store")
    assert repr(endpoint) == "a (store, which has no address)"


class Names:
    """A name server that answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[str] | OSError] = {}
        self.slow: dict[str, threading.Event] = {}
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)
        monkeypatch.setattr(listed, "RESOLVE_SECONDS", 0.0)

    def resolve(self, host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host in self.slow:
            self.slow[host].wait(30)
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return [(0, 0, 0, "", (address, 0)) for address in answer]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def wait_for(resolver: Resolver, host: str, address: str | None) -> None:
    deadline = time.monotonic() + 10
    while resolver.addresses({host}) != {host: address}:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_name_keeps_its_address_as_long_as_it_has_it(names: Names) -> None:
    names.answers["store"] = ["10.0.0.1", "10.0.0.2"]
    resolver = Resolver()
    assert resolver.addresses({"store"}) == {"store": "10.0.0.1"}
    names.answers["store"] = ["10.0.0.3", "10.0.0.1"]
    for _ in range(20):
        assert resolver.addresses({"store"}) == {"store": "10.0.0.1"}
    names.answers["store"] = ["10.0.0.3"]
    wait_for(resolver, "store", "10.0.0.3")


def test_a_name_server_that_is_down_changes_nothing_and_a_name_that_is_gone_does(
    names: Names,
) -> None:
    names.answers["store"] = ["10.0.0.1"]
    resolver = Resolver()
    assert resolver.addresses({"store"}) == {"store": "10.0.0.1"}
    names.answers["store"] = socket.gaierror(socket.EAI_AGAIN, "temporary failure")
    for _ in range(20):
        assert resolver.addresses({"store"}) == {"store": "10.0.0.1"}
    names.answers["store"] = socket.gaierror(socket.EAI_NONAME, "no such name")
    wait_for(resolver, "store", None)


def test_a_slow_name_server_holds_up_nobody_for_long_and_only_its_own_name(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "FIRST_SECONDS", 1.0)
    names.answers |= {"slow": ["10.0.0.9"], "store": ["10.0.0.1"]}
    names.slow["slow"] = threading.Event()
    resolver = Resolver()
    assert resolver.addresses({"slow", "store"}) == {"slow": None, "store": "10.0.0.1"}
    names.slow["slow"].set()
    wait_for(resolver, "slow", "10.0.0.9")


def test_a_node_whose_name_has_no_address_says_so(names: Names) -> None:
    names.answers["store"] = socket.gaierror(socket.EAI_NONAME, "no such name")
    source = NodeList(Settings.from_environ({"OBJGW_NODES": "a=http://k:s@store:9000"}))
    (endpoint,) = source.read()
    assert (endpoint.host, endpoint.problem) == (None, "no address is known for the name store")
