"""Docker deployments, started by `docker compose up --wait` as rendered, changed and hurt under load.

What runs is whatever image has the official name on the machine. One that was assembled from the same
programs does not prove the official one: its entrypoint, its user, its libraries. The workflow pulls those.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import socket
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.compose_support import (
    GRAFANA_PORT,
    UP,
    Stack,
    remove_leftovers,
    run,
    service_of,
    skip_without_docker,
    started,
)
from live.load import Load
from live.updating import Template
from pgcat_stack.secrets import read_keys
from rendering import REPOSITORY, render
from runbook import SYMPTOMS, statements

# What breaks quoting somewhere: in TOML, SQL, shell, awk, a password file, connection strings.
HOSTILE = {
    "database_password": r"""a'b"c\d$e:f`g`%h é漢😀 #&/|;${x}*?{}[]\n""" + "k" * 900,
    "pgcat_admin_password": r"""q"u\o$te'é:漢#""",
    "postgres_password": r"""p'g"\:$(id)é`""",
    "replication_password": r"""r:e\p'l"$i\\c:é %s &""",
}


# Outages at most: four times what the rendered README says, on a machine that is busy with other things.
RESTART_SECONDS = 4 * 2.0
UP_SECONDS = 4 * 10.0
AT_ONCE = 16
"""Requests that may fail as a replica is lost: six clients, two pools, and another try of each."""


