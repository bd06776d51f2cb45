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
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live import cluster_stand_in
from live.faults import STANDALONE, Site, calm, site, started, wait_until, write_viewer
from live.support import NotReady, clean_environment, free_port, program
from pages import code_blocks
from rendering import REPOSITORY
from runbook import blocks, statements

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
            elif len(cells) == len(head) and not END.fullmatch(line):
                found.append(dict(zip(head, cells, strict=True)))
            elif not RULE.fullmatch(line):
                head = []
        return found

    def commands(self, title: str, part: int = 0) -> str:
        return blocks(self.readme, title)[part]


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
        if "wal_replay_resume" in statement:
            standalone.here.cluster.replica.sql("SELECT pg_wal_replay_pause()")
        out = standalone.run(f'{function} "{statement}"')
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
        standalone.run('ask_pgcat "PAUSE"')
        began = time.monotonic()
        time.sleep(7)  # longer than a client would wait for a server
        assert well(standalone)
        assert {row["paused"] for row in standalone.rows('ask_pgcat "SHOW DATABASES"')} == {"1"}
        assert load.requests(since=began + 1) == []
        standalone.run('ask_pgcat "RESUME"')
        calm(load)
        assert load.failed(since=began) == []
        assert max(request.seconds for request in load.requests()) > 5
    assert {row["paused"] for row in standalone.rows('ask_pgcat "SHOW DATABASES"')} == {"0"}


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
        (paused,) = [row["pg_is_wal_replay_paused"] for row in rows if "behind" in row]
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
    """By the statements of docs/operations.md, as an administrator."""
    (block,) = code_blocks((REPOSITORY / "docs/operations.md").read_text(), "sql")
    find, end = block.splitlines()
    stack, primary = standalone.here.stack, standalone.here.stack.cluster.primary
    with stack.connect(primary.port, stack.database) as greedy:
        greedy.execute("SET application_name = 'nightly report'")
        assert (stack.user, "nightly report", 1) in primary.sql(find)
        end = end.replace("usename = '…'", f"usename = '{stack.user}'")
        end = end.replace("application_name = '…'", "application_name = 'nightly report'")
        assert primary.sql(end) == [(True,)]
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            greedy.execute("SELECT 1")


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


@pytest.mark.parametrize("fault", MIGRATION_FAULTS)
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
