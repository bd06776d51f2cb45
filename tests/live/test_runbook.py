"""The runbook in the README: every statement runs, and each symptom looks as its section says.

Its functions run as they stand there; stand-ins for `kubectl` and `psql` lead them to the processes here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live import cluster_stand_in
from live.faults import (
    STANDALONE,
    Site,
    calm,
    site,
    started,
    taken_all,
    viewer_allowed,
    wait_until,
    write_viewer,
)
from live.load import Load
from live.network import toxiproxy
from live.repeats import drawn, repeats
from live.support import (
    LOOPBACK,
    NotReady,
    Server,
    clean_environment,
    free_port,
    post,
    postgres_program,
    program,
    run,
)
from pages import code_blocks
from rendering import REPOSITORY
from runbook import blocks, row, statements, written_commands

pytestmark = pytest.mark.timeout(300)

ADMINISTRATOR = "of the administrator"
RULE = re.compile(r"-+(\+-+)*")
"""Below the head of a table of psql's."""
END = re.compile(r"\(\d+ rows?\)")
SMALL = {"writer_pool_size": 1, "reader_pool_size": 1}
SESSION = {**STANDALONE, "pool_mode": "session", "writer_pool_size": 4, "reader_pool_size": 4}


@dataclass
class Shell:
    """Commands of the README against a site."""

    here: Site
    folder: Path
    more_logs: dict[str, Path] = field(default_factory=dict)
    begins: dict[Path, int] = field(default_factory=dict)
    """How much of a log is older than ten minutes, as far as the commands are to know."""

    def forget_logs(self) -> None:
        processes = [each.process for each in [*self.here.pgcats, *self.here.permifys]]
        self.begins = {process.log: process.log.stat().st_size for process in processes}

    @property
    def readme(self) -> Path:
        return self.here.stack.rendered / "README.md"

    def run(self, commands: str, code: int | None = 0) -> str:
        """What they print, after the functions of the README."""
        (defined,) = blocks(self.readme, "In your shell")
        self.folder.mkdir(exist_ok=True)
        for name in ("kubectl", "psql"):
            script = self.folder / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {cluster_stand_in.__file__} {name} "$@"\n')
            script.chmod(0o755)
        defined = defined.replace("13476", str(free_port()))
        (self.folder / "cluster.json").write_text(json.dumps(self.known()))
        environment = clean_environment(CLUSTER=str(self.folder / "cluster.json"), PGPASSWORD=ADMINISTRATOR)
        environment["PATH"] = f"{self.folder}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-c", f"{defined}\n{commands}"],
            cwd=self.here.stack.rendered,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        shown = f"{commands}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, shown
        assert "ERROR" not in done.stderr, shown
        return done.stdout

    def known(self) -> dict[str, Any]:
        stack = self.here.stack
        pods = {name: ("other", 0, log) for name, log in self.more_logs.items()}
        for program_name, processes in (("pgcat", self.here.pgcats), ("permify", self.here.permifys)):
            for number, each in enumerate(processes):
                pods[f"{program_name}-{number}"] = program_name, each.port, each.process.log
        return {
            "namespace": "permify",
            "pods": {
                name: {
                    "program": program_name,
                    "port": port,
                    "log": str(log),
                    "begins": self.begins.get(log, 0),
                }
                for name, (program_name, port, log) in pods.items()
            },
            "secrets": str(stack.secrets),
            "keys": stack.keys,
            "path": os.environ["PATH"],
            "psql": program("psql"),
            "servers": {f"{host}:{port}": here[1] for (host, port), here in stack.moved.values()},
        }

    def rows(self, command: str) -> list[dict[str, str]]:
        """The rows of every table that a command prints."""
        found: list[dict[str, str]] = []
        head: list[str] = []
        lines = self.run(command).splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            cells = [cell.strip() for cell in line.split("|")]
            if RULE.fullmatch(following):
                head = cells
            elif RULE.fullmatch(line):
                continue
            elif len(cells) == len(head) and not END.fullmatch(line):
                found.append(dict(zip(head, cells, strict=True)))
            else:
                head = []
        return found

    def commands(self, title: str, part: int = 0) -> str:
        return blocks(self.readme, title)[part]

    def asked(self, title: str) -> list[dict[str, str]]:
        """The rows that the commands of a section print, without those that ask nobody here."""
        lines = self.commands(title).splitlines()
        return self.rows(
            "\n".join(line for line in lines if not re.match("pgcat-stack|complaints|kubectl", line))
        )

    def do(self, title: str, see: str) -> None:
        """What the row of a section says, when it shows these words."""
        commands = written_commands(row(self.readme.read_text(), title, see).do)
        assert commands
        for command in commands:
            self.run(command)


