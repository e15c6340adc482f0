"""docs/grafana-dashboard.json and the alerts of docs/operating.md, asked of a real Prometheus.

It reads a gateway's `/metrics` while one of the nodes is silent, so that every metric counts.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.harness.engine import CHECKOUT
from tests.harness.local import loopback_address
from tests.harness.stack import Stack
from tests.harness.waiting import eventually

DASHBOARD = json.loads((CHECKOUT / "docs/grafana-dashboard.json").read_text())
GUIDE = (CHECKOUT / "docs/operating.md").read_text()

# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": ".*"}
NODE_IS_DOWN = "objgw_node_up == 0"
SELECTOR = re.compile(r"objgw_\w+(?:\{[^}]*\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
LEGEND = re.compile(r"\{\{(\w+)\}\}")


def alerts() -> list[str]:
    """The queries of the table of alerts."""
    _, _, table = GUIDE.partition("| to be told when | query |\n")
    rows = table.partition("\n\n")[0].splitlines()[1:]
    return [row.split("`")[1] for row in rows]


def panels() -> Iterator[tuple[str, str]]:
    """The queries of the dashboard, each with its legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            yield query, target["legendFormat"]


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """The URL of a Prometheus that reads this address each second."""
    address = f"{loopback_address()}:9090"
    config = folder / "prometheus.yml"
    job = {"job_name": "objgw", "static_configs": [{"targets": [target]}]}
    seconds = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config.write_text(json.dumps({"global": seconds, "scrape_configs": [job]}))  # JSON is YAML
    options = {"config.file": config, "web.listen-address": address, "storage.tsdb.path": folder}
    command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()
        print((folder / "log").read_text()[-3000:])


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """The series that a query gives now. Raises HTTPError where it isn't PromQL."""
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=30) as answer:
        series: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return series


def found(url: str, query: str) -> list[dict[str, Any]]:
    """The series that a query gives, once there are any."""

    def asked() -> list[dict[str, Any]]:
        series = ask(url, query)
        assert series, f"there is nothing for {query}"
        return series

    series: list[dict[str, Any]] = eventually(asked)
    return series


def assert_about_what_there_is(url: str, query: str, legend: str = "") -> None:
    """Every metric of the query is there, by its labels; so are the labels it is grouped by."""
    groups = {label.strip() for group in GROUPING.findall(query) for label in group.split(",")}
    assert set(LEGEND.findall(legend)) <= groups, query
    for selector in SELECTOR.findall(query):
        series = found(url, selector)
        missing = [label for label in groups if not all(label in each["metric"] for each in series)]
        assert not missing, f"{selector} has no label {missing}, in {query}"


def test_every_query_of_the_dashboard_and_of_the_alerts_is_about_metrics_that_there_are(
    faulty: Stack, tmp_path: Path
) -> None:
    gateway, silent = faulty.add_gateway({"OBJGW_NODE_TIMEOUT": "2"}), faulty.nodes[2]
    gateway.wait_ready()
    for node in faulty.nodes:
        id = faulty.id_of(node)
        assert [each(id).status for each in (gateway.put, gateway.get, gateway.head)] == [200] * 3
    assert NODE_IS_DOWN in alerts()
    # Docker doesn't tell of that, so that requests meet it.
    silent.container.kill("SIGSTOP")
    try:
        eventually(lambda: gateway.get(faulty.id_of(silent)).status == 503)
        with prometheus(f"{gateway.address}:3000", tmp_path) as url:
            for query, legend in panels():
                assert_about_what_there_is(url, query, legend)
                found(url, query)
            for query in alerts():
                assert_about_what_there_is(url, query)
                ask(url, query)
            down = found(url, NODE_IS_DOWN)
            assert [each["metric"]["node"] for each in down] == [silent.name]
    finally:
        silent.container.kill("SIGCONT")


def test_the_dashboard_asks_whichever_prometheus_is_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["job"]["datasource"] == chosen
    for panel in DASHBOARD["panels"]:
        assert [panel["datasource"], *(each["datasource"] for each in panel["targets"])] == [
            chosen
        ] * (1 + len(panel["targets"]))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
