"""All faults together, and requests with random damage: bench/soak.py and
bench/fuzz.py, shortly.
"""

from __future__ import annotations

from fuzz import fuzz
from soak import soak
from tests.harness.stack import Stack


def test_a_minute_of_faults_of_all_kinds_loses_nothing_and_mixes_nothing(stack: Stack) -> None:
    # bench/soak.py takes others, and clients that never pause
    report = soak(stack, 60, clients=16, seed=1, writes=300, pause=0.12)
    assert report["lost"] == report["wrong"] == 0, str(report)
    assert report["acknowledged writes"] >= 300, str(report)
    assert report["objects read at the end"] >= 16 * 12, str(report)
    assert report["faults"] >= 4, str(report)
    assert report["history"]["operations"] > 300, str(report)
    assert report["history"]["not linearizable"] == 0, str(report)
    assert report["layout"]["clean"], str(report)
    assert (
        report["end"]["descriptors of a worker"] <= report["begin"]["descriptors of a worker"] + 20
    ), str(report)


def test_5000_damaged_requests_make_no_5xx_and_cost_neither_a_worker_nor_memory(
    shared: Stack,
) -> None:
    host = shared.add_host()
    gateway = shared.add_gateway({"WEB_CONCURRENCY": "2"}, beside=host)
    gateway.wait_ready()
    report = fuzz(gateway, requests=5000, seed=1)  # bench/fuzz.py takes others
    assert report["failures"] == [], str(report)
