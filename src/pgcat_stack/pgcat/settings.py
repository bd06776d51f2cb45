"""What PgCat reads from pgcat.toml: its keys, types, ranges and rules, for the lines 1.2 and 1.3.

The fields mirror the structures that PgCat 1.2.0 and the 1.3.0 line deserialize (their `config.rs`); the
rules mirror what they refuse at start, or accept and then fail on. PgCat itself ignores unknown keys; here
they are reported.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pgcat_stack.endpoints import Address
from pgcat_stack.files.issues import (
    UNKNOWN_KEY,
    UNKNOWN_VALUE,
    Issue,
    issues_of,
    nearest,
    place,
    section,
    without,
)
from pgcat_stack.files.plain_data import Key, as_list, as_mapping
from pgcat_stack.pgcat.version import PgcatVersion
from pgcat_stack.printable import show

NEWER_KEY = "newer-key"
POOL_SIZES, SERVERS, SERVER_ADDRESS = "pool-sizes", "servers", "server-address"
SHARDS, PARSER, AUTHENTICATION = "shards", "parser", "authentication"
BRACKETS_TLS, BRACKETS_DNS = "brackets-with-tls", "brackets-with-dns-cache"
EXPORTER_HOST, TLS_PAIR, POOL_NAME, REGEX, DUPLICATE_USER = (
    "exporter-host",
    "tls-pair",
    "pool-name",
    "regex",
    "duplicate-user",
)

Section = Literal["general", "pool", "user", "shard"]
"""A kind of table."""

Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
ExporterPort = Annotated[int, Field(strict=True, ge=1, le=32767)]
"""PgCat keeps this port in 16 bits with a sign."""
U32 = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
U64 = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
"""TOML's integers end before PgCat's do."""
Positive = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
"""Where PgCat starts and then stops with a panic, or never serves anyone, at 0."""
PositiveU32 = Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)]
I64 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]

Role = Literal["primary", "Primary", "replica", "Replica", "mirror", "Mirror"]
PoolMode = Literal["transaction", "Transaction", "session", "Session"]
LoadBalancing = Literal[
    "random", "Random", "loc", "LOC", "least_outstanding_connections", "LeastOutstandingConnections"
]
ShardingFunction = Literal["pg_bigint_hash", "PgBigintHash", "sha1", "Sha1"]
AuthType = Literal["md5", "MD5", "trust", "Trust"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TableOrList(_Table):
    """A structure that may also be written as a list of its values in order."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        names = list(cls.model_fields)
        if len(value) != len(names):
            raise PydanticCustomError(
                "issue:wrong-type",
                "{length} values in {value}",
                {"length": len(value), "value": show(value), "fix": f"write [{', '.join(names)}]"},
            )
        return dict(zip(names, value, strict=True))


class Server(_TableOrList):
    """One PostgreSQL server of a shard: `[host, port, role]`."""

    host: Text
    port: Port
    role: Role

    @property
    def kind(self) -> str:
        """The role in lower case: primary, replica or mirror."""
        return self.role.lower()


class MirrorServer(_TableOrList):
    """A server that gets a copy of the traffic of `servers[mirroring_target_index]`."""

    host: Text
    port: Port
    mirroring_target_index: U64


class Shard(_Table):
    """A database and the servers that hold it."""

    database: Text
    mirrors: list[MirrorServer] | None = None
    servers: list[Server]


class User(_Table):
    """A user of a pool, and the size of the pool this user gets on every server. Times are milliseconds."""

    username: Text
    password: Text | None = None
    auth_type: AuthType = "md5"
    server_username: Text | None = None
    server_password: Text | None = None
    pool_size: PositiveU32
    min_pool_size: U32 | None = None
    pool_mode: PoolMode | None = None
    server_lifetime: Positive | None = None
    statement_timeout: U64 = 0
    connect_timeout: Positive | None = None
    idle_timeout: Positive | None = None


class Query(_Table):
    """A query that the intercept plugin answers by itself."""

    query: Text
    schema_: list[list[Text]] = Field(alias="schema")
    result: list[list[Text]]


class Intercept(_Table):
    """The plugin that answers queries by itself."""

    enabled: Flag
    queries: dict[str, Query]


class TableAccess(_Table):
    """The plugin that refuses queries on tables."""

    enabled: Flag
    tables: list[Text]


