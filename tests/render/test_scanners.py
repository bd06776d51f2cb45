"""kube-score, checkov and the Pod Security Standards have nothing to say about what kustomize builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import judges
from rendering import REPOSITORY, render

pytestmark = judges.needs("kubectl")

STANDALONE = {"topology": "standalone", "primary_host": "db", "replica_hosts": "r"}
SIDECAR = {**STANDALONE, "topology": "sidecar"}
DIRECT = {**STANDALONE, "pooling": "direct"}
FULL = {
    "permify_max_replicas": 4,
    "secrets": "external-secrets",
    "distributed": True,
    "watch": True,
    "otlp_endpoint": "collector.monitoring:4317",
    "priority_class": "important",
    "client_namespaces": "shop,desk",
}
OPERATOR = {"monitoring": "prometheus-operator", "monitoring_namespace": "monitoring"}
CASES: dict[str, dict[str, Any]] = {
    "standalone": STANDALONE,
    "standalone, full": {
        **STANDALONE,
        **FULL,
        **OPERATOR,
        "database_namespace": "postgresql",
        "pgcat_max_replicas": 4,
        "client_tls": "cert-manager",
        "client_tls_issuer": "private-ca",
    },
    "sidecar": SIDECAR,
    "sidecar, full": {**SIDECAR, **FULL, **OPERATOR, "database_labels": "cnpg.io/cluster=permify"},
    "sidecar, nothing monitored": {**SIDECAR, "monitoring": "none"},
    "direct": DIRECT,
    "direct, full": {**DIRECT, **FULL, "database_tls": "verify-full", "database_ca": "configmap/ca"},
    "helm": {**STANDALONE, "permify_install": "helm"},
    "helm, direct": {**DIRECT, "permify_install": "helm"},
    "none": {**STANDALONE, "permify_install": "none", **OPERATOR},
}
every_case = pytest.mark.parametrize("answers", CASES.values(), ids=CASES.keys())
TOPOLOGIES = pytest.mark.parametrize("name", ["standalone", "sidecar", "direct"])


def built(tmp_path: Path, answers: dict[str, Any]) -> str:
    return judges.kustomize(render(tmp_path / "deploy", answers))


def left_by(answers: dict[str, Any]) -> list[str]:
    """What cannot be otherwise where somebody else makes Permify's pods: a policy without its pods."""
    installed = answers.get("permify_install", "manifests")
    return ["networkpolicy-targets-pod"] if installed != "manifests" else []


@judges.needs("kube-score")
@every_case
def test_kube_score(answers: dict[str, Any], tmp_path: Path) -> None:
    assert judges.kube_score(built(tmp_path, answers), left_by(answers)) == []


@judges.needs("checkov")
@every_case
def test_checkov(answers: dict[str, Any], tmp_path: Path) -> None:
    assert judges.checkov(built(tmp_path, answers), tmp_path) == []


@judges.needs("kyverno")
@every_case
def test_pod_security_restricted(answers: dict[str, Any], tmp_path: Path) -> None:
    assert judges.pod_security(built(tmp_path, answers), tmp_path) == []


# They are seen to find something.


def without(manifests: str, *path: Any) -> str:
    """The manifests with a field taken out of the pods of the Deployment of Permify, sidecars included."""
    objects = list(yaml.safe_load_all(manifests))
    for found in objects:
        if (found["kind"], found["metadata"]["name"]) == ("Deployment", "permify"):
            spec = found["spec"]["template"]["spec"]
            for part in (spec, *spec["initContainers"], *spec["containers"]):
                for key in path[:-1]:
                    part = part.get(key, {})
                part.pop(path[-1], None)
    return yaml.safe_dump_all(objects)


@judges.needs("kube-score")
@TOPOLOGIES
def test_kube_score_finds_a_missing_probe(name: str, tmp_path: Path) -> None:
    found = judges.kube_score(without(built(tmp_path, CASES[name]), "readinessProbe"))
    assert len(found) == 1 and "pod-probes" in found[0]


@judges.needs("checkov")
def test_checkov_finds_a_writable_root(tmp_path: Path) -> None:
    manifests = without(built(tmp_path, SIDECAR), "securityContext", "readOnlyRootFilesystem")
    found = judges.checkov(manifests, tmp_path)
    assert len(found) == 1 and "Deployment.permify.permify: CKV_K8S_22" in found[0]


@judges.needs("kyverno")
@TOPOLOGIES
@pytest.mark.parametrize(
    "field", ["capabilities", "allowPrivilegeEscalation", "runAsNonRoot", "seccompProfile"]
)
def test_pod_security_finds_what_is_not_restricted(name: str, field: str, tmp_path: Path) -> None:
    found = judges.pod_security(without(built(tmp_path, CASES[name]), "securityContext", field), tmp_path)
    assert len(found) == 1 and field in found[0]


def test_what_is_left_is_explained_to_users() -> None:
    page = (REPOSITORY / "docs" / "scanners.md").read_text()
    for check in (*judges.KUBE_SCORE_LEFT, *judges.CHECKOV_LEFT):
        assert f"`{check}`" in page, check
