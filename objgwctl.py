#!/usr/bin/env python3
"""objgwctl: what an operator runs. It shows where objects are, moves them, takes nodes out and in.

    docker-compose exec gateway-container python objgwctl.py --help

Nodes and keys come from Docker, as they do for the gateway; which names count, and since when, is
in the nodes' records (`gateway.nodes.layout` says what they promise). The commands are in
`gateway.ctl`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, cast

from gateway.ctl.cluster import Cluster
from gateway.ctl.commands import rebalance
from gateway.ctl.console import say
from gateway.ctl.contents import list_objects
from gateway.ctl.demo import demo
from gateway.ctl.errors import CANNOT, FINE, INTERRUPTED, CommandError
from gateway.ctl.link import link
from gateway.ctl.members import add, remove
from gateway.ctl.pace import MOST
from gateway.ctl.reports import check, locate, nodes
from gateway.privileges import drop_privileges
from gateway.settings import Settings, SettingsError

EXIT_CODES = """exit codes:
  0    fine
  1    check found something; rebalance, remove or add did a part of it: start it again
  2    it can't be done: wrong usage, or Docker or a node can't be reached; nothing was changed
  3    another rebalance or remove is at work
  130  interrupted; start it again, it goes on from there
"""


def bandwidth(text: str) -> float:
    """Bytes a second.

    >>> bandwidth("20M")
    20971520.0
    """
    return amount(re.sub("(?i)/s$", "", text), "bytes a second")


def amount(text: str, unit: str) -> float:
    """A number above 0, with or without K, M or G."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit}, for example 20M")
    return float(found[1]) * 1024.0 ** " KMG".index(found[2].upper() or " ")


def size(text: str) -> int:
    """Bytes of an object.

    >>> size("10M")
    10485760
    """
    size = int(amount(text, "bytes"))
    if not 0 < size < 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of an object, for example 20M")
    return size


def lifetime(text: str) -> int:
    """Seconds.

    >>> lifetime("2h")
    7200
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time, for example 90s, 30m, 2h or 7d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def base(text: str) -> str:
    """The URL of a gateway, without a slash at its end."""
    if not re.fullmatch(r"https?://[^\s?#/]+[^\s?#]*", text):
        problem = f"{text!r} is no URL of a gateway, for example https://objects.example.com"
        raise argparse.ArgumentTypeError(problem)
    return text.rstrip("/")


def positive(text: str) -> int:
    """A number of jobs."""
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} isn't 1 to 256")
    return int(text)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    shown: Any = {"epilog": EXIT_CODES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    does = "Shows where objgw's objects are, and moves them."
    parser = argparse.ArgumentParser("objgwctl.py", description=does, **shown)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, **shown)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="for scripts")
        return added

    command("nodes", nodes, "the nodes, what they hold, and whether the layout is settled")
    locating = command("locate", locate, "the owner of an id, and where its copies are")
    locating.add_argument("id", metavar="ID")
    listing = command("list", list_objects, "the objects, sorted by id, as GET /objects has them")
    listing.add_argument("--prefix", default="", help="only ids that begin with it")
    listing.add_argument("--node", metavar="NAME", help="what this node holds, whoever owns it")
    command("check", check, "look for misplaced objects, stray copies and leftovers")
    moving = command("rebalance", rebalance, "move every object to its owner while clients go on")
    taking = command("remove", remove, "take nodes out: move what they hold to the others")
    taking.add_argument("names", metavar="NAME", nargs="+")
    adding = command(
        "add", add, "take in nodes that don't join by themselves: foreign, unknown, or taken out"
    )
    adding.add_argument("names", metavar="NAME", nargs="+")

    def flag(of: argparse.ArgumentParser, name: str, text: str) -> None:
        of.add_argument(name, action="store_true", help=text)

    flag(moving, "--dry-run", "only say what would be moved")
    why = taking.add_mutually_exclusive_group()
    why.add_argument(
        "--lost", action="store_true", help="the nodes are gone: give up what they held"
    )
    why.add_argument(
        "--foreign",
        action="store_true",
        help="the nodes belong to another installation: go on without them, and leave them alone",
    )
    flag(taking, "--yes", "with --lost or --foreign: don't ask")
    flag(adding, "--yes", "don't ask where a node belongs to another installation")
    flag(taking, "--force", "with --lost: also where the node is there")
    flag(taking, "--no-rebalance", "only record it")
    for each in (moving, taking):
        number = f"objects at a time, at most (default {MOST}); fewer while clients notice"
        rate = "bytes a second, as 20M"
        each.add_argument("--jobs", type=positive, default=MOST, help=number)
        each.add_argument("--limit", type=bandwidth, default=0.0, metavar="RATE", help=rate)
        flag(each, "--wait", "where another rebalance is at work, wait for its end")
    showing = commands.add_parser(
        "demo", help="a first look without Docker: objects are held in memory", **shown
    )
    add_link(commands, shown)
    port = "of 127.0.0.1 (default 3000)"
    showing.add_argument("--port", type=int, default=3000, help=port)
    return parser.parse_args(argv)


def add_link(commands: Any, shown: dict[str, Any]) -> None:
    """The command `link`, which prints no report."""
    linking = commands.add_parser(
        "link",
        help="a link with which an object can be read, or stored, without a token",
        description="Prints a link, signed with the first key of OBJGW_LINK_KEY.",
        **shown,
    )
    linking.add_argument("id", metavar="ID")
    valid = "how long it is valid, as 90s, 30m, 2h or 7d"
    linking.add_argument(
        "--for", dest="lifetime", type=lifetime, required=True, metavar="TIME", help=valid
    )
    put = "the link is for a PUT, and not for GET and HEAD"
    linking.add_argument("--put", action="store_true", help=put)
    most = "with --put: the most bytes that may be stored, as 10M"
    linking.add_argument("--max", type=size, metavar="SIZE", help=most)
    whole = "the gateway's URL, for a whole link"
    linking.add_argument("--base", type=base, metavar="URL", help=whole)


def interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the command; its exit code."""
    args = parse()
    signal.signal(signal.SIGTERM, interrupt)
    drop_privileges(os.environ)  # `docker exec` begins as root, which can't read all that it needs
    try:
        if args.command == "demo":
            return demo(args.port)
        settings = Settings.from_environ(os.environ)
        if args.command == "link":
            return link(settings, args)
        return cast(int, args.run(Cluster(settings), args))
    except KeyboardInterrupt:
        say("interrupted; it can be started again at any time")
        return INTERRUPTED
    except BrokenPipeError:
        return FINE
    except SettingsError as error:
        say(f"objgwctl: {error}")
        return CANNOT
    except CommandError as error:
        say(f"objgwctl: {error}")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
