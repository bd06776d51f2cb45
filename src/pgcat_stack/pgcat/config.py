"""pgcat.toml, read once: what it says and where, and what PgCat of its version refuses or ignores of it.

A value of another type than PgCat's counts as absent, and is one of `gaps`. PgCat's defaults are those of
the models in `settings.py`. They are imported only when a default or an issue is asked for: the import takes
as long as the plan of a deployment, whose file mostly writes all that the plan needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pgcat_stack.endpoints import Address
from pgcat_stack.files.gaps import Gap
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import Number, Seconds, whole
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.pgcat.version import PgcatVersion

if TYPE_CHECKING:
    from pgcat_stack.files.issues import Issue
    from pgcat_stack.pgcat.settings import Section

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A setting and where it stands, or would stand.

    `value` is PgCat's default where nothing is written. It is None where PgCat has no default, where what is
    written has another type, and in an empty file.
    """

    value: T | None
    location: Location


class _Setting(Generic[T]):
    """A key of a table, by its name in pgcat.toml, as an attribute of that table."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    def __get__(self, table: _Table, _: type) -> Setting[T]:
        value = table.written(self.name, self.kind)
        if self.name not in table.data and table.source.mapping:
            value = _default(table, self.name)
        return Setting(value, table.at(self.name))


@dataclass(frozen=True, eq=False)
class _Table:
    """A table of pgcat.toml by its path, also where none stands there."""

    section: ClassVar[Section]

    source: Source = field(repr=False)
    keys: tuple[Key, ...]

    @cached_property
    def data(self) -> dict[str, Any]:
        """Its keys and values as they are written."""
        return as_mapping(dig(self.source.data, *self.keys))

    def at(self, *keys: Key) -> Location:
        """Where a key of the table stands, or would stand."""
        return self.source.at(*self.keys, *keys)

    def written(self, key: str, kind: type[T]) -> T | None:
        """What is written, where it has this type."""
        value = self.data.get(key)
        return value if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else None


def _default(table: _Table, key: str) -> Any:
    from pgcat_stack.pgcat.settings import default_of

    return default_of(table.section, key)


def _first(key: str, kind: type[T], *tables: _Table) -> Setting[T]:
    """The setting of the first of these tables that has one of this type, else the last one's default."""
    for table in tables:
        value = table.written(key, kind)
        if value is not None:
            return Setting(value, table.at(key))
    return Setting(_default(tables[-1], key), tables[-1].at(key))


def _milliseconds(key: str, *tables: _Table) -> Seconds:
    setting = _first(key, int, *tables)
    return Seconds((setting.value or 0) / 1000, setting.location)


class General(_Table):
    """The table [general]."""

    section = "general"

    host = _Setting(str)
    port = _Setting(int)
    enable_prometheus_exporter = _Setting(bool)
    prometheus_exporter_port = _Setting(int)
    dns_cache_enabled = _Setting(bool)
    dns_max_ttl = _Setting(int)
    """Seconds."""
    tls_certificate = _Setting(str)
    tls_private_key = _Setting(str)
    server_tls = _Setting(bool)
    verify_server_certificate = _Setting(bool)
    admin_username = _Setting(str)

    @property
    def on_loopback(self) -> bool:
        """Whether nobody outside its pod or container reaches PgCat and its exporter."""
        return Address.of(self.host.value or "").is_loopback

    @property
    def shutdown(self) -> Seconds:
        """How long PgCat waits for its clients once it is told to stop."""
        return _milliseconds("shutdown_timeout", self)

    @property
    def offers_tls(self) -> bool | None:
        """Whether a certificate is named, of whichever type; None where the table is empty."""
        return bool(self.data.get("tls_certificate")) if self.data else None


@dataclass(frozen=True, slots=True)
class PoolServer:
    """A server in a shard, or a mirror of one."""

    address: Address
    role: str
    location: Location


class Shard(_Table):
    """One shard of a pool with its servers; `mirrors` get the same queries."""

    section = "shard"

    database = _Setting(str)

    @cached_property
    def servers(self) -> tuple[PoolServer, ...]:
        """The servers with a host and a port that can be read."""
        return tuple(self._listed("servers"))

    @cached_property
    def mirrors(self) -> tuple[PoolServer, ...]:
        """The mirrors with a host and a port that can be read."""
        return tuple(self._listed("mirrors"))

    def _listed(self, group: str) -> Iterator[PoolServer]:
        for index, entry in enumerate(as_list(self.data.get(group))):
            named = (
                dict(zip(("host", "port", "role"), entry, strict=False)) if isinstance(entry, list) else entry
            )
            host, port, role = dig(named, "host"), whole(dig(named, "port")), dig(named, "role")
            if isinstance(host, str) and port is not None:
                kind = "mirror" if group == "mirrors" else str(role).lower()
                yield PoolServer(Address.of(host, port), kind, self.at(group, index))


