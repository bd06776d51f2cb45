"""Every topology, rendered, runs: real PostgreSQL, PgCat and Permify, started from the rendered files.

The tests of a scenario share its processes, in the order of their lives: the last two end Permify and PgCat.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live.repeats import repeats
from live.stack import CHECKS, EXTERNAL, IPV6, MARK, PASSWORD, Stack, pgcat_program
from live.support import LOOPBACK6, Cluster, NotReady, free_port, get, listens, readdressed
from pgcat_stack.budget import Row, plan
from rendering import render

KUBERNETES = {"topology": "standalone", **EXTERNAL}
NO_REPLICA = {"replica_hosts": ""}
SIDECAR = {"topology": "sidecar", **EXTERNAL}
# Long enough for every connection to be opened that will be, short enough for all of this.
SECONDS_OF_LOAD = 1.0


@dataclass(frozen=True)
class Scenario:
    answers: dict[str, Any]
    pgcat: str = "pgcat"


REPEATED = {
    "docker, direct",
    "standalone, no replica",
    "docker, no replica",
    "docker, IPv6",
    "sidecar, IPv6",
    "sidecar, session, no replica",
    "sidecar, no monitoring, primary reads off",
    "standalone, direct",
}


def scenarios() -> Iterator[Any]:
    every_version = {
        "docker": {},
        "standalone": KUBERNETES,
        "standalone, session": {**KUBERNETES, "pool_mode": "session"},
        "sidecar": SIDECAR,
    }
    for version in ("pgcat", "pgcat-1.3.0"):
        yield pytest.param(
            Scenario({"topology": "standalone", **IPV6}, version),
            id=f"standalone, IPv6, {version}",
            marks=[repeats] if version == "pgcat" else [],
        )
    for name, answers in every_version.items():
        for version in ("pgcat", "pgcat-1.3.0"):
            repeated = (version == "pgcat-1.3.0") == (name in ("docker", "standalone, session"))
            marks = [repeats] if repeated else []
            yield pytest.param(Scenario(answers, version), id=f"{name}, {version}", marks=marks)
    once: dict[str, dict[str, Any]] = {
        "docker, external, session, three Permify, other names": {
            **EXTERNAL,
            "database": "external",
            "database_name": "authorization-data",
            "database_user": "authz_app",
            "database_tls": "disable",
            "permify_replicas": 3,
            "pool_mode": "session",
        },
        "docker, no replica": {**EXTERNAL, **NO_REPLICA, "database": "external", "permify_replicas": 2},
        "standalone, no replica": {**KUBERNETES, **NO_REPLICA},
        "standalone, primary reads off": {**KUBERNETES, "primary_reads": False},
        "sidecar, session, no replica": {**SIDECAR, **NO_REPLICA, "pool_mode": "session"},
        "sidecar, no monitoring, primary reads off": {
            **SIDECAR,
            "primary_reads": False,
            "monitoring": "none",
        },
        "docker, direct": {"pooling": "direct", "permify_replicas": 2},
        "standalone, direct": {**KUBERNETES, "pooling": "direct"},
        "docker, IPv6": {"database": "external", **IPV6},
        "sidecar, IPv6": {"topology": "sidecar", **IPV6},
        "standalone, direct, IPv6": {"topology": "standalone", "pooling": "direct", **IPV6},
        "standalone, direct, no replica": {**KUBERNETES, **NO_REPLICA, "pooling": "direct"},
    }
    for name, answers in once.items():
        marks = [repeats] if name in REPEATED else []
        yield pytest.param(Scenario(answers), id=name, marks=marks)


@pytest.fixture(scope="module", params=scenarios())
def stack(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    scenario: Scenario = request.param
    folder = tmp_path_factory.mktemp("stack")
    binary = None if scenario.answers.get("pooling") == "direct" else pgcat_program(scenario.pgcat)
    with Stack(cluster, scenario.answers, binary, folder / "deployment", folder / "live").up() as stack:
        yield stack


@dataclass
class Seen:
    """What happened while one Permify wrote and then all of them answered checks."""

    answers: dict[Any, set[bool]]
    writes: dict[str, str]
    """Each server's log meanwhile."""
    reads: dict[str, str]


