"""What the files say of their template after an update: its address, its version, and their answers."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from live.repeats import drawn, repeats
from old_versions import ANSWERS, NEXT, InProcess, stored, tree
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from versions import URL, Home, data

LATER = "1001.0.0"
LAST = "1002.0.0"
MAY_NAME_IT = {"README.md", "budget.yaml", ".copier-answers.yml"}
"""What carries the version or the answers' digest: nothing that runs."""


def found(folder: Path) -> set[str]:
    return {finding.code for finding in run_checks(Reading.load(folder))} & {"PS105", "PS517", "PS518"}


@pytest.mark.parametrize("topology", drawn(["docker", "standalone", "helm"], {"standalone", "helm"}))
def test_a_new_version_of_the_same_template_changes_nothing_that_runs(
    alone: InProcess, tmp_path: Path, topology: str
) -> None:
    """So an update that changes no setting restarts no pod and recreates no container."""
    alone.home.release(LATER)
    answers = {**ANSWERS[topology], "advanced": True, "forge": "github"}
    before = alone.render(tmp_path / "a", NEXT, answers)
    after = alone.render(tmp_path / "b", LATER, answers)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert {"budget.yaml", ".copier-answers.yml"} <= changed <= MAY_NAME_IT
    # What differs is in no ConfigMap, and no service mounts it.
    applied = before.get("kustomization.yaml", b"") + before.get("compose.yaml", b"")
    assert applied and not any(name.encode() in applied for name in MAY_NAME_IT)


def test_an_old_deployment_gets_its_version_and_digest(in_process: InProcess, tmp_path: Path) -> None:
    deploy = in_process.copy(tmp_path / "deploy", "1.0.0", ANSWERS["standalone"])
    assert "rendered" not in yaml.safe_load((deploy / "budget.yaml").read_text())
    assert found(deploy) == set()
    last = deploy / "budget.yaml"
    last.write_text(
        last.read_text().replace("other_connections: 20", "other_connections: 25")
    )  # every server
    in_process.home.commit(deploy)
    in_process.update_without_hooks(deploy)
    budget = yaml.safe_load((deploy / "budget.yaml").read_text())
    assert budget["rendered"]["version"] == NEXT
    assert [server["other_connections"] for server in budget["servers"]] == [25, 25]
    assert found(deploy) == set()


def test_two_updates_in_a_row_stay_in_step(alone: InProcess, tmp_path: Path) -> None:
    """With an edit beside it, another answer on the way, and nothing to change at the end."""
    alone.home.release(LATER)
    alone.home.release(LAST)
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    budget = deploy / "budget.yaml"
    budget.write_text(budget.read_text().replace("servers:", "servers: # ours"))
    alone.home.commit(deploy)
    alone.update(deploy, LATER, pgcat_replicas=3)
    assert found(deploy) == set()
    alone.home.commit(deploy)
    alone.update(deploy, LAST)
    assert found(deploy) == set()
    alone.home.commit(deploy)
    before = tree(deploy)
    alone.update(deploy, LAST)
    assert tree(deploy) == before
    assert "servers: # ours" in budget.read_text()
    assert yaml.safe_load(budget.read_text())["rendered"]["version"] == LAST


def move(home: Home, tmp_path: Path, version: str) -> str:
    """The template at another address, with a version more; returns the address."""
    moved = tmp_path / "acme.git"
    shutil.copytree(home.template, moved)
    home.git(moved, "commit", "--quiet", "--allow-empty", "--message=ours")
    home.git(moved, "tag", version)
    config = home.folder / ".gitconfig"
    config.write_text(
        config.read_text() + f'[url "file://{moved}"]\n\tinsteadOf = https://github.com/acme/stack.git\n'
    )
    return "gh:acme/stack"


def names(folder: Path, address: str) -> set[str]:
    return {name for name, text in tree(folder).items() if address.encode() in text}


def test_after_an_update_from_another_address_everything_names_it(alone: InProcess, tmp_path: Path) -> None:
    answers = {**ANSWERS["standalone"], "advanced": True, "forge": "github"}
    deploy = alone.copy(tmp_path / "deploy", NEXT, answers)
    old = names(deploy, "org/pgcat-stack")
    assert old == {
        "README.md",
        ".copier-answers.yml",
        "renovate.json",
        ".github/workflows/pgcat-stack.yml",
    }
    address = move(alone.home, tmp_path, LATER)
    file = deploy / ".copier-answers.yml"
    file.write_text(re.sub("(?m)^_src_path: .*", f"_src_path: {address}", file.read_text()))
    alone.home.commit(deploy)
    for _ in range(2):
        alone.update(deploy, LATER)
        assert names(deploy, "org/pgcat-stack") == set()
        assert names(deploy, "acme/stack") == old
        assert found(deploy) == set()
        alone.home.commit(deploy)
    # Another copy from there is the same.
    with alone.at_home():
        import copier

        copier.run_copy(
            address,
            tmp_path / "fresh",
            data=answers,
            defaults=True,
            quiet=True,
            vcs_ref=LATER,
            skip_tasks=True,
        )
    assert tree(tmp_path / "fresh") == tree(deploy)


def test_a_deployment_of_1_0_0_moves(alone: InProcess, tmp_path: Path) -> None:
    alone.home.release("1.0.0", "252d555331ad3798bc45b21851063a6ad21db365")
    alone.home.release(LATER)
    deploy = alone.copy(tmp_path / "deploy", "1.0.0", ANSWERS["docker"])
    file = deploy / ".copier-answers.yml"
    file.write_text(
        file.read_text().replace(f"_src_path: {URL}", f"_src_path: {move(alone.home, tmp_path, LAST)}")
    )
    alone.home.commit(deploy)
    alone.update_without_hooks(deploy, LAST)
    assert names(deploy, "org/pgcat-stack") == set()
    assert "https://github.com/acme/stack" in (deploy / "README.md").read_text()


