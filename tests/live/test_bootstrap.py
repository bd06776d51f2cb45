"""postgres/bootstrap.sql by an administrator who is no superuser, as managed databases have them.

The password of the role is in no log, or the script ends before it sends it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from live.stack import EXTERNAL
from live.support import LOOPBACK, Cluster, clean_environment, program
from rendering import render

ADMINISTRATOR, USER, DATABASE = "administrator", "bootstrapped", "bootstrapped"
PASSWORD = "do-not-log-7f3a"
QUIET = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "error",
    "auto_explain.log_min_duration": "-1",
}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = {**EXTERNAL, "database_user": USER, "database_name": DATABASE}
    return render(tmp_path_factory.mktemp("bootstrap") / "deployment", answers) / "postgres/bootstrap.sql"


@pytest.fixture
def primary(cluster: Cluster) -> Iterator[Cluster]:
    cluster.clear(DATABASE, USER)
    cluster.primary.sql(f"CREATE ROLE {ADMINISTRATOR} LOGIN CREATEROLE CREATEDB PASSWORD 'administrator'")
    yield cluster
    cluster.clear(DATABASE, USER)
    cluster.primary.sql(f"DROP ROLE {ADMINISTRATOR}")


def bootstrap(cluster: Cluster, script: Path, settings: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit status and output of psql, and what the server logged meanwhile."""
    server = cluster.primary
    for name, value in {**QUIET, **settings}.items():
        server.sql(f"ALTER ROLE {ADMINISTRATOR} SET {name} = '{value}'")
    begins = server.log_size()
    command = [program("psql"), "-X", "-q", "-h", LOOPBACK, "-p", str(server.port), "-U", ADMINISTRATOR]
    done = subprocess.run(
        [*command, "-d", "postgres", "-f", str(script)],
        env=clean_environment(PGPASSWORD="administrator", DATABASE_PASSWORD=PASSWORD),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr, server.log_since(begins)


def stored_password(cluster: Cluster) -> str | None:
    return cluster.primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", USER)[0][0]


def test_an_ordinary_administrator_sets_the_password_and_it_is_not_logged(
    primary: Cluster, script: Path
) -> None:
    code, output, log = bootstrap(primary, script, {})
    assert (code, output) == (0, f"bootstrap.sql: role {USER} and database {DATABASE} are ready.\n")
    assert (stored_password(primary) or "").startswith("SCRAM-SHA-256$")
    assert PASSWORD not in log


def test_a_password_that_a_policy_refuses_is_not_logged(primary: Cluster, script: Path) -> None:
    """The server logs the text of each statement that fails, and what it was executed for."""
    policy = {"session_preload_libraries": "passwordcheck"}
    primary.primary.sql(f"CREATE ROLE {USER}")
    primary.primary.sql(f"ALTER ROLE {ADMINISTRATOR} SET log_error_verbosity = 'verbose'")
    text = script.read_text()
    short = script.with_name("short.sql")
    short.write_text(text.replace(":'password'", f"'{USER}{PASSWORD}'"))
    assert short.read_text() != text
    code, output, log = bootstrap(primary, short, policy)
    assert code != 0
    assert f'role "{USER}" did not get its password: password must not contain user name' in output
    assert "did not get its password" in log
    assert PASSWORD not in log + output
    assert stored_password(primary) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"log_statement": "all"},
        {"log_min_duration_statement": "0"},
        {"log_min_duration_sample": "0", "log_statement_sample_rate": "1"},
        {"log_transaction_sample_rate": "1"},
        {"auto_explain.log_min_duration": "0"},
    ],
    ids=str,
)
def test_where_statements_are_logged_the_password_is_not_sent(
    primary: Cluster, script: Path, settings: Mapping[str, str]
) -> None:
    code, output, log = bootstrap(primary, script, settings)
    assert code != 0
    assert "this server keeps statements" in output
    assert r"\password" in output
    assert PASSWORD not in log + output
