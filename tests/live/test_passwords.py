"""Strange passwords log in for real: by md5 to PgCat, and from there by SCRAM to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from live.repeats import LATEST
from live.stack import EXTERNAL, Stack, pgcat_program
from live.support import LOOPBACK, Cluster
from pgcat_stack.secrets import pgpass_line, pgpass_passwords

PASSWORDS = {
    "quotes": 'it\'s "quoted"',
    "backslashes": "\\\\\\",
    "escapes": r"\n\t\u0041\"\x41\\",
    "comment": "a#b # c",
    "replacement": r"&\&\\&\1",
    "shell": "$HOME $(id) `id` ${PATH}|;%s",
    "url": "a:b@c/d?e=f&g#h%20",
    "its own placeholder": "${database_password}",
    "accents": "é à ü ß ñ",
    "characters of three bytes": "漢字",
    "characters of four bytes": "🐈🐘",
    "spaces around": "  a b  ",
    "1 kB": ('pässwörd "\\' * 100)[:1024],
}


@pytest.fixture(scope="module", params=["pgcat", LATEST])
def stack(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A deployment without Permify, whose PgCat is started anew for each password."""
    binary = pgcat_program(request.param)
    folder: Path = tmp_path_factory.mktemp("passwords")
    answers = {"topology": "standalone", **EXTERNAL}
    stack = Stack(cluster, answers, binary, folder / "deployment", folder / "live")
    cluster.clear(stack.database, stack.user)
    yield stack


@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS)
def test_strange_password_logs_in(stack: Stack, password: str) -> None:
    stack.password = password
    (stack.secrets / "database_password").write_text(password + "\n")
    stack.bootstrap()
    stack.cluster.catch_up()
    ((stored,),) = stack.cluster.primary.sql(
        "SELECT rolpassword FROM pg_authid WHERE rolname = %s", stack.user
    )
    assert stored.startswith("SCRAM-SHA-256$")
    with stack.pgcat(list(PASSWORDS.values()).index(password)) as pgcat:
        for pool in ("permify_writer", "permify_reader"):
            with stack.connect(pgcat.port, pool) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (stack.user,)
            if password == password.strip():
                # As the hook writes it for Permify, and as it is taken back from there.
                file = stack.folder / "database.pgpass"
                file.write_text(pgpass_line(password))
                assert pgpass_passwords(file.read_text()) == (password,)
                file.chmod(0o600)
                with psycopg.connect(
                    host=LOOPBACK,
                    port=pgcat.port,
                    dbname=pool,
                    user=stack.user,
                    passfile=str(file),
                    autocommit=True,
                    prepare_threshold=None,
                ) as connection:
                    assert connection.execute("SELECT current_user").fetchone() == (stack.user,)
            with pytest.raises(psycopg.OperationalError):
                stack.connect(pgcat.port, pool, password + "x")
