"""What Permify 1.7.3 reads from its configuration file: keys, types, defaults and rules.

The fields mirror Permify's own configuration structure (`internal/config/config.go`) and its decoder, which
takes numbers and booleans in quotes, too. Permify ignores keys that it does not know; here they are reported,
with the place where they belong. Durations become seconds.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from pgcat_stack.endpoints import lists_brackets
from pgcat_stack.files.issues import UNKNOWN_KEY, WRONG_TYPE, Issue, issues_of, nearest, without
from pgcat_stack.files.plain_data import Key
from pgcat_stack.files.quantities import go_duration_seconds
from pgcat_stack.permify import defaults
from pgcat_stack.printable import show

DEPRECATED, ENGINE, DATABASE_URIS = "deprecated-key", "engine", "database-uris"
GARBAGE_COLLECTION, AUTO_MIGRATE, EMPTY_SECTION = "garbage-collection", "auto-migrate", "empty-section"
CONNECTIONS, AUTHN = "connections", "authn"

_BYTES = re.compile(r"[0-9][0-9,.]*\s*(?:[kmgtpe]i?b?|b)?", re.IGNORECASE | re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def _read_duration(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        raise PydanticCustomError(
            "issue:duration",
            "{value} without a unit means nanoseconds",
            {"value": value, "fix": f"write {value}s"},
        )
    seconds = go_duration_seconds(value) if isinstance(value, str) else None
    if seconds is None:
        context = {"value": show(value), "fix": "write numbers with units, such as 30s or 1h30m"}
        raise PydanticCustomError("issue:duration", "{value} is no duration", context)
    return seconds


def _read_bool(value: Any) -> Any:
    """Booleans in quotes and 0 or 1 are taken as well."""
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    return bool(value) if type(value) is int and value in (0, 1) else value


def _read_int(value: Any) -> Any:
    """Whole numbers in quotes are taken as well."""
    return (
        int(value) if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value, re.ASCII) else value
    )


def _read_text(value: Any) -> Any:
    """Numbers become text."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _read_list(value: Any) -> Any:
    """A string is a list with commas, and an empty one an empty list."""
    if value == "":
        return []
    return value.split(",") if isinstance(value, str) else value


def _read_size(value: str) -> str:
    if not _BYTES.fullmatch(value):
        context = {"value": show(value), "fix": "write a size such as 10MiB"}
        raise PydanticCustomError("issue:wrong-type", "{value} is no size", context)
    return value


_INT64 = 2**63 - 1
# What is strict stands first: pydantic before 2.7 cannot make a validator strict that stands before a type.
Text = Annotated[str, Field(strict=True), BeforeValidator(_read_text)]
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_read_bool)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1), BeforeValidator(_read_int)]
Positive = Annotated[int, Field(strict=True, ge=1, le=_INT64), BeforeValidator(_read_int)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535), BeforeValidator(_read_int)]
Number = Annotated[float, Field(ge=0)]
Texts = Annotated[list[Text], BeforeValidator(_read_list)]
Seconds = Annotated[float, Field(ge=0), BeforeValidator(_read_duration)]
PositiveSeconds = Annotated[float, Field(gt=0), BeforeValidator(_read_duration)]
Size = Annotated[str, Field(strict=True), AfterValidator(_read_size), BeforeValidator(_read_text)]
Protocol = Literal["http", "grpc"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Section):
    """Certificate and key of a listener."""

    enabled: Flag = False
    cert: Text = ""
    key: Text = ""


class Http(_Section):
    """The HTTP listener."""

    enabled: Flag = True
    port: Port = defaults.HTTP_PORT
    grpc_target_host: Text = "127.0.0.1"
    tls: Tls = Tls()
    cors_allowed_origins: Texts = ["*"]
    cors_allowed_headers: Texts = ["*"]


class Grpc(_Section):
    """The gRPC listener."""

    port: Port = defaults.GRPC_PORT
    tls: Tls = Tls()


class Server(_Section):
    """Both listeners."""

    host: Text = ""
    http: Http = Http()
    grpc: Grpc = Grpc()
    name_override: Text = ""
    rate_limit: Positive = 10_000


