"""Answers that render a deployment like one made by hand, from its pgcat.toml and Permify's configuration.

What no question asks for, or the contract does not allow, is a note instead. No password gets into either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgcat_stack.endpoints import DEFAULT_PORT, Address, Uri, parse_uri
from pgcat_stack.files.folder import Folder, UnreadError
from pgcat_stack.files.issues import UNKNOWN_KEY, place
from pgcat_stack.files.plain_data import as_mapping
from pgcat_stack.files.sources import Source, parse_source
from pgcat_stack.permify.settings import DEPRECATED, Database, PermifyConfig, read_permify
from pgcat_stack.pgcat.config import Pgcat, Pool
from pgcat_stack.printable import Line, printable
from pgcat_stack.reading.deployment import DeploymentError

Answer = str | int | bool

PGCAT_KEYS = {"admin_password", "server_tls"}
"""Keys of [general] that a note or an answer speaks of."""
_DATABASE_KEYS = (
    *("engine", "uri", "writer", "reader", "auto_migrate", "max_connections", "max_open_connections"),
    *("min_connections", "max_idle_connections", "min_idle_connections", "connect_timeout"),
    *("max_connection_lifetime", "max_connection_lifetime_jitter", "max_connection_idle_time"),
    "health_check_period",
)
CARRIED = (
    "authn",
    *(f"database.{key}" for key in _DATABASE_KEYS),
    *("service.watch", "distributed.enabled", "server.http.cors_allowed_origins"),
    *(
        f"{part}.{key}"
        for part in ("meter", "tracer")
        for key in ("enabled", "exporter", "endpoint", "protocol")
    ),
)
"""Settings of which an answer or a note speaks, with all below them."""
RENDERED = {"server.http.enabled": "True", "server.http.port": "3476", "server.grpc.port": "3478"}
"""Settings that are rendered as this, whatever is answered."""
ADVANCED = {
    *("pool_mode", "writer_pool_size", "reader_pool_size", "primary_reads", "permify_max_connections"),
    *("database_tls", "ip_family", "otlp_endpoint", "distributed", "watch", "cors_allowed_origins"),
}
POOLER_PORT = 6432
"""Where the guides let PgCat listen."""
SUPERUSERS = ("postgres", "public", "none")


@dataclass
class Adoption:
    """Answers by key, and in words what they do not carry over."""

    answers: dict[str, Answer]
    notes: list[str] = field(default_factory=list)


def adopt(files: list[Path], topology: str) -> Adoption:
    """The answers for a pgcat.toml (its suffix is .toml) and a Permify configuration (.yaml, .yml), or one.

    Raises `DeploymentError` where a file cannot be read as what it should be.
    """
    pgcat, permify = _sources(files)
    found = Adoption({"topology": topology})
    config, unread = _permify(permify, found) if permify else (None, [])
    database = config.database if config else Database()
    uris = (
        [parse_uri(uri, permify.here()) for uri in (database.writer_uri, database.reader_uri)]
        if permify
        else []
    )
    if topology == "docker":
        found.answers["database"] = "external"
    if pgcat:
        _pools(pgcat, uris, found)
    else:
        _direct(uris, found)
    if config:
        _processes(config, as_mapping(permify.mapping if permify else {}), unread, found)
    if any(uri.password is not None for uri in uris):
        found.notes.append(
            "passwords in Permify's URIs: a Secret or a file under secrets/ takes them; choose a new one"
        )
    if ADVANCED & found.answers.keys():
        found.answers["advanced"] = True
    return found


def adoption_yaml(adoption: Adoption) -> list[str]:
    """A data file for `copier copy --data-file`, with the notes above; a line for each note and answer."""
    unknown = "# not in these files: postgres_max_connections, other_connections, and how many processes run"
    return [
        *(f"# {printable(note)}" for note in adoption.notes),
        unknown,
        *(Line(_answer(key, value)) for key, value in adoption.answers.items()),
    ]


def _answer(key: str, value: Answer) -> str:
    """One answer as a line of YAML; characters that a line does not show are YAML's own escapes."""
    import yaml

    line = yaml.safe_dump({key: value}, allow_unicode=True, width=sys.maxsize).removesuffix("\n")
    if printable(line, sys.maxsize) != line:
        escaped = yaml.safe_dump(value, allow_unicode=False, width=sys.maxsize, default_style='"')
        line = f"{key}: {escaped.strip()}"
    return line


def _sources(files: list[Path]) -> tuple[Source | None, Source | None]:
    found: dict[str, Source] = {}
    for file in files:
        source = _source(file)
        if source.language not in ("toml", "yaml"):
            raise DeploymentError(f"{file}: neither pgcat.toml nor Permify's configuration in YAML")
        if source.problems:
            problem = source.problems[0]
            raise DeploymentError(f"{file}:{problem.line}: {problem.message}")
        if source.language in found:
            raise DeploymentError(f"{file}: a second file of its kind; give pgcat.toml and permify.yaml")
        section = "pools" if source.language == "toml" else "database"
        if not as_mapping(source.mapping.get(section)):
            kind = "pgcat.toml" if section == "pools" else "configuration of Permify"
            raise DeploymentError(
                f"{file}: no {kind}, for it has no {section}; give the file itself, not a ConfigMap"
            )
        found[source.language] = source
    return found.get("toml"), found.get("yaml")


