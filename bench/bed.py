"""What the parts share: a rendered deployment, other poolers and latency beside it, load, CPU time.

PgCat and Permify are as the default deployment on Kubernetes has them; TLS to PostgreSQL is off everywhere,
for it is the same with every pooler.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from live.network import Toxiproxy, toxiproxy
from live.stack import EXTERNAL, SCHEMA, TENANT, Permify, Stack, relation_tuple, write_body
from live.support import (
    KEY,
    LOOPBACK,
    Address,
    Cluster,
    Process,
    clean_environment,
    free_port,
    listens,
    open_files,
    post,
    program,
    run,
    running,
)
from pgcat_stack.budget import plan

ANSWERS = {"topology": "standalone", **EXTERNAL, "database_tls": "disable"}

# As in load.lua.
DOCUMENTS = 500
USERS = 200
STEP = 25

SETTLE_SECONDS = 0.4


@dataclass
class Deployment(Stack):
    """A rendered deployment of which parts are started one by one."""

    password: str = "bench"

    def lift_limit(self) -> None:
        """Several deployments at once, each with idle connections, are more than the one that was planned."""
        self.cluster.primary.sql(f'ALTER ROLE "{self.user}" CONNECTION LIMIT -1')
        self.cluster.catch_up()

    @property
    def capacity(self) -> int:
        """How many connections the role may have on each server."""
        capacity = plan(self.deployment).rows[0].server.capacity
        assert capacity is not None
        return capacity

    @property
    def permify_config(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.file("permify/permify.yaml")))

    def file(self, name: str) -> str:
        return (self.rendered / name).read_text()


def deployment(
    cluster: Cluster,
    folder: Path,
    pgcat: str = "pgcat",
    *,
    by: dict[str, Address] | None = None,
    **answers: Any,
) -> Deployment:
    """Rendered from the default answers and these."""
    merged = {**ANSWERS, **answers}
    path = None if merged.get("pooling") == "direct" else program(pgcat)
    return Deployment(cluster, merged, path, folder / "rendered", folder, by=by or {})


# Data and load


def write_tuples(permify: Permify, cluster: Cluster) -> None:
    """A schema and 4,000 tuples: user u may view document d when u − d is a multiple of 25."""
    post(permify.port, f"{TENANT}/schemas/write", {"schema": SCHEMA})
    cluster.catch_up()
    tuples = [
        relation_tuple(document, "viewer", user)
        for document in range(DOCUMENTS)
        for user in range(document % STEP, USERS, STEP)
    ]
    for begin in range(0, len(tuples), 500):
        post(permify.port, f"{TENANT}/data/write", write_body(*tuples[begin : begin + 500]))
    cluster.primary.sql("CHECKPOINT")
    cluster.catch_up()


def fill(cluster: Cluster, folder: Path) -> None:
    """Prepare the servers for several deployments at once, and write the tuples through the first."""
    base = deployment(cluster, folder)
    base.prepare()
    base.lift_limit()
    with base.pgcat() as pooler, base.permify(0, pooler.port) as first:
        write_tuples(first, cluster)


@dataclass(frozen=True)
class Answers:
    """What wrk counted."""

    answers: int
    seconds: float
    failed: int
    """Wrong answers, errors and time-outs."""
    p50: float
    """Milliseconds."""
    p99: float
    example: str
    """One of the wrong ones."""

    @property
    def per_second(self) -> float:
        return (self.answers - self.failed) / self.seconds


def load(kind: str, port: int, seconds: float, clients: int = 32, documents: int = DOCUMENTS) -> Answers:
    """Checks or writes (`check`, `write`) by clients that each wait for their answer."""
    command = [program("wrk"), f"-t{clients}", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "30s"]
    command += ["-s", str(Path(__file__).with_name("load.lua")), f"http://{LOOPBACK}:{port}"]
    arguments = [kind, str(secrets.randbelow(10**9)), str(documents)]
    # The key by the environment, because everyone on the machine reads an argument.
    output = run([*command, "--", *arguments], clean_environment(PERMIFY_KEY=KEY))
    # What wrk left under way is cancelled, and Permify fails new requests that wait for the same statement.
    time.sleep(SETTLE_SECONDS)
    found = Answers(**json.loads(output.splitlines()[-1]))
    if found.failed:
        print(f"{found.failed} of {found.answers} failed, such as: {found.example}", file=sys.stderr)
    return found


# CPU time


def _times(pid: int) -> tuple[int, float, float]:
    """The parent, the CPU seconds of a process, and those of its children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(words[1]), (int(words[11]) + int(words[12])) / ticks, (int(words[13]) + int(words[14])) / ticks


