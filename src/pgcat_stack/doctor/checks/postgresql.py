"""PD2xx: the PostgreSQL servers against budget.yaml, bootstrap.sql and the roles that they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgcat_stack.doctor.case import Case
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.processes import first_of
from pgcat_stack.doctor.expected import Server
from pgcat_stack.doctor.postgres import APPLICATION, ServerFacts, Session, Setting
from pgcat_stack.findings import Location, Problem

OLDEST_VERSION = 130008
"""What Permify needs: PostgreSQL 13.8."""
NO_LIMIT = -1
PLAN_CACHE_MODE = "force_custom_plan"
READ_ONLY = "default_transaction_read_only"
ON = ("on", "true", "yes", "1")
NEW_ONES_FAIL = ("mute", "refused", "failed")
"""The kinds of trouble with a server that somebody listens for, and that lets nobody in."""
BLOCKED_SECONDS = 1.0
"""A lock that is waited for less long is everyday."""
LONG_SECONDS = 300.0
COMMIT_WAIT = "SyncRep"
"""The wait event of a commit for a synchronous standby."""


@check(
    code="PD201",
    name="login-refused",
    severity="error",
    why="PostgreSQL refuses the role that PgCat and Permify log in as. Connections that are open still work,"
    " so this shows only as they are replaced.",
    fix="After a new password, every program must have it: see the section on rotation in the deployment's"
    " README. A rule in pg_hba.conf must let the role in.",
)
def login_refused(case: Case) -> Iterator[Problem]:
    """Logins that were refused, those for one reason together: replicas have the primary's roles."""
    login = case.facts.login
    refused: dict[str, list[Server]] = {}
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "login":
            refused.setdefault(answer.trouble.text, []).append(server)
    for text, servers in refused.items():
        if login is None:
            return
        fix = f"give the role its rights: {_bootstrap(case)}"
        if "password" in text:
            fix = (
                "is the secret, or DATABASE_PASSWORD, the role's password?"
                f" {_bootstrap(case)} gives the role that password"
            )
        elif "pg_hba" in text:
            fix = f"let {login.user} in by pg_hba.conf, for PgCat's addresses and this one"
        where = " and ".join(str(server.address) for server in servers)
        refuse = "refuses" if len(servers) == 1 else "refuse"
        yield Problem(_role_at(case, servers[0]), f"{where} {refuse} {login.user}: {text}", fix)


@check(
    code="PD202",
    name="database-missing",
    severity="error",
    why="The server is there, the database is not: another server, or bootstrap.sql was never run on it.",
    fix="Run postgres/bootstrap.sql on the primary, then the migration.",
)
def database_missing(case: Case) -> Iterator[Problem]:
    """Servers without the database."""
    login = case.facts.login
    for server, answer in case.servers:
        if answer.trouble is not None and answer.trouble.kind == "database" and login is not None:
            place = case.facts.bootstrap_at("CREATE DATABASE", server.location)
            message = f"{server.address} has no database {login.database}"
            yield Problem(place, message, f"{_bootstrap(case)}, then {_migrate(case)}")


@check(
    code="PD203",
    name="no-connection-left",
    severity="error",
    why="PostgreSQL refuses another connection. `too many connections for role`: the role is at its own"
    " limit, because more of this deployment runs than planned, or the limit is not the capacity. `too many"
    " clients`, `remaining connection slots`: the server is full, mostly of other applications.",
    fix="The message names who holds them, as far as that can be seen: end or limit that one. PgCat keeps"
    " the connections that it has. Where the doctor gets no connection either, ask as a superuser, for whom"
    " PostgreSQL keeps some: `SELECT usename, application_name, client_addr, count(*) FROM pg_stat_activity"
    " GROUP BY 1, 2, 3 ORDER BY 4 DESC`.",
)
def no_connection_left(case: Case) -> Iterator[Problem]:
    """Servers that refuse for want of connections."""
    for server, answer in case.servers:
        if answer.trouble is None or answer.trouble.kind != "limit":
            continue
        facts = answer.facts
        message = f"{server.address} takes no more connections: {answer.trouble.text}"
        text = answer.trouble.text
        if "for role" in text and (facts is None or _limit_is_lower(server, facts)):
            message = f"{server.address} lets the role have no more connections: {text}"
            fix = (
                "compare rolconnlimit of the role in pg_roles with the capacity in budget.yaml: if somebody"
                f" lowered it, ask why, then {_bootstrap(case)}"
            )
        elif facts is None and "too many clients" in text:
            shown = (
                "docker compose top postgres-primary shows" if case.facts.bootstraps else "its machine shows"
            )
            fix = f"superusers are refused as well: {shown} who is connected; end one session to get in"
        elif facts is None:
            fix = "who holds them cannot be seen from here: ask pg_stat_activity as a superuser, who gets in"
        elif "for role" in text:
            message += f"; the role has {_by_whom(facts)}"
            fix = f"is the role's limit the capacity ({_bootstrap(case)})? who else uses the role?"
            if _beyond(server, facts):
                planned = server.row.demand if server.row else 0
                fix = f"the plan has at most {planned}: stop what is not of this deployment"
        else:
            message += f"; held by {_held(facts)}"
            fix = _less(case, server, facts)
        yield Problem(_capacity_at(case, server), message, fix)


