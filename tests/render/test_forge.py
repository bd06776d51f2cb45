"""What forge=github adds: a workflow, Renovate's configuration, hooks of pre-commit."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from rendering import KUBERNETES, render

ADDED = {".github/workflows/pgcat-stack.yml", "renovate.json", ".pre-commit-config.yaml"}
ANSWERS = {
    "docker": {"topology": "docker"},
    "standalone": {"topology": "standalone", **KUBERNETES},
}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(params=ANSWERS)
def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return render(tmp_path / "deploy", {**ANSWERS[request.param], "advanced": True, "forge": "github"})


def test_nothing_else_differs(deploy: Path, tmp_path: Path) -> None:
    topology = "docker" if (deploy / "compose.yaml").exists() else "standalone"
    bare = files(render(tmp_path / "bare", {**ANSWERS[topology], "advanced": True}))
    found = files(deploy)
    assert found.keys() - bare.keys() == ADDED
    assert {name for name in bare if bare[name] != found[name]} == {".copier-answers.yml"}


def test_the_workflow_runs_the_validator_of_the_version_that_rendered(deploy: Path) -> None:
    workflow = yaml.safe_load((deploy / ".github/workflows/pgcat-stack.yml").read_text())
    (_, validate) = workflow["jobs"]["validate"]["steps"]
    answers = deploy / ".copier-answers.yml"
    answers.write_text("_commit: 1.2.3\n" + answers.read_text())
    shown = subprocess.run(
        ["sh", "-euc", 'pipx() { printf "%s\\n" "$@"; }\n' + validate["run"]],
        cwd=deploy,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    source = yaml.safe_load(answers.read_text())["_src_path"]
    assert shown == ["run", "--spec", f"git+{source}@1.2.3", "pgcat-stack", "validate", "."]


def test_renovate_reads_its_configuration(deploy: Path) -> None:
    """Against Renovate's schema where RENOVATE_SCHEMA names it (renovate-schema.json of its package)."""
    configuration = json.loads((deploy / "renovate.json").read_text())
    docker = (deploy / "compose.yaml").exists()
    assert ("docker-compose" in configuration["enabledManagers"]) == docker
    assert all("matchManagers" in rule for rule in configuration["packageRules"])
    schema = os.environ.get("RENOVATE_SCHEMA")
    if schema:
        jsonschema = pytest.importorskip("jsonschema")
        jsonschema.validate(configuration, json.loads(Path(schema).read_text()))


@pytest.mark.parametrize(
    ("name", "text", "hook"),
    [
        (
            "README.md",
            "a\n<<<<<<< before updating\nb\n=======\nc\n>>>>>>> after updating\n",
            "conflict-markers",
        ),
        ("pgcat/pgcat.toml.rej", "@@ -1 +1 @@\n", "leftovers"),
    ],
)
def test_no_commit_takes_what_could_not_be_merged(deploy: Path, name: str, text: str, hook: str) -> None:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PRE_COMMIT_HOME": str(deploy.parent / "cache"),
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=deploy, capture_output=True, text=True, env=environment)

    run("git", "init", "--quiet")
    run("git", "add", "--all")
    clean = run("pre-commit", "run", "--all-files")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (deploy / name).write_text(text)
    run("git", "add", "--all")
    caught = run("pre-commit", "run", "--all-files")
    assert caught.returncode == 1
    assert f"hook id: {hook}" in caught.stdout