@pytest.fixture(scope="module")
def seen(stack: Stack) -> Seen:
    servers = stack.cluster.servers
    before = {server.role: server.log_size() for server in servers}
    stack.permifys[0].write(stack.cluster)
    between = {server.role: server.log_size() for server in servers}
    writes = {server.role: server.log_since(before[server.role]) for server in servers}
    answers = stack.load(SECONDS_OF_LOAD)
    reads = {server.role: server.log_since(between[server.role]) for server in servers}
    return Seen(answers, writes, reads)


def statements(log: str, verb: str, table: str) -> int:
    """How many statements with this verb on this table a server was sent."""
    return len(
        re.findall(rf"LOG:  (?:execute [^:]*|statement): {verb}\b[^;]*?\b{table}\b", log, re.IGNORECASE)
    )


def budget(stack: Stack) -> dict[str, Row]:
    return {row.server.role: row for row in plan(stack.deployment).rows}


def test_every_check_is_answered_right(seen: Seen) -> None:
    assert seen.answers == {check: {check.allowed} for check in CHECKS}


def test_writes_reach_the_primary_alone(seen: Seen) -> None:
    assert statements(seen.writes["primary"], "INSERT", "relation_tuples") > 0
    assert statements(seen.writes["replica"], "INSERT", "relation_tuples") == 0


def test_reads_reach_the_servers_of_the_reader_pool_alone(stack: Stack, seen: Seen) -> None:
    reached = {role for role, log in seen.reads.items() if statements(log, "SELECT", "relation_tuples")}
    if stack.session:  # where a process stays with the server that its first connection met
        assert reached
        assert reached <= stack.readers
    else:
        assert reached == stack.readers


def test_no_server_reports_an_error(stack: Stack, seen: Seen) -> None:
    logs = "".join([*seen.writes.values(), *seen.reads.values()])
    assert re.findall(r"^.*(?:ERROR|FATAL|PANIC):.*\n.*$", logs, re.MULTILINE) == []


def test_server_connections_stay_inside_the_plan(stack: Stack, seen: Seen) -> None:
    assert plan(stack.deployment).holds
    assert stack.load_peaks is not None
    planned = stack.planned(len(stack.pgcats), len(stack.permifys))
    for server in stack.servers:
        assert 1 <= stack.load_peaks[server] <= planned[server.role], server.role


def test_migration_stays_inside_the_plan(stack: Stack) -> None:
    assert stack.migration_peaks is not None
    assert 1 <= stack.migration_peaks[stack.cluster.primary] <= budget(stack)["primary"].migration
    assert stack.migration_peaks[stack.cluster.replica] == 0


def test_session_mode_pins_a_connection_for_each_of_permify(stack: Stack, seen: Seen) -> None:
    if not stack.session:
        pytest.skip("transaction mode")
    pinned = sum(
        server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", stack.user)[0][0]
        for server in stack.servers
    )
    assert pinned >= 2 * len(stack.permifys)


def test_role_is_limited_to_the_capacity(stack: Stack) -> None:
    row = budget(stack)["primary"]
    for server in stack.servers:
        role = server.sql("SELECT rolconnlimit, rolsuper FROM pg_roles WHERE rolname = %s", stack.user)
        assert role == [(row.server.capacity, False)]


def test_servers_plan_every_statement_by_its_values(stack: Stack, seen: Seen) -> None:
    """As auto_explain saw it in the connections that Permify's own statements came through."""
    plans = re.findall(
        rf"^{stack.user}@\S+ LOG:  duration: .* plan:\n(.*(?:\n\t.*)*)",
        "".join(seen.reads.values()),
        re.MULTILINE,
    )
    settings = [plan for plan in plans if "relation_tuples" in plan]
    assert settings
    assert all("plan_cache_mode = 'force_custom_plan'" in plan for plan in settings)