def _source(file: Path) -> Source:
    """A file that the user names. It may be a link inside its folder, and lead nowhere else."""
    try:
        with Folder(file.parent, "its folder") as folder:
            content = folder.read(file.name)
    except FileNotFoundError:
        raise DeploymentError(f"{file}: no such file") from None
    except UnreadError as unread:
        text = "no such file" if unread.why == "missing" else str(unread)
        advice = "; name the file itself" if unread.why == "link" else ""
        raise DeploymentError(f"{file}: {text}{advice}") from None
    except OSError as error:
        raise DeploymentError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    return parse_source(file.name, content)


def _pools(source: Source, uris: list[Uri], found: Adoption) -> None:
    pgcat = Pgcat(source, "1.2")
    pools, general = list(pgcat.pools.values()), pgcat.general
    servers = list(dict.fromkeys(server.address for pool in pools for server in pool.servers))
    primaries = {server.address for pool in pools for server in pool.servers if server.role == "primary"}
    if len(primaries) != 1:
        found.notes.append(
            f"{len(primaries)} primaries in pgcat.toml: there is one, so name it: primary_host"
        )
    primary = next((server for server in servers if server in primaries), None)
    replicas = [server for server in servers if server != primary]
    _hosts(primary, replicas, found)
    _identity(
        {shard.database.value or "" for pool in pools for shard in pool.shards},
        {user.server_name for pool in pools for user in pool.users},
        found,
    )
    if any(len(pool.shards) > 1 for pool in pools):
        found.notes.append("several shards: Permify's tables are in one database")
    if any(user.mode == "session" for pool in pools for user in pool.users):
        found.answers["pool_mode"] = "session"
    _sizes(pools, primary, replicas, uris, found)
    if ":" in (general.host.value or ""):
        found.answers["ip_family"] = "ipv6"
    found.answers["database_tls"] = "require" if general.server_tls.value else "disable"
    if not general.server_tls.value:
        found.notes.append(
            "no server_tls: database_tls disable, as it was; answer require if PostgreSQL has TLS"
        )
    found.notes.append("admin_password, passwords of users: none stands in a rendered file; choose new ones")
    if general.data.keys() - PGCAT_KEYS:
        found.notes.append(
            "timeouts, ports and logs of [general]: rendered by what was measured; edit pgcat/pgcat.toml"
        )
    unknown = [issue for issue in pgcat.issues if issue.kind == UNKNOWN_KEY]
    found.notes += [f"{place(issue.keys)}: PgCat 1.2 does not read it" for issue in unknown]


def _sizes(
    pools: list[Pool], primary: Address | None, replicas: list[Address], uris: list[Uri], found: Adoption
) -> None:
    by_name = {pool.name: pool for pool in pools}
    named = [by_name[uri.database] for uri in uris if uri.database in by_name]
    if len(pools) == 2 and len(named) == 2 and named[0] is not named[1]:
        for key, pool in zip(("writer_pool_size", "reader_pool_size"), named, strict=True):
            sizes = [user.size.value for user in pool.users if user.size]
            found.answers[key] = max(sizes, default=0)
        if replicas and primary not in [server.address for server in named[1].servers]:
            found.answers["primary_reads"] = False
        return
    sizes = [user.size.value for pool in pools for user in pool.users if user.size]
    found.notes.append(
        f"pool_size {', '.join(map(str, sizes))}: writer and reader get a pool each, in place of splitting by"
        " a query parser; sizes are derived from the budget, or answer writer_pool_size, reader_pool_size"
    )


def _direct(uris: list[Uri], found: Adoption) -> None:
    writer, reader = uris
    found.answers["pooling"] = "direct"
    primary = writer.servers[0] if writer.servers else None
    if primary and (primary.host.split(".")[0] == "pgcat" or primary.port == POOLER_PORT):
        raise DeploymentError(f"Permify's URIs name {_written(primary)}, a PgCat: give its pgcat.toml, too")
    _hosts(primary, [server for server in reader.servers if server != primary], found)
    _identity({uri.database for uri in uris}, {uri.user for uri in uris}, found)
    tls = writer.options.get("sslmode", "")
    if tls in ("disable", "require", "verify-full"):
        found.answers["database_tls"] = tls
    elif tls:
        found.notes.append(f"sslmode={tls}: answer database_tls disable, require or verify-full")


def _hosts(primary: Address | None, replicas: list[Address], found: Adoption) -> None:
    if primary:
        found.answers["primary_host"] = _written(primary)
    if replicas:
        found.answers["replica_hosts"] = ",".join(map(_written, replicas))