class QueryLogger(_Table):
    """The plugin that logs queries."""

    enabled: Flag


class Prewarmer(_Table):
    """The plugin that runs queries on new server connections."""

    enabled: Flag
    queries: list[Text]


class Plugins(_Table):
    """Plugins of all pools or of one."""

    intercept: Intercept | None = None
    table_access: TableAccess | None = None
    query_logger: QueryLogger | None = None
    prewarmer: Prewarmer | None = None


class Pool(_Table):
    """A pool: what clients name as their database. Times are milliseconds; `db_activity_ttl` is seconds."""

    pool_mode: PoolMode = "transaction"
    load_balancing_mode: LoadBalancing = "random"
    default_role: Text = "any"
    query_parser_enabled: Flag = False
    query_parser_max_length: U64 | None = None
    query_parser_read_write_splitting: Flag = False
    primary_reads_enabled: Flag = False
    connect_timeout: Positive | None = None
    idle_timeout: Positive | None = None
    checkout_failure_limit: U64 | None = None
    server_lifetime: Positive | None = None
    sharding_function: ShardingFunction = "pg_bigint_hash"
    automatic_sharding_key: Text | None = None
    sharding_key_regex: Text | None = None
    shard_id_regex: Text | None = None
    regex_search_limit: U64 | None = None
    default_shard: Text = "shard_0"
    auth_query: Text | None = None
    auth_query_user: Text | None = None
    auth_query_password: Text | None = None
    cleanup_server_connections: Flag = True
    log_client_parameter_status_changes: Flag = False
    prepared_statements_cache_size: U64 = 0
    db_activity_based_routing: Flag = False
    db_activity_init_delay: U64 = 100
    db_activity_ttl: U64 = 15 * 60
    table_mutation_cache_ms_ttl: U64 = 50
    plugins: Plugins | None = None
    shards: dict[str, Shard]
    users: dict[str, User]


class General(_Table):
    """Settings of the process and defaults of its pools.

    Times are milliseconds, except `ban_time`, `dns_max_ttl` and the keepalives, which are seconds.
    """

    host: Text = "0.0.0.0"
    port: Port = 5432
    enable_prometheus_exporter: Flag | None = None
    prometheus_exporter_port: ExporterPort = 9930
    connect_timeout: Positive = 1000
    idle_timeout: Positive = 600_000
    tcp_keepalives_idle: U64 = 5
    tcp_keepalives_count: U32 = 5
    tcp_keepalives_interval: U64 = 5
    tcp_user_timeout: U64 = 10_000
    log_client_connections: Flag = False
    log_client_disconnections: Flag = False
    dns_cache_enabled: Flag = False
    dns_max_ttl: U64 = 30
    shutdown_timeout: U64 = 60_000
    healthcheck_timeout: Positive = 1000
    healthcheck_delay: U64 = 30_000
    ban_time: I64 = 60
    idle_client_in_transaction_timeout: U64 = 0
    server_lifetime: Positive = 3_600_000
    server_round_robin: Flag = True
    worker_threads: Positive = 4
    autoreload: Positive | None = None
    tls_certificate: Text | None = None
    tls_private_key: Text | None = None
    server_tls: Flag = False
    verify_server_certificate: Flag = False
    admin_username: Text
    admin_password: Text
    admin_auth_type: AuthType = "md5"
    validate_config: Flag = True
    auth_query: Text | None = None
    auth_query_user: Text | None = None
    auth_query_password: Text | None = None


class PgcatConfig(_Table):
    """The whole of pgcat.toml."""

    path: Text = "pgcat.toml"
    general: General
    plugins: Plugins | None = None
    pools: dict[str, Pool]


def issues_in(data: Any, version: PgcatVersion) -> tuple[Issue, ...]:
    """What PgCat of this version refuses or ignores in the data of a pgcat.toml, or would fail on later."""
    unknown = list(_unknown_keys(data))
    newer = list(_newer_keys(data)) if version == "1.2" else []
    issues = unknown + [_newer_key_issue(keys) for keys in newer]
    try:
        config = PgcatConfig.model_validate(without(data, [issue.keys for issue in unknown] + newer))
    except ValidationError as error:
        return (*issues, *issues_of(error))
    return (*issues, *_rules(config))