def test_connections_are_encrypted_where_answered(stack: Stack, seen: Seen) -> None:
    """External servers are reached by TLS unless the answer is no, the bundled ones without."""
    encrypted = stack.external and stack.answers.get("database_tls") != "disable"
    connections = [
        row
        for server in stack.servers
        for row in server.sql(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s", stack.user
        )
    ]
    assert connections
    assert set(connections) == {(encrypted,)}


def test_servers_of_ipv6_are_reached_by_it(stack: Stack, seen: Seen) -> None:
    if not stack.ipv6:
        pytest.skip("servers of IPv4")
    statement = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE usename = %s"
    for server in stack.servers:
        assert server.sql(statement, stack.user) == [(LOOPBACK6,)]


def test_pgcat_takes_clients_of_both_families_where_answered(stack: Stack, seen: Seen) -> None:
    if stack.direct:
        pytest.skip("no PgCat")
    both = stack.answers.get("ip_family") == "ipv6"
    for pgcat in stack.pgcats:
        for port in (pgcat.port, pgcat.exporter):
            assert (listens(port), listens(port, LOOPBACK6)) == (True, both)


def test_exporter_tells_of_both_pools(stack: Stack, seen: Seen) -> None:
    if stack.direct:
        pytest.skip("no PgCat")
    for pgcat in stack.pgcats:
        metrics = get(pgcat.exporter, "/metrics")
        for pool in ("permify_writer", "permify_reader"):
            assert re.search(
                rf'^pgcat_pools_sv_idle{{[^}}]*pool="{pool}"[^}}]*}} \d', metrics, re.MULTILINE
            ), metrics


def test_no_log_holds_a_password(stack: Stack, seen: Seen) -> None:
    logs = {**stack.logs(), Path("PostgreSQL"): stack.cluster.primary.log_since(stack.log_begins)}
    passwords = [
        MARK if file.read_text() == PASSWORD else file.read_text().strip() for file in stack.secrets.iterdir()
    ]
    assert len(logs) > len(stack.permifys) and passwords
    found = [
        (path, line)
        for path, log in logs.items()
        for line in log.splitlines()
        if any(map(line.count, passwords))
    ]
    assert found == []


def test_permify_stops_by_sigterm(stack: Stack, seen: Seen) -> None:
    """In a sidecar's pod it goes first; elsewhere one goes while the others stay."""
    for permify in stack.permifys if stack.sidecar or stack.direct else stack.permifys[:1]:
        code, seconds = permify.process.stop(signal.SIGTERM)
        assert code == 0
        assert seconds < 10


def test_sigint_drains(stack: Stack, seen: Seen) -> None:
    """A statement under way is answered, and PgCat ends by itself within its shutdown_timeout."""
    if stack.direct:
        pytest.skip("no PgCat")
    with ThreadPoolExecutor() as pool:
        clients = [stack.connect(pgcat.port, "permify_writer") for pgcat in stack.pgcats]
        answers = [pool.submit(slow_statement, client) for client in clients]
        time.sleep(0.5)
        drained = [
            pool.submit(pgcat.process.stop, within=stack.shutdown_seconds + 5) for pgcat in stack.pgcats
        ]
        assert [answer.result() for answer in answers] == ["answered"] * len(stack.pgcats)
        for code, seconds in [future.result() for future in drained]:
            assert code == 0
            # Clients in session mode are waited for, to the end of the time.
            pinned = stack.session and not stack.sidecar
            assert seconds <= stack.shutdown_seconds + (2 if pinned else -2)


def slow_statement(client: psycopg.Connection[Any]) -> Any:
    with client:
        row = client.execute("SELECT 'answered' FROM pg_sleep(1.5)").fetchone()
    return row and row[0]


