"""Faults that are planted in a living stack for the doctor to find, each with the codes that name it.

A fault is a context: inside it something is wrong, afterwards all is as before.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from live.network import toxiproxy
from live.patient import Patient
from live.stack import Stack
from live.support import LOOPBACK, free_port, running, with_port
from pgcat_stack.doctor import pgcat as pgcat_module
from pgcat_stack.doctor.checks import postgresql as postgresql_checks

Plant = Callable[[Patient], contextlib.AbstractContextManager[list[str] | None]]
"""Plants a fault, and yields what `--reach` says where that is not the whole stack."""


@dataclass(frozen=True)
class Fault:
    name: str
    plant: Plant
    codes: tuple[str, ...]
    """Those that it is found by; the first names the cause."""
    words: tuple[str, ...]
    """In the message and the remedy of the first."""
    alone: bool
    """It keeps the doctor from looking, so that no other can be found beside it."""
    last: bool
    """Nothing can be planted after it."""
    touches: frozenset[str]
    """What it changes; of two with the same only one can be planted."""
    reaches: bool
    """It puts something else in the place of parts of the stack."""

    def fits(self, other: Fault) -> bool:
        """Whether both can be planted at once, and looked at."""
        return not (
            self.name == other.name
            or (self.alone or other.alone)
            or (self.last and other.last)
            or (self.reaches and other.reaches)
            or self.touches & other.touches
        )

    @property
    def turn(self) -> int:
        """Which of two is planted first."""
        return 0 if self.reaches else 2 if self.last else 1


FAULTS: list[Fault] = []
_numbers = itertools.count(7)
"""Of more Permify processes, whose folders have them in their names."""


def fault(
    codes: str, *words: str, alone: bool = False, last: bool = False, touches: str = ""
) -> Callable[[Callable[[Patient], Iterator[list[str] | None]]], Plant]:
    """Register a fault by the codes that it is to be found by, the cause first."""

    def register(plant: Callable[[Patient], Iterator[list[str] | None]]) -> Plant:
        planted = contextlib.contextmanager(plant)
        reaches = "list" in str(plant.__annotations__["return"])
        changes = frozenset(touches.split()) | ({"pgcat"} if reaches else set())
        found = Fault(plant.__name__, planted, tuple(codes.split()), words, alone, last, changes, reaches)
        FAULTS.append(found)
        return planted

    return register


def sql(patient: Patient, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    rows = patient.stack.cluster.primary.sql(statement, *values)
    patient.stack.cluster.catch_up()
    return rows


def port_of(reach: str) -> int:
    return int(reach.rpartition(":")[2])


def hold(patient: Patient, port: int, held: contextlib.ExitStack) -> None:
    """All server connections of the writer pool."""
    for _ in range(9):
        connection = held.enter_context(patient.stack.connect(port, "permify_writer"))
        held.enter_context(connection.transaction())
        connection.execute("SELECT 1")


def admin(stack: Stack, port: int, statement: str) -> None:
    with psycopg.connect(
        host=LOOPBACK,
        port=port,
        user="pgcat_admin",
        password=(stack.secrets / "pgcat_admin_password").read_text().strip(),
        dbname="pgcat",
        autocommit=True,
        prepare_threshold=None,
    ) as connection:
        connection.execute(statement.encode())


@contextlib.contextmanager
def another_pgcat(
    patient: Patient, *changes: tuple[str, str], open_files: tuple[int, int] | None = None
) -> Iterator[list[str]]:
    """A PgCat from the patient's file with something else in it, instead of the stack's; what is reached."""
    stack = patient.stack
    folder = patient.root.parent
    port, exporter = free_port(), free_port()
    text = (patient.root / "pgcat/pgcat.toml").read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    text = with_port(
        with_port(text, "port = {}", 6432, port), "prometheus_exporter_port = {}", 9930, exporter
    )
    password = json.dumps(stack.password, ensure_ascii=False)
    text = text.replace('"${database_password}"', password)
    text = text.replace(
        "${pgcat_admin_password}", (stack.secrets / "pgcat_admin_password").read_text().strip()
    )
    (folder / "pgcat.toml").write_text(text)
    command = [str(stack.folder / "bin" / "pgcat"), str(folder / "pgcat.toml")]
    with running(command, folder / "another-pgcat.log", dict(os.environ), open_files) as process:
        with socket.socket() as probe:
            process.wait_until(lambda: probe.connect_ex((LOOPBACK, port)) == 0)
        others = [reach for reach in patient.reaches if not reach.startswith("pgcat")]
        yield [f"pgcat={LOOPBACK}:{port}", f"pgcat:9930={LOOPBACK}:{exporter}", *others]


def pid_of(port: int) -> int:
    """The process that listens at a port of loopback, which is one of ours."""
    (line,) = [
        line.split()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    ]
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(link.readlink()) == f"socket:[{line[9]}]":
                return int(link.parts[2])
    raise LookupError(port)


def address(patient: Patient, role: str) -> str:
    server = patient.stack.cluster.primary if role == "primary" else patient.stack.cluster.replica
    return f'["{LOOPBACK}", {server.port}, "{role}"]'


# PostgreSQL


@fault("PD201", "not permitted to log in", "bootstrap.sql", touches="login pgcat")
def a_role_that_may_not_log_in(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} NOLOGIN")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} LOGIN")


@fault("PD201 PD313", "password authentication failed", "DATABASE_PASSWORD", alone=True)
def a_wrong_password(patient: Patient) -> Iterator[None]:
    patient.environment["DATABASE_PASSWORD"] = "wrong"
    yield


@fault("PD203 PD207", "too many connections", "rolconnlimit", "bootstrap.sql", touches="limit login pgcat")
def a_role_at_its_limit(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} CONNECTION LIMIT 1")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} CONNECTION LIMIT 80")


@fault("PD204", "max_connections 100", "counts 200", "max_connections = 200", touches="budget")
def fewer_connections_than_the_budget(patient: Patient) -> Iterator[None]:
    for _ in range(2):
        patient.edit(
            "budget.yaml",
            "max_connections: 100\n    other_connections: 20",
            "max_connections: 200\n    other_connections: 120",
        )
    yield


@fault("PD205", "postgres_max_connections=100", touches="budget")
def more_connections_than_the_budget(patient: Patient) -> Iterator[None]:
    patient.edit(
        "budget.yaml",
        "max_connections: 100\n    other_connections: 20",
        "max_connections: 90\n    other_connections: 10",
    )
    yield


@fault("PD206", "of superusers", "keeps 20", "other_connections=", touches="budget")
def others_with_many_connections(patient: Patient) -> Iterator[None]:
    server = patient.stack.cluster.replica
    with contextlib.ExitStack() as connections:
        for _ in range(21):
            connections.enter_context(
                psycopg.connect(host=str(server.folder), port=server.port, user="postgres", dbname="postgres")
            )
        yield


@fault("PD207", "is none", "capacity is 80", "bootstrap.sql", touches="limit")
def a_role_without_limit(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} CONNECTION LIMIT -1")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} CONNECTION LIMIT 80")


@fault("PD208", "superuser", "NOSUPERUSER", touches="limit login")
def a_superuser(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} SUPERUSER")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} NOSUPERUSER")


@fault("PD209", "plan_cache_mode of the role is auto", "bootstrap.sql")
def a_role_without_plan_cache_mode(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} RESET plan_cache_mode")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} SET plan_cache_mode = 'force_custom_plan'")


@fault(
    "PD212 PD213 PD304",
    "read-only replica",
    "the primary is 127.0.0.1:",
    "swap",
    touches="budget pgcat replica read-only",
)
def a_failover_that_the_files_do_not_know(patient: Patient) -> Iterator[None]:
    patient.swap()
    yield


@fault("PD215", "does not stream", "primary_conninfo", last=True, touches="replica")
def a_replica_without_its_primary(patient: Patient) -> Iterator[None]:
    replica = patient.stack.cluster.replica
    ((conninfo,),) = replica.sql("SHOW primary_conninfo")
    replica.sql("ALTER SYSTEM SET primary_conninfo = ''")
    replica.sql("SELECT pg_reload_conf()")
    wait_until(lambda: replica.sql("SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)])
    yield
    replica.sql(f"ALTER SYSTEM SET primary_conninfo = {quoted(conninfo)}")
    replica.sql("SELECT pg_reload_conf()")
    wait_until(
        lambda: replica.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == [(1,)]
    )


@fault(
    "PD216", "behind the primary", "replay is paused", "pg_wal_replay_resume", last=True, touches="replica"
)
def a_replica_that_does_not_replay(patient: Patient) -> Iterator[None]:
    replica = patient.stack.cluster.replica
    replica.sql("SELECT pg_wal_replay_pause()")
    wait_until(lambda: replica.sql("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
    patient.stack.cluster.primary.sql("SELECT pg_logical_emit_message(true, 'test', 'late')")
    yield
    replica.sql("SELECT pg_wal_replay_resume()")


@fault("PD217", "track_commit_timestamp off", "restart")
def watch_without_commit_timestamps(patient: Patient) -> Iterator[None]:
    patient.edit("permify/permify.yaml", "watch:\n    enabled: false", "watch:\n    enabled: true")
    yield


@fault("PD218", "tables are not in permify", "kubectl -n permify", touches="tables")
def a_database_without_tables(patient: Patient) -> Iterator[None]:
    patient_sql(patient, "ALTER TABLE migrations RENAME TO hidden")
    yield
    patient_sql(patient, "ALTER TABLE hidden RENAME TO migrations")


@fault("PD219", "is not noted", "kubectl apply -k .", touches="tables")
def a_migration_that_is_not_noted(patient: Patient) -> Iterator[None]:
    ((name,),) = patient_sql(patient, "DELETE FROM pgcat_stack_migrations RETURNING migration")
    yield
    patient_sql(patient, f"INSERT INTO pgcat_stack_migrations VALUES ({quoted(name)})")


@fault("PD220", "idx_transactions_tenant_id", "REINDEX INDEX CONCURRENTLY")
def an_index_that_was_never_finished(patient: Patient) -> Iterator[None]:
    update = "UPDATE pg_index SET indisvalid = {} WHERE indexrelid = 'idx_transactions_tenant_id'::regclass"
    patient_sql(patient, update.format("false"))
    yield
    patient_sql(patient, update.format("true"))


@fault("PD221", "plan at most 40", "intruder from 127.0.0.1", "a role of its own", touches="limit login")
def somebody_else_with_the_role(patient: Patient) -> Iterator[None]:
    stack = patient.stack
    with contextlib.ExitStack() as connections:
        for _ in range(41):
            connection = stack.connect(stack.cluster.replica.port, stack.database)
            connections.enter_context(connection)
            connection.execute("SET application_name = 'intruder'")
        yield


@fault("PD222", "are not encrypted", "hostssl")
def connections_in_the_clear(patient: Patient) -> Iterator[list[str]]:
    in_the_clear = "server_tls = true", "server_tls = false"
    with (
        another_pgcat(patient, in_the_clear) as reaches,
        patient.stack.connect(port_of(reaches[0]), "permify_writer") as connection,
    ):
        connection.execute("SELECT 1")
        yield reaches


def reports(patient: Patient) -> None:
    """A role of another application, with its rights in Permify's database."""
    if not sql(patient, "SELECT 1 FROM pg_roles WHERE rolname = 'reports'"):
        sql(patient, "CREATE ROLE reports LOGIN PASSWORD 'reports'")
    patient_sql(patient, f'GRANT CONNECT ON DATABASE "{patient.stack.database}" TO reports')
    patient_sql(patient, "GRANT ALL ON relation_tuples TO reports")


