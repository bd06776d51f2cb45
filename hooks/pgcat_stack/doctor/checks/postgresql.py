"""PD2xx: the PostgreSQL servers against budget.yaml, bootstrap.sql and the roles that they are given."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.doctor.answers import Case
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.reaching import first_of
from pgcat_stack.doctor.facts import Server
from pgcat_stack.doctor.postgres import ServerFacts
from pgcat_stack.findings import Location, Problem

OLDEST_VERSION = 130008
"""What Permify needs: PostgreSQL 13.8."""
NO_LIMIT = -1
PLAN_CACHE_MODE = "force_custom_plan"


@check(
    code="PD201",
    name="login-refused",
    severity="error",
    why="PostgreSQL refuses the role that PgCat and Permify log in as. Connections that are open still work,"
    " so this shows only as they are replaced.",
    mend="After a new password, every program must have it: see the section on rotation in the deployment's"
    " README. A rule in pg_hba.conf must let the role in.",
)
def login_refused(case: Case) -> Iterator[Problem]:
    """Logins that were refused."""
    login = case.facts.login
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "login" and login is not None:
            text = answer.trouble.text
            fix = "give the role its rights: run postgres/bootstrap.sql again"
            if "password" in text:
                fix = (
                    "is DATABASE_PASSWORD, or the secret, the role's password?"
                    " DATABASE_PASSWORD=… with postgres/bootstrap.sql sets it"
                )
            elif "pg_hba" in text:
                fix = f"let {login.user} in by pg_hba.conf, for PgCat's addresses and this one"
            yield Problem(_role_at(case, server), f"{server.address} refuses {login.user}: {text}", fix)


@check(
    code="PD202",
    name="database-missing",
    severity="error",
    why="The server is there, the database is not: another server, or bootstrap.sql was never run on it.",
    mend="Run postgres/bootstrap.sql on the primary, then the migration.",
)
def database_missing(case: Case) -> Iterator[Problem]:
    """Servers without the database."""
    login = case.facts.login
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "database" and login is not None:
            place = case.facts.bootstrap_at("CREATE DATABASE", server.location)
            message = f"{server.address} has no database {login.database}"
            yield Problem(place, message, "run postgres/bootstrap.sql on the primary, then the migration")


@check(
    code="PD203",
    name="no-connection-left",
    severity="error",
    why="PostgreSQL refuses another connection: of the role, whose limit is the capacity, or of anybody.",
    mend="See who holds them with `SELECT usename, application_name, client_addr, count(*) FROM"
    " pg_stat_activity GROUP BY 1, 2, 3`, as an administrator.",
)
def no_connection_left(case: Case) -> Iterator[Problem]:
    """Servers that refuse for want of connections."""
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "limit":
            message = f"{server.address} takes no more connections: {answer.trouble.text}"
            who = f"; the role has {_by_whom(answer.facts)}" if answer.facts else ""
            fix = "find who holds them in pg_stat_activity; stop PgCat processes beyond the plan"
            yield Problem(_capacity_at(case, server), message + who, fix)


@check(
    code="PD204",
    name="max-connections-below",
    severity="error",
    why="The budget counts with more connections than the server has: it refuses some at peak load.",
    mend="Raise max_connections on the server (a restart), or lower it in the answers and update.",
)
def max_connections_below(case: Case) -> Iterator[Problem]:
    """Servers with fewer connections than budget.yaml says."""
    for server, facts in case.told:
        planned = server.row.server.max_connections if server.row else None
        if planned is not None and facts.max_connections < planned:
            message = (
                f"{server.address} has max_connections {facts.max_connections}, the budget counts {planned}"
            )
            fix = (
                f"set max_connections = {planned} there and restart it, or answer"
                f" postgres_max_connections={facts.max_connections}"
            )
            yield Problem(case.facts.budget_at(server, "max_connections"), message, fix)


@check(
    code="PD205",
    name="max-connections-above",
    severity="warning",
    why="The server has more connections than the budget uses: the pools could be larger.",
    mend="Answer `postgres_max_connections` with what the server has, and update.",
)
def max_connections_above(case: Case) -> Iterator[Problem]:
    """Servers with more connections than budget.yaml says."""
    for server, facts in case.told:
        planned = server.row.server.max_connections if server.row else None
        if planned is not None and facts.max_connections > planned:
            message = (
                f"{server.address} has max_connections {facts.max_connections}, the budget counts {planned}"
            )
            fix = f"answer postgres_max_connections={facts.max_connections} for larger pools"
            yield Problem(case.facts.budget_at(server, "max_connections"), message, fix)


@check(
    code="PD206",
    name="others-beyond-their-share",
    severity="warning",
    why="Others hold more connections than budget.yaml keeps for them, so the deployment's own may be refused"
    " at peak load. The slots that PostgreSQL reserves for superusers count as theirs.",
    mend="Answer `other_connections` with what others really need, or lower their pools.",
)
def others_beyond_their_share(case: Case) -> Iterator[Problem]:
    """Servers where others have more connections now than are kept for them."""
    for server, facts in case.told:
        kept = server.row.server.other_connections if server.row else None
        held = facts.others_ordinary + max(facts.reserved, facts.others_superuser)
        if kept is not None and facts.reserved <= kept < held:  # fewer than are reserved: PD225
            message = (
                f"on {server.address} others take {held} connections ({facts.others_ordinary} of other roles,"
                f" {facts.others_superuser} of superusers, {facts.reserved} reserved for these), the budget"
                f" keeps {kept} for them"
            )
            fix = f"answer other_connections={held} or more, or have them use fewer"
            yield Problem(case.facts.budget_at(server, "other_connections"), message, fix)


@check(
    code="PD207",
    name="role-limit-differs",
    severity="error",
    why="The role's CONNECTION LIMIT is the last guard of everybody else's connections. Above the capacity it"
    " guards nothing; below it connections are refused that the budget counts with.",
    mend="Run postgres/bootstrap.sql of this deployment again: it brings a changed budget into force.",
)
def role_limit_differs(case: Case) -> Iterator[Problem]:
    """A limit of the role that is not the capacity."""
    primary = case.facts.primary
    for server, facts in case.told:
        capacity = server.row.server.capacity if server.row else None
        if server is not primary and case.primary is not None:
            continue  # replicas have the primary's roles
        if capacity is None or facts.superuser or facts.connection_limit == capacity:
            continue
        limit = "none" if facts.connection_limit == NO_LIMIT else str(facts.connection_limit)
        message = (
            f"the connection limit of the role is {limit} on {server.address}, the capacity is {capacity}"
        )
        yield Problem(
            _limit_at(case, server), message, "run postgres/bootstrap.sql again as an administrator"
        )


@check(
    code="PD208",
    name="role-is-superuser",
    severity="error",
    why="No connection limit binds a superuser, and Permify needs none of its rights.",
    mend="Take the right away, or answer `database_user` with a role of its own.",
)
def role_is_superuser(case: Case) -> Iterator[Problem]:
    """A superuser as Permify's role."""
    for server, facts in case.told:
        login = case.facts.login
        if facts.superuser and login is not None:
            message = f"{login.user} is a superuser on {server.address}: its connection limit does not bind"
            fix = f'ALTER ROLE "{login.user}" NOSUPERUSER, as another superuser'
            yield Problem(_role_at(case, server), message, fix)
            return


