"""What runs where, from the files: workloads, PgCat's pools, Permify's database settings, servers.

Everything knows where it stands, for messages. Values of a wrong type are skipped: other checks report them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pgcat_stack.endpoints import Address, Uri, parse_uri
from pgcat_stack.files.plain_data import Key, as_list, as_text, dig
from pgcat_stack.files.quantities import Number, Seconds, duration_seconds, whole, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.paths import VALUES
from pgcat_stack.pgcat.pools import Pgcat, Pool, read_pools
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.workloads import Workload

T = TypeVar("T")

LIFETIME_SECONDS, IDLE_SECONDS, HEALTH_CHECK_SECONDS = 300.0, 60.0, 60.0
MAX_OPEN_CONNECTIONS = 20
"""What Permify and pgx take where the configuration is silent (Permify's `config.go`, pgxpool)."""
JITTER_SHARE = 0.2
PERMIFY_PEERS_PORT = 5000
"""Permify always listens here, for its own kind; only `distributed` has it used."""

_NOT_IN_CHART = frozenset({"max_connections", "max_connection_lifetime_jitter", "health_check_period"})
"""What Permify's Helm chart does not hand on from `app.database` (its `templates/deployment.yaml`)."""

Side = Literal["writer", "reader"]


@dataclass(frozen=True, slots=True)
class BudgetServer:
    """A server of budget.yaml. `capacity` is None where its numbers cannot be read."""

    address: Address
    role: str
    max_connections: int | None
    other_connections: int | None
    location: Location

    @property
    def capacity(self) -> int | None:
        """The connections that are left for this deployment."""
        if self.max_connections is None or self.other_connections is None:
            return None
        return self.max_connections - self.other_connections


@dataclass(frozen=True, slots=True, eq=False)
class Permify:
    """Permify processes with the database settings that they take, environment over file.

    A jitter of 0 means 20 % of the lifetime, a health check period of 0 a minute; both are resolved here.
    """

    workload: Workload
    writer: Uri | None
    reader: Uri | None
    one_uri: bool
    """Whether `database.uri` gives both."""
    max_connections: Number
    lifetime: Seconds
    jitter: Seconds
    health_check: Seconds
    idle: Seconds
    watch: bool
    collectors: tuple[Address, ...] = ()
    """Where it pushes metrics, traces and logs, as far as the port is written."""
    peers_port: int | None = None
    """Where its processes find each other; None where they do not."""

    @property
    def sides(self) -> Iterator[tuple[Side, Uri]]:
        """The two pools of a process with the URIs they use, where these name a server."""
        if self.writer is not None and self.writer.servers:
            yield "writer", self.writer
        if self.reader is not None and self.reader.servers:
            yield "reader", self.reader

    @property
    def longest_connection_seconds(self) -> float:
        """How long a connection can stay: lifetime + jitter + one health check."""
        return self.lifetime.value + self.jitter.value + self.health_check.value


@dataclass(frozen=True, eq=False)
class Topology:
    """A deployment as processes, pools and servers."""

    workloads: tuple[Workload, ...]
    pgcat: Pgcat | None
    permify: tuple[Permify, ...]
    servers: tuple[BudgetServer, ...]
    """Those of budget.yaml."""
    fronted: bool = False
    """Whether there is a PgCat, also where its configuration cannot be read and `pgcat` is None."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """PgCat's pools by name."""
        return self.pgcat.named if self.pgcat else {}

    @cached_property
    def _known_servers(self) -> set[Address]:
        """Every PostgreSQL server that budget.yaml or a pool names."""
        opened = self.pgcat.pools if self.pgcat else ()
        named = {server.address for pool in opened for server in pool.servers}
        return named | {server.address for server in self.servers}

    def running(self, program: str) -> list[Workload]:
        """The workloads of a program."""
        return [workload for workload in self.workloads if workload.program == program]

    def pooled(self, uri: Uri) -> bool:
        """Whether a URI of Permify leads to PgCat rather than to a PostgreSQL server."""
        if not self.fronted or all(server in self._known_servers for server in uri.servers):
            return False
        if self.pgcat is None:
            return True
        return uri.database in self.pools or any(server.port == self.pgcat.port for server in uri.servers)

    def direct_sides(self, permify: Permify) -> Iterator[tuple[Side, Uri]]:
        """The pools of Permify that reach PostgreSQL without PgCat."""
        return ((side, uri) for side, uri in permify.sides if not self.pooled(uri))


def read_topology(deployment: Deployment, workloads: tuple[Workload, ...]) -> Topology:
    """What the files of a deployment run."""
    source = deployment.pgcat
    pgcat = read_pools(source) if source is not None and not source.broken else None
    fronted = source is not None or any(workload.program == "pgcat" for workload in workloads)
    servers = tuple(_budget_servers(deployment.budget)) if deployment.budget else ()
    permify = tuple(_permify(deployment, workload) for workload in workloads if workload.program == "permify")
    return Topology(workloads, pgcat, permify, servers, fronted)


def _budget_servers(source: Source) -> Iterator[BudgetServer]:
    """The servers of budget.yaml that have an address."""
    for index, entry in enumerate(as_list(dig(source.data, "servers"))):
        host, port = dig(entry, "host"), dig(entry, "port")
        number = whole(port)
        if isinstance(host, str) and host.strip() and (port is None or number is not None):
            yield BudgetServer(
                address=Address.of(host, number),
                role=str(dig(entry, "role")),
                max_connections=whole(dig(entry, "max_connections")),
                other_connections=whole(dig(entry, "other_connections")),
                location=source.at("servers", index),
            )


# Permify


def _permify(deployment: Deployment, workload: Workload) -> Permify:
    helm = workload.kind == "helm"
    source = deployment.sources.get(VALUES) if helm else deployment.permify
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
        one_uri=both is not None,
        max_connections=settings.max_connections(),
        lifetime=lifetime,
        jitter=jitter,
        health_check=health_check,
        idle=settings.seconds("max_connection_idle_time", IDLE_SECONDS),
        watch=bool(watch),
        collectors=tuple(settings.collectors()),
        peers_port=settings.peers_port(),
    )


