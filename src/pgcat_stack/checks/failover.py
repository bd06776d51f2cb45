"""PS219, PS220, PS223, PS417, PS418: a primary that moves to another machine is followed.

PgCat's DNS cache (its `dns_cache.rs`) compares where a host name leads with where it led when a connection
was opened, and drops the connection where that changed. Its resolver (`trust-dns-proto`, `Label::from_utf8`)
refuses what is no host name. pgx and libpq judge target_session_attrs when they connect:
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.checks import STACK, check
from pgcat_stack.checks._uris import listed, through_pgcat, used_pools
from pgcat_stack.findings import Problem
from pgcat_stack.paths import COMPOSE, PGCAT
from pgcat_stack.pgcat.config import PoolServer
from pgcat_stack.reading.connections import Connection
from pgcat_stack.reading.network import compose_names
from pgcat_stack.reading.reading import Reading

ATTRIBUTE = "target_session_attrs"
VARIABLE = "PGTARGETSESSIONATTRS"
"""What pgx reads where the URI is silent (its `parseEnvSettings`)."""
WRITES = "read-write"
_NEEDS_PRIMARY = frozenset({WRITES, "primary"})
_NEEDS_STANDBY = frozenset({"read-only", "standby"})
_MOST_DNS_MAX_TTL_SECONDS = 30
"""PgCat's own default."""
_UNFOLLOWED = re.compile(r"[^.]_")
"""An underscore that does not begin a label: the resolver admits those of service records, `_label`."""


def _outside(reading: Reading, host: str) -> bool:
    """Whether a server is none of compose.yaml, whose names move with the container alone."""
    return all(host not in compose_names(container, None) for container in reading.services)


def _named(reading: Reading) -> list[PoolServer]:
    """The servers of the pools in use that have a host name, each host once."""
    found: dict[str, PoolServer] = {}
    for pool in used_pools(reading):
        for server in pool.servers:
            if server.address.is_name and _outside(reading, server.address.host):
                found.setdefault(server.address.host, server)
    return list(found.values())


@check(
    code="PS219",
    name="name-not-followed",
    severity="warning",
    needs=(COMPOSE, PGCAT),
    why="PgCat connects to a host name that contains an underscore, but its resolver refuses it"
    " (`disallowed_by_std3_ascii_rules` in the log). When the name moves to another server, PgCat keeps the"
    " connections that the old one leaves open until server_lifetime is over, and writes go there.",
    fix="Use a name without an underscore, for example a CNAME that leads to this one.",
)
def name_not_followed(reading: Reading) -> Iterator[Problem]:
    """Host names of servers that contain an underscore."""
    for server in _named(reading):
        if _UNFOLLOWED.search(server.address.host):
            message = f"{server.address.host} contains an underscore: PgCat does not follow it in a failover"
            yield Problem(server.location, message, "use a name without one, such as a CNAME")


@check(
    code="PS220",
    name="names-without-dns-cache",
    severity="warning",
    needs=(COMPOSE, PGCAT),
    why="Without the DNS cache PgCat resolves a host name only when it opens a connection. After a failover"
    " it keeps the connections that the old primary leaves open until server_lifetime is over, and writes go"
    " there.",
    fix="Set `dns_cache_enabled = true` and `dns_max_ttl = 2` in [general].",
)
def names_without_dns_cache(reading: Reading) -> Iterator[Problem]:
    """A pgcat.toml that names hosts and does not look where they lead."""
    if reading.pgcat_config is None:
        return
    general = reading.pgcat_config.general
    looks, seconds = general.dns_cache_enabled.value is True, general.dns_max_ttl.value
    if looks and seconds is not None and seconds <= _MOST_DNS_MAX_TTL_SECONDS:
        return
    hosts = [server.address.host for server in _named(reading)]
    followed = [host for host in hosts if not _UNFOLLOWED.search(host)]
    if followed:
        message = f"the DNS cache is off: PgCat does not follow {listed(followed)} in a failover"
        if looks:
            message = f"PgCat looks only every {seconds} s where {listed(followed)} leads"
        place = general.dns_cache_enabled.location
        yield Problem(place, message, "dns_cache_enabled = true, dns_max_ttl = 2")