@check(
    code="PD209",
    name="plan-cache-mode",
    severity="warning",
    why="Permify's tables hold tenants of very different size: a generic plan fits none of them. PgCat drops"
    " the setting from Permify's URI, so the role carries it.",
    mend="Run postgres/bootstrap.sql again; open connections keep the old setting until they are replaced.",
)
def plan_cache_mode(case: Case) -> Iterator[Problem]:
    """Another plan_cache_mode of the role behind PgCat. Direct, Permify's URI decides (PS409)."""
    if not case.facts.fronted:
        return
    for server, facts in case.told:
        if facts.plan_cache_mode != PLAN_CACHE_MODE:
            message = f"plan_cache_mode of the role is {facts.plan_cache_mode} on {server.address}"
            place = case.facts.bootstrap_at("plan_cache_mode", server.location)
            fix = "run postgres/bootstrap.sql again, then restart PgCat so that its connections have it"
            yield Problem(place, message, fix)
            return


@check(
    code="PD210",
    name="postgresql-too-old",
    severity="error",
    why="Permify needs PostgreSQL 13.8 or newer.",
    mend="Upgrade the server.",
)
def postgresql_too_old(case: Case) -> Iterator[Problem]:
    """Servers older than Permify can use."""
    for server, facts in case.told:
        if facts.version < OLDEST_VERSION:
            message = f"{server.address} runs PostgreSQL {facts.version_text}, Permify needs 13.8"
            yield Problem(server.location, message, "upgrade it")


@check(
    code="PD211",
    name="versions-differ",
    severity="error",
    why="A streaming replica runs the major version of its primary: another version is another cluster, or an"
    " upgrade that was not finished.",
    mend="Finish the upgrade, or correct the address.",
)
def versions_differ(case: Case) -> Iterator[Problem]:
    """Servers of another major version than the first."""
    told = list(case.told)
    for server, facts in told[1:]:
        first, first_facts = told[0]
        if facts.version // 10000 != first_facts.version // 10000:
            message = (
                f"{server.address} runs PostgreSQL {facts.version_text},"
                f" {first.address} {first_facts.version_text}"
            )
            yield Problem(server.location, message, "finish the upgrade, or correct the address")


