"""PgCat's pools and Permify's connection strings, read tolerantly: what has a wrong type is absent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pgcat_stack.checks._kubernetes import is_int
from pgcat_stack.checks._units import Unit, Variable, kubernetes_variables, running
from pgcat_stack.checks._uri import Uri, parse_uri
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Location
from pgcat_stack.sources import Key, Source, as_list, as_mapping, dig

VALUES = "permify/values.yaml"
PGCAT_DEFAULT_PORT = 5432
EXPORTER_DEFAULT_PORT = 9930


@dataclass(frozen=True, slots=True)
class Server:
    """One entry of `servers`."""

    host: str
    port: int
    role: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class User:
    """One user of a pool. `server_name` is who PgCat logs in to PostgreSQL as."""

    name: str
    server_name: str
    password: object
    server_password: object
    mode: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """One table `pools.NAME`."""

    name: str
    users: tuple[User, ...]
    databases: tuple[tuple[str, tuple[Key, ...]], ...]
    servers: tuple[Server, ...]
    statement_cache: int
    keys: tuple[Key, ...]

    @property
    def transaction_mode(self) -> bool:
        """Whether a client may meet another server connection in its next transaction."""
        return any(user.mode == "transaction" for user in self.users)


def pools(deployment: Deployment) -> dict[str, Pool]:
    """The pools of pgcat.toml by name."""
    if deployment.pgcat is None:
        return {}
    found = as_mapping(deployment.pgcat.mapping.get("pools"))
    return {name: _pool(name, as_mapping(pool)) for name, pool in found.items()}


def _pool(name: str, pool: dict[str, object]) -> Pool:
    keys: tuple[Key, ...] = ("pools", name)
    mode = pool.get("pool_mode", "transaction")
    users = []
    for user_key, user in as_mapping(pool.get("users")).items():
        user_name = _text(dig(user, "username"))
        password = dig(user, "password")
        server_password = dig(user, "server_password")
        users.append(
            User(
                name=user_name,
                server_name=_text(dig(user, "server_username")) or user_name,
                password=password,
                server_password=password if server_password is None else server_password,
                mode=str(dig(user, "pool_mode") or mode),
                keys=(*keys, "users", user_key),
            )
        )
    databases, servers = [], []
    for shard_key, shard in as_mapping(pool.get("shards")).items():
        shard_keys = (*keys, "shards", shard_key)
        if isinstance(dig(shard, "database"), str):
            databases.append((dig(shard, "database"), (*shard_keys, "database")))
        for index, server in enumerate(as_list(dig(shard, "servers"))):
            host, port, role = dig(server, 0), dig(server, 1), dig(server, 2)
            if isinstance(host, str) and is_int(port):
                servers.append(Server(host.lower(), port, str(role).lower(), (*shard_keys, "servers", index)))
    cache = pool.get("prepared_statements_cache_size")
    return Pool(
        name, tuple(users), tuple(databases), tuple(servers), cache if isinstance(cache, int) else 0, keys
    )


def pgcat_port(deployment: Deployment) -> int | None:
    """The port that PgCat listens on; None where pgcat.toml does not say anything usable."""
    if deployment.pgcat is None or not deployment.pgcat.mapping:
        return None
    port = dig(deployment.pgcat.data, "general", "port")
    return port if is_int(port) else PGCAT_DEFAULT_PORT if port is None else None


def exporter_port(deployment: Deployment) -> int | None:
    """The port of PgCat's exporter; None where it is off."""
    general = as_mapping(dig(deployment.pgcat.data, "general")) if deployment.pgcat else {}
    if general.get("enable_prometheus_exporter") is not True:
        return None
    port = general.get("prometheus_exporter_port", EXPORTER_DEFAULT_PORT)
    return port if is_int(port) else None


def budget_primaries(deployment: Deployment) -> set[tuple[str, int]]:
    """(host, port) of the servers that budget.yaml calls primary."""
    return {(host, port) for host, port, role in budget_servers(deployment) if role == "primary"}


