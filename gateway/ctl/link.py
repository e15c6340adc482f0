"""The command that makes a link that expires. It asks neither Docker nor a node."""

from __future__ import annotations

import argparse
import time

from gateway.ctl.errors import FINE, CommandError
from gateway.links import make_link
from gateway.nodes.placement import OBJECT_ID
from gateway.settings import Settings


def link(settings: Settings, args: argparse.Namespace) -> int:
    """Prints a link, signed with the first key; the exit code. Raises CommandError."""
    keys = settings.link_key.split()
    if not keys:
        raise CommandError("OBJGW_LINK_KEY isn't set; the gateway needs the same key")
    if not OBJECT_ID.fullmatch(args.id):
        raise CommandError("an id is 1 to 32 ASCII letters and digits")
    if args.put != (args.max is not None):
        raise CommandError("--put and --max go together: a link to store has a largest size")
    made = make_link(keys[0], args.id, int(time.time()) + args.lifetime, args.max)
    print(f"{args.base or ''}{made}")
    return FINE
