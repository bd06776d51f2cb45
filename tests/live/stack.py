"""Brings a rendered deployment up on loopback, by the commands and files that it consists of.

Nothing is changed but addresses: hosts and ports of PostgreSQL and PgCat, and the ports that the programs
listen on, since all processes share one loopback here. Commands come from the Compose file or the manifests,
with mounted paths replaced.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from live.support import (
    KEY,
    LOOPBACK,
    LOOPBACK6,
    Address,
    Cluster,
    Peaks,
    Process,
    Server,
    clean_environment,
    free_port,
    get,
    joined,
    listens,
    post,
    program,
    readdressed,
    run,
    running,
    with_port,
)
from pgcat_stack.budget import plan
from pgcat_stack.permify.callers import KEYS, KEYS_VARIABLE
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import environment_file, make_secrets
from rendering import render

MAX_CONNECTIONS = 100
"""Of every PostgreSQL server here, and the default answer."""

EXTERNAL = {"primary_host": "db-primary.example.com", "replica_hosts": "db-replica.example.com:5433"}
IPV6 = {"primary_host": "fd00::10", "replica_hosts": "[fd00::11]:5433", "ip_family": "ipv6"}
ADDRESSES: dict[str, tuple[Address, Address]] = {
    "bundled": (("postgres-primary", 5432), ("postgres-replica", 5432)),
    "external": (("db-primary.example.com", 5432), ("db-replica.example.com", 5433)),
    "ipv6": (("fd00::10", 5432), ("fd00::11", 5433)),
}
READY = "/etc/pgcat/ready.sh"
CA_FILE = "/etc/postgresql-ca/ca.crt"
TLS_FOLDER = "/etc/pgcat-tls"
# Of whatever start.sh must get right, and a word that is found however the rest is quoted.
MARK = "Kx9vQz"
PASSWORD = f"p\\a\"s's #&$/{{}}%:@ {MARK} é漢🐈 "

# No `or`: once one branch of a check has allowed it, Permify 1.7.3 cancels the statements of the others, and
# now and then fails another check that waited for the same ones (with PgCat and without).
SCHEMA = """
entity user {}
entity document {
    relation owner @user
    relation viewer @user
    permission edit = owner
    permission view = viewer
}
"""
TENANT = "/v1/tenants/t1"
PEOPLE = 12
DOCUMENTS = 6


def check_body(document: object, permission: str, user: object, snap_token: str = "") -> dict[str, Any]:
    """What Permify is asked for a check."""
    return {
        "metadata": {"snap_token": snap_token, "schema_version": "", "depth": 20},
        "entity": {"type": "document", "id": str(document)},
        "permission": permission,
        "subject": {"type": "user", "id": str(user)},
    }


@dataclass(frozen=True)
class Check:
    document: int
    user: int
    permission: str

    @property
    def allowed(self) -> bool:
        """Document n is edited by user n, and viewed by those whose number is a multiple of n + 1."""
        return (
            self.user == self.document if self.permission == "edit" else self.user % (self.document + 1) == 0
        )

    @property
    def body(self) -> dict[str, Any]:
        return check_body(self.document, self.permission, self.user)


CHECKS = [
    Check(document, user, permission)
    for document in range(DOCUMENTS)
    for user in range(PEOPLE)
    for permission in ("edit", "view")
]


def relation_tuple(document: object, relation: str, user: object) -> dict[str, Any]:
    return {
        "entity": {"type": "document", "id": str(document)},
        "relation": relation,
        "subject": {"type": "user", "id": str(user)},
    }


def write_body(*tuples: dict[str, Any]) -> dict[str, Any]:
    """What Permify is sent to write relations."""
    return {"metadata": {}, "tuples": list(tuples), "attributes": []}


def tuples() -> list[dict[str, Any]]:
    """Who owns and who may view each document."""
    relations = [("owner", document, document) for document in range(DOCUMENTS)]
    relations += [
        ("viewer", document, user)
        for document in range(DOCUMENTS)
        for user in range(PEOPLE)
        if user % (document + 1) == 0
    ]
    return [relation_tuple(document, relation, user) for relation, document, user in relations]


@dataclass
class PgCat:
    process: Process
    port: int
    exporter: int


@dataclass
class Permify:
    process: Process
    port: int
    peer_port: int
    """Where its peers ask it for checks, when it is distributed."""

    def write(self, cluster: Cluster) -> None:
        """A schema, and who owns and who may view each document."""
        with self.explained():
            post(self.port, f"{TENANT}/schemas/write", {"schema": SCHEMA})
            cluster.catch_up()  # Permify looks its schema up among the readers.
            post(self.port, f"{TENANT}/data/write", write_body(*tuples()))
            cluster.catch_up()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """A request that fails is reported with the end of Permify's log, which alone says why."""
        try:
            yield
        except AssertionError as error:
            error.add_note(self.process.log.read_text(errors="replace")[-3000:])
            raise

    def check(self, check: Check) -> bool:
        answer = post(self.port, f"{TENANT}/permissions/check", check.body)
        return {"CHECK_RESULT_ALLOWED": True, "CHECK_RESULT_DENIED": False}[answer["can"]]


