"""What the checks of connection strings share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Problem
from pgcat_stack.pgcat.config import Pool
from pgcat_stack.reading.connections import Connection
from pgcat_stack.reading.reading import Reading


def through_pgcat(reading: Reading) -> Iterator[tuple[Connection, Pool]]:
    """Permify's connections with the pool that each names."""
    pools = reading.topology.pools
    for connection in reading.connections.permify:
        pool = pools.get(connection.uri.database)
        if pool is not None:
            yield connection, pool


def used_pools(reading: Reading) -> list[Pool]:
    """The pools that Permify's URIs name, each once; others are for other applications."""
    return list({pool.name: pool for _, pool in through_pgcat(reading)}.values())


def primaries_of(reading: Reading) -> set[Address]:
    """The servers that budget.yaml calls primary."""
    return {server.address for server in reading.topology.servers if server.role == "primary"}


def listed(values: Iterable[object]) -> str:
    """Values for a message: sorted, each once."""
    return ", ".join(sorted({str(value) for value in values})) or "none"


def not_primary(connection: Connection, primaries: set[Address], where: str) -> Iterator[Problem]:
    """A problem for each host of the connection that is no primary; `where` says who calls them so."""
    wanted = listed(primaries)
    if not connection.uri.servers:
        yield Problem(connection.location, f"{connection.what} names no host", f"use the primary, {wanted}")
    for server in connection.uri.servers:
        if server not in primaries:
            message = f"{connection.what} leads to {server}; the primary in {where} is {wanted}"
            yield Problem(connection.location, message, f"use {wanted}")