@check(
    code="PS223",
    name="writer-pool-keeps-a-standby",
    severity="warning",
    why="After a failover a host name can lead to the old primary, now a standby, for seconds. PgCat keeps"
    " the connections that it opens meanwhile, and every write on them fails. PgCat runs the queries of"
    " `prewarmer` on each new connection, and drops the connection if one of them ends it.",
    fix="Set `query_parser_enabled = true` in the writer's pool, and add `[pools.NAME.plugins.prewarmer]`"
    " with `enabled = true` and"
    ' `queries = ["SELECT pg_terminate_backend(pg_backend_pid()) WHERE pg_is_in_recovery()"]`.',
)
def writer_pool_keeps_a_standby(reading: Reading) -> Iterator[Problem]:
    """Pools of named primaries that do not end a connection to a standby."""
    named = _named(reading)
    pools = {c.uri.database: pool for c, pool in through_pgcat(reading) if c.side in ("writer", "both")}
    for name, pool in pools.items():
        servers = list(pool.servers)
        primaries = all(server.role == "primary" for server in servers)
        hosts = [server.address.host for server in servers if server in named]
        ends_standbys = any("pg_is_in_recovery" in query for query in pool.prewarming)
        if primaries and hosts and not ends_standbys:
            message = f"the pool {name} keeps connections to {listed(hosts)} when it becomes a standby"
            yield Problem(pool.at(), message, "end them by a prewarmer query on pg_is_in_recovery()")


@check(
    code="PS417",
    name="session-attributes-unmet",
    severity="error",
    needs=STACK,
    why="With target_session_attrs a client refuses every server that is not as it asks. Permify does not"
    " start when no server of a URI is.",
    fix="Write `target_session_attrs=read-write` into the writer URI, and nothing into the reader URI.",
)
def session_attributes_unmet(reading: Reading) -> Iterator[Problem]:
    """Writers and migrations that ask for a standby, readers of replicas that ask for the primary."""
    for connection in [*reading.connections.direct, *_migrating(reading)]:
        asked = _asked(connection)
        if connection.side != "reader" and asked in _NEEDS_STANDBY:
            message = f"{connection.what} asks for {ATTRIBUTE}={asked} and has to write"
            yield Problem(connection.location, message, f"{ATTRIBUTE}={WRITES}")
        elif asked in _NEEDS_PRIMARY and _of_replicas(reading, connection):
            message = f"{connection.what} asks for {ATTRIBUTE}={asked} and names replicas: no read succeeds"
            yield Problem(connection.location, message, f"remove {ATTRIBUTE}")


def _asked(connection: Connection) -> str:
    """What a connection asks of its server, empty for nothing."""
    inherited = connection.container.value(VARIABLE, "") if connection.container else ""
    return connection.uri.options.get(ATTRIBUTE, inherited)


def _migrating(reading: Reading) -> list[Connection]:
    return [*reading.connections.migrations, *reading.connections.psql]


@check(
    code="PS418",
    name="session-attributes-in-a-failover",
    severity="warning",
    needs=STACK,
    why="After a failover a host can lead to the old primary, now a standby, for a while. Without"
    " `target_session_attrs=read-write` Permify keeps a connection that it opens then for its whole"
    " lifetime, and every schema that it writes there fails; transactions fail once and go elsewhere. With"
    " it, Permify refuses such a connection. On a URI that also serves reads, reads fail with the writes.",
    fix="Write `target_session_attrs=read-write` into the writer URI alone.",
)
def session_attributes_in_a_failover(reading: Reading) -> Iterator[Problem]:
    """Direct writer URIs that take a standby, and reads that need the primary without a reason."""
    for connection in reading.connections.direct:
        asked = _asked(connection)
        servers = connection.uri.servers
        if not servers or all(not _outside(reading, server.host) for server in servers):
            continue
        if connection.side == "writer" and asked in ("", "any", "prefer-standby"):
            message = f"{connection.what} takes a standby: writes can fail until its connections end"
            yield Problem(connection.location, message, f"add {ATTRIBUTE}={WRITES}")
        elif _of_replicas(reading, connection):
            continue  # PS417
        elif connection.side != "writer" and asked in _NEEDS_PRIMARY and len(servers) == 1:
            message = f"{connection.what} serves reads, and {ATTRIBUTE}={asked} stops them without a primary"
            yield Problem(connection.location, message, f"remove {ATTRIBUTE}, or use it on a writer URI")


def _of_replicas(reading: Reading, connection: Connection) -> bool:
    """Whether a reader's URI names no server but replicas."""
    replicas = {s.address for s in reading.topology.servers if s.role == "replica"}
    return connection.side == "reader" and set(connection.uri.servers) <= replicas
