"""Runs rendered docker deployments by Docker Compose, each under its own name, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.load import Load
from live.stack import SCHEMA, TENANT, check_body, relation_tuple, tuples, write_body
from pgcat_stack.permify.callers import KEYS
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import make_secrets, read_keys
from runbook import blocks

COMMAND_SECONDS = 150
PROJECT = "pgcat-stack-test-"
LEFT_OVER_SECONDS = 3600
PROJECT_LABEL = "com.docker.compose.project"
UP = ("up", "--wait", "--wait-timeout", "120", "--pull", "never")

HTTP_PORT = 3476
GRAFANA_PORT = 3000


def run(*command: str | Path, seconds: float = COMMAND_SECONDS, **options: Any) -> str:
    """Standard output of a command that must succeed; what it printed otherwise is the failure."""
    options = {"stderr": subprocess.PIPE, **options}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds, **options)
    shown = f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr or ''}"
    assert done.returncode == 0, shown
    return done.stdout


def skip_without_docker() -> None:
    for what, command in {
        "docker not found": ("docker", "--version"),
        "docker daemon not running": ("docker", "info"),
        "docker compose v2 not installed": ("docker", "compose", "version"),
    }.items():
        try:
            subprocess.run(command, capture_output=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            pytest.skip(what)


def docker_lists(project: str) -> dict[str, str]:
    """What Docker still has of a project, by kind, one id a line."""
    label = f"label={PROJECT_LABEL}={project}"
    return {
        "container": run("docker", "ps", "--all", "--quiet", "--filter", label),
        "network": run("docker", "network", "ls", "--quiet", "--filter", label),
        "volume": run("docker", "volume", "ls", "--quiet", "--filter", label),
    }


def remove(project: str) -> None:
    """All that Docker still has of it."""
    for kind, ids in docker_lists(project).items():
        if ids:
            run("docker", kind, "rm", "--force", *ids.split())
    assert not any(docker_lists(project).values())


def remove_leftovers() -> None:
    """Projects of runs that were killed before they could clean up, an hour or longer ago."""
    named = ("--filter", f"label={PROJECT_LABEL}", "--format", f'{{{{.Label "{PROJECT_LABEL}"}}}}')
    lists = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    projects = {name for each in lists for name in run("docker", *each, *named).split()}
    for project in projects:
        began = re.fullmatch(rf"{PROJECT}(\d+)-[0-9a-f]+", project)
        if began and time.time() - int(began[1]) > LEFT_OVER_SECONDS:
            remove(project)


@dataclass
class Stack:
    folder: Path
    network: str = ""
    """An existing network to join; empty: one of its own."""
    project: str = field(default_factory=lambda: f"{PROJECT}{time.time():.0f}-{secrets.token_hex(4)}")
    """With the time in it, by which `remove_leftovers` knows what a killed run has left."""
    address: str = field(
        default_factory=lambda: "127." + ".".join(str(secrets.randbelow(254) + 1) for _ in range(3))
    )
    """A loopback address of its own, so that the published ports are free."""

    def __post_init__(self) -> None:
        make_secrets(Reading.load(self.folder))
        self.override = self.folder / "compose.test.yaml"
        self.override_ports()

    def override_ports(self, *more: str) -> None:
        """What this project has otherwise: its network, and the ports that PERMIFY_BIND does not move."""
        services = list(more)
        for name, port in (("prometheus", 9090), ("grafana", GRAFANA_PORT)):
            if name in self.declared["services"]:
                services += [f"  {name}:", f'    ports: !override ["{self.address}:{port}:{port}"]']
        override = ["services:", *services] if services else ["services: {}"]
        if self.network:
            override += ["networks:", f"  default: {{name: {self.network}, external: true}}"]
        self.override.write_text("\n".join(override) + "\n")

    @contextmanager
    def unpublished(self) -> Iterator[None]:
        """No host ports for Permify, which would bound how many there can be."""
        self.override_ports("  permify:", "    ports: !reset []")
        try:
            yield
        finally:
            self.override_ports()

    @property
    def network_name(self) -> str:
        return self.network or f"{self.project}_default"

    @property
    def declared(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "compose.yaml").read_text())

    @property
    def environment(self) -> dict[str, str]:
        """Lets `docker compose` alone, as the runbook has it, mean this project."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": f"compose.yaml{os.pathsep}{self.override.name}",
            "PERMIFY_BIND": self.address,
        }

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS, **options: Any) -> str:
        command = ("docker", "compose", *arguments)
        return run(*command, cwd=self.folder, env=self.environment, seconds=seconds, **options)

    def runbook(self, title: str, part: int = 0) -> str:
        """Commands that a section of README.md has, but for `copier`; `part` counts its blocks."""
        block = blocks(self.folder / "README.md", title)[part]
        return re.sub(r"^copier .*\n", "", block, flags=re.MULTILINE)

    def follow(self, commands: str) -> None:
        """Do what a runbook says."""
        run("bash", "-euc", commands, cwd=self.folder, env=self.environment)

    def require_images(self, *services: str) -> None:
        """Skip without the images of these services, or of all that start without a profile."""
        for image in self.compose("config", "--images", *services).split():
            if subprocess.run(("docker", "image", "inspect", image), capture_output=True).returncode:
                pytest.skip(f"image {image} not on this machine: docker pull {image}")

    def up(self, *arguments: str) -> None:
        try:
            self.compose(*UP, *arguments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def logs(self, *services: str) -> str:
        return self.compose("--profile", "*", "logs", "--no-color", *services)

    def remove(self) -> None:
        try:
            self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "3")
        finally:
            remove(self.project)

    def containers(self) -> list[dict[str, Any]]:
        """Every container, running or finished, as `docker inspect` shows it."""
        ids = self.compose("--profile", "*", "ps", "--all", "--quiet").split()
        return json.loads(run("docker", "inspect", *ids))

    def service(self, name: str) -> dict[str, Any]:
        (container,) = [c for c in self.containers() if service_of(c) == name]
        return container

    def sql(self, service: str, query: str, database: str = "postgres") -> list[list[str]]:
        """Rows of a query by the superuser, inside a bundled server."""
        psql = ("psql", "--no-psqlrc", "-At", "-F", "|", "-U", "postgres", "-d", database, "-c", query)
        out = self.compose("exec", "-T", service, *psql)
        return [line.split("|") for line in out.splitlines()]

    def catch_up(self) -> None:
        """Wait until a bundled replica has everything that the primary has now."""
        [[position]] = self.sql("postgres-primary", "SELECT pg_current_wal_lsn()")
        end = time.monotonic() + 30
        there = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        while self.sql("postgres-replica", there) != [["t"]]:
            assert time.monotonic() < end, f"the replica did not reach {position}"
            time.sleep(0.1)

    def sessions(self, service: str, user: str) -> int:
        """How many connections a role has to a bundled server."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"
        return int(self.sql(service, query)[0][0])

    def pgcat(self, command: str) -> list[dict[str, str]]:
        """Rows of a command of PgCat's admin database."""
        shell = (
            'PGPASSWORD="$(cat /run/secrets/pgcat_admin_password)" exec psql --no-psqlrc'
            f' -A -F "|" -P footer=off -h 127.0.0.1 -p 6432 -U pgcat_admin -d pgcat -c "{command}"'
        )
        head, *rows = self.compose("exec", "-T", "pgcat", "sh", "-c", shell).splitlines()
        return [dict(zip(head.split("|"), row.split("|"), strict=True)) for row in rows]

    def pool_sizes(self) -> set[int]:
        return {int(row["pool_size"]) for row in self.pgcat("SHOW DATABASES")}

    def logs_in(self, password: str) -> bool:
        """Whether PostgreSQL lets the role in with this password."""
        image = self.declared["services"]["postgres-primary"]["image"]
        uri = "host=postgres-primary user=permify dbname=permify connect_timeout=10"
        options = (f"--env=PGPASSWORD={password}",)
        try:
            self.docker_run(self.network_name, image, "psql", "-c", "SELECT 1", uri, options=options)
        except AssertionError as error:
            assert "password authentication failed" in str(error)
            return False
        return True

    def queries(self) -> dict[str, int]:
        """Queries so far of each server of each pool."""
        return {row["instance"]: int(row["total_query_count"]) for row in self.pgcat("SHOW STATS")}

    def prometheus(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.address}:9090/api/v1/{path}", timeout=15) as answer:
            return json.load(answer)["data"]

    def permify(self, index: int = 1) -> Permify:
        """By the order of the ports: Compose's own numbers have gaps after scaling."""
        return Permify(f"{self.address}:{sorted(self.ports)[index - 1]}", self.key)

    @property
    def key(self) -> str:
        """What callers send; empty where Permify asks for none."""
        file = self.folder / "secrets" / KEYS
        return read_keys(file)[0] if file.exists() else ""

    @property
    def ports(self) -> list[int]:
        """Where HTTP is published, one port for each Permify."""
        ids = self.compose("ps", "--quiet", "permify").split()
        found = json.loads(run("docker", "inspect", *ids))
        return [
            int(container["NetworkSettings"]["Ports"][f"{HTTP_PORT}/tcp"][0]["HostPort"])
            for container in found
        ]

    def permifys_inside(self) -> list[Permify]:
        """Every Permify that runs, at its address inside the network."""
        ids = self.compose("ps", "--quiet", "permify").split()
        found = [
            container["NetworkSettings"]["Networks"][self.network_name]["IPAddress"]
            for container in json.loads(run("docker", "inspect", *ids))
        ]
        return [Permify(f"{address}:{HTTP_PORT}", self.key) for address in found if address]

    def serving(self) -> list[Permify]:
        """Those of them that answer."""
        return [permify for permify in self.permifys_inside() if permify.is_serving()]

    def prepare(self, servers: Stack | None = None) -> None:
        """The schema and the relations that a load checks, on every server."""
        self.permify().write_schema()
        (servers or self).catch_up()  # Permify looks its schema up among the readers.
        self.permify().write_everything()
        (servers or self).catch_up()

    def wait_until_it_answers(self, seconds: float = 60) -> None:
        """Until every Permify answers a check and takes a write."""
        end = time.monotonic() + seconds
        for port in self.ports:
            permify = Permify(f"{self.address}:{port}", self.key)
            while True:
                try:
                    permify.write("settled", "nobody")
                    assert not permify.allows("settled", "somebody")
                    break
                except OSError:
                    assert time.monotonic() < end, self.logs()[-5000:]
                    time.sleep(0.2)

    def load(self, **options: Any) -> Load:
        """Steady checks and writes through every Permify that runs now."""
        return Load(self.ports, address=self.address, **{"key": self.key, **options})

    def lost(self, load: Load, database: str = "permify", service: str = "postgres-primary") -> set[str]:
        """Documents whose write was acknowledged and which the bundled database does not have."""
        written = "SELECT entity_id FROM relation_tuples WHERE entity_id LIKE 'w-%'"
        return load.acknowledged - {name for (name,) in self.sql(service, written, database)}

    def grpc_status(self, index: int = 1) -> str:
        """What the gRPC health check answers on the published port."""
        address = self.compose("port", "--index", str(index), "permify", "3478").strip()
        image = self.declared["services"]["permify"]["image"]
        return self.docker_run("host", image, "grpc_health_probe", f"-addr={address}")

    def docker_run(
        self, network: str, image: str, program: str, *arguments: str, options: Sequence[str] = ()
    ) -> str:
        """What a program says in a container that goes with the stack."""
        container = (
            "--rm",
            "--pull=never",
            f"--network={network}",
            f"--label={PROJECT_LABEL}={self.project}",
        )
        command = ("docker", "run", *container, *options, f"--entrypoint={program}", image, *arguments)
        return run(*command, stderr=subprocess.STDOUT)


