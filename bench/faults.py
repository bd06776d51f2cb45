"""What users see of a fault, and by which figures the timeouts in the template were chosen."""

from __future__ import annotations

import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from figures import spread, table

from live.faults import (
    SITES,
    Lag,
    Outcome,
    Site,
    primary_restarted,
    replica_gone_for_bans,
    replica_stopped,
    server_mute,
    server_vanished,
    site,
    started,
    started_without_replica,
    visit,
    with_settings,
)
from live.network import in_own_network, toxiproxy
from live.support import LOOPBACK, clean_environment, postgres_program, run

SIDE_BY_SIDE = 12
"""So many deployments at a time, since they mostly wait."""

GENERAL, READER = "general", "pools.permify_reader"

OVERLOAD = "overload"
"""The one sweep that keeps the machine busy: one deployment at a time."""


GONE_TO_THE_END = "replica gone for several bans"
"""A fault that lasts for as long as its figures: nothing recovers."""


def faults(folder: Path, runs: int) -> str:
    """Every fault of the tests, with the timeouts as they are rendered; the longest sites come first."""
    jobs = [(name, run) for name in SITES for run in range(runs)]
    outcomes: dict[tuple[str, str], list[Any]] = {}
    visits = side_by_side(jobs, lambda job: visit(job[0], folder / named(job), {}))
    for (name, _), seen in visits:
        for fault, outcome in seen.items():
            outcomes.setdefault((name, fault), []).append(outcome)
    head = ["fault", "failed", "slow", "slowest, s", "recovered after, s", "writes lost"]
    rows, lags = [], []
    for name in SITES:
        for (where, fault), several in outcomes.items():
            if where == name and isinstance(several[0], Outcome):
                rows.append([label(where, fault), *figures(fault, several)])
            elif where == name and isinstance(several[0], Lag):
                lags += several
    count = f"Runs: {runs}, at {len(SITES)} deployments each; {len(visits)} of {len(jobs)} ended well."
    return "\n\n".join([count, table(head, rows), *([lag_table(lags)] if lags else [])])


def named(job: Sequence[Any]) -> str:
    """A name for the folder of a job."""
    return "-".join(map(str, job)).replace(" ", "-").replace(",", "")


def label(where: str, fault: str) -> str:
    """The fault, and where it happened unless that is the usual: standalone, with a replica, PgCat 1.2.0."""
    special = where.removeprefix("standalone, ")
    return f"{fault} ({special})" if special in ("PgCat 1.3.0", "no replica", "sidecar") else fault


def recovered_seconds(outcome: Outcome) -> float:
    """Where Permify waited for something: until it was ready."""
    return max(float(outcome.seen.get("comes_seconds", 0)), outcome.recovered_seconds)


def figures(fault: str, outcomes: Sequence[Outcome]) -> list[str]:
    recovered = shown([recovered_seconds(outcome) for outcome in outcomes])
    return [
        shown([len(outcome.failed) for outcome in outcomes]),
        shown([len(outcome.slow) for outcome in outcomes]),
        shown([outcome.slowest_seconds for outcome in outcomes]),
        "–" if fault == GONE_TO_THE_END else recovered,
        shown([len(outcome.lost) for outcome in outcomes]),
    ]


def lag_table(lags: Sequence[Lag]) -> str:
    def share(part: str) -> str:
        return shown([100 * getattr(lag, part) / lag.checks for lag in lags])

    head = ["replica that replays nothing: wrong denials of what was just granted", "% of the checks"]
    rows = [
        ["while it lags", share("denied")],
        ["while it lags, with the snap_token of the write", share("denied_with_token")],
        ["after it has caught up, until the next write", share("denied_caught_up")],
        ["after it has caught up, with the snap_token", share("denied_caught_up_with_token")],
        ["after the next write", share("denied_after_write")],
    ]
    return table(head, rows)


def shown(values: Sequence[float]) -> str:
    """Minimum, median and maximum; the one value where there is one; counts without a fraction."""
    digits = 0 if all(float(value).is_integer() or value >= 100 for value in values) else 1
    return spread(values, digits) if len(values) > 1 else f"{values[0]:,.{digits}f}"


