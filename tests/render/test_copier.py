"""The real `copier` command on a git repository with tags: trust, tasks, refusals, updates."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from live.repeats import drawn, repeats
from versions import URL, Home


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The template as it is, tagged 0.1.0, and with one more file, tagged 0.2.0."""
    home = Home(tmp_path_factory.mktemp("home")).prepare()
    home.release("0.1.0")
    home.release("0.2.0", files={"template/NEWS.md": "new in 0.2.0\n"})
    return home


def test_copy_with_trust_validates_and_makes_secrets(home: Home, tmp_path: Path) -> None:
    run = home.copier("copy", "--trust", "--defaults", URL, str(tmp_path / "deploy"))
    assert run.returncode == 0, run.stderr
    output = run.stdout + run.stderr
    assert "0 errors, 0 warnings" in output
    assert "1 PgCat instance × (writer 20 + reader 20) + 3 for the migration = 43 of 80 connections" in output
    assert "docker compose up --wait" in output
    answers = (tmp_path / "deploy" / ".copier-answers.yml").read_text()
    assert "_src_path: gh:org/pgcat-stack" in answers
    assert "_commit: 0.2.0" in answers
    for line in (tmp_path / "deploy" / "secrets").iterdir():
        assert line.read_text().strip() not in output + answers


TOKEN = "s3cr3t-Value"
WITH_TOKEN = f"https://oauth2:{TOKEN}@github.com/org/pgcat-stack.git"


