"""What stands in the rendered files, where a rule of the contract can be read off directly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import draws
from rendering import combinations, render

STANDALONE = {"topology": "standalone", "primary_host": "db"}
DEPRECATED = ("max_open_connections", "max_idle_connections", "MAX_OPEN_CONNECTIONS", "MAX_IDLE_CONNECTIONS")


def pgcat(deploy: Path) -> dict[str, Any]:
    return tomllib.loads((deploy / "pgcat" / "pgcat.toml").read_text())


def permify(deploy: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((deploy / "permify" / "permify.yaml").read_text())
    return configuration


def manifest(deploy: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((deploy / "kubernetes" / f"{name}.yaml").read_text())
    return loaded


def sizes(deploy: Path) -> tuple[int, int]:
    pools = pgcat(deploy)["pools"]
    writer, reader = (pools[name]["users"]["0"]["pool_size"] for name in ("permify_writer", "permify_reader"))
    return writer, reader


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # 100 − 20 = 80 connections, (2 + 2) × (writer + reader) + 3: the sum is at most 19.
        ({**STANDALONE, "replica_hosts": "r"}, (9, 10)),
        (STANDALONE, (9, 10)),
        ({**STANDALONE, "replica_hosts": "r", "primary_reads": False}, (19, 20)),
        ({**STANDALONE, "postgres_max_connections": 1000}, (20, 20)),
        ({**STANDALONE, "writer_pool_size": 4}, (4, 15)),
        ({**STANDALONE, "reader_pool_size": 4}, (15, 4)),
        ({**STANDALONE, "postgres_max_connections": 31}, (1, 1)),
        ({**STANDALONE, "pool_mode": "session", "permify_replicas": 7}, (9, 10)),
        # Session mode with more processes than 20 takes what they pin.
        (
            {
                **STANDALONE,
                "pool_mode": "session",
                "permify_replicas": 30,
                "postgres_max_connections": 400,
                "replica_hosts": "r1,r2",
            },
            (32, 20),
        ),
        ({"topology": "sidecar", "primary_host": "db", "permify_replicas": 5}, (5, 6)),
        ({"topology": "sidecar", "primary_host": "db", "permify_max_replicas": 5}, (4, 5)),
        ({}, (20, 20)),
    ],
)
def test_derived_pool_sizes(answers: dict[str, Any], expected: tuple[int, int], tmp_path: Path) -> None:
    assert sizes(render(tmp_path / "deploy", answers)) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (STANDALONE, 8),
        ({**STANDALONE, "pool_mode": "session"}, 1),
        ({**STANDALONE, "pool_mode": "session", "watch": True}, 2),
        ({**STANDALONE, "pooling": "direct"}, 9),
        ({**STANDALONE, "pooling": "direct", "replica_hosts": "r"}, 19),
        ({**STANDALONE, "pooling": "direct", "postgres_max_connections": 1000}, 20),
        ({**STANDALONE, "permify_max_connections": 3}, 3),
    ],
)
def test_derived_connections_of_permify(answers: dict[str, Any], expected: int, tmp_path: Path) -> None:
    assert permify(render(tmp_path / "deploy", answers))["database"]["max_connections"] == expected


def test_pools_and_their_servers(tmp_path: Path) -> None:
    def servers(name: str, **answers: Any) -> tuple[Any, Any]:
        pools = pgcat(render(tmp_path / name, STANDALONE, **answers))["pools"]
        assert [name for name, pool in pools.items() if pool["query_parser_enabled"]] == ["permify_writer"]
        assert "pg_is_in_recovery()" in pools["permify_writer"]["plugins"]["prewarmer"]["queries"][0]
        return tuple(pools[f"permify_{side}"]["shards"]["0"]["servers"] for side in ("writer", "reader"))  # type: ignore[return-value]

    primary = ["db", 5432, "primary"]
    assert servers("none") == ([primary], [primary])
    assert servers("one", replica_hosts="r:5433") == (
        [primary],
        [["r", 5433, "replica"], ["db", 5432, "replica"]],
    )
    assert servers("off", replica_hosts="r", primary_reads=False) == ([primary], [["r", 5432, "replica"]])


@pytest.mark.parametrize("drain", [20, 25, 60, 61, 300, 3600])
def test_drain_contract(drain: int, tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", STANDALONE, drain_seconds=drain)
    database = permify(deploy)["database"]
    moving = sum(
        int(database[key].removesuffix("s"))
        for key in ("max_connection_lifetime", "max_connection_lifetime_jitter", "health_check_period")
    )
    assert moving <= drain - 10
    spec = manifest(deploy, "pgcat-deployment")["spec"]
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == drain
    assert drain + 10 < pod["terminationGracePeriodSeconds"] <= spec["minReadySeconds"]
    assert spec["minReadySeconds"] < spec["progressDeadlineSeconds"]
    if drain == 60:
        assert database["max_connection_lifetime"] == "30s"
        assert pod["terminationGracePeriodSeconds"] == 75


@pytest.mark.parametrize(("pooling", "expected"), [("pgcat", "6s"), ("direct", "10s")])
def test_permify_waits_longer_for_postgresql_than_for_pgcat(
    pooling: str, expected: str, tmp_path: Path
) -> None:
    deploy = render(tmp_path / "manifests", {**STANDALONE, "pooling": pooling})
    assert permify(deploy)["database"]["connect_timeout"] == expected
    helm = render(tmp_path / "helm", {**STANDALONE, "pooling": pooling, "permify_install": "helm"})
    values = yaml.safe_load((helm / "permify" / "values.yaml").read_text())
    environment = {variable["name"]: variable.get("value") for variable in values["extraEnvVars"]}
    assert environment["PERMIFY_DATABASE_CONNECT_TIMEOUT"] == expected


def test_nothing_renders_deprecated_keys_or_passwords(tmp_path: Path) -> None:
    for number, answers in enumerate(combinations()[:: 7 if draws.every else 31]):
        deploy = render(tmp_path / str(number), answers)
        for path in filter(Path.is_file, deploy.rglob("*")):
            text = path.read_text()
            assert not any(key in text for key in DEPRECATED), path
            assert not re.search(r"://[^/@\s:]+:[^@\s]+@", text), path
        shutil.rmtree(deploy)


@pytest.mark.parametrize("program", ["permify", "pgcat"])
def test_an_autoscaler_leaves_the_replicas_alone(program: str, tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", STANDALONE, **{f"{program}_max_replicas": 5})
    assert "replicas" not in manifest(deploy, f"{program}-deployment")["spec"]
    other = {"permify": "pgcat", "pgcat": "permify"}[program]
    assert manifest(deploy, f"{other}-deployment")["spec"]["replicas"] == 2
    assert not (deploy / "kubernetes" / f"{other}-autoscaler.yaml").exists()
    scaler = manifest(deploy, f"{program}-autoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    assert scaler["scaleTargetRef"]["name"] == program
    grace = manifest(deploy, f"{program}-deployment")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert scaler["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": grace}
    ]


def test_bootstrap_limits_the_role_to_the_capacity(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", STANDALONE, postgres_max_connections=300, other_connections=3)
    assert "CONNECTION LIMIT 297" in (deploy / "postgres" / "bootstrap.sql").read_text()


def test_the_migration_is_another_job_for_another_image_or_database(tmp_path: Path) -> None:
    names = [
        manifest(render(tmp_path / str(number), STANDALONE, **answers), "migration-job")["metadata"]["name"]
        for number, answers in enumerate(
            [{}, {"primary_host": "other"}, {"permify_image": "r.io/permify:v1.7.3"}, {"permify_replicas": 3}]
        )
    ]
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]
    assert all(name.startswith("permify-migrate-v1-7-3-") and len(name) <= 63 for name in names)


def test_several_permify_share_no_port(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", permify_replicas=4)
    ports = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["permify"]["ports"]
    ranges = [re.search(r":(\d+)-(\d+):", port) for port in ports]
    assert [int(found[2]) - int(found[1]) + 1 for found in ranges if found] == [4, 4]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not on PATH")
@pytest.mark.parametrize("topology", ["standalone", "sidecar"])
def test_kustomize_builds_and_a_change_rolls_the_pods(topology: str, tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", topology=topology, primary_host="db", permify_max_replicas=4)

    def built() -> list[dict[str, Any]]:
        run = subprocess.run(
            ["kubectl", "kustomize", str(deploy)], capture_output=True, text=True, check=True
        )
        return list(yaml.safe_load_all(run.stdout))

    def mounted(objects: list[dict[str, Any]]) -> set[str]:
        return {
            volume["configMap"]["name"]
            for found in objects
            if found["kind"] == "Deployment"
            for volume in found["spec"]["template"]["spec"]["volumes"]
            if "configMap" in volume
        }

    before = built()
    assert {found["metadata"].get("namespace") for found in before if found["kind"] != "Namespace"} == {
        "permify"
    }
    names = {found["metadata"]["name"] for found in before if found["kind"] == "ConfigMap"}
    assert mounted(before) == names
    toml = deploy / "pgcat" / "pgcat.toml"
    toml.write_text(toml.read_text().replace("ban_time = 60", "ban_time = 61"))
    assert mounted(built()) != names


@pytest.mark.parametrize("pooling", ["pgcat", "direct"])
def test_the_move_copies_the_network_policy_as_it_is(pooling: str, tmp_path: Path) -> None:
    """The old one under another name, by the very command of the runbook, from what an API server returns."""
    deploy = render(tmp_path / "deploy", STANDALONE, pooling=pooling)
    rendered = (deploy / "kubernetes" / "network-policies.yaml").read_text()
    (policy,) = (each for each in yaml.safe_load_all(rendered) if each["metadata"]["name"] == "permify")
    readme = (deploy / "README.md").read_text()
    (command,) = set(re.findall(r"^  (sed -E .*) \|$", readme, re.MULTILINE))
    assert "copy_policy permify moving &&\n" in readme
    # Names and labels like those that the command looks for, where it must leave them alone.
    policy["spec"]["podSelector"]["matchLabels"] |= {"name": "permify", "uid": "1", "generation": "1"}
    returned = {
        **policy,
        "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(policy) + "\n"},
            "creationTimestamp": "2025-11-20T08:15:30Z",
            "generation": 3,
            "labels": {"name": "permify"},
            "name": "permify",
            "namespace": "permify",
            "resourceVersion": "812345",
            "uid": "6f1c2f7e-0d5e-4f6e-9c1b-0d3a5e8f7a61",
        },
    }
    done = subprocess.run(
        ["sh", "-c", command, "copy_policy", "permify", "moving"],
        input=yaml.safe_dump(returned, width=1_000_000),
        capture_output=True,
        text=True,
        check=True,
    )

    created = yaml.safe_load(done.stdout)
    assert created["metadata"].pop("name") == "permify-moving"
    assert created["metadata"].keys() == {"annotations", "labels", "namespace"}
    assert {**created, "metadata": None} == {**returned, "metadata": None}
    assert re.search(r" delete .*networkpolicy/permify-moving\b", readme)


IPV6 = {"primary_host": "FD00:0::10", "replica_hosts": "[fd00::11]:5433"}


@pytest.mark.parametrize(
    ("answers", "host"),
    [
        ({}, "0.0.0.0"),
        ({"ip_family": "ipv6"}, "[::]"),
        ({**STANDALONE, **IPV6}, "0.0.0.0"),
        ({**STANDALONE, "ip_family": "ipv6"}, "[::]"),
        ({**STANDALONE, "topology": "sidecar", "ip_family": "ipv6"}, "[::]"),
        # Every pod has the loopback address of IPv4.
        ({**STANDALONE, "topology": "sidecar", "ip_family": "ipv6", "monitoring": "none"}, "127.0.0.1"),
    ],
)
def test_pgcat_listens_as_answered(tmp_path: Path, answers: dict[str, Any], host: str) -> None:
    assert pgcat(render(tmp_path / "deploy", answers))["general"]["host"] == host


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({}, False),
        ({"ip_family": "ipv6"}, True),
        ({"database": "external", **IPV6}, True),
        ({"database": "external", "primary_host": "db", "otlp_endpoint": "[fd00::5]:4317"}, True),
        ({"database": "external", "primary_host": "db", "pooling": "direct", "ip_family": "ipv6"}, False),
    ],
)
def test_containers_have_ipv6_where_something_needs_it(
    tmp_path: Path, answers: dict[str, Any], wanted: bool
) -> None:
    compose = yaml.safe_load((render(tmp_path / "deploy", answers) / "compose.yaml").read_text())
    assert compose.get("networks") == ({"default": {"enable_ipv6": True}} if wanted else None)


def test_addresses_of_ipv6_stand_as_each_file_takes_them(tmp_path: Path) -> None:
    more = {"replica_hosts": "[fd00::11]:5433,10.0.0.7", "otlp_endpoint": "[FD00::5]:4317", "runbook_url": ""}
    deploy = render(tmp_path / "deploy", STANDALONE, **{**IPV6, **more, "postgres_metrics": True})
    pools = pgcat(deploy)["pools"]
    assert pools["permify_writer"]["shards"]["0"]["servers"] == [["fd00::10", 5432, "primary"]]
    assert pools["permify_reader"]["shards"]["0"]["servers"] == [
        ["fd00::11", 5433, "replica"],
        ["10.0.0.7", 5432, "replica"],
        ["fd00::10", 5432, "replica"],
    ]
    assert permify(deploy)["meter"]["endpoint"] == "[fd00::5]:4317"
    budget = yaml.safe_load((deploy / "budget.yaml").read_text())
    assert [server["host"] for server in budget["servers"]] == ["fd00::10", "fd00::11", "10.0.0.7"]
    job = (deploy / "kubernetes/migration-job.yaml").read_text()
    assert "--database-uri=postgresql://permify@[fd00::10]:5432/permify?" in job
    policies = (deploy / "kubernetes/network-policies.yaml").read_text()
    blocks = re.findall(r'cidr: "(.*)"', policies)
    assert set(blocks) == {"169.254.20.10/32", "fd00::5/128", "fd00::10/128", "fd00::11/128", "10.0.0.7/32"}
    assert "psql -X -h fd00::10 -p 5432 " in (deploy / "postgres/bootstrap.sql").read_text()
    # postgres_exporter writes the host of its connection string without brackets.
    assert 'server="fd00::10:5432"' in (deploy / "monitoring/rules.yaml").read_text()


@pytest.mark.parametrize(
    ("replicas", "named"),
    [
        ("", "@[fd00::10]:5432/permify?"),
        ("[fd00::11]:5433", "@[fd00::11]:5433/permify?"),
        ("r1,r2:5433", "@r1:5432,r2:5433/permify?"),
        ("db-2,[fd00::11]:5433", "@/permify?host=db-2,fd00::11&port=5432,5433&"),
    ],
)
def test_readers_in_one_uri(tmp_path: Path, replicas: str, named: str) -> None:
    """Go, which Permify is written in, reads no list of hosts with IPv6 in brackets."""
    deploy = render(
        tmp_path / "deploy", STANDALONE, **{**IPV6, "replica_hosts": replicas, "pooling": "direct"}
    )
    assert named in permify(deploy)["database"]["reader"]["uri"]


FOLLOWS = {"dns_cache_enabled", "dns_max_ttl", "server_round_robin"}
EXTERNAL = {"topology": "docker", "database": "external"}


@pytest.mark.parametrize(
    ("answers", "follows", "lifetime_seconds"),
    [
        ({**STANDALONE, "replica_hosts": "r"}, True, 300),
        ({"topology": "sidecar", "primary_host": "db.example.com:5433"}, True, 300),
        ({**EXTERNAL, "primary_host": "db"}, True, 300),
        ({**STANDALONE, "primary_host": "192.0.2.1", "replica_hosts": "192.0.2.2:5433"}, False, 300),
        ({**STANDALONE, "primary_host": "2001:db8::1", "replica_hosts": "[2001:db8::2]:5433"}, False, 300),
        ({**STANDALONE, "primary_host": "192.0.2.1", "replica_hosts": "2001:db8::2,r"}, True, 300),
        ({}, False, 3600),
    ],
)
def test_names_are_followed(
    answers: dict[str, Any], follows: bool, lifetime_seconds: int, tmp_path: Path
) -> None:
    """Whether an address stays is for nobody to know, so what is not bundled has the shorter lifetime."""
    general = pgcat(render(tmp_path / "deploy", answers))["general"]
    assert FOLLOWS & general.keys() == (FOLLOWS if follows else set())
    assert general["server_lifetime"] == 1000 * lifetime_seconds
    if follows:
        assert general["dns_cache_enabled"] is general["server_round_robin"] is True


@pytest.mark.parametrize("topology", ["sidecar", "docker"])
def test_in_session_mode_permify_lets_go_of_a_server_within_a_minute(topology: str, tmp_path: Path) -> None:
    """PgCat drops a connection whose name has moved when its client leaves."""
    answers = {"topology": topology, "database": "external", "primary_host": "db", "pool_mode": "session"}
    database = permify(render(tmp_path / "deploy", answers))["database"]
    times = ("max_connection_lifetime", "max_connection_lifetime_jitter", "health_check_period")
    assert sum(int(database[name].removesuffix("s")) for name in times) <= 50


@pytest.mark.parametrize(
    "answers",
    [
        {**STANDALONE, "replica_hosts": "r", "pooling": "direct"},
        {**STANDALONE, "pooling": "direct"},
        {**STANDALONE, "primary_host": "192.0.2.1", "pooling": "direct"},
        {**EXTERNAL, "primary_host": "db", "pooling": "direct"},
    ],
)
def test_only_the_direct_writer_asks_for_a_primary(answers: dict[str, Any], tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", answers)
    database = permify(deploy)["database"]
    assert database["writer"]["uri"].endswith("&target_session_attrs=read-write")
    assert "target_session_attrs" not in database["reader"]["uri"]
    found = [
        path.name for path in deploy.rglob("*") if path.is_file() and "session_attrs" in path.read_text()
    ]
    assert found == ["permify.yaml"]


@pytest.mark.parametrize("answers", [{"pooling": "direct"}, STANDALONE])
def test_nobody_else_asks_for_a_primary(answers: dict[str, Any], tmp_path: Path) -> None:
    assert "session_attrs" not in (render(tmp_path / "deploy", answers) / "permify/permify.yaml").read_text()


@pytest.mark.parametrize(
    "answers",
    [
        {"otlp_endpoint": "collector:4317", "advanced": True},
        {"pooling": "direct"},
        {"database": "external", "primary_host": "db", "monitoring": "none"},
    ],
    ids=["everything", "direct", "external"],
)
def test_every_service_of_compose_rotates_its_log_and_has_a_memory_limit(
    answers: dict[str, Any], tmp_path: Path
) -> None:
    services = yaml.safe_load((render(tmp_path / "deploy", answers) / "compose.yaml").read_text())["services"]
    assert {"migrate", "permify"} <= services.keys()
    for name, service in services.items():
        rotation = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
        assert service["logging"] == rotation, name
        assert re.fullmatch(r"[1-9]\d*[mg]", service["mem_limit"]), name


@pytest.mark.parametrize(
    ("answers", "service", "limit"),
    [
        ({}, "pgcat", "256m"),
        ({"pgcat_memory": "300Mi"}, "pgcat", "300m"),
        ({"pgcat_memory": "1G"}, "pgcat", "1g"),
        ({}, "permify", "512m"),
        ({"pooling": "direct", "permify_memory": "2Gi"}, "permify", "2g"),
        ({}, "postgres-primary", "1512m"),
        ({"postgres_max_connections": 400}, "postgres-replica", "4512m"),
    ],
)
def test_memory_limits_of_compose_follow_the_answers(
    answers: dict[str, Any], service: str, limit: str, tmp_path: Path
) -> None:
    deploy = render(tmp_path / "deploy", answers)
    assert yaml.safe_load((deploy / "compose.yaml").read_text())["services"][service]["mem_limit"] == limit


REFERENCE = {"secretKeyRef": {"name": "permify-authn", "key": "keys"}}
KEYS = "PERMIFY_AUTHN_PRESHARED_KEYS"


@pytest.mark.parametrize("more", [{}, {"topology": "sidecar"}, {"pooling": "direct"}])
def test_callers_send_a_key_unless_told_otherwise(more: dict[str, Any], tmp_path: Path) -> None:
    for name, authn, expected in (("new", {}, True), ("none", {"authn": "none"}, False)):
        deploy = render(tmp_path / name, {**STANDALONE, **more, **authn})
        config = permify(deploy)
        asks = {"enabled": True, "method": "preshared"} if expected else None
        assert config.get("authn") == asks, "and no key in the file"
        origins = config["server"]["http"].get("cors_allowed_origins")
        assert origins == (["https://none.invalid"] if expected else None)
        (container,) = manifest(deploy, "permify-deployment")["spec"]["template"]["spec"]["containers"]
        variables = {each["name"]: each.get("valueFrom") for each in container["env"]}
        assert variables.get(KEYS) == (REFERENCE if expected else None)


def test_the_chart_gets_keys_and_origins_by_variables(tmp_path: Path) -> None:
    def values(name: str, **answers: Any) -> tuple[Any, dict[str, Any]]:
        deploy = render(tmp_path / name, {**STANDALONE, "permify_install": "helm", **answers})
        found = yaml.safe_load((deploy / "permify" / "values.yaml").read_text())
        variables = {each["name"]: each.get("valueFrom", each.get("value")) for each in found["extraEnvVars"]}
        return found["app"].get("authn"), variables

    origins = "PERMIFY_HTTP_CORS_ALLOWED_ORIGINS"
    authn, variables = values("new")
    assert authn == {"enabled": True, "method": "preshared"}
    assert variables[KEYS] == REFERENCE and variables[origins] == "https://none.invalid"
    authn, variables = values("none", authn="none")
    assert authn is None and not {KEYS, origins} & variables.keys()
    _, variables = values("star", cors_allowed_origins="*")
    assert variables[origins] == "*", "which the chart itself would not quote"
    _, variables = values("two", authn="none", cors_allowed_origins="https://a.b, http://[::1]:3000")
    assert variables[origins] == "https://a.b,http://[::1]:3000"


def test_compose_gets_the_keys_by_an_environment_file(tmp_path: Path) -> None:
    def service(name: str, **answers: Any) -> dict[str, Any]:
        loaded = yaml.safe_load((render(tmp_path / name, **answers) / "compose.yaml").read_text())
        found: dict[str, Any] = loaded["services"]["permify"]
        return found

    assert service("new")["env_file"] == ["./secrets/permify.env"]
    assert "env_file" not in service("none", authn="none")
    text = (tmp_path / "none" / "compose.yaml").read_text()
    assert re.search(
        r"PERMIFY_BIND=0.0.0.0. Permify asks for no key: anyone who reaches it may also write", text
    )
    assert "asks for no key" not in (tmp_path / "new" / "compose.yaml").read_text()


def test_external_secrets_fetch_the_keys(tmp_path: Path) -> None:
    def fetched(name: str, **answers: Any) -> dict[str, str]:
        deploy = render(tmp_path / name, {**STANDALONE, "secrets": "external-secrets", **answers})
        loaded = yaml.safe_load_all((deploy / "kubernetes" / "external-secrets.yaml").read_text())
        return {
            each["metadata"]["name"]: each["spec"]["target"]["template"]["data"].popitem()[1]
            for each in loaded
            if each["spec"]["data"][0]["remoteRef"]["key"] == f"permify/{each['metadata']['name']}"
        }

    password, keys = "{{ .password | trim }}", "{{ .keys | trim }}"
    of_database = {"permify-database": password, "pgcat-admin": password}
    assert fetched("new") == {**of_database, "permify-authn": keys}
    assert fetched("none", authn="none") == of_database
    pod = manifest(tmp_path / "new", "permify-deployment")
    reloaded = pod["metadata"]["annotations"]["secret.reloader.stakater.com/reload"]
    assert "permify-authn" in reloaded.split(",")
