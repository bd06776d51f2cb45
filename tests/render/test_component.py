"""A sidecar for a Deployment of Permify that is somebody else's: the deployment is a kustomize component."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgcat_stack.budget import plan
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import KUBERNETES, render

COMPONENT = {"topology": "sidecar", "permify_install": "none", "permify_replicas": 3, **KUBERNETES}
OWN = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: permify
spec:
  replicas: 3
  selector:
    matchLabels:
      app: authorization
  template:
    metadata:
      labels:
        app: authorization
    spec:
      initContainers:
        - name: own
          image: example.com/own:1
      containers:
        - name: permify
          image: ghcr.io/permify/permify:v1.7.3
          env:
            - name: PERMIFY_LOG_LEVEL
              value: warn
---
apiVersion: batch/v1
kind: Job
metadata:
  name: own
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: own
          image: example.com/own:1
"""
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: authorization
resources:
  - own.yaml
components:
  - component
"""


def built(folder: Path, **more: Any) -> dict[str, dict[str, Any]]:
    """The objects that a team's own kustomization gives with the component, by kind and name."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on PATH")
    folder.mkdir()
    render(folder / "component", {**COMPONENT, **more})
    (folder / "own.yaml").write_text(OWN)
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION)
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}


@pytest.mark.parametrize("monitoring", ["none", "prometheus"])
def test_pgcat_joins_a_deployment_that_keeps_what_is_its_own(tmp_path: Path, monitoring: str) -> None:
    objects = built(tmp_path / "team", monitoring=monitoring)
    deployment = objects["Deployment/permify"]
    spec = deployment["spec"]
    assert spec["replicas"] == 3
    assert spec["selector"] == {"matchLabels": {"app": "authorization"}}
    assert spec["minReadySeconds"] == spec["template"]["spec"]["terminationGracePeriodSeconds"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels["app"] == "authorization" and labels["app.kubernetes.io/name"] == "permify"
    pod = spec["template"]["spec"]
    first, second = pod["initContainers"]
    assert (first["name"], first["restartPolicy"]) == ("pgcat", "Always")
    assert second["name"] == "own"
    (permify,) = pod["containers"]
    assert permify["image"] == "ghcr.io/permify/permify:v1.7.3"
    assert [variable["name"] for variable in permify["env"]] == ["PGPASSWORD", "PERMIFY_LOG_LEVEL"]
    maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert {f"ConfigMap/{name}" for name in maps} < set(objects)  # with their hashes
    assert all(one["metadata"]["namespace"] == "authorization" for one in objects.values())


def test_pods_of_jobs_get_no_pgcat(tmp_path: Path) -> None:
    pod = built(tmp_path / "team")["Job/own"]["spec"]["template"]["spec"]
    assert "initContainers" not in pod and "volumes" not in pod


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_the_validator_counts_the_processes_that_budget_yaml_allows(tmp_path: Path, pool_mode: str) -> None:
    deploy = render(tmp_path / "component", {**COMPONENT, "pool_mode": pool_mode})
    deployment = Reading.load(deploy)
    # Nothing here says who may call a Permify that is deployed elsewhere.
    assert [finding.code for finding in run_checks(deployment)] == ["PS321"]
    (first, *_) = plan(deployment).rows
    assert {use.instances.count for use in first.uses} == {5}


def test_a_patch_is_judged_like_the_manifest_that_it_completes(tmp_path: Path) -> None:
    deploy = render(tmp_path / "component", COMPONENT)
    patch = deploy / "kubernetes" / "permify-sidecar.yaml"
    rendered = patch.read_text()
    for old, new, code in [
        ("restartPolicy: Always", "restartPolicy: OnFailure", "PS609"),
        ("seconds: 60", "seconds: 70", "PS603"),
        ("minReadySeconds: 85", "minReadySeconds: 5", "PS501"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "PS812"),
    ]:
        assert old in rendered
        patch.write_text(rendered.replace(old, new))
        assert code in {finding.code for finding in run_checks(Reading.load(deploy))}
