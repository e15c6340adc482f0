"""The figures that were asked for, and how near what was measured comes to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lab import OWN

if TYPE_CHECKING:
    from report import Results

Figure = Callable[["Results"], float | None]


class Goal(NamedTuple):
    """A figure, which has to be ≥ or ≤ two others. Without a sign it is there to compare."""

    what: str
    figure: Figure
    sign: str = ""
    least: float = 0
    aim: float = 0


def ratio(work: str, connections: int, other: str, *, of: str = OWN, field: str = "rate") -> Figure:
    """One target to another one, in small requests."""
    return lambda results: results.ratio(work, connections, of, other, field)


def large(method: str, other: str) -> Figure:
    """The gateway to another target, with a large object."""
    return lambda results: results.large_ratio(method, OWN, other)


def tail(target: str) -> Figure:
    return lambda results: results.tail(target)


def growth(target: str, field: str = "rate") -> Figure:
    return lambda results: results.growth_ratio(target, field)


def upstream(results: Results) -> float | None:
    """The most S3 requests that one request took."""
    made = results.upstream.get(OWN, {}).values()
    return max((float(each.split()[0]) for each in made), default=None)


def crowd(results: Results) -> float | None:
    """The peak of memory with many transfers at once."""
    return results.crowd[OWN][0] if OWN in results.crowd else None


get, cpu = partial(ratio, "GET", 32), partial(ratio, "GET", 32, field="cpu")
GOALS = (
    Goal("small GET, 32 connections, requests/s, / nginx", get("nginx"), "≥", 0.45, 0.65),
    Goal("- / nginx before the same three nodes", get("nginx3"), "≥", 0.75, 0.85),
    Goal("- CPU a request, / nginx before the same", cpu("nginx3"), "≤", 2, 1.6),
    Goal(
        "one small object on one node, 32 connections, requests/s, / nginx",
        ratio("ONE", 32, "nginx"),
        "≥",
        0.7,
        0.8,
    ),
    Goal("small GET, / the same without metrics, log and page", get("quiet"), "≥", 0.95, 1),
    Goal(
        "small GET, CPU a request, / empty app, gunicorn's gevent worker", cpu("gevent"), "≤", 3, 2
    ),
    Goal("- / empty app, our worker, which the gateway has", cpu("empty"), "≤", 3, 2),
    Goal("- nginx / empty app, our worker", cpu("empty", of="nginx")),
    Goal(
        "small PUT, 32 connections, requests/s, / direct",
        ratio("PUT", 32, "direct"),
        "≥",
        0.88,
        0.95,
    ),
    Goal(
        "small GET, 1 connection, p50, / nginx",
        ratio("GET", 1, "nginx", field="p50"),
        "≤",
        1.4,
        1.2,
    ),
    Goal(
        "GET 1 MiB, 32 connections, requests/s, / nginx", ratio("GET1M", 32, "nginx"), "≥", 0.9, 1
    ),
    Goal(
        "PUT 1 MiB, 32 connections, requests/s, / direct",
        ratio("PUT1M", 32, "direct"),
        "≥",
        0.8,
        0.9,
    ),
    Goal("256 MiB GET, one stream, / direct", large("GET", "direct"), "≥", 0.85, 0.95),
    Goal("256 MiB GET, one stream, / nginx", large("GET", "nginx"), "≥", 1, 1),
    Goal("256 MiB PUT, one stream, / direct", large("PUT", "direct"), "≥", 0.85, 0.9),
    Goal("small GET, 256 connections, p99 / p50", tail(OWN), "≤", 3, 2.5),
    Goal("- nginx", tail("nginx")),
    Goal("small GET, requests/s of 12 nodes / of 1", growth(OWN), "≥", 0.9, 1),
    Goal("- nginx before the same nodes", growth("nginx")),
    Goal("- the gateway's CPU a request", growth(OWN, "cpu"), "≤", 1.1, 1),
    Goal("requests upstream for a PUT, GET, HEAD, DELETE, the most", upstream, "≤", 1, 1),
    Goal("40 uploads and 40 downloads of 64 MiB at once, peak MiB", crowd, "≤", 100, 80),
)


def lines(results: Results) -> list[list[str]]:
    """A line for each goal: what, measured, at least, aim, and whether that is reached."""
    return [_line(goal, goal.figure(results)) for goal in GOALS]


def _line(goal: Goal, value: float | None) -> list[str]:
    wanted = [f"{goal.sign} {each:g}" if goal.sign else "" for each in (goal.least, goal.aim)]
    if value is None:
        return [goal.what, "", *wanted, "not measured"]
    shown = f"{value:.0f}" if value >= 20 else f"{value:.2f}"
    return [goal.what, shown, *wanted, _verdict(goal, value)]


def _verdict(goal: Goal, value: float) -> str:
    if not goal.sign:
        return ""
    for figure, verdict in ((goal.aim, "aim reached"), (goal.least, "reached")):
        if value >= figure if goal.sign == "≥" else value <= figure:
            return verdict
    return "**not reached**"
