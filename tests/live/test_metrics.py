"""What PgCat's exporter serves is what `pgcat_stack.pgcat.metrics` lists, in both versions."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from live.stack import Stack, pgcat_program
from live.support import Cluster, get
from pgcat_stack.pgcat.metrics import PGCAT, served
from pgcat_stack.pgcat.version import PgcatVersion

SAMPLE = re.compile(r"^(\w+)\{(.*)\} \d+$", re.M)
VERSIONS: list[tuple[str, PgcatVersion]] = [("pgcat", "1.2"), ("pgcat-1.3.0", "1.3")]


def scraped(text: str) -> dict[str, frozenset[str]]:
    """The labels of each series. The same on every sample of it, or this fails."""
    found: dict[str, set[frozenset[str]]] = {}
    for name, labels in SAMPLE.findall(text):
        found.setdefault(name, set()).add(frozenset(re.findall(r'(\w+)="', labels)))
    return {name: label_sets.pop() for name, label_sets in found.items() if len(label_sets) == 1}


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_the_exporter_serves_the_list(
    cluster: Cluster, tmp_path: Path, program: str, version: PgcatVersion
) -> None:
    stack = Stack(cluster, {}, pgcat_program(program), tmp_path / "deployment", tmp_path / "live")
    stack.prepare()
    with stack.pgcat() as pgcat, stack.connect(pgcat.port, "permify_writer") as connection:
        connection.execute("SELECT 1")
        text = get(pgcat.exporter, "/metrics")

        assert scraped(text) == served(version)
        types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
        listed = [metric for metric in PGCAT if version in metric.versions]
        assert types == {metric.series: metric.type_in(version) for metric in listed}

        (writer,) = re.findall(r'^pgcat_pools_cl_idle\{.*pool="permify_writer".*\} (\d+)$', text, re.M)
        assert writer == "1"
        assert "pgcat_stats_total_xact_time{" in text and not re.search(r"xact_time\{.*\} [1-9]", text)


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_series_of_open_connections_vanish_and_a_wait_has_two_parts(
    cluster: Cluster, tmp_path: Path, program: str, version: PgcatVersion
) -> None:
    """Two of the traps that the list names, and that alerts are written around."""
    answers = {"writer_pool_size": 1, "reader_pool_size": 1}
    stack = Stack(cluster, answers, pgcat_program(program), tmp_path / "deployment", tmp_path / "live")
    stack.prepare()
    with stack.pgcat() as pgcat:
        holder, waiter = (stack.connect(pgcat.port, "permify_writer") for _ in range(2))
        with holder, waiter, ThreadPoolExecutor(1) as thread:
            holder.execute("BEGIN")
            waiting = thread.submit(waiter.execute, "SELECT 1")
            parts = [0, 0]
            while parts[0] < 1:
                text = get(pgcat.exporter, "/metrics")
                parts = [
                    int(re.findall(rf"^pgcat_pools_{name}\{{.*permify_writer.*\}} (\d+)$", text, re.M)[0])
                    for name in ("maxwait", "maxwait_us")
                ]
            assert parts[0] == 1 and parts[1] < 1_000_000
            holder.execute("ROLLBACK")
            waiting.result()

        cluster.primary.sql("ALTER ROLE permify PASSWORD 'another'")
        cluster.primary.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'"
        )
        for _ in range(2):
            with stack.connect(pgcat.port, "permify_writer") as connection, pytest.raises(psycopg.Error):
                connection.execute("SELECT 1")
        text = get(pgcat.exporter, "/metrics")
        assert not re.search(r"^pgcat_servers_\w+\{.*permify_writer", text, re.M)
        assert re.search(r"^pgcat_databases_current_connections\{.*permify_writer.*\} 0$", text, re.M)
