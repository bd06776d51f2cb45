"""PS409 to PS412: PgCat, Permify, the migration and bootstrap.sql agree about PostgreSQL itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.checks import STACK, check
from pgcat_stack.checks._uris import listed, not_primary, primaries_of, through_pgcat, used_pools
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BOOTSTRAP, PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.connections import Connection
from pgcat_stack.reading.reading import Reading

_PLAN = re.compile(r"plan_cache_mode\s*(?:=|\bTO\b)\s*'?(\w+)", re.IGNORECASE)


@check(
    code="PS409",
    name="uri-plan-cache-mode",
    severity="error",
    needs=STACK,
    why="Permify always sends plan_cache_mode when it connects, `auto` unless its URI says"
    " otherwise, and that"
    " beats what bootstrap.sql sets on the role. PgCat drops it; direct, the URI must carry it.",
    fix="Write `plan_cache_mode=force_custom_plan` into the URI, or what bootstrap.sql sets.",
)
def uri_plan_cache_mode(reading: Reading) -> Iterator[Problem]:
    """Direct URIs whose plan_cache_mode differs from the role's."""
    statements = _PLAN.findall(_sql(reading.sources.get(BOOTSTRAP)))
    wanted = statements[-1].lower() if statements else "force_custom_plan"
    for connection in reading.connections.direct:
        mode = connection.uri.options.get("plan_cache_mode", "auto")
        if connection.uri.servers and mode != wanted:
            yield Problem(
                connection.location,
                f"{connection.what} asks for plan_cache_mode {mode}, the role's is {wanted}",
                f"write plan_cache_mode={wanted} into the URI",
            )


def _sql(source: Source | None) -> str:
    """The text of an SQL file, comments blanked."""
    return re.sub(r"--[^\n]*", "", source.text) if source else ""


_DATABASE = re.compile(r'CREATE\s+DATABASE\s+(?:"((?:[^"]|"")+)"|([\w$]+))', re.IGNORECASE)
_ROLE = re.compile(r'\b(?:CREATE|ALTER)\s+(?:ROLE|USER)\s+(?:"((?:[^"]|"")+)"|([\w$]+))', re.IGNORECASE)


def _bootstrapped(reading: Reading, statement: re.Pattern[str]) -> dict[str, Location]:
    """The databases or roles that bootstrap.sql makes."""
    source = reading.sources.get(BOOTSTRAP)
    text = _sql(source)
    found: dict[str, Location] = {}
    for match in statement.finditer(text) if source else ():
        name = match[1].replace('""', '"') if match[1] else match[2].lower()
        if source:
            found.setdefault(name, source.here(text.count("\n", 0, match.start()) + 1))
    return found


def _to_postgresql(reading: Reading) -> list[Connection]:
    """The connection strings that reach PostgreSQL without PgCat."""
    connections = [*reading.connections.direct, *reading.connections.migrations]
    return [connection for connection in connections if connection.uri.servers]


def _disagreements(
    what: str, uses: list[tuple[str, str, Location]], made: dict[str, Location]
) -> Iterator[Problem]:
    """Uses of a name other than what bootstrap.sql makes or, without it, than most others."""
    names = [name for name, _, _ in uses if name]
    expected = set(made) or ({max(sorted(set(names)), key=names.count)} if names else set())
    source = BOOTSTRAP if made else "other files"
    for name, user, location in uses:
        if expected and name not in expected:
            text = f"{user} uses the {what} {show(name)}, {source} the {what} {listed(expected)}"
            yield Problem(location, text, f"use {listed(expected)} here, or change {source}")


@check(
    code="PS410",
    name="database-name",
    severity="error",
    needs=STACK,
    why="The migration, PgCat's pools and direct connections must use the database that"
    " bootstrap.sql makes, or"
    " Permify does not find its tables.",
    fix="Use the same database everywhere.",
)
def database_name(reading: Reading) -> Iterator[Problem]:
    """Databases of shards, the migration and direct URIs that differ."""
    uses = []
    for pool in used_pools(reading):
        for shard in pool.shards:
            if shard.database.value is not None:
                uses.append((shard.database.value, f"the pool {pool.name}", shard.database.location))
    for connection in _to_postgresql(reading):
        uses.append((connection.uri.database, connection.what, connection.location))
    yield from _disagreements("database", uses, _bootstrapped(reading, _DATABASE))


@check(
    code="PS411",
    name="database-user",
    severity="error",
    needs=STACK,
    why="The role that bootstrap.sql makes carries the connection limit, the plan_cache_mode"
    " and the rights; another"
    " role has none of them, and tables that one role makes the other may not read.",
    fix="Use the same role everywhere.",
)
def database_user(reading: Reading) -> Iterator[Problem]:
    """Roles that PgCat, the migration and direct URIs log in to PostgreSQL as, where they differ."""
    uses = []
    for pool in used_pools(reading):
        for user in pool.users:
            if user.server_name:
                uses.append((user.server_name, f"the pool {pool.name}", user.location))
    for connection in _to_postgresql(reading):
        uses.append((connection.uri.user, connection.what, connection.location))
    yield from _disagreements("role", uses, _bootstrapped(reading, _ROLE))


@check(
    code="PS412",
    name="migration-not-on-the-primary",
    severity="error",
    needs=STACK,
    why="Migrations change tables, so they need the primary; through a pooler their locks and"
    " settings do not stay"
    " on one connection.",
    fix="Let the migration's URI name the primary itself.",
)
def migration_not_on_the_primary(reading: Reading) -> Iterator[Problem]:
    """Migrations that go through PgCat or to another server."""
    primaries = {
        server.address
        for connection, pool in through_pgcat(reading)
        if connection.side != "reader"
        for server in pool.servers
        if server.role == "primary"
    }
    where = PGCAT if primaries else "budget.yaml"
    primaries = primaries or primaries_of(reading)
    for connection in reading.connections.migrations:
        ports = reading.network.reach(connection) or {}
        if any(server.host in ports for server in connection.uri.servers):
            fix = f"use the primary, {listed(primaries)}"
            yield Problem(connection.location, "the migration goes through PgCat", fix)
        elif primaries:
            yield from not_primary(connection, primaries, where)
