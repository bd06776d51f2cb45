"""A real API server takes what is rendered: every object, as it is, twice, and with other answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kubernetes_cases import CASES, TOPOLOGIES
from live.control_plane import Answer, ControlPlane
from live.manifests import APPLIED, Applied, deployment, edited
from live.repeats import drawn

every_case = pytest.mark.parametrize("case", APPLIED)
every_topology = pytest.mark.parametrize("topology", drawn(TOPOLOGIES, {"direct"}))


def changed(applied: Answer) -> list[str]:
    """What an apply reports as anything but unchanged.

    kubectl patches the selector of a PodDisruptionBudget with itself each time, and reports it as configured.
    """
    lines = [line.removesuffix(" (server dry run)") for line in applied.lines]
    return [
        line
        for line in lines
        if not line.endswith(" unchanged")
        and not (line.startswith("poddisruptionbudget.policy/") and line.endswith(" configured"))
    ]


def content(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {name: one.get("spec", one.get("data")) for name, one in plane.objects(namespace).items()}


@every_case
def test_a_second_apply_changes_nothing(case: str, plane: ControlPlane, applied: Applied) -> None:
    deploy, first = applied(case)
    assert first.accepted, first.errors
    before = plane.versions(case)
    assert len(before) >= 6
    again = plane.apply(deploy)
    assert again.accepted, again.errors
    assert changed(again) == []
    assert len(again.lines) == len(first.lines)
    assert plane.versions(case) == before
    # Another tool takes over, as Flux would: it owns the objects from now on, and changes nothing in them.
    contents = content(plane, case)
    server_side = plane.apply(deploy, "--server-side")
    assert server_side.accepted, server_side.errors
    assert content(plane, case) == contents


@pytest.mark.parametrize("case", [case for case in APPLIED if case not in ("helm", "none")])
def test_server_side_apply_changes_nothing_the_second_time(
    case: str, plane: ControlPlane, tmp_path: Path
) -> None:
    namespace = f"server-side-{case}"
    deploy = deployment(tmp_path / "deploy", namespace, APPLIED[case])
    applied = plane.apply(deploy, "--server-side")
    assert applied.accepted, applied.errors
    before = plane.versions(namespace)
    again = plane.apply(deploy, "--server-side")
    assert again.accepted, again.errors
    assert plane.versions(namespace) == before


# Other answers, on what is there already.

ELSEWHERE = {
    "primary_host": "elsewhere:6000",
    "replica_hosts": "",
    "database_name": "other",
    "database_user": "other",
    "postgres_max_connections": 300,
    "permify_replicas": 5,
    "pgcat_replicas": 1,
    "drain_seconds": 90,
    "pgcat_image": "registry.example.com/pgcat:v1.3.0",
    "permify_image": "registry.example.com/permify:v1.7.2",
    "monitoring": "none",
    "network_policies": False,
}


def applied_over(
    plane: ControlPlane, applied: Applied, folder: Path, topology: str, answers: dict[str, Any]
) -> Answer:
    """What the API server says of the same topology with more answers, without doing it."""
    applied(topology)
    deploy = deployment(folder / "deploy", topology, {**TOPOLOGIES[topology], **answers})
    return plane.apply(deploy, "--dry-run=server")


@every_topology
@pytest.mark.parametrize("other", drawn(["full", "elsewhere"], {"elsewhere"}))
def test_other_answers_are_accepted_on_what_is_there(
    topology: str, other: str, plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    """No selector is another, nor anything else that cannot be changed."""
    answers = ELSEWHERE if other == "elsewhere" else CASES[f"{topology}-full"]
    over = applied_over(plane, applied, tmp_path, topology, answers)
    assert over.accepted, over.errors
    assert "deployment.apps/permify configured" in changed(over)


@every_topology
def test_another_number_of_pods_changes_their_deployment(
    topology: str, plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    over = applied_over(plane, applied, tmp_path, topology, {"permify_replicas": 3})
    assert over.accepted, over.errors
    # The pools follow: fewer connections for each pod where the pods themselves have them.
    new = [line for line in changed(over) if line != "deployment.apps/permify configured"]
    assert all(line.startswith("configmap/") and line.endswith(" created") for line in new), new
    assert len(new) == {"standalone": 0, "sidecar": 1, "direct": 1}[topology]


@every_topology
def test_another_version_of_permify_is_another_job(
    topology: str, plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    over = applied_over(
        plane, applied, tmp_path, topology, {"permify_image": "ghcr.io/permify/permify:v1.7.4"}
    )
    assert over.accepted, over.errors
    deployment, job = sorted(changed(over))
    assert deployment == "deployment.apps/permify configured"
    assert job.startswith("job.batch/permify-migrate-v1-7-4-") and job.endswith(" created")


# They are seen to find something.


BROKEN = {
    "a field that no object has": (
        *("permify-service.yaml", "      targetPort: grpc\n", "      targetPort: grpc\n      colour: blue\n"),
        'unknown field "spec.ports[1].colour"',
    ),
    "a value that is not allowed": (
        *("pgcat-deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 200%"),
        "spec.strategy.rollingUpdate.maxUnavailable",
    ),
    "a pod that is not restricted": (
        *("pgcat-deployment.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
        'Warning: would violate PodSecurity "restricted',
    ),
    "another selector": (
        *("pgcat-deployment.yaml", "app.kubernetes.io/name: pgcat", "app.kubernetes.io/name: pooler"),
        "field is immutable",
    ),
    "a migration that changed under the same name": (
        *("migration-job.yaml", "cpu: 50m", "cpu: 60m"),
        "field is immutable",
    ),
}


def broken(applied: Applied, folder: Path, what: tuple[str, ...]) -> Path:
    """The standalone deployment that is applied, with one thing changed."""
    deploy = shutil.copytree(applied("standalone")[0], folder / "deploy")
    return edited(deploy, *what[:3])


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_not_accepted(
    what: str, plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    over = plane.apply(broken(applied, tmp_path, BROKEN[what]), "--dry-run=server")
    assert not over.accepted
    assert BROKEN[what][3] in over.errors


def test_a_default_left_out_of_a_list_is_a_change_to_each_apply(
    plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    what = ("network-policies.yaml", "protocol: TCP, port: 6432", "port: 6432")
    over = plane.apply(broken(applied, tmp_path, what), "--dry-run=server")
    assert changed(over) == [
        "networkpolicy.networking.k8s.io/permify configured",
        "networkpolicy.networking.k8s.io/pgcat configured",
    ]


def test_an_object_that_changed_has_another_version(
    plane: ControlPlane, applied: Applied, tmp_path: Path
) -> None:
    applied("standalone")
    before = plane.versions("standalone")
    what = ("network-policies.yaml", "port: 3478", "port: 3479")
    plane.apply(broken(applied, tmp_path, what))
    after = plane.versions("standalone")
    assert [name for name in before if after[name] != before[name]] == ["NetworkPolicy/permify"]