def side_by_side(
    jobs: Iterable[Any], work: Callable[[Any], Any], at_once: int = SIDE_BY_SIDE
) -> list[tuple[Any, Any]]:
    """Jobs with their results, without those for which something is missing here, and those that fail."""

    def one(job: Any) -> list[tuple[Any, Any]]:
        try:
            return [(job, work(job))]
        except pytest.skip.Exception as missing:
            print(f"{job}: left out: {missing}", file=sys.stderr)
        except Exception as error:
            print(f"{job}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return []

    with ThreadPoolExecutor(at_once) as pool:
        return [pair for pairs in pool.map(one, list(jobs)) for pair in pairs]


# Timeouts


def timeouts(folder: Path, runs: int) -> str:
    """For each timeout, what it does to the fault that it is there for, and what it costs."""
    jobs = [
        (name, value, run) for name, (values, _) in SWEEPS.items() for value in values for run in range(runs)
    ]

    def measure(job: tuple[str, int, int]) -> list[float]:
        name, value, _ = job
        return SWEEPS[name][1](folder / named(job), value)

    results = side_by_side([job for job in jobs if job[0] != OVERLOAD], measure)
    results += side_by_side([job for job in jobs if job[0] == OVERLOAD], measure, at_once=1)
    found: dict[str, dict[int, list[list[float]]]] = {}
    for (name, value, _), row in results:
        found.setdefault(name, {}).setdefault(value, []).append(row)
    rounds = max(5, runs)
    found["healthcheck_delay, cost"] = healthcheck_costs(folder / "costs", rounds)
    parts = [
        f"Runs: {runs}; {len(results)} of {len(jobs)} deployments ended well. Throughput: {rounds} rounds."
    ]
    for name in HEADS:
        lines = [
            [f"{value:,}", *(shown(column) for column in zip(*several, strict=True))]
            for value, several in found.get(name, {}).items()
        ]
        parts.append(table(HEADS[name], lines))
    return "\n\n".join(parts)


HEADS = {
    "reader": [
        "connect_timeout of the reader pool, ms",
        "slow requests while the replica is gone",
        "slowest, s",
        "Permify starts, replica gone, s",
    ],
    OVERLOAD: [
        "connect_timeout, ms",
        "% refused at a queue of 0.4 s",
        "at 1 s",
        "at 2 s",
        "at 4 s",
        "replicas banned",
    ],
    "ban_time": [
        "ban_time, s",
        "slow requests in 70 s without replica",
        "replica reads again after, s",
    ],
    "healthcheck_delay": [
        "healthcheck_delay, ms",
        "failed when the replica stops, few requests",
        "failed or slow when packets to it vanish",
        "slowest, s",
    ],
    "tcp_user_timeout": [
        "tcp_user_timeout, ms",
        "failed when packets to the replica vanish",
        "slowest, s",
    ],
    "statement_timeout": [
        "statement_timeout of the reader pool, ms (0: none)",
        "slowest check, replica mute for 30 s, s",
        "the same with the primary",
    ],
    "healthcheck_delay, cost": [
        "healthcheck_delay, ms",
        "throughput, % of that with 1,000 ms in the same round",
        "the same, servers 1 ms away",
    ],
}


def reader_pool(folder: Path, milliseconds: int) -> list[float]:
    settings = {(GENERAL, "ban_time"): 6, (READER, "connect_timeout"): milliseconds}
    with site(folder, settings=settings) as here:
        start = started_without_replica(here)
        gone = replica_gone_for_bans(here)
    return [len(gone.slow), gone.slowest_seconds, start.seen["permifys_start_seconds"]]


def writer_timeout(folder: Path, runs: int) -> str:
    """The connect_timeout of the writer pool: writes that begin while the primary is away."""
    jobs = [(value, run) for value in (1000, 2000, 5000, 10000) for run in range(runs)]
    results = side_by_side(jobs, lambda job: writer_pool(folder / named(job), job[0]))
    rows: dict[int, list[list[float]]] = {}
    for (value, _), row in results:
        rows.setdefault(value, []).append(row)
    head = ["connect_timeout of the writer pool, ms"]
    head += [f"% of the writes failed, primary away {seconds:g} s" for seconds in AWAY_SECONDS]
    head += ["slowest, s"]
    lines = [[f"{value:,}", *map(shown, zip(*several, strict=True))] for value, several in rows.items()]
    return f"Runs: {runs}; {len(results)} of {len(jobs)} deployments ended well.\n\n{table(head, lines)}"


AWAY_SECONDS = (1.0, 4.0)


def writer_pool(folder: Path, milliseconds: int) -> list[float]:
    """Of the writes that waited; those under way when the primary went have failed before it was gone."""
    shares, slowest = [], 0.0
    with started(folder, settings={(GENERAL, "connect_timeout"): milliseconds}) as here:
        for seconds in AWAY_SECONDS:
            away = primary_restarted(here, signal.SIGINT, seconds, checkers=1, writers=12, pause_seconds=0.1)
            gone = float(away.seen["gone"])
            writes = [
                one
                for one in away.requests
                if one.kind == "write" and one.began < away.mended and one.began + one.seconds > gone
            ]
            shares.append(100 * sum(bool(one.error) for one in writes) / len(writes))
            slowest = max(slowest, away.slowest_seconds)
    return [*shares, slowest]


def ban_time(folder: Path, seconds: int) -> list[float]:
    with started(folder, settings={(GENERAL, "ban_time"): seconds}) as here:
        gone = replica_gone_for_bans(here, 70 / seconds)
        back = time.monotonic()
        with here.load():
            here.wait_for_use(here.cluster.replica, seconds + 30)
        again = time.monotonic()
    return [len(gone.slow), again - back]


def healthcheck_delay(folder: Path, milliseconds: int) -> list[float]:
    settings = {(GENERAL, "healthcheck_delay"): milliseconds, (GENERAL, "ban_time"): 6}

    def work() -> tuple[Outcome, Outcome]:
        with started(folder, settings=settings) as here:
            stopped = replica_stopped(here, signal.SIGINT, checkers=8, pause_seconds=2.0)
            return stopped, server_vanished(here, here.cluster.replica, 15)

    stopped, vanished = in_own_network(work)
    return [len(stopped.failed), len({*vanished.failed, *vanished.slow}), vanished.slowest_seconds]


def tcp_user_timeout(folder: Path, milliseconds: int) -> list[float]:
    settings = {(GENERAL, "tcp_user_timeout"): milliseconds, (GENERAL, "ban_time"): 6}

    def vanish() -> Outcome:
        with started(folder, settings=settings) as here:
            return server_vanished(here, here.cluster.replica, 15)

    vanished = in_own_network(vanish)
    return [len(vanished.failed), vanished.slowest_seconds]


def statement_timeout(folder: Path, milliseconds: int) -> list[float]:
    settings = {(f"{READER}.users.0", "statement_timeout"): milliseconds}
    with site(folder, settings=settings) as here, toxiproxy(here.stack.folder) as proxy:
        here.stack.by.update({server.role: proxy.add(server) for server in here.stack.servers})
        here.prepare()
        here.start()
        slowest = []
        for server in (here.cluster.replica, here.cluster.primary):
            outcome = server_mute(here, proxy, server, 30)
            slowest.append(max(request.seconds for request in outcome.requests if request.kind == "check"))
    return slowest


STATEMENT_SECONDS = 0.2
QUEUES_SECONDS = (0.4, 1.0, 2.0, 4.0)


def overload(folder: Path, milliseconds: int) -> list[float]:
    """Clients that keep the reader pool of one PgCat full of slow statements, each of them all the time."""
    with site(folder, settings={(READER, "connect_timeout"): milliseconds}) as here:
        here.prepare()
        pgcat = here.start_pgcat()
        size = here.stack.pgcat_config["pools"]["permify_reader"]["users"]["0"]["pool_size"]
        servers = size * len(here.stack.readers)
        row = [
            refused_share(here, pgcat.port, round(servers * (1 + queue / STATEMENT_SECONDS)), 2 * queue + 4)
            for queue in QUEUES_SECONDS
        ]
        return [*row, here.pgcat_log().count("Banning instance")]


def refused_share(here: Site, port: int, clients: int, seconds: float) -> float:
    """Percent of the statements that got no server connection."""
    answers: list[bool] = []
    all_connected = threading.Barrier(clients)

    def client() -> None:
        with here.stack.connect(port, "permify_reader") as connection:
            all_connected.wait(30)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                try:
                    connection.execute("SELECT pg_sleep(%s)", [STATEMENT_SECONDS])
                    answers.append(True)
                except psycopg.Error as error:
                    assert "could not get connection" in str(error), error
                    answers.append(False)

    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    return 100 * answers.count(False) / len(answers)


def healthcheck_costs(folder: Path, rounds: int) -> dict[int, list[list[float]]]:
    """Throughput of one PgCat each, against that with the rendered delay in the same round.

    With the servers beside it and 1 ms away; every other round goes through the delays backwards.
    """
    delays = list(SWEEPS["healthcheck_delay"][0])
    script = folder / "select.sql"
    rates: dict[tuple[int, bool], list[float]] = {}
    with site(folder / "site") as here, toxiproxy(here.stack.folder) as proxy:
        script.write_text("SELECT 1;\n")
        far = {server.role: proxy.add(server) for server in here.stack.servers}
        for server in here.stack.servers:
            proxy.delay(server, 1)
        here.prepare()
        rendered = int(here.stack.pgcat_config[GENERAL]["healthcheck_delay"])
        toml = here.stack.rendered / "pgcat" / "pgcat.toml"
        ports = {}
        for delay in delays:
            toml.write_text(with_settings(toml.read_text(), {(GENERAL, "healthcheck_delay"): delay}))
            for here.stack.by in ({}, far):
                ports[delay, bool(here.stack.by)] = here.start_pgcat().port
        for round_number in range(rounds):
            for away in (False, True):
                for delay in delays if round_number % 2 == 0 else reversed(delays):
                    rates.setdefault((delay, away), []).append(rate(here, ports[delay, away], script))
    print(
        f"transactions/s with {rendered} ms: "
        + ", ".join(f"{statistics.median(rates[rendered, away]):,.0f}" for away in (False, True)),
        file=sys.stderr,
    )

    def shares(delay: int, away: bool) -> list[float]:
        pairs = zip(rates[delay, away], rates[rendered, away], strict=True)
        return [100 * here / there for here, there in pairs]

    return {
        delay: [list(row) for row in zip(shares(delay, False), shares(delay, True), strict=True)]
        for delay in delays
        if delay != rendered
    }


def rate(here: Site, port: int, script: Path) -> float:
    """Transactions a second of eight clients, by pgbench."""
    command = [postgres_program("pgbench"), "-n", "-c", "8", "-j", "1", "-T", "2", "-f", str(script)]
    command += ["-h", LOOPBACK, "-p", str(port), "-U", here.stack.user, "permify_reader"]
    output = run(command, clean_environment(PGPASSWORD=here.stack.password))
    found = re.search(r"tps = ([\d.]+)", output)
    assert found, output
    return float(found[1])


SWEEPS: dict[str, tuple[Sequence[int], Callable[[Path, int], list[float]]]] = {
    "ban_time": ((10, 30, 60), ban_time),
    "reader": ((1000, 2000, 5000), reader_pool),
    OVERLOAD: ((1000, 2000, 5000), overload),
    "healthcheck_delay": ((0, 1000, 30000), healthcheck_delay),
    "statement_timeout": ((0, 5000, 10000, 20000), statement_timeout),
    "tcp_user_timeout": ((3000, 5000, 10000), tcp_user_timeout),
}
"""By its name, the values of a timeout and the columns for one of them; the longest comes first."""
