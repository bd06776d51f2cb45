"""What the manifests add to PgCat and Permify, run from the rendered files.

PgCat's startupProbe, the migration and the wait for it, TLS by a private CA, shared caches, OTLP.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from live.peers import IN_FILES, peers
from live.repeats import LATEST, asked_for, drawn
from live.rollout_under_load import MIN_READY, Rollout, Seen, roll, without
from live.stack import (
    CHECKS,
    EXTERNAL,
    MARK,
    MAX_CONNECTIONS,
    SCHEMA,
    TENANT,
    PgCat,
    Stack,
    pgcat_program,
    require_programs,
)
from live.support import (
    LOOPBACK,
    Cluster,
    NotReady,
    Process,
    Server,
    certificate,
    free_port,
    post,
    postgres_cluster,
    program,
)

pytestmark = pytest.mark.timeout(420)

STANDALONE = {"topology": "standalone", **EXTERNAL}
SIDECAR = {"topology": "sidecar", **EXTERNAL}
DIRECT = {**STANDALONE, "pooling": "direct"}
SIZE = 4
"""Of both pools: the least that session mode admits here."""
SMALL = {"writer_pool_size": SIZE, "reader_pool_size": SIZE}


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    """Servers that these tests may stop."""
    require_programs()
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        yield cluster


@pytest.fixture
def prepare(servers: Cluster, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Renders a deployment whose role and database are there, and nothing else."""
    numbers = itertools.count()

    def prepared(answers: dict[str, Any], version: str = "pgcat") -> Stack:
        binary = None if answers.get("pooling") == "direct" else pgcat_program(version)
        folder = tmp_path / str(next(numbers))
        stack = Stack(servers, answers, binary, folder / "deployment", folder / "live")
        servers.clear(stack.database, stack.user)
        stack.bootstrap()
        servers.catch_up()
        return stack

    yield prepared
    for server in servers.servers:
        if server.process.ended:
            server.start()
    servers.catch_up()


# PgCat's startupProbe


@pytest.fixture(params=["pgcat", LATEST])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def answers(version: str) -> dict[str, Any]:
    """One pool mode for each version: what differs by either is seen, and each test costs seconds."""
    mode = {"pgcat": "transaction", "pgcat-1.3.0": "session"}[version]
    return {**STANDALONE, **SMALL, "pool_mode": mode}


Fault = Callable[[Stack, ExitStack], None]
NOWHERE = ("db-primary.invalid", 5432)


def down(stack: Stack, exits: ExitStack) -> None:
    for server in stack.cluster.servers:
        server.stop()


def wrong_password(stack: Stack, exits: ExitStack) -> None:
    (stack.secrets / "database_password").write_text(stack.password + "x")


def wrong_primary(stack: Stack, exits: ExitStack) -> None:
    stack.by["primary"] = NOWHERE


def missing_database(stack: Stack, exits: ExitStack) -> None:
    stack.cluster.primary.sql(f'DROP DATABASE "{stack.database}" WITH (FORCE)')
    stack.cluster.catch_up()


def mute(*roles: str) -> Fault:
    """Connections open, and nothing comes through."""

    def fault(stack: Stack, exits: ExitStack) -> None:
        for role in roles:
            listening = exits.enter_context(socket.create_server((LOOPBACK, 0)))
            stack.by[role] = listening.getsockname()

    return fault


UNREADY: dict[str, Fault] = {
    "wrong password": wrong_password,
    "wrong host of the primary": wrong_primary,
    "database missing": missing_database,
    "primary mute": mute("primary"),
    "both mute": mute("primary", "replica"),
}
LONGEST_SECONDS = 10.0
"""What the probe takes here; its timeoutSeconds leaves room for a machine that is busy."""


def asked(stack: Stack, pgcat: PgCat) -> subprocess.CompletedProcess[str]:
    """ready.sh, which must not take long."""
    begun = time.monotonic()
    done = stack.ready(pgcat.port)
    seconds = time.monotonic() - begun
    print(f"ready.sh: {done.returncode} after {seconds:.1f} s")
    assert seconds < LONGEST_SECONDS
    return done


