"""What others say of rendered manifests: kube-score, checkov, and Kyverno for the Pod Security Standards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

# What they find and we leave; docs/scanners.md says why.
KUBE_SCORE_LEFT = ("container-image-pull-policy", "container-ephemeral-storage-request-and-limit")
CHECKOV_LEFT = ("CKV_K8S_11", "CKV_K8S_15", "CKV_K8S_35", "CKV_K8S_43")
# The Pod Security Standards as the API server's own library knows them, which Kyverno has built in.
RESTRICTED = {
    "apiVersion": "kyverno.io/v1",
    "kind": "ClusterPolicy",
    "metadata": {"name": "restricted"},
    "spec": {
        "validationFailureAction": "Enforce",
        "background": True,
        "rules": [
            {
                "name": "restricted",
                "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                "validate": {"podSecurity": {"level": "restricted", "version": "latest"}},
            }
        ],
    },
}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not on PATH")


def _run(command: list[str], text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def kustomize(deploy: Path) -> str:
    done = _run(["kubectl", "kustomize", str(deploy)])
    assert done.returncode == 0, done.stderr
    return done.stdout


def kube_score(manifests: str, left: Iterable[str] = ()) -> list[str]:
    """Critical findings, as `Kind/name: check: what`."""
    command = ["kube-score", "score", "--output-format", "json", "--ignore-container-cpu-limit"]
    for check in (*KUBE_SCORE_LEFT, *left):
        command += ["--ignore-test", check]
    done = _run([*command, "-"], manifests)
    objects = json.loads(done.stdout)
    assert {found["object_name"] for found in objects}
    return [
        f"{found['type_meta']['kind']}/{found['object_meta']['name']}: {check['check']['id']}:"
        f" {'; '.join(comment['summary'] for comment in check['comments'] or [])}"
        for found in objects
        for check in found["checks"]
        if check["grade"] == 1 and not check["skipped"]
    ]


def checkov(manifests: str, folder: Path, left: Iterable[str] = ()) -> list[str]:
    """Failed checks, as `Kind.namespace.name: check: what`."""
    path = folder / "manifests.yaml"
    path.write_text(manifests)
    command = ["checkov", "--framework", "kubernetes", "--file", str(path), "--output", "json", "--compact"]
    command += ["--skip-download", "--skip-check", ",".join((*CHECKOV_LEFT, *left))]
    done = _run(command, HOME=str(folder))
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["passed"] > 0 and report["summary"]["parsing_errors"] == 0
    return [
        f"{found['resource']}: {found['check_id']}: {found['check_name']}"
        for found in report["results"]["failed_checks"]
    ]


def pod_security(manifests: str, folder: Path) -> list[str]:
    """What breaks the Pod Security Standard "restricted", as `Kind/name: what`."""
    policy, path = folder / "restricted.yaml", folder / "pods.yaml"
    policy.write_text(yaml.safe_dump(RESTRICTED))
    path.write_text(manifests)
    command = ["kyverno", "apply", str(policy), "--resource", str(path), "--policy-report"]
    done = _run([*command, "--output-format", "json"], HOME=str(folder))
    judged = {
        f"{found['resources'][0]['kind']}/{found['resources'][0]['name']}": found
        for found in json.loads(done.stdout)["results"]
    }
    objects = [found for found in yaml.safe_load_all(manifests) if found]
    workloads = {
        f"{found['kind']}/{found['metadata']['name']}"
        for found in objects
        if "template" in found.get("spec", {})
    }
    assert workloads and judged.keys() == workloads
    return [f"{name}: {found['message']}" for name, found in judged.items() if found["result"] != "pass"]