class _Exporter(_Section):
    enabled: Flag = False
    endpoint: Text = ""
    insecure: Flag = False
    urlpath: Text = ""
    headers: Texts = []
    protocol: Protocol = "http"
    service_name: Text = "permify"


class Logger(_Exporter):
    """Logs: what is written, and what is sent elsewhere."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    output: Literal["text", "json", ""] = ""
    exporter: Literal["otlp", "otlp-http", "otlp-grpc", "gcp", ""] = "otlp"


class Tracer(_Exporter):
    """Traces."""

    exporter: Literal["otlp", "otlp-http", "otlp-grpc", "zipkin", "jaeger", "signoz", "gcp", ""] = ""


class Meter(_Exporter):
    """Metrics; `interval` is in seconds."""

    exporter: Literal["otlp", "otlp-http", "otlp-grpc", "gcp", ""] = "otlp"
    endpoint: Text = "telemetry.permify.co"
    interval: Positive = 300


class Profiler(_Section):
    """Go's profiler."""

    enabled: Flag = False
    port: Text = ""


class Preshared(_Section):
    """Keys that clients present."""

    keys: Texts = []


class Oidc(_Section):
    """OpenID Connect."""

    issuer: Text = ""
    audience: Text = ""
    refresh_interval: Seconds = 900.0
    backoff_interval: Seconds = 12.0
    backoff_frequency: Seconds = 0.0
    backoff_max_retries: Count = 5
    valid_methods: Texts = ["RS256", "HS256"]


class Authn(_Section):
    """Authentication of clients."""

    enabled: Flag = False
    method: Literal["preshared", "oidc", ""] = ""
    preshared: Preshared = Preshared()
    oidc: Oidc = Oidc()


class Cache(_Section):
    """A cache; `max_cost` is a size such as 10MiB."""

    number_of_counters: Positive = 10_000
    max_cost: Size = "10MiB"


class Watch(_Section):
    """The watch service."""

    enabled: Flag = False


class Schema(_Section):
    """The schema service."""

    cache: Cache = Cache(number_of_counters=1_000)


class Permission(_Section):
    """The permission service."""

    bulk_limit: Positive = 100
    concurrency_limit: Positive = 100
    cache: Cache = Cache()


class Data(_Section):
    """The data service, which has no settings."""


class Service(_Section):
    """Permify's services."""

    circuit_breaker: Flag = False
    watch: Watch = Watch()
    schema_: Schema = Field(default=Schema(), alias="schema")
    permission: Permission = Permission()
    data: Data = Data()


class Endpoint(_Section):
    """The URI of one of the two connection pools."""

    uri: Text = ""


class GarbageCollection(_Section):
    """Removal of expired data. Times are seconds."""

    enabled: Flag = False
    interval: Seconds = 0.0
    timeout: Seconds = 0.0
    window: Seconds = 0.0