@dataclass
class Stack:
    """A deployment, rendered; `up` brings it up."""

    cluster: Cluster
    answers: Mapping[str, Any]
    pgcat_program: str | None
    rendered: Path
    """Rendered by the answers here, unless it is there already."""
    folder: Path
    """Where the readdressed files and the logs are."""
    by: dict[str, Address] = field(default_factory=dict)
    """Where a server is reached instead of at its own address, by its role."""
    environment: dict[str, str] = field(default_factory=clean_environment)
    password: str = PASSWORD
    keys: str = KEY
    """Of Permify's callers, as their Secret has them."""
    ca_file: Path | None = None
    """What the answer database_ca mounts."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Addresses beside those of PgCat and PostgreSQL, and files, and what stands for them here."""
    pgcat_host: str = LOOPBACK
    """By which name PgCat is reached."""
    pgcat_tls: Path | None = None
    """The Secret with PgCat's certificate, as it is mounted."""
    open_files: tuple[int, int] | None = None
    """PgCat's limits, soft and hard; those of a container unless given."""
    more_environment: dict[str, str] = field(default_factory=dict)
    """Of Permify and of what its pods and the migration start with."""
    migration_peaks: Peaks | None = None
    load_peaks: Peaks | None = None
    pgcats: list[PgCat] = field(default_factory=list)
    permifys: list[Permify] = field(default_factory=list)
    log_begins: int = 0
    """Where the primary's log of this deployment begins."""

    def __post_init__(self) -> None:
        if not self.rendered.exists():
            render(self.rendered, self.answers)
        self.deployment = Reading.load(self.rendered)
        if self.answers.get("ip_family") == "ipv6" and not self.sidecar:
            self.pgcat_host = LOOPBACK6
        self.secrets = self.folder / "secrets"
        self.secrets.mkdir(parents=True)
        (self.folder / "bin").mkdir()
        if self.pgcat_program is not None:
            (self.folder / "bin" / "pgcat").symlink_to(self.pgcat_program)
        if self.docker:
            # As the hook makes them, but for the key that clients here send.
            (self.rendered / "secrets").mkdir(mode=0o700, exist_ok=True)
            (self.rendered / "secrets" / KEYS).write_text(f"{KEYS_VARIABLE}={self.keys}\n")
            make_secrets(self.deployment)
            for file in (self.rendered / "secrets").iterdir():
                (self.secrets / file.name).write_bytes(file.read_bytes())
            self.password = (self.secrets / "database_password").read_text().strip()
            self.environment["PGPASSFILE"] = str(self.secrets / "database.pgpass")
        else:
            (self.secrets / "database_password").write_text(self.password)
            (self.secrets / "pgcat_admin_password").write_text(secrets.token_urlsafe() + "\n")
            self.environment["PGPASSWORD"] = self.password

    # What was answered and rendered

    @property
    def docker(self) -> bool:
        return bool(self.answers.get("topology", "docker") == "docker")

    @property
    def sidecar(self) -> bool:
        return self.answers.get("topology") == "sidecar"

    @property
    def direct(self) -> bool:
        return self.answers.get("pooling") == "direct"

    @property
    def session(self) -> bool:
        return self.answers.get("pool_mode") == "session"

    @property
    def external(self) -> bool:
        return "primary_host" in self.answers

    @property
    def ipv6(self) -> bool:
        """Whether the servers are at IPv6 addresses."""
        return ":" in str(self.answers.get("primary_host", ""))

    @property
    def user(self) -> str:
        return str(self.answers.get("database_user", "permify"))

    @property
    def database(self) -> str:
        return str(self.answers.get("database_name", "permify"))

    @property
    def has_replica(self) -> bool:
        return not self.external or bool(self.answers["replica_hosts"])

    @property
    def servers(self) -> list[Server]:
        """The primary, and the replica where the answers name one."""
        return [self.cluster.primary, self.cluster.replica] if self.has_replica else [self.cluster.primary]

    @property
    def moved(self) -> dict[str, tuple[Address, Address]]:
        """Where each server is in the files, and where it is here."""
        names = ADDRESSES["ipv6" if self.ipv6 else "external" if self.external else "bundled"]
        return {
            server.role: (
                name,
                self.by.get(server.role, (LOOPBACK6, server.port) if self.ipv6 else server.address),
            )
            for name, server in zip(names, self.servers, strict=False)
        }

    @property
    def pgcat_config(self) -> dict[str, Any]:
        return tomllib.loads((self.rendered / "pgcat" / "pgcat.toml").read_text())

    @property
    def shutdown_seconds(self) -> float:
        return float(self.pgcat_config["general"]["shutdown_timeout"]) / 1000

    @property
    def readers(self) -> set[str]:
        """Roles of the servers that reads are to reach."""
        if not self.has_replica:
            return {"primary"}
        primary_reads = self.answers.get("primary_reads", True) and not self.direct
        return {"primary", "replica"} if primary_reads else {"replica"}

    def _yaml(self, name: str) -> Any:
        return yaml.safe_load((self.rendered / name).read_text())

    def manifest(self, name: str) -> Any:
        """The Deployment of `pgcat` or `permify`."""
        return self._yaml(f"kubernetes/{name}-deployment.yaml")

    def container(self, name: str) -> dict[str, Any]:
        """One of the containers in the manifests, by its name."""
        found = [
            container
            for manifest in ("pgcat-deployment", "permify-deployment", "migration-job")
            if (self.rendered / "kubernetes" / f"{manifest}.yaml").exists()
            for pod in [self._yaml(f"kubernetes/{manifest}.yaml")["spec"]["template"]["spec"]]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            if container["name"] == name
        ]
        (container,) = found
        return dict(container)

    @property
    def _serve(self) -> list[str]:
        if self.docker:
            return list(self._yaml("compose.yaml")["services"]["permify"]["command"])
        return list(self.container("permify")["args"])

    @property
    def _keys_environment(self) -> dict[str, str]:
        """What the manifests, or compose.yaml, give Permify of the keys of its callers."""
        if self.docker:
            files = self._yaml("compose.yaml")["services"]["permify"].get("env_file", [])
            return {
                name: value
                for file in files
                for name, value in environment_file(self.rendered / file).items()
            }
        reference = {"secretKeyRef": {"name": "permify-authn", "key": "keys"}}
        variables = self.container("permify")["env"]
        return {each["name"]: self.keys for each in variables if each.get("valueFrom") == reference}

    @property
    def _pgcat_container(self) -> dict[str, Any]:
        if self.docker:
            return dict(self._yaml("compose.yaml")["services"]["pgcat"])
        return self.container("pgcat")

    @property
    def pgcat_count(self) -> int:
        if self.direct:
            return 0
        if self.docker:
            return 1
        return int(self.manifest("permify" if self.sidecar else "pgcat")["spec"]["replicas"])

    @property
    def permify_count(self) -> int:
        if self.docker:
            return int(self._yaml("compose.yaml")["services"]["permify"]["deploy"]["replicas"])
        return int(self.manifest("permify")["spec"]["replicas"])

    # Steps, in the order of a deployment

    def prepare(self) -> None:
        """The role, the database and its tables."""
        self.cluster.clear(self.database, self.user)
        self.log_begins = self.cluster.primary.log_size()
        self.bootstrap()
        self.bootstrap()  # which is harmless
        self.migrate()
        self.cluster.catch_up()

    def change(self, folder: Path, **answers: Any) -> None:
        """Render with other answers; what starts from now on starts from there."""
        self.answers = {**self.answers, **answers}
        self.rendered = render(folder, self.answers)
        self.reload()

    def reload(self) -> None:
        """After the rendered files were edited."""
        self.deployment = Reading.load(self.rendered)

    @contextlib.contextmanager
    def up(self) -> Iterator[Stack]:
        self.prepare()
        with contextlib.ExitStack() as stack:
            for number in range(self.pgcat_count):
                self.pgcats.append(stack.enter_context(self.pgcat(number)))
            for number in range(self.permify_count):
                pgcat = self.pgcats[number % len(self.pgcats)].port if self.pgcats else None
                self.permifys.append(stack.enter_context(self.permify(number, pgcat)))
            yield self

    def bootstrap(self, password: str | None = None) -> None:
        server = self.cluster.primary
        environment = clean_environment(DATABASE_PASSWORD=password or self.password)
        psql = [program("psql"), "--no-psqlrc", "-q", "-h", str(server.folder), "-p", str(server.port)]
        script = str(self.rendered / "postgres" / "bootstrap.sql")
        output = run([*psql, "-U", "postgres", "-d", "postgres", "-f", script], environment)
        assert "ERROR" not in output, output

    def migrate(self) -> None:
        """As the migration Job does, or Compose's service."""
        with Peaks(self.cluster, self.user) as self.migration_peaks:
            if self.docker:
                moved = dict([self.moved["primary"]])
                command = self._yaml("compose.yaml")["services"]["migrate"]["command"]
                arguments = [readdressed(word, moved) if "://" in word else word for word in command]
                output = run([program("permify"), *arguments], self.environment, cwd=self.folder)
                (self.folder / "migrate.log").write_text(output)
            else:
                for name in ("migrate", "note"):
                    with self.started(name) as process:
                        assert process.wait(60) == 0, process.log.read_text()

    def started(self, name: str, pgcat_port: int | None = None) -> contextlib.AbstractContextManager[Process]:
        """A container of the manifests that ends by itself, by its command and environment.

        Changed are addresses and the path of a mounted file alone. The log is `NAME.log`.
        """
        container = self.container(name)
        moved = dict([self.moved["primary"]])
        if pgcat_port is not None:
            moved = {self._pgcat_address: (self.pgcat_host, pgcat_port)}

        def here(text: str) -> str:
            return self._with_files(readdressed(text, moved)) if "://" in text else text

        words = [*container.get("command", ["permify"]), *container.get("args", [])]
        command = [here(word) for word in words]
        environment = dict(self.more_environment)
        for variable in container["env"]:
            value = variable.get("value")
            if value is None:
                secret = variable["valueFrom"]["secretKeyRef"]
                assert secret == {"name": "permify-database", "key": "password"}
                value = self.password
            environment[variable["name"]] = here(value)
        path = shutil.which(command[0])
        assert path, command[0]
        return running(
            [path, *command[1:]],
            self.folder / f"{name}.log",
            clean_environment(**environment),
            **({} if self.ca_file or self.more_environment else self.as_pod),
        )

    def _with_files(self, text: str) -> str:
        for there, here in {**self.replaced, CA_FILE: str(self.ca_file)}.items():
            text = text.replace(there, here)
        return text

    @property
    def as_pod(self) -> dict[str, Any]:
        """The user of the pods, whom no /etc/passwd knows, and who may not read files of a test.

        Only root can become another.
        """
        security = self._yaml("kubernetes/migration-job.yaml")["spec"]["template"]["spec"]["securityContext"]
        if os.geteuid() != 0:
            return {}
        return {"user": security["runAsUser"], "group": security["runAsGroup"], "extra_groups": []}

    @property
    def _pgcat_address(self) -> Address:
        """Where Permify finds PgCat in the files."""
        by_certificate = self.answers.get("client_tls") == "cert-manager"
        return (LOOPBACK if self.sidecar else "pgcat.permify.svc" if by_certificate else "pgcat", 6432)

    @contextlib.contextmanager
    def pgcat(self, number: int = 0, ready: bool = True) -> Iterator[PgCat]:
        """PgCat, started by the command of its container, ready by its probes, or else only listening."""
        folder = self.folder / f"pgcat-{number}"
        (folder / "run").mkdir(parents=True)
        port, exporter = free_port(), free_port()
        text = readdressed((self.rendered / "pgcat" / "pgcat.toml").read_text(), dict(self.moved.values()))
        text = with_port(text, "port = {}", 6432, port)
        text = with_port(text, "prometheus_exporter_port = {}", 9930, exporter)
        text = text.replace(f'"{TLS_FOLDER}/', f'"{self.pgcat_tls}/')
        (folder / "pgcat.toml").write_text(text)
        environment = clean_environment(
            PGCAT_CONFIG=str(folder / "pgcat.toml"),
            SECRETS_DIR=str(self.secrets),
            PGCAT_RUN_DIR=str(folder / "run"),
        )
        environment["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}"
        container = self._pgcat_container
        script = str(self.rendered / "pgcat" / "start.sh")
        command = [script if word == "/etc/pgcat/start.sh" else word for word in container["command"]]
        assert script in command
        with running(command, folder / "log", environment, self.open_files) as process:
            process.wait_until(lambda: self._healthy(container, port) if ready else listens(port))
            yield PgCat(process, port, exporter)

    def _healthy(self, container: dict[str, Any], port: int) -> bool:
        """The health check of the container, or all of its probes, against the port here."""
        if self.docker:
            kind, text = container["healthcheck"]["test"]
            assert kind == "CMD-SHELL"
            text = text.replace("$$", "$").replace("/run/secrets", str(self.secrets))
            return self._succeeds({"exec": {"command": ["/bin/sh", "-c", text]}}, container, port)
        probes = [container[kind] for kind in ("startupProbe", "readinessProbe") if kind in container]
        assert probes
        return all(self._succeeds(probe, container, port) for probe in probes)

    def _succeeds(self, probe: dict[str, Any], container: dict[str, Any], port: int) -> bool:
        if "tcpSocket" in probe:
            named = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert named[probe["tcpSocket"]["port"]] == 6432
            return listens(port)
        command = list(probe["exec"]["command"])
        if command[-1] == READY:
            return self.ready(port).returncode == 0
        assert any("6432" in word for word in command)
        command = [word.replace("6432", str(port)) for word in command]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, timeout=30)
        return done.returncode == 0

    def ready(self, port: int) -> subprocess.CompletedProcess[str]:
        """The command of PgCat's startupProbe, once; a kubelet gives up after its timeoutSeconds."""
        probe = self.container("pgcat")["startupProbe"]
        command = [
            str(self.rendered / "pgcat" / "ready.sh") if word == READY else word
            for word in probe["exec"]["command"]
        ]
        environment = clean_environment(
            SECRETS_DIR=str(self.secrets), READY_PORT=str(port), TLS_DIR=str(self.pgcat_tls)
        )
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=probe["timeoutSeconds"]
        )

    @contextlib.contextmanager
    def permify(
        self, number: int, pgcat_port: int | None, text: str | None = None, seconds: float = 75
    ) -> Iterator[Permify]:
        folder = self.folder / f"permify-{number}"
        folder.mkdir()
        port, grpc_port, peer_port = free_port(), free_port(), free_port()
        given = text is not None
        if text is None:
            text = (self.rendered / "permify" / "permify.yaml").read_text()
        if pgcat_port is None and not given:
            named = {name: here for name, here in self.moved.values() if f"@{joined(name)}/" in text}
            assert named.keys() == {name for name, _ in self.moved.values()}
            text = readdressed(text, named)
        elif pgcat_port is not None:
            text = readdressed(text, {self._pgcat_address: (self.pgcat_host, pgcat_port)})
        text = with_port(with_port(text, 'port: "{}"', 3476, port), 'port: "{}"', 3478, grpc_port)
        (folder / "permify.yaml").write_text(self._with_files(text))
        mounted = "/etc/permify/permify.yaml"
        assert mounted in self._serve
        arguments = [str(folder / "permify.yaml") if word == mounted else word for word in self._serve]
        # The third port that it listens on stands in no file of ours.
        environment = {
            "PERMIFY_DISTRIBUTED_PORT": str(peer_port),
            **self.environment,
            **self._keys_environment,
            **self.more_environment,
        }
        with running([program("permify"), *arguments], folder / "log", environment, cwd=folder) as process:

            def serving() -> bool:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return "SERVING" in get(port, "/healthz")
                return False

            process.wait_until(serving, seconds)
            try:
                yield Permify(process, port, peer_port)
            finally:
                process.stop(signal.SIGTERM, within=10)

    # What can be seen of it

    def planned(self, pgcats: int, permifys: int) -> dict[str, int]:
        """The connections that the plan gives so many processes on each server, by its role."""
        running = {"pgcat": pgcats, "permify": permifys}
        rows = plan(self.deployment).rows
        assert all(running[use.workload.program] <= use.instances.count for row in rows for use in row.uses)
        return {
            row.server.role: sum(use.size.value * running[use.workload.program] for use in row.uses)
            for row in rows
        }

    def connect(
        self, port: int, database: str, password: str | None = None, connect_timeout: int = 10
    ) -> psycopg.Connection[Any]:
        """As Permify connects to PgCat, or to a server."""
        return psycopg.connect(
            host=LOOPBACK,
            port=port,
            dbname=database,
            user=self.user,
            password=password or self.password,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=connect_timeout,
        )

    def load(self, seconds: float = 1.5) -> dict[Check, set[bool]]:
        """Check everything through every Permify process at once, for a while; the answers to each check."""
        answers: dict[Check, set[bool]] = {check: set() for check in CHECKS}
        deadline = time.monotonic() + seconds

        def one(job: tuple[Permify, Check]) -> None:
            permify, check = job
            with permify.explained():
                answers[check].add(permify.check(check))

        with Peaks(self.cluster, self.user) as self.load_peaks, ThreadPoolExecutor(24) as pool:
            while True:
                list(pool.map(one, [(permify, check) for permify in self.permifys for check in CHECKS]))
                if time.monotonic() > deadline:
                    return answers

    def logs(self) -> dict[Path, str]:
        return {path: path.read_text(errors="replace") for path in self.folder.rglob("*log")}


def pgcat_program(version: str) -> str:
    """`pgcat`, by PGCAT_BIN or PATH, or another version that PATH has under a name of its own."""
    return program("pgcat") if version == "pgcat" else program(version)


def require_programs() -> None:
    for name in ("pgcat", "permify", "psql", "pg_isready"):
        program(name)
