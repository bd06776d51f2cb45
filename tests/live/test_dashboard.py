"""Every query of the dashboard, asked of a real Prometheus that watches a real stack under load."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live.monitoring import Prometheus, collector, exporters, prometheus
from live.repeats import LATEST
from live.stack import TENANT, Stack, check_body, pgcat_program, require_programs
from live.support import EVERY_STATEMENT, post, postgres_cluster
from rendering import render

ANSWERS = {
    "advanced": True,
    "otlp_endpoint": "collector:4317",
    "writer_pool_size": 2,
    "reader_pool_size": 2,
}
RATE_INTERVAL = "4s"


class Watched:
    """A stack, the Prometheus that watches it, and its dashboard."""

    def __init__(self, stack: Stack, prometheus: Prometheus):
        self.stack = stack
        self.prometheus = prometheus
        self.dashboard = json.loads((stack.rendered / "monitoring" / "dashboard.json").read_text())

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """With Grafana's variables filled in, and the addresses that servers have here."""
        for there, here in {
            "$instance": ".*",
            "$namespace": "permify",
            "$__rate_interval": RATE_INTERVAL,
            **{f'host="{name}"': f'host="{here}"' for (name, _), (here, _) in self.stack.moved.values()},
        }.items():
            expression = expression.replace(there, here)
        return self.prometheus.ask(expression)

    def values(self, title: str, legend: str = "") -> list[float]:
        """What the first panel with this title shows now, of the queries whose legend begins so."""
        panel = next(panel for panel in queried(self.dashboard) if panel["title"].startswith(title))
        targets = [target for target in panel["targets"] if target["legendFormat"].startswith(legend)]
        assert targets, f"{title} has no {legend}"
        return [value for target in targets for _, value in self.ask(target["expr"])]

    def comes_to(
        self, title: str, so: Callable[[float], bool], legend: str = "", seconds: float = 20
    ) -> None:
        end = time.monotonic() + seconds
        while True:
            shown = self.values(title, legend)
            if any(map(so, shown)):
                return
            assert time.monotonic() < end, f"{title} {legend} shows {shown}"
            time.sleep(0.3)


def queried(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module", params=["pgcat", LATEST])
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    require_programs()
    folder = tmp_path_factory.mktemp("dashboard")
    with contextlib.ExitStack() as ends:
        cluster = ends.enter_context(postgres_cluster(100, EVERY_STATEMENT))
        program = pgcat_program(request.param)
        # By two names, for PgCat 1.2.0 tells servers apart by nothing else.
        by = {"replica": ("localhost", cluster.replica.port)}
        stack = Stack(cluster, ANSWERS, program, folder / "deployment", folder / "live", by)
        stack.more_environment["OTEL_BSP_SCHEDULE_DELAY"] = "500"  # ms, of 5,000
        pushed = ends.enter_context(collector(stack))
        ends.enter_context(stack.up())
        targets = {**ends.enter_context(exporters(stack)), ("collector", 8889): pushed}
        watched = Watched(stack, ends.enter_context(prometheus(stack, targets)))
        stack.permifys[0].write(cluster)
        end = time.monotonic() + 20
        while (unreached := watched.prometheus.unreached()) != []:
            assert time.monotonic() < end, unreached
            stack.load(0.5)
        stack.load(4)
        yield watched


def asked(watched: Watched, dashboard: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the answers, by panel and legend."""
    wrong = {}
    for panel in queried(dashboard):
        for target in panel["targets"]:
            found = watched.ask(target["expr"])
            if not found or any(math.isnan(value) for _, value in found):
                wrong[f"{panel['title']}: {target['legendFormat']}"] = f"{target['expr']} = {found}"
    return wrong


def test_every_query_returns_data(watched: Watched) -> None:
    watched.stack.load(1)
    assert asked(watched, watched.dashboard) == {}


def test_nothing_pushed_is_counted_by_subject_or_statement(watched: Watched) -> None:
    assert watched.ask('{job="permify",subject_id!=""}') == []
    names = {series["span_name"] for series, _ in watched.ask("traces_span_metrics_calls_total")}
    assert {"connect", "pool.acquire", "SELECT", "INSERT"} <= names
    assert not [name for name in names if "FROM" in name]


def test_kubernetes_asks_the_same_of_its_namespace(watched: Watched, tmp_path: Path) -> None:
    answers = {
        "topology": "standalone",
        "primary_host": "postgres-primary",
        "replica_hosts": "postgres-replica",
    }
    deploy = render(tmp_path / "deploy", {**ANSWERS, **answers, "otlp_endpoint": "collector.monitoring:4317"})
    watched.stack.load(1)
    assert asked(watched, json.loads((deploy / "monitoring" / "dashboard.json").read_text())) == {}


@pytest.mark.parametrize("watched", ["pgcat"], indirect=True)
class TestTrouble:
    """What is 0 in health, in the order in which things are broken."""

    def test_exhausted_pools(self, watched: Watched) -> None:
        stack = watched.stack

        def query(statement: str) -> None:
            with (
                contextlib.suppress(psycopg.Error),
                stack.connect(stack.pgcats[0].port, "permify_reader") as connection,
            ):
                connection.execute(statement)

        with ThreadPoolExecutor(40) as clients:
            for _ in range(8):  # two connections to each of two servers; the others wait in vain
                clients.submit(query, "SELECT pg_sleep(4)")
            watched.comes_to("Pools in use", lambda share: share == 1, "{{pool}}")
            for _ in range(30):
                clients.submit(query, "SELECT 1")
            watched.comes_to("Clients waiting", lambda count: count > 1)
            watched.comes_to("Longest wait", lambda seconds: seconds > 0.5)
            watched.comes_to("Clients of each pool", lambda count: count > 1, "{{pool}} waiting")
            watched.comes_to("Alerts firing", lambda count: count > 0)

    def test_a_replica_that_lags_and_one_that_is_gone(self, watched: Watched) -> None:
        cluster = watched.stack.cluster
        cluster.replica.sql("SELECT pg_wal_replay_pause()")
        cluster.primary.sql("CREATE TABLE later ()")
        watched.comes_to("Replica lag", lambda seconds: seconds > 1)
        cluster.replica.stop()
        watched.comes_to("PostgreSQL up", lambda count: count == 1)
        # Of the exhausted pools; counted once in 15 s.
        watched.comes_to("PgCat errors", lambda rate: rate > 0)

    def test_no_pgcat(self, watched: Watched) -> None:
        stack = watched.stack
        stack.pgcats[0].process.stop()
        watched.comes_to("PgCat up", lambda count: count == 0)

        def check(number: int) -> None:
            with contextlib.suppress(AssertionError):
                post(stack.permifys[0].port, f"{TENANT}/permissions/check", check_body("new", "view", number))

        def failing(rate: float) -> bool:
            for number in range(4):  # again and again: a series that is new has no rate
                check(number)
            return rate > 0

        watched.comes_to("Permify errors", failing)
        watched.comes_to("Errors, by code", failing)
        watched.comes_to("Connects", failing, "failed")