class Database(_Section):
    """The database and the two connection pools, writer and reader. Times are seconds."""

    engine: Text = "memory"
    uri: Text = ""
    writer: Endpoint = Endpoint()
    reader: Endpoint = Endpoint()
    auto_migrate: Flag = True
    max_connections: Count = 0
    max_open_connections: Count = defaults.MAX_OPEN_CONNECTIONS
    max_idle_connections: Count = 1
    min_connections: Count = 0
    min_idle_connections: Count = 1
    max_connection_lifetime: PositiveSeconds = defaults.LIFETIME_SECONDS
    max_connection_idle_time: PositiveSeconds = defaults.IDLE_SECONDS
    health_check_period: Seconds = 0.0
    max_connection_lifetime_jitter: Seconds = 0.0
    connect_timeout: Seconds = 0.0
    max_data_per_write: Positive = 1000
    max_retries: Count = 10
    watch_buffer_size: Count = 100
    garbage_collection: GarbageCollection = GarbageCollection()

    @property
    def writer_uri(self) -> str:
        """The URI of the writer pool; `uri` wins over `writer.uri`."""
        return self.uri or self.writer.uri

    @property
    def reader_uri(self) -> str:
        """The URI of the reader pool; `uri` wins over `reader.uri`."""
        return self.uri or self.reader.uri

    @property
    def pool_max_connections(self) -> int:
        """The most connections of each of the two pools, with the fallback that Permify takes."""
        return self.max_connections or self.max_open_connections

    @property
    def pool_min_connections(self) -> int:
        """The number of connections that each pool keeps, with the fallback that Permify takes."""
        return self.min_connections or self.max_idle_connections

    @property
    def jitter_seconds(self) -> float:
        """The most that is added to a connection's lifetime: 0 means a fifth of the lifetime."""
        return self.max_connection_lifetime_jitter or defaults.JITTER_SHARE * self.max_connection_lifetime

    @property
    def health_check_seconds(self) -> float:
        """How often idle connections are looked at: 0 means once a minute."""
        return self.health_check_period or defaults.HEALTH_CHECK_SECONDS

    @property
    def longest_connection_seconds(self) -> float:
        """How long a connection can live after the last request: lifetime, jitter and one health check."""
        return self.max_connection_lifetime + self.jitter_seconds + self.health_check_seconds


class Distributed(_Section):
    """Permify processes that share their caches."""

    enabled: Flag = False
    address: Text = ""
    port: Port = defaults.PEERS_PORT
    partition_count: Count = 0
    replication_factor: Count = 0
    load: Number = 0.0
    picker_width: Count = 0


class PermifyConfig(_Section):
    """The whole configuration file."""

    account_id: Text = ""
    server: Server = Server()
    logger: Logger = Logger()
    profiler: Profiler = Profiler()
    authn: Authn = Authn()
    tracer: Tracer = Tracer()
    meter: Meter = Meter()
    service: Service = Service()
    database: Database = Database()
    distributed: Distributed = Distributed()


@dataclass(frozen=True, slots=True)
class PermifyReading:
    """A configuration as Permify would take it.

    `config` is None where Permify could not take it at all; unknown keys alone do not prevent one.
    """

    config: PermifyConfig | None
    issues: tuple[Issue, ...]


def read_permify(data: Any) -> PermifyReading:
    """Read the plain data of a permify.yaml as Permify does."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        issue = Issue(
            WRONG_TYPE, (), "the file is no mapping: Permify does not start", "start with database:"
        )
        return PermifyReading(None, (issue,))
    unknown = list(_unknown_keys(data, PermifyConfig, ()))
    empty = list(_empty_keys(data, PermifyConfig, ()))
    issues = [_unknown_key_issue(keys) for keys in unknown]
    issues += [_empty_issue(keys) for keys in empty]
    issues += _deprecated(data)
    config: PermifyConfig | None = None
    try:
        config = PermifyConfig.model_validate(without(data, unknown + empty))
    except ValidationError as error:
        issues += issues_of(error)
    if config is not None:
        issues += _rules(config.database)
    return PermifyReading(config, tuple(issues))


# Unknown and misplaced keys


def _sections_of(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Keys of a section, each with the model of the section below it, if it is one."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        yield field.alias or name, kind if is_section else None  # type: ignore[misc]


def _unknown_keys(data: Any, model: type[BaseModel], at: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    if not isinstance(data, dict):
        return
    known = dict(_sections_of(model))
    for key, value in data.items():
        if key not in known:
            yield (*at, key)
            continue
        below = known[key]
        if below is not None:
            yield from _unknown_keys(value, below, (*at, key))


def _empty_keys(data: Any, model: type[BaseModel], at: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    """Keys without a value: Permify keeps its defaults for them."""
    for key, below in _sections_of(model):
        if key in data and data[key] is None:
            yield (*at, key)
        elif below is not None and isinstance(data.get(key), dict):
            yield from _empty_keys(data[key], below, (*at, key))


def _walk(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The path of every key, and whether a section stands there."""
    for key, below in _sections_of(model):
        yield (*at, key), below is not None
        if below is not None:
            yield from _walk(below, (*at, key))


