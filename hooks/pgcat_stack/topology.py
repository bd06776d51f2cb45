"""What runs where, from the files: workloads, PgCat's pools, Permify's database settings, servers.

Everything knows where it stands, for messages. Values of a wrong type are skipped: other checks report them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

from pgcat_stack.deployment import Deployment
from pgcat_stack.endpoints import Address, Uri, read_uri
from pgcat_stack.findings import Location
from pgcat_stack.sources import Key, Source, as_list, as_mapping, dig
from pgcat_stack.units import duration_seconds, whole, whole_text
from pgcat_stack.workloads import Number, Seconds, Workload, read_workloads

T = TypeVar("T")

PGCAT_PORT = 5432
IDLE_TIMEOUT_MS, SERVER_LIFETIME_MS, SHUTDOWN_TIMEOUT_MS = 600_000, 3_600_000, 60_000
"""What PgCat takes where pgcat.toml is silent (its `config.rs`)."""
LIFETIME_SECONDS, IDLE_SECONDS, HEALTH_CHECK_SECONDS = 300.0, 60.0, 60.0
MAX_OPEN_CONNECTIONS = 20
"""What Permify and pgx take where the configuration is silent (Permify's `config.go`, pgxpool)."""
JITTER_SHARE = 0.2

_NOT_IN_CHART = frozenset({"max_connections", "max_connection_lifetime_jitter", "health_check_period"})
"""What Permify's Helm chart does not hand on from `app.database` (its `templates/deployment.yaml`)."""

Side = Literal["writer", "reader"]


@dataclass(frozen=True, slots=True)
class PoolServer:
    """A server in a shard, or a mirror of one."""

    address: Address
    role: str
    location: Location


@dataclass(frozen=True, slots=True)
class PoolUser:
    """What one user of a pool opens on each server of one shard, in each PgCat process."""

    pool: str
    user: str
    shard: str
    mode: str
    size: Number
    servers: tuple[PoolServer, ...]
    idle_timeout: Seconds
    server_lifetime: Seconds
    mode_location: Location


@dataclass(frozen=True, slots=True)
class Pgcat:
    """What pgcat.toml says."""

    port: int
    shutdown: Seconds
    pools: tuple[PoolUser, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Permify:
    """Permify processes with the database settings that they take, environment over file.

    A jitter of 0 means 20 % of the lifetime, a health check period of 0 a minute; both are resolved here.
    """

    workload: Workload
    writer: Uri | None
    reader: Uri | None
    max_connections: Number
    lifetime: Seconds
    jitter: Seconds
    health_check: Seconds
    idle: Seconds
    watch: bool

    @property
    def sides(self) -> Iterator[tuple[Side, Uri]]:
        """The two pools of a process with the URIs they use."""
        if self.writer is not None:
            yield "writer", self.writer
        if self.reader is not None:
            yield "reader", self.reader

    @property
    def longest_connection_seconds(self) -> float:
        """How long a connection can stay: lifetime + jitter + one health check."""
        return self.lifetime.value + self.jitter.value + self.health_check.value


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """A deployment as processes, pools and servers."""

    workloads: tuple[Workload, ...]
    pgcat: Pgcat | None
    permify: tuple[Permify, ...]
    known_servers: frozenset[Address]

    def running(self, program: str) -> list[Workload]:
        """The workloads of a program."""
        return [workload for workload in self.workloads if workload.program == program]

    def pooled(self, uri: Uri) -> bool:
        """Whether a URI of Permify leads to PgCat rather than to a PostgreSQL server."""
        if self.pgcat is None or all(server in self.known_servers for server in uri.servers):
            return False
        names = {pool.pool for pool in self.pgcat.pools}
        return uri.database in names or any(server.port == self.pgcat.port for server in uri.servers)

    def direct_sides(self, permify: Permify) -> Iterator[tuple[Side, Uri]]:
        """The pools of Permify that reach PostgreSQL without PgCat."""
        return ((side, uri) for side, uri in permify.sides if not self.pooled(uri))


@lru_cache(maxsize=4)
def read_topology(deployment: Deployment) -> Topology:
    """What the files of a deployment run."""
    workloads = read_workloads(deployment)
    pgcat = _pgcat(deployment.pgcat) if deployment.pgcat is not None else None
    known = {server.address for pool in (pgcat.pools if pgcat else ()) for server in pool.servers}
    for entry in as_list(dig(deployment.budget.data, "servers")) if deployment.budget else []:
        address = server_address(entry)
        if address is not None:
            known.add(address)
    permify = tuple(_permify(deployment, workload) for workload in workloads if workload.program == "permify")
    return Topology(workloads, pgcat, permify, frozenset(known))


def server_address(entry: Any) -> Address | None:
    """The address of an item of `servers` in budget.yaml, or None where it has no host."""
    host, port = dig(entry, "host"), dig(entry, "port")
    number = whole(port)
    if not isinstance(host, str) or not host.strip() or (port is not None and number is None):
        return None
    return Address.of(host, number)


# PgCat


def _pgcat(source: Source) -> Pgcat:
    shutdown = whole(dig(source.data, "general", "shutdown_timeout"))
    return Pgcat(
        port=whole(dig(source.data, "general", "port")) or PGCAT_PORT,
        shutdown=Seconds(
            (SHUTDOWN_TIMEOUT_MS if shutdown is None else shutdown) / 1000,
            source.at("general", "shutdown_timeout"),
        ),
        pools=tuple(_pools(source)),
    )


def _pools(source: Source) -> Iterator[PoolUser]:
    for name, pool in as_mapping(dig(source.data, "pools")).items():
        for user_key, user in as_mapping(dig(pool, "users")).items():
            size = whole(dig(user, "pool_size"))
            if size is None:
                continue
            user_at: tuple[Key, ...] = ("pools", name, "users", user_key)
            mode, mode_at = _first(source, (*user_at, "pool_mode"), ("pools", name, "pool_mode"), kind=str)
            for shard_key, shard in as_mapping(dig(pool, "shards")).items():
                at: tuple[Key, ...] = ("pools", name, "shards", shard_key)
                yield PoolUser(
                    pool=name,
                    user=str(dig(user, "username") or user_key),
                    shard=shard_key,
                    mode=(mode or "transaction").lower(),
                    size=Number(max(size, 0), source.at(*user_at, "pool_size")),
                    servers=tuple(_servers(source, at, shard)),
                    idle_timeout=_timeout(source, name, user_at, "idle_timeout", IDLE_TIMEOUT_MS),
                    server_lifetime=_timeout(source, name, user_at, "server_lifetime", SERVER_LIFETIME_MS),
                    mode_location=mode_at,
                )


def _servers(source: Source, at: tuple[Key, ...], shard: Any) -> Iterator[PoolServer]:
    for group in ("servers", "mirrors"):
        for index, entry in enumerate(as_list(dig(shard, group))):
            if isinstance(entry, list):
                host, port, role = (*entry, None, None, None)[:3]
            else:
                host, port, role = dig(entry, "host"), dig(entry, "port"), dig(entry, "role")
            number = whole(port)
            if isinstance(host, str) and number is not None:
                kind = "mirror" if group == "mirrors" else str(role).lower()
                yield PoolServer(Address.of(host, number), kind, source.at(*at, group, index))


def _timeout(source: Source, pool: str, user_at: tuple[Key, ...], key: str, default: int) -> Seconds:
    """A time in milliseconds of the user, else of the pool, else of [general], else PgCat's default."""
    value, location = _first(source, (*user_at, key), ("pools", pool, key), ("general", key), kind=int)
    return Seconds((default if value is None else value) / 1000, location)


def _first(source: Source, *paths: tuple[Key, ...], kind: type[T]) -> tuple[T | None, Location]:
    """The value at the first of these paths that has one of this type; else where the last would stand."""
    for path in paths:
        value = dig(source.data, *path)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value, source.at(*path)
    return None, source.at(*paths[-1])


# Permify


def _permify(deployment: Deployment, workload: Workload) -> Permify:
    helm = workload.kind == "helm"
    source = workload.source if helm else deployment.permify
    settings = _Settings(workload, source, ("app",) if helm else ())
    both = settings.uri("database", "uri")
    lifetime = settings.seconds("max_connection_lifetime", LIFETIME_SECONDS)
    jitter = settings.seconds("max_connection_lifetime_jitter", 0.0)
    if jitter.value <= 0:
        jitter = Seconds(JITTER_SHARE * lifetime.value, jitter.location)
    health_check = settings.seconds("health_check_period", 0.0)
    if health_check.value <= 0:
        health_check = Seconds(HEALTH_CHECK_SECONDS, health_check.location)
    watch, _ = settings.find(_flag, "service", "watch", "enabled")
    return Permify(
        workload=workload,
        writer=both or settings.uri("database", "writer", "uri"),
        reader=both or settings.uri("database", "reader", "uri"),
        max_connections=settings.max_connections(),
        lifetime=lifetime,
        jitter=jitter,
        health_check=health_check,
        idle=settings.seconds("max_connection_idle_time", IDLE_SECONDS),
        watch=bool(watch),
    )


class _Settings:
    """Permify's settings as it takes them: PERMIFY_… in the environment wins over the file."""

    def __init__(self, workload: Workload, source: Source | None, base: tuple[Key, ...]) -> None:
        self._environment, self._source, self._base = workload.environment, source, base
        self._nowhere = workload.container

    def find(self, read: Callable[[Any], T | None], *keys: str) -> tuple[T | None, Location]:
        """The setting as `read` makes it of what is written, and where that stands or would stand."""
        written = self._environment.get("_".join(("PERMIFY", *keys)).upper())
        if written is not None and written[0] != "":  # an empty variable counts as none
            return read(written[0]), written[1]
        if self._source is None:
            return None, self._nowhere
        path = (*self._base, *keys)
        if self._base and keys[-1] in _NOT_IN_CHART:
            return None, self._source.at(*path)
        return read(dig(self._source.data, *path)), self._source.at(*path)

    def seconds(self, key: str, default: float) -> Seconds:
        value, location = self.find(duration_seconds, "database", key)
        return Seconds(default if value is None else value, location)

    def uri(self, *keys: str) -> Uri | None:
        text, location = self.find(lambda value: value if isinstance(value, str) else None, *keys)
        return read_uri(text, location) if text else None

    def max_connections(self) -> Number:
        """`max_connections`; at 0 the deprecated `max_open_connections`, which is 20 by itself."""
        value, location = self.find(whole_text, "database", "max_connections")
        if value is not None and value > 0:
            return Number(value, location)
        old, old_location = self.find(whole_text, "database", "max_open_connections")
        if old is not None and old > 0:
            return Number(old, old_location)
        return Number(MAX_OPEN_CONNECTIONS, location)


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "t", "true")
    return value if isinstance(value, bool) else None
