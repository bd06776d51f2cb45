"""What prepared statements through PgCat, and a lazier garbage collection in Permify, bring and cost."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bed
import psycopg
from figures import table
from permify import LATENCIES, ratio

from live.faults import Outcome, Site, calm, site
from live.prepared import name_statements
from live.stack import MAX_CONNECTIONS, Permify
from live.support import Cluster, Process, postgres_cluster

CLIENTS = (8, 32, 128)
CHECK_SECONDS = 2
WRITE_SECONDS = 1
GOGC = "400"

Round = tuple[str, int, int]
"""Checks or writes, added milliseconds, clients."""


@dataclass(frozen=True)
class Kind:
    """A way to PostgreSQL; all others are as rendered."""

    name: str
    pgcat: str | None
    prepared: bool = False
    collects_less: bool = False

    @property
    def base(self) -> str:
        """With which its rates are compared: the same programs as rendered."""
        return f"{_program(self.pgcat)}, as rendered"


def _program(pgcat: str | None) -> str:
    return {None: "no pooler", "pgcat": "PgCat 1.2.0", "pgcat-1.3.0": "PgCat 1.3.0"}[pgcat]


def _kind(pgcat: str | None, prepared: bool, collects_less: bool) -> Kind:
    changed = ["prepared statements"] * prepared + [f"GOGC={GOGC}"] * collects_less
    return Kind(
        f"{_program(pgcat)}, {' and '.join(changed) or 'as rendered'}", pgcat, prepared, collects_less
    )


KINDS = [
    _kind(pgcat, prepared, collects_less)
    for pgcat in (None, "pgcat", "pgcat-1.3.0")
    for prepared in (False, True)
    for collects_less in (False, True)
    if pgcat != "pgcat-1.3.0" or prepared or not collects_less
]


@dataclass
class Way:
    """One Permify process and how it reaches PostgreSQL."""

    kind: Kind
    permify: Permify
    results: dict[Round, list[bed.Answers]] = field(default_factory=dict)


@contextlib.contextmanager
def ways(cluster: Cluster, folder: Path, added: bed.Latency | None) -> Iterator[list[Way]]:
    """All of them at once, and each idle but for its turns; behind Toxiproxy where there is to be latency."""
    with contextlib.ExitStack() as stack:
        found = []
        for number, kind in enumerate(KINDS):
            # Without a pooler, as many connections in each of Permify's pools as behind PgCat.
            direct = {"pooling": "direct", "permify_max_connections": 8} if kind.pgcat is None else {}
            deployment = bed.deployment(
                cluster, folder / str(number), kind.pgcat or "", by=added.by if added else None, **direct
            )
            if kind.prepared:
                name_statements(deployment.rendered)
            if kind.collects_less:
                deployment.more_environment = {"GOGC": GOGC}
            port = stack.enter_context(deployment.pgcat()).port if kind.pgcat else None
            found.append(Way(kind, stack.enter_context(deployment.permify(0, port))))
        yield found


def peak_memory_mib(process: Process) -> float:
    """The most memory that the process had at once."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) / 1024


def rates(found: list[Way], what: str, milliseconds: int) -> str:
    by_name = {way.kind.name: way for way in found}
    rows = []
    for way in found:
        cells: list[object] = [way.kind.name]
        failed = 0
        for clients in CLIENTS:
            one = (what, milliseconds, clients)
            base = by_name[way.kind.base].results[one]
            direct = by_name[KINDS[0].name].results[one]
            cells += [ratio(way.results[one], base), ratio(way.results[one], direct)]
            failed += sum(result.failed for result in way.results[one])
        rows.append([*cells, failed])
    head = [f"{what}, +{milliseconds} ms"]
    for clients in CLIENTS:
        head += [f"{clients} clients ÷ as rendered", "÷ no pooler"]
    return table([*head, "failed"], rows)


def statements(folder: Path, runs: int) -> str:
    """Each way in turn, at each number of clients and each latency."""
    with postgres_cluster(8 * MAX_CONNECTIONS, {}) as cluster, bed.latency(cluster, folder) as added:
        bed.fill(cluster, folder / "base")
        parts = []
        with ways(cluster, folder / "near", None) as near, ways(cluster, folder / "far", added) as far:
            for way in [*near, *far]:
                bed.load("check", way.permify.port, 1)  # fills caches, opens connections
            for milliseconds in LATENCIES:
                added.set(milliseconds)
                found = far if milliseconds else near
                for clients in CLIENTS:
                    for _ in range(runs):
                        for way in found:
                            for what, seconds in (("checks", CHECK_SECONDS), ("writes", WRITE_SECONDS)):
                                answers = bed.load(what[:-1], way.permify.port, seconds, clients)
                                way.results.setdefault((what, milliseconds, clients), []).append(answers)
                parts += [rates(found, what, milliseconds) for what in ("checks", "writes")]
            memory = [(way.kind.name, f"{peak_memory_mib(way.permify.process):.0f}") for way in near]
    parts.append(table(["Permify's most memory, no latency", "MiB"], memory))
    heads = "Minimum / median / maximum; ratios are of neighbours in the same run."
    return "\n\n".join([heads, *parts])


# Changes of the schema under load

CHANGES: dict[str, Sequence[str]] = {
    "another type of a column that checks read": [
        "ALTER TABLE relation_tuples ALTER COLUMN subject_id TYPE text"
    ],
    "a new column and an index of it": [
        "ALTER TABLE relation_tuples ADD COLUMN more text",
        "CREATE INDEX CONCURRENTLY more_idx ON relation_tuples (more)",
    ],
    "a new default, an index less": [
        "ALTER TABLE relation_tuples ALTER COLUMN expired_tx_id SET DEFAULT '9223372036854775807'::xid8",
        "DROP INDEX CONCURRENTLY idx_relation_tuples_txid",
    ],
}
"""What migrations of Permify have done to tables, but for the first: none of 1.x has changed a type."""
AFTER_SECONDS = 20.0


def migrations(folder: Path, runs: int) -> str:
    """Each change under checks and writes, with statements that have names and without."""
    rows = []
    for pgcat in ("pgcat", "pgcat-1.3.0"):
        for prepared in (False, True):
            for number, (change, statements) in enumerate(CHANGES.items()):
                outcomes = []
                for run in range(runs):
                    with site(folder / f"{pgcat}-{prepared}-{number}-{run}", pgcat=pgcat) as here:
                        outcomes.append(_changed(here, statements, prepared))
                kind = _kind(pgcat, prepared, False)
                rows.append([kind.name, change, *(_sum(outcomes))])
    return table(["deployment", "change", "requests", "failed", "last failed after, s"], rows)


def _changed(here: Site, statements: Sequence[str], prepared: bool) -> Outcome:
    if prepared:
        name_statements(here.stack.rendered)
    here.prepare()
    here.start()
    primary = here.cluster.primary
    with (
        psycopg.connect(
            host=str(primary.folder),
            port=primary.port,
            user="postgres",
            dbname=here.stack.database,
            autocommit=True,
        ) as administrator,
        here.load() as load,
    ):
        calm(load)
        began = time.monotonic()
        for statement in statements:
            administrator.execute(statement.encode())
        time.sleep(AFTER_SECONDS)
        return here.outcome(load, began, began)


def _sum(outcomes: Sequence[Outcome]) -> tuple[int, int, str]:
    last = max(outcome.failed_until_seconds for outcome in outcomes)
    failed = sum(len(outcome.failed) for outcome in outcomes)
    return sum(len(outcome.requests) for outcome in outcomes), failed, f"{last:.1f}" if failed else "–"