def test_pgcat_is_not_ready_before_both_pools_have_reached_a_server(
    prepare: Callable[..., Stack], answers: dict[str, Any], version: str
) -> None:
    def ask(name: str) -> list[subprocess.CompletedProcess[str]]:
        number = list(UNREADY).index(name)
        own = {"database_name": f"permify_{number}", "database_user": f"permify_{number}"}
        stack = prepare({**answers, **own}, version)
        with ExitStack() as exits:
            UNREADY[name](stack, exits)
            pgcat = exits.enter_context(stack.pgcat(ready=False))
            return [asked(stack, pgcat) for _ in range(2)]

    with ThreadPoolExecutor(len(UNREADY)) as threads:
        results = dict(zip(UNREADY, threads.map(ask, UNREADY), strict=True))
    for name, results_of_one in results.items():
        for done in results_of_one:
            assert done.returncode == 1, name
            assert "Pool down" in done.stderr, name


def test_pgcat_is_ready_once_postgresql_has_come(
    prepare: Callable[..., Stack], answers: dict[str, Any], version: str
) -> None:
    stack = prepare(answers, version)
    down(stack, ExitStack())
    with stack.pgcat(ready=False) as pgcat:
        assert asked(stack, pgcat).returncode == 1
        for server in stack.cluster.servers:
            server.start()
        assert asked(stack, pgcat).returncode == 0


@pytest.mark.parametrize("fault", ["gone", "mute"])
def test_pgcat_is_ready_without_its_replica(
    prepare: Callable[..., Stack], answers: dict[str, Any], version: str, fault: str
) -> None:
    """The primary carries the reads."""
    stack = prepare(answers, version)
    with ExitStack() as exits:
        if fault == "gone":
            stack.cluster.replica.stop()
        else:
            mute("replica")(stack, exits)
        pgcat = exits.enter_context(stack.pgcat(ready=False))
        assert asked(stack, pgcat).returncode == 0


def connections(stack: Stack) -> set[tuple[str, int]]:
    return {
        (server.role, pid)
        for server in stack.cluster.servers
        for (pid,) in server.sql("SELECT pid FROM pg_stat_activity WHERE usename = %s", stack.user)
    }


def test_readiness_takes_no_server_connection(
    prepare: Callable[..., Stack], answers: dict[str, Any], version: str
) -> None:
    """It opens none and needs none: it is told while others have them all, and once PostgreSQL is lost."""
    stack = prepare(answers, version)
    with stack.pgcat() as pgcat, ExitStack() as clients:
        before = connections(stack)
        assert before
        for _ in range(20):
            assert asked(stack, pgcat).returncode == 0
        assert connections(stack) == before
        for pool, servers in (("permify_writer", 1), ("permify_reader", 2)):
            for _ in range(SIZE * servers):
                client = clients.enter_context(contextlib.closing(stack.connect(pgcat.port, pool)))
                client.autocommit = False
                client.execute("SELECT 1")
            with stack.connect(pgcat.port, pool) as one_too_many, pytest.raises(psycopg.Error):
                one_too_many.execute("SELECT 1")
        pinned = connections(stack)
        assert len(pinned) == SIZE * 3
        assert asked(stack, pgcat).returncode == 0
        assert connections(stack) == pinned
        down(stack, clients)
        for _ in range(3):
            assert asked(stack, pgcat).returncode == 0
            time.sleep(1)
        with pytest.raises(psycopg.Error), stack.connect(pgcat.port, "permify_writer") as client:
            client.execute("SELECT 1")


def test_no_process_shows_the_password(prepare: Callable[..., Stack]) -> None:
    stack = prepare(STANDALONE)
    assert MARK in stack.password
    with ExitStack() as exits:
        mute("primary")(stack, exits)
        pgcat = exits.enter_context(stack.pgcat(ready=False))
        asking = threading.Thread(target=asked, args=(stack, pgcat))
        asking.start()
        seen: set[str] = set()
        while asking.is_alive():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        assert any("psql" in line and "--dbname=permify_writer" in line for line in seen)
        assert not any(MARK in line for line in seen)


# The migration, and the wait for it


