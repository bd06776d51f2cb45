"""Docker deployments, started by `docker compose up --wait` as they were rendered."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compose_support import Stack, run, service_of, skip_without_docker, started

from rendering import render

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("compose")]

# What breaks quoting somewhere: in TOML, SQL, shell, awk, a password file, connection strings.
HOSTILE = {
    "database_password": r"""a'b"c\d$e:f`g`%h é漢😀 #&/|;${x}*?{}[]\n""" + "k" * 900,
    "pgcat_admin_password": r"""q"u\o$te'é:漢#""",
    "postgres_password": r"""p'g"\:$(id)é`""",
    "replication_password": r"""r:e\p'l"$i\\c:é %s &""",
}


@pytest.fixture(scope="module", autouse=True)
def _docker() -> None:
    skip_without_docker()


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The default answers, with passwords that are hard to write down."""
    folder = render(tmp_path_factory.mktemp("default") / "deploy")
    (folder / "secrets").mkdir()
    for name, password in HOSTILE.items():
        (folder / "secrets" / name).write_text(password + "\n")
        (folder / "secrets" / name).chmod(0o444)
    with started(folder) as stack:
        stack.permify().write_schema()
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

    def test_prometheus_scrapes_pgcat_and_loads_the_rules(self, default: Stack) -> None:
        default.up("prometheus")

        assert [group["name"] for group in default.prometheus("rules")["groups"]] == ["pgcat"]
        end = time.monotonic() + 40
        while [target["health"] for target in default.prometheus("targets")["activeTargets"]] != ["up"]:
            assert time.monotonic() < end, default.prometheus("targets")
            time.sleep(1)

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


def test_external_servers_without_pgcat(tmp_path: Path) -> None:
    """The servers of another deployment are the external ones, prepared by the command in bootstrap.sql."""
    servers = render(tmp_path / "servers")
    external = {
        "database": "external",
        "primary_host": "postgres-primary",
        "replica_hosts": "postgres-replica:5432",
        "database_name": "authz-prod",
        "database_user": "Permify-App",
        "database_tls": "disable",
    }
    folder = render(tmp_path / "deploy", pooling="direct", **external)
    with started(servers, services=("postgres-primary", "postgres-replica")) as server:
        network = f"{server.project}_default"
        Stack(folder)  # makes the password that the role is to have
        header = (folder / "postgres/bootstrap.sql").read_text()
        command = re.search(r"^--   (DATABASE_PASSWORD=.*)$", header, re.MULTILINE)
        assert command
        admin = f"--env=PGPASSWORD={(servers / 'secrets/postgres_password').read_text().strip()}"
        place = (f"--volume={folder}:/deploy:ro", "--workdir=/deploy")
        image = server.declared["services"]["postgres-primary"]["image"]
        script = command[1].replace("FILE", "secrets/database_password")
        for _ in range(2):
            server.docker_run(network, image, "bash", "-euc", script, options=(admin, *place))

        with started(folder, network=network) as stack:
            stack.permify().write_schema()
            stack.permify().write("1", "ada")

            assert stack.permify().comes_to_allow("1", "ada")
            assert 0 < server.sessions("postgres-primary", "Permify-App") <= 20
            assert 0 < server.sessions("postgres-replica", "Permify-App") <= 20


def test_three_replicas_in_session_mode(tmp_path: Path) -> None:
    with started(render(tmp_path / "deploy", pool_mode="session", permify_replicas=3)) as stack:
        replicas = [stack.permify(index) for index in (1, 2, 3)]
        assert len({replica.address for replica in replicas}) == 3
        replicas[0].write_schema()
        replicas[1].write("1", "ada")

        assert all(replica.comes_to_allow("1", "ada") for replica in replicas)
        assert all("SERVING" in stack.grpc_status(index) for index in (1, 2, 3))
        pinned = {row["database"]: int(row["sv_active"]) for row in stack.pgcat("SHOW POOLS")}
        assert pinned["permify_writer"] >= 3 and pinned["permify_reader"] >= 3
