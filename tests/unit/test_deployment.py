from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pgcat_stack.build.manifests import pod_containers
from pgcat_stack.reading.deployment import DeploymentError
from pgcat_stack.reading.reading import Reading

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: permify
spec:
  template:
    spec:
      initContainers:
        - name: pgcat
          image: ghcr.io/postgresml/pgcat:main
          restartPolicy: Always
      containers:
        - name: permify
          image: ghcr.io/permify/permify:v1.7.3
---
apiVersion: v1
kind: Service
metadata:
  name: permify
  namespace: own
"""


@pytest.fixture
def kubernetes(folder: Path) -> Path:
    (folder / "compose.yaml").unlink()
    (folder / "kubernetes").mkdir()
    (folder / "kubernetes/permify.yaml").write_text(DEPLOYMENT)
    (folder / "kubernetes/unlisted.yaml").write_text("kind: Secret\nmetadata: {name: x}\n")
    (folder / "kustomization.yaml").write_text(
        "namespace: permify\nresources: [kubernetes/permify.yaml, kubernetes/missing.yaml, ../outside.yaml]\n"
    )
    return folder


def test_a_docker_deployment(folder: Path) -> None:
    deployment = Reading.load(folder)
    assert deployment.compose and deployment.pgcat and deployment.permify
    assert deployment.kustomization is None and deployment.budget is None
    assert deployment.manifests == ()
    assert deployment.pgcat_image == "ghcr.io/postgresml/pgcat:v1.2.0"
    assert deployment.pgcat_version == "1.2"


def test_manifests_are_what_the_kustomization_lists(kubernetes: Path) -> None:
    manifests = Reading.load(kubernetes).manifests
    assert [(m.kind, m.name, m.namespace, m.document) for m in manifests] == [
        ("Deployment", "permify", "permify", 0),
        ("Service", "permify", "permify", 1),
    ]


def test_manifests_know_their_lines(kubernetes: Path) -> None:
    deployment, service = Reading.load(kubernetes).manifests
    assert deployment.line("spec", "template", "spec", "initContainers", 0, "image") == 10
    assert service.line("metadata", "namespace") == 20
    assert service.at("kind").path == "kubernetes/permify.yaml"
    assert deployment.get("metadata", "name") == "permify"
    assert deployment.get("spec", "nothing", 3) is None


def test_the_image_of_a_sidecar_decides_the_version(kubernetes: Path) -> None:
    assert Reading.load(kubernetes).pgcat_version == "1.3"


def test_folders_of_resources_and_their_loops(kubernetes: Path) -> None:
    (kubernetes / "kustomization.yaml").write_text("resources: [kubernetes]\n")
    (kubernetes / "kubernetes/kustomization.yaml").write_text(
        "namespace: inner\nresources: [permify.yaml, ../, .]\n"
    )
    manifests = Reading.load(kubernetes).manifests
    assert [(m.kind, m.namespace) for m in manifests] == [("Deployment", "inner"), ("Service", "inner")]


def test_containers_of_cron_jobs_and_pods() -> None:
    template = {"spec": {"containers": [{"name": "a"}, "not a container"]}}
    cron = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert [container["name"] for _, container in pod_containers(cron)] == ["a"]
    assert [path for path, _ in pod_containers({"kind": "Pod", **template})] == [("spec", "containers", 0)]


@pytest.mark.parametrize(
    "text", ["", "[]", "resources: 5", "resources: [5, null, {}]", "resources: [.]", "a: ["]
)
def test_kustomizations_of_any_shape(kubernetes: Path, text: str) -> None:
    (kubernetes / "kustomization.yaml").write_text(text)
    assert Reading.load(kubernetes).manifests == ()


def test_folders_that_are_no_deployment(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="not a rendered deployment"):
        Reading.load(tmp_path)
    with pytest.raises(DeploymentError, match="no such folder"):
        Reading.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError, match="not a folder"):
        Reading.load(tmp_path / "file")


def test_permify_alone_is_a_deployment(folder: Path) -> None:
    (folder / "compose.yaml").unlink()
    shutil.rmtree(folder / "pgcat")
    assert Reading.load(folder).pgcat is None