TOPOLOGIES = {"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT}
SOON_SECONDS = 5.0
"""The wait asks every 2 s."""


def ends(wait: Process, within_seconds: float = SOON_SECONDS) -> bool:
    deadline = time.monotonic() + within_seconds
    while not wait.ended and time.monotonic() < deadline:
        time.sleep(0.05)
    if wait.ended:
        assert wait.popen.returncode == 0, wait.log.read_text()
    return wait.ended


@pytest.mark.parametrize("topology", drawn(TOPOLOGIES, {"sidecar", "direct"}))
def test_permify_waits_until_the_job_of_its_version_has_run(
    prepare: Callable[..., Stack], tmp_path: Path, topology: str
) -> None:
    stack = prepare(TOPOLOGIES[topology])
    ((superuser, makes_roles, makes_databases),) = stack.cluster.primary.sql(
        "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = %s", stack.user
    )
    assert not (superuser or makes_roles or makes_databases)
    with ExitStack() as exits:
        port = None if stack.direct else exits.enter_context(stack.pgcat()).port
        with stack.started("wait-for-migration", port) as wait:
            assert not ends(wait)
            with stack.started("migrate") as migrate:
                assert migrate.wait(60) == 0, migrate.log.read_text()
            assert not ends(wait), "tables alone do not end the wait"
            with stack.started("note") as note:
                assert note.wait(60) == 0, note.log.read_text()
            assert ends(wait)
        with stack.started("wait-for-migration", port) as wait:
            assert ends(wait, 2), "a second pod need not wait"
        stack.migrate()
        notes = stack.connect(stack.cluster.primary.port, stack.database)
        rows = exits.enter_context(notes).execute("SELECT migration, done FROM pgcat_stack_migrations")
        ((first, done),) = rows.fetchall()
        assert done
        # Another version waits for its own Job, and the way back is open at once.
        before = stack.rendered
        stack.change(tmp_path / "other", permify_image="ghcr.io/permify/permify:v1.7.4")
        with stack.started("wait-for-migration", port) as wait:
            assert not ends(wait)
            stack.migrate()
            assert ends(wait)
        rows = notes.execute("SELECT migration FROM pgcat_stack_migrations WHERE migration <> %s", [first])
        assert len(rows.fetchall()) == 1
        stack.rendered = before
        with stack.started("wait-for-migration", port) as wait:
            assert ends(wait, 2)


def test_permify_would_serve_without_its_tables(prepare: Callable[..., Stack]) -> None:
    """Why its pods wait: it says that it serves, and every request fails, until the migration has run."""
    stack = prepare(STANDALONE)
    with stack.pgcat() as pgcat, stack.permify(0, pgcat.port) as permify:
        with pytest.raises(AssertionError, match=": 500 "):
            post(permify.port, f"{TENANT}/schemas/write", {"schema": SCHEMA})
        stack.migrate()
        stack.cluster.catch_up()
        permify.write(stack.cluster)


def test_a_sidecar_pod_starts_and_ends_in_order(prepare: Callable[..., Stack]) -> None:
    """PgCat is ready before the migration has run; then come the wait and Permify; PgCat goes last."""
    stack = prepare(SIDECAR)
    pod = yaml.safe_load((stack.rendered / "kubernetes" / "permify-deployment.yaml").read_text())
    pod = pod["spec"]["template"]["spec"]
    first, second = pod["initContainers"]
    assert (first["name"], first["restartPolicy"]) == ("pgcat", "Always")
    assert (second["name"], second.get("restartPolicy")) == ("wait-for-migration", None)
    with stack.pgcat() as pgcat:
        with stack.started("wait-for-migration", pgcat.port) as wait:
            assert not ends(wait)
            stack.migrate()
            assert ends(wait)
        stack.cluster.catch_up()
        with stack.permify(0, pgcat.port) as permify:
            permify.write(stack.cluster)
            assert all(permify.check(check) == check.allowed for check in CHECKS)
            assert permify.process.stop(signal.SIGTERM)[0] == 0
        code, seconds = pgcat.process.stop(within=stack.shutdown_seconds + 5)
        assert code == 0
        assert seconds < stack.shutdown_seconds, "nobody is connected any more"


# TLS straight to PostgreSQL


VERIFIED = {**DIRECT, "database_tls": "verify-full"}
ALL = ("migrate", "note", "wait-for-migration")


def said(stack: Stack, *names: str) -> dict[str, str]:
    """What containers that end by themselves said, by their name; nothing where they succeeded."""
    results = {}
    for name in names:
        (stack.folder / f"{name}.log").unlink(missing_ok=True)
        with stack.started(name) as process:
            failed = process.wait(20 if name == "migrate" else SOON_SECONDS) != 0
            results[name] = process.log.read_text() if failed else ""
    return results


@contextlib.contextmanager
def certificate_refused(server: Server) -> Iterator[None]:
    """By a program that does not say why it tries again for a minute; the server hears why."""
    begins = server.log_size()
    yield
    assert re.search("could not accept SSL connection: .* alert", server.log_since(begins))


@pytest.fixture
def trusted(servers: Cluster) -> Path:
    """The certificate that signed those of the servers."""
    return servers.primary.folder / "ca.crt"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """One that did not."""
    file = tmp_path / "foreign.crt"
    file.write_bytes(certificate.__wrapped__()["ca.crt"])
    return file


@pytest.mark.parametrize("kind", drawn(["configmap", "secret"], {"secret"}))
def test_a_private_ca_is_trusted(prepare: Callable[..., Stack], trusted: Path, kind: str) -> None:
    stack = prepare({**VERIFIED, "database_ca": f"{kind}/postgresql-ca"})
    stack.ca_file = trusted
    assert said(stack, *ALL) == dict.fromkeys(ALL, "")
    stack.cluster.catch_up()
    with stack.permify(0, None) as permify:
        permify.write(stack.cluster)
        assert all(permify.check(check) == check.allowed for check in CHECKS)
        for server in stack.cluster.servers:
            encrypted = server.sql(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s", stack.user
            )
            assert set(encrypted) == {(True,)}


@pytest.mark.parametrize("wrong", drawn(["certificate", "name"], {"name"}))
def test_another_certificate_is_refused(
    prepare: Callable[..., Stack], trusted: Path, foreign: Path, wrong: str
) -> None:
    stack = prepare({**VERIFIED, "database_ca": "configmap/postgresql-ca"})
    if wrong == "certificate":
        stack.ca_file = foreign
    else:
        stack.ca_file = trusted
        stack.by = {server.role: ("localhost", server.port) for server in stack.servers}
    for name, output in said(stack, "note", "wait-for-migration").items():
        assert "certificate" in output, name
    with certificate_refused(stack.cluster.primary), stack.started("migrate") as migrate:
        assert not ends(migrate)
    with (
        certificate_refused(stack.cluster.primary),
        pytest.raises(NotReady),
        stack.permify(0, None, seconds=SOON_SECONDS),
    ):
        pass


def test_without_a_ca_permify_trusts_the_public_roots(
    prepare: Callable[..., Stack], trusted: Path, foreign: Path
) -> None:
    stack = prepare(VERIFIED)
    stack.more_environment["SSL_CERT_FILE"] = str(foreign)
    with certificate_refused(stack.cluster.primary), stack.started("migrate") as migrate:
        assert not ends(migrate)
    stack.more_environment["SSL_CERT_FILE"] = str(trusted)
    assert said(stack, *ALL) == dict.fromkeys(ALL, "")
    stack.cluster.catch_up()
    with stack.permify(0, None) as permify:
        permify.write(stack.cluster)


@contextlib.contextmanager
def authentication(server: Server, method: str) -> Iterator[None]:
    """By another method than SCRAM."""
    file = server.folder / "pg_hba.conf"
    text = file.read_text()
    file.write_text(text.replace("scram-sha-256", method))
    server.sql("SELECT pg_reload_conf()")
    yield
    file.write_text(text)
    server.sql("SELECT pg_reload_conf()")


def test_without_a_ca_psql_knows_the_server_by_the_password(prepare: Callable[..., Stack]) -> None:
    """One that does not know it is refused, though it lets anybody in, and one without SCRAM, too."""
    stack = prepare(VERIFIED)
    waits, note = "wait-for-migration", "note"
    assert said(stack, note, waits) == {note: "", waits: ""}
    server = stack.cluster.primary
    with authentication(server, "trust"):
        for output in said(stack, note, waits).values():
            assert "channel binding required" in output
    server.sql(f"SET password_encryption = 'md5'; ALTER ROLE \"{stack.user}\" PASSWORD 'other'")
    stack.password = "other"
    with authentication(server, "md5"):
        for output in said(stack, note, waits).values():
            assert "channel binding" in output
    server.sql(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE \"{stack.user}\" PASSWORD 'third'")
    for output in said(stack, note, waits).values():
        assert "password authentication failed" in output


# OTLP


ENDPOINT = "otel-collector.observability:4317"
WITH_GRPC = "it needs ./dev --with grpcio --with opentelemetry-proto python -m pytest"


@dataclass
class Collected:
    port: int = 0
    metrics: set[str] = field(default_factory=set)
    spans: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)

    def add(self, resource: Any) -> None:
        names = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
        self.services.add(names["service.name"])