@pytest.fixture
def bare(cluster: Cluster, tmp_path: Path) -> Iterator[Stack]:
    """A deployment of which nothing runs yet, with 60 connections for itself."""
    answers = {**KUBERNETES, "other_connections": 40}
    stack = Stack(cluster, answers, pgcat_program("pgcat"), tmp_path / "deployment", tmp_path / "live")
    cluster.clear(stack.database, stack.user)
    stack.bootstrap()
    cluster.catch_up()
    yield stack


def test_role_limit_binds_on_each_server(bare: Stack) -> None:
    """The last guard: a deployment beyond its budget takes nothing from others."""
    for server in bare.servers:
        with ExitStack() as connections:
            for _ in range(60):
                connections.enter_context(bare.connect(server.port, bare.database))
            with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
                bare.connect(server.port, bare.database)
            assert server.sql("SELECT 1") == [(1,)]


def test_a_uri_that_names_the_database_finds_no_pool(bare: Stack) -> None:
    """The mistake of Permify's guide: PgCat picks the pool by the database that a client names."""
    bare.migrate()
    wrong = (bare.rendered / "permify" / "permify.yaml").read_text()
    wrong = wrong.replace("/permify_writer?", "/permify?").replace("/permify_reader?", "/permify?")
    with bare.pgcat() as pgcat:
        with pytest.raises(psycopg.OperationalError, match='No pool configured for database: "permify"'):
            bare.connect(pgcat.port, "permify")
        with pytest.raises(NotReady), bare.permify(0, pgcat.port, wrong, seconds=2):
            pass
        assert "Invalid pool name" in pgcat.process.log.read_text()
        with bare.permify(1, pgcat.port) as permify:
            permify.write(bare.cluster)


def test_permify_takes_several_hosts_of_ipv6_in_one_uri(cluster: Cluster, tmp_path: Path) -> None:
    """As with several replicas: where the first does not answer, the next one is asked."""
    answers = {"topology": "standalone", "pooling": "direct", **IPV6}
    replicas = {"replica_hosts": "fd00::12,[fd00::11]:5433"}
    stack = Stack(cluster, answers, None, tmp_path / "deployment", tmp_path / "live")
    two = render(tmp_path / "two", answers, **replicas)
    text = (two / "permify/permify.yaml").read_text()
    text = readdressed(text, dict([stack.moved["primary"]]))
    there = "@/permify?host=fd00::12,fd00::11&port=5432,5433&"
    here = f"@/permify?host={LOOPBACK6},{LOOPBACK6}&port={free_port()},{cluster.replica.port}&"
    assert there in text
    text = text.replace(there, here)
    stack.prepare()
    with stack.permify(0, None, text) as permify:
        permify.write(cluster)
        assert permify.check(CHECKS[0]) == CHECKS[0].allowed


def test_in_session_mode_the_timeout_of_an_idle_transaction_is_one_between_transactions(
    cluster: Cluster, tmp_path: Path
) -> None:
    """So it is rendered above Permify's idle time: a client that idles for as long loses its server."""
    stack = Stack(
        cluster,
        {"topology": "sidecar", **EXTERNAL, "pool_mode": "session"},
        pgcat_program("pgcat"),
        tmp_path / "deployment",
        tmp_path / "live",
    )
    file = stack.rendered / "pgcat/pgcat.toml"
    text, count = re.subn(r"(idle_client_in_transaction_timeout =) 300000", r"\1 1000", file.read_text())
    assert count == 1
    file.write_text(text)
    stack.prepare()
    with stack.pgcat() as pgcat, stack.connect(pgcat.port, "permify_writer") as client:
        client.execute("SELECT 1")
        time.sleep(0.5)
        client.execute("SELECT 1")
        time.sleep(1.5)
        with pytest.raises(psycopg.Error, match="idle transaction timeout"):
            client.execute("SELECT 1")
