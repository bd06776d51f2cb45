"""A release cannot be half prepared: one version everywhere, a dated section, a workflow with few rights."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from rendering import REPOSITORY

VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
WORKFLOWS = {path.stem: path.read_text() for path in (REPOSITORY / ".github/workflows").glob("*.yml")}
RELEASE: dict[str, Any] = yaml.safe_load(WORKFLOWS["release"])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The files that a release looks at, with a date in the changelog."""
    for name in (
        ".ci/release_notes.py",
        "pyproject.toml",
        "uv.lock",
        "src/pgcat_stack/__init__.py",
        "CHANGELOG.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    text = changelog.read_text()
    dated = re.sub(rf"^## {VERSION} – .*$", f"## {VERSION} – 2026-01-31", text, flags=re.MULTILINE)
    changelog.write_text(f"{dated.rstrip()}\n\n## 0.0.1 – 2020-01-01\n\nOlder.\n")
    return tmp_path


def notes(root: Path, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / ".ci/release_notes.py"), version]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_notes_are_the_section_of_the_version(prepared: Path) -> None:
    done = notes(prepared)
    assert done.returncode == 0, done.stderr
    first_heading = re.search(r"^### .+$", (prepared / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first_heading and first_heading[0] in done.stdout
    assert "Older." not in done.stdout and f"## {VERSION}" not in done.stdout


def test_links_of_the_notes_lead_to_the_repository(prepared: Path) -> None:
    """GitHub shows them on a page of its own, where relative links lead nowhere."""
    shown = notes(prepared).stdout
    links = re.findall(r"\]\(([^)]+)\)", shown)
    assert links and all(link.startswith("https://") for link in links), links
    assert f"/blob/{VERSION}/docs/update.md)" in shown


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock", "src/pgcat_stack/__init__.py"])
def test_a_place_with_another_version_stops_it(prepared: Path, name: str) -> None:
    path = prepared / name
    text = path.read_text()
    path.write_text(
        re.sub(rf'(name = "pgcat-stack"\nversion = |__version__ = )"{VERSION}"', r'\1"9.9.9"', text)
    )
    done = notes(prepared)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"release_notes: {name} has the version 9.9.9, the tag is {VERSION}\n"


def test_an_undated_section_stops_it(prepared: Path) -> None:
    changelog = prepared / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("2026-01-31", "unreleased"))
    done = notes(prepared)
    assert done.returncode == 1 and "has no line '## " in done.stderr and "Traceback" not in done.stderr


def test_the_version_is_one_that_copier_orders() -> None:
    assert str(Version(VERSION)) == VERSION
    listed = re.findall(r"^## (\S+) – ", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert listed[0] == VERSION and listed == sorted(listed, key=Version, reverse=True)


def test_only_the_last_job_may_write_and_it_runs_nothing_of_ours() -> None:
    assert RELEASE["permissions"] == {}
    given = {name: job["permissions"] for name, job in RELEASE["jobs"].items()}
    reads = {"contents": "read"}
    assert given == {"tests": reads, "build": reads, "release": {"contents": "write"}}
    last = RELEASE["jobs"]["release"]
    assert set(last["needs"]) == {"tests", "build"}
    assert not any("checkout" in step.get("uses", "") for step in last["steps"])


def test_actions_are_no_strangers() -> None:
    """How they are pinned is in tests/render/test_workflows.py."""
    used = [action for text in WORKFLOWS.values() for action in re.findall(r"uses: (\S+)", text)]
    assert used and all(action.startswith("actions/") for action in used), used
