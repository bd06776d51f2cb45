"""Mistakes that no program reports: each by one change of a rendered deployment, and every check at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases import (
    CHART_ENVIRONMENT,
    COMPOSE,
    COMPOSE_ENVIRONMENT,
    DIRECT,
    DOCKER,
    HELM,
    PERMIFY_POD,
    POD_ENVIRONMENT,
    SESSION,
    SIDECAR,
    STANDALONE,
    VALUES,
    codes,
    edit,
    findings,
    one,
    rendered,
)
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading

PGCAT = "pgcat/pgcat.toml"
BOOTSTRAP = "postgres/bootstrap.sql"
PGCAT_POD = "kubernetes/pgcat-deployment.yaml"
MIGRATION = "kubernetes/migration-job.yaml"
AUTOSCALER = "kubernetes/permify-autoscaler.yaml"
AUTOSCALED = {**STANDALONE, "permify_max_replicas": 5}
OWN_POSTGRES = {**DOCKER, "database": "external", "primary_host": "db1", "replica_hosts": "db2"}
PASSWORD = "hunter2-secret"

SERVE = r'(?<=command: \["serve", )'


def compose(name: str, value: str) -> tuple[str, str]:
    return COMPOSE_ENVIRONMENT, f'      {name}: "{value}"\n'


def pod(name: str, value: str) -> tuple[str, str]:
    return POD_ENVIRONMENT, f'            - {{name: {name}, value: "{value}"}}\n'


def chart(name: str, value: str) -> tuple[str, str]:
    return CHART_ENVIRONMENT, f'  - {{name: {name}, value: "{value}"}}\n'


CHANGES = [
    # the environment beats permify.yaml
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_ENGINE", "memory"), {"PS313"}),
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_ENGINE", "postgres"), set()),
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_AUTO_MIGRATE", "true"), {"PS313"}),
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_AUTO_MIGRATE", "false"), set()),
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_MAX_IDLE_CONNECTIONS", "1"), {"PS314"}),
    (DOCKER, COMPOSE, *compose("PERMIFY_DATABASE_MAX_CONNECTION_IDLE_TIME", "240"), {"PS313"}),
    (DOCKER, COMPOSE, *compose("PERMIFY_LOG_LEVEL", "debug"), set()),
    (STANDALONE, PERMIFY_POD, *pod("PERMIFY_DATABASE_ENGINE", "memory"), {"PS313"}),
    (SIDECAR, PERMIFY_POD, *pod("PERMIFY_DATABASE_ENGINE", "memory"), None),
    (DIRECT, PERMIFY_POD, *pod("PERMIFY_DATABASE_AUTO_MIGRATE", "1"), {"PS313"}),
    (STANDALONE, PERMIFY_POD, *pod("PERMIFY_DATABASE_MAX_OPEN_CONNECTIONS", "8"), {"PS314"}),
    (STANDALONE, PERMIFY_POD, *pod("PERMIFY_DATABASE_MAX_RETRIES", "many"), {"PS313"}),
    (STANDALONE, PERMIFY_POD, *pod("PERMIFY_DATABASE_GARBAGE_COLLECTION_ENABLED", "true"), {"PS313"}),
    # arguments beat both
    (DOCKER, COMPOSE, SERVE, '"--database-engine=memory", ', {"PS315"}),
    (DOCKER, COMPOSE, SERVE, '"--database-auto-migrate", ', {"PS315"}),
    (STANDALONE, PERMIFY_POD, r"args: \[serve", "args: [serve, --database-max-connections, '9'", {"PS315"}),
    (STANDALONE, PERMIFY_POD, r"args: \[serve", "args: [serve, --log-level, debug", set()),
    # the chart
    (HELM, VALUES, "engine: postgres", "engine: memory", {"PS316"}),
    (HELM, VALUES, r"    engine: .*\n", "", {"PS316"}),
    (HELM, VALUES, r"^  database:", "  databse:", None),
    (HELM, VALUES, "    engine: ", "    engin: ", {"PS316"}),
    (
        HELM,
        VALUES,
        "    max_connection_idle_time:",
        "    min_connections: 2\n    max_connection_idle_time:",
        None,
    ),
    (HELM, VALUES, '"false"', '"true"', {"PS316"}),
    (HELM, VALUES, r"  - name: PERMIFY_DATABASE_AUTO_MIGRATE\n.*\n", "", {"PS316"}),
    (HELM, VALUES, r"  - name: PERMIFY_DATABASE_MAX_CONNECTIONS\n.*\n", "", {"PS316"}),
    (HELM, VALUES, "idle_time: 240s", "idle_time: 240", {"PS316"}),
    (HELM, VALUES, *chart("PERMIFY_DATABASE_ENGINE", "memory"), {"PS316"}),
    (HELM, VALUES, *chart("PERMIFY_DATABASE_MAX_OPEN_CONNECTIONS", "8"), {"PS314"}),
    (HELM, VALUES, '"false"', "false", {"PS317"}),
    (HELM, VALUES, 'CONNECTIONS\n    value: "8"', "CONNECTIONS\n    value: 8", {"PS317"}),
    (HELM, VALUES, "nameOverride: permify", "nameOverride: authz", {"PS318"}),
    (HELM, VALUES, "nameOverride: permify.*", "fullnameOverride: authz", set()),
    # quantities
    (STANDALONE, PGCAT, "^connect_timeout = 5000", "connect_timeout = 5", {"PS218"}),
    (STANDALONE, PGCAT, "^statement_timeout = 0", "shutdown_timeout = 5", set()),  # PS201: not here
    (STANDALONE, PGCAT, "^healthcheck_timeout = 1000", "healthcheck_timeout = 99", {"PS218"}),
    (STANDALONE, PGCAT, "^healthcheck_timeout = 1000", "healthcheck_timeout = 100", set()),
    (STANDALONE, PGCAT, "^statement_timeout = 0", "statement_timeout = 30", {"PS218"}),
    (
        STANDALONE,
        PGCAT,
        '^pool_mode = "transaction"',
        'pool_mode = "transaction"\nconnect_timeout = 5',
        {"PS218"},
    ),
    (STANDALONE, PGCAT, "^tcp_user_timeout = 5000", "tcp_user_timeout = 10", {"PS218"}),
    (STANDALONE, PGCAT, "^ban_time = 60", "ban_time = 60000", {"PS218"}),
    (STANDALONE, PGCAT, "^ban_time = 60", "ban_time = 3599", set()),
    # the migration's image
    (STANDALONE, MIGRATION, "permify:v1.7.3", "permify:v1.7.2", {"PS802"}),
    (STANDALONE, PERMIFY_POD, "permify/permify:v1.7.3", "acme/permify:v1.7.3", {"PS802"}),
    (DOCKER, COMPOSE, "permify:v1.7.3", "permify:v1.6.0", {"PS802"}),
    # nobody runs
    (STANDALONE, PGCAT_POD, "replicas: 2", "replicas: 0", {"PS428"}),
    (STANDALONE, PERMIFY_POD, "replicas: 2", "replicas: 0", {"PS428"}),
    (STANDALONE, PGCAT_POD, "replicas: 2", "replicas: 2\n  paused: true", {"PS428"}),
    (STANDALONE, PGCAT_POD, "replicas: 2", "replicas: 2\n  paused: false", set()),
    (DOCKER, COMPOSE, "replicas: 1", "replicas: 0", {"PS428"}),
    (HELM, VALUES, "replicaCount: 2", "replicaCount: 0", {"PS428"}),
    # TLS
    (STANDALONE, PGCAT, "^server_tls = true", "server_tls = false", {"PS413"}),
    (STANDALONE, PGCAT, "^server_tls = true\n", "", {"PS413"}),
    (STANDALONE, MIGRATION, "sslmode=require", "sslmode=disable", {"PS413"}),
    (STANDALONE, MIGRATION, "sslmode=require", "sslmode=prefer", set()),
    (DOCKER, PGCAT, "^server_tls = false", "server_tls = true", {"PS413"}),
    (
        DOCKER,
        COMPOSE,
        r"(@postgres-primary.*)sslmode=disable",
        "@postgres-primary:5432/permify?sslmode=require",
        {"PS413"},
    ),
    # line ends
    (STANDALONE, "pgcat/start.sh", r"^set -eu$", "set -eu\r", {"PS108"}),
    (DOCKER, "postgres/replica-start.sh", r"$", "\r", {"PS108"}),
    (STANDALONE, PGCAT, r"^port = 6432$", "port = 6432\r", set()),  # TOML takes it, start.sh keeps it
    # waits
    (STANDALONE, PERMIFY_POD, "seconds: 15$", "seconds: 9", {"PS611"}),
    (STANDALONE, PERMIFY_POD, "seconds: 15$", "seconds: 10", set()),
    (SIDECAR, PERMIFY_POD, r"(?<=sleep:\n                seconds: )\d+", "5", {"PS611"}),
    # autoscaler
    (AUTOSCALED, AUTOSCALER, "periodSeconds: 30", "periodSeconds: 1801", {"PS905"}),
    (AUTOSCALED, AUTOSCALER, "periodSeconds: 30", "periodSeconds: 0", {"PS905"}),
    (AUTOSCALED, AUTOSCALER, "WindowSeconds: 300", "WindowSeconds: 3601", {"PS905"}),
    (AUTOSCALED, AUTOSCALER, "periodSeconds: 30", "periodSeconds: 1800", set()),
]
JUDGED = {code for *_, expected in CHANGES for code in expected or ()}
"""Others may find something, too: a change is made for the checks of this table."""


@pytest.mark.parametrize(
    "answers", [STANDALONE, SIDECAR, DIRECT, DOCKER, SESSION, HELM, AUTOSCALED, OWN_POSTGRES]
)
def test_what_is_rendered_has_none(answers):
    assert codes(rendered(answers), "PS") == set()


@pytest.mark.parametrize(("answers", "path", "old", "new", "expected"), CHANGES)
def test_a_change(answers, path, old, new, expected):
    found = [f for f in findings(edit(rendered(answers), path, old, new), "PS") if f.code in JUDGED]
    if expected is None:
        assert found
    else:
        assert {f.code for f in found} == expected
    for finding in found:
        assert "\n" not in finding.message + finding.fix
        assert finding.fix


def test_where_the_environment_stands():
    files = edit(rendered(DOCKER), COMPOSE, *compose("PERMIFY_DATABASE_ENGINE", "memory"))
    found = one(files, "PS313")
    assert "PERMIFY_DATABASE_ENGINE" in files[COMPOSE].splitlines()[found.line - 1]
    assert "memory" in found.message and "remove PERMIFY_DATABASE_ENGINE" in found.fix


def test_where_an_argument_stands():
    files = edit(
        rendered(STANDALONE), PERMIFY_POD, r"args: \[serve", "args: [serve, --database-engine=memory"
    )
    assert "--database-engine" in files[PERMIFY_POD].splitlines()[one(files, "PS315").line - 1]


def test_a_misspelt_key_of_the_chart():
    files = edit(rendered(HELM), VALUES, "^  database:", "  databse:")
    found = [f for f in findings(files, "PS3") if "databse" in f.message]
    assert [f.fix for f in found] == ["did you mean database?"]


def test_what_the_chart_drops():
    files = edit(
        rendered(HELM), VALUES, "    engine: postgres", "    engine: postgres\n    min_connections: 2"
    )
    assert "set PERMIFY_DATABASE_MIN_CONNECTIONS in extraEnvVars" in one(files, "PS316").fix


def test_uris_of_the_chart_from_a_secret():
    text = rendered(HELM)[VALUES]
    start, end = text.index("    writer:"), text.index("    max_connection_lifetime")
    secret = text[:start] + "    uri_secret: permify-uri\n" + text[end:]
    assert codes({**rendered(HELM), VALUES: secret}, "PS3") == set()
    nothing = text[:start] + text[end:]
    assert codes({**rendered(HELM), VALUES: nothing}, "PS3") == {"PS316"}


def test_the_chart_without_policies():
    files = edit(
        rendered(HELM, network_policies=False), VALUES, "nameOverride: permify", "nameOverride: authz"
    )
    assert codes(files, "PS3") == set()


def test_seconds_for_milliseconds_are_named():
    files = edit(rendered(STANDALONE), PGCAT, "^connect_timeout = 5000", "connect_timeout = 5")
    assert one(files, "PS218").fix == "did you mean 5000?"


@pytest.mark.parametrize(
    ("answers", "expected"), [(STANDALONE, {"PS435"}), (OWN_POSTGRES, {"PS435"}), (DOCKER, {"PS450"})]
)
def test_without_bootstrap(answers, expected):
    files = rendered(answers)
    del files[BOOTSTRAP]
    assert codes(files, "PS43", "PS45") == expected


def test_manifests_without_a_kustomization():
    files = rendered(STANDALONE)
    del files["kustomization.yaml"]
    assert one(files, "PS437").path == "kustomization.yaml"


SECRETS = [
    ({}, []),
    ({"database_password": PASSWORD, "database.pgpass": f"*:*:*:*:{PASSWORD}\n"}, []),
    ({"database_password": "a:b", "database.pgpass": "db1:5432:*:*:a\\:b\n"}, []),
    ({"database.pgpass": ""}, ["secrets/database.pgpass"]),
    ({"database.pgpass": "*:*:*:*:a:b\n"}, ["secrets/database.pgpass"]),
    ({"database.pgpass": "db1:5432:*:*:a\n*:*:*:*:b\n"}, []),
    ({"database_password": "b", "database.pgpass": "db1:5432:*:*:a\n*:*:*:*:b\n"}, []),
    ({"database_password": "b", "database.pgpass": "*:*:*:*:a\n*:*:*:*:b\n"}, ["secrets/database.pgpass"]),
    ({"pgcat_admin_password": ""}, ["secrets/pgcat_admin_password"]),
    ({"database_password": "\n"}, ["secrets/database_password"]),
    ({"database_password": f"{PASSWORD}\n{PASSWORD}\n"}, ["secrets/database_password"]),
    ({"database_password": PASSWORD, "database.pgpass": ""}, ["secrets/database.pgpass"]),
    ({"database_password": PASSWORD, "database.pgpass": "*:*:*:*:old\n"}, ["secrets/database.pgpass"]),
    (
        {"database_password": PASSWORD, "database.pgpass": f"#*:*:*:*:{PASSWORD}\n"},
        ["secrets/database.pgpass"],
    ),
    ({"forgotten": ""}, []),
]


@pytest.mark.parametrize(("secrets", "expected"), SECRETS)
def test_secret_files(tmp_path: Path, secrets: dict[str, str], expected: list[str]):
    for path, text in rendered(DOCKER).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "secrets").mkdir(0o700)
    for name, text in secrets.items():
        (tmp_path / "secrets" / name).write_text(text)
        (tmp_path / "secrets" / name).chmod(0o444)
    found = run_checks(Reading.load(tmp_path))
    assert [f.path for f in found if f.code == "PS709"] == expected
    assert not any(PASSWORD in f.message + f.fix for f in found)