def default_of(section: Section, key: str) -> Any:
    """What PgCat takes where the key is not written; None where that is nothing."""
    field = _SECTIONS[section].model_fields[key]
    return None if field.is_required() else field.default


# Unknown keys


_SECTIONS: dict[Section, type[BaseModel]] = {"general": General, "pool": Pool, "user": User, "shard": Shard}
_IN_SECTION = {
    "general": "[general]",
    "pool": "[pools.<name>]",
    "user": "[pools.<name>.users.<number>]",
    "shard": "[pools.<name>.shards.<number>]",
}
_NEW_IN_1_3 = {
    "general": ("admin_auth_type",),
    "pool": (
        "checkout_failure_limit",
        "db_activity_based_routing",
        "db_activity_init_delay",
        "db_activity_ttl",
        "table_mutation_cache_ms_ttl",
    ),
    "user": ("auth_type",),
}


def _tables(data: Any) -> Iterator[tuple[str, tuple[Key, ...], dict[str, Any], type[BaseModel]]]:
    """Every table of the file that has a model: what it is, where it stands, its data and its model."""
    top = as_mapping(data)
    yield "top", (), top, PgcatConfig
    yield "general", ("general",), as_mapping(top.get("general")), General
    yield from _plugin_tables(top.get("plugins"), ("plugins",))
    for name, pool in as_mapping(top.get("pools")).items():
        at: tuple[Key, ...] = ("pools", name)
        pool = as_mapping(pool)
        yield "pool", at, pool, Pool
        yield from _plugin_tables(pool.get("plugins"), (*at, "plugins"))
        for number, user in as_mapping(pool.get("users")).items():
            yield "user", (*at, "users", number), as_mapping(user), User
        for number, shard in as_mapping(pool.get("shards")).items():
            shard_at = (*at, "shards", number)
            yield "shard", shard_at, as_mapping(shard), Shard
            for field, model in (("servers", Server), ("mirrors", MirrorServer)):
                for index, server in enumerate(as_list(as_mapping(shard).get(field))):
                    yield "server", (*shard_at, field, index), as_mapping(server), model


def _plugin_tables(
    data: Any, at: tuple[Key, ...]
) -> Iterator[tuple[str, tuple[Key, ...], dict[str, Any], type[BaseModel]]]:
    plugins = as_mapping(data)
    yield "plugins", at, plugins, Plugins
    models: dict[str, type[BaseModel]] = {
        "intercept": Intercept,
        "table_access": TableAccess,
        "query_logger": QueryLogger,
        "prewarmer": Prewarmer,
    }
    for name, model in models.items():
        yield "plugin", (*at, name), as_mapping(plugins.get(name)), model
    for name, query in as_mapping(as_mapping(plugins.get("intercept")).get("queries")).items():
        yield "query", (*at, "intercept", "queries", name), as_mapping(query), Query


