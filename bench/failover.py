"""How soon writes follow a primary whose name moves, and what a name that rotates costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import named, shown, side_by_side
from figures import table

from live.failover import TOPOLOGIES, failing_over, last_failed_write_seconds, moved, rotated
from live.faults import Outcome

SIDE_BY_SIDE = 3
"""Each is a PostgreSQL cluster, up to five programs and a load."""
CACHE_OFF = {("general", "dns_cache_enabled"): False}
STANDBYS_TAKEN = {("pools.permify_writer.plugins.prewarmer", "enabled"): False}

MOVED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "standalone, PgCat 1.2.0": ("standalone", "pgcat", {}),
    "standalone, PgCat 1.3.0": ("standalone", "pgcat-1.3.0", {}),
    "sidecar, PgCat 1.2.0": ("sidecar", "pgcat", {}),
    "sidecar, PgCat 1.3.0": ("sidecar", "pgcat-1.3.0", {}),
    "standalone, PgCat 1.2.0, DNS cache off": ("standalone", "pgcat", {"settings": CACHE_OFF}),
    "standalone, PgCat 1.2.0, standbys taken": ("standalone", "pgcat", {"settings": STANDBYS_TAKEN}),
    "standalone, PgCat 1.2.0, both": ("standalone", "pgcat", {"settings": {**CACHE_OFF, **STANDBYS_TAKEN}}),
    "standalone, PgCat 1.3.0, both": (
        "standalone",
        "pgcat-1.3.0",
        {"settings": {**CACHE_OFF, **STANDBYS_TAKEN}},
    ),
    "direct": ("direct", "pgcat", {}),
}
ROTATED = {"PgCat 1.2.0": "pgcat", "PgCat 1.3.0": "pgcat-1.3.0"}


def failover(folder: Path, runs: int) -> str:
    """A primary that moves, and a name that rotates."""
    jobs = [("moved", name, run) for name in MOVED for run in range(runs)]
    jobs += [("rotated", name, run) for name in ROTATED for run in range(runs)]

    def visit(job: tuple[str, str, int]) -> Outcome:
        kind, name, _ = job
        where = folder / named(job)
        if kind == "moved":
            topology, pgcat, options = MOVED[name]
            return failing_over(moved, where, TOPOLOGIES[topology], pgcat, **options)
        return failing_over(rotated, where, TOPOLOGIES["standalone"], ROTATED[name])

    found: dict[tuple[str, str], list[Outcome]] = {}
    results = side_by_side(jobs, visit, at_once=SIDE_BY_SIDE)
    for (kind, name, _), outcome in results:
        found.setdefault((kind, name), []).append(outcome)
    count = f"Runs: {runs}; {len(results)} of {len(jobs)} deployments ended well."
    return "\n\n".join([count, moved_table(found), rotated_table(found)])


Found = dict[tuple[str, str], list[Outcome]]


def failed_writes(outcome: Outcome) -> int:
    """Since the name moved."""
    return len([one for one in outcome.failed if one.kind == "write" and one.began > outcome.mended])


def moved_table(found: Found) -> str:
    head = ["the primary moves, its name 4 s later", "writes failed since then", "last one after, s"]
    head += ["writes lost"]
    rows = [
        [
            name,
            shown([failed_writes(outcome) for outcome in several]),
            shown([last_failed_write_seconds(outcome) for outcome in several]),
            shown([len(outcome.lost) for outcome in several]),
        ]
        for name in MOVED
        if (several := found.get(("moved", name)))
    ]
    return table(head, rows)


def rotated_table(found: Found) -> str:
    head = [
        "a name of readers that leads elsewhere every 3 s, for 15 s, over TLS",
        "connections dropped",
        "failed",
        "slowest, s",
    ]
    rows = [[name, *rotation(several)] for name in ROTATED if (several := found.get(("rotated", name)))]
    return table(head, rows)


def rotation(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        shown([outcome.seen["dropped"] for outcome in outcomes]),
        shown([len(outcome.failed) for outcome in outcomes]),
        shown([outcome.slowest_seconds for outcome in outcomes]),
    ]