def as_reports(patient: Patient, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=LOOPBACK,
        port=patient.stack.cluster.primary.port,
        user="reports",
        password="reports",
        dbname=database,
        application_name="nightly",
    )


@fault(
    "PD203",
    "reports (nightly)",
    "the budget keeps 20",
    "ALTER ROLE",
    last=True,
    touches="login budget reports",
)
def another_application_that_takes_all_connections(patient: Patient) -> Iterator[None]:
    reports(patient)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.enter_context(as_reports(patient, "postgres"))
        yield
    wait_until(lambda: sql(patient, "SELECT 1 FROM pg_stat_activity WHERE usename = 'reports'") == [])


@fault("PD223", "of reports, nightly", "pg_terminate_backend", "wait", touches="reports relation_tuples")
def a_lock_of_another_role(patient: Patient) -> Iterator[None]:
    """The replica replays it, so reads wait on both servers."""
    reports(patient)
    with as_reports(patient, patient.stack.database) as holder, contextlib.ExitStack() as done:
        holder.execute("LOCK TABLE relation_tuples IN ACCESS EXCLUSIVE MODE")
        patient.stack.cluster.catch_up()
        for server in patient.stack.servers:
            waiting = done.enter_context(patient.stack.connect(server.port, patient.stack.database))
            thread = threading.Thread(
                target=lambda c=waiting: c.execute("SELECT count(*) FROM relation_tuples")
            )
            done.callback(thread.join)
            done.callback(holder.rollback)
            thread.start()
        time.sleep(1.5)
        yield


