"""What was measured, as Markdown.

A figure is the median of the rounds; a ratio is the median of each round's ratio.
"""

from __future__ import annotations

import collections
import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import reach
from lab import HERE, MINIO, OWN, PREFIX
from processes import run

METHODS = ("PUT", "GET", "HEAD", "DELETE")


class Sample(NamedTuple):
    """One cell on one target in one round: requests/s, latencies in ms, CPU ms a request of target
    and of nodes.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    nodes: float
    failed: int


class Results:
    """What was measured; each list has one item a round."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, int, str], list[Sample]] = collections.defaultdict(list)
        self.large: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
        self.peak: dict[str, float] = {}
        self.crowd: dict[str, tuple[float, str]] = {}
        self.upstream: dict[str, dict[str, str]] = {}
        self.nodes: dict[tuple[str, int], list[Sample]] = collections.defaultdict(list)
        self.profile = ""

    def ratio(
        self, work: str, connections: int, target: str, other: str, field: str = "rate"
    ) -> float | None:
        """One target to another; None where one of them wasn't measured."""
        both = [self.samples.get((work, connections, name), []) for name in (target, other)]
        return middle(
            getattr(a, field) / max(getattr(b, field), 1e-9) for a, b in zip(*both, strict=False)
        )

    def large_ratio(self, method: str, target: str, other: str) -> float | None:
        both = [self.large.get((method, name), []) for name in (target, other)]
        return middle(a / b for a, b in zip(*both, strict=False))

    def tail(self, target: str) -> float | None:
        """p99 by p50 of small GETs at 256 connections."""
        return middle(
            sample.p99 / sample.p50 for sample in self.samples.get(("GET", 256, target), [])
        )

    def growth_ratio(self, name: str, field: str = "rate") -> float | None:
        """What twelve nodes are to one, in the same round."""
        both = [self.nodes.get((name, count), []) for count in (12, 1)]
        return middle(getattr(a, field) / getattr(b, field) for a, b in zip(*both, strict=False))

    def cells(self, titles: dict[str, str]) -> str:
        """Every cell."""
        lines = []
        for (work, connections, target), samples in self.samples.items():
            rates = [sample.rate for sample in samples]
            times = [
                median(getattr(sample, field) for sample in samples)
                for field in ("p50", "p99", "cpu", "nodes")
            ]
            ratios = [self.ratio(work, connections, target, other) for other in ("nginx", "direct")]
            failed = sum(sample.failed for sample in samples)
            line = [titles[work], str(connections), target, f"{median(rates):,.0f}", spread(rates)]
            lines.append([*line, *map(decimal, times), *map(decimal, ratios), str(failed or "")])
        head = ["request", "connections", "target", "requests/s", "spread", "p50 ms", "p99 ms"]
        return table(
            [*head, "CPU ms/request", "nodes' CPU", "/ nginx", "/ direct", "failed"], lines
        )

    def larges(self) -> str:
        lines = []
        for (method, target), speeds in self.large.items():
            ratios = [self.large_ratio(method, target, other) for other in ("nginx", "direct")]
            line = [f"{method} 256 MiB", target, f"{median(speeds):,.0f}", spread(speeds)]
            lines.append([*line, *map(decimal, ratios)])
        return table(["request", "target", "MB/s", "spread", "/ nginx", "/ direct"], lines)

    def gateways(self) -> str:
        """Memory and requests upstream."""
        lines = []
        for name, peak in self.peak.items():
            calls = [self.upstream.get(name, {}).get(method, "") for method in METHODS]
            lines.append([name, f"{peak:.0f} MiB", self.crowd.get(name, (0, ""))[1], *calls])
        head = ["gateway", "peak, rounds above", "peak, 40 + 40 of 64 MiB, half slow"]
        return table([*head, *(f"{method} makes" for method in METHODS)], lines)

    def growth(self) -> str:
        lines = []
        for (name, count), samples in self.nodes.items():
            rates = [sample.rate for sample in samples]
            cpu = [
                median(getattr(sample, field) for sample in samples) for field in ("cpu", "nodes")
            ]
            lines.append(
                [str(count), name, f"{median(rates):,.0f}", spread(rates), *map(decimal, cpu)]
            )
        head = [
            "nodes",
            "target",
            "GET 1 KiB, 32 connections, requests/s",
            "spread",
            "CPU ms/request",
            "nodes' CPU",
        ]
        return table(head, lines)

    def markdown(self, how: str, titles: dict[str, str]) -> str:
        parts = {
            "Reach": table(["what", "measured", "at least", "aim", ""], reach.lines(self)),
            "Small requests": self.cells(titles) if self.samples else "",
            "256 MiB, one stream": self.larges() if self.large else "",
            "Memory, and requests upstream": self.gateways(),
            "Nodes 1 → 12": self.growth() if self.nodes else "",
            "Profile of a worker, small GETs": self.profile,
        }
        return "\n".join(
            [
                f"# Benchmark\n\n{how}",
                *(f"## {title}\n\n{text}" for title, text in parts.items() if text),
            ]
        )


def table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def middle(values: Iterable[float]) -> float | None:
    """The median; None of nothing."""
    listed = list(values)
    return median(listed) if listed else None


def spread(values: list[float]) -> str:
    return f"{(max(values) - min(values)) / median(values):.0%}"


def machine() -> str:
    """What it ran on, and with which versions."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    code = (
        "import gevent, gunicorn, platform as p; print(p.python_version(), "
        "gunicorn.__version__, gevent.__version__)"
    )
    python, gunicorn, gevent = run(
        "docker", "exec", f"{PREFIX}-{OWN}", "python", "-c", code
    ).split()
    nginx = (
        subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
        .stderr.split("/")[-1]
        .strip()
    )
    commit = run("git", "-C", str(HERE), "rev-parse", "--short", "HEAD")
    if run("git", "-C", str(HERE), "status", "--porcelain"):
        commit += " with uncommitted changes"
    rows = [
        ["date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"],
        ["commit", commit],
        [
            "machine",
            f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB",
        ],
        ["kernel", platform.release()],
        [
            "Docker",
            run("docker", "info", "-f", "{{.ServerVersion}}, cgroup version {{.CgroupVersion}}"),
        ],
        ["MinIO", MINIO.split(":")[1]],
        ["nginx", nginx],
        ["gateway", f"Python {python}, gunicorn {gunicorn}, gevent {gevent}"],
    ]
    return table(["", ""], rows)