def _known(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _unknown_keys(data: Any) -> Iterator[Issue]:
    for kind, at, table, model in _tables(data):
        known = _known(model)
        for key in table:
            if key in known:
                continue
            elsewhere = [
                name for name, other in _SECTIONS.items() if name != kind and key in other.model_fields
            ]
            near = nearest(key, known)
            if elsewhere:
                fix = f"it belongs in {_IN_SECTION[elsewhere[0]]}"
            else:
                fix = f"did you mean `{near}`?" if near else "remove it"
            message = f"unknown key {_code(key)} {place(at)}: pgcat ignores it silently"
            yield Issue(UNKNOWN_KEY, (*at, key), message, fix)


def _newer_keys(data: Any) -> Iterator[tuple[Key, ...]]:
    for kind, at, table, _ in _tables(data):
        for key in _NEW_IN_1_3.get(kind, ()):
            if key in table:
                yield (*at, key)


def _newer_key_issue(keys: tuple[Key, ...]) -> Issue:
    message = f"`{keys[-1]}` {place(keys[:-1])} is new in pgcat 1.3: the 1.2 of this deployment ignores it"
    return Issue(NEWER_KEY, keys, message, "remove it, or run an image of the 1.3 line")


def _code(text: str) -> str:
    return f"`{text}`" if len(text) <= 60 else f"`{text[:60]}…`"


# Rules


def _rules(config: PgcatConfig) -> Iterator[Issue]:
    """What PgCat refuses, or would fail on later, in a configuration whose keys and types are right."""
    yield from _general_rules(config.general)
    for name, pool in config.pools.items():
        at: tuple[Key, ...] = ("pools", name)
        if name in ("pgcat", "pgbouncer"):
            yield Issue(
                POOL_NAME, at, f"the pool name `{name}` is taken by pgcat's admin database", "rename the pool"
            )
        if not name:
            yield Issue(POOL_NAME, at, "a pool without a name: no client can ask for it", "name the pool")
        yield from _authentication_rules(at, pool, config.general)
        yield from _user_rules(at, pool)
        yield from _shard_rules(at, pool, config.general)
        yield from _parser_rules(at, pool)
        yield from _regex_rules(at, pool)


def _general_rules(general: General) -> Iterator[Issue]:
    if general.enable_prometheus_exporter and not _is_socket_host(general.host):
        yield Issue(
            EXPORTER_HOST,
            ("general", "host"),
            f"`host` is {show(general.host)}: the exporter needs an IP address, and pgcat does not start",
            _listening_fix(general.host),
        )
    if general.tls_certificate is not None and general.tls_private_key is None:
        message = "`tls_certificate` without `tls_private_key`: pgcat does not start"
        yield Issue(TLS_PAIR, ("general", "tls_certificate"), message, "set both or none")
    if general.tls_private_key is not None and general.tls_certificate is None:
        message = "`tls_private_key` without `tls_certificate`: clients get no TLS"
        yield Issue(TLS_PAIR, ("general", "tls_private_key"), message, "set both or none")
    if general.verify_server_certificate and not general.server_tls:
        message = (
            "`verify_server_certificate` without `server_tls`: connections to PostgreSQL are not encrypted"
        )
        yield Issue(TLS_PAIR, ("general", "verify_server_certificate"), message, "set server_tls = true")
    yield from _auth_query_rule(("general",), general, general)


def _is_socket_host(host: str) -> bool:
    """Whether `host:port` is a socket address: IPv4, or IPv6 in brackets."""
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _listening_fix(host: str) -> str:
    address = _ipv6(host)
    if address is None:
        return "use 0.0.0.0, or [::] for IPv6 also, or switch the exporter off"
    return f"write [{address}]" + (", which serves IPv4 also" if address.is_unspecified else "")


def _ipv6(host: str) -> ipaddress.IPv6Address | None:
    """The IPv6 address that a host without brackets is, None for anything else."""
    try:
        return ipaddress.IPv6Address(host) if ":" in host else None
    except ValueError:
        return None


def _auth_query_rule(at: tuple[Key, ...], table: General | Pool, general: General) -> Iterator[Issue]:
    if table.auth_query is None:
        return
    for key in ("auth_query_user", "auth_query_password"):
        if getattr(table, key) is None and getattr(general, key) is None:
            message = f"`auth_query` without `{key}` in {section(at)}: pgcat does not start"
            yield Issue(AUTHENTICATION, (*at, "auth_query"), message, f"add {key}, or remove auth_query")


def _authentication_rules(at: tuple[Key, ...], pool: Pool, general: General) -> Iterator[Issue]:
    yield from _auth_query_rule(at, pool, general)
    keys = ("auth_query", "auth_query_user", "auth_query_password")
    if all(getattr(pool, key) is not None or getattr(general, key) is not None for key in keys):
        return
    for number, user in pool.users.items():
        if user.password is None:
            user_at = (*at, "users", number)
            message = f"no `password` in {section(user_at)} and no complete auth_query: pgcat does not start"
            yield Issue(AUTHENTICATION, user_at, message, "add password")


def _user_rules(at: tuple[Key, ...], pool: Pool) -> Iterator[Issue]:
    if not pool.users:
        yield Issue(
            DUPLICATE_USER, (*at, "users"), f"{section(at)} has no users: nobody can connect", "add a user"
        )
    names = Counter(user.username for user in pool.users.values())
    for number, user in pool.users.items():
        user_at = (*at, "users", number)
        if user.min_pool_size is not None and user.min_pool_size > user.pool_size:
            message = f"`min_pool_size` {user.min_pool_size} is larger than `pool_size` {user.pool_size}"
            yield Issue(POOL_SIZES, (*user_at, "min_pool_size"), message, f"at most {user.pool_size}")
        if names[user.username] > 1:
            message = f"user {show(user.username)} stands more than once in {section(at)}: one entry wins"
            yield Issue(DUPLICATE_USER, (*user_at, "username"), message, "keep one entry for each user")


def _shard_rules(at: tuple[Key, ...], pool: Pool, general: General) -> Iterator[Issue]:
    yield from _default_shard_rule(at, pool)
    if pool.default_role not in ("any", "primary", "replica"):
        message = f"`default_role` is {show(pool.default_role)}"
        yield Issue(UNKNOWN_VALUE, (*at, "default_role"), message, "one of 'any', 'primary' or 'replica'")
    for name, shard in pool.shards.items():
        shard_at = (*at, "shards", name)
        if not re.fullmatch(r"\+?[0-9]+", name, re.ASCII):
            message = f"the shard name {show(name)} is not a number"
            yield Issue(SHARDS, shard_at, message, "number shards from 0")
        yield from _server_rules(shard_at, shard, pool.default_role, general)


def _default_shard_rule(at: tuple[Key, ...], pool: Pool) -> Iterator[Issue]:
    keys = (*at, "default_shard")
    if pool.default_shard in ("random", "random_healthy"):
        return
    number = re.fullmatch(r"shard_\+?([0-9]{1,19})", pool.default_shard, re.ASCII)
    if number is None:
        message = f"`default_shard` is {show(pool.default_shard)}"
        yield Issue(
            UNKNOWN_VALUE, keys, message, "one of 'random', 'random_healthy' or 'shard_0', 'shard_1', …"
        )
    elif not pool.shards:
        yield Issue(
            SHARDS, (*at, "shards"), f"{section(at)} has no shards: pgcat does not start", "add shard 0"
        )
    elif int(number[1]) >= len(pool.shards):
        message = f"`default_shard` is {show(pool.default_shard)}, but there are {len(pool.shards)} shards"
        yield Issue(SHARDS, keys, message, f"at most shard_{len(pool.shards) - 1}")


def _server_rules(at: tuple[Key, ...], shard: Shard, default_role: str, general: General) -> Iterator[Issue]:
    servers_at = (*at, "servers")
    if not shard.servers:
        yield Issue(
            SERVERS, servers_at, f"{section(at)} has no servers: pgcat does not start", "add a server"
        )
        return
    seen: set[tuple[Address, str]] = set()
    primaries = 0
    for index, server in enumerate(shard.servers):
        here = (*servers_at, index)
        address = Address.of(server.host, server.port)
        identity = (address, server.kind)
        if identity in seen:
            message = f"{address} stands twice as {server.kind} in {section(at)}"
            yield Issue(SERVERS, here, message, "list each server once")
        seen.add(identity)
        primaries += server.kind == "primary"
        if server.kind == "primary" and primaries > 1:
            message = f"{section(at)} has more than one primary: pgcat does not start"
            yield Issue(SERVERS, here, message, "one primary a shard; the others are replicas")
        if server.kind == "mirror":
            message = f"{address} has the role mirror among the servers"
            yield Issue(SERVERS, here, message, "list it under mirrors")
        yield from _address_rule(here, server.host)
        yield from _brackets_rule(here, server.host, general)
    if default_role in ("primary", "replica") and all(
        server.kind != default_role for server in shard.servers
    ):
        message = f"no server of {section(at)} is a {default_role}, which is the pool's `default_role`"
        yield Issue(SERVERS, servers_at, message, f"add a {default_role}, or change default_role")
    for index, mirror in enumerate(shard.mirrors or []):
        here = (*at, "mirrors", index)
        yield from _address_rule(here, mirror.host)
        yield from _brackets_rule(here, mirror.host, general)
        if mirror.mirroring_target_index >= len(shard.servers):
            message = f"mirror {Address.of(mirror.host, mirror.port)} follows a server that is not there"
            yield Issue(SERVERS, here, message, f"at most {len(shard.servers) - 1}")


def _address_rule(at: tuple[Key, ...], host: str) -> Iterator[Issue]:
    """PgCat joins host and port by a colon; what is before the last colon is an address or a name."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = _ipv6(bare)
    if not host or any(char.isspace() or char in "/@," for char in host):
        yield Issue(
            SERVER_ADDRESS, at, f"{show(host)} is no host name or address", "one host, without port or scheme"
        )
    elif address is not None and address.scope_id is not None:
        message = f"{show(host)} names an interface of one machine after the %"
        yield Issue(SERVER_ADDRESS, at, message, "another address of the server, or its name")
    elif bare == "0.0.0.0" or (address is not None and address.is_unspecified):
        message = f"{show(host)} is no address of a server: a connection to it stays on the machine"
        yield Issue(SERVER_ADDRESS, at, message, "name the PostgreSQL server")
    elif address is not None and (address.is_link_local or address.is_multicast):
        kind = "link-local" if address.is_link_local else "multicast"
        message = f"{show(host)} is {kind}: no container or pod reaches a server there"
        yield Issue(SERVER_ADDRESS, at, message, "another address of the server, or its name")
    elif address is None and (":" in bare or bare != host):
        wrong = "no IPv6 address" if bare != host or host.count(":") > 1 else "no host"
        message = f"{show(host)} is {wrong}: its last colon would be read as the port's"
        if bare != host and ":" not in bare:
            message = f"{show(host)} is no host: only IPv6 stands in brackets"
        yield Issue(SERVER_ADDRESS, at, message, "the host alone; the port is a value of its own")


def _brackets_rule(at: tuple[Key, ...], host: str, general: General) -> Iterator[Issue]:
    """PgCat takes IPv6 in brackets for a name wherever it does not only connect to it."""
    bare = host[1:-1]
    address = _ipv6(bare) if host == f"[{bare}]" else None
    if address is None or address.scope_id is not None or address.is_unspecified:  # server-address
        return
    if general.server_tls:
        message = f"{show(host)} in brackets is no name for TLS: pgcat panics at each connection to it"
        yield Issue(BRACKETS_TLS, at, message, f"write {show(bare)}")
    elif general.dns_cache_enabled:
        message = f"{show(host)} in brackets is a name to pgcat: it asks DNS for it at each connection"
        yield Issue(BRACKETS_DNS, at, message, f"write {show(bare)}")


def _parser_rules(at: tuple[Key, ...], pool: Pool) -> Iterator[Issue]:
    if not pool.query_parser_enabled:
        if pool.query_parser_read_write_splitting:
            message = "`query_parser_read_write_splitting` needs `query_parser_enabled`: pgcat does not start"
            keys = (*at, "query_parser_read_write_splitting")
            yield Issue(PARSER, keys, message, "switch it off, or the parser on")
        if pool.plugins is not None:
            message = "plugins need `query_parser_enabled`: pgcat does not start"
            yield Issue(PARSER, (*at, "plugins"), message, "remove them, or switch the parser on")
    key = pool.automatic_sharding_key
    if key is not None and key.replace('"', "").count(".") != 1:
        message = f"`automatic_sharding_key` is {show(key)}: pgcat does not start"
        yield Issue(PARSER, (*at, "automatic_sharding_key"), message, "write table.column")
    if pool.db_activity_based_routing:
        for name in ("db_activity_init_delay", "db_activity_ttl", "table_mutation_cache_ms_ttl"):
            if getattr(pool, name) == 0:
                message = f"`{name}` is 0 with `db_activity_based_routing`: pgcat does not start"
                yield Issue(PARSER, (*at, name), message, "more than 0")


_NOT_IN_RUST = re.compile(r"(?<!\\)\(\?(?:=|!|<=|<!)|(?<!\\)(?:\\\\)*\\[1-9]")
_ONLY_IN_RUST = re.compile(r"\\[pPzhx]|\(\?<[^=!]|\(\?[a-zA-Z-]*[xuRU]|\[\[:|&&|--|~~")


def _regex_rules(at: tuple[Key, ...], pool: Pool) -> Iterator[Issue]:
    """Expressions that Rust's regex library refuses, as far as Python's can tell."""
    for name in ("shard_id_regex", "sharding_key_regex"):
        expression = getattr(pool, name)
        if expression is None:
            continue
        reason = ""
        if _NOT_IN_RUST.search(expression):
            reason = "look-around and back-references do not exist in pgcat's regular expressions"
        elif not _ONLY_IN_RUST.search(expression):
            try:
                re.compile(expression)
            except (re.error, RecursionError, OverflowError) as error:
                reason = str(error)
        if reason:
            yield Issue(
                REGEX, (*at, name), f"`{name}` is no regular expression: {reason}", "mend the expression"
            )
