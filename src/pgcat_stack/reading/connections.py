"""The connection strings in use: Permify's, the migration's, and those of what waits for it or notes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pgcat_stack.endpoints import Uri, parse_uri, read_uri
from pgcat_stack.files.plain_data import as_list
from pgcat_stack.findings import Location
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.permify import Permify
from pgcat_stack.reading.topology import Topology

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


@dataclass(frozen=True, slots=True)
class Connections:
    """The connection strings of a deployment."""

    permify: tuple[Connection, ...]
    """Those that Permify uses, but for those that only a Secret shows."""
    migrations: tuple[Connection, ...]
    """Those of the containers that migrate."""
    psql: tuple[Connection, ...]
    """Those of the containers that wait for the migration, or note it."""
    fronted: bool
    """Whether PgCat stands between Permify and PostgreSQL."""

    @property
    def direct(self) -> tuple[Connection, ...]:
        """Permify's where nothing stands between it and PostgreSQL."""
        return () if self.fronted else self.permify


def read_connections(containers: Iterable[Container], topology: Topology) -> Connections:
    """The connection strings that these containers, and Permify elsewhere, use."""
    return Connections(
        tuple(_of_permify(topology)),
        tuple(_of_migrations(containers)),
        tuple(_of_psql(containers)),
        topology.fronted,
    )


def _of_permify(topology: Topology) -> Iterator[Connection]:
    for permify in topology.permify:
        container = permify.workload.container
        for side, uri in _sides(permify):
            variable = container.variable(_VARIABLES[side]) if container else None
            if uri is not None and (variable is None or variable.value is not None):
                yield Connection(side, uri, container)


def _sides(permify: Permify) -> list[tuple[Side, Uri | None]]:
    if permify.one_uri:
        return [("both", permify.writer)]
    return [("writer", permify.writer), ("reader", permify.reader)]


def _of_migrations(containers: Iterable[Container]) -> Iterator[Connection]:
    for container in containers:
        text = option(container.words, "--database-uri") if container.program == "migrate" else ""
        if text:
            yield Connection("migration", parse_uri(text, word_location(container, text)), container)


def _of_psql(containers: Iterable[Container]) -> Iterator[Connection]:
    for container in containers:
        if container.own and container.pod is not None and not container.program:
            for uri in _written_uris(container):
                yield Connection("migration", uri, container)


def _written_uris(container: Container) -> Iterator[Uri]:
    for variable in container.variables:
        if "://" in (variable.value or ""):
            uri = read_uri(variable.value, container.at(*variable.keys))
            if uri is not None:
                yield uri
    uri = read_uri(option(container.words, "--dbname", "-d"), container.at("command"))
    if uri is not None:
        yield uri


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
