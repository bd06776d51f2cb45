"""The series that PgCat's exporter serves, by version, and those of postgres_exporter that alerts ask for.

Read in PgCat's `prometheus.rs` and `stats/`, and seen by scraping 1.2.0 and the line that calls itself 1.3.0;
`tests/live/test_metrics.py` holds this list against both. The page is written by
`python -m pgcat_stack.pgcat.metrics > docs/metrics.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pgcat_stack.pgcat.version import PgcatVersion

Kind = Literal["counter", "gauge"]
Family = Literal["pools", "databases", "stats", "servers"]

VERSIONS: tuple[PgcatVersion, ...] = get_args(PgcatVersion)

_OF_POOL = frozenset({"pool", "user"})
_OF_SERVER = frozenset({"host", "shard", "role", "pool", "database"})
_OF_SERVER_1_3 = _OF_SERVER | {"index", "username"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A series of PgCat's exporter. `name` is without the prefix `pgcat_`, `unit` of its value.

    `trap` is what its name, type or help text would make one believe wrongly.
    """

    name: str
    unit: str
    meaning: str
    kind: Kind = "gauge"
    trap: str = ""
    versions: tuple[PgcatVersion, ...] = VERSIONS
    counter_since: PgcatVersion | None = None
    """Where it is a counter from a version on, and is called a gauge before."""

    @property
    def series(self) -> str:
        """The name as Prometheus has it."""
        return f"pgcat_{self.name}"

    @property
    def family(self) -> Family:
        """What it describes: a pool, a server of a pool, or that server's open connections."""
        return next(family for family in get_args(Family) if self.name.startswith(f"{family}_"))

    def labels(self, version: PgcatVersion) -> frozenset[str]:
        """The labels that the exporter of this version gives it."""
        if self.family == "pools":
            return _OF_POOL
        return _OF_SERVER if version == "1.2" else _OF_SERVER_1_3

    def type_in(self, version: PgcatVersion) -> Kind:
        """The type that the exporter of this version states."""
        return "counter" if self.counter_since and version >= self.counter_since else self.kind


@dataclass(frozen=True, slots=True)
class AskedMetric:
    """A series of another exporter that alerts ask for. `labels` tell its sources apart."""

    series: str
    labels: tuple[str, ...]
    unit: str
    meaning: str
    trap: str = ""


_FROZEN = "Not counted anew while the server has no connection: it keeps its last value. "
_PER_15_S = "Of the last 15 s that PgCat counted, rounded down to whole numbers."
_VANISHES = "The series is there only while a connection to the server is open."
_OPEN = f"Of the connections that are open now: it falls when one closes. {_VANISHES}"
_ONE = f"{_OPEN} 1.2.0: of one connection, whichever; 1.3.0: of all of them."