@contextlib.contextmanager
def shell(here: Site, folder: Path) -> Iterator[Shell]:
    """Where the administrator has a password."""
    here.cluster.primary.sql(f"ALTER ROLE postgres PASSWORD '{ADMINISTRATOR}'")
    here.cluster.catch_up()
    yield Shell(here, folder / "bin")


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One that runs, with the smallest pools, for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("runbook")
    with started(folder / "site", {**STANDALONE, **SMALL}) as here, shell(here, folder) as opened:
        yield opened


def test_every_statement_runs(standalone: Shell) -> None:
    readme = standalone.readme.read_text()
    found = statements(readme)
    assert len({function for function, _ in found}) == 3 and len(found) > 12
    for function, statement in sorted(found):
        statement = statement.replace("PID", "0").replace("HOST", "127.0.0.1")
        statement = statement.replace("TABLE NAME", "TABLE relation_tuples")
        database = " permify" if statement.startswith(("ALTER TABLE", "\\dt")) else ""
        if "wal_replay_resume" in statement:
            standalone.here.cluster.replica.sql("SELECT pg_wal_replay_pause()")
        quote = "'" if '"' in statement else '"'
        out = standalone.run(f"{function} {quote}{statement}{quote}{database}")
        assert "ERROR" not in out and (out.strip() or "RESUME" in statement), (statement, out)


def test_permify_is_asked_and_answers(standalone: Shell) -> None:
    assert '"tenants":[{' in standalone.run("ask_permify", code=None)


def test_exhausted_pools_are_told_from_a_server_that_is_away(standalone: Shell) -> None:
    """The log says `AllServersDown` of both."""
    here = standalone.here
    commands = standalone.commands("Clients wait for a server connection")
    with here.load(checkers=4, writers=4), contextlib.ExitStack() as held:
        for pgcat in here.pgcats:
            for pool, servers in (("permify_writer", 1), ("permify_reader", 2)):
                for _ in range(servers):
                    client = here.stack.connect(pgcat.port, pool)
                    held.enter_context(contextlib.closing(client))
                    client.autocommit = False
                    client.execute("SELECT 1")
        waiting: list[dict[str, str]] = []

        def some_wait() -> bool:
            rows = standalone.rows('ask_pgcat "SHOW POOLS"')
            waiting.extend(row for row in rows if int(row["cl_waiting"]) > 0)
            return bool(waiting)

        assert wait_until(some_wait, 10)
        assert all(row["sv_active"] in "12" and row["sv_idle"] == "0" for row in waiting)
        rows = standalone.rows(commands)
        pools = [row for row in rows if "sv_active" in row]
        assert len(pools) == 4
        assert all(row["sv_idle"] == "0" for row in pools)
        assert {row["sv_active"] for row in pools if row["database"] == "permify_writer"} == {"1"}
        assert {row["state"] for row in rows if "waits_for" in row} == {"idle in transaction"}
        assert wait_until(lambda: "AllServersDown" in standalone.run("complaints"), 30)
    assert wait_until(lambda: well(standalone), 20)


def well(opened: Shell) -> bool:
    """As the section says: nobody waits."""
    pools = opened.rows('ask_pgcat "SHOW POOLS"')
    return all(row["cl_waiting"] == row["maxwait"] == "0" for row in pools)


def test_a_paused_pool_shows_nowhere_but_in_show_databases(standalone: Shell) -> None:
    here = standalone.here
    with here.load(checkers=2, writers=2) as load:
        calm(load)
        standalone.forget_logs()
        standalone.run('ask_pgcat "PAUSE"')
        began = time.monotonic()
        time.sleep(7)  # longer than a client would wait for a server
        assert well(standalone) and standalone.run("complaints", code=None) == ""
        rows = standalone.asked("Requests hang")
        assert {row["paused"] for row in rows if "paused" in row} == {"1"}
        assert [row for row in rows if row.get("blocks", "0") != "0"] == []
        assert load.requests(since=began + 1) == []
        standalone.do("Requests hang", "`paused` is 1")
        calm(load)
        assert load.failed(since=began) == []
        assert max(request.seconds for request in load.requests()) > 5
    assert {row["paused"] for row in standalone.rows('ask_pgcat "SHOW DATABASES"')} == {"0"}