@dataclass(frozen=True, eq=False)
class User(_Table):
    """One user of a pool."""

    section = "user"

    above: tuple[_Table, ...]
    """The tables whose settings count where those of the user are silent: of its pool, and [general]."""

    @property
    def name(self) -> str:
        """Who logs in to PgCat; empty where that cannot be read."""
        return self.written("username", str) or ""

    @property
    def server_name(self) -> str:
        """Who PgCat logs in to PostgreSQL as."""
        return self.written("server_username", str) or self.name

    @property
    def password(self) -> str | None:
        """What stands for the password of the client."""
        return self.written("password", str)

    @property
    def server_password(self) -> str | None:
        """What stands for the password of the role in PostgreSQL."""
        return self.written("server_password" if "server_password" in self.data else "password", str)

    @property
    def mode(self) -> str:
        """When a server connection goes to another client: `transaction` or `session`."""
        return (_first("pool_mode", str, self, self.above[0]).value or "").lower()

    @property
    def size(self) -> Number | None:
        """The most connections to each server."""
        size = self.written("pool_size", int)
        return None if size is None else Number(max(size, 0), self.at("pool_size"))

    @property
    def idle_timeout(self) -> Seconds:
        """After how long PgCat closes an idle server connection."""
        return _milliseconds("idle_timeout", self, *self.above)

    @property
    def server_lifetime(self) -> Seconds:
        """After how long PgCat replaces a server connection."""
        return _milliseconds("server_lifetime", self, *self.above)

    @property
    def location(self) -> Location:
        """Where its name stands."""
        return self.at("username")


@dataclass(frozen=True, eq=False)
class Pool(_Table):
    """One table `pools.NAME`."""

    section = "pool"

    name: str
    general: General = field(repr=False)

    prepared_statements_cache_size = _Setting(int)

    @cached_property
    def users(self) -> tuple[User, ...]:
        """Its users."""
        tables = as_mapping(self.data.get("users"))
        return tuple(User(self.source, (*self.keys, "users", key), (self, self.general)) for key in tables)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """Its shards."""
        tables = as_mapping(self.data.get("shards"))
        return tuple(Shard(self.source, (*self.keys, "shards", key)) for key in tables)

    @property
    def servers(self) -> Iterator[PoolServer]:
        """The servers that queries go to, of every shard."""
        return (server for shard in self.shards for server in shard.servers)

    @property
    def transaction_mode(self) -> bool:
        """Whether a client may meet another server connection in its next transaction."""
        return any(user.mode == "transaction" for user in self.users)

    @property
    def prewarming(self) -> list[str]:
        """The queries that run on each new server connection; those of all pools where it has no plugins."""
        plugins = self.data.get("plugins", dig(self.source.data, "plugins"))
        prewarmer = dig(plugins, "prewarmer")
        queries = as_list(dig(prewarmer, "queries")) if dig(prewarmer, "enabled") is True else []
        return [query for query in queries if isinstance(query, str)]


@dataclass(frozen=True, slots=True)
class PoolUser:
    """What one user of a pool opens on each server of one shard, in each PgCat process."""

    pool: str
    user: User
    size: Number
    servers: tuple[PoolServer, ...]


@dataclass(frozen=True, eq=False)
class Pgcat:
    """A pgcat.toml that parses, for a version of PgCat."""

    source: Source = field(repr=False)
    version: PgcatVersion

    @cached_property
    def issues(self) -> tuple[Issue, ...]:
        """What PgCat refuses or ignores, or would fail on later."""
        from pgcat_stack.pgcat.settings import issues_in

        return issues_in(self.source.data, self.version)

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """The values of another type than PgCat's."""
        from pgcat_stack.files.issues import WRONG_TYPE

        wrong = (issue for issue in self.issues if issue.kind == WRONG_TYPE)
        return tuple(Gap(self.source.at(*issue.keys), issue.message) for issue in wrong)

    @cached_property
    def general(self) -> General:
        """The table [general]."""
        return General(self.source, ("general",))

    @property
    def empty(self) -> bool:
        """Whether nothing is written at all."""
        return not self.source.mapping

    @cached_property
    def port(self) -> int | None:
        """Where PgCat listens; None where what is written is no port."""
        return self.general.port.value

    @cached_property
    def exporter(self) -> int | None:
        """Where its exporter listens; None where it is off, or where what is written is no port."""
        on = self.general.enable_prometheus_exporter.value is True
        return self.general.prometheus_exporter_port.value if on else None

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pools by name."""
        tables = as_mapping(self.source.mapping.get("pools"))
        return {name: Pool(self.source, ("pools", name), name, self.general) for name in tables}

    @cached_property
    def opened(self) -> tuple[PoolUser, ...]:
        """What the users with a size open."""
        return tuple(
            PoolUser(pool.name, user, user.size, (*shard.servers, *shard.mirrors))
            for pool in self.pools.values()
            for user in pool.users
            if user.size is not None
            for shard in pool.shards
        )

    @cached_property
    def written(self) -> dict[tuple[Key, ...], Setting[object]]:
        """All that [general], pools and users set, by path, as it is written, but for tables in them."""
        tables: list[_Table] = [self.general]
        for pool in self.pools.values():
            tables += [pool, *pool.users]
        return {
            (*table.keys, key): Setting(value, table.at(key))
            for table in tables
            for key, value in table.data.items()
            if not isinstance(value, dict)
        }
