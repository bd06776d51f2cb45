"""What the checks of connection strings share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgcat_stack.checks._pools import Connection, Pool, permify_connections, pools
from pgcat_stack.checks._uri import server_text
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Problem


def through_pgcat(deployment: Deployment) -> Iterator[tuple[Connection, Pool]]:
    """Permify's connections with the pool that each names."""
    known = pools(deployment)
    for connection in permify_connections(deployment):
        pool = known.get(connection.uri.database)
        if pool is not None:
            yield connection, pool


def direct_connections(deployment: Deployment) -> list[Connection]:
    """Permify's connections where nothing stands between it and PostgreSQL."""
    return [] if deployment.pgcat is not None else permify_connections(deployment)


def listed(values: Iterable[object]) -> str:
    """Values for a message: sorted, each once."""
    return ", ".join(sorted({str(value) for value in values})) or "none"


def not_primary(connection: Connection, primaries: set[tuple[str, int]], where: str) -> Iterator[Problem]:
    """A problem for each host of the connection that is no primary; `where` says who calls them so."""
    wanted = listed(server_text(*server) for server in primaries)
    if not connection.uri.hosts:
        yield Problem(connection.location, f"{connection.what} names no host", f"use the primary, {wanted}")
    for host, port in connection.uri.hosts:
        if (host, port) not in primaries:
            yield Problem(
                connection.location,
                f"{connection.what} leads to {server_text(host, port)}; the primary in {where} is {wanted}",
                f"use {wanted}",
            )