@pytest.fixture
def collector() -> Iterator[Collected]:
    """Takes OTLP over gRPC, as a collector does."""
    grpc = pytest.importorskip("grpc", reason=WITH_GRPC)
    messages, services = {}, {}
    for kind in ("metrics", "trace"):
        module = f"opentelemetry.proto.collector.{kind}.v1.{kind}_service_pb2"
        messages[kind] = pytest.importorskip(module, reason=WITH_GRPC)
        services[kind] = importlib.import_module(f"{module}_grpc")
    collected = Collected()

    class Metrics(services["metrics"].MetricsServiceServicer):  # type: ignore[name-defined,misc]
        def Export(self, request: Any, context: Any) -> Any:
            for each in request.resource_metrics:
                collected.add(each.resource)
                for scope in each.scope_metrics:
                    collected.metrics.update(metric.name for metric in scope.metrics)
            return messages["metrics"].ExportMetricsServiceResponse()

    class Traces(services["trace"].TraceServiceServicer):  # type: ignore[name-defined,misc]
        def Export(self, request: Any, context: Any) -> Any:
            for each in request.resource_spans:
                collected.add(each.resource)
                for scope in each.scope_spans:
                    collected.spans.update(span.name for span in scope.spans)
            return messages["trace"].ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    services["metrics"].add_MetricsServiceServicer_to_server(Metrics(), server)
    services["trace"].add_TraceServiceServicer_to_server(Traces(), server)
    collected.port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield collected
    server.stop(0).wait()