def _written(address: Address) -> str:
    return address.host if address.port == DEFAULT_PORT else str(address)


def _identity(databases: set[str], users: set[str], found: Adoption) -> None:
    for key, values in (("database_name", databases - {""}), ("database_user", users - {""})):
        if len(values) > 1:
            found.notes.append(f"{key}: there are {', '.join(sorted(values))}, and Permify has one")
        elif values:
            (value,) = values
            if key == "database_user" and (value in SUPERUSERS or value.startswith("pg_")):
                found.notes.append(
                    f"database_user {value}: no connection limit binds a superuser; permify is made, and must"
                    " own the tables, see docs/adopt.md"
                )
            else:
                found.answers[key] = value


def _permify(source: Source, found: Adoption) -> tuple[PermifyConfig, list[str]]:
    """What Permify takes of its configuration, and the dotted keys that it does not read."""
    reading = read_permify(source.mapping)
    if reading.config is None:
        stops = next(issue for issue in reading.issues if issue.kind not in (UNKNOWN_KEY, DEPRECATED))
        raise DeploymentError(f"{source.path}: Permify cannot read it: {stops.message}")
    unknown = [issue.keys for issue in reading.issues if issue.kind == UNKNOWN_KEY]
    found.notes += [f"{place(keys)}: Permify 1.7 does not read it" for keys in unknown]
    return reading.config, [".".join(map(str, keys)) for keys in unknown]


def _processes(config: PermifyConfig, data: Mapping[str, Any], unread: list[str], found: Adoption) -> None:
    database = as_mapping(data.get("database"))
    if "max_connections" in database or "max_open_connections" in database:
        found.answers["permify_max_connections"] = config.database.pool_max_connections
    for old, new in _deprecated(database):
        found.notes.append(f"database.{old} is deprecated: {new}")
    if config.database.auto_migrate:
        found.notes.append("database.auto_migrate: a migration of its own runs, once, before Permify serves")
    if config.service.watch.enabled:
        found.answers["watch"] = True
    if config.distributed.enabled and found.answers["topology"] != "docker":
        found.answers["distributed"] = True
    pushed = next(
        (part for part in (config.meter, config.tracer) if part.enabled and part.exporter == "otlp"), None
    )
    if pushed:
        found.answers["otlp_endpoint"] = pushed.endpoint
        if pushed.protocol != "grpc":
            found.notes.append(f"OTLP over {pushed.protocol}: Permify is told to push over gRPC")
    _callers(config, data, found)
    spoken_of = tuple(f"{key}." for key in (*CARRIED, *unread))
    others = sorted(
        key
        for key, value in _leaves(data)
        if not f"{key}.".startswith(spoken_of) and str(value) != RENDERED.get(key)
    )
    if others:
        found.notes.append(
            f"{', '.join(others)}: what no question asks for, write into permify/permify.yaml once it is"
            " rendered; updates keep it"
        )


def _callers(config: PermifyConfig, data: Mapping[str, Any], found: Adoption) -> None:
    """Who may call Permify: as it was, for its callers have keys or have none."""
    on = config.authn.enabled or ("authn" in data and "enabled" not in as_mapping(data["authn"]))
    preshared = on and config.authn.method != "oidc"
    found.answers["authn"] = "preshared" if preshared else "none"
    if preshared:
        place = "the Secret permify-authn, key keys" if found.answers["topology"] != "docker" else ""
        place = place or "secrets/permify.env, as PERMIFY_AUTHN_PRESHARED_KEYS=KEY,KEY"
        found.notes.append(f"authn: write the keys that its callers have into {place}, before it starts")
    elif on:
        found.notes.append(
            "authn: Permify would answer anyone, because no question asks for OIDC. Write the section into"
            " permify/permify.yaml again"
        )
    else:
        found.notes.append(
            "authn: Permify asks for no key, as it was: anyone who reaches it may write. Answer preshared for"
            " keys"
        )
    origins = config.server.http.cors_allowed_origins
    if "cors_allowed_origins" in as_mapping(as_mapping(data.get("server")).get("http")):
        found.answers["cors_allowed_origins"] = "*" if "*" in origins or not origins else ", ".join(origins)
    elif preshared:
        found.notes.append(
            "cors_allowed_origins: web pages of any origin could call Permify, and none may now; name theirs"
        )


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """The settings below a key, dotted, and their values."""
    below = as_mapping(value)
    if not below:
        yield key, value
    for name, item in below.items():
        yield from _leaves(item, f"{key}.{name}" if key else str(name))


def _deprecated(database: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "max_open_connections" in database:
        yield (
            "max_open_connections",
            "it became permify_max_connections, which is rendered as max_connections",
        )
    if "max_idle_connections" in database:
        yield "max_idle_connections", "what is rendered is min_connections, one at least"