@fault(
    "PD224",
    "idle in transaction",
    "pg_terminate_backend",
    "SELECT count(*)",
    touches="transactions relation_tuples",
)
def a_transaction_that_nobody_ends(patient: Patient) -> Iterator[None]:
    usual, postgresql_checks.LONG_SECONDS = postgresql_checks.LONG_SECONDS, 1.0
    port = patient.stack.cluster.primary.port
    with patient.stack.connect(port, patient.stack.database) as connection, connection.transaction():
        connection.execute("SELECT count(*) FROM relation_tuples")
        time.sleep(1.2)
        yield
    postgresql_checks.LONG_SECONDS = usual


@fault(
    "PD232",
    "waits for a synchronous standby",
    "is 'gone'",
    "bring that standby back",
    last=True,
    touches="transactions relation_tuples read-only tables login limit",
)
def a_synchronous_standby_that_is_gone(patient: Patient) -> Iterator[None]:
    primary = patient.stack.cluster.primary
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    primary.sql("SELECT pg_reload_conf()")
    wait_until(lambda: primary.sql("SHOW synchronous_standby_names") == [("gone",)])

    def write() -> None:
        with patient.stack.connect(primary.port, patient.stack.database) as connection:
            connection.execute("INSERT INTO tenants (id, name) VALUES ('waits', 'waits')")
            connection.execute("DELETE FROM tenants WHERE id = 'waits'")

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(2.5)
    yield
    primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    primary.sql("SELECT pg_reload_conf()")
    writer.join()