def test_metrics_and_traces_reach_a_collector(prepare: Callable[..., Stack], collector: Collected) -> None:
    stack = prepare({**DIRECT, "otlp_endpoint": ENDPOINT})
    stack.replaced[ENDPOINT] = f"{LOOPBACK}:{collector.port}"
    stack.migrate()
    stack.cluster.catch_up()
    with stack.permify(0, None) as permify:
        permify.write(stack.cluster)
        assert all(permify.check(check) == check.allowed for check in CHECKS)
        permify.process.wait_until(lambda: bool(collector.metrics and collector.spans), 40)
    print(collector)
    assert collector.services == {"permify"}


def test_permify_serves_without_its_collector(prepare: Callable[..., Stack]) -> None:
    stack = prepare({**DIRECT, "otlp_endpoint": ENDPOINT})
    stack.replaced[ENDPOINT] = f"{LOOPBACK}:{free_port()}"
    stack.migrate()
    stack.cluster.catch_up()
    with stack.permify(0, None) as permify:
        permify.write(stack.cluster)
        assert all(permify.check(check) == check.allowed for check in CHECKS)


# Shared caches


def test_distributed_checks_are_answered_by_peers(prepare: Callable[..., Stack], tmp_path: Path) -> None:
    """Each by the one that its key belongs to, whoever is asked."""
    stack = prepare({**DIRECT, "permify_max_connections": 4, "distributed": True})
    stack.migrate()
    stack.cluster.catch_up()
    with peers(tmp_path / "peers") as others, ExitStack() as exits:
        stack.replaced[IN_FILES] = others.uri
        permifys = [exits.enter_context(stack.permify(number, None)) for number in range(3)]
        for permify in permifys:
            others.start(permify)
        permifys[0].write(stack.cluster)
        assert all(permifys[0].check(check) == check.allowed for check in CHECKS)
        # Nobody but the first of them was asked by a client.
        for permify in permifys[1:]:
            answered = permify.process.log.read_text().count(
                "grpc.service=base.v1.Permission grpc.method=Check"
            )
            assert answered > len(CHECKS) / 10


# Rollouts


SIDE_BY_SIDE = 6
BRIEF = {"drain_seconds": 20}


def unreachable(stack: Stack) -> None:
    wrong_primary(stack, ExitStack())


def refused(stack: Stack) -> None:
    wrong_password(stack, ExitStack())


STARTUP_PROBE = r"^ +startupProbe:\n +exec:\n.*\n.*\n.*\n +failureThreshold:.*\n"
SHARED = {**DIRECT, **BRIEF, "permify_max_connections": 4, "distributed": True}
STOPPED = {
    "wrong password": Rollout({**STANDALONE, **BRIEF}, before=refused, stops=True),
    "wrong host, PgCat 1.3.0": Rollout(
        {**STANDALONE, **BRIEF}, pgcat="pgcat-1.3.0", before=unreachable, stops=True
    ),
    "wrong password, sidecar": Rollout({**SIDECAR, **BRIEF}, rolled="permify", before=refused, stops=True),
}


