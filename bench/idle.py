#!/usr/bin/env python3
"""What a gateway costs while nobody asks it: CPU and requests a second, its own and its nodes'.

    bench/idle.py --workers 4 --nodes 12    # as root; needs Docker; about 4 minutes

Strategy. The gateway is paused and goes on in turn, for some seconds each. CPU comes from the
containers' cgroups. A node that nobody asks uses CPU as well, so what the gateway makes the nodes
use is the difference between the two: that of each turn, and then the median. The requests are
counted by the nodes themselves (MinIO's metrics), and those to Docker by a relay before its socket.
The image's health check is off: it starts a Python every ten seconds, whatever the gateway does.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import statistics
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from lab import HERE, IMAGE, OWN, PREFIX, Lab, Target, at_objects, eventually
from processes import BenchError, container_cpu, run, used

METRICS_SECONDS = 12.0  # MinIO counts anew after at most so many
WARM_SECONDS = 20.0  # until what a gateway does only at its start is done
SETTLE_SECONDS = 3.0  # from the end of a pause: connections and leases are as old as it was long
PUBLIC_METRICS = ("-e", "MINIO_PROMETHEUS_AUTH_TYPE=public", "-e", "MINIO_BROWSER=off")
LIMIT = 2.0  # per cent of a core that all of it together may use


class DockerRelay:
    """Stands before Docker's socket, and counts the requests."""

    def __init__(self, path: Path) -> None:
        self.requests = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            engine = socket.socket(socket.AF_UNIX)
            engine.connect("/var/run/docker.sock")
            for pair in ((client, engine, 1), (engine, client, 0)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: int) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.requests += counted * data.count(b" HTTP/1.1\r\n")
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def s3_requests(nodes: list[Target]) -> float:
    """The requests of S3 that the nodes have got since they were started."""
    total = 0.0
    for node in nodes:
        text = node.ask("GET", "/minio/v2/metrics/cluster")[1].decode()
        found = re.findall(r"^minio_s3_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
        total += sum(map(float, found))
    return total


class Idle:
    """A gateway and its nodes, and what they have used."""

    def __init__(self, lab: Lab, nodes: int, workers: int) -> None:
        run("docker", "build", "-q", "-t", IMAGE, "--target", "gateway", str(HERE.parent))
        network = lab.network("idle")
        self.lab, self.name = lab, f"{PREFIX}-{OWN}"
        self.nodes = lab.nodes(network, range(1, nodes + 1), *PUBLIC_METRICS)
        self.docker = DockerRelay(lab.folder / "docker.sock")
        env = {"OBJGW_NODE_NAME": lab.marker, "WEB_CONCURRENCY": workers}
        options = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        mount = ("-v", f"{lab.folder}/docker.sock:/var/run/docker.sock")
        self.pid = lab.container(self.name, network, *options, *mount, IMAGE)
        gateway = at_objects(OWN, self.pid)
        for n in range(4 * nodes * workers):  # each worker has answered for each node
            gateway.store(f"idle{n}", 100)
        eventually("the gateway", lambda: gateway.ask("GET", "/health/ready")[0] == 200)

    def used(self, seconds: float) -> tuple[float, float]:
        """The CPU that the gateway and all nodes use for so long, in per cent of a core."""
        gateway, nodes = used(seconds, partial(container_cpu, self.pid), self.lab.nodes_cpu)
        return gateway, nodes

    def measure(self, rounds: int, seconds: float) -> dict[str, float]:
        """The medians of all rounds."""
        time.sleep(WARM_SECONDS)
        self.pause(METRICS_SECONDS)
        s3, docker, awake = s3_requests(self.nodes), self.docker.requests, 0.0
        own, caused, calm = [], [], []
        for number in range(rounds):
            _, without = self.used(seconds)
            began = time.monotonic()
            run("docker", "unpause", self.name)
            time.sleep(SETTLE_SECONDS)
            gateway, with_gateway = self.used(seconds)
            self.pause(1.0)
            awake += time.monotonic() - began - 1.0
            own.append(gateway)
            caused.append(with_gateway - without)
            calm.append(without)
            print(
                f"round {number + 1}: gateway {gateway:.2f} %, nodes {without:.2f} % alone, "
                f"{with_gateway:.2f} % with it",
                file=sys.stderr,
            )
        time.sleep(METRICS_SECONDS)
        figures = {
            "gateway, % of a core": statistics.median(own),
            "nodes because of it, %": statistics.median(caused),
            "all, %": statistics.median(map(sum, zip(own, caused, strict=True))),
            "nodes alone, %": statistics.median(calm),
            "requests to nodes a second": (s3_requests(self.nodes) - s3) / awake,
            "requests to Docker a second": (self.docker.requests - docker) / awake,
        }
        return {name: round(value, 2) for name, value in figures.items()}

    def pause(self, seconds: float) -> None:
        run("docker", "pause", self.name)
        time.sleep(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each half of a round")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    try:
        with Lab(f"{PREFIX}-amazin-object-storage-node") as lab:
            idle = Idle(lab, given.nodes, given.workers)
            figures = idle.measure(given.rounds, given.seconds)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    print(json.dumps({"nodes": given.nodes, "workers": given.workers, **figures}, indent=2))
    raise SystemExit(figures["all, %"] > LIMIT)


if __name__ == "__main__":
    main()
