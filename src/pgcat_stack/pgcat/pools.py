"""PgCat's pools: what pgcat.toml says, with PgCat's defaults where it is silent (its `config.rs`).

Values of a wrong type count as absent: the checks of pgcat.toml report them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pgcat_stack.endpoints import Address
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import Number, Seconds, whole
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location

T = TypeVar("T")

PGCAT_PORT, EXPORTER_PORT = 5432, 9930
IDLE_TIMEOUT_MS, SERVER_LIFETIME_MS, SHUTDOWN_TIMEOUT_MS = 600_000, 3_600_000, 60_000


@dataclass(frozen=True, slots=True)
class PoolServer:
    """A server in a shard, or a mirror of one."""

    address: Address
    role: str
    location: Location


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a pool with its servers; `mirrors` get the same queries."""

    database: str | None
    database_location: Location
    servers: tuple[PoolServer, ...]
    mirrors: tuple[PoolServer, ...]


@dataclass(frozen=True, slots=True)
class User:
    """One user of a pool. `server_name` is who PgCat logs in to PostgreSQL as."""

    name: str
    server_name: str
    password: object
    server_password: object
    mode: str
    size: Number | None
    idle_timeout: Seconds
    server_lifetime: Seconds
    location: Location


@dataclass(frozen=True, slots=True)
class Pool:
    """One table `pools.NAME`."""

    name: str
    users: tuple[User, ...]
    shards: tuple[Shard, ...]
    statement_cache: int

    @property
    def servers(self) -> Iterator[PoolServer]:
        """The servers that queries go to, of every shard."""
        return (server for shard in self.shards for server in shard.servers)

    @property
    def transaction_mode(self) -> bool:
        """Whether a client may meet another server connection in its next transaction."""
        return any(user.mode == "transaction" for user in self.users)


@dataclass(frozen=True, slots=True)
class PoolUser:
    """What one user of a pool opens on each server of one shard, in each PgCat process."""

    pool: str
    user: str
    mode: str
    size: Number
    servers: tuple[PoolServer, ...]
    idle_timeout: Seconds
    server_lifetime: Seconds


@dataclass(frozen=True, slots=True)
class Pgcat:
    """What pgcat.toml says. A port is None where what is written is none, `exporter` also where it is off."""

    port: int | None
    exporter: int | None
    shutdown: Seconds
    named: dict[str, Pool]
    pools: tuple[PoolUser, ...]


def read_pools(source: Source) -> Pgcat:
    """The pools of pgcat.toml."""
    general = as_mapping(source.mapping.get("general"))
    shutdown = whole(general.get("shutdown_timeout"))
    exporting = general.get("enable_prometheus_exporter") is True
    found = as_mapping(source.mapping.get("pools"))
    pools = {name: _pool(source, name, as_mapping(pool)) for name, pool in found.items()}
    return Pgcat(
        port=whole(general.get("port", PGCAT_PORT)) if source.mapping else None,
        exporter=whole(general.get("prometheus_exporter_port", EXPORTER_PORT)) if exporting else None,
        shutdown=Seconds(
            (SHUTDOWN_TIMEOUT_MS if shutdown is None else shutdown) / 1000,
            source.at("general", "shutdown_timeout"),
        ),
        named=pools,
        pools=tuple(opened for pool in pools.values() for opened in _opened(pool)),
    )


def _opened(pool: Pool) -> Iterator[PoolUser]:
    for user in pool.users:
        if user.size is None:
            continue
        for shard in pool.shards:
            yield PoolUser(
                pool=pool.name,
                user=user.name,
                mode=user.mode,
                size=user.size,
                servers=(*shard.servers, *shard.mirrors),
                idle_timeout=user.idle_timeout,
                server_lifetime=user.server_lifetime,
            )


def _pool(source: Source, name: str, pool: dict[str, Any]) -> Pool:
    users = as_mapping(pool.get("users"))
    shards = as_mapping(pool.get("shards"))
    return Pool(
        name=name,
        users=tuple(_user(source, name, key, user) for key, user in users.items()),
        shards=tuple(_shard(source, ("pools", name, "shards", key), shard) for key, shard in shards.items()),
        statement_cache=whole(pool.get("prepared_statements_cache_size")) or 0,
    )


def _user(source: Source, pool: str, key: str, user: Any) -> User:
    at: tuple[Key, ...] = ("pools", pool, "users", key)
    name, size, password = dig(user, "username"), whole(dig(user, "pool_size")), dig(user, "password")
    server_name, server_password = dig(user, "server_username"), dig(user, "server_password")
    mode, _ = _first(source, (*at, "pool_mode"), ("pools", pool, "pool_mode"), kind=str)
    name = name if isinstance(name, str) else ""
    return User(
        name=name,
        server_name=server_name if server_name and isinstance(server_name, str) else name,
        password=password,
        server_password=password if server_password is None else server_password,
        mode=(mode or "transaction").lower(),
        size=None if size is None else Number(max(size, 0), source.at(*at, "pool_size")),
        idle_timeout=_timeout(source, at, "idle_timeout", IDLE_TIMEOUT_MS),
        server_lifetime=_timeout(source, at, "server_lifetime", SERVER_LIFETIME_MS),
        location=source.at(*at, "username"),
    )


def _shard(source: Source, at: tuple[Key, ...], shard: Any) -> Shard:
    database = dig(shard, "database")
    return Shard(
        database=database if isinstance(database, str) else None,
        database_location=source.at(*at, "database"),
        servers=tuple(_servers(source, at, shard, "servers")),
        mirrors=tuple(_servers(source, at, shard, "mirrors")),
    )


def _servers(source: Source, at: tuple[Key, ...], shard: Any, group: str) -> Iterator[PoolServer]:
    for index, entry in enumerate(as_list(dig(shard, group))):
        if isinstance(entry, list):
            host, port, role = (*entry, None, None, None)[:3]
        else:
            host, port, role = dig(entry, "host"), dig(entry, "port"), dig(entry, "role")
        number = whole(port)
        if isinstance(host, str) and number is not None:
            kind = "mirror" if group == "mirrors" else str(role).lower()
            yield PoolServer(Address.of(host, number), kind, source.at(*at, group, index))


def _timeout(source: Source, user_at: tuple[Key, ...], key: str, default: int) -> Seconds:
    """A time in milliseconds of the user, else of the pool, else of [general], else PgCat's default."""
    value, location = _first(source, (*user_at, key), (*user_at[:2], key), ("general", key), kind=int)
    return Seconds((default if value is None else value) / 1000, location)


def _first(source: Source, *paths: tuple[Key, ...], kind: type[T]) -> tuple[T | None, Location]:
    """The value at the first of these paths that has one of this type; else where the last would stand."""
    for path in paths:
        value = dig(source.data, *path)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value, source.at(*path)
    return None, source.at(*paths[-1])
