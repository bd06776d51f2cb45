"""The examples are what the template makes of their answers, and the validator finds nothing in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY

sys.path.append(str(REPOSITORY / "examples"))

from rebuild import EXAMPLES, names, rebuild

COMMAND = "run: ./dev python examples/rebuild.py"


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Content, and whether it may be executed, of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("examples")
    rebuild(target)
    return target


def test_the_examples_are_current(rebuilt: Path) -> None:
    assert len(names()) == 6
    for name in names():
        kept, fresh = tree(EXAMPLES / name / "deploy"), tree(rebuilt / name / "deploy")
        differing = sorted(path for path in kept.keys() | fresh.keys() if kept.get(path) != fresh.get(path))
        assert not differing, f"examples/{name}/deploy: {', '.join(differing)} differ; {COMMAND}"


def test_every_file_is_committed() -> None:
    """One that .gitignore hides would be here and missing in a clone."""
    hidden = subprocess.run(
        ["git", "status", "--short", "--ignored", "--untracked-files=all", "examples"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line for line in hidden.splitlines() if line.startswith("!!") and "__pycache__" not in line] == []


@pytest.mark.parametrize("name", names())
def test_the_validator_finds_nothing(name: str) -> None:
    found = run_checks(Reading.load(EXAMPLES / name / "deploy"))
    assert found == []


@pytest.mark.parametrize("name", names())
def test_nothing_of_one_machine_is_in_it(name: str) -> None:
    deploy = EXAMPLES / name / "deploy"
    assert not (deploy / "secrets/database_password").exists()
    answers = yaml.safe_load((deploy / ".copier-answers.yml").read_text())
    assert answers["_src_path"] == "gh:org/pgcat-stack"
    assert re.fullmatch(r"\d+\.\d+\.\d+", answers["_commit"])
    for path, (content, _) in tree(deploy).items():
        assert str(REPOSITORY).encode() not in content and b"/tmp/pgcat-stack" not in content, path


def test_the_page_has_a_line_for_each() -> None:
    lines = (EXAMPLES / "README.md").read_text().splitlines()
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1/deploy\)", "\n".join(lines), re.MULTILINE)
    assert sorted(listed) == names()
