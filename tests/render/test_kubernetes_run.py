"""What can be known without a cluster of tests/kubernetes/run, which brings each topology up on one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgcat_stack.checks import kubernetes_schema, run_checks
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY, render

FOLDER = REPOSITORY / "tests" / "kubernetes"
SCRIPT = FOLDER / "run"
TOPOLOGIES = ["standalone", "sidecar", "direct"]


def rendered(topology: str, tmp_path: Path) -> Path:
    answers: dict[str, Any] = yaml.safe_load((FOLDER / f"{topology}.yaml").read_text())
    return render(tmp_path / "deploy", answers)


def blocks(deploy: Path) -> list[str]:
    """The commands of the README, block by block."""
    return re.findall(r"^```bash\n(.*?)^```$", (deploy / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_its_answers_render_what_it_asks_for(topology: str, tmp_path: Path) -> None:
    deploy = rendered(topology, tmp_path)
    assert run_checks(Reading.load(deploy)) == []
    assert yaml.safe_load((deploy / "kustomization.yaml").read_text())["namespace"] == topology
    assert (deploy / "pgcat").exists() == (topology != "direct")
    assert (deploy / "kubernetes" / "pgcat-deployment.yaml").exists() == (topology == "standalone")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_lists_leave_no_default_to_be_added(topology: str, tmp_path: Path) -> None:
    """kubectl and Argo CD compare such lists as they are: with a default added, each apply is a change."""
    answers = yaml.safe_load((FOLDER / f"{topology}.yaml").read_text())
    deploy = render(
        tmp_path / "deploy",
        answers,
        secrets="external-secrets",
        distributed=True,
        otlp_endpoint="collector.monitoring:4317",
    )
    policies = yaml.safe_load_all((deploy / "kubernetes" / "network-policies.yaml").read_text())
    rules = [rule for each in policies for way in ("ingress", "egress") for rule in each["spec"].get(way, [])]
    ports = [port for rule in rules for port in rule["ports"]]
    assert len(ports) > 5 and all(port.keys() == {"protocol", "port"} for port in ports)
    secrets = yaml.safe_load_all((deploy / "kubernetes" / "external-secrets.yaml").read_text())
    for reference in [data["remoteRef"] for each in secrets for data in each["spec"]["data"]]:
        assert (
            reference.items()
            >= {
                "conversionStrategy": "Default",
                "decodingStrategy": "None",
                "metadataPolicy": "None",
            }.items()
        )


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_readme_has_the_commands_that_it_runs(topology: str, tmp_path: Path) -> None:
    readme = blocks(rendered(topology, tmp_path))
    texts = re.findall(r'^as_the_readme_says "(.*)"$', SCRIPT.read_text(), re.MULTILINE)
    secrets, apply = [next(block for block in readme if text in block) for text in texts]
    assert f"kubectl -n {topology} create secret generic permify-database" in secrets
    assert ("pgcat-admin" in secrets) == (topology != "direct")
    assert "<FILE" in secrets and "FILE" not in apply
    assert f"kubectl -n {topology} wait --for=condition=complete job/permify-migrate-" in apply
    assert f"kubectl -n {topology} rollout status deployment/permify\n" in apply
    waits_for_pgcat = f"kubectl -n {topology} rollout status deployment/pgcat &&\n" in apply
    assert waits_for_pgcat == (topology == "standalone")


def test_the_manifests_of_its_postgresql_pass_the_schema() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    objects = list(yaml.safe_load_all((FOLDER / "postgres.yaml").read_text()))
    assert [found["kind"] for found in objects] == ["Namespace", "Deployment", "Service"]
    for found in objects:
        kubernetes_validate.validate(found, kubernetes_schema.OLDEST_KUBERNETES, strict=True)


def test_its_postgresql_is_the_one_the_template_was_tested_with(tmp_path: Path) -> None:
    compose = yaml.safe_load((render(tmp_path / "deploy") / "compose.yaml").read_text())
    postgres = list(yaml.safe_load_all((FOLDER / "postgres.yaml").read_text()))[1]
    image = postgres["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == compose["services"]["postgres-primary"]["image"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not on PATH")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_shell_reads_it() -> None:
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)