def _limit_is_lower(server: Server, facts: ServerFacts) -> bool:
    """Whether the role's CONNECTION LIMIT is below the capacity, as where somebody has changed it."""
    capacity = server.row.server.capacity if server.row else None
    return capacity is not None and 0 <= facts.connection_limit < capacity


def _beyond(server: Server, facts: ServerFacts) -> bool:
    """Whether the role itself has more than the plan."""
    return server.row is not None and bool(server.row.uses) and facts.connections > server.row.demand


def _held(facts: ServerFacts) -> str:
    """`97 of reports (nightly), 2 of permify (pgcat)`, the most first."""
    found = [f"{h.count} of {h.user} ({h.application or 'no application name'})" for h in facts.holders[:4]]
    if len(facts.holders) > 4:
        found.append(f"{sum(h.count for h in facts.holders[4:])} or more of others")
    return ", ".join(found) or "somebody who cannot be seen"


def _less(case: Case, server: Server, facts: ServerFacts) -> str:
    """Who has to give connections back."""
    login = case.facts.login
    if _beyond(server, facts):
        planned = server.row.demand if server.row else 0
        return f"the plan gives the role at most {planned} of them: stop PgCat processes beyond the plan"
    most = next((h for h in facts.holders if login is None or h.user != login.user), None)
    if most is None:
        return "find who holds them in pg_stat_activity, as a superuser"
    kept = server.row.server.other_connections if server.row else None
    share = f" (the budget keeps {kept} for all others)" if kept is not None else ""
    fix = f"have {most.user} use fewer{share}: close them there"
    if most.superuser:
        inside = "docker compose top of the server's service shows those that run inside it"
        return f"{fix}; {inside if case.facts.bootstraps else 'no limit binds a superuser'}"
    return f'{fix}, or ALTER ROLE "{most.user}" CONNECTION LIMIT {kept if kept is not None else "N"}'


@check(
    code="PD204",
    name="max-connections-below",
    severity="error",
    why="The budget counts with more connections than the server has: it refuses some at peak load.",
    fix="Raise max_connections on the server (a restart), or lower it in the answers and update.",
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
    fix="Answer `postgres_max_connections` with what the server has, and update.",
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
    fix="Answer `other_connections` with what others really need, or lower their pools.",
)
def others_beyond_their_share(case: Case) -> Iterator[Problem]:
    """Servers where others have more connections now than are kept for them, unless PD203 names them."""
    for server, facts in case.told:
        row = server.row
        kept = row.server.other_connections if row else None
        held = facts.others_ordinary + max(facts.reserved, facts.others_superuser)
        if row is None or kept is None or case.limited(server):
            continue
        if facts.reserved <= kept < held:  # fewer than are reserved: PD225
            message = (
                f"on {server.address} others take {held} connections ({facts.others_ordinary} of other roles,"
                f" {facts.others_superuser} of superusers, {facts.reserved} reserved for these), the budget"
                f" keeps {kept} for them"
            )
            left = facts.max_connections - held
            fix = f"answer other_connections={held} or more, or have them use fewer"
            if left < row.demand:
                message += f"; most are held by {_held(facts)}"
                fix = f"{_less(case, server, facts)}; {left} are left, and the plan needs {row.demand}"
            yield Problem(case.facts.budget_at(server, "other_connections"), message, fix)


