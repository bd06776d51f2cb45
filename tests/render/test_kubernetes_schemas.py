"""Every manifest that can be rendered passes the Kubernetes schemas, oldest and newest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgcat_stack.checks import kubernetes_schema, run_checks
from pgcat_stack.reading.reading import Reading
from rendering import render

KUBERNETES = {"primary_host": "db", "replica_hosts": "10.0.0.5:5433"}


@pytest.fixture(autouse=True)
def schemas() -> Iterator[None]:
    pytest.importorskip("kubernetes_validate")
    assert kubernetes_schema.enable()
    yield
    kubernetes_schema.ENABLED = False


@pytest.mark.parametrize("secrets", ["existing", "external-secrets"])
@pytest.mark.parametrize("permify_max_replicas", [0, 4])
@pytest.mark.parametrize(
    ("topology", "pooling", "permify_install"),
    [
        ("standalone", "pgcat", "manifests"),
        ("standalone", "pgcat", "helm"),
        ("standalone", "direct", "manifests"),
        ("sidecar", "pgcat", "manifests"),
    ],
)
def test_manifests_pass_the_schemas(
    topology: str, pooling: str, permify_install: str, permify_max_replicas: int, secrets: str, tmp_path: Path
) -> None:
    deploy = render(
        tmp_path / "deploy",
        KUBERNETES,
        topology=topology,
        pooling=pooling,
        permify_install=permify_install,
        permify_max_replicas=permify_max_replicas,
        pgcat_max_replicas=permify_max_replicas,
        secrets=secrets,
    )
    assert run_checks(Reading.load(deploy)) == []


def test_a_field_of_the_wrong_place_is_found(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", KUBERNETES, topology="standalone")
    path = deploy / "kubernetes" / "pgcat-service.yaml"
    path.write_text(path.read_text() + "  replicas: 3\n")
    assert [finding.code for finding in run_checks(Reading.load(deploy))] == ["PS903"]
