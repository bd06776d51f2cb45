"""Whether PgCat's own settings change what a check costs."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import bed
from figures import spread, table
from permify import CLIENTS, DIRECT, Way, measure, ratio

from live.stack import MAX_CONNECTIONS
from live.support import postgres_cluster

AS_RENDERED = "as rendered"
EDITS = {
    AS_RENDERED: {},
    "one worker thread": {"worker_threads": "1"},
    "two worker threads": {"worker_threads": "2"},
    "eight worker threads": {"worker_threads": "8"},
    "random balancing": {"load_balancing_mode": '"random"'},
    "each connection checked before use": {"healthcheck_delay": "0"},
}
"""Other values in pgcat.toml."""
ANSWERS: dict[str, dict[str, Any]] = {
    "primary_reads: false": {"primary_reads": False},
    "pools of four": {"writer_pool_size": 4, "reader_pool_size": 4},
}


def edit(deployment: bed.Deployment, values: dict[str, str]) -> None:
    path = deployment.rendered / "pgcat" / "pgcat.toml"
    text = path.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key} = \S+", f"{key} = {value}", text)
        assert count, key
    path.write_text(text)


def tuning(folder: Path, runs: int) -> str:
    """Each way in turn, without latency, against what is rendered and against no pooler."""
    with postgres_cluster(4 * MAX_CONNECTIONS, {}) as cluster, contextlib.ExitStack() as stack:
        base = bed.deployment(cluster, folder / "base", pooling="direct", permify_max_connections=8)
        base.prepare()
        base.lift_limit()
        direct = stack.enter_context(base.permify(0, None))
        bed.write_tuples(direct, cluster)
        found = [Way(DIRECT, direct)]
        variants = [(name, {}, values) for name, values in EDITS.items()]
        variants += [(name, answers, {}) for name, answers in ANSWERS.items()]
        for number, (name, answers, values) in enumerate(variants):
            deployment = bed.deployment(cluster, folder / str(number), **answers)
            edit(deployment, values)
            pooler = stack.enter_context(deployment.pgcat())
            permify = stack.enter_context(deployment.permify(0, pooler.port))
            found.append(Way(name, permify, [pooler.process]))
        for way in found:
            bed.load("check", way.permify.port, 1, CLIENTS)
        for _ in range(runs):
            for way in found:
                measure(way, cluster, 0, writes=False)
    checks = {way.name: way.checks[0] for way in found}
    rows = [
        (
            way.name,
            ratio(checks[way.name], checks[AS_RENDERED]),
            ratio(checks[way.name], checks[DIRECT]),
            *(spread([one[number] for one in way.cpu]) for number in range(3)),
        )
        for way in found
    ]
    head = ["checks, no latency", "÷ as rendered", "÷ no pooler"]
    return table([*head, *(f"CPU ms a check: {part}" for part in ("Permify", "PgCat", "PostgreSQL"))], rows)
