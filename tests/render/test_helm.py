"""What Permify's own chart makes of permify/values.yaml. The chart's folder is named by PERMIFY_CHART:

helm pull permify --repo https://permify.github.io/helm-charts --version 0.5.0 --untar --untardir FOLDER
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import manifest_scanners
from pgcat_stack.checks import kubernetes_schema
from pgcat_stack.permify.settings import PermifyConfig, read_permify
from rendering import render

CHART = os.environ.get("PERMIFY_CHART", "")
pytestmark = [
    pytest.mark.skipif(not shutil.which("helm"), reason="helm is not on PATH"),
    pytest.mark.skipif(not CHART, reason="PERMIFY_CHART does not name the folder of Permify's chart"),
]

STANDALONE = {"topology": "standalone", "primary_host": "db"}
# By itself the chart gets fewer connections: in its rollouts more pods are there at once.
DIRECT = {**STANDALONE, "pooling": "direct", "permify_max_connections": 6}
CASES: dict[str, dict[str, Any]] = {
    "standalone": STANDALONE,
    "otlp": {**STANDALONE, "otlp_endpoint": "collector.monitoring:4317"},
    "autoscaler": {**STANDALONE, "permify_max_replicas": 5, "secrets": "external-secrets"},
    "session and watch": {
        **STANDALONE,
        "pool_mode": "session",
        "watch": True,
        "postgres_max_connections": 200,
    },
    "direct": {**DIRECT, "replica_hosts": "r1,r2:5433"},
    "direct, certificate": {**DIRECT, "database_tls": "verify-full", "database_ca": "secret/postgresql-ca"},
    "direct, certificate in a ConfigMap": {
        **DIRECT,
        "database_tls": "verify-full",
        "database_ca": "configmap/postgresql-ca",
        "watch": True,
        "otlp_endpoint": "collector:4317",
    },
    "one process": {
        **DIRECT,
        "permify_replicas": 1,
        "permify_image": "registry.example.com:5000/permify:v1.7.3",
    },
}
every_case = pytest.mark.parametrize("answers", CASES.values(), ids=CASES.keys())

# Settings for which the chart has other defaults than Permify, and which nothing here rests on.
CHARTS_OWN = {
    "server.rate_limit": 100_000,
    "service.schema.cache.max_cost": "8MiB",
    "service.permission.cache.max_cost": "16MiB",
    "distributed.port": 5053,
}
# Variables that are not called like the setting.
SETTINGS = {
    "server.rate_limit": "RATE_LIMIT",
    "server.grpc.port": "GRPC_PORT",
    "logger.level": "LOG_LEVEL",
} | {f"server.http.{name}": f"HTTP_{name.upper()}" for name in ("enabled", "port")}

# The chart takes one template from Bitnami's library of charts, which is only to be had from a registry of
# images. The released chart has it inside; a copy of the chart's sources does not.
COMMON = {
    "Chart.yaml": "apiVersion: v2\nname: common\nversion: 2.14.1\ntype: library\n",
    "templates/_tplvalues.tpl": '{{- define "common.tplvalues.render" -}}\n'
    '{{- tpl (kindIs "string" .value | ternary .value (toYaml .value)) .context -}}\n{{- end -}}\n',
}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the chart with what it depends on."""
    copy = tmp_path_factory.mktemp("chart") / "permify"
    shutil.copytree(CHART, copy)
    assert yaml.safe_load((copy / "Chart.yaml").read_text())["version"] == "0.5.0"
    if not (copy / "charts" / "common").exists():
        for name, text in COMMON.items():
            path = copy / "charts" / "common" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return copy