PGCAT: tuple[Metric, ...] = (
    Metric(
        "pools_cl_idle",
        "clients",
        "Clients that have nothing under way: in transaction mode the idle connections of Permify's pool.",
        trap="In session mode a client that once asked is active as long as it is connected.",
    ),
    Metric("pools_cl_active", "clients", "Clients that have a server connection."),
    Metric(
        "pools_cl_waiting",
        "clients",
        "Clients that wait for a server connection.",
        trap="A snapshot: short waits fall between two scrapes. A client whose wait ran out counts as idle.",
    ),
    Metric("pools_sv_active", "connections", "Server connections that a client has, on all servers."),
    Metric("pools_sv_idle", "connections", "Server connections that no client has, on all servers."),
    Metric(
        "pools_sv_login",
        "connections",
        "Server connections that are being opened.",
        trap="A snapshot of what takes milliseconds; nothing counts how many were opened or refused.",
    ),
    Metric("pools_sv_tested", "connections", "Server connections that are being checked before use."),
    Metric(
        "pools_maxwait",
        "s",
        "The whole seconds of the longest wait of those who wait now.",
        trap="The whole wait is `pgcat_pools_maxwait + pgcat_pools_maxwait_us / 1e6`.",
    ),
    Metric(
        "pools_maxwait_us",
        "µs",
        "The rest of that wait, below a second.",
        trap="Not the wait in microseconds: it begins anew with each second.",
    ),
    Metric(
        "databases_pool_size",
        "connections",
        "pool_size: the most server connections to this server, in this process.",
    ),
    Metric(
        "databases_current_connections",
        "connections",
        "Server connections to this server.",
        trap="Those to a lost server stay counted until they are used or idle_timeout is over,"
        " so this does not tell that a server is gone.",
    ),
    Metric(
        "stats_total_query_count",
        "queries",
        "Answered queries.",
        kind="counter",
        trap="The surest sign that a server is used: it stands still while the server is banned or gone."
        " It begins anew with the process, and when RELOAD changes the pool.",
    ),
    Metric("stats_total_query_time", "ms", "Time that the server took for them.", kind="counter"),
    Metric("stats_total_xact_count", "transactions", "Ended transactions.", kind="counter"),
    Metric(
        "stats_total_xact_time",
        "",
        "Nothing.",
        kind="counter",
        trap="It is always 0: PgCat never adds to it.",
    ),
    Metric(
        "stats_total_wait_time",
        "µs",
        "Time that clients waited for a connection to this server which they got.",
        kind="counter",
        trap="Waits that ran out are not in it. The help text names no unit; query_time beside it is in ms.",
    ),
    Metric("stats_total_received", "bytes", "What the server sent.", kind="counter"),
    Metric("stats_total_sent", "bytes", "What was sent to the server.", kind="counter"),
    Metric("stats_avg_query_count", "queries/s", "Answered queries.", trap=_FROZEN + _PER_15_S),
    Metric("stats_avg_query_time", "ms", "Time of one query.", trap=_FROZEN + _PER_15_S),
    Metric("stats_avg_xact_count", "transactions/s", "Ended transactions.", trap=_FROZEN + _PER_15_S),
    Metric("stats_avg_xact_time", "", "Nothing.", trap="It is always 0."),
    Metric(
        "stats_avg_wait_time",
        "µs/s",
        "Time that clients waited, in each second.",
        trap=f"Not of one client. {_FROZEN}{_PER_15_S}",
    ),
    Metric("stats_avg_recv", "bytes/s", "What the server sent.", trap=_FROZEN + _PER_15_S),
    Metric("stats_avg_sent", "bytes/s", "What was sent to the server.", trap=_FROZEN + _PER_15_S),
    Metric(
        "stats_avg_errors",
        "errors/s",
        "Checkouts and checks of connections that failed.",
        trap=f"Fewer than 15 within 15 s are 0, and their total is not exported. {_FROZEN}",
    ),
    Metric("servers_bytes_received", "bytes", "What the server sent.", counter_since="1.3", trap=_ONE),
    Metric("servers_bytes_sent", "bytes", "What was sent to the server.", counter_since="1.3", trap=_ONE),
    Metric(
        "servers_transaction_count", "transactions", "Ended transactions.", counter_since="1.3", trap=_ONE
    ),
    Metric("servers_query_count", "queries", "Answered queries.", counter_since="1.3", trap=_ONE),
    Metric("servers_error_count", "", "Nothing.", counter_since="1.3", trap="It is always 0."),
    Metric(
        "servers_active_count",
        "connections",
        "Connections that a client has.",
        trap=_VANISHES,
        versions=("1.3",),
    ),
    Metric(
        "servers_idle_count",
        "connections",
        "Connections that no client has, also dead ones to a lost server.",
        trap=_VANISHES,
        versions=("1.3",),
    ),
    Metric(
        "servers_login_count",
        "connections",
        "Connections that are being opened.",
        trap=f"A snapshot, see pools_sv_login. {_VANISHES}",
        versions=("1.3",),
    ),
    Metric(
        "servers_tested_count",
        "connections",
        "Connections that are being checked before use.",
        trap=_VANISHES,
        versions=("1.3",),
    ),
    Metric(
        "servers_is_banned",
        "0 or 1",
        "Whether this PgCat leaves the server alone for ban_time.",
        trap=f"It stays 1 after the ban until a client asks. A server with the role primary is never banned."
        f" {_VANISHES}",
        versions=("1.3",),
    ),
    Metric(
        "servers_is_paused",
        "0 or 1",
        "Whether the pool was paused (PAUSE in the admin database).",
        trap=_VANISHES,
        versions=("1.3",),
    ),
)

POSTGRES: tuple[AskedMetric, ...] = (
    AskedMetric("pg_settings_max_connections", ("server",), "connections", "max_connections."),
    AskedMetric(
        "pg_settings_superuser_reserved_connections",
        ("server",),
        "connections",
        "Those for superusers alone.",
    ),
    AskedMetric(
        "pg_settings_default_transaction_read_only",
        ("server",),
        "0 or 1",
        "default_transaction_read_only of the server.",
        "As the exporter's own session has it: that of another role or database does not show.",
    ),
    AskedMetric(
        "pg_stat_activity_count",
        ("server", "datname", "usename", "state"),
        "connections",
        "Connections, those of the exporter too.",
        "Rows with an empty usename stand for what there is none of; replication is not in it.",
    ),
    AskedMetric(
        "pg_stat_database_xact_commit",
        ("datname",),
        "transactions",
        "Committed transactions, those of the exporter too.",
        "No label server: only instance tells whose it is.",
    ),
    AskedMetric(
        "pg_stat_database_tup_inserted",
        ("datname",),
        "rows",
        "Rows inserted. Every write of Permify inserts some.",
        "No label server: only instance tells whose it is. A standby counts none.",
    ),
    AskedMetric(
        "pg_replication_is_replica",
        (),
        "0 or 1",
        "Whether the server is in recovery.",
        "No label server: only instance tells whose it is.",
    ),
    AskedMetric(
        "pg_replication_lag_seconds",
        (),
        "s",
        "How old the last transaction is that the replica has replayed.",
        "0 on a replica that is cut off, for it has replayed all that it got. No label server.",
    ),
    AskedMetric(
        "pg_stat_replication_pg_wal_lsn_diff",
        ("server", "state", "application_name", "client_addr", "slot_name"),
        "bytes",
        "How far a follower is behind, as the server that sends to it sees it.",
        "The series vanishes when the follower does.",
    ),
)
"""By the names of postgres_exporter 0.15 and later; older ones lack usename and the replication collector."""