@check(
    code="PD212",
    name="primary-is-a-replica",
    severity="error",
    why="Writes fail on a server that only follows. After a failover the addresses in the files are the old"
    " ones, unless a name follows the primary.",
    mend="Answer `primary_host` with the server that is the primary now, and update; or promote this one.",
)
def primary_is_a_replica(case: Case) -> Iterator[Problem]:
    """A primary that is in recovery."""
    for server, facts in case.told:
        if server.role == "primary" and facts.in_recovery:
            new = next((s.address for s, f in case.told if s.role != "primary" and not f.in_recovery), None)
            message = f"{server.address} should be the primary and is a read-only replica: every write fails"
            fix = (
                f"the primary is {new} now: swap both in the answers and update"
                if new
                else ("answer primary_host with the server that is the primary now, or promote this one")
            )
            yield Problem(case.facts.budget_at(server, "role"), message, fix)


@check(
    code="PD213",
    name="replica-is-a-primary",
    severity="error",
    why="A server that was promoted no longer follows: reads from it miss every later write.",
    mend="After a failover, swap the addresses in the answers; otherwise take it out of `replica_hosts` and"
    " build it anew as a replica.",
)
def replica_is_a_primary(case: Case) -> Iterator[Problem]:
    """A replica that is not in recovery."""
    for server, facts in case.told:
        if server.role != "primary" and not facts.in_recovery:
            message = (
                f"{server.address} should be a replica and is a primary: reads from it miss later writes"
            )
            fix = "take it out of replica_hosts until it follows again, or swap it with the primary"
            yield Problem(case.facts.budget_at(server, "role"), message, fix)


@check(
    code="PD214",
    name="other-cluster",
    severity="error",
    why="A replica has its primary's system identifier. One with another answers from other data.",
    mend="Correct the address, or build the replica anew from this primary.",
)
def other_cluster(case: Case) -> Iterator[Problem]:
    """Replicas of another cluster than the primary's."""
    primary = case.primary
    for server, facts in case.told:
        if primary is None or server.role == "primary" or not facts.in_recovery:
            continue
        if facts.system and primary.system and facts.system != primary.system:
            message = f"{server.address} is a replica of another cluster than {_primary_address(case)}"
            yield Problem(server.location, message, "correct the address, or build it anew from this primary")


@check(
    code="PD215",
    name="replica-not-streaming",
    severity="error",
    why="The replica is not connected to a primary: it answers, with ever older data.",
    mend="Its log says why: the primary's address, a password, a slot or WAL that is gone. A replica that"
    " cannot catch up is built anew.",
)
def replica_not_streaming(case: Case) -> Iterator[Problem]:
    """Replicas without a WAL receiver."""
    for server, answer in case.servers:
        facts, lag = answer.facts, answer.lag
        if facts is None or not facts.in_recovery or server.role == "primary" or facts.receives:
            continue
        behind = f", {_bytes(lag.bytes)} behind" if lag is not None and lag.bytes else ""
        message = f"{server.address} does not stream from a primary{behind}: reads from it grow old"
        fix = "see its log and primary_conninfo; until then take it out of replica_hosts"
        yield Problem(server.location, message, fix)


@check(
    code="PD216",
    name="replica-behind",
    severity="warning",
    why="Reads, head snapshots and schema lookups of Permify use the replicas. While one is behind, a schema"
    " that was just written is not found (SCHEMA_NOT_FOUND), and a permission that was just given is denied;"
    " the wrong denial can stay in Permify's cache.",
    mend="Look for what slows it: heavy writes, long queries on it, a paused replay, its disk or network.",
)
def replica_behind(case: Case) -> Iterator[Problem]:
    """Replicas that did not have what the primary had, while they were watched for a second."""
    for server, answer in case.servers:
        lag, facts = answer.lag, answer.facts
        if lag is None or lag.caught_up or facts is None or not facts.receives:
            continue
        message = (
            f"{server.address} is {lag.seconds:.0f} s and {_bytes(lag.bytes)} behind the primary: Permify"
            " denies what was just allowed, and does not find new schemas"
        )
        fix = "look at its load, long queries, disk and network"
        if facts.replay_paused:
            message += "; its replay is paused"
            fix = "SELECT pg_wal_replay_resume() there, as a superuser"
        yield Problem(server.location, message, fix)


