"""The migration Job: a Job cannot be changed, so whatever changes in it must change its name."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from rendering import KUBERNETES, render

STANDALONE = {"topology": "standalone", **KUBERNETES}
VERIFIED = {**STANDALONE, "pooling": "direct", "database_tls": "verify-full"}


def job(folder: Path, answers: dict[str, Any]) -> tuple[str, str]:
    """The Job's name, and its specification as text."""
    text = (render(folder, answers) / "kubernetes" / "migration-job.yaml").read_text()
    _, _, spec = text.partition("\nspec:\n")
    return yaml.safe_load(text)["metadata"]["name"], textwrap.dedent(spec).rstrip("\n")


@pytest.mark.parametrize(
    "answers",
    [
        STANDALONE,
        {**STANDALONE, "topology": "sidecar", "priority_class": "high"},
        {**STANDALONE, "permify_install": "helm", "pgcat_image": "example.com/pgcat:1"},
        VERIFIED,
        {**VERIFIED, "database_ca": "configmap/roots"},
    ],
)
def test_the_name_carries_a_hash_of_the_whole_specification(tmp_path: Path, answers: dict[str, Any]) -> None:
    name, spec = job(tmp_path / "deploy", answers)
    assert name == f"permify-migrate-v1-7-3-{hashlib.sha1(spec.encode()).hexdigest()[:8]}"


def test_another_specification_is_another_job(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"permify_image": "ghcr.io/permify/permify:v1.7.2"},
        {"primary_host": "elsewhere"},
        {"database_user": "somebody"},
        {"priority_class": "high"},
        {"pgcat_image": "example.com/pgcat:1"},
    ]
    names = {job(tmp_path / str(number), {**STANDALONE, **one})[0] for number, one in enumerate(changes)}
    assert len(names) == len(changes)


def test_what_is_not_in_it_leaves_the_job_alone(tmp_path: Path) -> None:
    one = job(tmp_path / "one", STANDALONE)
    assert job(tmp_path / "other", {**STANDALONE, "permify_replicas": 3, "drain_seconds": 90}) == one


@pytest.mark.parametrize("answers", [STANDALONE, {**STANDALONE, "topology": "sidecar"}, VERIFIED])
def test_permify_waits_for_what_the_job_notes(tmp_path: Path, answers: dict[str, Any]) -> None:
    deploy = render(tmp_path / "deploy", answers) / "kubernetes"
    migration = yaml.safe_load((deploy / "migration-job.yaml").read_text())["spec"]["template"]["spec"]
    permify = yaml.safe_load((deploy / "permify-deployment.yaml").read_text())["spec"]["template"]["spec"]
    wait = permify["initContainers"][-1]
    environment = {variable["name"]: variable.get("value") for variable in wait["env"]}
    notes = "\n".join(migration["containers"][0]["command"])
    assert f"VALUES ('{environment['MIGRATION']}')" in notes
    assert wait["image"] == migration["containers"][0]["image"]
