"""kube-score, checkov and the Pod Security Standards have nothing to say about what kustomize builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import manifest_scanners
from kubernetes_cases import CASES, SIDECAR, TOPOLOGIES
from rendering import REPOSITORY, render

pytestmark = manifest_scanners.needs("kubectl")

every_case = pytest.mark.parametrize("answers", CASES.values(), ids=CASES.keys())
every_topology = pytest.mark.parametrize("name", TOPOLOGIES)


def built(tmp_path: Path, answers: dict[str, Any]) -> str:
    return manifest_scanners.kustomize(render(tmp_path / "deploy", answers))


def left_by(answers: dict[str, Any]) -> list[str]:
    """What cannot be otherwise where somebody else makes Permify's pods: a policy without its pods."""
    installed = answers.get("permify_install", "manifests")
    return ["networkpolicy-targets-pod"] if installed != "manifests" else []


@manifest_scanners.needs("kube-score")
@every_case
def test_kube_score(answers: dict[str, Any], tmp_path: Path) -> None:
    assert manifest_scanners.kube_score(built(tmp_path, answers), left_by(answers)) == []


@manifest_scanners.needs("checkov")
@every_case
def test_checkov(answers: dict[str, Any], tmp_path: Path) -> None:
    assert manifest_scanners.checkov(built(tmp_path, answers), tmp_path) == []


@manifest_scanners.needs("kyverno")
@every_case
def test_pod_security_restricted(answers: dict[str, Any], tmp_path: Path) -> None:
    assert manifest_scanners.pod_security(built(tmp_path, answers), tmp_path) == []


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


@manifest_scanners.needs("kube-score")
@every_topology
def test_kube_score_finds_a_missing_probe(name: str, tmp_path: Path) -> None:
    found = manifest_scanners.kube_score(without(built(tmp_path, CASES[name]), "readinessProbe"))
    assert len(found) == 1 and "pod-probes" in found[0]


@manifest_scanners.needs("checkov")
def test_checkov_finds_a_writable_root(tmp_path: Path) -> None:
    manifests = without(built(tmp_path, SIDECAR), "securityContext", "readOnlyRootFilesystem")
    found = manifest_scanners.checkov(manifests, tmp_path)
    assert len(found) == 1 and "Deployment.permify.permify: CKV_K8S_22" in found[0]


@manifest_scanners.needs("kyverno")
@every_topology
@pytest.mark.parametrize(
    "field", ["capabilities", "allowPrivilegeEscalation", "runAsNonRoot", "seccompProfile"]
)
def test_pod_security_finds_what_is_not_restricted(name: str, field: str, tmp_path: Path) -> None:
    found = manifest_scanners.pod_security(
        without(built(tmp_path, CASES[name]), "securityContext", field), tmp_path
    )
    assert len(found) == 1 and field in found[0]


def test_what_is_left_is_explained_to_users() -> None:
    page = (REPOSITORY / "docs" / "scanners.md").read_text()
    for check in (*manifest_scanners.KUBE_SCORE_LEFT, *manifest_scanners.CHECKOV_LEFT):
        assert f"`{check}`" in page, check
