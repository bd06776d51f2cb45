"""The connection strings in use, and what the checks of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pgcat_stack.endpoints import Address, Uri, parse_uri
from pgcat_stack.files.plain_data import as_list
from pgcat_stack.findings import Location, Problem
from pgcat_stack.pgcat.pools import Pool
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import Permify

Side = Literal["writer", "reader", "both", "migration"]
_VARIABLES = {
    "both": "PERMIFY_DATABASE_URI",
    "writer": "PERMIFY_DATABASE_WRITER_URI",
    "reader": "PERMIFY_DATABASE_READER_URI",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection string in use: what for, its parts, and who opens it."""

    side: Side
    uri: Uri
    container: Container | None

    @property
    def location(self) -> Location:
        """Where it stands."""
        return self.uri.location

    @property
    def what(self) -> str:
        """How messages name it."""
        if self.side == "migration":
            return "the migration's URI"
        return "Permify's URI" if self.side == "both" else f"Permify's {self.side} URI"


def permify_connections(reading: Reading) -> list[Connection]:
    """The connection strings that Permify uses, but for those that only a Secret shows."""
    found = []
    for permify in reading.topology.permify:
        container = permify.workload.container
        for side, uri in _uris(permify):
            variable = container.variable(_VARIABLES[side]) if container else None
            if uri is not None and (variable is None or variable.value is not None):
                found.append(Connection(side, uri, container))
    return found


def _uris(permify: Permify) -> list[tuple[Side, Uri | None]]:
    if permify.one_uri:
        return [("both", permify.writer)]
    return [("writer", permify.writer), ("reader", permify.reader)]


def migration_connections(reading: Reading) -> list[Connection]:
    """The connection strings of the containers that migrate."""
    found = []
    for container in reading.running("migrate"):
        text = option(container.words, "--database-uri")
        if text:
            found.append(Connection("migration", parse_uri(text, word_location(container, text)), container))
    return found


def option(words: tuple[str, ...], *names: str) -> str:
    """The value of a command line option, `--name=value` or `--name value`; empty where it is not given."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else words[index + 1] if index + 1 < len(words) else ""
    return ""


def word_location(container: Container, text: str) -> Location:
    """Where an argument with this text in it stands."""
    for key in ("args", "command", "entrypoint"):
        for index, word in enumerate(as_list(container.data.get(key))):
            if isinstance(word, str) and text in word:
                return container.at(key, index)
    return container.at("command")


def through_pgcat(reading: Reading) -> Iterator[tuple[Connection, Pool]]:
    """Permify's connections with the pool that each names."""
    pools = reading.topology.pools
    for connection in permify_connections(reading):
        pool = pools.get(connection.uri.database)
        if pool is not None:
            yield connection, pool


def used_pools(reading: Reading) -> list[Pool]:
    """The pools that Permify's URIs name, each once; others are for other applications."""
    return list({pool.name: pool for _, pool in through_pgcat(reading)}.values())


def direct_connections(reading: Reading) -> list[Connection]:
    """Permify's connections where nothing stands between it and PostgreSQL."""
    return [] if reading.topology.fronted else permify_connections(reading)


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