class _Settings:
    """Permify's settings as it takes them: PERMIFY_… in the environment wins over the file."""

    def __init__(self, workload: Workload, source: Source | None, base: tuple[Key, ...]) -> None:
        self._environment, self._source, self._base = workload.environment, source, base
        self._nowhere = workload.location

    def find(self, read: Callable[[Any], T | None], *keys: str) -> tuple[T | None, Location]:
        """The setting as `read` makes it of what is written, and where that stands or would stand."""
        written = self._environment.get("_".join(("PERMIFY", *keys)).upper())
        if written is not None:
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
        return parse_uri(text, location) if text else None

    def max_connections(self) -> Number:
        """`max_connections`; at 0 the deprecated `max_open_connections`, which is 20 by itself."""
        value, location = self.find(whole_text, "database", "max_connections")
        if value is not None and value > 0:
            return Number(value, location)
        old, old_location = self.find(whole_text, "database", "max_open_connections")
        if old is not None and old > 0:
            return Number(old, old_location)
        return Number(MAX_OPEN_CONNECTIONS, location)

    def collectors(self) -> Iterator[Address]:
        for exporter in ("meter", "tracer", "logger"):
            enabled, _ = self.find(_flag, exporter, "enabled")
            endpoint, _ = self.find(as_text, exporter, "endpoint")
            host, _, port = (endpoint or "").rpartition("://")[2].partition("/")[0].rpartition(":")
            number = whole_text(port)
            if enabled and host and number is not None:
                yield Address.of(host, number)

    def peers_port(self) -> int | None:
        enabled, _ = self.find(_flag, "distributed", "enabled")
        port, _ = self.find(whole_text, "distributed", "port")
        return (port or PERMIFY_PEERS_PORT) if enabled else None


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "t", "true")
    return value if isinstance(value, bool) else None