def test_everything_names_the_answers_file_that_is_used(alone: InProcess, tmp_path: Path) -> None:
    """Beside another template: every command of the README finds it, also after two updates."""
    home, ours = alone.home, ".copier-answers.pgcat.yml"
    home.release(LATER)
    deploy = tmp_path / "deploy"
    run = home.copier(
        *("copy", "--trust", "--defaults", f"--vcs-ref={NEXT}", f"--answers-file={ours}"),
        *data({**ANSWERS["standalone"], "advanced": True, "forge": "github"}),
        *(URL, str(deploy)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (deploy / ".copier-answers.yml").write_text("_commit: 1\n_src_path: gh:somebody/else\ntopology: theirs\n")
    home.commit(deploy)
    readme = (deploy / "README.md").read_text()
    assert ".copier-answers.yml" not in readme.replace(ours, "")
    commands = re.findall(r"copier update[^`\n]*", readme)
    assert len(commands) > 5 and all(f"--answers-file {ours}" in command for command in commands)
    assert ours in (deploy / ".github/workflows/pgcat-stack.yml").read_text()
    for version in (LATER, LATER):
        command = next(each for each in commands if "--defaults" in each and "--data" not in each)
        run = home.run("sh", "-c", f"PATH={bin_of(home)}:$PATH {command.partition('#')[0]}", cwd=deploy)
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"_commit: {version}" in (deploy / ours).read_text()
        assert found(deploy) == set()
        home.commit(deploy)
    assert stored(deploy)["topology"] == "theirs"


def bin_of(home: Home) -> Path:
    folder = home.folder / "bin"
    folder.mkdir(exist_ok=True)
    command = folder / "copier"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m copier \"$@\"\n")
    command.chmod(0o755)
    return folder


def test_an_answer_changed_by_hand_is_noticed(alone: InProcess, tmp_path: Path) -> None:
    """Copier ends with 0 and leaves the files as they were, at the same version and at the next."""
    alone.home.release(LATER)
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    file = deploy / ".copier-answers.yml"
    file.write_text(file.read_text().replace("pgcat_replicas: 2", "pgcat_replicas: 3"))
    assert found(deploy) == {"PS518"}
    alone.home.commit(deploy)
    for version in (NEXT, LATER):
        alone.update(deploy, version)
        assert "replicas: 2" in (deploy / "kubernetes/pgcat-deployment.yaml").read_text()
        assert found(deploy) == {"PS518"}
        alone.home.commit(deploy)
    # The remedy: back to the answers that the files are of, and the new one by Copier.
    file.write_text(file.read_text().replace("pgcat_replicas: 3", "pgcat_replicas: 2"))
    assert found(deploy) == set()
    alone.home.commit(deploy)
    alone.update(deploy, LATER, pgcat_replicas=3)
    assert found(deploy) == set()
    assert "replicas: 3" in (deploy / "kubernetes/pgcat-deployment.yaml").read_text()


@repeats
def test_a_recopy_that_replaces_nothing_is_noticed(alone: InProcess, tmp_path: Path) -> None:
    """Every file was kept, and the answers file written all the same."""
    home = alone.home
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    command = "yes n | tr -d '\\n' | copier recopy --trust --defaults --data=pgcat_replicas=3"
    run = home.run("sh", "-c", f"PATH={bin_of(home)}:$PATH; {command}", cwd=deploy)
    assert (run.returncode, found(deploy)) == (0, {"PS518"}), run.stdout + run.stderr
    assert ".copier-answers.yml:1: PS518 these are not the answers" in run.stdout
    run = home.copier("recopy", "--trust", "--defaults", "--overwrite", "--data=pgcat_replicas=3", cwd=deploy)
    assert (run.returncode, found(deploy)) == (0, set()), run.stdout + run.stderr


def test_renovates_failed_update_is_noticed(alone: InProcess, tmp_path: Path) -> None:
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    file = deploy / ".copier-answers.yml"
    file.write_text(f"{file.read_text()}\n#copier updated")  # all that is in its pull request
    assert found(deploy) == {"PS517"}
    alone.home.commit(deploy)
    alone.home.release(LATER)
    alone.update(deploy, LATER)  # an update that happens removes the mark
    assert found(deploy) == set()
    older = alone.home.git(deploy, "show", "HEAD:./budget.yaml")
    (deploy / "budget.yaml").write_text(f"{older}\n")  # one side of a merge
    assert found(deploy) == {"PS517"}


@repeats
def test_a_state_that_becomes_a_release_is_updated_to_it(alone: InProcess, tmp_path: Path) -> None:
    """The commit is the same, and `git describe` calls it otherwise: no line may be taken for an edit."""
    home = alone.home
    home.commit(home.template, "not released")
    deploy = alone.copy(tmp_path / "deploy", "HEAD", ANSWERS["standalone"])
    version = yaml.safe_load((deploy / "budget.yaml").read_text())["rendered"]["version"]
    assert version.startswith(f"{NEXT}-1-g") and found(deploy) == set()
    home.git(home.template, "tag", LATER)
    for _ in range(2):
        alone.update(deploy, LATER)
        assert yaml.safe_load((deploy / "budget.yaml").read_text())["rendered"]["version"] == LATER
        assert found(deploy) == set()
        home.commit(deploy)
