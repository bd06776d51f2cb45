"""PS40x, PS41x: Permify's URIs, PgCat's pools, the migration and bootstrap.sql name the same things.

PgCat picks the pool by the database name of the client; a session's first statement does not matter with two
pools, one for writes and one for reads. Which modes of pgx work behind transaction pooling:
https://pkg.go.dev/github.com/jackc/pgx/v5#QueryExecMode
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import STACK, check
from pgcat_stack.checks._uris import listed, not_primary, primaries_of, through_pgcat
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Problem
from pgcat_stack.paths import PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.reading import Reading


@check(
    code="PS401",
    name="uri-names-no-pool",
    severity="error",
    needs=STACK,
    why="PgCat picks the pool by the database name in the client's URI, and refuses a name that is no pool:"
    " `No pool configured for database`.",
    fix="End the URI in the name of a pool of pgcat.toml, or name the pool so.",
)
def uri_names_no_pool(reading: Reading) -> Iterator[Problem]:
    """Permify's URIs whose database is no pool."""
    known = reading.topology.pools
    for connection in reading.connections.permify if known else ():
        if connection.uri.database not in known:
            yield Problem(
                connection.location,
                f"{connection.what} names the pool {show(connection.uri.database)}, which"
                f" {PGCAT} does not have",
                f"use one of its pools: {listed(known)}",
            )


@check(
    code="PS402",
    name="writes-reach-the-primary-alone",
    severity="error",
    needs=STACK,
    why="A write that reaches a replica fails with `cannot execute … in a read-only transaction`.",
    fix="Let the writer URI name a pool whose only server is the primary, with the role"
    " `primary`; without PgCat,"
    " the primary itself.",
)
def writes_reach_the_primary_alone(reading: Reading) -> Iterator[Problem]:
    """Writer pools with other servers than the primary, direct writer URIs that lead elsewhere."""
    listed_servers = reading.topology.servers
    replicas = {server.address for server in listed_servers if server.role == "replica"}
    for connection, pool in through_pgcat(reading):
        if connection.side != "reader":
            for server in pool.servers:
                if server.role != "primary":
                    yield Problem(
                        server.location,
                        f"{connection.what} names the pool {pool.name}, which has the {server.role}"
                        f" {server.address}",
                        "leave only the primary in this pool, with the role primary",
                    )
                elif server.address in replicas:
                    yield Problem(
                        server.location,
                        f"the pool {pool.name} calls {server.address} primary,"
                        " budget.yaml calls it a replica",
                        "name the primary",
                    )
    primaries = primaries_of(reading)
    for connection in reading.connections.direct if primaries else ():
        if connection.side == "writer":
            yield from not_primary(connection, primaries, "budget.yaml")


@check(
    code="PS403",
    name="reader-shares-the-writer-pool",
    severity="error",
    needs=STACK,
    why="Permify opens a pool for reads so that they can go to other servers with connections of their own;"
    " in one pool reads and writes take each other's.",
    fix="Let the reader URI name a pool of its own.",
)
def reader_shares_the_writer_pool(reading: Reading) -> Iterator[Problem]:
    """Reader URIs that name the pool of the writer."""
    used = list(through_pgcat(reading))
    writers = {pool.name for connection, pool in used if connection.side == "writer"}
    for connection, pool in used:
        if connection.side == "reader" and pool.name in writers:
            others = [name for name in reading.topology.pools if name not in writers]
            yield Problem(
                connection.location,
                f"Permify reads and writes through the same pool {pool.name}",
                f"use {listed(others)} here" if others else f"add a pool for reads to {PGCAT}",
            )