_PATHS = tuple(path for path, _ in _walk(PermifyConfig))
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "_".join(("PERMIFY", *keys)).upper().replace("BACKOFF_MAX_RETRIES", "BACKOFF_RETRIES"): keys
    for keys, is_section in _walk(PermifyConfig)
    if not is_section and keys[0] in ("database", "authn")
}
"""The setting that a variable of the environment gives (Permify's `pkg/cmd/flags/serve.go`)."""


def _unknown_key_issue(keys: tuple[Key, ...]) -> Issue:
    key, parent = str(keys[-1]), keys[:-1]
    shown = f"`{key}`" if len(key) <= 60 else f"`{key[:60]}…`"
    message = f"unknown key {shown} {_place(parent)}: Permify ignores it silently"
    siblings = [path[-1] for path in _PATHS if path[:-1] == parent]
    if key.lower() in siblings:
        return Issue(
            UNKNOWN_KEY, keys, f"`{key}` {_place(parent)} is not in lower case", f"write `{key.lower()}`"
        )
    near = nearest(key, siblings)
    elsewhere = [".".join(path[:-1]) for path in _PATHS if path[-1] == key and len(path) > 1]
    if near and near.replace("_", "") == key.lower().replace("-", "").replace("_", ""):
        return Issue(UNKNOWN_KEY, keys, message, f"did you mean `{near}`?")
    if elsewhere and len(elsewhere) <= 3:
        return Issue(UNKNOWN_KEY, keys, message, f"it belongs in {' or '.join(elsewhere)}")
    top = [path[-1] for path in _PATHS if path == (key,)]
    if top:
        return Issue(UNKNOWN_KEY, keys, message, "it belongs at the top level")
    return Issue(UNKNOWN_KEY, keys, message, f"did you mean `{near}`?" if near else "remove it")


def _place(at: tuple[Key, ...]) -> str:
    return f"in {'.'.join(str(key) for key in at)}" if at else "at the top level"


def _empty_issue(keys: tuple[Key, ...]) -> Issue:
    name = ".".join(str(key) for key in keys)
    message = f"`{name}` has no value: Permify keeps its default"
    return Issue(EMPTY_SECTION, keys, message, "give it a value, or remove it")


# Rules


_REPLACED = {"max_open_connections": "max_connections", "max_idle_connections": "min_connections"}


def _deprecated(data: dict[str, Any]) -> Iterator[Issue]:
    database = data.get("database")
    for old, new in _REPLACED.items():
        if isinstance(database, dict) and old in database:
            yield Issue(DEPRECATED, ("database", old), f"`{old}` is deprecated", f"use {new}")


def _rules(database: Database) -> Iterator[Issue]:
    """What Permify takes without a word although it cannot be meant, and what makes it stop."""
    at: tuple[Key, ...] = ("database",)
    if database.engine != "postgres":
        in_memory = database.engine == "memory"
        meaning = "keeps everything in memory and looks healthy" if in_memory else "does not start"
        given = (
            f"`engine` is {show(database.engine)}" if "engine" in database.model_fields_set else "no `engine`"
        )
        yield Issue(ENGINE, (*at, "engine"), f"{given}: Permify {meaning}", "write engine: postgres")
    yield from _uri_rules(database)
    yield from _connection_rules(database)
    if database.auto_migrate:
        message = (
            "`auto_migrate` is on, its default: starting processes migrate at the same time, without a lock"
        )
        fix = "write auto_migrate: false, and migrate once before"
        yield Issue(AUTO_MIGRATE, (*at, "auto_migrate"), message, fix)
    collection = database.garbage_collection
    if collection.enabled:
        for name in ("interval", "timeout", "window"):
            if getattr(collection, name) <= 0:
                message = f"garbage collection is on with `{name}` 0: {_AT_ZERO[name]}"
                yield Issue(GARBAGE_COLLECTION, (*at, "garbage_collection", name), message, f"set {name}")


_AT_ZERO = {
    "interval": "Permify panics",
    "timeout": "every run ends before it starts",
    "window": "it deletes everything that has expired up to now",
}