@dataclass
class Permify:
    address: str
    key: str = ""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(
            f"http://{self.address}{TENANT}{path}", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace"))
            raise

    def is_serving(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/healthz", timeout=5) as answer:
                return "SERVING" in answer.read().decode()
        except OSError:
            return False

    def write_schema(self) -> None:
        self.post("/schemas/write", {"schema": SCHEMA})

    def write_everything(self) -> None:
        """Who owns and who may view each document of the checks that a load makes."""
        self.post("/data/write", write_body(*tuples()))

    def write(self, document: str, viewer: str) -> None:
        self.post("/data/write", write_body(relation_tuple(document, "viewer", viewer)))

    def allows(self, document: str, user: str) -> bool:
        question = check_body(document, "view", user)
        return self.post("/permissions/check", question)["can"] == "CHECK_RESULT_ALLOWED"

    def comes_to_allow(self, document: str, user: str, seconds: float = 10) -> bool:
        """Whether it allows that in the end: a read may arrive at a replica before the write does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.allows(document, user):
                return True
            time.sleep(0.2)
        return False


def service_of(container: dict[str, Any]) -> str:
    return container["Config"]["Labels"]["com.docker.compose.service"]


@contextmanager
def started(
    folder: Path,
    services: Sequence[str] = (),
    network: str = "",
    before: Callable[[], object] = lambda: None,
) -> Iterator[Stack]:
    """A deployment that is up, with all its services or these, and is gone afterwards, whatever happens.

    `before` is done when its passwords are there and nothing of it runs.
    """
    stack = Stack(folder, network)
    stack.require_images()
    try:
        before()
        stack.up(*services)
        yield stack
    finally:
        stack.remove()
