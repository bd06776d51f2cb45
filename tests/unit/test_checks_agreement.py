"""Each check of the agreement between files on a rendered deployment with one disagreement in it."""

from __future__ import annotations

import json

import pytest

from cases import DIRECT, DOCKER, ELSEWHERE, HELM, SESSION, SIDECAR, STANDALONE, codes, edit, one, rendered

FAMILIES = ("PS4", "PS61", "PS7", "PS8", "PS9")
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
VALUES = "permify/values.yaml"
COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
BOOTSTRAP = "postgres/bootstrap.sql"
PROMETHEUS = "monitoring/prometheus.yml"
RULES = "monitoring/rules.yaml"
PROMETHEUS_RULE = "kubernetes/prometheus-rule.yaml"
PGCAT_POD = "kubernetes/pgcat-deployment.yaml"
PGCAT_SERVICE = "kubernetes/pgcat-service.yaml"
PERMIFY_POD = "kubernetes/permify-deployment.yaml"
COLLECTOR = "monitoring/collector.yaml"
PERMIFY_SERVICE = "kubernetes/permify-service.yaml"
MIGRATION = "kubernetes/migration-job.yaml"
POLICIES = "kubernetes/network-policies.yaml"
POD_MONITOR = "kubernetes/pod-monitor.yaml"
PROBE_POD = "kubernetes/permify-probe-deployment.yaml"
PROBE_SERVICE = "kubernetes/permify-probe-service.yaml"
BLACKBOX = "monitoring/blackbox.yml"
EXTERNAL = "kubernetes/external-secrets.yaml"

AUTOSCALED = {**STANDALONE, "permify_max_replicas": 5}
NO_REPLICA = {"topology": "standalone", "primary_host": "10.0.0.1"}
OPERATOR = {**STANDALONE, "monitoring": "prometheus-operator", "secrets": "external-secrets"}
PUSHING = {**DOCKER, "advanced": True, "otlp_endpoint": "collector:4317"}
PROBED = {**STANDALONE, "monitoring": "prometheus-operator", "probe": True}
KEYLESS = {**DOCKER, "authn": "none", "cors_allowed_origins": "https://app.example.com"}
UNRELEASED = {**DOCKER, "pgcat_image": f"ghcr.io/postgresml/pgcat:{'a' * 40}"}
DIRECT_DOCKER = {**DOCKER, "pooling": "direct"}
SILENT_SIDECAR = {**SIDECAR, "monitoring": "none", "permify_max_replicas": 4}
ALONE = {**STANDALONE, "permify_install": "none", "monitoring": "none"}
HELM_SECRETS = {**HELM, "secrets": "external-secrets"}