def cpu_seconds(*processes: Process) -> float:
    """CPU time of the processes and their children until now."""
    wanted = {process.popen.pid for process in processes}
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent, own, ended = _times(int(path.name))
            if int(path.name) in wanted:
                total += own + ended
            elif parent in wanted:
                total += own
    return total


# Connections


def open_connections(port: int) -> set[int]:
    """The clients' ports of the TCP connections that are open to a port on this machine."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state, *_ = line.split()
        if state == "01" and here.endswith(f":{port:04X}"):
            found.add(int(there.rpartition(":")[2], 16))
    return found


# Other programs


@contextlib.contextmanager
def pgbouncer(cluster: Cluster, like: Deployment) -> Iterator[tuple[Process, int]]:
    """PgBouncer with the pools of a rendered deployment.

    It takes one port for all hosts of a pool, so its reader pool is of the replica alone.
    """
    config = like.pgcat_config
    addresses = dict(like.moved.values())
    port = free_port()
    folder = cluster.primary.folder / f"pgbouncer-{port}"  # which its user may read
    folder.mkdir()
    databases = []
    for name, pool in config["pools"].items():
        role = "primary" if name == "permify_writer" or not like.has_replica else "replica"
        host, server_port = addresses[like.moved[role][0]]
        shard, size = pool["shards"]["0"]["database"], pool["users"]["0"]["pool_size"]
        databases.append(f"{name} = host={host} port={server_port} dbname={shard} pool_size={size}")
    lines = ["[databases]", *databases, "[pgbouncer]", f"listen_addr = {LOOPBACK}", f"listen_port = {port}"]
    lines += [
        "unix_socket_dir =",
        "auth_type = md5",
        f"auth_file = {folder}/users",
        "pool_mode = transaction",
    ]
    lines += ["max_client_conn = 5000", "server_tls_sslmode = disable", "query_wait_timeout = 5"]
    lines += ["server_idle_timeout = 600", "server_lifetime = 3600"]
    lines += ["ignore_startup_parameters = plan_cache_mode, extra_float_digits"]
    lines += ["log_connections = 0", "log_disconnections = 0"]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    (folder / "users").write_text(f'"{like.user}" "{like.password}"\n')
    command = [program("pgbouncer"), str(folder / "pgbouncer.ini")]
    # As its packages start it; it does not raise the limit itself.
    limits = open_files(soft=65536)
    with running(command, folder / "log", clean_environment(), limits, **cluster.primary.as_user) as process:
        process.wait_until(lambda: listens(port))
        yield process, port


@dataclass
class Latency:
    """Milliseconds added on the way back from each server."""

    cluster: Cluster
    proxy: Toxiproxy
    by: dict[str, Address]
    """Where each server is reached through it, by its role."""

    def set(self, milliseconds: int) -> None:
        for server in self.cluster.servers:
            self.proxy.delay(server, milliseconds)


@contextlib.contextmanager
def latency(cluster: Cluster, folder: Path) -> Iterator[Latency]:
    """Toxiproxy in front of each server."""
    with toxiproxy(folder) as proxy:
        yield Latency(cluster, proxy, {server.role: proxy.add(server) for server in cluster.servers})