def wait_until(so: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def pgcat_socket(stack: Stack) -> socket.socket:
    """A connection to PgCat's container that has said nothing yet."""
    networks = stack.service("pgcat")["NetworkSettings"]["Networks"]
    return socket.create_connection((networks[stack.network_name]["IPAddress"], 6432), 10)


def under_load(stack: Stack, change: Callable[[], Any], outage_seconds: float, **options: Any) -> Load:
    """What a load saw of a change: answers before and after, nothing lost that was acknowledged."""
    stack.wait_until_it_answers()
    with stack.load(checkers=4, **options) as load:
        time.sleep(1)
        began = time.monotonic()
        change()
        stack.wait_until_it_answers()
        ended = time.monotonic() + 1
        time.sleep(2)
    for kind in ("check", "write"):
        before = [request for request in load.requests(kind) if request.began + request.seconds < began]
        after = load.requests(kind, since=ended)
        assert before and after
        assert not [request for request in before + after if request.error], list(load.errors())
        assert load.outage_seconds(kind) < outage_seconds, list(load.errors())
    # A wrong answer is no outage.
    assert not [error for error in load.errors() if "CHECK_RESULT" in error]
    assert load.acknowledged and stack.lost(load) == set()
    return load


@pytest.fixture(scope="module", autouse=True)
def _docker() -> None:
    skip_without_docker()
    remove_leftovers()


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The default answers, with passwords that are hard to write down."""
    folder = render(tmp_path_factory.mktemp("default") / "deploy")
    (folder / "secrets").mkdir()
    for name, password in HOSTILE.items():
        (folder / "secrets" / name).write_text(password + "\n")
        (folder / "secrets" / name).chmod(0o444)
    with started(folder) as stack:
        stack.prepare()
        stack.permify().write("1", "ada")
        yield stack


class TestDefault:
    """One deployment for all of these, in this order: the later ones stop parts of it."""

    def test_runs_every_service_and_finishes_the_two_that_end(self, default: Stack) -> None:
        states = {service_of(c): (c["State"]["Status"], c["State"]["ExitCode"]) for c in default.containers()}

        assert states == {
            "postgres-primary": ("running", 0),
            "postgres-replica": ("running", 0),
            "bootstrap": ("exited", 0),
            "migrate": ("exited", 0),
            "pgcat": ("running", 0),
            "permify": ("running", 0),
        }

    def test_starts_in_the_order_in_which_one_needs_the_other(self, default: Stack) -> None:
        started = {service_of(c): c["State"]["StartedAt"] for c in default.containers()}
        order = sorted(started, key=started.__getitem__)

        order.remove("postgres-replica")
        assert order == ["postgres-primary", "bootstrap", "migrate", "pgcat", "permify"]
        assert started["postgres-primary"] < started["postgres-replica"] < started["pgcat"]

    def test_the_role_has_the_limit_of_the_budget_and_its_plan_mode(self, default: Stack) -> None:
        role = "SELECT rolconnlimit, rolsuper, rolconfig FROM pg_roles WHERE rolname = 'permify'"

        assert default.sql("postgres-primary", role) == [["80", "f", "{plan_cache_mode=force_custom_plan}"]]

    def test_the_replica_streams(self, default: Stack) -> None:
        assert default.sql("postgres-primary", "SELECT state FROM pg_stat_replication") == [["streaming"]]

    def test_answers_over_grpc(self, default: Stack) -> None:
        assert "SERVING" in default.grpc_status()

    def test_allows_what_was_written_and_nothing_else(self, default: Stack) -> None:
        assert default.permify().comes_to_allow("1", "ada")
        assert not default.permify().allows("1", "bob")

    def test_reads_use_the_reader_pool_on_both_servers(self, default: Stack) -> None:
        before = default.queries()
        permify = default.permify()
        with ThreadPoolExecutor(8) as clients:
            assert not any(clients.map(lambda i: permify.allows("1", f"nobody-{i}"), range(80)))
        more = {server: count - before[server] for server, count in default.queries().items()}

        assert more["permify_reader_shard_0_replica_0"] > 0
        assert more["permify_reader_shard_0_replica_1"] > 0
        assert sum(count for server, count in more.items() if "reader" in server) >= 80

    def test_writes_use_the_writer_pool(self, default: Stack) -> None:
        before = default.queries()["permify_writer_shard_0_primary"]
        permify = default.permify()
        for index in range(5):
            permify.write(f"written-{index}", "ada")

        assert default.queries()["permify_writer_shard_0_primary"] >= before + 5

    def test_server_connections_stay_within_the_pools(self, default: Stack) -> None:
        pools = tomllib.loads((default.folder / "pgcat/pgcat.toml").read_text())["pools"]
        writer, reader = (pools[f"permify_{use}"]["users"]["0"]["pool_size"] for use in ("writer", "reader"))
        permify = default.permify()
        with ThreadPoolExecutor(32) as clients:
            asked = clients.map(lambda i: permify.allows("1", f"somebody-{i}"), range(2000))
            on_primary = default.sessions("postgres-primary", "permify")
            on_replica = default.sessions("postgres-replica", "permify")
            assert not any(asked)

        assert 0 < on_primary <= writer + reader
        assert 0 < on_replica <= reader

    def test_every_container_is_confined(self, default: Stack) -> None:
        for container in default.containers():
            host = container["HostConfig"]
            assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", container["Config"]["User"])
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
            assert "no-new-privileges:true" in host["SecurityOpt"]

    def test_only_permify_has_ports_and_only_where_asked(self, default: Stack) -> None:
        bound = {
            (service_of(container), port, binding["HostIp"])
            for container in default.containers()
            for port, bindings in container["HostConfig"]["PortBindings"].items()
            for binding in bindings
        }

        assert bound == {("permify", port, default.address) for port in ("3476/tcp", "3478/tcp")}

    def test_every_container_has_bounds(self, default: Stack) -> None:
        for container in default.containers():
            host = container["HostConfig"]
            assert host["LogConfig"] == {
                "Type": "json-file",
                "Config": {"max-size": "10m", "max-file": "5"},
            }
            assert host["Memory"] >= 128 * 2**20, service_of(container)
            assert not container["State"]["OOMKilled"]

    def test_both_programs_may_open_as_many_files_as_docker_allows(self, default: Stack) -> None:
        image = default.declared["services"]["postgres-primary"]["image"]
        for name in ("pgcat", "permify"):
            of = f"/proc/{default.service(name)['State']['Pid']}/limits"
            options = ("--pid=host", "--user=0", "--cap-add=SYS_PTRACE")
            text = default.docker_run("none", image, "cat", of, options=options)
            found = re.search(r"(?m)^Max open files +(\d+) +(\d+)", text)
            assert found, text
            soft, hard = map(int, found.groups())
            assert soft >= hard - 1 >= 4096 - 1, name  # Go stays one below

    def test_ports_are_on_loopback_when_nothing_is_asked(self, default: Stack) -> None:
        command = ("docker", "compose", "--profile", "*", "config", "--format", "json")
        services = json.loads(run(*command, cwd=default.folder))["services"].values()

        assert {port["host_ip"] for service in services for port in service.get("ports", [])} == {"127.0.0.1"}

    def test_no_password_shows_in_logs_or_in_inspect(self, default: Stack) -> None:
        shown = default.logs() + json.dumps(default.containers(), ensure_ascii=False)

        for password in HOSTILE.values():
            for spelling in (password, json.dumps(password, ensure_ascii=False)[1:-1], password[-12:]):
                assert spelling not in shown

    def test_up_again_changes_nothing(self, default: Stack) -> None:
        def running() -> dict[str, str]:
            return {c["Id"]: c["State"]["StartedAt"] for c in default.containers() if c["State"]["Running"]}

        before = running()
        default.up()

        assert running() == before
        migrations = "SELECT count(*), count(DISTINCT version_id) FROM migrations"
        [[applied, distinct]] = default.sql("postgres-primary", migrations, database="permify")
        assert applied == distinct

    def test_a_second_up_leaves_role_and_database_as_they_were(self, default: Stack) -> None:
        def described() -> list[list[list[str]]]:
            role = "SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = 'permify'"
            database = "SELECT oid, datacl FROM pg_database WHERE datname = 'permify'"
            tables = "SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            return [
                default.sql("postgres-primary", role),
                default.sql("postgres-primary", database),
                default.sql("postgres-primary", tables, database="permify"),
            ]

        before = described()
        default.up()

        assert described() == before
        for one in ("bootstrap", "migrate"):
            assert default.service(one)["State"]["ExitCode"] == 0

    def test_the_functions_of_the_runbook_answer(self, default: Stack) -> None:
        functions = default.runbook("In your shell")
        asked = statements((default.folder / "README.md").read_text())
        assert {function for function, _ in asked} == {"ask_pgcat", "ask_primary", "ask_replicas"}
        for function, statement in sorted(asked):
            statement = statement.replace("PID", "0").replace("HOST", "postgres-replica")
            # These are refused where all is well.
            if not re.search("wal_replay_resume|pg_promote|TABLE NAME", statement):
                default.follow(f'{functions}\n{function} "{statement}"')
        default.follow(f"{functions}\nask_permify | grep -q tenants")
        default.follow(f"{functions}\ncomplaints")

    def test_the_commands_of_each_symptom_run(self, default: Stack) -> None:
        functions = default.runbook("In your shell")
        command = f'pgcat-stack() {{ {sys.executable} -m pgcat_stack.cli "$@"; }}'
        sources = f"export PYTHONPATH={REPOSITORY / 'src'}"
        for title in SYMPTOMS:
            default.follow("\n".join([sources, command, functions, default.runbook(title)]))

    def test_up_does_not_see_an_edited_file_but_a_restart_reads_it(self, default: Stack) -> None:
        path = default.folder / "pgcat/pgcat.toml"
        edited = path.with_suffix(".new")
        edited.write_text(path.read_text().replace("pool_size = 20", "pool_size = 7"))
        edited.replace(path)  # as many editors do, so that the mounted file is another one
        before = default.service("pgcat")["Id"]
        default.up()

        assert default.service("pgcat")["Id"] == before
        assert default.pool_sizes() == {20}
        under_load(default, lambda: default.follow(default.runbook("Restart")), RESTART_SECONDS)
        assert default.service("pgcat")["Id"] == before
        assert default.pool_sizes() == {7}

    def test_a_recreated_pgcat_is_a_short_outage(self, default: Stack) -> None:
        change = ("--force-recreate", "--no-deps", "pgcat")
        before = default.service("pgcat")["Id"]
        load = under_load(default, lambda: default.compose(*UP, *change), RESTART_SECONDS)

        assert default.service("pgcat")["Id"] != before
        assert load.failed(), "its clients are cut off, or the outage in the documents is none"

    def test_a_killed_pgcat_comes_back_by_itself(self, default: Stack) -> None:
        before = default.service("pgcat")

        def kill() -> None:
            # `docker kill` counts as stopped on purpose, and process 1 hears no SIGKILL from beside it.
            image = default.declared["services"]["postgres-primary"]["image"]
            command = ("sh", "-c", f"kill -KILL {before['State']['Pid']}")
            default.docker_run("none", image, *command, options=("--pid=host", "--user=0"))
            wait_until(
                lambda: default.service("pgcat")["RestartCount"] > before["RestartCount"], "another PgCat"
            )

        load = under_load(default, kill, RESTART_SECONDS)
        after = default.service("pgcat")

        assert load.failed(), "its clients are cut off"
        assert after["Id"] == before["Id"]
        assert after["RestartCount"] == before["RestartCount"] + 1

    def test_a_client_that_announces_too_much_restarts_pgcat_and_nothing_else(self, default: Stack) -> None:
        """PgCat takes the memory that a client announces before it has logged in, up to its limit."""
        before = {service_of(c): c["RestartCount"] for c in default.containers()}

        def announce() -> None:
            with contextlib.suppress(ConnectionError), pgcat_socket(default) as client:
                client.sendall(bytes.fromhex("7fffffff"))
                for _ in range(1000):
                    client.sendall(bytes(1_000_000))
            wait_until(lambda: default.service("pgcat")["RestartCount"] > before["pgcat"], "a restart")

        under_load(default, announce, RESTART_SECONDS)
        after = {service_of(c): c["RestartCount"] for c in default.containers()}
        assert after == {**before, "pgcat": before["pgcat"] + 1}

    def test_a_pgcat_that_cannot_accept_fills_no_disk(self, default: Stack) -> None:
        """The storm of its log is rotated, and `docker compose logs` still reads it."""
        few = ("  pgcat:", "    ulimits: {nofile: {soft: 256, hard: 256}}")
        default.override_ports(*few)
        try:
            default.up()
            assert "only 256 files may be open" in default.logs("pgcat")
            log = Path(default.service("pgcat")["LogPath"])
            if not os.access(log.parent, os.R_OK | os.X_OK):
                pytest.skip("only root sees the logs of Docker")

            def sizes() -> list[int]:
                return [file.stat().st_size for file in log.parent.glob(f"{log.name}*")]

            with contextlib.ExitStack() as clients:
                for _ in range(300):
                    clients.enter_context(pgcat_socket(default))
                wait_until(lambda: len(sizes()) == 5, "a log that is rotated four times", 120)
                time.sleep(5)
                assert len(sizes()) == 5 and sum(sizes()) < 60e6
                assert "Too many open files" in default.compose("logs", "--tail", "5", "pgcat")
        finally:
            default.override_ports()
            default.up()
        assert default.permify().comes_to_allow("1", "ada")

    def test_a_rotated_password_is_the_only_one(self, default: Stack) -> None:
        under_load(default, lambda: default.follow(default.runbook("Rotate the password")), RESTART_SECONDS)

        assert (default.folder / "secrets/database_password").read_text() != HOSTILE[
            "database_password"
        ] + "\n"
        for name, accepted in (("database_password", True), ("postgres_password", False)):
            assert default.logs_in((default.folder / "secrets" / name).read_text().strip()) is accepted
        assert not default.logs_in(HOSTILE["database_password"])

    def test_asks_for_the_key_that_inspect_shows(self, default: Stack) -> None:
        """As the page says: the one secret that a container has in its environment."""
        assert f"PERMIFY_AUTHN_PRESHARED_KEYS={default.key}" in default.service("permify")["Config"]["Env"]
        assert default.key not in default.logs()
        stranger = {"Origin": "https://evil.example"}
        for key, expected in (("", 500), ("another", 401), (default.key, 200)):
            sent = stranger | ({"Authorization": f"Bearer {key}"} if key else {})
            url = f"http://{default.address}:3476/v1/tenants/list"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, b"{}", sent), timeout=15) as answer:
                    status, headers = answer.status, answer.headers
            except urllib.error.HTTPError as error:
                status, headers = error.code, error.headers
            assert status == expected
            assert "Access-Control-Allow-Origin" not in headers

    def test_keys_are_rotated_by_the_page(self, default: Stack) -> None:
        old = default.key
        under_load(default, lambda: default.follow(default.runbook("Rotate the keys")), RESTART_SECONDS)
        assert default.key == old
        _, new = read_keys(default.folder / "secrets/permify.env")
        for key in (old, new):
            replace(default.permify(), key=key).write("rotated", "somebody")
        step = default.runbook("Rotate the keys", 1)
        under_load(default, lambda: default.follow(step), RESTART_SECONDS, key=new)
        assert default.key == new
        with pytest.raises(urllib.error.HTTPError, match="401"):
            replace(default.permify(), key=old).write("rotated", "nobody")

    def test_a_restarted_replica_slows_reads_at_most(self, default: Stack) -> None:
        load = under_load(default, lambda: default.compose("restart", "postgres-replica"), 5)

        assert len(load.failed()) <= AT_ONCE, list(load.errors())
        assert default.sql("postgres-primary", "SELECT state FROM pg_stat_replication") == [["streaming"]]

    def test_a_restarted_primary_loses_nothing(self, default: Stack) -> None:
        before = default.sql("postgres-primary", "SELECT pg_postmaster_start_time()")
        # What it says is kept must be kept by a crash, too.
        under_load(
            default, lambda: default.compose("restart", "--timeout", "0", "postgres-primary"), UP_SECONDS
        )

        assert default.sql("postgres-primary", "SELECT pg_postmaster_start_time()") != before

    def test_scaled_by_hand_stops_at_the_published_port(self, default: Stack) -> None:
        with pytest.raises(AssertionError, match="port is already allocated"):
            default.compose(*UP, "--no-deps", "--scale", "permify=2", "permify")

        assert default.permify().comes_to_allow("1", "ada")
        default.up()
        assert len([c for c in default.containers() if service_of(c) == "permify"]) == 1

    def test_scaled_by_hand_without_ports_shares_the_pools(self, default: Stack) -> None:
        """Behind transaction pooling more Permify processes cost PostgreSQL nothing."""
        with default.unpublished():
            default.compose(*UP, "--scale", "permify=4", "permify")
            permifys = default.permifys_inside()
            assert len(permifys) == 4
            pools = tomllib.loads((default.folder / "pgcat/pgcat.toml").read_text())["pools"]
            sizes = sum(pools[f"permify_{use}"]["users"]["0"]["pool_size"] for use in ("writer", "reader"))
            with ThreadPoolExecutor(16) as clients:
                asked = [clients.submit(permifys[i % 4].allows, "1", f"anybody-{i}") for i in range(1200)]
                sessions = [default.sessions("postgres-primary", "permify")]
                while not all(one.done() for one in asked):
                    sessions.append(default.sessions("postgres-primary", "permify"))
                assert not any(one.result() for one in asked)
            assert 0 < max(sessions) <= sizes
        default.up()

    def test_prometheus_scrapes_pgcat_and_both_servers(self, default: Stack) -> None:
        watching = ("prometheus", "postgres-exporter-primary", "postgres-exporter-replica")
        default.require_images(*watching)
        default.up(*watching)

        assert [group["name"] for group in default.prometheus("rules")["groups"]] == ["pgcat", "postgres"]
        wait_until_scraped(default, {"pgcat": 1, "postgres": 2})
        seen = default.prometheus("query?query=pg_up")["result"]
        assert {series["metric"]["instance"]: series["value"][1] for series in seen} == {
            "postgres-primary": "1",
            "postgres-replica": "1",
        }

    def test_an_idle_pgcat_stops_at_once_and_cleanly(self, default: Stack) -> None:
        before = time.monotonic()
        default.compose("stop", "pgcat")

        assert time.monotonic() - before < 5
        assert default.service("pgcat")["State"]["ExitCode"] == 0
        assert "Got SIGINT" in default.logs("pgcat")
        default.up()
        assert default.permify().comes_to_allow("1", "ada")

    def test_a_replica_that_lost_its_data_amid_a_copy_comes_back(self, default: Stack) -> None:
        default.compose("rm", "--stop", "--force", "postgres-replica")
        lose = 'rm -rf "$PGDATA" && mkdir -p "$PGDATA.incoming/base"'
        default.compose("run", "--rm", "--no-deps", "--entrypoint", "sh", "postgres-replica", "-c", lose)
        default.up()

        assert default.sql("postgres-primary", "SELECT state FROM pg_stat_replication") == [["streaming"]]

    def test_data_outlives_down_and_a_smaller_budget(self, default: Stack) -> None:
        default.compose("--profile", "*", "down")
        compose_yaml = default.folder / "compose.yaml"
        compose_yaml.write_text(compose_yaml.read_text().replace("max_connections=100", "max_connections=90"))
        default.up()

        assert default.sql("postgres-primary", "SHOW max_connections") == [["90"]]
        assert default.sql("postgres-primary", "SELECT state FROM pg_stat_replication") == [["streaming"]]
        assert default.permify().comes_to_allow("1", "ada")


def wait_until_scraped(stack: Stack, targets: dict[str, int]) -> None:
    """Until Prometheus has reached so many targets of each job, and has no others."""
    end = time.monotonic() + 60
    while True:
        found = stack.prometheus("targets")["activeTargets"]
        up = [target["labels"]["job"] for target in found if target["health"] == "up"]
        if len(found) == len(up) and {job: up.count(job) for job in set(up)} == targets:
            return
        assert time.monotonic() < end, found
        time.sleep(1)


def test_the_profile_brings_all_that_watches(tmp_path: Path) -> None:
    """By the one command of the README; Grafana among it, so this runs where its image is."""
    with started(render(tmp_path / "deploy", {"advanced": True, "otlp_endpoint": "collector:4317"})) as stack:
        watching = [name for name, service in stack.declared["services"].items() if "profiles" in service]
        stack.require_images(*watching)
        stack.compose("--profile", "monitoring", *UP)
        wait_until_scraped(stack, {"pgcat": 1, "postgres": 2, "permify": 1})
        address = f"http://{stack.address}:{GRAFANA_PORT}/api/dashboards/uid/pgcat-stack"
        with urllib.request.urlopen(address, timeout=15) as answer:
            shown = json.load(answer)["dashboard"]
        rendered = json.loads((stack.folder / "monitoring/dashboard.json").read_text())
        assert [panel["title"] for panel in shown["panels"]] == [p["title"] for p in rendered["panels"]]


EXTERNAL = {
    "database": "external",
    "primary_host": "postgres-primary",
    "database_name": "authz-prod",
    "database_user": "Permify-App",
    "database_tls": "disable",
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The servers of another deployment, which are the external ones."""
    folder = render(tmp_path_factory.mktemp("servers") / "deploy")
    with started(folder, services=("postgres-primary", "postgres-replica")) as stack:
        yield stack


def bootstrap(folder: Path, servers: Stack) -> None:
    """The command that bootstrap.sql names, as an administrator of the servers runs it; twice is harmless."""
    header = (folder / "postgres/bootstrap.sql").read_text()
    command = re.search(r"^--   (DATABASE_PASSWORD=.*)$", header, re.MULTILINE)
    assert command
    admin = f"--env=PGPASSWORD={(servers.folder / 'secrets/postgres_password').read_text().strip()}"
    place = (f"--volume={folder}:/deploy:ro", "--workdir=/deploy")
    image = servers.declared["services"]["postgres-primary"]["image"]
    script = command[1].replace("FILE", "secrets/database_password")
    for _ in range(2):
        servers.docker_run(servers.network_name, image, "bash", "-euc", script, options=(admin, *place))


TRANSACTION: dict[str, Any] = {}
SESSION = {"advanced": True, "pool_mode": "session"}
REPLICA = "postgres-replica:5432"
NO_CONNECTION = "Could not get connection from pool"
"""What PgCat's log says of a client for which its pool has no server connection."""


@pytest.mark.parametrize(
    ("pooling", "replica_hosts"),
    [
        pytest.param({"pooling": "direct"}, REPLICA, id="direct, replica"),
        pytest.param(TRANSACTION, REPLICA, id="transaction, replica"),
        pytest.param(TRANSACTION, "", id="transaction, no replica"),
        pytest.param(SESSION, REPLICA, id="session, replica"),
        pytest.param(SESSION, "", id="session, no replica"),
    ],
)
def test_external_servers(
    servers: Stack, tmp_path: Path, pooling: dict[str, Any], replica_hosts: str
) -> None:
    folder = render(tmp_path / "deploy", **EXTERNAL, **pooling, replica_hosts=replica_hosts)
    with started(folder, network=servers.network_name, before=lambda: bootstrap(folder, servers)) as stack:
        stack.prepare(servers)
        stack.permify().write("1", "ada")

        assert stack.permify().comes_to_allow("1", "ada")
        limit = servers.sql(
            "postgres-primary", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'Permify-App'"
        )
        assert limit == [["80"]]
        assert 0 < servers.sessions("postgres-primary", "Permify-App") <= 40
        assert (servers.sessions("postgres-replica", "Permify-App") > 0) == bool(replica_hosts)
        if pooling == TRANSACTION:
            stack.compose("down")
            stack.up()
            assert stack.permify().comes_to_allow("1", "ada")


def test_three_replicas_in_session_mode(tmp_path: Path) -> None:
    """And seven by hand, two more than the pools have connections for."""
    answers = {"advanced": True, "pool_mode": "session", "writer_pool_size": 5, "reader_pool_size": 5}
    with started(render(tmp_path / "deploy", **answers, permify_replicas=3)) as stack:
        replicas = [stack.permify(index) for index in (1, 2, 3)]
        assert len({replica.address for replica in replicas}) == 3
        stack.prepare()
        replicas[1].write("1", "ada")

        assert all(replica.comes_to_allow("1", "ada") for replica in replicas)
        assert all("SERVING" in stack.grpc_status(index) for index in (1, 2, 3))
        pinned = {row["database"]: int(row["sv_active"]) for row in stack.pgcat("SHOW POOLS")}
        assert pinned["permify_writer"] >= 3 and pinned["permify_reader"] >= 3

        refused = stack.logs("pgcat").count(NO_CONNECTION)
        with stack.unpublished():
            stack.compose("up", "--detach", "--no-deps", "--scale", "permify=7", "permify")
            wait_until(lambda: len(stack.serving()) >= 5, "as many as the pools have connections for")
            wait_until(lambda: stack.logs("pgcat").count(NO_CONNECTION) > refused, "one is refused")
            assert len(serving := stack.serving()) == 5
            assert all(permify.comes_to_allow("1", "ada") for permify in serving)
            assert stack.sessions("postgres-primary", "permify") <= 10


def test_changed_answers_recreate_what_they_change(tmp_path: Path) -> None:
    """By `up` alone, and no more than that; then direct processes by hand, beyond what the role may have."""
    small = {"pooling": "direct", "postgres_max_connections": 30, "other_connections": 18}
    with started(render(tmp_path / "deploy", **small)) as stack:
        stack.prepare()
        (address,) = stack.ports
        before = {service_of(c): c["Id"] for c in stack.containers()}
        shutil.copytree(
            render(tmp_path / "three", **small, permify_replicas=3), stack.folder, dirs_exist_ok=True
        )
        assert len(stack.declared["services"]["permify"]["ports"]) == 2
        with stack.load(checkers=4) as load:
            time.sleep(1)
            stack.up()
        assert load.acknowledged and stack.lost(load) == set()
        assert load.outage_seconds("check") < UP_SECONDS
        after = {service_of(c): c["Id"] for c in stack.containers() if service_of(c) != "permify"}
        assert after.items() <= before.items()
        assert sorted(stack.ports) == [13476, 13477, 13478] and address == 3476
        under_load(stack, lambda: time.sleep(1), 5)
        with stack.unpublished():
            stack.compose("up", "--detach", "--no-deps", "--scale", "permify=6", "permify")
            wait_until(lambda: len(stack.permifys_inside()) == 6 and bool(stack.serving()), "six processes")
            with ThreadPoolExecutor(32) as clients:
                permifys = stack.permifys_inside()
                asked = [
                    clients.submit(permifys[i % len(permifys)].allows, "1", f"anybody-{i}")
                    for i in range(600)
                ]
                most = max(stack.sessions("postgres-primary", "permify") for _ in range(5))
                refused = [one for one in asked if one.exception()]
            assert most <= 12
            assert len(refused) < len(asked), "those that have connections answer"
            assert "too many connections for role" in stack.logs("permify", "postgres-primary")
        stack.up()
        under_load(stack, lambda: time.sleep(1), 5)


def test_a_deployment_moves_to_pgcat_and_back(tmp_path: Path) -> None:
    """By `copier update` and `up`: same volumes, same passwords, and no acknowledged write is lost."""
    (tmp_path / "home").mkdir()
    template = Template(tmp_path / "home")
    folder = template.copy(tmp_path / "deploy", ["pooling=direct"])
    edited = folder / "permify/permify.yaml"
    edited.write_text(edited.read_text().replace("level: info", "level: warn"))
    template.commit(folder)
    password = (folder / "secrets/database_password").read_text()
    (folder / ".git/info/exclude").write_text("compose.test.yaml\n")
    with started(folder) as stack:
        stack.prepare()
        stack.permify().write("1", "ada")
        names = {yaml.safe_load((folder / "compose.yaml").read_text())["name"]}
        for pooling, title in (
            ("pgcat", "Move to PgCat"),
            ("direct", "Move to direct pooling, without PgCat"),
        ):
            runbook = stack.runbook(title)
            template.update(folder, [f"pooling={pooling}"])
            stack.override_ports()
            names.add(stack.declared["name"])
            running = {service_of(c): c["Id"] for c in stack.containers()}
            under_load(stack, functools.partial(stack.follow, runbook), RESTART_SECONDS)
            now = {service_of(c): c["Id"] for c in stack.containers()}

            assert ("pgcat" in now) is (pooling == "pgcat")
            for server in ("postgres-primary", "postgres-replica"):
                assert now[server] == running[server]
            assert stack.permify().comes_to_allow("1", "ada")
            assert "level: warn" in edited.read_text()
            assert (folder / "secrets/database_password").read_text() == password
            assert stack.sessions("postgres-primary", "permify") <= 80
        # Compose finds containers and volumes by this name: with another one the data would seem gone.
        assert len(names) == 1
