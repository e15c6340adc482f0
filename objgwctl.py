#!/usr/bin/env python3
"""objgwctl: what an operator runs. It shows where objects are, moves them, and takes nodes out and in.

    docker-compose exec gateway-container python objgwctl.py --help

Nodes and keys come from Docker, as they do for the gateway; which names count, and since when, is in the nodes' records
(`gateway.nodes.layout` says what they promise). The commands are in `gateway.ctl`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, cast

from gateway.ctl.cluster import Cluster
from gateway.ctl.commands import add, rebalance, remove
from gateway.ctl.console import say
from gateway.ctl.errors import CANNOT, FINE, INTERRUPTED, Trouble
from gateway.ctl.rebalance import JOBS
from gateway.ctl.reports import check, locate, nodes
from gateway.settings import Settings, SettingsError

EXIT_CODES = """exit codes:
  0    fine
  1    check found something; rebalance couldn't move everything
  2    it can't be done: wrong usage, or Docker or a node can't be reached; nothing was half-done
  3    another rebalance or remove is at work
  130  interrupted; start it again, it goes on from there
"""


def bandwidth(text: str) -> float:
    """Bytes a second.

    >>> bandwidth("20M")
    20971520.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?(?:/s)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes a second, for example 20M")
    return float(found[1]) * 1024.0 ** " KMG".index(found[2].upper() or " ")


def positive(text: str) -> int:
    """A number of jobs."""
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} isn't 1 to 256")
    return int(text)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "objgwctl.py", description="Shows where objgw's objects are, and moves them.", epilog=EXIT_CODES,
        formatter_class=formatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES, formatter_class=formatter)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="for scripts")
        return added

    command("nodes", nodes, "the nodes, what they hold, and whether every object is where it belongs")
    command("locate", locate, "the owner of an id, and where its copies are").add_argument("id", metavar="ID")
    command("check", check, "look for objects that aren't with their owner, stray copies and leftovers")
    moving = command("rebalance", rebalance, "move every object to its owner; clients go on meanwhile")
    moving.add_argument("--dry-run", action="store_true", help="only say what would be moved")
    taking = command("remove", remove, "take a node out: move what it holds to the others")
    taking.add_argument("name", metavar="NAME")
    taking.add_argument("--lost", action="store_true", help="the node is gone: give up what it held")
    taking.add_argument("--yes", action="store_true", help="with --lost: don't ask")
    taking.add_argument("--force", action="store_true", help="with --lost: also where the node is there")
    taking.add_argument("--no-rebalance", action="store_true", help="only record it")
    for each in (moving, taking):
        each.add_argument("--jobs", type=positive, default=JOBS, help=f"objects at a time (default {JOBS})")
        each.add_argument("--limit", type=bandwidth, default=0.0, metavar="RATE", help="bytes a second, as 20M")
        each.add_argument("--wait", action="store_true", help="where another rebalance is at work, wait for its end")
    command("add", add, "let a node join again that was taken out").add_argument("name", metavar="NAME")
    return parser.parse_args(argv)


def interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the command; its exit code."""
    args = parse()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return cast(int, args.run(Cluster(Settings.from_environ(os.environ)), args))
    except KeyboardInterrupt:
        say("interrupted; it can be started again at any time")
        return INTERRUPTED
    except BrokenPipeError:
        return FINE
    except SettingsError as error:
        say(f"objgwctl: {error}")
        return CANNOT
    except Trouble as error:
        say(f"objgwctl: {error}")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
