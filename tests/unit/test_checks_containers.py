"""Images, container security, Compose hygiene and types, each by one change of a rendered deployment."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, HELM, SIDECAR, STANDALONE, codes, edit, findings, load, one, rendered
from pgcat_stack.checks import kubernetes_schema

FAMILIES = ("PS4", "PS7", "PS8", "PS9")
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
VALUES = "permify/values.yaml"
COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
PGCAT_POD = "kubernetes/pgcat-deployment.yaml"
PERMIFY_POD = "kubernetes/permify-deployment.yaml"
MIGRATION = "kubernetes/migration-job.yaml"
SERVICE = "kubernetes/pgcat-service.yaml"
THREE = {**DOCKER, "permify_replicas": 3}
DIRECT_DOCKER = {**DOCKER, "pooling": "direct"}
AUTOSCALED = {**STANDALONE, "permify_max_replicas": 5}
DIGEST = "@sha256:" + "0" * 64

CHANGES = [
    # images
    (STANDALONE, PGCAT_POD, ":v1.2.0", ":main", {"PS801"}),
    (STANDALONE, PGCAT_POD, ":v1.2.0", f":main{DIGEST}", set()),
    (STANDALONE, PGCAT_POD, ":v1.2.0", "", {"PS801"}),
    (DOCKER, COMPOSE, "permify:v1.7.3", "permify:latest", {"PS801", "PS802"}),
    (DOCKER, COMPOSE, "ghcr.io/permify/permify:v1.7.3", "${IMAGE:-a:5000/permify}", {"PS801", "PS802"}),
    (DOCKER, COMPOSE, "ghcr.io/permify/permify:v1.7.3", "${IMAGE}", set()),
    (HELM, VALUES, 'tag: "v1.7.3"', "tag: latest", {"PS801", "PS802"}),
    # security, Kubernetes
    (STANDALONE, PGCAT_POD, "runAsNonRoot: true", "runAsNonRoot: false", {"PS811"}),
    (STANDALONE, PGCAT_POD, "runAsUser: 65532", "runAsUser: 0", {"PS811"}),
    (SIDECAR, PERMIFY_POD, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", {"PS812"}),
    (STANDALONE, MIGRATION, " +readOnlyRootFilesystem: true\n", "", {"PS813"}),
    (STANDALONE, PGCAT_POD, r"drop: \[ALL\]", "drop: [NET_RAW]", {"PS814"}),
    (STANDALONE, PGCAT_POD, r"drop: \[ALL\]", "drop: [ALL]\n              add: [SYS_ADMIN]", {"PS814"}),
    (STANDALONE, PGCAT_POD, "readOnlyRoot", "privileged: true\n            readOnlyRoot", {"PS815"}),
    (STANDALONE, PGCAT_POD, "automount", "hostNetwork: true\n      automount", {"PS815"}),
    (STANDALONE, PGCAT_POD, "emptyDir:\n.*\n.*", "hostPath: {path: /run}", {"PS815"}),
    (STANDALONE, PGCAT_POD, "type: RuntimeDefault", "type: Unconfined", {"PS816"}),
    (STANDALONE, PGCAT_POD, "Token: false", "Token: true", {"PS817"}),
    (STANDALONE, PERMIFY_POD, " +enableServiceLinks.*\n", "", {"PS818"}),
    (STANDALONE, PGCAT_POD, " +enableServiceLinks.*\n", "", set()),
    (STANDALONE, PGCAT_POD, r" +limits:\n +memory.*\n", "", {"PS819"}),
    # security, Compose
    (DOCKER, COMPOSE, "  read_only: true\n", "", {"PS813"}),
    (DOCKER, COMPOSE, r"  cap_drop: .*\n", "", {"PS814"}),
    (DOCKER, COMPOSE, r"  security_opt: .*\n", "", {"PS812"}),
    (DOCKER, COMPOSE, r'    user: "65532:65532"\n    command:\n', "    command:\n", {"PS811"}),
    (DOCKER, COMPOSE, '"65532:65532"', '"0:0"', {"PS811"}),
    (DOCKER, COMPOSE, "    stop_signal", "    privileged: true\n    stop_signal", {"PS815"}),
    (DOCKER, COMPOSE, r"    mem_limit: 1512m #.*\n", "", {"PS819"}),
    (DOCKER, COMPOSE, r"    mem_limit: 256m.*\n", "    mem_limit: 0\n", {"PS819"}),
    (
        DOCKER,
        COMPOSE,
        r"    mem_limit: 256m.*\n",
        "    deploy: {resources: {limits: {memory: 1g}}}\n",
        set(),
    ),
    (DOCKER, COMPOSE, r"    mem_limit: 128m\n", "", set()),  # bootstrap, which ends
    (DOCKER, COMPOSE, r"    mem_limit: 256m.*\n", '    mem_limit: "0"\n', {"PS819"}),
    (DOCKER, COMPOSE, r"    mem_limit: 256m.*\n", "    mem_limit: 5m\n", {"PS828"}),
    (DOCKER, COMPOSE, r"    mem_limit: 256m.*\n", "    mem_limit: 6MiB\n", set()),
    (
        DOCKER,
        COMPOSE,
        "    stop_signal",
        "    deploy: {resources: {limits: {memory: 1g}}}\n    stop_signal",
        {"PS828"},
    ),
    (
        DOCKER,
        COMPOSE,
        "    stop_signal",
        "    deploy: {resources: {limits: {memory: 0.25gb}}}\n    stop_signal",
        set(),
    ),
    # Compose hygiene
    (DOCKER, COMPOSE, r"\$\{PERMIFY_BIND:-127.0.0.1\}:3476", "3476", {"PS821"}),
    (DOCKER, COMPOSE, r"\$\{PERMIFY_BIND:-127.0.0.1\}:3476", "0.0.0.0:3476", {"PS821"}),
    (DOCKER, COMPOSE, r"PERMIFY_BIND:-127.0.0.1", "PERMIFY_BIND:-0.0.0.0", {"PS821"}),
    (DOCKER, COMPOSE, r"\$\{PERMIFY_BIND:-127.0.0.1\}:3476:", "127.0.0.1::", set()),
    (DOCKER, COMPOSE, "replicas: 1", "replicas: 2", {"PS822"}),
    (THREE, COMPOSE, r"13476-13478", "13476-13477", {"PS822"}),
    (THREE, COMPOSE, "replicas: 3", "replicas: 2", set()),
    (DOCKER, COMPOSE, "127.0.0.1:9090:9090", "127.0.0.1:3478:9090", {"PS822"}),
    (DOCKER, COMPOSE, "  restart: unless-stopped\n", "", {"PS823"}),
    (DOCKER, COMPOSE, 'restart: "no"', "restart: always", {"PS823"}),
    (DOCKER, PERMIFY, r"(?<=profiler:\n)  enabled: false", "  enabled: true", {"PS824"}),
    (HELM, VALUES, r"(?<=profiler:\n)    enabled: false", "    enabled: true", {"PS824"}),
    (
        DOCKER,
        COMPOSE,
        "PGPASSFILE:",
        'PERMIFY_PROFILER_ENABLED: "true"\n      PGPASSFILE:',
        set(),
    ),  # the migration
    (DOCKER, PGCAT, '"postgres-replica"', '"127.0.0.1"', {"PS825"}),
    (DIRECT_DOCKER, PERMIFY, "@postgres-replica:", "@localhost:", {"PS825"}),
    (DOCKER, COMPOSE, r"  logging: .*\n", "", {"PS826"}),
    (DOCKER, COMPOSE, "max-size: 10m, ", "", {"PS826"}),
    (DOCKER, COMPOSE, "max-size: 10m", 'max-size: "-1"', {"PS826"}),
    (DOCKER, COMPOSE, "max-size: 10m", 'max-size: ""', {"PS826"}),
    (DOCKER, COMPOSE, r"driver: json-file, options: .*\}", "options: {max-file: 5}}", {"PS826"}),
    (DOCKER, COMPOSE, r"driver: json-file, options: .*\}", "driver: local}", set()),
    (DOCKER, COMPOSE, r"driver: json-file, options: .*\}", "driver: journald}", set()),
    (DOCKER, COMPOSE, r"driver: json-file, options: .*\}", 'driver: "${LOG_DRIVER}"}', set()),
    (DOCKER, COMPOSE, r"driver: json-file, options: .*\}", 'driver: "${LOG_DRIVER:-json-file}"}', {"PS826"}),
    (DOCKER, COMPOSE, "    stop_signal", "    ulimits: {nofile: 1024}\n    stop_signal", {"PS827"}),
    (
        DOCKER,
        COMPOSE,
        "    stop_signal",
        '    ulimits: {nofile: {soft: 64, hard: "4095"}}\n    stop_signal',
        {"PS827"},
    ),
    (
        DOCKER,
        COMPOSE,
        "    stop_signal",
        "    ulimits: {nofile: {soft: 64, hard: 4096}}\n    stop_signal",
        set(),
    ),
    (DOCKER, COMPOSE, "    stop_signal", "    ulimits: {nofile: -1}\n    stop_signal", set()),
    (
        DOCKER,
        COMPOSE,
        r'    command: \["serve"',
        '    ulimits: {nofile: 1024}\n    command: ["serve"',
        {"PS827"},
    ),
    # types
    (STANDALONE, PGCAT_POD, "replicas: 2", 'replicas: "2"', {"PS902"}),
    (STANDALONE, PGCAT_POD, "minReadySeconds: 75", "minReadySeconds: 75s", {"PS902"}),
    (STANDALONE, PGCAT_POD, "PeriodSeconds: 75", "PeriodSeconds: [75]", {"PS902"}),
    (
        STANDALONE,
        PERMIFY_POD,
        r"(?<=Secret does not have.\n)          env:\n( {10,}.*\n){10}",
        "          env: {PGPASSWORD: x}\n",
        {"PS902", "PS443"},
    ),
    (STANDALONE, PERMIFY_POD, "containerPort: 3476", 'containerPort: "3476"', {"PS902", "PS422"}),
    (STANDALONE, PERMIFY_POD, "env:", "env:\n            - {name: A, value: 5}", {"PS902"}),
    (STANDALONE, SERVICE, "  name: pgcat\n", "", {"PS901", "PS404"}),
    (STANDALONE, SERVICE, "apiVersion: v1\n", "", {"PS901"}),
    (STANDALONE, KUSTOMIZATION, "namespace: .*", "namespace: [permify]", {"PS902"}),
    (DOCKER, COMPOSE, "replicas: 1", "replicas: one", {"PS904"}),
    (DOCKER, COMPOSE, r"  read_only: true\n", '  read_only: "true"\n', {"PS904", "PS813"}),
    (DOCKER, COMPOSE, "    image: ghcr.io/postgresml/pgcat.*\n", "", {"PS904"}),
]


@pytest.mark.parametrize(("answers", "path", "old", "new", "expected"), CHANGES)
def test_a_change(answers, path, old, new, expected):
    assert codes(edit(rendered(answers), path, old, new), *FAMILIES) == expected


def test_compose_without_services():
    files = {**rendered(DOCKER), COMPOSE: "services: [pgcat]\n"}
    assert codes(files, "PS9") == {"PS904"}
    assert codes({**files, COMPOSE: "[]\n"}, "PS9") == {"PS904"}


def test_the_unreleased_line_is_named():
    files = edit(rendered(STANDALONE), PGCAT_POD, ":v1.2.0", ":main")
    assert "1.3.0" in findings(files, "PS8")[0].message


@pytest.fixture
def schemas(monkeypatch):
    pytest.importorskip("kubernetes_validate")
    monkeypatch.setattr(kubernetes_schema, "ENABLED", False)
    assert kubernetes_schema.enable()


SCHEMA_CHANGES = [
    (PGCAT_POD, "revisionHistoryLimit: 5", "revisionHistory: 5", 1),
    (PGCAT_POD, "revisionHistoryLimit: 5", "revisionHistoryLimit: five", 1),
    (SERVICE, "apiVersion: v1", "apiVersion: v2", 1),
    ("kubernetes/permify-autoscaler.yaml", "autoscaling/v2", "autoscaling/v2beta2", 1),
    ("kubernetes/permify-autoscaler.yaml", "apiVersion: autoscaling/v2", "apiVersion: keda.sh/v1", 0),
]


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(("path", "old", "new", "count"), SCHEMA_CHANGES)
def test_a_change_against_the_schemas(path, old, new, count):
    files = edit(rendered(AUTOSCALED), path, old, new)
    assert [finding.path for finding in findings(files, "PS903")] == [path] * count


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    "answers",
    [
        AUTOSCALED,
        SIDECAR,
        DIRECT,
        HELM,
        {**STANDALONE, "monitoring": "prometheus-operator", "secrets": "external-secrets"},
    ],
)
def test_what_is_rendered_follows_the_schemas(answers):
    assert findings(rendered(answers), "PS903") == []


def test_schemas_are_not_used_unless_enabled():
    assert not kubernetes_schema.ENABLED
    files = edit(rendered(STANDALONE), SERVICE, "apiVersion: v1", "apiVersion: v2")
    assert list(kubernetes_schema.kubernetes_schema(load(files))) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "fix"),
    [
        # An update raised the migration's image and kept a hand-edited one of Permify.
        (
            PERMIFY_POD,
            "v1.7.3",
            "v1.7.2",
            "image: ghcr.io/permify/permify:v1.7.3, in kubernetes/permify-deployment",
        ),
        (PERMIFY_POD, "v1.7.3", "v1.10.0", "image: ghcr.io/permify/permify:v1.10.0"),
        (PERMIFY_POD, "v1.7.3", "custom", "image: ghcr.io/permify/permify:custom"),
        (PERMIFY_POD, "ghcr.io/permify/permify:v1.7.3", "acme/permify:v1.6.0", "image: acme/permify:v1.6.0"),
        (MIGRATION, "v1.7.3", "v1.7.2", "image: ghcr.io/permify/permify:v1.7.3"),
    ],
)
def test_the_newer_image_is_the_one_to_take(path: str, old: str, new: str, fix: str) -> None:
    files = rendered(STANDALONE)
    assert old in files[path]
    problem = one({**files, path: files[path].replace(old, new)}, "PS802")
    assert problem.fix.startswith(fix)
    assert (", in " in problem.fix) == (", in " in fix)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: Service", "kind: ../../../x"),
        ("kind: Service", f"kind: {'S' * 300}"),
        ("apiVersion: v1", "apiVersion: ../v1"),
    ],
)
def test_a_kind_is_no_path_to_a_schema(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setattr(kubernetes_schema, "ENABLED", True)
    (finding,) = findings(edit(rendered(STANDALONE), SERVICE, old, new), "PS903")
    assert finding.message.startswith("no Kubernetes knows ")