@pytest.fixture(scope="session")
def reached_with_a_token(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of its own: Copier caches the template, with the token, for the address without one as well."""
    home = Home(tmp_path_factory.mktemp("home-token")).prepare()
    home.release("0.1.0")
    with (home.folder / ".gitconfig").open("a") as settings:
        settings.write(f'[url "file://{home.template}"]\n\tinsteadOf = {WITH_TOKEN}\n')
    return home


@pytest.mark.parametrize("forge", drawn(["none", "github"], {"none"}))
def test_a_token_in_the_address_of_the_template_stops_a_copy(
    reached_with_a_token: Home, tmp_path: Path, forge: str
) -> None:
    answers = ("--data", "advanced=true", "--data", f"forge={forge}")
    deploy = tmp_path / "deploy"
    run = reached_with_a_token.copier("copy", "--trust", "--defaults", *answers, WITH_TOKEN, str(deploy))
    shown = run.stdout + run.stderr
    assert run.returncode != 0 and not deploy.exists()
    assert re.search(r"^\.copier-answers\.yml:\d+: PS711 the template's address carries a token", shown, re.M)
    assert TOKEN not in shown and "Traceback" not in shown


@pytest.mark.parametrize("forge", drawn(["none", "github"], {"none"}))
def test_only_the_answers_file_has_the_address_with_its_token(
    reached_with_a_token: Home, tmp_path: Path, forge: str
) -> None:
    home, deploy = reached_with_a_token, tmp_path / "deploy"
    answers = ("--data", "advanced=true", "--data", f"forge={forge}")
    run = home.copier("copy", "--skip-tasks", "--trust", "--defaults", *answers, WITH_TOKEN, str(deploy))
    assert run.returncode == 0, run.stderr
    files = {path for path in deploy.rglob("*") if path.is_file()}
    assert {path.name for path in files if TOKEN in path.read_text()} == {".copier-answers.yml"}
    if forge == "github":
        workflow = (deploy / ".github/workflows/pgcat-stack.yml").read_text()
        assert "git+https://github.com/org/pgcat-stack.git@" in workflow
    home.commit(deploy, "deployment")
    run = home.copier("update", "--trust", "--defaults", str(deploy), cwd=deploy)
    shown = run.stdout + run.stderr
    assert run.returncode != 0 and ": PS711 " in shown and TOKEN not in shown
    assert (deploy / "compose.yaml").exists()


def test_trusted_settings_need_no_flag(home: Home, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yml"
    settings.write_text('trust: ["gh:org/"]\n')
    os.environ["COPIER_SETTINGS_PATH"] = str(settings)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "copier", "copy", "--defaults", URL, str(tmp_path / "deploy")],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HOME": str(home.folder)},
        )
    finally:
        del os.environ["COPIER_SETTINGS_PATH"]
    assert run.returncode == 0, run.stderr
    assert "0 errors, 0 warnings" in run.stdout + run.stderr


def test_without_trust_nothing_is_made(home: Home, tmp_path: Path) -> None:
    run = home.copier("copy", "--defaults", URL, str(tmp_path / "deploy"))
    assert run.returncode == 4
    assert "--trust" in run.stderr
    assert not (tmp_path / "deploy").exists()


def test_skip_tasks_copies_without_trust_and_says_so(home: Home, tmp_path: Path) -> None:
    run = home.copier("copy", "--skip-tasks", "--defaults", URL, str(tmp_path / "deploy"))
    assert run.returncode == 0, run.stderr
    assert "The hooks were skipped" in run.stdout + run.stderr
    assert not (tmp_path / "deploy" / "secrets").exists()


@pytest.mark.parametrize("tasks", drawn(["--trust", "--skip-tasks"], {"--trust"}))
@pytest.mark.parametrize(
    "arguments",
    [
        ["--defaults", "--data", "topology=standalone"],
        pytest.param(["--defaults", "--data", "permify_replicas=lots"], marks=repeats),
        ["--defaults", "--data", "pool_mode=session", "--data", "permify_replicas=90"],
        ["--data", "topology=standalone", "--data", "primary_host=db!1"],
        pytest.param(
            ["--defaults", "--data", "topology=standalone", "--data", "primary_host=db_1"], marks=repeats
        ),
        ["--data-file", "answers.yml", "--defaults"],
    ],
    ids=" ".join,
)
def test_a_refusal_is_one_line_and_leaves_nothing(
    home: Home, tmp_path: Path, arguments: list[str], tasks: str
) -> None:
    (tmp_path / "answers.yml").write_text("topology: standalone\nprimary_host: [db1, db2]\n")
    run = home.copier("copy", tasks, *arguments, URL, str(tmp_path / "deploy"), cwd=tmp_path)
    assert run.returncode == 1
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert "pgcat-stack refuses" in lines[0]
    assert not (tmp_path / "deploy").exists()


def test_no_terminal_and_no_answers_is_one_line(home: Home, tmp_path: Path) -> None:
    run = home.copier("copy", "--trust", URL, str(tmp_path / "deploy"))
    assert run.returncode == 1
    assert "--defaults" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "deploy").exists()


def test_update_keeps_edits_answers_and_secrets(home: Home, tmp_path: Path) -> None:
    deploy = home.deployment(
        tmp_path / "deploy", "0.1.0", "topology=standalone", "primary_host=db", "permify_replicas=3"
    )
    toml = deploy / "pgcat" / "pgcat.toml"
    toml.write_text(toml.read_text().replace("ban_time = 60", "ban_time = 30"))
    home.git(deploy, "commit", "--quiet", "--all", "--message=edit")
    run = home.copier("update", "--trust", "--defaults", str(deploy))
    assert run.returncode == 0, run.stderr
    assert "ban_time = 30" in toml.read_text()
    assert (deploy / "NEWS.md").exists()
    answers = (deploy / ".copier-answers.yml").read_text()
    assert "permify_replicas: 3" in answers
    assert "_commit: 0.2.0" in answers


def test_update_that_finds_errors_keeps_the_edits(home: Home, tmp_path: Path) -> None:
    """The hook runs when the edits are back in place: it reports what they break and loses none of them."""
    deploy = home.deployment(tmp_path / "deploy", "0.1.0")
    toml = deploy / "pgcat" / "pgcat.toml"
    toml.write_text(toml.read_text().replace("ban_time = 60", "bann_time = 60"))
    home.git(deploy, "commit", "--quiet", "--all", "--message=edit")
    run = home.copier("update", "--trust", "--defaults", str(deploy))
    assert run.returncode != 0
    assert "bann_time" in run.stdout + run.stderr
    assert "bann_time = 60" in toml.read_text()
    assert (deploy / "NEWS.md").exists()


def test_a_refused_update_changes_nothing(home: Home, tmp_path: Path) -> None:
    deploy = home.deployment(tmp_path / "deploy", "0.1.0", "topology=sidecar", "primary_host=db")
    run = home.copier("update", "--trust", "--defaults", "--data", "permify_replicas=40", str(deploy))
    assert run.returncode == 1
    assert "pgcat-stack refuses budget" in run.stderr
    assert home.status(deploy) == ""


def test_an_answer_that_would_be_forgotten_is_refused(home: Home, tmp_path: Path) -> None:
    deploy = home.deployment(tmp_path / "deploy", "0.1.0", "topology=standalone", "primary_host=db")
    run = home.copier("update", "--trust", "--defaults", "--data", "drain_seconds=90", str(deploy))
    assert run.returncode == 1
    assert "answer advanced=true, too" in run.stderr
    assert home.status(deploy) == ""


def test_a_deployment_that_moves_to_docker_keeps_its_database(home: Home, tmp_path: Path) -> None:
    deploy = home.deployment(
        tmp_path / "deploy", "0.1.0", "topology=standalone", "primary_host=db", "replica_hosts=r"
    )
    run = home.copier("update", "--trust", "--defaults", "--data", "topology=docker", str(deploy))
    assert run.returncode == 0, run.stderr
    answers = (deploy / ".copier-answers.yml").read_text()
    assert "database: external" in answers
    assert "primary_host: db" in answers
    assert not (deploy / "kubernetes").exists()


def test_copy_over_a_leftover_of_an_update_reports_it(home: Home, tmp_path: Path) -> None:
    """A task that fails on copy removes the folder that the copy made."""
    run = home.copier("copy", "--trust", "--defaults", URL, str(tmp_path / "deploy"))
    assert run.returncode == 0
    (tmp_path / "deploy" / "pgcat" / "pgcat.toml.rej").write_text("left over\n")
    again = home.copier("copy", "--trust", "--defaults", "--overwrite", URL, str(tmp_path / "deploy"))
    assert again.returncode != 0
    assert "pgcat.toml.rej" in again.stdout + again.stderr
    assert (tmp_path / "deploy" / "compose.yaml").exists()
