"""Where deployments and templates are: several in a repository, other answers files, a fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from old_versions import ANSWERS, NEXT, InProcess, stored, tree
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


@pytest.mark.parametrize("place", ["alone", "inside", "worktree", "with [brackets]", "linked"])
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