PROBE: tuple[AskedMetric, ...] = (
    AskedMetric(
        "probe_success",
        ("request", "instance"),
        "0 or 1",
        "Whether Permify answered the request with 200 within 5 s.",
        "0 is any cause: the status and the words are in the log of the exporter.",
    ),
    AskedMetric(
        "probe_duration_seconds",
        ("request", "instance"),
        "s",
        "How long the request took, or the wait for it.",
    ),
)
"""By the names of blackbox_exporter 0.24 and later."""


def served(version: PgcatVersion) -> Mapping[str, frozenset[str]]:
    """The labels of each series, by its name in Prometheus, that the exporter of this version serves."""
    return {metric.series: metric.labels(version) for metric in PGCAT if version in metric.versions}


_TITLES: Mapping[Family, str] = {
    "pools": "Pools",
    "databases": "Servers of pools: size and connections",
    "stats": "Servers of pools: what was done",
    "servers": "Servers of pools: open connections",
}


def render_page() -> str:
    """The page as Markdown, with a line end at its end."""
    return "\n".join(_page())


def _page() -> Iterator[str]:
    yield "# Metrics\n"
    yield (
        "What PgCat's exporter serves on port 9930, `GET /metrics`, and nothing else. Rules and dashboards\n"
        "are held against this list by `pgcat-stack validate`, and the list against both versions by a live\n"
        "test. The page is made from it: `python -m pgcat_stack.pgcat.metrics > docs/metrics.md`.\n"
    )
    yield (
        "No series tells of refused logins, of failed requests, of how many server connections were opened,\n"
        "or since when the process runs. The alerts `PgcatNoServer`, `PgcatWaitTooLong`,\n"
        "`PgcatConnectionChurn` and `PgcatRestarted` say how near one gets.\n"
    )
    yield (
        "1.2.0 has no label for the port: two servers of a pool on one host are the same series twice, of\n"
        "which Prometheus keeps one. 1.3.0 tells them apart by `index`.\n"
    )
    for family, title in _TITLES.items():
        metrics = [metric for metric in PGCAT if metric.family == family]
        yield f"## {title}\n"
        for version in VERSIONS:
            labels = ", ".join(f"`{label}`" for label in sorted(metrics[0].labels(version)))
            yield f"Labels in {version}: {labels}\n"
        yield "| Series | Unit | Type | Versions | Meaning | Trap |\n|---|---|---|---|---|---|"
        yield from (_row(metric) for metric in metrics)
        yield ""
    yield "## PostgreSQL\n"
    yield (
        "What alerts ask of postgres_exporter, 0.15 or later, with `postgres_metrics`. `server` is host and\n"
        "port of its connection string, which must name the server as `budget.yaml` does.\n"
    )
    yield "| Series | Labels | Unit | Meaning | Trap |\n|---|---|---|---|---|"
    yield from map(_asked_row, POSTGRES)
    yield "\n## Probe\n"
    yield (
        "What alerts ask of blackbox_exporter, which asks Permify for a `read` and a `write`. `up` is 1\n"
        "while the exporter itself answers.\n"
    )
    yield "| Series | Labels | Unit | Meaning | Trap |\n|---|---|---|---|---|"
    yield from map(_asked_row, PROBE)
    yield ""


def _asked_row(metric: AskedMetric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.series}` | {labels} | {metric.unit} | {metric.meaning} | {metric.trap} |"


def _row(metric: Metric) -> str:
    kinds = {version: metric.type_in(version) for version in metric.versions}
    stated = " / ".join(dict.fromkeys(kinds.values()))
    versions = ", ".join(metric.versions)
    return f"| `{metric.series}` | {metric.unit} | {stated} | {versions} | {metric.meaning} | {metric.trap} |"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(render_page())
