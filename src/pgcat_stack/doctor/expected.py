"""What the files of a deployment let the doctor expect, with the places that say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pgcat_stack.budget import Plan, Row, plan
from pgcat_stack.endpoints import Address, Uri
from pgcat_stack.files.plain_data import as_mapping, dig
from pgcat_stack.files.quantities import whole_text
from pgcat_stack.findings import Location
from pgcat_stack.paths import BOOTSTRAP, BUDGET, PERMIFY, PGCAT, VALUES
from pgcat_stack.permify.callers import KEYS, KEYS_VARIABLE
from pgcat_stack.permify.defaults import HTTP_PORT
from pgcat_stack.permify.settings import read_permify
from pgcat_stack.pgcat.config import Pool, PoolServer
from pgcat_stack.pgcat.version import PgcatVersion
from pgcat_stack.reading.permify import Permify
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import Topology
from pgcat_stack.reading.workloads import Program, Workload

Platform = Literal["docker", "kubernetes", "none"]

_MIGRATION = re.compile(r"VALUES \('([^']+)'\)")


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server of budget.yaml, or one that only a pool or a URI names."""

    address: Address
    role: str
    location: Location
    row: Row | None = None
    """Its budget; None where budget.yaml does not list it."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who Permify and PgCat are in PostgreSQL; never a password."""

    user: str
    database: str


MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
"""libpq's sslmodes, the weakest first; `allow` is `prefer` the other way round."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """The TLS that the files ask of a connection."""

    location: Location
    mode: str = "prefer"
    """One of `MODES`."""
    root_certificate: str = ""
    """As the files name it: a path inside a container. Empty for the public roots."""
    host: str = ""
    """The name that the files call."""

    @property
    def strength(self) -> int:
        """The stronger of two, the larger."""
        return MODES.index(self.mode)


def _encryption(uri: Uri, host: str) -> Encryption:
    mode = uri.options.get("sslmode") or "prefer"
    return Encryption(
        uri.location,
        mode if mode in MODES else "prefer",
        uri.options.get("sslrootcert") or "",
        host,
    )


@dataclass(frozen=True, eq=False)
class Facts:
    """One deployment as the doctor sees it before it asks anybody."""

    deployment: Reading

    @cached_property
    def topology(self) -> Topology:
        """What runs where."""
        return self.deployment.topology

    @cached_property
    def plan(self) -> Plan:
        """The connection budget."""
        return plan(self.deployment)

    @property
    def platform(self) -> Platform:
        """Where it runs."""
        if self.deployment.compose is not None:
            return "docker"
        return "kubernetes" if self.deployment.kustomization is not None else "none"

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """Every PostgreSQL server, the primary first, then as budget.yaml has them."""
        found = [
            Server(row.server.address, row.server.role, row.server.location, row) for row in self.plan.rows
        ]
        writers = {
            server.address for pool in self.pools for server in pool.servers if server.role == "primary"
        }
        writers |= {a for p in self.topology.permify if p.writer for a in p.writer.servers}
        found += [
            Server(other.address, "primary" if other.address in writers else "replica", other.location)
            for other in self.plan.unlisted
        ]
        return tuple(sorted(found, key=lambda server: server.role != "primary"))

    @cached_property
    def primary(self) -> Server | None:
        """The server that writes go to."""
        return next((server for server in self.servers if server.role == "primary"), None)

    @property
    def replicas(self) -> tuple[Server, ...]:
        """The servers that follow the primary."""
        return tuple(server for server in self.servers if server.role != "primary")

    def budget_at(self, server: Server, key: str) -> Location:
        """Where budget.yaml gives a number of a server; else where the server is named."""
        capacities = self.deployment.capacities
        for section in capacities.sections if capacities else ():
            host, port = section.entry("host").value, section.entry("port").number
            if isinstance(host, str) and Address.of(host, port) == server.address:
                return section.at(key)
        return server.location

    # PgCat

    @property
    def fronted(self) -> bool:
        """Whether there is a PgCat."""
        return self.topology.fronted

    def pgcat_at(self, *keys: str) -> Location:
        """Where pgcat.toml says something."""
        source = self.deployment.pgcat
        return source.at(*keys) if source is not None else Location(PGCAT)

    @property
    def pgcat_port(self) -> int:
        """Where PgCat listens."""
        pgcat = self.deployment.pgcat_config
        return (pgcat.port if pgcat else None) or 6432

    @property
    def exporter_port(self) -> int | None:
        """Where PgCat's exporter listens; None where it is off."""
        return self.deployment.pgcat_config.exporter if self.deployment.pgcat_config else None

    @property
    def admin_user(self) -> str:
        """The user of PgCat's admin database."""
        pgcat = self.deployment.pgcat_config
        return (pgcat.general.admin_username.value if pgcat else None) or ""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """PgCat's pools."""
        return tuple(self.topology.pools.values())

    @property
    def writer_pools(self) -> set[str]:
        """Names of the pools that Permify writes through."""
        return {
            permify.writer.database
            for permify in self.topology.permify
            if permify.writer is not None and self.topology.pooled(permify.writer)
        } & set(self.topology.pools)

    def pool_server(self, pool: Pool, address: Address) -> PoolServer | None:
        """A server of a pool by its address."""
        return next((server for server in pool.servers if server.address == address), None)

    @property
    def pgcat_version(self) -> PgcatVersion:
        """The line of PgCat that the image belongs to."""
        return self.deployment.pgcat_version

    # PostgreSQL

    @cached_property
    def login(self) -> Login | None:
        """Who PgCat, or Permify where it connects directly, is in PostgreSQL; None where none tells."""
        for pool in self.pools:
            for user, shard in ((user, shard) for user in pool.users for shard in pool.shards):
                if user.server_name and shard.database.value:
                    return Login(user.server_name, shard.database.value)
        for permify in self.topology.permify:
            for _, uri in self.topology.direct_sides(permify):
                return Login(uri.user, uri.database)
        return None

    def encryption(self, address: Address) -> Encryption:
        """The strongest TLS by which PgCat or Permify connects to a PostgreSQL server.

        PgCat falls back to plain text where the server refuses TLS; here what it was told to do counts.
        """
        found = [
            _encryption(uri, address.host)
            for permify in self.topology.permify
            for _, uri in self.topology.direct_sides(permify)
            if address in uri.servers
        ]
        pgcat = self.deployment.pgcat_config
        if pgcat and any(self.pool_server(pool, address) for pool in self.pools):
            tls, verified = pgcat.general.server_tls, pgcat.general.verify_server_certificate.value
            mode = "disable" if not tls.value else "verify-full" if verified else "require"
            found.append(Encryption(tls.location, mode, host=address.host))
        return max(
            found, key=lambda one: one.strength, default=Encryption(Location(BUDGET), host=address.host)
        )

    @cached_property
    def pgcat_encryption(self) -> Encryption:
        """The strongest TLS by which Permify connects to PgCat; `prefer` where it does without."""
        found = [_encryption(uri, uri.servers[0].host) for uri in self.uris if self.topology.pooled(uri)]
        found.append(Encryption(self.pgcat_at("general", "port")))
        return max(found, key=lambda one: one.strength)

    @cached_property
    def client_user(self) -> str:
        """The user that PgCat knows its clients by."""
        return next((user.name for pool in self.pools for user in pool.users), "")

    @property
    def encrypted(self) -> Location | None:
        """Where the files ask for TLS to PostgreSQL; None where they do not."""
        if self.fronted:
            pgcat = self.deployment.pgcat_config
            return pgcat.general.server_tls.location if pgcat and pgcat.general.server_tls.value else None
        for permify in self.topology.permify:
            for _, uri in self.topology.direct_sides(permify):
                if uri.options.get("sslmode") in ("require", "verify-ca", "verify-full"):
                    return uri.location
        return None

    @property
    def bootstraps(self) -> bool:
        """Whether a service of compose.yaml runs bootstrap.sql."""
        compose = self.deployment.compose
        return compose is not None and isinstance(dig(compose.data, "services", "bootstrap"), dict)

    def bootstrap_at(self, pattern: str, otherwise: Location) -> Location:
        """The line of bootstrap.sql that a pattern matches first, else `otherwise`."""
        source = self.deployment.sources.get(BOOTSTRAP)
        for number, line in enumerate(source.text.splitlines() if source else (), 1):
            if re.search(pattern, line) and not line.startswith("--"):
                return Location(BOOTSTRAP, number)
        return otherwise

    @cached_property
    def migration(self) -> tuple[str, Location] | None:
        """What the migration of this version is noted as in the database, and where; None without a note."""
        for container in self.deployment.containers:
            for index, word in enumerate(container.words):
                match = _MIGRATION.search(word) if "pgcat_stack_migrations" in word else None
                if match:
                    return match[1], container.at("command", index)
        return None

    @cached_property
    def migration_at(self) -> Location:
        """Where the migration stands."""
        for container in self.deployment.containers:
            if container.program == "migrate":
                return container.at()
        return Location(BUDGET)

    # Permify

    @property
    def permify(self) -> Permify | None:
        """Permify's settings."""
        return next(iter(self.topology.permify), None)

    def permify_at(self, *keys: str) -> Location:
        """Where permify.yaml says something."""
        source = self.deployment.permify
        return source.at(*keys) if source is not None else Location(PERMIFY)

    @property
    def permify_port(self) -> int:
        """Where Permify serves HTTP."""
        source = self.deployment.permify
        port = whole_text(dig(source.data, "server", "http", "port")) if source else None
        return port or HTTP_PORT

    @property
    def watch(self) -> bool:
        """Whether Permify serves watch streams."""
        return any(permify.watch for permify in self.topology.permify)

    @property
    def uris(self) -> Iterator[Uri]:
        """Permify's connection strings."""
        for permify in self.topology.permify:
            for _, uri in permify.sides:
                yield uri

    # Processes

    def workload(self, program: Program) -> Workload | None:
        """What runs a program."""
        return next(iter(self.topology.running(program)), None)

    @cached_property
    def namespace(self) -> str:
        """The namespace of the workloads; empty where the files name none."""
        for workload in self.topology.workloads:
            if workload.container is not None and workload.container.pod is not None:
                return workload.container.pod.manifest.namespace
        return next((manifest.namespace for manifest in self.deployment.manifests if manifest.namespace), "")

    def secret_of(self, file: str, variable: str = "") -> tuple[str, str] | None:
        """The Kubernetes Secret and key of a password, by its file in PgCat or its variable in Permify."""
        for container in self.deployment.containers:
            origin = container.origin(f"/run/secrets/{file}") or ""
            if origin.startswith("secret:"):
                secret, _, key = origin.removeprefix("secret:").partition("/")
                return secret, key
            named = container.variable(variable)
            if named is not None and named.secret:
                return named.secret
        return next((each.secret for each in self.deployment.helm_variables if each.name == variable), None)

    @property
    def keys_secret(self) -> tuple[str, str] | None:
        """The Kubernetes Secret and key with the keys of Permify's callers."""
        chart = self.deployment.chart
        found = self.secret_of(KEYS, KEYS_VARIABLE)
        return found or ((chart.keys_secret, "preshared_keys") if chart and chart.keys_secret else None)

    @property
    def asks_for_a_key(self) -> bool:
        """Whether the file has Permify ask its callers for a key, and no variable may say otherwise."""
        names = {
            variable.name for container in self.deployment.containers for variable in container.variables
        }
        names |= {variable.name for variable in self.deployment.helm_variables}
        source, values = self.deployment.permify, self.deployment.sources.get(VALUES)
        written = {"authn": as_mapping(dig(source.data, "authn"))} if source else {}
        if values:
            written = {"authn": as_mapping(dig(values.data, "app", "authn"))}
        config = read_permify(written).config
        return config is not None and config.authn.enabled and "PERMIFY_AUTHN_ENABLED" not in names
