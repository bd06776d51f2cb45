"""What forge=github adds: a workflow, Renovate's configuration, hooks of pre-commit."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path, PurePath

import pytest
import yaml

from rendering import KUBERNETES, environment, render

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
    differ = {name for name in bare if bare[name] != found[name]}
    assert differ == {".copier-answers.yml", "budget.yaml"}  # which names the answers


@pytest.mark.parametrize("commit", ["1.2.3", "'2.0'", "1.2.3-4-g0123abc", "'0123456'"])
def test_the_workflow_runs_the_validator_of_the_version_in_the_answers_file(
    deploy: Path, commit: str
) -> None:
    step = workflow_step(deploy, "gh:org/pgcat-stack")
    answers = deploy / ".copier-answers.yml"
    answers.write_text(f"_commit: {commit}\n" + answers.read_text())
    code, shown = run_step(step, deploy)
    version = commit.strip("'")
    assert code == 0
    assert shown == [
        "run",
        "--spec",
        f"git+https://github.com/org/pgcat-stack@{version}",
        "pgcat-stack",
        "validate",
        ".",
    ]


def test_the_workflow_says_why_it_can_run_no_validator(deploy: Path) -> None:
    code, shown = run_step(workflow_step(deploy, "gh:org/pgcat-stack"), deploy)  # no _commit: not from git
    assert code != 0 and "no _commit in the answers file" in "".join(shown)
    for address in ("../stack", "/srv/stack", "~/stack", "file:///srv/stack"):
        code, shown = run_step(workflow_step(deploy, address), deploy)
        assert code == 1 and shown[0].startswith("::error::no address of the template")


@pytest.mark.parametrize(
    "address", ["gh:org/x", "git@git.example.com:org/x.git", "https://a:s3cret@example.com/x.git"]
)
def test_a_step_for_each_address_passes_no_secret_on(deploy: Path, address: str) -> None:
    step = workflow_step(deploy, address)
    assert "pipx run" in step and "s3cret" not in step and "s3cret" not in renovate(address)
    assert json.loads(renovate(address))["packageRules"][-1].keys() >= {"overridePackageName"}


@pytest.mark.parametrize("address", ["../x", "/srv/x", 'x"y'])
def test_renovate_is_not_asked_about_a_folder(address: str) -> None:
    rule = json.loads(renovate(address))["packageRules"][-1]
    assert rule["enabled"] is False and "folder" in rule["description"]


def from_address(name: str, address: str) -> str:
    """A file of the template as it is rendered from this address."""
    context = {
        "_copier_answers": {"_src_path": address},
        "_copier_conf": {"data": {}, "answers_file": PurePath(".copier-answers.yml")},
    }
    return environment().get_template(f"template/{name}.jinja").render(context)


def renovate(address: str) -> str:
    return from_address("renovate.json", address)


def workflow_step(deploy: Path, address: str) -> str:
    """What the workflow's last step runs."""
    assert (deploy / ".github/workflows/pgcat-stack.yml").exists()
    workflow = yaml.safe_load(from_address(".github/workflows/pgcat-stack.yml", address))
    return str(workflow["jobs"]["validate"]["steps"][-1]["run"])


def run_step(step: str, deploy: Path) -> tuple[int, list[str]]:
    """Its exit code, and the arguments that pipx gets or what is printed, line by line."""
    command = ["bash", "-euc", 'pipx() { printf "%s\\n" "$@"; }\n' + step]
    run = subprocess.run(command, cwd=deploy, capture_output=True, text=True)
    return run.returncode, (run.stdout + run.stderr).splitlines()


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