@check(
    code="PS404",
    name="uri-misses-pgcat",
    severity="error",
    needs=STACK,
    why="Permify must reach PgCat by the name that Compose or the cluster's DNS knows it by; in"
    " a pod of their own"
    " they share the loopback address. Around PgCat, no pool holds the connection budget.",
    fix="Use the Compose service, the Service that selects PgCat's pods, or 127.0.0.1 beside a sidecar.",
)
def uri_misses_pgcat(reading: Reading) -> Iterator[Problem]:
    """Permify's URIs whose host is not where PgCat answers."""
    for connection in reading.connections.permify if reading.topology.pools else ():
        ports = reading.network.reach(connection)
        if ports is None:
            continue
        hosts = [server.host for server in connection.uri.servers] or [""]
        for host in hosts:
            if host not in ports:
                fix = f"use {next(iter(ports))}" if ports else "add a Service that selects PgCat's pods"
                message = (
                    f"{connection.what} leads to {show(host)}, where no PgCat of this deployment answers"
                )
                yield Problem(connection.location, message, fix)


@check(
    code="PS405",
    name="uri-port",
    severity="error",
    needs=STACK,
    why="On another port nobody answers, and Permify exits after a minute.",
    fix="Use the port of pgcat.toml, or of PgCat's Service where there is one.",
)
def uri_port(reading: Reading) -> Iterator[Problem]:
    """Permify's URIs whose port is not PgCat's."""
    for connection in reading.connections.permify if reading.topology.pools else ():
        ports = reading.network.reach(connection) or {}
        for server in connection.uri.servers:
            if server.host in ports and ports[server.host] != server.port:
                answers = Address(server.host, ports[server.host])
                yield Problem(
                    connection.location,
                    f"{connection.what} asks for port {server.port}, PgCat answers on {answers.port}",
                    f"use {answers}",
                )


@check(
    code="PS406",
    name="uri-user",
    severity="error",
    needs=STACK,
    why="PgCat refuses users that the pool does not list.",
    fix="Use the user of the pool.",
)
def uri_user(reading: Reading) -> Iterator[Problem]:
    """Permify's URIs whose user the pool does not know."""
    for connection, pool in through_pgcat(reading):
        users = [user.name for user in pool.users if user.name]
        if users and connection.uri.user not in users:
            yield Problem(
                connection.location,
                f"{connection.what} logs in as {show(connection.uri.user)}, the pool {pool.name}"
                f" knows {listed(users)}",
                f"use {users[0]}",
            )


@check(
    code="PS407",
    name="uri-query-mode",
    severity="error",
    needs=STACK,
    why="Behind transaction pooling the next statement may run on another server connection. Permify's driver"
    " names its prepared statements unless told otherwise, and replaces `exec` by that mode,"
    " too; statements that"
    " another connection does not have fail, at random and under load.",
    fix="Write `default_query_exec_mode=cache_describe` into the URI.",
)
def uri_query_mode(reading: Reading) -> Iterator[Problem]:
    """Modes of pgx that transaction pooling breaks."""
    for connection, pool in through_pgcat(reading):
        if not pool.transaction_mode:
            continue
        mode = connection.uri.options.get("default_query_exec_mode", "")
        safe = {"cache_describe", "simple_protocol"}
        if (pool.prepared_statements_cache_size.value or 0) > 0:
            safe |= {"", "cache_statement", "exec"}
        if mode not in safe:
            used = f"default_query_exec_mode={mode}" if mode else "no default_query_exec_mode"
            yield Problem(
                connection.location,
                f"{connection.what} has {used}, and the pool {pool.name} pools transactions"
                " without a statement cache",
                "add default_query_exec_mode=cache_describe" if not mode else "use cache_describe",
            )


@check(
    code="PS408",
    name="uri-tls",
    severity="error",
    needs=STACK,
    why="Without tls_certificate PgCat speaks no TLS to its clients, so a client that insists"
    " on it cannot connect.",
    fix="Write `sslmode=disable` into the URI, or give PgCat a certificate.",
)
def uri_tls(reading: Reading) -> Iterator[Problem]:
    """URIs that demand TLS of a PgCat which has none."""
    if reading.pgcat_config is None or reading.pgcat_config.general.offers_tls is not False:
        return
    for connection, _ in through_pgcat(reading):
        mode = connection.uri.options.get("sslmode", "")
        if mode not in ("", "disable", "allow", "prefer"):
            yield Problem(
                connection.location,
                f"{connection.what} demands TLS (sslmode={mode}), and PgCat has no tls_certificate",
                "use sslmode=disable",
            )