@check(
    code="PD217",
    name="commit-timestamps-off",
    severity="error",
    why="Permify's watch reads the commit times that PostgreSQL keeps only with track_commit_timestamp.",
    mend="Set `track_commit_timestamp = on` and restart the servers, the primary first.",
)
def commit_timestamps_off(case: Case) -> Iterator[Problem]:
    """Servers without commit times behind a Permify that serves watch."""
    for server, facts in case.told:
        if case.facts.watch and not facts.track_commit_timestamp:
            message = f"watch is on, and {server.address} has track_commit_timestamp off"
            fix = "set track_commit_timestamp = on and restart it"
            yield Problem(case.facts.permify_at("service", "watch", "enabled"), message, fix)


@check(
    code="PD218",
    name="not-migrated",
    severity="error",
    why="Permify's tables are missing: the migration never ran against this database, or failed.",
    mend="Run the migration, straight to the primary; its log says why it failed.",
)
def not_migrated(case: Case) -> Iterator[Problem]:
    """A database without Permify's tables."""
    for server, facts in case.told:
        if not facts.tables and case.facts.login is not None:
            message = f"{server.address}: Permify's tables are not in {case.facts.login.database}"
            yield Problem(case.facts.migration_at, message, _migrate(case))
            return


@check(
    code="PD219",
    name="migration-not-noted",
    severity="error",
    why="Permify's pods wait until the migration of their version is noted in the database. Without the note"
    " new pods never start; those that run go on.",
    mend="Apply the deployment again, so that the Job runs, and look at its log.",
)
def migration_not_noted(case: Case) -> Iterator[Problem]:
    """A database without the note of this deployment's migration."""
    primary, wanted = case.primary, case.facts.migration
    if primary is None or wanted is None or not primary.tables or case.facts.primary is None:
        return
    name, place = wanted
    if primary.noted and (primary.notes is None or name in primary.notes):
        return
    message = (
        f"the migration {name} is not noted in {case.facts.primary.address}: new Permify pods wait for it"
    )
    yield Problem(place, message, _migrate(case))


@check(
    code="PD220",
    name="invalid-index",
    severity="warning",
    why="A migration that is cut short while it builds an index concurrently leaves it invalid: it costs at"
    " every write and serves no query.",
    mend="Where no index is being built right now: `REINDEX INDEX CONCURRENTLY NAME`, as the owner.",
)
def invalid_index(case: Case) -> Iterator[Problem]:
    """Indexes that PostgreSQL does not use."""
    for server, facts in case.told:
        if facts.invalid and server.role == "primary":
            names = ", ".join(facts.invalid)
            message = f"{server.address}: invalid after a migration that was cut short: {names}"
            fix = f"REINDEX INDEX CONCURRENTLY {facts.invalid[0]}, unless it is being built right now"
            yield Problem(case.facts.migration_at, message, fix)


@check(
    code="PD221",
    name="more-connections-than-planned",
    severity="error",
    why="The role holds more connections than the plan gives the deployment at its peak: more PgCat"
    " processes, larger pools than the files say, or somebody else who uses the role.",
    mend="The message names where they come from; stop what is not of this deployment, or plan for it.",
)
def more_connections_than_planned(case: Case) -> Iterator[Problem]:
    """Servers where the role has more connections than the demand."""
    for server, facts in case.told:
        if server.row is not None and server.row.uses and facts.connections > server.row.demand:
            message = (
                f"the role has {facts.connections} connections on {server.address}, the plan at most"
                f" {server.row.demand}: {_by_whom(facts)}"
            )
            fix = "stop what is not of this deployment; it needs a role of its own"
            yield Problem(server.row.uses[0].size.location, message, fix)


@check(
    code="PD222",
    name="connection-not-encrypted",
    severity="error",
    why="The files ask for TLS and connections go in the clear. PgCat falls back to plain text without a word"
    " when the server refuses TLS.",
    mend="Turn `ssl` on in the server and have `hostssl` in its pg_hba.conf, then restart PgCat.",
)
def connection_not_encrypted(case: Case) -> Iterator[Problem]:
    """Open connections without TLS where the files ask for it."""
    place = case.facts.encrypted
    for server, facts in case.told:
        plain = sum(group.count for group in facts.groups if not group.encrypted)
        if place is not None and plain:
            message = f"{plain} of {facts.connections} connections to {server.address} are not encrypted"
            fix = "ssl = on there and hostssl in its pg_hba.conf, then restart PgCat"
            if not case.facts.fronted:
                fix = "ssl = on there and hostssl in its pg_hba.conf, then restart Permify"
            yield Problem(place, message, fix)


