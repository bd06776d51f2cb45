"""pgbench through the rendered pools, against PgBouncer with the same pools and against none."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bed
from figures import spread, table

from live.stack import MAX_CONNECTIONS
from live.support import LOOPBACK, clean_environment, postgres_cluster, postgres_program, run

CLIENTS = (5, 50, 500, 1000)
SECONDS = 3
SCALE = 10

DIRECT = "no pooler"
STACK = "this stack"
NEWER = "PgCat 1.3.0"
BOUNCER = "PgBouncer"


@dataclass(frozen=True)
class Result:
    per_second: float
    failed: int
    milliseconds: float
    """Of one transaction, on average."""


def pgbench(folder: Path, runs: int) -> str:
    with postgres_cluster(2 * MAX_CONNECTIONS, {}) as cluster, contextlib.ExitStack() as stack:
        # Without a replica both pools are of the one server, so that each way does the same work.
        base = bed.deployment(cluster, folder / "base", replica_hosts="")
        base.prepare()
        base.lift_limit()
        newer = bed.deployment(cluster, folder / "newer", "pgcat-1.3.0", replica_hosts="")
        ports = {
            DIRECT: cluster.primary.port,
            STACK: stack.enter_context(base.pgcat()).port,
            NEWER: stack.enter_context(newer.pgcat()).port,
            BOUNCER: stack.enter_context(bed.pgbouncer(cluster, base))[1],
        }
        environment = clean_environment(PGPASSWORD=base.password, PGSSLMODE="disable")
        program = postgres_program("pgbench")
        target = ["-h", LOOPBACK, "-U", base.user]
        fill = ["-i", "-q", "-s", str(SCALE), "-p", str(ports[DIRECT]), base.database]
        run([program, *target, *fill], environment)

        sizes = {name: pool["users"]["0"]["pool_size"] for name, pool in base.pgcat_config["pools"].items()}
        room = base.capacity
        rows = []
        for title, pool, script in [
            ("select-only", "permify_reader", "select-only"),
            ("read-write", "permify_writer", "tpcb-like"),
        ]:
            for clients in CLIENTS:
                admitted = [name for name in ports if name != DIRECT or clients <= room]
                results: Mapping[str, list[Result]] = {name: [] for name in admitted}
                for _ in range(runs):
                    for name in admitted:
                        command = [program, *target, "-n", "-M", "extended", "-j", "2", "-b", script]
                        command += ["-c", str(clients), "-T", str(SECONDS), "-p", str(ports[name])]
                        database = base.database if name == DIRECT else pool
                        results[name].append(_once([*command, database], environment))
                for name in ports:
                    rows.append([f"{title}, {clients:,} clients, {name}", *_cells(name, results)])
    note = (
        f"Pools as rendered: {sizes['permify_writer']} server connections for read-write, "
        f"{sizes['permify_reader']} for select-only. Without a pooler the role may have {room} connections."
    )
    head = ["minimum / median / maximum", "per second", "÷ PgBouncer", "÷ no pooler", "ms", "failed"]
    return f"{note}\n\n{table(head, rows)}"


def _cells(name: str, results: Mapping[str, list[Result]]) -> list[str]:
    own = results.get(name)
    if own is None:
        return ["more than the server admits", "", "", "", ""]

    def over(other: str) -> str:
        if other not in results:
            return ""
        return spread([one.per_second / two.per_second for one, two in zip(own, results[other], strict=True)])

    return [
        spread([one.per_second for one in own], 0),
        over(BOUNCER),
        over(DIRECT),
        f"{statistics.median(one.milliseconds for one in own):.1f}",
        str(sum(one.failed for one in own)),
    ]


def _once(command: list[str], environment: Mapping[str, str]) -> Result:
    # Clients that were disconnected make pgbench end with an error; they are counted.
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=60)
    speed = re.search(r"(?m)^tps = ([\d.]+)", done.stdout)
    failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
    latency = re.search(r"latency average = ([\d.]+) ms", done.stdout)
    aborted = len(re.findall(r"client \d+ (?:script \d+ )?aborted", done.stderr))
    assert speed and failed and latency, f"no figures:\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
    return Result(float(speed[1]), int(failed[1]) + aborted, float(latency[1]))
