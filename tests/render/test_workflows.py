"""Workflows, ours and every rendered one, as zizmor and actionlint see them.

uv.lock has zizmor. actionlint is a program: where it is missing its tests skip, unless the variable
REQUIRED_PROGRAMS names it, as in .ci/run.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
import yaml

from rendering import REPOSITORY, combinations, environment, render

OURS = REPOSITORY / ".github"
PROGRAMS = REPOSITORY / ".tools" / "programs"
"""Where .ci/install puts them."""
ADDRESSES = [
    "gh:org/pgcat-stack",
    "git@git.example.com:org/x.git",
    "https://git.example.com:8443/x",
    "/srv/x",
]
ANSWERS_FILES = [".copier-answers.yml", ".copier-answers.pgcat.yml"]
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)")
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
GOOD = f"""
name: example
on:
  pull_request:
permissions: {{}}
concurrency:
  group: ${{{{ github.workflow }}}}-${{{{ github.ref }}}}
  cancel-in-progress: true
jobs:
  example:
    name: example
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read # the checkout
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
      - run: echo "$TITLE"
        env:
          TITLE: ${{{{ github.event.pull_request.title }}}}
"""


def forges() -> list[str]:
    choices = environment().get_template("questions/table.jinja").module.choices  # type: ignore[attr-defined]
    return [forge for forge in choices["forge"] if forge != "none"]


@functools.cache
def rendered_workflows() -> dict[str, str]:
    """Every text that a workflow of a deployment can have, by the answers that first gave it."""
    found: dict[str, str] = {}
    ways = {(a["topology"], a["pooling"], a["database"]): a for a in combinations()}
    with tempfile.TemporaryDirectory() as folder:
        for forge in forges():
            for number, answers in enumerate(ways.values()):
                deploy = render(Path(folder, f"{forge}-{number}"), answers, advanced=True, forge=forge)
                files = [p for p in (deploy / f".{forge}").rglob("*") if p.suffix in (".yml", ".yaml")]
                assert files, (
                    f"forge={forge} with {answers} renders no workflow, so there is nothing to judge"
                )
                for file in files:
                    if file.read_text() not in found.values():
                        found[f"{forge}-{number}-{file.name}"] = file.read_text()
            for number, text in enumerate(from_addresses(forge)):
                if text not in found.values():
                    found[f"{forge}-address-{number}.yml"] = text
    return found


def from_addresses(forge: str) -> Iterator[str]:
    """The workflows of a forge as other addresses of the template and names of the answers file give them."""
    templates = sorted((REPOSITORY / "template" / f".{forge}").rglob("*.y*ml.jinja"))
    assert templates
    for file, address, answers in itertools.product(templates, ADDRESSES, ANSWERS_FILES):
        context = {
            "_copier_answers": {"_src_path": address, "_commit": "1.0.0"},
            "_copier_conf": {"data": {}, "answers_file": PurePath(answers)},
        }
        yield environment().get_template(file.relative_to(REPOSITORY).as_posix()).render(context)


def find_actionlint() -> str:
    """The program; where it is missing the test skips, or fails if REQUIRED_PROGRAMS names it."""
    program = shutil.which("actionlint", path=f"{os.environ['PATH']}{os.pathsep}{PROGRAMS}")
    if program is None:
        missing = "actionlint is missing: run .ci/install actionlint"
        if "actionlint" in os.environ.get("REQUIRED_PROGRAMS", "").split():
            pytest.fail(missing)
        pytest.skip(missing)
    return program


@pytest.fixture
def actionlint() -> str:
    return find_actionlint()


@pytest.mark.parametrize(
    ("required", "outcome"), [("", pytest.skip.Exception), ("actionlint", pytest.fail.Exception)]
)
def test_a_missing_linter_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PROGRAMS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("REQUIRED_PROGRAMS", required)
    with pytest.raises(outcome, match=r"actionlint is missing: run \.ci/install actionlint"):
        find_actionlint()
    assert "REQUIRED_PROGRAMS=actionlint" in (REPOSITORY / ".ci" / "run").read_text()


def in_repository(folder: Path, workflows: dict[str, str]) -> Path:
    """A folder that both linters take for a repository with these workflows."""
    place = folder / ".github" / "workflows"
    place.mkdir(parents=True)
    for name, text in workflows.items():
        (place / f"{Path(name).stem}.yml").write_text(text)
    return folder


def zizmor(path: Path) -> str:
    """What zizmor says of a folder, judged without a network; empty when it has nothing to say."""
    options = ["--offline", "--persona", "pedantic", "--strict-collection", "--no-progress", "--no-config"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("zizmor")), *options, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    judged = len(re.findall(r"completed .*\.ya?ml", done.stderr))
    there = len([p for p in path.rglob("*.y*ml") if p.parent.name in ("workflows", ".github")])
    if done.returncode == 0:
        assert judged == there > 0, f"zizmor judged {judged} of {there} files:\n{done.stderr}"
        return ""
    return done.stdout + done.stderr


def lint(program: str, folder: Path) -> str:
    """What actionlint says of a folder's workflows; empty when it has nothing to say."""
    files = sorted((folder / ".github" / "workflows").glob("*.yml"))
    assert files
    done = subprocess.run([program, *map(str, files)], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_zizmor_has_nothing_to_say_of_ours(tmp_path: Path) -> None:
    shutil.copytree(OURS, tmp_path / ".github")
    assert zizmor(tmp_path) == ""


def test_zizmor_has_nothing_to_say_of_what_is_rendered(tmp_path: Path) -> None:
    assert zizmor(in_repository(tmp_path, rendered_workflows())) == ""


def test_actionlint_has_nothing_to_say_of_ours(actionlint: str) -> None:
    assert lint(actionlint, REPOSITORY) == ""


def test_actionlint_has_nothing_to_say_of_what_is_rendered(actionlint: str, tmp_path: Path) -> None:
    assert lint(actionlint, in_repository(tmp_path, rendered_workflows())) == ""


BREAKS = [
    (CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
    ('echo "$TITLE"', 'echo "${{ github.event.pull_request.title }}"', "template-injection"),
    ("persist-credentials: false", "fetch-depth: 0", "artipacked"),
    ("permissions: {}", "permissions: write-all", "excessive-permissions"),
    ("pull_request:\n", "pull_request_target:\n", "dangerous-triggers"),
]


def test_zizmor_accepts_the_example(tmp_path: Path) -> None:
    assert zizmor(in_repository(tmp_path, {"example": GOOD})) == ""


@pytest.mark.parametrize(("old", "new", "rule"), BREAKS, ids=[rule for _, _, rule in BREAKS])
def test_zizmor_finds_a_planted_fault(tmp_path: Path, old: str, new: str, rule: str) -> None:
    assert old in GOOD
    assert rule in zizmor(in_repository(tmp_path, {"example": GOOD.replace(old, new, 1)}))


def test_zizmor_is_not_silent_about_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    assert "no audit was performed" in zizmor(in_repository(tmp_path, {"example": GOOD + "      - 'run"}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('echo "$TITLE"', 'echo "${{ github.event.pull_request.title }}"'),
        ("${{ github.ref }}", "${{ github.reff }}"),
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-99"),
    ],
    ids=["injection", "unknown property", "unknown runner"],
)
def test_actionlint_finds_a_planted_fault(actionlint: str, tmp_path: Path, old: str, new: str) -> None:
    assert lint(actionlint, in_repository(tmp_path / "good", {"example": GOOD})) == ""
    assert lint(actionlint, in_repository(tmp_path / "bad", {"example": GOOD.replace(old, new, 1)}))


def every_workflow() -> dict[str, str]:
    ours = {path.name: path.read_text() for path in sorted((OURS / "workflows").glob("*.yml"))}
    assert len(ours) > 1
    return {**ours, **rendered_workflows()}


def test_an_action_has_one_pin_everywhere() -> None:
    """Dependabot does not see the template's workflow: an action that is raised must be raised in both."""
    pins: dict[str, set[str]] = {}
    for name, text in every_workflow().items():
        uses = re.findall(r"uses: .*", text)
        assert uses, name
        for line in uses:
            pin = PINNED.fullmatch(line)
            assert pin, f"{name}: {line} is not pinned by a commit, with its version in a comment"
            pins.setdefault(pin["action"], set()).add(f"{pin['commit']} {pin['version']}")
    assert pins and all(len(found) == 1 for found in pins.values()), pins
    assert len({commit for found in pins.values() for commit in found}) == len(pins)


def test_jobs_get_what_they_need_and_end() -> None:
    for name, text in every_workflow().items():
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {}, name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 60, name
            assert job["permissions"] in ({"contents": "read"}, {"contents": "write"}), name
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert job["permissions"] == {"contents": "read"}, name
                    assert step["with"]["persist-credentials"] is False, name


def test_programs_are_installed_by_the_script_that_has_their_versions() -> None:
    script = (REPOSITORY / ".ci" / "install").read_text()
    asked: set[str] = set()
    for name, text in every_workflow().items():
        assert not re.search(r"\b(go|pip|pipx|npm) install\b|\bcurl\b|\bwget\b", text), name
        asked |= {word for line in re.findall(r"\.ci/install (.+)", text) for word in shlex.split(line)}
    assert len(asked) > 5
    for program in asked:
        assert re.search(rf"^    {re.escape(program.split('@')[0])}(@\*)?\)", script, re.MULTILINE), program


def test_every_version_is_exact() -> None:
    script = (REPOSITORY / ".ci" / "install").read_text()
    install = r"(?:go install|pipx install|of_kubernetes kubectl) (.+?)(?: ;;|$)"
    commands = re.findall(install, script, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        exact = re.search(r"(?:^|[@=])v?\d+\.\d+\.\d+$", command)
        assert exact or "$program" in command, command  # of that one, the workflow's matrix has the version
    assert re.search(r"\buv==\d+\.\d+\.\d+$", (REPOSITORY / "dev").read_text(), re.MULTILINE)