def helm_template(chart: Path, deploy: Path) -> subprocess.CompletedProcess[str]:
    """As `helm upgrade --install permify` would, but for the hooks: those run at `helm test` alone."""
    return subprocess.run(
        [
            *("helm", "template", "permify", str(chart), "--namespace", "permify", "--no-hooks"),
            *("--kube-version", kubernetes_schema.OLDEST_KUBERNETES),
            *("--values", str(deploy / "permify" / "values.yaml")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def made(chart: Path, deploy: Path) -> dict[str, dict[str, Any]]:
    """The chart's objects by kind."""
    done = helm_template(chart, deploy)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    assert len({found["kind"] for found in objects}) == len(objects)
    return {found["kind"]: found for found in objects}


def pod_of(objects: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = objects["Deployment"]["spec"]["template"]
    return found


def container_of(objects: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(objects)["spec"]["containers"]
    return dict(container)


def environment(objects: Mapping[str, Any]) -> dict[str, str]:
    """What the container gets, without what comes from a Secret. Kubernetes takes the last of two."""
    return {item["name"]: item["value"] for item in container_of(objects)["env"] if "value" in item}


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, (*at, key))
    else:
        yield at, value


def flat(value: Any) -> dict[str, Any]:
    return {".".join(at): leaf for at, leaf in leaves(value)}


def helm(tmp_path: Path, answers: Mapping[str, Any]) -> Path:
    return render(tmp_path / "helm", answers, permify_install="helm")


# The chart takes the values


@every_case
def test_the_chart_reads_every_value(answers: dict[str, Any], chart: Path, tmp_path: Path) -> None:
    templates = "\n".join(path.read_text() for path in (chart / "templates").rglob("*") if path.is_file())
    read = {tuple(name.split(".")) for name in re.findall(r"\.Values\.([A-Za-z0-9_.]+)", templates)}
    values = yaml.safe_load((helm(tmp_path, answers) / "permify" / "values.yaml").read_text())
    unread = [at for at, _ in leaves(values) if not any(at[: len(name)] == name for name in read)]
    assert unread == []


def test_the_schema_of_the_values_is_in_force(chart: Path, tmp_path: Path) -> None:
    deploy = helm(tmp_path, STANDALONE)
    values = deploy / "permify" / "values.yaml"
    values.write_text(values.read_text().replace("replicaCount: 2", "replicaCount: two"))
    done = helm_template(chart, deploy)
    assert done.returncode != 0 and "replicaCount" in done.stderr


# What it makes of them


@every_case
def test_what_the_chart_makes_passes_the_schemas(
    answers: dict[str, Any], chart: Path, tmp_path: Path
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    newest = kubernetes_validate.utils.major_minor(kubernetes_validate.latest_version())
    for found in made(chart, helm(tmp_path, answers)).values():
        for version in (kubernetes_schema.OLDEST_KUBERNETES, newest):
            kubernetes_validate.validate(found, version, strict=True)


@manifest_scanners.needs("kyverno")
@every_case
def test_pod_security_restricted(answers: dict[str, Any], chart: Path, tmp_path: Path) -> None:
    done = helm_template(chart, helm(tmp_path, answers))
    assert manifest_scanners.pod_security(done.stdout, tmp_path) == []


@every_case
def test_labels_are_labels(answers: dict[str, Any], chart: Path, tmp_path: Path) -> None:
    """The chart makes one of the image's tag, and the API refuses what is none."""
    for found in made(chart, helm(tmp_path, answers)).values():
        for value in found["metadata"].get("labels", {}).values():
            assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value), value


@every_case
def test_policies_and_budgets_select_the_charts_pods(
    answers: dict[str, Any], chart: Path, tmp_path: Path
) -> None:
    deploy = helm(tmp_path, answers)
    labels = pod_of(made(chart, deploy))["metadata"]["labels"]

    def selected(selector: Mapping[str, Any]) -> bool:
        return all(
            labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()
        ) and all(
            rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
            for rule in selector.get("matchExpressions", [])
        )

    found = set()
    for name, key in (("network-policies", "podSelector"), ("disruption-budgets", "selector")):
        path = deploy / "kubernetes" / f"{name}.yaml"
        if path.exists():
            for each in yaml.safe_load_all(path.read_text()):
                if selected(each["spec"][key]):
                    found.add(f"{each['kind']} {each['metadata']['name']}")
    budget = {"PodDisruptionBudget permify"} if answers.get("permify_replicas") != 1 else set()
    policies = ("permify", "pgcat-stack-default-deny", "pgcat-stack-dns")
    assert found == {f"NetworkPolicy {name}" for name in policies} | budget


@every_case
def test_no_token_and_no_rights(answers: dict[str, Any], chart: Path, tmp_path: Path) -> None:
    """The chart has no key for the pod's token, so the pods run as an account that has none."""
    deploy = helm(tmp_path, answers)
    objects = made(chart, deploy)
    assert not objects.keys() & {"ServiceAccount", "Role", "RoleBinding"}
    account = yaml.safe_load((deploy / "kubernetes" / "service-account.yaml").read_text())
    assert account["automountServiceAccountToken"] is False
    assert pod_of(objects)["spec"]["serviceAccountName"] == account["metadata"]["name"]
    kustomization = yaml.safe_load((deploy / "kustomization.yaml").read_text())
    assert "kubernetes/service-account.yaml" in kustomization["resources"]


def test_the_autoscaler_looks_at_cpu_alone(chart: Path, tmp_path: Path) -> None:
    spec = made(chart, helm(tmp_path, CASES["autoscaler"]))["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    assert [metric["resource"]["name"] for metric in spec["metrics"]] == ["cpu"]


def test_a_rotated_password_restarts_the_charts_pods(chart: Path, tmp_path: Path) -> None:
    annotations = made(chart, helm(tmp_path, CASES["autoscaler"]))["Deployment"]["metadata"]["annotations"]
    assert annotations == {"secret.reloader.stakater.com/reload": "permify-database"}


@pytest.mark.parametrize("name", [name for name in CASES if "certificate" in name])
def test_the_certificate_is_mounted_where_the_uri_names_it(name: str, chart: Path, tmp_path: Path) -> None:
    objects = made(chart, helm(tmp_path, CASES[name]))
    (mount,) = container_of(objects)["volumeMounts"]
    (volume,) = pod_of(objects)["spec"]["volumes"]
    source = volume.get("secret") or volume["configMap"]
    assert mount["name"] == volume["name"]
    assert source.get("secretName", source.get("name")) == "postgresql-ca"
    path = f"{mount['mountPath']}/{source['items'][0]['path']}"
    for side in ("WRITER", "READER"):
        assert f"sslrootcert={path}&" in environment(objects)[f"PERMIFY_DATABASE_{side}_URI"]


def test_a_service_called_permify_grpc_does_no_harm(chart: Path, tmp_path: Path) -> None:
    """Its address would stand in PERMIFY_GRPC_PORT; what the pod says itself goes first."""
    found = environment(made(chart, helm(tmp_path, STANDALONE)))
    assert (found["PERMIFY_GRPC_PORT"], found["PERMIFY_HTTP_PORT"]) == ("3478", "3476")


# What Permify reads


def nested(variables: Mapping[str, str]) -> dict[str, Any]:
    """The configuration file that says what these variables say."""
    names = {"_".join(at).upper(): at for at, _ in leaves(PermifyConfig().model_dump(by_alias=True))}
    names |= {variable: tuple(setting.split(".")) for setting, variable in SETTINGS.items()}
    found: dict[str, Any] = {}
    for variable, value in variables.items():
        if variable.startswith("PERMIFY_"):
            *sections, key = names[variable.removeprefix("PERMIFY_")]
            section = found
            for name in sections:
                section = section.setdefault(name, {})
            assert key not in section, f"{variable} twice"
            section[key] = value
    return found


@every_case
def test_the_environment_says_what_the_file_says(
    answers: dict[str, Any], chart: Path, tmp_path: Path
) -> None:
    manifests = render(tmp_path / "manifests", answers)
    file = read_permify(yaml.safe_load((manifests / "permify" / "permify.yaml").read_text()))
    chart_gives = read_permify(nested(environment(made(chart, helm(tmp_path, answers)))))
    assert file.config and chart_gives.config and not file.issues and not chart_gives.issues
    expected, found = (flat(each.config.model_dump(by_alias=True)) for each in (file, chart_gives))
    assert found == expected | CHARTS_OWN


def permify_config(folder: Path, *arguments: str, **variables: str) -> dict[str, str]:
    """What Permify says that it would run with; it hides URIs, and leaves some settings out."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERMIFY_")}
    done = subprocess.run(
        ["permify", "config", *arguments],
        env={**environment, "HOME": str(folder), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [re.split(r"\s*│\s*", line.strip())[1:3] for line in done.stdout.splitlines() if "│" in line]
    return {key: value for key, value in rows if "." in key}


@pytest.mark.skipif(not shutil.which("permify"), reason="permify is not on PATH")
@every_case
def test_permify_itself_reads_the_same(answers: dict[str, Any], chart: Path, tmp_path: Path) -> None:
    manifests = render(tmp_path / "manifests", answers)
    file = permify_config(tmp_path / "file", "--config", str(manifests / "permify" / "permify.yaml"))
    found = permify_config(tmp_path / "environment", **environment(made(chart, helm(tmp_path, answers))))
    assert file["database.engine"] == "postgres" and file["database.auto_migrate"] == "false"
    assert found == file | {key: str(value) for key, value in CHARTS_OWN.items()}