@check(
    code="PD225",
    name="reserved-beyond-plan",
    severity="error",
    why="PostgreSQL keeps superuser_reserved_connections for superusers and, since version 16,"
    " reserved_connections for members of pg_use_reserved_connections. The role gets none of them: the budget"
    " counts with connections that the server refuses.",
    mend="Answer `other_connections` with at least what the server reserves, and update.",
)
def reserved_beyond_plan(case: Case) -> Iterator[Problem]:
    """Servers that reserve more connections than budget.yaml keeps for others."""
    for server, facts in case.told:
        kept = server.row.server.other_connections if server.row else None
        if kept is not None and facts.reserved > kept:
            message = (
                f"{server.address} reserves {facts.reserved} connections ({_reserved_by(facts)}), the budget"
                f" keeps {kept} for others"
            )
            fix = f"answer other_connections={facts.reserved} or more"
            yield Problem(case.facts.budget_at(server, "other_connections"), message, fix)


def _reserved_by(facts: ServerFacts) -> str:
    parts = {
        "superuser_reserved_connections": facts.reserved_superuser,
        "reserved_connections": facts.reserved_others,
    }
    return " + ".join(f"{name} {number}" for name, number in parts.items() if number)


@check(
    code="PD226",
    name="no-ca",
    severity="warning",
    why="By the files, clients verify the certificate of PostgreSQL, or of PgCat, and the CA is not here. The"
    " doctor does not log in to a server that it cannot verify.",
    mend="Let the doctor read the CA by kubectl, or set `DATABASE_CA_FILE` or `PGCAT_CA_FILE`"
    " to a file with it.",
)
def no_ca(case: Case) -> Iterator[Problem]:
    """What was not asked because nothing here says whom to trust."""
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "no-ca":
            message, _, fix = answer.trouble.text.rpartition(": ")
            place = case.facts.encryption(server.address).location
            yield Problem(place, f"{server.address} was not asked: {message}", fix)
    for pgcat in case.answers.pgcats:
        trouble = first_of(pgcat, "no-ca")
        if trouble is not None:
            message, _, fix = trouble.text.rpartition(": ")
            place = case.facts.pgcat_encryption.location
            yield Problem(place, f"PgCat {pgcat.name} was not asked: {message}", fix)


@check(
    code="PD227",
    name="login-by-md5",
    severity="warning",
    why="The server asks for a login by MD5. Its certificate is not verified, so it may be a stranger, who"
    " could log in to PgCat with the answer. The doctor did not answer.",
    mend="Set `password_encryption = 'scram-sha-256'` and the role's password anew, with `scram-sha-256` in"
    " pg_hba.conf; PgCat and Permify log in by both. Where the role has such a password already, find out who"
    " answers at this address.",
)
def login_by_md5(case: Case) -> Iterator[Problem]:
    """Servers that want MD5 and have not proven who they are."""
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "md5":
            message = f"{server.address} asks for a login by MD5, and has not proven who it is: it got none"
            fix = "use scram-sha-256 in pg_hba.conf; if it does, this is another server"
            yield Problem(_role_at(case, server), message, fix)


def _by_whom(facts: ServerFacts) -> str:
    """`12 of pgcat from 10.0.0.7`, the largest groups first."""
    merged: dict[tuple[str, str], int] = {}
    for group in facts.groups:
        key = group.application or "no application name", group.client
        merged[key] = merged.get(key, 0) + group.count
    listed = sorted(merged.items(), key=lambda item: -item[1])
    parts = [f"{count} of {application} from {client}" for (application, client), count in listed[:4]]
    if len(listed) > 4:
        parts.append(f"{sum(count for _, count in listed[4:])} more")
    return ", ".join(parts)


def _role_at(case: Case, server: Server) -> Location:
    return case.facts.bootstrap_at("CREATE ROLE", server.location)


def _limit_at(case: Case, server: Server) -> Location:
    return case.facts.bootstrap_at("CONNECTION LIMIT", _capacity_at(case, server))


def _capacity_at(case: Case, server: Server) -> Location:
    return case.facts.budget_at(server, "max_connections")


def _primary_address(case: Case) -> str:
    return str(case.facts.primary.address) if case.facts.primary else "the primary"


def _migrate(case: Case) -> str:
    if case.facts.platform == "docker":
        return "docker compose run --rm migrate"
    scope = f" -n {case.facts.namespace}" if case.facts.namespace else ""
    return f"kubectl{scope} logs job/NAME says why it failed; kubectl apply -k . runs it again"


def _bytes(number: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 10_000:
            return f"{number} {unit}"
        number //= 1024
    return f"{number} GB"