READ_ONLY = "default_transaction_read_only"


@fault(
    "PD228",
    "is the primary and refuses writes",
    "ALTER SYSTEM or postgresql.conf",
    "ALTER SYSTEM RESET",
    last=True,
    touches="read-only",
)
def a_primary_that_only_reads(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER SYSTEM SET {READ_ONLY} = on")
    sql(patient, "SELECT pg_reload_conf()")
    yield
    sql(patient, f"ALTER SYSTEM RESET {READ_ONLY}")
    sql(patient, "SELECT pg_reload_conf()")
    wait_until(lambda: sql(patient, f"SHOW {READ_ONLY}") == [("off",)])


@fault("PD228", "set by ALTER DATABASE permify", "RESET", last=True, touches="read-only")
def a_database_that_only_reads(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER DATABASE permify SET {READ_ONLY} = on")
    yield
    sql(patient, f"ALTER DATABASE permify RESET {READ_ONLY}")


@fault("PD228", "set by ALTER ROLE permify IN DATABASE permify", "RESET", last=True, touches="read-only")
def a_role_that_only_reads(patient: Patient) -> Iterator[None]:
    user = patient.stack.user
    sql(patient, f"ALTER ROLE {user} SET {READ_ONLY} = off")
    sql(patient, f"ALTER ROLE {user} IN DATABASE permify SET {READ_ONLY} = on")
    yield
    sql(patient, f"ALTER ROLE {user} RESET {READ_ONLY}")
    sql(patient, f"ALTER ROLE {user} IN DATABASE permify RESET {READ_ONLY}")


@fault("PD230 PD229", "search_path = other", "do not find them", "RESET search_path", touches="tables")
def a_role_with_another_search_path(patient: Patient) -> Iterator[None]:
    sql(patient, f"ALTER ROLE {patient.stack.user} IN DATABASE permify SET search_path = other")
    sql(patient, "ALTER DATABASE permify SET statement_timeout = '2s'")
    yield
    sql(patient, f"ALTER ROLE {patient.stack.user} IN DATABASE permify RESET search_path")
    sql(patient, "ALTER DATABASE permify RESET statement_timeout")


# PgCat


@fault("PD305 PD403", "is paused in PgCat at", "RESUME", touches="pgcat")
def everything_paused(patient: Patient) -> Iterator[None]:
    for pgcat in patient.stack.pgcats:
        admin(patient.stack, pgcat.port, "PAUSE")
    yield
    for pgcat in patient.stack.pgcats:
        admin(patient.stack, pgcat.port, "RESUME")


@fault("PS410", "nowhere", "permify", touches="tables")
def a_database_that_does_not_exist(patient: Patient) -> Iterator[list[str]]:
    """In the reader pool, by the file that PgCat runs from; it explains why reads of tables fail."""
    text = (patient.root / "pgcat/pgcat.toml").read_text()
    head, mark, tail = text.partition("[pools.permify_reader.shards.0]")
    assert 'database = "permify"' in tail
    (patient.root / "pgcat/pgcat.toml").write_text(
        head + mark + tail.replace('database = "permify"', 'database = "nowhere"', 1)
    )
    patient.edit("kubernetes/pgcat-deployment.yaml", "replicas: 2", "replicas: 1")
    with another_pgcat(patient) as reaches:
        yield reaches


@fault("PD314", "its reads go to permify_writer", "PERMIFY_DATABASE_READER_URI", touches="login")
def reads_in_the_writer_pool(patient: Patient) -> Iterator[list[str]]:
    """Both URIs of Permify lead to one pool, by its environment."""
    stack = patient.stack
    patient.edit("kubernetes/pgcat-deployment.yaml", "replicas: 2", "replicas: 1")
    with another_pgcat(patient) as reaches:
        writer = f"postgresql://{stack.user}@{LOOPBACK}:{port_of(reaches[0])}/permify_writer"
        stack.more_environment["PERMIFY_DATABASE_READER_URI"] = (
            f"{writer}?sslmode=disable&default_query_exec_mode=cache_describe"
        )
        try:
            with stack.permify(next(_numbers), port_of(reaches[0])) as permify:
                others = [reach for reach in reaches if not reach.startswith("permify")]
                yield [*others, f"permify={LOOPBACK}:{permify.port}"]
        finally:
            del stack.more_environment["PERMIFY_DATABASE_READER_URI"]


@fault("PD316", "takes 1", "network between")
def a_slow_way_to_postgresql(patient: Patient) -> Iterator[list[str]]:
    """Between PgCat and its servers, not between here and them."""
    with toxiproxy(patient.root.parent) as proxy:
        there = {}
        for server in patient.stack.servers:
            _, there[server.port] = proxy.add(server)
            proxy.delay(server, 150)
        for name in ("pgcat/pgcat.toml", "budget.yaml", "kubernetes/migration-job.yaml"):
            file = patient.root / name
            text = file.read_text()
            for old, new in there.items():
                text = re.sub(rf"\b{old}\b", str(new), text)
            file.write_text(text)
        with another_pgcat(patient) as reaches:
            others = [reach for reach in reaches if not re.match(r"127", reach)]
            servers = [f"{LOOPBACK}:{new}={LOOPBACK}:{old}" for old, new in there.items()]
            yield [*others, *servers]


@fault("PD301", "pgcat_admin is refused by PgCat", "PGCAT_ADMIN_PASSWORD", alone=True)
def another_password_of_the_administrator(patient: Patient) -> Iterator[None]:
    del patient.environment["PGCAT_ADMIN_PASSWORD_FILE"]
    patient.environment["PGCAT_ADMIN_PASSWORD"] = "wrong"
    yield


@fault("PD302", "version 1.2", "of the line 1.3", "rollout restart deployment/pgcat")
def another_version_of_pgcat(patient: Patient) -> Iterator[None]:
    file = next((patient.root / "kubernetes").glob("pgcat-deployment.yaml"))
    text, count = re.subn(r"(image: \S+/pgcat):\S+", r"\1:main", file.read_text())
    assert count
    file.write_text(text)
    yield


@fault("PD303", "ban_time is", "file says 33", "rollout restart")
def a_setting_that_was_not_taken(patient: Patient) -> Iterator[None]:
    file = patient.root / "pgcat/pgcat.toml"
    text, count = re.subn(r"(?m)^ban_time = \d+", "ban_time = 33", file.read_text())
    assert count == 1
    file.write_text(text)
    yield


@fault("PD304", "permify_writer has pool_size 9 in PgCat", "the file says 8", "rollout restart")
def a_pool_size_that_was_not_taken(patient: Patient) -> Iterator[None]:
    patient.edit("pgcat/pgcat.toml", "pool_size = 9", "pool_size = 8")
    yield


@fault("PD305 PD403", "permify_reader is paused", "RESUME", touches="pgcat")
def a_paused_pool(patient: Patient) -> Iterator[None]:
    admin(patient.stack, patient.stack.pgcats[0].port, f"PAUSE permify_reader,{patient.stack.user}")
    yield
    admin(patient.stack, patient.stack.pgcats[0].port, f"RESUME permify_reader,{patient.stack.user}")


@fault(
    "PD306",
    "1 client waits for permify_writer",
    "9 of 9 server connections in use",
    "pool_size",
    touches="pgcat transactions",
)
def an_exhausted_pool(patient: Patient) -> Iterator[None]:
    stack = patient.stack
    port = stack.pgcats[0].port
    with contextlib.ExitStack() as held:
        hold(patient, port, held)
        waiting = stack.connect(port, "permify_writer")
        thread = threading.Thread(target=lambda: waiting.execute("SELECT 1"))
        thread.start()
        time.sleep(0.2)
        yield
    thread.join()
    waiting.close()


@fault("PD307", "localhost:", "is banned from permify_reader", "AdminBan", "UNBAN localhost")
def a_banned_server(patient: Patient) -> Iterator[list[str]]:
    replica = patient.stack.cluster.replica.port
    patient.edit("budget.yaml", f'"{LOOPBACK}"\n    port: {replica}', f'"localhost"\n    port: {replica}')
    patient.edit("pgcat/pgcat.toml", f'"{LOOPBACK}", {replica}', f'"localhost", {replica}')
    with another_pgcat(patient) as reaches:
        admin(patient.stack, port_of(reaches[0]), "BAN localhost 60")
        yield [*reaches, f"localhost:{replica}={LOOPBACK}:{replica}"]


@fault("PD101 PD309", "connection refused", "--reach", touches="replica")
def a_server_that_is_away(patient: Patient) -> Iterator[list[str]]:
    """Also for PgCat, whose file names a port where nobody is."""
    nobody = free_port()
    replica = patient.stack.cluster.replica.port
    patient.edit("budget.yaml", f"port: {replica}", f"port: {nobody}")
    patient.edit("pgcat/pgcat.toml", f'"{LOOPBACK}", {replica}', f'"{LOOPBACK}", {nobody}')
    primary = patient.stack.cluster.primary.port
    patient.edit("pgcat/pgcat.toml", f'  ["{LOOPBACK}", {primary}, "replica"],\n', "")
    with another_pgcat(patient) as reaches:
        yield [f"{LOOPBACK}:{nobody}={LOOPBACK}:{nobody}", *reaches]


@fault(
    "PD308 PD306", "within a second to reach a primary of permify_writer", "log", touches="pgcat transactions"
)
def checkouts_that_fail(patient: Patient) -> Iterator[list[str]]:
    patient.edit("pgcat/pgcat.toml", "connect_timeout = 5000", "connect_timeout = 1000")
    pgcat_module.SAMPLE_SECONDS = 0.6  # long enough for each to fail once; put back by the fixture
    done = threading.Event()
    with another_pgcat(patient) as reaches, contextlib.ExitStack() as held:
        port = port_of(reaches[0])
        hold(patient, port, held)

        def ask() -> None:
            with patient.stack.connect(port, "permify_writer") as client:
                while not done.is_set():
                    with contextlib.suppress(psycopg.Error):
                        client.execute("SELECT 1")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        yield reaches
        done.set()
        for thread in threads:
            thread.join()


@fault("PD304", "in reads for permify by PgCat", "not in the file", "rollout restart")
def a_pgcat_from_another_file(patient: Patient) -> Iterator[list[str]]:
    changes = ("[pools.permify_reader", "[pools.reads")
    with another_pgcat(patient, changes) as reaches:
        yield reaches


@fault("PD310 PD304", "permify_writer", "read-only replica", "restart PgCat")
def a_writer_pool_on_a_replica(patient: Patient) -> Iterator[list[str]]:
    changes = [
        (address(patient, "primary"), address(patient, "replica").replace('"replica"', '"primary"')),
        ("enabled = true\nqueries", "enabled = false\nqueries"),
    ]
    with another_pgcat(patient, *changes) as reaches:
        yield reaches


@fault("PD311", "other pools", "listens on that port")
def the_exporter_of_another_pgcat(patient: Patient) -> Iterator[list[str]]:
    with another_pgcat(patient, ("pool_size = 9", "pool_size = 8")) as reaches:
        (exporter,) = [reach for reach in reaches if reach.startswith("pgcat:9930")]
        yield [reach for reach in patient.reaches if not reach.startswith("pgcat:9930")] + [exporter] * 2


@fault("PD312", "no PgCat has a client in permify_writer", "PERMIFY_DATABASE_")
def a_permify_that_goes_past_pgcat(patient: Patient) -> Iterator[list[str]]:
    patient.edit("kubernetes/pgcat-deployment.yaml", "replicas: 2", "replicas: 1")
    with another_pgcat(patient) as reaches:
        yield reaches


@fault("PD313", "another password", "rollout restart")
def a_pgcat_with_another_password(patient: Patient) -> Iterator[list[str]]:
    ours = 'password = "${database_password}"'
    with another_pgcat(patient, (ours, f'password = "earlier"\nserver_{ours}')) as reaches:
        yield reaches


# Permify


@fault("PD402", "keeps everything in memory", "PERMIFY_DATABASE_", touches="tables")
def a_permify_in_memory(patient: Patient) -> Iterator[list[str]]:
    text = (patient.stack.rendered / "permify/permify.yaml").read_text()
    text = text.replace("engine: postgres", "engine: memory")
    with patient.stack.permify(next(_numbers), patient.stack.pgcats[0].port, text) as permify:
        others = [reach for reach in patient.reaches if not reach.startswith("permify")]
        yield [*others, f"permify={LOOPBACK}:{permify.port}"]


@fault("PD403", "a read of its tenants fails", "log", touches="tables")
def a_permify_whose_reads_fail(patient: Patient) -> Iterator[None]:
    patient_sql(patient, "ALTER TABLE tenants RENAME TO hidden")
    yield
    patient_sql(patient, "ALTER TABLE hidden RENAME TO tenants")


@fault("PD407", "refuses the key", "status 401", "PERMIFY_TOKEN", alone=True)
def a_key_of_others(patient: Patient) -> Iterator[None]:
    patient.environment["PERMIFY_TOKEN"] = "another"
    yield


@fault("PD407", "asks for a key, and the doctor has none", "set PERMIFY_TOKEN", alone=True)
def no_key_at_hand(patient: Patient) -> Iterator[None]:
    del patient.environment["PERMIFY_TOKEN"]
    yield


@fault("PD408", "answers a request without a key", "restart it")
def a_permify_that_asks_nobody(patient: Patient) -> Iterator[list[str]]:
    text = (patient.stack.rendered / "permify/permify.yaml").read_text()
    text = text.replace("authn:\n  enabled: true", "authn:\n  enabled: false")
    with patient.stack.permify(next(_numbers), patient.stack.pgcats[0].port, text) as permify:
        yield [*patient.reaches, f"permify={LOOPBACK}:{permify.port}"]


# Who is not reached


@fault("PD102", "connection refused")
def a_pgcat_that_is_gone(patient: Patient) -> Iterator[list[str]]:
    yield [*(reach for reach in patient.reaches if "pgcat" not in reach), f"pgcat={LOOPBACK}:{free_port()}"]


@fault("PD103", "connection refused")
def a_permify_that_is_gone(patient: Patient) -> Iterator[list[str]]:
    yield [*patient.reaches[:-1], f"permify={LOOPBACK}:{free_port()}"]


@fault("PD104", "connection refused")
def an_exporter_that_is_gone(patient: Patient) -> Iterator[list[str]]:
    exporter = patient.stack.pgcats[0].exporter
    yield [reach.replace(str(exporter), str(free_port())) for reach in patient.reaches]


@fault("PD105 PD407", "no password", "DATABASE_PASSWORD", alone=True)
def no_password_at_all(patient: Patient) -> Iterator[None]:
    patient.environment.clear()
    yield


@fault("PD101 PD102 PD103", "takes connections and did not answer", alone=True)
def everybody_mute(patient: Patient) -> Iterator[list[str]]:
    with socket.create_server((LOOPBACK, 0)) as mute:
        patient.timeout_seconds = 0.5
        yield [re.sub(r"=.*", f"={LOOPBACK}:{mute.getsockname()[1]}", reach) for reach in patient.reaches]


def patient_sql(patient: Patient, statement: str) -> list[tuple[Any, ...]]:
    """As a superuser in Permify's database."""
    server = patient.stack.cluster.primary
    with psycopg.connect(
        host=str(server.folder),
        port=server.port,
        user="postgres",
        dbname=patient.stack.database,
        autocommit=True,
    ) as connection:
        cursor = connection.execute(statement.encode())
        rows = cursor.fetchall() if cursor.description else []
    patient.stack.cluster.catch_up()
    return rows


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def wait_until(ready: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)