def _uri_rules(database: Database) -> Iterator[Issue]:
    at: tuple[Key, ...] = ("database",)
    if database.uri:
        for name in ("writer", "reader"):
            if getattr(database, name).uri:
                message = f"`uri` wins over `{name}.uri`, which Permify does not use"
                yield Issue(DATABASE_URIS, (*at, name, "uri"), message, f"remove uri, or {name}")
        yield from _brackets_rule((*at, "uri"), database.uri)
        return
    for name in ("writer", "reader"):
        yield from _brackets_rule((*at, name, "uri"), getattr(database, name).uri)
        if not getattr(database, name).uri:
            message = f"no URI for the {name}: Permify connects to wherever the PG* environment points"
            yield Issue(DATABASE_URIS, (*at, name, "uri"), message, f"set database.{name}.uri")


def _brackets_rule(at: tuple[Key, ...], uri: str) -> Iterator[Issue]:
    if lists_brackets(uri):
        message = "several hosts with IPv6 in brackets: Permify cannot read the URI, and ends"
        fix = "write them among the options: postgresql://user@/database?host=fd00::11,db-2&port=5432,5432"
        yield Issue(DATABASE_URIS, at, message, fix)


def _connection_rules(database: Database) -> Iterator[Issue]:
    at: tuple[Key, ...] = ("database",)
    if database.max_connections == 0 and "max_open_connections" not in database.model_fields_set:
        message = f"no `max_connections`: each pool may open {database.pool_max_connections}"
        yield Issue(CONNECTIONS, (*at, "max_connections"), message, "set max_connections")
    for name in ("min_connections", "min_idle_connections"):
        if getattr(database, name) > database.pool_max_connections > 0:
            message = f"`{name}` {getattr(database, name)} is more than a pool may open"
            yield Issue(CONNECTIONS, (*at, name), message, f"at most {database.pool_max_connections}")


def authn_issues(authn: Authn) -> Iterator[Issue]:
    """What ends Permify at its start, lets anybody in or nobody, where authentication is on.

    The environment may give what the file lacks, so this is for settings as Permify takes them in the end
    (its `internal/authn`).
    """
    if authn.method == "preshared":
        yield from _preshared_issues(authn.preshared.keys)
    elif authn.method == "oidc":
        yield from _oidc_issues(authn.oidc)
    else:
        fix = "write method: preshared, or oidc"
        yield Issue(AUTHN, ("authn", "method"), "no `method`: Permify does not start", fix)


def _preshared_issues(keys: list[str]) -> Iterator[Issue]:
    at: tuple[Key, ...] = ("authn", "preshared", "keys")
    if not keys:
        yield Issue(AUTHN, at, "`preshared` without a key: Permify does not start", "give it a key")
    elif "" in keys:
        at = (*at, keys.index(""))
        yield Issue(AUTHN, at, "an empty key: an empty bearer token is let in", "remove the empty key")


def _oidc_issues(oidc: Oidc) -> Iterator[Issue]:
    at: tuple[Key, ...] = ("authn", "oidc")
    if not oidc.issuer:
        yield Issue(
            AUTHN, (*at, "issuer"), "`oidc` without an `issuer`: Permify does not start", "write its URL"
        )
    for name, example in (
        ("backoff_interval", "12s"),
        ("backoff_frequency", "5s"),
        ("backoff_max_retries", "5"),
    ):
        if not getattr(oidc, name):
            message = f"`oidc` with `{name}` 0: Permify does not start"
            yield Issue(AUTHN, (*at, name), message, f"write {name}: {example} under oidc")
    if not oidc.audience:
        message = "`oidc` without an `audience`: Permify refuses every token"
        yield Issue(AUTHN, (*at, "audience"), message, "write the audience of the tokens")
    if not oidc.valid_methods:
        message = "`oidc` without `valid_methods`: Permify refuses every token"
        yield Issue(
            AUTHN, (*at, "valid_methods"), message, "name the methods, or remove the key for its default"
        )
