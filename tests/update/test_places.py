"""Where deployments and templates are: several in a repository, other answers files, a fork."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from live.repeats import drawn
from old_versions import ANSWERS, NEXT, InProcess, stored, tree
from rendering import REPOSITORY
from versions import URL, Home, data


def test_deployments_in_one_repository_are_updated_one_by_one(home: Home, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    home.git(tmp_path / "repository", "init", "--quiet")
    for name in ("staging", "prod"):
        folder = tmp_path / "repository/deploy" / name
        home.deployment(folder, "0.3.0" if name == "staging" else NEXT, *as_text(ANSWERS["standalone"]))
    staging, prod = (tmp_path / "repository/deploy" / name for name in ("staging", "prod"))
    before = tree(prod)
    toml = staging / "pgcat/pgcat.toml"
    toml.write_text("# ours\n" + toml.read_text())
    home.commit(tmp_path / "repository")

    run = home.copier("update", "--trust", "--defaults", "deploy/staging", cwd=tmp_path / "repository")
    assert run.returncode == 0, run.stdout + run.stderr
    assert tree(prod) == before
    assert toml.read_text().startswith("# ours\n")

    gone = "kubernetes/pgcat-deployment.yaml"
    (staging / gone).write_text("# ours\n" + (staging / gone).read_text())
    home.commit(tmp_path / "repository")
    run = home.copier("update", "--trust", "--defaults", "--data=topology=sidecar", cwd=staging)
    assert run.returncode == 1
    assert f"files that you have edited: {gone}; nothing" in run.stderr
    assert home.status(staging) == ""


def test_beside_another_template(in_process: InProcess, tmp_path: Path) -> None:
    """Two answers files in one folder: each command names the one that it means."""
    home, deploy = in_process.home, tmp_path / "deploy"
    deploy.mkdir()
    (deploy / ".copier-answers.yml").write_text("_commit: 1\n_src_path: gh:somebody/else\ntopology: theirs\n")
    ours = ".copier-answers.pgcat-stack.yml"
    run = home.copier(
        *("copy", "--trust", "--defaults", "--vcs-ref=0.3.0", f"--answers-file={ours}"),
        *data(as_text(ANSWERS["standalone"])),
        *(URL, str(deploy)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    home.commit(deploy)
    run = home.copier(
        "update", "--trust", "--defaults", f"--answers-file={ours}", "--data=pgcat_replicas=3", cwd=deploy
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "topology: theirs" in (deploy / ".copier-answers.yml").read_text()
    assert stored(deploy, ours)["pgcat_replicas"] == 3
    assert "replicas: 3" in (deploy / "kubernetes/pgcat-deployment.yaml").read_text()


def as_text(answers: dict[str, object]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in answers.items())


@pytest.mark.parametrize(
    "place", drawn(["alone", "inside", "worktree", "with [brackets]", "linked"], {"alone", "with [brackets]"})
)
def test_the_next_steps_fit_the_place(home: Home, tmp_path: Path, place: str) -> None:
    """`git init` only where there is no repository: an inner one is a link to a commit for the outer one."""
    outer = tmp_path / ("mono [a-z]*" if "brackets" in place else "mono")
    outer.mkdir()
    if place != "alone":
        home.git(outer, "init", "--quiet", "--initial-branch=main")
        (outer / "theirs.txt").write_text("theirs\n")
        home.commit(outer)
        (outer / "theirs.txt").write_text("half-done\n")
    if place == "worktree":  # where .git is a file, as in a submodule
        home.git(outer, "worktree", "add", "--quiet", str(tmp_path / "tree"))
        outer = tmp_path / "tree"
        (outer / "theirs.txt").write_text("half-done\n")
    start = outer
    if place == "linked":
        start = tmp_path / "link"
        start.symlink_to(outer)
    run = home.copier("copy", "--trust", "--defaults", URL, "deploy/three", cwd=start)
    assert run.returncode == 0, run.stdout + run.stderr
    (step,) = (line for line in (run.stdout + run.stderr).splitlines() if "git add" in line)
    assert ("git init" in step) == (place == "alone")
    done = home.run("sh", "-euc", step, cwd=outer / "deploy/three")
    assert done.returncode == 0, done.stdout + done.stderr
    if place == "alone":
        assert not (outer / ".git").exists()
        assert home.status(outer / "deploy/three") == ""
        return
    files = home.git(outer, "ls-files", "--stage", "deploy/three")
    assert "160000" not in files and "deploy/three/budget.yaml" in files
    # What else was under way in the repository is not committed with it.
    assert home.status(outer) == "M theirs.txt"


@pytest.mark.parametrize("where", ["docs/update.md", "template/readme/move.md.jinja", "the report"])
def test_giving_an_update_up_leaves_other_folders_alone(home: Home, tmp_path: Path, where: str) -> None:
    """Copier asks only the deployment to be committed, so a neighbour may hold work of its own."""
    source = "src/pgcat_stack/report/update.py" if where == "the report" else where
    text = (REPOSITORY / source).read_text()
    commands = re.findall(r"git (?:reset|restore|checkout|clean) --[^&`\n]*", text[text.index("git reset") :])
    give_up = "\n".join(commands[: 1 + [command.startswith("git clean") for command in commands].index(True)])
    repository = tmp_path / "repository"
    for name in ("deploy/own.yaml", "deploy/other.yaml", "neighbour/own.yaml"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("committed\n")
    home.git(repository, "init", "--quiet", "--initial-branch=main")
    home.commit(repository)
    for folder in ("deploy", "neighbour"):
        (repository / folder / "own.yaml").write_text("half-done\n")
        (repository / folder / "new.yaml").write_text("half-done\n")
    (repository / "deploy/other.yaml").unlink()
    # As a conflict leaves it: the index has the versions that met, and none that is merged.
    blob = home.git(repository, "rev-parse", "HEAD:deploy/own.yaml").strip()
    stages = f"0 {'0' * 40}\tdeploy/own.yaml\n"
    stages += "".join(f"100644 {blob} {stage}\tdeploy/own.yaml\n" for stage in (1, 2, 3))
    subprocess.run(
        ["git", "update-index", "--index-info"], cwd=repository, input=stages, text=True, check=True
    )

    assert home.git(repository, "ls-files", "--unmerged")
    run = home.run("sh", "-euc", give_up, cwd=repository / "deploy")
    assert run.returncode == 0, run.stdout + run.stderr
    assert home.git(repository, "status", "--porcelain", "deploy") == ""
    assert (repository / "deploy/other.yaml").read_text() == "committed\n"
    assert not (repository / "deploy/new.yaml").exists()
    assert {path.name: path.read_text() for path in (repository / "neighbour").iterdir()} == {
        "own.yaml": "half-done\n",
        "new.yaml": "half-done\n",
    }