def brief_wait(folder: Path) -> None:
    """A pod stops 20 s after its deletion, as without peers."""
    manifest = folder / "kubernetes" / "permify-deployment.yaml"
    text = manifest.read_text()
    for wait, brief in ((r"preStop:\n +sleep:\n +seconds:", 20), (r"minReadySeconds:", 35)):
        text, count = re.subn(rf"({wait}) \d+", rf"\g<1> {brief}", text)
        assert count == 1
    manifest.write_text(text)


def new_password(stack: Stack) -> None:
    """As the runbook has it: the role's first, then the Secret's; then all pods are replaced."""
    stack.password = f"another {MARK} \\ 'password' 🐘"
    stack.bootstrap()
    (stack.secrets / "database_password").write_text(stack.password)
    stack.environment["PGPASSWORD"] = stack.password


def rotation(answers: dict[str, Any], rolled: str) -> Rollout:
    return Rollout({**answers, **BRIEF}, rolled=rolled, before=new_password, fill=False)


NO_REQUEST_FAILS = {
    "shared caches": Rollout(SHARED, rolled="permify", pause_seconds=0.1),
}
ROTATED = {
    "new password, standalone": rotation(STANDALONE, "both"),
    "new password, sidecar": rotation(SIDECAR, "permify"),
    "new password, direct": rotation({**DIRECT, "permify_max_connections": 4}, "permify"),
}
NO_PROBE = [without(STARTUP_PROBE), without(MIN_READY)]
BROKEN = {
    "wrong host, no probe": Rollout({**STANDALONE, **BRIEF}, before=unreachable, edits=NO_PROBE),
}
SOME_FAIL = {
    "shared caches, brief wait": Rollout(SHARED, rolled="permify", pause_seconds=0.1, edits=[brief_wait]),
}


REPEATED = {
    "shared caches",
    "wrong password, sidecar",
    "new password, sidecar",
    "new password, direct",
    "shared caches, brief wait",
}


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config) -> Iterator[Callable[[str], Seen]]:
    """All rollouts, under way."""
    require_programs()
    program("haproxy")
    every = {**NO_REQUEST_FAILS, **SOME_FAIL, **STOPPED, **BROKEN, **ROTATED}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        left_out = asked_for(pytestconfig, REPEATED)
        futures: dict[str, Future[Seen]] = {
            name: threads.submit(roll, each) for name, each in every.items() if name not in left_out
        }
        yield lambda name: futures[name].result()


@pytest.mark.parametrize("name", drawn(STOPPED, REPEATED))
def test_a_rollout_that_cannot_reach_postgresql_stops_at_its_first_pod(
    outcomes: Callable[[str], Seen], name: str
) -> None:
    seen = outcomes(name)
    assert seen.kept == seen.rules.replicas
    assert len(seen.load.requests()) > 200
    assert list(seen.load.errors()) == []
    assert seen.lost == set()


@pytest.mark.parametrize("name", BROKEN)
def test_without_the_probe_it_takes_the_service_down(outcomes: Callable[[str], Seen], name: str) -> None:
    seen = outcomes(name)
    assert seen.kept == 0
    last = max(request.began for request in seen.load.requests())
    written = seen.load.requests("write", last - 5) or seen.load.requests("write")[-1:]  # one may take longer
    assert written
    assert all(request.error for request in written)


@pytest.mark.parametrize("name", drawn(NO_REQUEST_FAILS, REPEATED))
def test_no_request_fails(outcomes: Callable[[str], Seen], name: str) -> None:
    seen = outcomes(name)
    assert seen.kept == 0
    assert len(seen.load.requests()) > 500
    assert list(seen.load.errors()) == []
    assert seen.lost == set()


@pytest.mark.parametrize("name", drawn(ROTATED, REPEATED))
def test_few_requests_fail_while_not_all_know_the_new_password(
    outcomes: Callable[[str], Seen], name: str
) -> None:
    """Those that need a new connection from a pod that has the old one: most often none but in standalone."""
    seen = outcomes(name)
    assert seen.kept == 0
    assert len(seen.load.failed()) < len(seen.load.requests()) / 10
    assert seen.lost == set()
    last = max(request.began for request in seen.load.requests())
    assert seen.load.failed(since=last - 5) == []


@pytest.mark.parametrize("name", drawn(SOME_FAIL, REPEATED))
def test_peers_ask_a_pod_that_stops_too_soon(outcomes: Callable[[str], Seen], name: str) -> None:
    """One that has just looked up its peers does not do so again for 30 s."""
    errors = "".join(outcomes(name).load.errors())
    assert "DeadlineExceeded" in errors