def budget_servers(deployment: Deployment) -> list[tuple[str, int, str]]:
    """(host, port, role) of each server in budget.yaml."""
    found = []
    for server in as_list(dig(deployment.budget.data, "servers")) if deployment.budget else []:
        host, port, role = dig(server, "host"), dig(server, "port"), dig(server, "role")
        if isinstance(host, str) and (port is None or is_int(port)):
            found.append((host.lower(), 5432 if port is None else port, str(role)))
    return found


# Permify

Side = Literal["writer", "reader", "both"]
_PATHS: tuple[tuple[Side, tuple[Key, ...], str], ...] = (
    ("both", ("uri",), "PERMIFY_DATABASE_URI"),
    ("writer", ("writer", "uri"), "PERMIFY_DATABASE_WRITER_URI"),
    ("reader", ("reader", "uri"), "PERMIFY_DATABASE_READER_URI"),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection string in use: what for, its text and parts, where it stands and who opens it."""

    side: Side | Literal["migration"]
    text: str
    uri: Uri
    location: Location
    unit: Unit | None

    @property
    def what(self) -> str:
        """How messages name it."""
        if self.side == "migration":
            return "the migration's URI"
        return "Permify's URI" if self.side == "both" else f"Permify's {self.side} URI"


def permify_connections(deployment: Deployment) -> list[Connection]:
    """The connection strings that Permify uses: variables beat the file, `uri` beats writer and reader."""
    found = list(_permify_connections(deployment))
    both = [connection for connection in found if connection.side == "both"]
    return both or found


def _permify_connections(deployment: Deployment) -> Iterator[Connection]:
    units = running(deployment, "permify")
    configured = _configurations(deployment)
    for side, path, variable_name in _PATHS:
        overridden = False
        for unit in units:
            variable = unit.variable(variable_name)
            if variable is not None:
                overridden = True
            if variable is not None and variable.value:
                yield _connection(side, variable.value, unit.at(*variable.keys), unit)
        if overridden and len(units) == 1:
            continue
        for source, base in configured:
            text = dig(source.data, *base, *path)
            if isinstance(text, str) and text:
                yield _connection(side, text, source.at(*base, *path), units[0] if units else None)
    for variable in helm_variables(deployment):
        for side, _, variable_name in _PATHS:
            if variable.name == variable_name and variable.value:
                location = deployment.sources[VALUES].at(*variable.keys)
                yield _connection(side, variable.value, location, None)


def helm_variables(deployment: Deployment) -> list[Variable]:
    """The environment that the Helm values give Permify."""
    values = deployment.sources.get(VALUES)
    return list(kubernetes_variables(dig(values.data, "extraEnvVars"), ("extraEnvVars",))) if values else []


def _configurations(deployment: Deployment) -> list[tuple[Source, tuple[Key, ...]]]:
    found: list[tuple[Source, tuple[Key, ...]]] = []
    if deployment.permify is not None:
        found.append((deployment.permify, ("database",)))
    if VALUES in deployment.sources:
        found.append((deployment.sources[VALUES], ("app", "database")))
    return found


def migration_connections(deployment: Deployment) -> list[Connection]:
    """The connection strings of the units that migrate."""
    found = []
    for unit in running(deployment, "migrate"):
        text = option(unit.words, "--database-uri")
        if text:
            found.append(_connection("migration", text, _word_location(unit, text), unit))
    return found


def option(words: tuple[str, ...], *names: str) -> str:
    """The value of a command line option, `--name=value` or `--name value`; empty where it is not given."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else words[index + 1] if index + 1 < len(words) else ""
    return ""


def _word_location(unit: Unit, text: str) -> Location:
    for key in ("args", "command", "entrypoint"):
        for index, word in enumerate(as_list(unit.data.get(key))):
            if isinstance(word, str) and text in word:
                return unit.at(key, index)
    return unit.at("command")


def _connection(
    side: Side | Literal["migration"], text: str, location: Location, unit: Unit | None
) -> Connection:
    return Connection(side, text, parse_uri(text), location, unit)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