@contextlib.contextmanager
def session_of(
    server: Server, user: str, application: str, database: str
) -> Iterator[psycopg.Connection[Any]]:
    """Of another application, whose role may do everything but is not the administrator's."""
    if not server.sql("SELECT 1 FROM pg_roles WHERE rolname = %s", user):
        server.sql(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{user}'")
    with psycopg.connect(
        host=LOOPBACK,
        port=server.port,
        dbname=database,
        user=user,
        password=user,
        application_name=application,
    ) as connection:
        yield connection


def hangs(load: Load, kind: str, seconds: float = 5) -> bool:
    """Whether none of a kind that began in this time has ended well."""
    began = time.monotonic()
    time.sleep(seconds)
    return all(request.error for request in load.requests(kind, since=began))


@contextlib.contextmanager
def uncached_checks(here: Site, count: int = 6) -> Iterator[None]:
    """Checks that Permify cannot answer from its cache; with a lock, some of them wait on the replica."""

    def check(number: int) -> None:
        with contextlib.suppress(AssertionError, OSError):
            viewer_allowed(here.permifys[0].port, f"never-asked-{number}-{time.monotonic_ns()}")

    threads = [threading.Thread(target=check, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    yield


def blockers(opened: Shell) -> set[str]:
    return {row["who"] for row in opened.asked("Requests hang") if row.get("blocks", "0") != "0"}


@pytest.mark.parametrize("mode", drawn(["ACCESS EXCLUSIVE", "SHARE"], {"ACCESS EXCLUSIVE"}))
def test_a_lock_of_another_user_is_found_and_ended(standalone: Shell, mode: str) -> None:
    """An idle session holds it; SHARE, as of CREATE INDEX, stops writes alone."""
    here, stack = standalone.here, standalone.here.stack
    expected = {"startup"} if mode == "ACCESS EXCLUSIVE" else set()  # which a replica repeats
    primary = here.cluster.primary
    with (
        here.load(checkers=3, writers=2) as load,
        session_of(primary, "reporter", "nightly report", stack.database) as greedy,
    ):
        calm(load)
        greedy.execute(f"LOCK TABLE relation_tuples IN {mode} MODE".encode())
        assert hangs(load, "write")
        assert mode == "ACCESS EXCLUSIVE" or not hangs(load, "check", 2)
        with uncached_checks(here):
            assert wait_until(lambda: blockers(standalone) >= {"reporter"} | expected, 10)
        rows = [row for row in standalone.asked("Requests hang") if "blocks" in row]
        first = next(row for row in rows if row["blocks"] != "0")
        assert (first["who"], first["application_name"], first["client_addr"]) == (
            "reporter",
            "nightly report",
            LOOPBACK,
        )
        assert first["waits_for"] == "{}" and first["state"] == "idle in transaction"
        assert f"IN {mode} MODE" in first["statement"] and first["since"].startswith("00:00:")
        assert any(row["waits_for"] == f"{{{first['pid']}}}" and row["who"] == stack.user for row in rows)
        _, terminate, _ = standalone.commands("End a lock").replace("PID", first["pid"]).splitlines()
        assert "while it is idle in transaction" in terminate
        standalone.run(terminate)
        ended = time.monotonic()
        calm(load)
        assert load.requests("write", since=ended)
        assert [row for row in standalone.rows("sessions ask_primary") if row["blocks"] != "0"] == []
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            greedy.execute("SELECT 1")
        load.stop()
    standalone.run('ask_pgcat "UNBAN 127.0.0.1"')


@pytest.mark.parametrize(("which", "said"), [(0, "while it is active"), (2, "all of one kind")])
def test_a_lock_of_a_running_statement_is_cancelled(standalone: Shell, which: int, said: str) -> None:
    here, stack = standalone.here, standalone.here.stack
    primary = here.cluster.primary
    with (
        here.load(checkers=1, writers=2) as load,
        session_of(primary, "reporter", "by hand", stack.database) as greedy,
    ):
        calm(load)
        ended: list[str] = []

        def work() -> None:
            try:
                greedy.execute("LOCK TABLE relation_tuples IN SHARE MODE")
                greedy.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled as error:
                ended.append(str(error))
                greedy.rollback()

        thread = threading.Thread(target=work)
        thread.start()
        assert hangs(load, "write")
        first = next(row for row in standalone.asked("Requests hang") if "blocks" in row)
        assert (first["who"], first["state"], first["statement"]) == (
            "reporter",
            "active",
            "SELECT pg_sleep(60)",
        )
        commands = standalone.commands("End a lock").replace("PID", first["pid"])
        cancel = commands.replace("'NAME'", "'by hand'").splitlines()[which]
        assert said in cancel
        standalone.run(cancel)
        thread.join(10)
        assert ended and "user request" in ended[0]
        calm(load)


def test_writes_that_wait_for_a_synchronous_standby(standalone: Shell) -> None:
    here = standalone.here
    primary = here.cluster.primary
    with here.load(checkers=2, writers=2) as load:
        calm(load)
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        primary.sql("SELECT pg_reload_conf()")
        try:
            assert hangs(load, "write")
            rows = standalone.asked("Requests hang")
            assert {row["wait_event"] for row in rows if row.get("who") == "permify"} >= {"SyncRep"}
            named, there = written_commands(row(standalone.readme.read_text(), "Requests hang", "SyncRep").do)
            assert "gone" in standalone.run(named)
            assert "gone" not in standalone.run(there)
        finally:
            primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
            primary.sql("SELECT pg_reload_conf()")
        calm(load)


SET_BY = {
    "server": ("ALTER SYSTEM SET default_transaction_read_only = on", "`setting` is `on`"),
    "role": ("ALTER ROLE permify SET default_transaction_read_only = on", "a row with `setconfig`"),
    "database": ("ALTER DATABASE permify SET default_transaction_read_only = on", "a row with `setconfig`"),
}


@pytest.mark.parametrize("place", SET_BY)
def test_a_primary_that_refuses_writes_is_no_standby(standalone: Shell, place: str) -> None:
    here, primary = standalone.here, standalone.here.cluster.primary
    statement, see = SET_BY[place]
    port = here.permifys[0].port

    def new_tenant() -> str:
        """What Permify answers; schemas and tenants are not written as READ WRITE."""
        name = f"t{time.monotonic_ns()}"
        try:
            post(port, "/v1/tenants/create", {"id": name, "name": name})
        except AssertionError as error:
            return str(error)
        return ""

    def writes_a_relationship() -> bool:
        """A connection that has just been ended costs one request."""
        with contextlib.suppress(AssertionError):
            write_viewer(port, f"read-only-{place}")
            return True
        return False

    try:
        primary.sql(statement)
        primary.sql("SELECT pg_reload_conf()")
        primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'")
        words = "cannot execute INSERT in a read-only transaction"
        assert wait_until(lambda: bool(new_tenant()) and words in standalone.run("complaints", code=None), 20)
        assert wait_until(writes_a_relationship, 20), "relationships are written all the same"
        rows = standalone.asked("Writes fail")
        (asked,) = [row for row in rows if "setting" in row]
        in_recovery = [row["pg_is_in_recovery"] for row in rows if row.keys() == {"pg_is_in_recovery"}]
        assert asked["pg_is_in_recovery"] == "f" and in_recovery == ["t"]
        assert (asked["setting"] == "on") == (place == "server")
        configured = [row for row in rows if "setconfig" in row]
        assert len(configured) == (place != "server")
        if place == "server":
            assert asked["sourcefile"].endswith("postgresql.auto.conf")
        else:
            assert "default_transaction_read_only=on" in configured[0]["setconfig"]
            assert configured[0]["setrole" if place == "role" else "datname"] == "permify"
        found = row(standalone.readme.read_text(), "Writes fail", see)
        assert found.do == "[Read-only by a setting](#read-only-by-a-setting)"
        standalone.run(standalone.commands("Read-only by a setting", place != "server"))

        def nothing_is_set() -> bool:
            """Soon after the reload."""
            rows = standalone.asked("Writes fail")
            configured = [row for row in rows if "setconfig" in row]
            return not configured and [row["setting"] for row in rows if "setting" in row] == ["off"]

        assert wait_until(nothing_is_set, 10)
        if place != "server":  # the README says to restart PgCat
            assert new_tenant()
            for pgcat in list(here.pgcats):
                here.start_pgcat()
                here.end_pgcat(pgcat)
        assert wait_until(lambda: not new_tenant(), 20)
    finally:
        primary.sql("SET default_transaction_read_only = off")
        primary.sql("ALTER SYSTEM RESET default_transaction_read_only")
        primary.sql("SELECT pg_reload_conf()")
        for each in ("ROLE", "DATABASE"):
            primary.sql(f"ALTER {each} permify RESET default_transaction_read_only")


def test_connects_of_pgcat_are_told_from_those_of_an_exhausted_permify(standalone: Shell) -> None:
    here = standalone.here
    commands = standalone.commands("Connect spikes")

    def at_their_most() -> bool:
        """All connections of all Permify; one may be in renewal."""
        rows = [row for row in standalone.rows(commands) if row.get("database") == "permify_reader"]
        clients = sum(int(row[key]) for row in rows for key in ("cl_idle", "cl_active", "cl_waiting"))
        return clients == 8 * len(here.permifys)

    with here.load(checkers=60, writers=1, pause_seconds=0.001):
        assert wait_until(at_their_most, 20)
    for server in here.cluster.servers:
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'")
    with here.load() as load:
        calm(load)
        young = [row for row in standalone.rows(commands) if "young" in row]
    assert young and all(int(row["young"]) > 0 for row in young)


def test_a_lagging_replica_shows_and_is_resumed(standalone: Shell) -> None:
    here = standalone.here
    commands = standalone.commands("Stale reads")

    def behind() -> tuple[str, int]:
        rows = standalone.rows(commands)
        (paused,) = [row["paused"] for row in rows if "behind" in row]
        (byte_count,) = [int(row["bytes_behind"]) for row in rows if "bytes_behind" in row]
        return paused, byte_count

    assert behind() == ("f", 0)
    standalone.run('ask_replicas "SELECT pg_wal_replay_pause()"')
    write_viewer(here.permifys[0].port, "stale")
    paused, byte_count = behind()
    assert paused == "t" and byte_count > 0
    standalone.run('ask_replicas "SELECT pg_wal_replay_resume()"')
    assert wait_until(lambda: behind() == ("f", 0), 10)


def test_a_replica_that_is_gone_is_banned_and_unbanned(standalone: Shell) -> None:
    here = standalone.here
    commands = standalone.commands("Reads are all on the primary")

    def seen() -> tuple[list[str], list[str]]:
        rows = standalone.rows(commands)
        return (
            [row["reason"] for row in rows if "reason" in row],
            [row["state"] for row in rows if "replay_lag" in row],
        )

    standalone.run('ask_pgcat "UNBAN 127.0.0.1"')  # what an earlier test left
    assert seen() == ([], ["streaming"])
    with here.load(checkers=8) as load:
        calm(load)
        here.cluster.replica.stop(signal.SIGINT)
        assert wait_until(lambda: bool(seen()[0]), 20)
        assert seen()[1] == []
        here.cluster.replica.start()
        standalone.run('ask_pgcat "UNBAN 127.0.0.1"')
        assert wait_until(lambda: seen() == ([], ["streaming"]), 20)
        assert here.wait_for_use(here.cluster.replica, 20), "sooner than the ban would have ended"
        calm(load)


def test_more_connections_than_the_role_may_have(standalone: Shell) -> None:
    here = standalone.here
    for server in here.cluster.servers:
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'")
    here.cluster.primary.sql("ALTER ROLE permify CONNECTION LIMIT 1")
    standalone.forget_logs()
    try:
        with here.load(checkers=8, writers=8) as load:
            assert wait_until(
                lambda: 'ServerStartupError("error message"' in standalone.run("complaints"), 60
            )
            assert wait_until(lambda: bool(load.failed()), 20)
        commands = standalone.commands("More connections than planned").replace("pgcat-stack plan .", "")
        mine = [row for row in standalone.rows(commands) if row.get("usename") == "permify"]
        assert sum(int(row["count"]) for row in mine) <= 1
    finally:
        here.stack.bootstrap()


def test_what_took_the_connections_is_found_and_ended(standalone: Shell) -> None:
    """By the section, then by the statements of docs/operations.md, as an administrator."""
    (block,) = code_blocks((REPOSITORY / "docs/operations.md").read_text(), "sql")
    find, limit, end = block.splitlines()
    title = "More connections than planned"
    here, primary = standalone.here, standalone.here.cluster.primary
    primary.sql("CREATE ROLE another LOGIN PASSWORD 'another'")
    with here.load(checkers=3, writers=3) as load, contextlib.ExitStack() as taken:
        calm(load)
        standalone.forget_logs()
        primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'")
        while not taken_all(primary, taken) or here.sessions(primary):
            primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'permify'")
        assert hangs(load, "write", 6)
        assert 'ServerStartupError("error message"' in standalone.run("complaints")
        assert "`from_pgcat`" in row(standalone.readme.read_text(), "Requests fail", "ServerStartupError").do
        done = standalone.run("from_pgcat 2>&1", code=None)
        assert done.count("connection slots are reserved") == len(here.pgcats), done
        rows = [row for row in standalone.asked(title) if "usename" in row]
        assert (rows[0]["usename"], rows[0]["client_addr"]) == ("another", LOOPBACK)
        assert int(rows[0]["count"]) > 20 and rows[0]["idle"] == rows[0]["count"] and rows[0]["of"] == "100"
        assert "hold more than 20" in row(standalone.readme.read_text(), title, "others").see
        (found,) = [each for each in primary.sql(find) if each[0] == "another"]
        assert found[1:4] == (-1, "", "idle")
        primary.sql(limit.replace("…", "another"))
        end = end.replace("usename = '…'", "usename = 'another'").replace(
            "application_name = '…'", "application_name = ''"
        )
        assert len(primary.sql(end)) == found[4]
        calm(load)
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            for _ in range(6):
                taken.enter_context(
                    psycopg.connect(
                        host=LOOPBACK,
                        port=primary.port,
                        dbname="postgres",
                        user="another",
                        password="another",
                    )
                )


@repeats
def test_a_slow_network_is_told_from_a_slow_server(tmp_path: Path) -> None:
    with site(tmp_path / "site", STANDALONE) as here, toxiproxy(here.stack.folder) as proxy:
        here.stack.by.update({server.role: proxy.add(server) for server in here.stack.servers})
        here.prepare()
        here.start()
        with shell(here, tmp_path) as opened, here.load(checkers=6, writers=3) as load:
            calm(load)

            def slowest(rows: list[dict[str, str]]) -> int:
                return max(int(row["avg_query_time"]) for row in rows if "avg_query_time" in row)

            def active(rows: list[dict[str, str]]) -> int:
                return sum(row["state"] == "active" for row in rows if "waits_for" in row)

            assert slowest(opened.asked("Requests are slow")) < 50
            for server in here.cluster.servers:
                proxy.delay(server, 150)
            assert wait_until(lambda: slowest(opened.asked("Requests are slow")) >= 150, 40)
            rows = opened.asked("Requests are slow")
            times = re.findall(r"Time: ([0-9.]+) ms", opened.run("from_pgcat"))
            assert len(times) == 2 * len(here.pgcats) * 2 and min(map(float, times)) >= 150
            waiting = sum(int(row["cl_waiting"]) for row in rows if "cl_waiting" in row)
            assert active(rows) <= 1 and waiting <= 1  # one may, for a moment
            began = time.monotonic()
            time.sleep(5)
            assert min(request.seconds for request in load.requests("write", since=began)) > 0.4
            for server in here.cluster.servers:
                proxy.delay(server, 0)
            assert wait_until(lambda: slowest(opened.asked("Requests are slow")) < 50, 40)
            # The other cause: statements themselves take long.
            primary = here.cluster.primary
            with psycopg.connect(
                host=str(primary.folder), port=primary.port, user="postgres", dbname=here.stack.database
            ) as database:
                database.execute(
                    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
                    " AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END'"
                )
                database.execute(
                    "CREATE TRIGGER slow BEFORE INSERT ON relation_tuples"
                    " FOR EACH ROW EXECUTE FUNCTION slow()"
                )
            assert wait_until(lambda: slowest(opened.asked("Requests are slow")) > 150, 40)
            assert active(opened.asked("Requests are slow")) >= 3


@repeats
def test_reads_that_go_to_the_writer_pool(tmp_path: Path) -> None:
    """A variable of Permify's outranks its file: no error, and no client in the reader pool."""
    with site(tmp_path / "site", STANDALONE) as here, shell(here, tmp_path) as opened:
        here.prepare()
        for _ in range(here.stack.pgcat_count):
            here.start_pgcat()
        assert here.service is not None
        wrong = (
            f"postgres://permify@{LOOPBACK}:{here.service.port}/permify_writer?sslmode=disable"
            "&default_query_exec_mode=cache_describe"
        )
        here.stack.more_environment["PERMIFY_DATABASE_READER_URI"] = wrong
        here.start_permify()
        here.permifys[0].write(here.cluster)
        with here.load() as load:
            calm(load)
            title = "Reads are all on the primary"
            rows = opened.asked(title)
            clients = {
                name: sum(
                    int(row["cl_idle"]) + int(row["cl_active"]) for row in rows if row.get("database") == name
                )
                for name in ("permify_writer", "permify_reader")
            }
            assert clients["permify_reader"] == 0 < clients["permify_writer"]
            assert [row for row in rows if "reason" in row] == []
            assert "outranks" in row(opened.readme.read_text(), title, "`permify_reader` has no clients").do
        del here.stack.more_environment["PERMIFY_DATABASE_READER_URI"]
        old = here.permifys.pop()
        here.start_permify()
        old.process.stop(signal.SIGTERM)
        with here.load() as load:
            calm(load)
            pools = opened.rows('ask_pgcat "SHOW POOLS"')
            assert sum(int(row["cl_idle"]) for row in pools if row["database"] == "permify_reader") > 0


def test_a_wrong_database_in_the_uri(standalone: Shell) -> None:
    here = standalone.here
    right = (here.stack.rendered / "permify" / "permify.yaml").read_text()
    wrong = right.replace("/permify_writer?", "/permify?").replace("/permify_reader?", "/permify?")
    assert here.service is not None
    standalone.forget_logs()
    with (
        pytest.raises(NotReady, match='No pool configured for database: "permify", user: "permify"'),
        here.stack.permify(90, here.service.port, wrong, seconds=90),
    ):
        pass
    assert "Invalid pool name" in standalone.run("complaints")
    commands = standalone.commands("No pool configured").replace("pgcat-stack validate .", "")
    assert {row["name"].partition("_shard")[0] for row in standalone.rows(commands) if "name" in row} == {
        "permify_writer",
        "permify_reader",
    }
    assert "permify_writer" in standalone.run(commands.splitlines()[-1])


MIGRATION_FAULTS = {
    "no right to make tables": (
        "REVOKE CREATE ON SCHEMA public FROM permify",
        "permission denied for schema public",
    ),
    "tables of another": ("CREATE TABLE relation_tuples (id int)", "must be owner of table"),
}


@pytest.mark.parametrize("fault", drawn(MIGRATION_FAULTS, {"tables of another"}))
def test_a_failed_migration_says_why_in_one_line(fault: str, tmp_path: Path) -> None:
    statement, words = MIGRATION_FAULTS[fault]
    with site(tmp_path / "site", STANDALONE) as here, shell(here, tmp_path) as opened:
        stack, primary = here.stack, here.cluster.primary
        stack.bootstrap()
        with psycopg.connect(
            host=str(primary.folder), port=primary.port, user="postgres", dbname=stack.database
        ) as database:
            database.execute(statement.encode())
        with stack.started("migrate") as migrate:
            assert migrate.wait(60) != 0
        commands = opened.commands("The migration failed")
        (job,) = re.findall(r"job/(\S+)", commands)
        opened.more_logs[f"job/{job}"] = migrate.log
        line = opened.run(commands)
        assert words in line and "Usage" not in line and line.count("Error:") == 1


def test_one_process_too_many_in_session_mode(tmp_path: Path) -> None:
    with site(tmp_path / "site", SESSION) as here, shell(here, tmp_path) as opened:
        here.prepare()
        here.start_pgcat()
        for _ in range(4):
            here.start_permify()
        here.permifys[0].write(here.cluster)
        with pytest.raises(NotReady):
            here.start_permify(within_seconds=6)
        pools = opened.rows('ask_pgcat "SHOW POOLS"')
        assert {row["database"]: row["sv_active"] for row in pools} == {
            "permify_writer": "4",
            "permify_reader": "4",
        }
        assert "AllServersDown" in opened.run("complaints")
        opened.run('ask_pgcat "PAUSE"')
        with here.load() as load:  # which PAUSE does not hold in session mode
            calm(load)
        assert load.failed() == []


@repeats
def test_a_promoted_replica_is_followed_by_answers(tmp_path: Path) -> None:
    """The primary is lost for good, the replica promoted, the deployment rendered with it as the primary."""
    with started(tmp_path / "site", STANDALONE) as here:
        stack, (primary, replica) = here.stack, here.cluster.servers
        with here.load() as load:
            calm(load)
            here.cluster.catch_up()
            primary.stop(signal.SIGKILL)
            replica.sql("SELECT pg_promote()")
            time.sleep(2)
            lost_at = time.monotonic()
            assert wait_until(lambda: len(load.requests("write", since=lost_at)) > 2, 60)
            assert all(request.error for request in load.requests("write", since=lost_at))
            checks = load.requests("check", since=lost_at + 5)
            assert checks and not any(request.error for request in checks), "reads go on"
            # The name in the files leads to the promoted server from now on.
            stack.by["primary"] = replica.address
            stack.change(tmp_path / "after", replica_hosts="")
            for name in ("migrate", "note"):
                with stack.started(name) as process:
                    assert process.wait(60) == 0
            for pgcat in list(here.pgcats):
                here.start_pgcat()
                here.end_pgcat(pgcat)
            mended = time.monotonic()
            calm(load)
            load.stop()
        assert load.requests("write", since=mended) and load.requests("check", since=mended)
        last = max(request.began for request in load.requests())
        assert load.failed(since=last - 2) == []
        with psycopg.connect(
            host=str(replica.folder), port=replica.port, user="postgres", dbname=stack.database
        ) as database:
            assert load.lost(database) == set()


def of_the_primary(here: Site) -> list[str]:
    """Where pg_dump and pg_restore find it."""
    server = here.cluster.primary
    return ["-h", str(server.folder), "-p", str(server.port), "-U", "postgres"]


@repeats
def test_a_dump_is_loaded_into_another_server(tmp_path: Path) -> None:
    """As the section on upgrades does it: without the repair, a write does not end what Permify remembers."""
    dump = tmp_path / "permify.dump"
    with site(tmp_path / "before", STANDALONE) as here:
        here.prepare()
        # The transactions of a server that has been used for a while.
        here.cluster.primary.sql(
            "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
        here.start()
        write_viewer(here.permifys[0].port, "before")
        server = of_the_primary(here)
        run([postgres_program("pg_dump"), *server, "--format=custom", f"--file={dump}", "permify"])
        assert "TABLE DATA public relation_tuples" in run(
            [postgres_program("pg_restore"), "--list", str(dump)]
        )
    with site(tmp_path / "after", STANDALONE) as here:
        stack = here.stack
        stack.bootstrap()
        server = of_the_primary(here)
        run([postgres_program("pg_restore"), *server, "--exit-on-error", "--dbname=permify", str(dump)])
        port = here.cluster.primary.port
        uri = f"postgres://{stack.user}@{LOOPBACK}:{port}/{stack.database}?sslmode=disable"
        repair = [program("permify"), "repair", "datastore", f"--database-uri={uri}"]
        dry = run([*repair, "--dry-run"], stack.environment)
        assert re.search("[1-9]", dry), dry
        run(repair, stack.environment)
        stack.migrate()
        here.cluster.catch_up()
        for _ in range(stack.pgcat_count):
            here.start_pgcat()
        here.start_permify()
        assert not viewer_allowed(
            here.permifys[0].port, "after"
        )  # which Permify remembers until the next write
        write_viewer(here.permifys[0].port, "after")
        here.cluster.catch_up()
        assert [viewer_allowed(here.permifys[0].port, name) for name in ("before", "after")] == [True, True]
