"""What prepared statements through PgCat, and a lazier garbage collection in Permify, bring and cost."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bed
from figures import table
from permify import LATENCIES, ratio

from live.stack import MAX_CONNECTIONS, Permify
from live.support import Cluster, Process, postgres_cluster

CLIENTS = (8, 32, 128)
CHECK_SECONDS = 2
WRITE_SECONDS = 1
CACHE_SIZE = 500
"""Of statements that PgCat keeps for each pool."""
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


def with_prepared(deployment: bed.Deployment) -> None:
    """Permify names its statements; PgCat keeps them for its servers."""
    edits = [("permify/permify.yaml", r"cache_describe", "cache_statement")]
    if not deployment.direct:
        name = "prepared_statements_cache_size"
        edits.append(("pgcat/pgcat.toml", rf"(?m)^{name} = \d+", f"{name} = {CACHE_SIZE}"))
    for name, pattern, new in edits:
        path = deployment.rendered / name
        text, count = re.subn(pattern, new, path.read_text())
        assert count, name
        path.write_text(text)


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
                with_prepared(deployment)
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
