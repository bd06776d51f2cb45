"""Alerts fire in a real Prometheus when real programs are driven into the condition, and resolve afterwards.

The rules are the rendered ones, with every minute a second long (a few where nothing is to fire, since a busy
machine may stand still for one): `for` and ranges alike, and scrapes 60 times as often. Thresholds stay, and
so do the programs' own times; bans alone end sooner. Hosts are loopback addresses, one for each server, since
labels tell servers by the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml

from live.failover import standby_next_time
from live.faults import Settings, wait_until, with_settings
from live.load import Load
from live.repeats import asked_for, drawn, repeats
from live.stack import MAX_CONNECTIONS, PgCat, Stack, pgcat_program, require_programs
from live.support import (
    KEY,
    Address,
    Cluster,
    Process,
    clean_environment,
    free_port,
    get,
    listens,
    postgres_cluster,
    program,
    run,
    running,
)

pytestmark = pytest.mark.timeout(300)

HOSTS = {"primary": "127.0.0.2", "replica": "127.0.0.3"}
SMALL = {"writer_pool_size": 2, "reader_pool_size": 2}
QUICK_BANS: Settings = {("general", "ban_time"): 2}
CALM_MINUTES = 6
CALM_MINUTE_SECONDS = 4
BY_PROBE = {
    "PermifyReadsFail",
    "PermifyWritesFail",
    "PermifyRequestsFlaky",
    "PermifySlow",
    "PermifyNotProbed",
}
NOT_ASKED = ("database", "locks", "roles", "stat_bgwriter", "stat_user_tables", "statio_user_tables", "wal")
"""Collectors of postgres_exporter that no alert needs; they take time."""


def installed(name: str) -> bool:
    """Whether a program that only some alerts need is there."""
    return shutil.which(os.environ.get(f"{name.upper()}_BIN", name)) is not None


def shortened(rules: str, minute_seconds: int) -> str:
    """The rules with every minute so long; at least four seconds where they ask the slow probe."""
    name = "  - name: pgcat\n"
    probe, found, others = rules.partition(name)
    # postgres_exporter is asked every two seconds, of which a rate needs several.
    inserted = re.compile(r"(pg_stat_database_tup_inserted\{[^}]*\})\[2s\]")
    here = _shortened(others, minute_seconds)
    return _shortened(probe, max(minute_seconds, 4)) + found + inserted.sub(r"\1[8s]", here)


def _shortened(rules: str, seconds: int) -> str:
    short = f"{seconds * 250}ms"  # of 15 s
    rules = re.sub(r"(?<=for: )(\d+)m\b", lambda m: f"{int(m[1]) * seconds}s", rules)
    rules = re.sub(r"(for|interval): (15|30)s", lambda m: f"{m[1]}: {short}", rules)
    return re.sub(
        r"\[(\d+)m(:15s)?\]", lambda m: f"[{int(m[1]) * seconds}s{f':{short}' if m[2] else ''}]", rules
    )


@dataclass
class Watched:
    """A deployment and the Prometheus that watches it."""

    cluster: Cluster
    stack: Stack
    pgcat: PgCat
    exits: contextlib.ExitStack
    prometheus: Process = field(init=False)
    port: int = field(init=False)
    permify_port: int = 0

    def watch(self, minute_seconds: int) -> None:
        folder = self.stack.folder / "prometheus"
        folder.mkdir()
        text = (self.stack.rendered / "monitoring" / "rules.yaml").read_text()
        rules = shortened(text, minute_seconds)
        for (host, port), (new_host, new_port) in self.stack.moved.values():
            rules = rules.replace(f"{host}:{port}", f"{new_host}:{new_port}").replace(host, new_host)
        (folder / "rules.yaml").write_text(rules)
        rendered = yaml.safe_load((self.stack.rendered / "monitoring" / "prometheus.yml").read_text())
        (job,) = [job for job in rendered["scrape_configs"] if job["job_name"] == "pgcat"]
        (probe,) = [job for job in rendered["scrape_configs"] if job["job_name"] == "probe"]
        targets = {"pgcat": [self.pgcat.exporter]}
        if self.asks_postgres:
            targets["postgres"] = [self._exporter(address) for _, address in self.stack.moved.values()]
        jobs = [
            {
                **job,
                "job_name": name,
                "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
            }
            for name, ports in targets.items()
        ]
        times = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
        for job in jobs:
            if job["job_name"] == "postgres":  # an exporter's answer takes longer
                job |= {"scrape_interval": "2s", "scrape_timeout": "2s"}
        if self.probes:
            jobs.append(self._probe(probe))
        config = {"global": times, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        command = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        command += ["--query.lookback-delta=5s", "--log.level=warn"]
        self.prometheus = self.exits.enter_context(running(command, folder / "log", clean_environment()))

        expected = sum(len(ports) for ports in targets.values()) + (2 if self.probes else 0)

        def begun() -> bool:
            """Every target answered; slow exporters may have let their server be missed until then."""
            with contextlib.suppress(OSError, AssertionError):  # it listens before it is ready
                return len(self._get("query?query=up%3D%3D1")["result"]) == expected and not self.firing
            return False

        self.prometheus.wait_until(begun)

    @property
    def asks_postgres(self) -> bool:
        """Whether there is a postgres_exporter; without it, alerts on PostgreSQL are left out."""
        return installed("postgres_exporter")

    @property
    def probes(self) -> bool:
        """Whether there is a blackbox_exporter, and a Permify to ask; else its alerts are left out."""
        return bool(self.permify_port) and installed("blackbox_exporter")

    def _probe(self, job: dict[str, Any]) -> dict[str, Any]:
        """The rendered job, asking this Permify by a blackbox_exporter with the rendered modules."""
        port = free_port()
        folder = self.stack.folder / "probe"
        folder.mkdir()
        (folder / "key").write_text(KEY)
        modules = (self.stack.rendered / "monitoring" / "blackbox.yml").read_text()
        (folder / "blackbox.yml").write_text(modules.replace("/run/probe/key", str(folder / "key")))
        command = [program("blackbox_exporter"), f"--config.file={folder / 'blackbox.yml'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--timeout-offset=0.1"]
        process = self.exits.enter_context(running(command, folder / "log", clean_environment()))
        process.wait_until(lambda: listens(port))
        text = json.dumps(job).replace("permify-probe:9115", f"127.0.0.1:{port}")
        here: dict[str, Any] = json.loads(
            text.replace("http://permify:3476", f"http://127.0.0.1:{self.permify_port}")
        )
        return {**here, "scrape_interval": "1s", "scrape_timeout": "1s"}

    def _exporter(self, address: Address) -> int:
        """A postgres_exporter, whose connection string names the server as the rules do."""
        port = free_port()
        environment = clean_environment(
            DATA_SOURCE_URI=f"{address[0]}:{address[1]}/postgres?sslmode=disable",
            DATA_SOURCE_USER="watcher",
            DATA_SOURCE_PASS="watcher",
        )
        command = [program("postgres_exporter"), f"--web.listen-address=127.0.0.1:{port}"]
        command += [f"--no-collector.{name}" for name in NOT_ASKED]
        log = self.stack.folder / f"exporter-{port}.log"
        process = self.exits.enter_context(running(command, log, environment))
        process.wait_until(lambda: listens(port))
        return port

    def _get(self, path: str) -> Any:
        answer = json.loads(get(self.port, f"/api/v1/{path}"))
        assert answer["status"] == "success"
        return answer["data"]

    @property
    def firing(self) -> set[str]:
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing" and self._judged(alert["labels"]["alertname"])
        }

    def _judged(self, name: str) -> bool:
        """Whether the programs are there that this alert needs; an alert on PgCat alone needs none."""
        if name in BY_PROBE:
            return self.probes
        return self.asks_postgres or not name.startswith("Postgres")

    def answers(self) -> bool:
        """Whether Prometheus has seen more queries than a PgCat that just started has answered."""
        expression = 'pgcat_stats_total_query_count{pool="permify_writer"} > 20'
        return bool(self._get(f"query?query={quote(expression)}")["result"])

    def fires(self, *names: str, within: float = 30.0) -> set[str]:
        """Waits until all of them fire; returns all that do then."""
        expected = set(filter(self._judged, names))
        if not wait_until(lambda: self.firing >= expected, within):
            raise TimeoutError(f"only {self.firing} fire, not all of {names}\n{self.told()}")
        return self.firing

    def resolves(self, *names: str, within: float = 40.0) -> None:
        if not wait_until(lambda: not self.firing & set(names), within):
            raise TimeoutError(f"{self.firing} still fire\n{self.told()}")

    def told(self) -> str:
        return get(self.pgcat.exporter, "/metrics") if listens(self.pgcat.exporter) else "no exporter"

    @contextlib.contextmanager
    def health_checks(self) -> Iterator[None]:
        """Each pool is asked all the time, as by the health check of compose.yaml."""
        done = threading.Event()

        def ask() -> None:
            while not done.wait(0.2):
                for pool in ("permify_writer", "permify_reader"):
                    with (
                        contextlib.suppress(psycopg.Error),
                        self.stack.connect(self.pgcat.port, pool, connect_timeout=2) as connection,
                    ):
                        connection.execute("SET statement_timeout = '2s'; SELECT 1")

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(10)

    def console(self, command: str) -> None:
        """In the admin database of PgCat."""
        password = (self.stack.secrets / "pgcat_admin_password").read_text().strip()
        psql = [program("psql"), "--no-psqlrc", "-h", "127.0.0.1", "-p", str(self.pgcat.port)]
        run(
            [*psql, "-U", "pgcat_admin", "-d", "pgcat", "-c", command], clean_environment(PGPASSWORD=password)
        )

    @contextlib.contextmanager
    def reader_database(self, name: str) -> Iterator[None]:
        """Another one for a while, in the file that PgCat reads again."""
        file = self.stack.folder / "pgcat-0" / "run" / "pgcat.toml"
        right = file.read_text()
        head, found, tail = right.partition("[pools.permify_reader")
        wrong = tail.replace(f'database = "{self.stack.database}"', f'database = "{name}"')
        assert wrong != tail
        try:
            self.reload(file, head + found + wrong)
            yield
        finally:
            self.reload(file, right)

    def reload(self, file: Path, text: str) -> None:
        """PgCat reads the file some time after the signal, so there is never half of it."""
        new = file.with_suffix(".new")
        new.write_text(text)
        new.replace(file)
        self.pgcat.process.popen.send_signal(signal.SIGHUP)

    def restart_pgcat(self) -> None:
        """As killed and started again by Compose, on the same ports."""
        self.pgcat.process.kill()
        self.pgcat.process.wait(5)
        self.pgcat = PgCat(self.pgcat.process.again(), self.pgcat.port, self.pgcat.exporter)
        self.exits.callback(self.pgcat.process.stop)
        self.pgcat.process.wait_until(lambda: listens(self.pgcat.port))

    @contextlib.contextmanager
    def clients(self, number: int, pool: str, seconds: float, pause_seconds: float = 0.0) -> Iterator[None]:
        """So many clients of PgCat, each with a statement that takes so long, over and over."""
        done = threading.Event()

        def client() -> None:
            while not done.is_set():
                with (
                    contextlib.suppress(psycopg.Error),
                    self.stack.connect(self.pgcat.port, pool) as connection,
                ):
                    while not done.is_set():
                        connection.execute("SELECT pg_sleep(%s)", [seconds])
                        done.wait(pause_seconds - time.monotonic() % pause_seconds if pause_seconds else 0)
                done.wait(0.1)

        threads = [threading.Thread(target=client, daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join(10)


_making = threading.Lock()


@contextlib.contextmanager
def watched(
    folder: Path,
    answers: Mapping[str, Any],
    pgcat: str = "pgcat",
    settings: Settings | None = None,
    with_permify: bool = True,
    minute_seconds: int = 1,
) -> Iterator[Watched]:
    """A deployment with one PgCat, and with a Permify under a light load."""
    folder.mkdir()
    with contextlib.ExitStack() as exits:
        with _making:
            listen = ",".join(["127.0.0.1", *HOSTS.values()])
            cluster = exits.enter_context(postgres_cluster(MAX_CONNECTIONS, {"listen_addresses": listen}))
        cluster.primary.sql("CREATE ROLE watcher LOGIN PASSWORD 'watcher'")
        cluster.primary.sql("GRANT pg_monitor TO watcher")
        by = {server.role: (HOSTS[server.role], server.port) for server in cluster.servers}
        image = {"pgcat_image": f"ghcr.io/postgresml/pgcat:{'a' * 40}"} if pgcat != "pgcat" else {}
        stack = Stack(
            cluster, {**answers, **image}, pgcat_program(pgcat), folder / "deployment", folder / "live", by
        )
        toml = stack.rendered / "pgcat" / "pgcat.toml"
        toml.write_text(with_settings(toml.read_text(), settings or {}))
        stack.reload()
        stack.prepare()
        here = Watched(cluster, stack, exits.enter_context(stack.pgcat()), exits)
        exits.enter_context(here.health_checks())
        if with_permify:
            permify = exits.enter_context(stack.permify(0, here.pgcat.port))
            permify.write(cluster)
            here.permify_port = permify.port
            exits.enter_context(Load([permify.port], checkers=3, writers=1, pause_seconds=0.1))
        here.watch(minute_seconds)
        yield here


def calm(folder: Path) -> dict[str, set[str]]:
    """Nothing happens, under load."""
    fired = set[str]()
    with watched(folder, SMALL, settings=QUICK_BANS, minute_seconds=CALM_MINUTE_SECONDS) as here:
        end = time.monotonic() + CALM_MINUTES * CALM_MINUTE_SECONDS
        while time.monotonic() < end:
            fired |= here.firing
            time.sleep(0.2)
    return {"calm": fired}


def exhausted(folder: Path) -> dict[str, set[str]]:
    """Four times as many clients as the reader pool has connections."""
    seen = {}
    with watched(folder, SMALL, settings=QUICK_BANS) as here:
        with here.clients(16, "permify_reader", 0.6):
            seen["exhausted"] = here.fires("PgcatClientsWait", "PgcatWaitTooLong", "PgcatPoolBusy")
        here.resolves("PgcatClientsWait", "PgcatWaitTooLong", "PgcatPoolBusy")
    return seen


def servers_lost(folder: Path, pgcat: str) -> dict[str, set[str]]:
    """The replica goes and comes back; logins are refused for a while; the primary is a standby for a
    while; then the replica is promoted."""
    seen = {}
    takes_standbys: Settings = {**QUICK_BANS, ("pools.permify_writer.plugins.prewarmer", "enabled"): False}
    with watched(folder, {}, pgcat, takes_standbys) as here:
        primary, replica = here.cluster.servers
        replica.stop()
        seen["replica lost"] = here.fires(
            "PgcatReadsOnPrimary", "PostgresAbsent", "PostgresReplicaNotStreaming"
        )
        replica.start()
        here.resolves("PgcatReadsOnPrimary", "PostgresAbsent", "PostgresReplicaNotStreaming")

        user = here.stack.user
        secret = primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", user)[0][0]
        primary.sql(f"ALTER ROLE {user} PASSWORD 'another'")
        primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user)
        seen["logins refused"] = here.fires("PgcatNoServer")
        primary.sql(f"ALTER ROLE {user} PASSWORD '{secret}'")
        here.resolves("PgcatNoServer")

        with contextlib.ExitStack() as taken:
            for _ in range(21):
                connect = psycopg.connect(
                    host=HOSTS["primary"],
                    port=primary.port,
                    user="watcher",
                    password="watcher",
                    dbname="postgres",
                )
                taken.enter_context(connect)
            seen["others"] = here.fires("PostgresOtherConnections")
        here.resolves("PostgresOtherConnections")

        primary.stop()
        standby_next_time(primary)
        primary.start()
        seen["read-only"] = here.fires("PostgresStoresNothing")
        assert primary.sql("SELECT pg_promote()") == [(True,)]
        here.resolves("PostgresStoresNothing", "PostgresRoleChanged")

        replica.sql("SELECT pg_promote()")
        seen["promoted"] = here.fires("PostgresRoleChanged")
    return seen


def connect_spikes(folder: Path, pgcat: str) -> dict[str, set[str]]:
    """Both causes, one after the other, with a pool that was made larger by hand; then PgCat restarts twice.

    The clients stand for Permify's connections: all in use, or in bursts with rests longer than idle_timeout.
    """
    larger: Settings = {
        **QUICK_BANS,
        ("pools.permify_reader.users.0", "pool_size"): 20,
        ("pools.permify_reader.users.0", "idle_timeout"): 200,
    }
    seen = {}
    with watched(folder, SMALL, pgcat, larger, with_permify=False) as here:
        with here.clients(16, "permify_reader", 0.5):
            seen["all in use"] = here.fires("PermifyPoolExhausted", "PgcatConnectionsAbovePlan")
        here.resolves("PermifyPoolExhausted", "PgcatConnectionsAbovePlan")
        with here.clients(12, "permify_reader", 0.05, pause_seconds=0.8):
            seen["cold"] = here.fires("PgcatConnectionChurn", within=45)

        with here.clients(2, "permify_writer", 0.05):
            here.pgcat.process.kill()
            seen["killed"] = here.fires("PgcatAbsent")
            here.restart_pgcat()
            here.resolves("PgcatAbsent")
            # A restart shows when a scrape finds less than the one before it: on a busy machine not always.
            for _ in range(6):
                assert wait_until(here.answers, 20)
                time.sleep(1)
                here.restart_pgcat()
                if wait_until(lambda: "PgcatRestarted" in here.firing, 5):
                    break
            seen["restarted"] = here.fires("PgcatRestarted")
        here.resolves("PgcatConnectionChurn")
    return seen


def nothing_waits(folder: Path) -> dict[str, set[str]]:
    """Outages in which no client waits: a paused PgCat, a pool without its database, a primary that takes no
    writes, a lock, slow statements."""
    seen = {}
    with watched(folder, {}, settings=QUICK_BANS) as here:
        primary = here.cluster.primary
        requests = ("PermifyReadsFail", "PermifyWritesFail")
        here.console("PAUSE")
        seen["paused"] = here.fires("PgcatPoolSilent", *requests)
        here.console("RESUME")
        here.resolves("PgcatPoolSilent", *requests)

        with here.reader_database("missing"):
            seen["no database"] = here.fires("PgcatPoolSilent", "PermifyReadsFail")
        here.resolves("PgcatPoolSilent", "PermifyReadsFail")

        primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        primary.sql("SELECT pg_reload_conf()")
        seen["read-only"] = here.fires("PostgresReadOnly", "PermifyWritesFail")
        primary.sql("SET default_transaction_read_only = off")
        primary.sql("ALTER SYSTEM RESET default_transaction_read_only")
        primary.sql("SELECT pg_reload_conf()")
        here.resolves("PostgresReadOnly", "PermifyWritesFail")

        with (
            psycopg.connect(
                host=str(primary.folder), port=primary.port, user="postgres", dbname=here.stack.database
            ) as lock,
            Load([here.permify_port], checkers=0, writers=9),
        ):
            lock.execute("LOCK TABLE relation_tuples IN SHARE MODE")
            seen["locked"] = here.fires("PgcatQueriesHang", "PermifyWritesFail")
            lock.rollback()
        here.resolves("PgcatQueriesHang", "PermifyWritesFail")

        with here.clients(16, "permify_reader", 1):
            seen["slow"] = here.fires("PgcatQueriesSlow")
    return seen


SITES: dict[str, Callable[[Path], dict[str, set[str]]]] = {
    "calm": calm,
    "exhausted": exhausted,
    "nothing waits": nothing_waits,
    "servers lost": lambda folder: servers_lost(folder, "pgcat"),
    "servers lost, PgCat 1.3.0": lambda folder: servers_lost(folder, "pgcat-1.3.0"),
    "connect spikes": lambda folder: connect_spikes(folder, "pgcat-1.3.0"),
}


SIDE_BY_SIDE = 2
"""Of the sites, for a minute is a second here, and a program that gets no core stands still for one."""
REPEATED = {"nothing waits", "servers lost", "servers lost, PgCat 1.3.0", "connect spikes"}
"""They take minutes, and an idle machine: where PgCat stands still, alerts fire that are not to."""


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[dict[str, Future[dict[str, set[str]]]]]:
    """What fired at each site."""
    require_programs()
    program("prometheus")
    root = tmp_path_factory.mktemp("alerts")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {
            name: pool.submit(visit, root / str(number))
            for number, (name, visit) in enumerate(SITES.items())
            if name not in asked_for(pytestconfig, REPEATED)
        }


Sites = dict[str, "Future[dict[str, set[str]]]"]


def test_a_healthy_stack_under_load_fires_nothing(sites: Sites) -> None:
    assert sites["calm"].result()["calm"] == set()


@repeats
def test_outages_in_which_nobody_waits(sites: Sites) -> None:
    seen = sites["nothing waits"].result()
    assert not seen["paused"] & {"PgcatAbsent", "PostgresReadOnly", "PgcatQueriesHang"}
    assert not seen["no database"] & {"PermifyWritesFail", "PgcatAbsent"}
    assert not seen["read-only"] & {"PermifyReadsFail", "PgcatPoolSilent", "PostgresRoleChanged"}
    assert not seen["locked"] & {"PermifyReadsFail", "PgcatPoolSilent", "PostgresReadOnly"}


def test_an_exhausted_pool(sites: Sites) -> None:
    fired = sites["exhausted"].result()["exhausted"]
    assert "PgcatNoServer" not in fired


@pytest.mark.parametrize("site", drawn(["servers lost", "servers lost, PgCat 1.3.0"], REPEATED))
def test_a_lost_replica_refused_logins_and_a_failover(sites: Sites, site: str) -> None:
    seen = sites[site].result()
    assert not seen["replica lost"] & {"PgcatNoServer", "PgcatWaitTooLong", "PostgresRoleChanged"}
    assert not seen["others"] & {"PgcatNoServer", "PgcatConnectionsAbovePlan"}
    assert not seen["read-only"] & {"PgcatNoServer"}


@repeats
def test_the_two_causes_of_connect_spikes_are_told_apart(sites: Sites) -> None:
    seen = sites["connect spikes"].result()
    assert "PgcatConnectionChurn" not in seen["all in use"]
    assert "PermifyPoolExhausted" not in seen["cold"]


@repeats
def test_a_pgcat_that_ends_and_comes_back(sites: Sites) -> None:
    seen = sites["connect spikes"].result()
    assert "PgcatRestarted" not in seen["killed"]
