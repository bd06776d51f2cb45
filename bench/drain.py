"""What it costs that Permify's connections live only half a minute, as the drain contract has it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bed
from figures import spread, table

from live.stack import MAX_CONNECTIONS, PgCat
from live.support import postgres_cluster

PODS = 100
CONNECTIONS = 8
"""In each of the two pools of a pod."""
PROCESSES = 10
"""They hold the connections of all pods; to PgCat a connection is a connection, whoever holds it."""
WINDOW_SECONDS = 10
WINDOWS = 4
"""About a connection's life as rendered: each is opened anew once without checks and once under them."""
START_SECONDS = 2
"""From the start of one process to that of the next, so that not all connections end at once."""
CLIENTS = 16

GUIDE = "3600s", "600s"


@dataclass
class Measured:
    lifetime: str
    jitter: str
    opened_per_second: list[float] = field(default_factory=list)
    idle_cpu: list[float] = field(default_factory=list)
    """CPU seconds of all PgCat for each second without checks."""
    load_cpu: list[float] = field(default_factory=list)
    """CPU milliseconds of all PgCat for each check."""
    checks: list[bed.Answers] = field(default_factory=list)


class Opened:
    """How many connections to some ports were opened while this was watching."""

    def __init__(self, pgcats: list[PgCat]):
        self._ports = [pgcat.port for pgcat in pgcats]
        self._known = self._look()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.count = 0

    def _look(self) -> set[tuple[int, int]]:
        return {(port, client) for port in self._ports for client in bed.open_connections(port)}

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            now = self._look()
            self.count += len(now - self._known)
            self._known = now

    def __enter__(self) -> Opened:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _measure(
    deployment: bed.Deployment, lifetime: str, jitter: str, start_seconds: float, windows: int
) -> Measured:
    deployment.environment["PERMIFY_DATABASE_MAX_CONNECTION_LIFETIME"] = lifetime
    deployment.environment["PERMIFY_DATABASE_MAX_CONNECTION_LIFETIME_JITTER"] = jitter
    held = PODS * CONNECTIONS // PROCESSES
    found = Measured(lifetime, jitter)
    with _fleet(deployment, held, start_seconds) as (pgcats, port):
        processes = [pgcat.process for pgcat in pgcats]
        for _ in range(windows):
            before = bed.cpu_seconds(*processes)
            with Opened(pgcats) as opened:
                time.sleep(WINDOW_SECONDS)
            found.idle_cpu.append((bed.cpu_seconds(*processes) - before) / WINDOW_SECONDS)
            found.opened_per_second.append(opened.count / WINDOW_SECONDS)
        for _ in range(windows):
            before = bed.cpu_seconds(*processes)
            found.checks.append(bed.load("check", port, WINDOW_SECONDS, CLIENTS))
            used = bed.cpu_seconds(*processes) - before
            found.load_cpu.append(used * 1000 / found.checks[-1].answers)
    return found


@contextlib.contextmanager
def _fleet(deployment: bed.Deployment, held: int, start_seconds: float) -> Iterator[tuple[list[PgCat], int]]:
    """The deployment's PgCat, processes of Permify that hold connections, and the port of one that is asked.

    The one that is asked has its pools as rendered, and the lifetimes that are measured.
    """
    with contextlib.ExitStack() as stack:
        numbers = range(deployment.pgcat_count)
        pgcats = [stack.enter_context(deployment.pgcat(number)) for number in numbers]
        asked = stack.enter_context(deployment.permify(0, pgcats[0].port))
        bed.load("check", asked.port, 1, CLIENTS)
        many = dict.fromkeys(
            ("PERMIFY_DATABASE_MIN_CONNECTIONS", "PERMIFY_DATABASE_MAX_CONNECTIONS"), str(held)
        )
        rendered = dict(deployment.environment)
        deployment.environment.update(many)
        for number in range(1, PROCESSES + 1):
            port = pgcats[number % len(pgcats)].port
            begun = time.monotonic()
            stack.enter_context(deployment.permify(number, port))
            time.sleep(max(0, start_seconds - (time.monotonic() - begun)))
        deployment.environment = rendered
        wanted = 2 * held * PROCESSES * 0.95  # some are always about to be opened anew
        deadline = time.monotonic() + 30
        while sum(len(bed.open_connections(pgcat.port)) for pgcat in pgcats) < wanted:
            assert time.monotonic() < deadline, f"fewer than {wanted} connections"
            time.sleep(0.2)
        yield pgcats, asked.port


def drain(folder: Path, runs: int) -> str:
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        deployments = [bed.deployment(cluster, folder / name) for name in ("rendered", "guide")]
        deployments[0].prepare()
        with deployments[0].pgcat(9) as pooler, deployments[0].permify(99, pooler.port) as first:
            bed.write_tuples(first, cluster)
        database = deployments[0].permify_config["database"]
        rendered = database["max_connection_lifetime"], database["max_connection_lifetime_jitter"]
        results = [
            _measure(deployments[0], *rendered, START_SECONDS, runs * WINDOWS),
            _measure(deployments[1], *GUIDE, 0, runs * WINDOWS // 2),
        ]
    head = ["lifetime + jitter", *(f"{result.lifetime} + {result.jitter}" for result in results)]
    rows = [
        ("connections opened a second", *(spread(one.opened_per_second, 1) for one in results)),
        ("PgCat's CPU seconds a second, no checks", *(spread(one.idle_cpu, 3) for one in results)),
        ("checks a second", *(spread([each.per_second for each in one.checks], 0) for one in results)),
        ("PgCat's CPU milliseconds a check", *(spread(one.load_cpu, 3) for one in results)),
        ("p50 of the checks, ms", *(spread([each.p50 for each in one.checks], 1) for one in results)),
        ("p99 of the checks, ms", *(spread([each.p99 for each in one.checks], 1) for one in results)),
        ("failed checks", *(sum(each.failed for each in one.checks) for one in results)),
    ]
    note = (
        f"{PODS} pods with {CONNECTIONS} connections in each pool: {2 * PODS * CONNECTIONS:,} client "
        f"connections at {deployments[0].pgcat_count} PgCat. Minimum / median / maximum of spans "
        f"of {WINDOW_SECONDS} s."
    )
    return f"{note}\n\n{table(head, rows)}"
