"""Many pods on few connections, and what happens to a deployment beyond its budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live.load import Load
from live.pods import run_pods
from live.repeats import LATEST, repeats
from live.stack import CHECKS, EXTERNAL, Stack, pgcat_program
from live.support import LOOPBACK, Cluster, NotReady, Peaks, Server
from pgcat_stack.budget import plan
from pgcat_stack.reading.capacities import BudgetServer
from rendering import Refused, render

STANDALONE = {"topology": "standalone", **EXTERNAL}


def deploy(cluster: Cluster, folder: Path, version: str = "pgcat", **answers: Any) -> Stack:
    """A standalone deployment with its database; nothing of it runs."""
    stack = Stack(cluster, {**STANDALONE, **answers}, pgcat_program(version), folder / "dep", folder / "live")
    stack.prepare()
    return stack


@pytest.fixture(params=["pgcat", LATEST])
def default(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Stack]:
    """The default standalone deployment, with its two PgCat and no Permify."""
    stack = deploy(cluster, tmp_path, request.param)
    with ExitStack() as running:
        stack.pgcats = [running.enter_context(stack.pgcat(number)) for number in range(stack.pgcat_count)]
        yield stack


@repeats
def test_two_dozen_permify_share_the_default_pools(default: Stack) -> None:
    most = default.planned(pgcats=2, permifys=0)
    assert max(most.values()) < 2 * 24  # what they would take without PgCat, idle
    with ExitStack() as running:
        for number in range(24):
            port = default.pgcats[number % 2].port
            default.permifys.append(running.enter_context(default.permify(number, port)))
        default.permifys[0].write(default.cluster)
        ports = [permify.port for permify in default.permifys]
        with Peaks(default.cluster, default.user) as peaks, Load(ports, 24, 8, 0.02) as load:
            time.sleep(4)

    assert len(load.requests()) > 24 * 10
    assert list(load.errors()) == []
    for server in default.servers:
        assert 1 <= peaks[server] <= most[server.role], server.role


def test_a_thousand_pods_share_the_default_pools(default: Stack) -> None:
    ports = [pgcat.port for pgcat in default.pgcats]
    most = default.planned(pgcats=2, permifys=0)
    with Peaks(default.cluster, default.user) as peaks:
        outcome = run_pods(ports, 1000, 6, default.user, default.password, pause_seconds=2.0)

    assert outcome.opened == 2000
    assert outcome.failed == []
    assert outcome.queries > 1000
    for server in default.servers:
        assert 1 <= peaks[server] <= most[server.role], server.role


SESSION = {"pool_mode": "session", "writer_pool_size": 5, "reader_pool_size": 5}


def test_session_mode_takes_the_pods_of_its_gate_and_no_more(cluster: Cluster, tmp_path: Path) -> None:
    """Three replicas, a surge and a draining pod may all meet at one PgCat, whose sixth would starve."""
    with pytest.raises(Refused, match="permify_replicas"):
        render(tmp_path / "refused", {**STANDALONE, **SESSION, "permify_replicas": 4})
    stack = deploy(cluster, tmp_path, **SESSION, permify_replicas=3)
    # Or a connection at the end of its life would be the sixth's.
    stack.environment["PERMIFY_DATABASE_MAX_CONNECTION_LIFETIME"] = "3600s"
    with ExitStack() as running:
        pgcat = running.enter_context(stack.pgcat())
        permifys = [running.enter_context(stack.permify(number, pgcat.port)) for number in range(5)]
        permifys[0].write(cluster)
        with Load([permify.port for permify in permifys], 10, 5, 0.02) as load:
            time.sleep(2)
            with pytest.raises(NotReady), stack.permify(5, pgcat.port, seconds=12):
                pass
        assert "Connection checkout error" in pgcat.process.log.read_text()

        assert len(load.requests()) > 100
        assert list(load.errors()) == []
        permifys[4].process.stop(signal.SIGTERM)
        with stack.permify(6, pgcat.port) as sixth:
            assert sixth.check(CHECKS[0]) == CHECKS[0].allowed


def test_a_deployment_beyond_its_budget_takes_nothing_from_others(cluster: Cluster, tmp_path: Path) -> None:
    """Scaled by hand to twice the instances of its plan, it meets the role's CONNECTION LIMIT."""
    stack = deploy(cluster, tmp_path)
    primary = cluster.primary
    rows = plan(stack.deployment).rows
    (instances,) = {use.instances.count for row in rows for use in row.uses}
    primary.sql("DROP ROLE IF EXISTS other")
    primary.sql("CREATE ROLE other LOGIN PASSWORD 'other'")
    with ExitStack() as running, Peaks(cluster, stack.user) as peaks:
        stack.pgcats = [running.enter_context(stack.pgcat(number)) for number in range(2 * instances)]
        clients = [
            (pgcat.port, use.pool)
            for pgcat in stack.pgcats
            for row in rows
            for use in row.uses
            for _ in range(use.size.value)
        ]
        with ThreadPoolExecutor(len(clients)) as threads:
            answers = [threads.submit(hold, stack, *client) for client in clients]
            wait_until_full(primary, stack.user, rows[0].server.capacity)

            for _ in range(free_for_others(rows[0].server, primary, stack.user)):
                running.enter_context(connect_as_other(primary))
            assert primary.sql("SELECT 'an administrator gets in'") == [("an administrator gets in",)]
            served = [answer.result() for answer in answers]

    assert served.count("") > 0
    assert any(served), "all were served: the deployment was not beyond its budget"
    assert peaks[primary] == rows[0].server.capacity
    assert peaks[cluster.replica] <= rows[0].server.capacity


def connect_as_other(server: Server) -> psycopg.Connection[Any]:
    """Within some seconds: a login that the limit refuses takes a slot until PostgreSQL has refused it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(
                host=LOOPBACK, port=server.port, dbname="postgres", user="other", password="other"
            )
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_for_others(budget: BudgetServer, server: Server, user: str) -> int:
    """What `other_connections` leaves, apart from PostgreSQL's own reserve and the sessions of the test."""
    assert budget.other_connections
    ((reserved,),) = server.sql("SELECT current_setting('superuser_reserved_connections')::int")
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> %s"
    ((taken,),) = server.sql(others, user)
    return budget.other_connections - int(reserved) - int(taken)


def hold(stack: Stack, port: int, pool: str) -> str:
    """Keep a server connection for a while; returns the error, if there was one."""
    try:
        with stack.connect(port, pool) as connection:
            connection.execute("SELECT pg_sleep(3)")
    except psycopg.Error as error:
        return str(error)
    return ""


def wait_until_full(server: Server, user: str, count: int | None) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    server.process.wait_until(lambda: server.sql(statement, user) == [(count,)])