@check(
    code="PD207",
    name="role-limit-differs",
    severity="error",
    why="The role's CONNECTION LIMIT is the last guard of everybody else's connections. Above the capacity it"
    " guards nothing; below it connections are refused that the budget counts with.",
    fix="Run postgres/bootstrap.sql of this deployment again: it brings a changed budget into force.",
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
        yield Problem(_limit_at(case, server), message, _bootstrap(case))


@check(
    code="PD208",
    name="role-is-superuser",
    severity="error",
    why="No connection limit binds a superuser, and Permify needs none of its rights.",
    fix="Take the right away, or answer `database_user` with a role of its own.",
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
    fix="Run postgres/bootstrap.sql again; open connections keep the old setting until they are replaced.",
)
def plan_cache_mode(case: Case) -> Iterator[Problem]:
    """Another plan_cache_mode of the role behind PgCat. Direct, Permify's URI decides (PS409)."""
    if not case.facts.fronted:
        return
    for server, facts in case.told:
        if facts.plan_cache_mode != PLAN_CACHE_MODE:
            message = f"plan_cache_mode of the role is {facts.plan_cache_mode} on {server.address}"
            place = case.facts.bootstrap_at("plan_cache_mode", server.location)
            fix = f"{_bootstrap(case)}, then restart PgCat so that its connections have it"
            yield Problem(place, message, fix)
            return


@check(
    code="PD210",
    name="postgresql-too-old",
    severity="error",
    why="Permify needs PostgreSQL 13.8 or newer.",
    fix="Upgrade the server.",
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
    fix="Finish the upgrade, or correct the address.",
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
    fix="Answer `primary_host` with the server that is the primary now, and update; or promote this one.",
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
    fix="After a failover, swap the addresses in the answers; otherwise take it out of `replica_hosts` and"
    " build it anew as a replica.",
)
def replica_is_a_primary(case: Case) -> Iterator[Problem]:
    """A replica that is not in recovery."""
    for server, facts in case.told:
        if server.role != "primary" and not facts.in_recovery:
            message = (
                f"{server.address} should be a replica and is a primary: reads from it miss later writes"
            )
            fix = "it lacks what the primary got since: take it out of replica_hosts, or let it follow anew"
            if case.facts.bootstraps:
                fix = "let it follow anew: Two primaries, in README.md"
            elif case.primary is not None and case.primary.in_recovery:
                fix = "after a failover: swap primary_host and replica_hosts"
            yield Problem(case.facts.budget_at(server, "role"), message, fix)


@check(
    code="PD214",
    name="other-cluster",
    severity="error",
    why="A replica has its primary's system identifier. One with another answers from other data.",
    fix="Correct the address, or build the replica anew from this primary.",
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
    fix="Its log says why: the primary's address, a password, a slot or WAL that is gone. A replica that"
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
    fix="Look for what slows it: heavy writes, long queries on it, a paused replay, its disk or network.",
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
            fix = "ask who paused it and why; then SELECT pg_wal_replay_resume() there, as a superuser"
        yield Problem(server.location, message, fix)


@check(
    code="PD217",
    name="commit-timestamps-off",
    severity="error",
    why="Permify's watch reads the commit times that PostgreSQL keeps only with track_commit_timestamp.",
    fix="Set `track_commit_timestamp = on` and restart the servers, the primary first.",
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
    why="Permify's tables are missing: the migration never ran against this database, or failed. Where only"
    " some are missing and `migrations` is there, somebody renamed, moved or dropped them.",
    fix="Run the migration, straight to the primary; its log says why it failed. It makes no table again that"
    " it has made once: rename it back, or restore it.",
)
def not_migrated(case: Case) -> Iterator[Problem]:
    """A database without Permify's tables."""
    for server, facts in case.told:
        if not facts.missing or case.facts.login is None or _out_of_sight(facts) is not None:
            continue
        message = f"{server.address}: Permify's tables are not in {case.facts.login.database}"
        fix = _migrate(case)
        if "migrations" not in facts.missing:  # the migration has run, and would not make them again
            names = ", ".join(facts.missing)
            message = f"{server.address}: of Permify's tables {names} is not in {case.facts.login.database}"
            fix = (
                "the migration has run and does not make it again: was it renamed, or moved to another"
                " schema? If it was dropped, restore it from a backup"
            )
        yield Problem(case.facts.migration_at, message, fix)
        return


@check(
    code="PD219",
    name="migration-not-noted",
    severity="error",
    why="Permify's pods wait until the migration of their version is noted in the database. Without the note"
    " new pods never start; those that run go on.",
    fix="Apply the deployment again, so that the Job runs, and look at its log.",
)
def migration_not_noted(case: Case) -> Iterator[Problem]:
    """A database without the note of this deployment's migration."""
    primary, wanted = case.primary, case.facts.migration
    if primary is None or wanted is None or primary.missing or case.facts.primary is None:
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
    fix="Where no index is being built right now: `REINDEX INDEX CONCURRENTLY NAME`, as the owner.",
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
    fix="The message names where they come from; stop what is not of this deployment, or plan for it.",
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
            if _of_others(case, facts):
                fix = (
                    "if the address is PgCat's, their clients are gone and pg_cancel_backend ends them;"
                    " otherwise it needs a role of its own"
                )
            yield Problem(server.row.uses[0].size.location, message, fix)


@check(
    code="PD222",
    name="connection-not-encrypted",
    severity="error",
    why="The files ask for TLS and connections go in the clear. PgCat falls back to plain text without a word"
    " when the server refuses TLS.",
    fix="Turn `ssl` on in the server and have `hostssl` in its pg_hba.conf, then restart PgCat.",
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
    fix="Answer `other_connections` with at least what the server reserves, and update.",
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
    fix="Let the doctor read the CA by kubectl, or set `DATABASE_CA_FILE` or `PGCAT_CA_FILE`"
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
    fix="Set `password_encryption = 'scram-sha-256'` and the role's password anew, with `scram-sha-256` in"
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


@check(
    code="PD223",
    name="sessions-blocked",
    severity="error",
    why="Sessions of the role wait for a lock that another session holds: their requests hang, and with them"
    " all that wait for the same pool or tenant. The server itself is well. A replica also waits for locks"
    " that are taken on the primary.",
    fix="The message names who holds the lock. Find out what it does: a migration or a backup ends by"
    " itself; `idle in transaction` is a client that forgot to end. `SELECT pg_cancel_backend(PID)` ends a"
    " statement, `SELECT pg_terminate_backend(PID)` the session: its transaction is rolled back, and its"
    " work is lost. Do not end or restart the server.",
)
def sessions_blocked(case: Case) -> Iterator[Problem]:
    """Sessions of the role that have waited for a lock for a while."""
    for server, facts in case.told:
        found = {session.pid: session for session in facts.sessions}
        for pid, those in blocked(case, facts).items():
            longest = max(those, key=lambda session: session.statement_seconds or 0.0)
            count = "1 session waits" if len(those) == 1 else f"{len(those)} sessions wait"
            who, fix = _blocker(server, facts, pid, found.get(pid))
            message = (
                f"on {server.address} {count} for a lock, the longest {longest.statement_seconds:.0f} s"
                f" ({longest.statement}), {who}"
            )
            yield Problem(server.location, message, fix)


def blocked(case: Case, facts: ServerFacts) -> dict[int, list[Session]]:
    """The sessions of the role that wait for a lock for a while, by the pid that holds it in the end."""
    login = case.facts.login
    found = {session.pid: session for session in facts.sessions}
    waits = dict(facts.waits)
    held: dict[int, list[Session]] = {}
    for pid, blockers in facts.waits:
        waiting = found.get(pid)
        if waiting is None or login is None or waiting.user != login.user:
            continue
        if (waiting.statement_seconds or 0.0) >= BLOCKED_SECONDS:
            for blocker in sorted(_holders(blockers, waits)):
                held.setdefault(blocker, []).append(waiting)
    return held


def _holders(blockers: tuple[int, ...], waits: dict[int, tuple[int, ...]]) -> set[int]:
    """Those at the end of the chain of blockers, who wait for nobody."""
    found: set[int] = set()
    seen: set[int] = set()
    left = list(blockers)
    while left:
        pid = left.pop()
        if pid in seen:
            continue
        seen.add(pid)
        more = waits.get(pid, ())
        left += more
        if not more:
            found.add(pid)
    return found or set(blockers)


def _blocker(server: Server, facts: ServerFacts, pid: int, session: Session | None) -> tuple[str, str]:
    """Who holds a lock, and what to do about it."""
    if pid == 0:
        names = ", ".join(f"{one.name} of {one.owner}, {one.seconds:.0f} s old" for one in facts.prepared[:3])
        fix = "COMMIT PREPARED or ROLLBACK PREPARED, as its owner or a superuser"
        return f"held by a prepared transaction: {names or 'see pg_prepared_xacts'}", fix
    if facts.in_recovery and (session is None or not session.user):
        fix = (
            "end that session on the primary, often `idle in transaction`, even if no session waits for it"
            " there; it is released here once that is replayed"
        )
        return "held by the replay of a lock that a session of the primary has taken", fix
    if session is None:
        return f"held by pid {pid}, which is gone by now", "run the doctor again"
    end = (
        f"ask its owner; pg_cancel_backend({pid}) there ends its statement, pg_terminate_backend({pid}) its"
        " session; either rolls its transaction back"
    )
    return f"held by {described(session)}", end


def described(session: Session) -> str:
    """Who a session is and what it does, as far as that can be seen."""
    where = f" from {session.client}" if session.client else ""
    who = f"pid {session.pid} of {session.user}, {session.application or 'no application name'}{where}"
    if not session.visible:
        return f"{who} (what it does, and since when, only a member of pg_read_all_stats sees)"
    age = "" if session.transaction_seconds is None else f" for {session.transaction_seconds:.0f} s"
    doing = session.state if session.state != "active" else "in a transaction"
    return f"{who}, {doing}{age}: {session.statement}"


@check(
    code="PD224",
    name="long-transaction",
    severity="warning",
    why="A transaction is open for long: it keeps its locks, and VACUUM cannot remove what was deleted"
    " since. An ordinary role sees only its own; a note says whose it does not see.",
    fix="Find out what it does: a backup or a migration ends by itself. `idle in transaction` is a client"
    " that forgot to end; `SELECT pg_terminate_backend(PID)` rolls it back.",
)
def long_transaction(case: Case) -> Iterator[Problem]:
    """Transactions that are old, prepared ones included."""
    for server, facts in case.told:
        for session in facts.long:
            if session.waits_for == COMMIT_WAIT or session.transaction_seconds is None:
                continue
            if session.transaction_seconds >= LONG_SECONDS:
                message = f"on {server.address} a transaction is open for long: {described(session)}"
                fix = f"see what it does; pg_terminate_backend({session.pid}) there rolls it back"
                yield Problem(server.location, message, fix)
        for one in facts.prepared if not facts.in_recovery else ():
            if one.seconds >= LONG_SECONDS:
                message = f"on {server.address} {one.name} of {one.owner} is prepared for {one.seconds:.0f} s"
                yield Problem(server.location, message, "COMMIT PREPARED or ROLLBACK PREPARED, as its owner")


@check(
    code="PD228",
    name="writes-refused-by-a-setting",
    severity="error",
    why="The server is the primary (`pg_is_in_recovery()` is false), and its transactions only read, because"
    " `default_transaction_read_only` is on: every write fails with `cannot execute … in a read-only"
    " transaction`. Somebody, or the provider of the database when its disk is full, has set that. It is no"
    " failover, and the data is all there.",
    fix="Find out why it was set. Then reset it where the message says: `ALTER SYSTEM RESET"
    " default_transaction_read_only; SELECT pg_reload_conf();`, or the same of the role or the database. For"
    " a role or a database, restart PgCat afterwards: open connections keep the setting.",
)
def writes_refused_by_a_setting(case: Case) -> Iterator[Problem]:
    """A primary whose transactions read only, by where that is set."""
    for server, facts in case.told:
        if server.role != "primary" or facts.in_recovery:
            continue
        where = _read_only(case, facts)
        if where is not None:
            place, fix = where
            message = (
                f"{server.address} is the primary and refuses writes: default_transaction_read_only is on,"
                f" set by {place}"
            )
            yield Problem(
                case.facts.budget_at(server, "role"),
                message,
                f"find out why (a failover or a full disk may have set it), then {fix}",
            )


def _read_only(case: Case, facts: ServerFacts) -> tuple[str, str] | None:
    """What sets default_transaction_read_only for a new connection of the role, and what takes it back."""
    for setting in facts.settings:
        if setting.name == READ_ONLY:
            if setting.value.lower() not in ON:
                return None
            reset = f"{setting.where} RESET {READ_ONLY}"
            return setting.where, f"{reset}, and restart {_pooler(case)}: its connections keep the setting"
    server = facts.read_only
    if server is None or server.setting not in ON:
        return None
    reset = f"ALTER SYSTEM RESET {READ_ONLY}; SELECT pg_reload_conf()"
    if server.source != "configuration file":
        return f"its {server.source}", f"take it away there ({server.source})"
    if server.file.endswith("postgresql.auto.conf"):
        return "ALTER SYSTEM", reset
    if server.file:
        return f"{server.file}:{server.line}", "correct that line; SELECT pg_reload_conf()"
    return (
        "ALTER SYSTEM or postgresql.conf",
        f"{reset}, as a superuser; if it stays, it stands in postgresql.conf",
    )


@check(
    code="PD229",
    name="role-setting",
    severity="warning",
    why="A setting of the role or of its database changes how Permify's statements run, and no file of the"
    " deployment has it. PgCat's connections take it when they are opened.",
    fix="If nobody needs it, reset it: `ALTER ROLE … RESET NAME`, or `ALTER DATABASE … RESET NAME`, then"
    " restart PgCat.",
)
def role_setting(case: Case) -> Iterator[Problem]:
    """Settings of the role and its database that Permify notices."""
    for server, facts in case.told:
        if server.role != "primary" and case.primary is not None:
            continue  # replicas have the primary's
        seen: set[str] = set()
        for setting in facts.settings:
            judge = _EFFECTS.get(setting.name)
            if setting.name in seen or judge is None:
                continue
            seen.add(setting.name)
            effect = judge(setting.value)
            if effect:
                message = (
                    f"{setting.where} SET {setting.name} = {setting.value} on {server.address}: {effect}"
                )
                place = case.facts.bootstrap_at("ALTER ROLE", server.location)
                yield Problem(
                    place, message, f"{setting.where} RESET {setting.name}, then restart {_pooler(case)}"
                )


@check(
    code="PD230",
    name="tables-out-of-sight",
    severity="error",
    why="A search_path of the role or of its database does not name the schema `public`, where the migration"
    " has made Permify's tables. Every new connection finds none of them: `relation … does not exist`.",
    fix="Reset it where the message says, then restart PgCat, because open connections keep it.",
)
def tables_out_of_sight(case: Case) -> Iterator[Problem]:
    """A search_path without the schema of Permify's tables."""
    for server, facts in case.told:
        setting = _out_of_sight(facts)
        if setting is None or (server.role != "primary" and case.primary is not None):
            continue
        message = (
            f"{setting.where} SET search_path = {setting.value} on {server.address}: Permify's tables are in"
            f" public,"
            " and new connections do not find them"
        )
        place = case.facts.bootstrap_at("ALTER ROLE", server.location)
        yield Problem(place, message, f"{setting.where} RESET search_path, then restart {_pooler(case)}")


def _out_of_sight(facts: ServerFacts) -> Setting | None:
    """The search_path of a new connection, where it is set and does not name `public`."""
    first = next((setting for setting in facts.settings if setting.name == "search_path"), None)
    return first if first is not None and "public" not in first.value else None


def _ends(what: str) -> Callable[[str], str]:
    return lambda value: (
        "" if value.strip() in ("0", "-1", "") else f"PostgreSQL ends {what} that take longer"
    )


_EFFECTS: dict[str, Callable[[str], str]] = {
    "statement_timeout": _ends("statements"),
    "transaction_timeout": _ends("transactions"),
    "lock_timeout": _ends("statements that wait for a lock"),
    "idle_session_timeout": lambda value: (
        "" if value.strip() in ("0", "-1") else "PostgreSQL ends PgCat's idle connections"
    ),
    "synchronous_commit": lambda value: (
        "a crash loses writes that were acknowledged"
        if value.lower() in ("off", "local", "false", "0")
        else ""
    ),
    "default_transaction_isolation": lambda value: (
        "" if value.lower() == "read committed" else "transactions may fail with serialization errors"
    ),
    "role": lambda value: "" if value.lower() == "none" else "statements run with the rights of another role",
    "session_replication_role": lambda value: (
        "" if value.lower() == "origin" else "triggers and foreign keys do not work"
    ),
}
"""What a value does that Permify notices; empty where it does nothing."""


@check(
    code="PD231",
    name="new-connections-fail",
    severity="error",
    why="The server takes a connection and answers no login, or ends it, while the connections that PgCat"
    " has open still work. PgCat opens others as these end, and then requests fail.",
    fix="On the server: is it starting, out of memory or processes, is its disk full or hanging? Its log"
    " says. If something else stands between here and the server, such as a proxy or a firewall, run the"
    " doctor where PgCat runs.",
)
def new_connections_fail(case: Case) -> Iterator[Problem]:
    """Servers that PgCat still asks, and that answer no new connection from here."""
    for server, answer in case.servers:
        trouble = answer.trouble
        if answer.facts is not None and trouble is not None and trouble.kind in NEW_ONES_FAIL:
            message = (
                f"new connections to {server.address} fail: {trouble.text}; those that PgCat has still work"
            )
            yield Problem(
                case.facts.budget_at(server, "host"), message, "see the server's log, disk and memory"
            )


@check(
    code="PD232",
    name="commits-wait-for-a-standby",
    severity="error",
    why="Commits wait until a synchronous standby has them, and none answers: writes hang, and reads go on."
    " PostgreSQL waits without an end, and no log says so.",
    fix="Bring that standby back: the writes go on by themselves. If it stays away, take its name out of"
    " `synchronous_standby_names`, by what manages the server; from then on, acknowledged writes are lost"
    " with the primary. Do not end the sessions: their writes are there, and the clients are told otherwise.",
)
def commits_wait_for_a_standby(case: Case) -> Iterator[Problem]:
    """Servers whose commits have waited for a standby for a while."""
    for server, facts in case.told:
        waiting = [
            session.statement_seconds or 0.0 for session in facts.long if session.waits_for == COMMIT_WAIT
        ]
        if waiting and max(waiting) >= BLOCKED_SECONDS:
            commits = "1 commit waits" if len(waiting) == 1 else f"{len(waiting)} commits wait"
            message = (
                f"on {server.address} {commits} for a synchronous standby, the longest {max(waiting):.0f} s;"
                f" synchronous_standby_names is {facts.synchronous_standbys!r}"
            )
            fix = "bring that standby back; if it stays away, take its name out of synchronous_standby_names"
            yield Problem(server.location, message, fix)


def _pooler(case: Case) -> str:
    """What keeps connections open that have an old setting."""
    return "PgCat" if case.facts.fronted else "Permify"


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


def _of_others(case: Case, facts: ServerFacts) -> bool:
    """Whether the role is used under a name that is not ours. PgCat hands on the name that its client has."""
    own = {"pgcat", "permify", APPLICATION, ""}
    return case.facts.fronted and any(group.application not in own for group in facts.groups)


def _role_at(case: Case, server: Server) -> Location:
    return case.facts.bootstrap_at("CREATE ROLE", server.location)


def _limit_at(case: Case, server: Server) -> Location:
    return case.facts.bootstrap_at("CONNECTION LIMIT", _capacity_at(case, server))


def _capacity_at(case: Case, server: Server) -> Location:
    return case.facts.budget_at(server, "max_connections")


def _primary_address(case: Case) -> str:
    return str(case.facts.primary.address) if case.facts.primary else "the primary"


def _bootstrap(case: Case) -> str:
    """How bootstrap.sql is run again."""
    if case.facts.bootstraps:
        return "docker compose run --rm bootstrap"
    return "psql -f postgres/bootstrap.sql as an administrator, as its first lines say"


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
