"""A thousand pods on servers with a hundred connections each."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import bed
from figures import table

from live.load import Load
from live.pods import run_pods
from live.stack import MAX_CONNECTIONS
from live.support import Peaks, postgres_cluster

PODS = 1000
SECONDS = 20
PROCESSES = 125
CONNECTIONS = 8
"""In each of the two pools of a process: 125 processes have as many client connections as 1,000 pods."""
MEGABYTES = 80
"""What one process of Permify needs, at most."""


def pods(folder: Path, runs: int) -> str:
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster, contextlib.ExitStack() as stack:
        deployment = bed.deployment(cluster, folder / "pods")
        deployment.prepare()
        pgcats = [stack.enter_context(deployment.pgcat(number)) for number in range(deployment.pgcat_count)]
        ports = [pgcat.port for pgcat in pgcats]
        with deployment.permify(0, ports[0]) as first:
            first.write(cluster)
        rows = [_simulated(deployment, ports) for _ in range(runs)]
        rows += _real(deployment, ports, runs)
    sizes = {name: pool["users"]["0"]["pool_size"] for name, pool in deployment.pgcat_config["pools"].items()}
    writer, reader = sizes["permify_writer"], sizes["permify_reader"]
    note = (
        f"{len(ports)} PgCat with pools of {writer} and {reader}: {len(ports) * (writer + reader)} server "
        f"connections on the primary and {len(ports) * reader} on the replica are planned for them; "
        f"each server admits {MAX_CONNECTIONS}."
    )
    head = ["", "client connections", "server connections, primary / replica", "requests", "failed"]
    return f"{note}\n\n{table([*head, 'p50 ms', 'p99 ms'], rows)}"


def _row(
    name: str,
    opened: int,
    watched: Peaks,
    deployment: bed.Deployment,
    seconds: Sequence[float],
    errors: list[str],
) -> list[str]:
    for error in sorted(set(errors))[:5]:
        print(f"pods: {errors.count(error)} × {error[:300]}", file=sys.stderr)
    ordered = sorted(seconds)
    p50, p99 = (ordered[math.ceil(len(ordered) * share) - 1] * 1000 for share in (0.5, 0.99))
    primary, replica = (watched[server] for server in deployment.cluster.servers)
    requests = f"{len(seconds) + len(errors):,}"
    servers = f"{primary} / {replica}"
    return [name, f"{opened:,}", servers, requests, str(len(errors)), f"{p50:.0f}", f"{p99:.0f}"]


def _simulated(deployment: bed.Deployment, ports: Sequence[int]) -> list[str]:
    """As pgx speaks, with one connection in each of a pod's two pools."""
    with Peaks(deployment.cluster, deployment.user) as watched:
        outcome = run_pods(ports, PODS, SECONDS, deployment.user, deployment.password)
    name = f"{PODS:,} simulated pods"
    return _row(name, outcome.opened, watched, deployment, outcome.seconds, outcome.failed)


def _real(deployment: bed.Deployment, ports: Sequence[int], runs: int) -> list[list[str]]:
    """Permify itself with its pools kept full, as many processes as memory allows."""
    available = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]
    processes = min(PROCESSES, int(available) // 1024 // MEGABYTES)
    deployment.environment["PERMIFY_DATABASE_MIN_CONNECTIONS"] = str(CONNECTIONS)
    rows = []

    def count() -> int:
        return sum(len(bed.open_connections(port)) for port in ports)

    with Peaks(deployment.cluster, deployment.user) as watched, contextlib.ExitStack() as stack:
        serving = [
            stack.enter_context(deployment.permify(number, ports[number % len(ports)]))
            for number in range(1, processes + 1)
        ]
        deadline = time.monotonic() + 60
        wanted = 2 * CONNECTIONS * processes * 0.95  # some are always about to be opened anew
        while (opened := count()) < wanted:
            assert time.monotonic() < deadline, f"{opened} of {wanted} connections"
            time.sleep(0.5)
        for _ in range(runs):
            asked = [permify.port for permify in serving]
            with Load(asked, checkers=24, writers=8, pause_seconds=0.05) as load:
                for _ in range(SECONDS):
                    opened = max(opened, count())
                    time.sleep(1)
            errors = [request.error for request in load.failed()]
            seconds = [request.seconds for request in load.requests() if not request.error]
            name = f"{processes} Permify processes, {CONNECTIONS} connections in each pool"
            rows.append(_row(name, opened, watched, deployment, seconds, errors))
    return rows