CLEAN = [
    STANDALONE,
    SIDECAR,
    SILENT_SIDECAR,
    DIRECT,
    DOCKER,
    DIRECT_DOCKER,
    PUSHING,
    {**DIRECT_DOCKER, "advanced": True, "otlp_endpoint": "collector:4317"},
    SESSION,
    HELM,
    HELM_SECRETS,
    ELSEWHERE,
    ALONE,
    AUTOSCALED,
    NO_REPLICA,
    OPERATOR,
    PROBED,
    {**SIDECAR, "monitoring": "prometheus-operator", "probe": True},
    KEYLESS,
    {**DOCKER, "permify_replicas": 3, "database": "external", "primary_host": "db1"},
    {**DIRECT_DOCKER, "database": "external", "primary_host": "db1:5433", "replica_hosts": "db2,db3"},
    {**STANDALONE, "network_policies": False, "client_namespaces": "one,two"},
    {**DIRECT, "permify_install": "helm", "database_cidrs": "10.1.0.0/16"},
    {**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/roots"},
]


@pytest.mark.parametrize("answers", CLEAN, ids=lambda answers: "-".join(map(str, answers.values())))
def test_what_is_rendered_agrees(answers):
    assert codes(rendered(answers), *FAMILIES) == set()


PGCAT_INGRESS = r"(name: permify\n      ports:\n        - {protocol: TCP, port: )6432"
CHANGES = [
    # URIs and pools
    (STANDALONE, PERMIFY, "/permify_writer", "/postgres", {"PS401"}),
    (HELM, VALUES, "/permify_reader", "/permify", {"PS401"}),
    (STANDALONE, PERMIFY, "/permify_writer", "/permify_reader", {"PS402", "PS403"}),
    (STANDALONE, PERMIFY, "/permify_reader", "/permify_writer", {"PS403"}),
    (
        STANDALONE,
        PGCAT,
        r'\["db1", 5432, "primary"\],',
        '["db1", 5432, "primary"], ["db2", 5432, "replica"]',
        {"PS402"},
    ),
    (DIRECT, PERMIFY, "permify@db1:5432", "permify@db2:5432", {"PS402"}),
    (STANDALONE, PERMIFY, "@pgcat:", "@pgcats:", {"PS404"}),
    (STANDALONE, PERMIFY, "@pgcat:", "@127.0.0.1:", {"PS404"}),
    (STANDALONE, PERMIFY, "@pgcat:", "@pgcat.permify.svc:", set()),
    (STANDALONE, PERMIFY, "@pgcat:", "@pgcat.other.svc:", {"PS404"}),
    (SIDECAR, PERMIFY, "@127.0.0.1:", "@localhost:", set()),
    (SIDECAR, PERMIFY, "@127.0.0.1:", "@pgcat:", {"PS404"}),
    (DOCKER, PERMIFY, "@pgcat:", "@localhost:", {"PS404"}),
    (DOCKER, PERMIFY, "@pgcat:", "@postgres-primary:", {"PS404"}),
    (STANDALONE, PERMIFY, "pgcat:6432", "pgcat:5432", {"PS405"}),
    (STANDALONE, PERMIFY, "pgcat:6432", "pgcat", {"PS405"}),
    (DOCKER, PERMIFY, "pgcat:6432", "pgcat:16432", {"PS405"}),
    (SIDECAR, PERMIFY, ":6432", ":6433", {"PS405"}),
    (STANDALONE, PGCAT_SERVICE, "port: 6432", "port: 5432", {"PS405"}),
    (STANDALONE, PERMIFY, "permify@pgcat", "postgres@pgcat", {"PS406"}),
    (STANDALONE, PERMIFY, "&default_query_exec_mode=cache_describe", "", {"PS407"}),
    (STANDALONE, PERMIFY, "mode=cache_describe", "mode=exec", {"PS407"}),
    (STANDALONE, PERMIFY, "mode=cache_describe", "mode=simple_protocol", set()),
    (SESSION, PERMIFY, "mode=cache_describe", "mode=exec", set()),
    (STANDALONE, PERMIFY, "sslmode=disable", "sslmode=require", {"PS408"}),
    (STANDALONE, PERMIFY, "sslmode=disable&", "", set()),
    (DIRECT, PERMIFY, "&plan_cache_mode=force_custom_plan", "", {"PS409"}),
    (DIRECT, PERMIFY, "force_custom_plan", "auto", {"PS409"}),
    (STANDALONE, PGCAT, 'database = "permify"', 'database = "postgres"', {"PS410"}),
    (STANDALONE, MIGRATION, r"/permify\?", "/postgres?", {"PS410"}),
    (DIRECT, PERMIFY, r"/permify\?", "/postgres?", {"PS410"}),
    (STANDALONE, BOOTSTRAP, 'CREATE DATABASE "permify"', 'CREATE DATABASE "other"', {"PS410"}),
    (STANDALONE, MIGRATION, "permify@db1", "postgres@db1", {"PS411"}),
    (DIRECT, PERMIFY, "permify@db1", "postgres@db1", {"PS411"}),
    (STANDALONE, PGCAT, 'username = "permify"', 'username = "permify"\nserver_username = "root"', {"PS411"}),
    (STANDALONE, MIGRATION, "@db1:5432", "@pgcat:6432", {"PS412"}),
    (STANDALONE, MIGRATION, "@db1:5432", "@db2:5432", {"PS412"}),
    (STANDALONE, MIGRATION, "@db1:5432", "@db1:5433", {"PS412", "PS426"}),
    (DOCKER, COMPOSE, "@postgres-primary:5432", "@postgres-replica:5432", {"PS412"}),
    (DOCKER, COMPOSE, "@postgres-primary:5432", "@pgcat:6432", {"PS412"}),
    (DIRECT_DOCKER, COMPOSE, "@postgres-primary:5432", "@postgres-replica:5432", {"PS412"}),
    # Services, selectors, ports
    (
        STANDALONE,
        PERMIFY_SERVICE,
        r"(?<=selector:\n)    app.kubernetes.io/name: permify",
        "    a: b",
        {"PS420"},
    ),
    (
        STANDALONE,
        PERMIFY_SERVICE,
        r"(?<=selector:\n)    .*",
        "    app.kubernetes.io/part-of: pgcat-stack",
        {"PS420"},
    ),
    (STANDALONE, PERMIFY_POD, r"(?<=  selector:\n    matchLabels:\n)      .*", "      app: b", {"PS421"}),
    (STANDALONE, PERMIFY_SERVICE, "targetPort: http", "targetPort: web", {"PS422"}),
    (
        STANDALONE,
        PGCAT_POD,
        "(?<=readinessProbe:\n            tcpSocket:\n              port: )postgres",
        "pg",
        {"PS422"},
    ),
    (OPERATOR, "kubernetes/pod-monitor.yaml", "port: metrics", "port: metric", {"PS422"}),
    (STANDALONE, PERMIFY_POD, "containerPort: 3476", "containerPort: 8080", {"PS423"}),
    (
        STANDALONE,
        PERMIFY_POD,
        "(?<=startupProbe:\n            grpc:\n              port: )3478",
        "3479",
        {"PS423"},
    ),
    (SILENT_SIDECAR, PERMIFY_POD, r"6432(?=\"\]\n            periodSeconds: 10)", "5432", {"PS423"}),
    (
        STANDALONE,
        PGCAT_POD,
        "(?<=readinessProbe:\n            tcpSocket:\n              port: )postgres",
        "5432",
        {"PS423"},
    ),
    (STANDALONE, PGCAT, 'host = "0.0.0.0"', 'host = "127.0.0.1"', {"PS427"}),
    (DOCKER, PGCAT, 'host = "0.0.0.0"', 'host = "localhost"', {"PS427"}),
    (SIDECAR, PGCAT, 'host = "0.0.0.0"', 'host = "127.0.0.1"', {"PS427"}),
    (
        SILENT_SIDECAR,
        PERMIFY_POD,
        r"exec:\n.*\n(?=            periodSeconds: 10)",
        "tcpSocket:\n              port: postgres\n",
        {"PS427"},
    ),
    (STANDALONE, PERMIFY_SERVICE, "targetPort: http", "targetPort: 8080", {"PS423"}),
    (DOCKER, COMPOSE, "-addr=127.0.0.1:3478", "-addr=127.0.0.1:3479", {"PS423"}),
    (DOCKER, COMPOSE, ":3476:3476", ":3476:8080", {"PS423"}),
    (DOCKER, PERMIFY, 'port: "3476"', 'port: "3477"', {"PS423", "PS612"}),
    (DOCKER, COMPOSE, "-p 6432 ", "-p 6433 ", {"PS423"}),
    (AUTOSCALED, "kubernetes/permify-autoscaler.yaml", "    name: permify", "    name: permit", {"PS424"}),
    (
        STANDALONE,
        POLICIES,
        r"(?<=  podSelector:\n    matchLabels:\n)      .*migrate",
        "      a: b",
        {"PS425", "PS426"},
    ),
    # NetworkPolicies
    (
        STANDALONE,
        POLICIES,
        PGCAT_INGRESS,
        "name: permify\n      ports:\n        - {protocol: TCP, port: 5432",
        {"PS426", "PS471"},
    ),
    (STANDALONE, POLICIES, "port: 3476", "port: 8080", {"PS426", "PS471"}),
    (STANDALONE, POLICIES, "port: 9930", "port: 9931", {"PS426", "PS471"}),
    (STANDALONE, POLICIES, "protocol: UDP", "protocol: TCP", {"PS426"}),
    (STANDALONE, POLICIES, "port: 5432", "port: 5433", {"PS426", "PS471"}),
    (STANDALONE, POLICIES, "port: 5432", "port: 5000, endPort: 6000", {"PS471"}),
    (
        STANDALONE,
        POLICIES,
        r"(- to:\n        - podSelector:\n            matchLabels:\n              .*)pgcat",
        "- to: []",
        {"PS471"},
    ),
    (NO_REPLICA, POLICIES, "10.0.0.1/32", "10.0.0.2/32", {"PS426", "PS471"}),
    (DIRECT, POLICIES, "port: 5432", "port: 5433", {"PS426", "PS471"}),
    (ALONE, POLICIES, "port: 6432", "port: 6433", {"PS426", "PS471"}),
    # kustomize and mounts
    (
        STANDALONE,
        KUSTOMIZATION,
        "- kubernetes/pgcat-service.yaml",
        "- kubernetes/service.yaml",
        {"PS430", "PS431"},
    ),
    (STANDALONE, KUSTOMIZATION, "- pgcat/start.sh", "- pgcat/run.sh", {"PS430"}),
    (STANDALONE, KUSTOMIZATION, r"  - kubernetes/namespace.yaml\n", "", {"PS431"}),
    (
        STANDALONE,
        PGCAT_POD,
        r"(?<=configMap:\n)            name: pgcat",
        "            name: pgcats",
        {"PS432"},
    ),
    (STANDALONE, KUSTOMIZATION, r"      - pgcat/start.sh\n", "", {"PS433"}),
    (STANDALONE, PGCAT_POD, "mountPath: /etc/pgcat", "mountPath: /etc/other", {"PS433"}),
    (STANDALONE, PGCAT_POD, "mountPath: /run/pgcat", "mountPath: /run/other", {"PS433"}),
    (STANDALONE, PGCAT_POD, r'command: .*start.sh"\]', "command: [pgcat, /etc/pgcat/pgcat.toml]", {"PS433"}),
    (STANDALONE, PERMIFY_POD, "/etc/permify/permify.yaml", "/etc/permify/config.yaml", {"PS433"}),
    (STANDALONE, PERMIFY_POD, ", --config, /etc/permify/permify.yaml", "", {"PS433"}),
    (DOCKER, COMPOSE, "permify.yaml:/etc/permify/permify.yaml", "permify.yaml:/etc/permify.yaml", {"PS433"}),
    (
        DOCKER,
        COMPOSE,
        "./pgcat/pgcat.toml:/etc/pgcat/pgcat.toml",
        "./budget.yaml:/etc/pgcat/pgcat.toml",
        {"PS433"},
    ),
    (DOCKER, COMPOSE, r"./pgcat/start.sh:/etc/pgcat/start.sh", "./pgcat/start.sh:/start.sh", {"PS433"}),
    (STANDALONE, PGCAT_POD, "- name: pgcat-filled\n", "- name: pgcat-full\n", {"PS433", "PS434"}),
    # secrets
    (STANDALONE, PGCAT, r"\$\{pgcat_admin_password\}", "${admin}", {"PS440"}),
    (STANDALONE, PGCAT, r"\$\{database_password\}", "${database-password}", {"PS440"}),
    (STANDALONE, PGCAT, r'"\$\{database_password\}"', "'${database_password}'", {"PS440"}),
    (STANDALONE, PGCAT_POD, "path: database_password", "path: password", {"PS440"}),
    (DOCKER, COMPOSE, r"\[database_password, pgcat_admin_password\]", "[database_password]", {"PS440"}),
    (
        STANDALONE,
        PERMIFY_POD,
        r"(?s)(?<=name: )permify-database(?=\n\s+key: password\n\s+- name: PERMIFY_AUTHN)",
        "permify",
        {"PS441"},
    ),
    (STANDALONE, MIGRATION, "key: password", "key: PASSWORD", {"PS441"}),
    (HELM, VALUES, "key: password", "key: PASSWORD", {"PS441"}),
    (DIRECT, MIGRATION, "name: permify-database", "name: permify", {"PS441"}),
    (DOCKER, COMPOSE, r"\./secrets/database_password", "./secrets/postgres_password", {"PS441"}),
    (
        DOCKER,
        COMPOSE,
        "PGPASSFILE: /run/secrets/database.pgpass",
        "PGPASSFILE: /run/secrets/pgpass",
        {"PS442"},
    ),
    (DOCKER, COMPOSE, r"secrets: \[postgres_password, replication_password\]", "secrets: []", {"PS442"}),
    (DOCKER, COMPOSE, r"    secrets: \[database.pgpass\]\n    volumes", "    volumes", {"PS442"}),
    (STANDALONE, MIGRATION, "name: PGPASSWORD", "name: PASSWORD_OF_PG", {"PS443"}),
    (OPERATOR, EXTERNAL, "target:\n    name: permify-database", "target:\n    name: permify", {"PS444"}),
    (OPERATOR, EXTERNAL, "secretKey: password", "secretKey: passwd", {"PS444"}),
    (OPERATOR, EXTERNAL, r"        password: (?=.*trim)", "        passwd: ", {"PS444"}),
    (HELM_SECRETS, EXTERNAL, "secretKey: password", "secretKey: passwd", {"PS444"}),
    # Compose
    (DOCKER, COMPOSE, "./postgres/bootstrap.sql:", "./postgres/boot.sql:", {"PS450"}),
    (DOCKER, COMPOSE, "./monitoring/rules.yaml", "./monitoring/rule.yaml", {"PS450"}),
    (
        DOCKER,
        COMPOSE,
        r"pgcat: \{condition: service_healthy\}",
        "pgcats: {condition: service_healthy}",
        {"PS451"},
    ),
    (DOCKER, COMPOSE, r"  pgcat_admin_password: .*\n", "", {"PS440", "PS452"}),
    (DOCKER, COMPOSE, r"  prometheus-data:$", "", {"PS452"}),
    (DOCKER, COMPOSE, r"\{file: ./secrets/database.pgpass\}", "{environment: PGPASS}", {"PS441", "PS453"}),
    # monitoring
    (STANDALONE, PGCAT_POD, 'port: "9930"', 'port: "9931"', {"PS460"}),
    (DOCKER, PROMETHEUS, "pgcat:9930", "pgcat:9187", {"PS460"}),
    (OPERATOR, "kubernetes/pod-monitor.yaml", "port: metrics", "port: postgres", {"PS460"}),
    (DOCKER, PGCAT, "enable_prometheus_exporter = true", "enable_prometheus_exporter = false", {"PS460"}),
    (OPERATOR, "kubernetes/pod-monitor.yaml", "io/name: pgcat", "io/name: cat", {"PS461"}),
    # the probe
    (PROBED, POD_MONITOR, "port: http", "port: grpc", {"PS612", "PS426"}),
    (PROBED, POD_MONITOR, r"permify-probe.[$]1.svc:9115", "probe.$1.svc:9115", {"PS612"}),
    (PROBED, POD_MONITOR, "svc:9115", "svc:9116", {"PS612"}),
    (PROBED, POD_MONITOR, r"permify-probe.[$]1.svc:9115", "blackbox.monitoring.svc:9115", set()),
    (PROBED, PROBE_SERVICE, "port: 9115", "port: 9116", {"PS612"}),
    (PROBED, POD_MONITOR, "permify_read", "permify_reads", {"PS613"}),
    (PROBED, BLACKBOX, "permify_write:", "permify_writes:", {"PS613"}),
    (PROBED, BLACKBOX, r"      authorization: .*\n", "", {"PS614"}),
    (PROBED, PROBE_POD, "name: permify-authn", "name: permify-keys", {"PS614"}),
    (
        {**PROBED, "client_namespaces": "api"},
        POLICIES,
        r"    - from:\n.*\n.*\n              app.kubernetes.io/name: permify-probe\n      ports:\n.*3476.\n",
        "",
        {"PS426"},
    ),
    (PROBED, POLICIES, "port: 9115", "port: 9116", {"PS426", "PS471"}),
    (
        DOCKER,
        PROMETHEUS,
        "http://permify:3476/v1/tenants/pgcat-stack-probe/data",
        "http://permify:3478/v1/tenants/p/data",
        {"PS612"},
    ),
    (
        DOCKER,
        PROMETHEUS,
        "http://permify:3476/v1/tenants/pgcat-stack-probe/data",
        "http://pgcat:3476/v1/tenants/p/data",
        {"PS612"},
    ),
    (DOCKER, PROMETHEUS, "permify-probe:9115", "probe:9115", {"PS612"}),
    (DOCKER, PROMETHEUS, "permify-probe:9115", "permify-probe:9116", {"PS612"}),
    (DOCKER, PROMETHEUS, "__param_module: permify_write", "__param_module: permify_writes", {"PS613"}),
    (DOCKER, BLACKBOX, r"      authorization: .*\n", "", {"PS614"}),
    (DOCKER, COMPOSE, r"    env_file: .*\n    tmpfs: ...run.probe", '    tmpfs: ["/run/probe', {"PS614"}),
    (KEYLESS, BLACKBOX, "permify_write:", "permify_writes:", {"PS613"}),
    (DOCKER, PROMETHEUS, "pgcat:9930", "cat:9930", {"PS461"}),
    (DOCKER, PROMETHEUS, "postgres-exporter-replica:9187", "postgres-exporter:9187", {"PS461"}),
    (DOCKER, COMPOSE, "./monitoring/dashboard.json:", "./monitoring/dashboards.json:", {"PS450"}),
    (PUSHING, COLLECTOR, "0.0.0.0:4317", "0.0.0.0:4318", {"PS465"}),
    (PUSHING, COLLECTOR, r"\n      grpc: .*\n", "\n      http: {}\n", {"PS465"}),
    (PUSHING, PERMIFY, "endpoint: collector:4317", "endpoint: collector:14317", {"PS465"}),
    (PUSHING, PROMETHEUS, "collector:8889", "collector:8888", {"PS465"}),
    (PUSHING, COLLECTOR, "  prometheus: .endpoint", "  otlp: {endpoint", {"PS465"}),
    (DOCKER, RULES, r"pgcat_pools_cl_waiting\{", "pgcat_pools_cl_wait{", {"PS462"}),
    (DOCKER, RULES, r"(?<=pgcat_pools_cl_waiting\{)", 'host="a", ', {"PS462"}),
    (
        DOCKER,
        RULES,
        r"pgcat_databases_current_connections\{",
        'pgcat_databases_current_connections{user=~"a",',
        {"PS462"},
    ),
    (DOCKER, RULES, r"sum by \(host\)", "sum by (index)", {"PS462"}),
    (DOCKER, RULES, r"sum by \(host\)", "sum by (service)", set()),
    (DOCKER, RULES, r"absent\(count\(", "absent(pgcat_servers_is_banned) or absent(count(", {"PS462"}),
    (UNRELEASED, RULES, r"absent\(count\(", "absent(pgcat_servers_is_banned) or absent(count(", set()),
    (UNRELEASED, RULES, r"sum by \(host\)", "sum by (index)", set()),
    (DOCKER, RULES, "All PgCat containers are", "All of pgcat_pools_cl_idler are", set()),
    (DOCKER, "monitoring/rules-test.yaml", "'pgcat_pools_cl_idle", "'pgcat_pools_cl_idler", {"PS462"}),
    (OPERATOR, PROMETHEUS_RULE, "pgcat_pools_cl_waiting", "pgcat_pools_cl_wait", {"PS462", "PS463"}),
    (OPERATOR, PROMETHEUS_RULE, "for: 2m", "for: 3m", {"PS463"}),
    (OPERATOR, RULES, "for: 2m", "for: 3m", {"PS463"}),
]


@pytest.mark.parametrize(("answers", "path", "old", "new", "expected"), CHANGES)
def test_a_change(answers, path, old, new, expected):
    assert codes(edit(rendered(answers), path, old, new), *FAMILIES) == expected


def test_a_dashboard_asks_for_what_is_served():
    panel = {
        "targets": [
            {"expr": 'sum by (pool) (pgcat_pools_cl_idle{user="permify"})', "legendFormat": "{{pool}}"}
        ]
    }
    dashboard = {"title": "pgcat_pools_cl_idler", "panels": [panel]}
    files = {**rendered(DOCKER), "monitoring/pgcat.json": json.dumps(dashboard, indent=2)}
    assert codes(files, *FAMILIES) == set()
    broken = edit(files, "monitoring/pgcat.json", r"pgcat_pools_cl_idle\{", "pgcat_pools_idle{")
    found = one(broken, "PS462")
    assert (found.path, found.message) == (
        "monitoring/pgcat.json",
        "there is no series pgcat_pools_idle, as PgCat 1.2 serves it",
    )
    assert "pgcat_pools_idle" in broken["monitoring/pgcat.json"].splitlines()[found.line - 1]
