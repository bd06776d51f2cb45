"""`authn`: a deployment that exists keeps answering anyone until told otherwise, a new one asks for keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier.errors import UserMessageError

from live.repeats import drawn, repeats
from old_versions import ANSWERS, NEXT, VERSIONS, InProcess, is_here, stored, tree
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from pgcat_stack.report.update import update_report
from versions import URL, Home

BEFORE, LATER = "1.0.0", "1001.0.0"
"""The last version without the question, and one more release of the working tree."""
KEYS = "PERMIFY_AUTHN_PRESHARED_KEYS"
HAND_WRITTEN = "authn:\n  enabled: true\n  method: preshared\n"

pytestmark = pytest.mark.skipif(not is_here(VERSIONS[BEFORE]), reason=f"{BEFORE} is not in this clone")


@pytest.fixture(scope="module")
def releases(in_process: InProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("callers")
    home = Home(folder).prepare()
    home.release(BEFORE, VERSIONS[BEFORE])
    home.release(NEXT)
    home.release(LATER)
    yield InProcess(home)


def authn(deploy: Path, answers_file: str = ".copier-answers.yml") -> tuple[Any, bool]:
    """The stored answer, and whether Permify asks for keys."""
    file = deploy / "permify/permify.yaml"
    if not file.exists():
        file = deploy / "permify/values.yaml"
    section = yaml.safe_load(file.read_text())
    section = section.get("app", section).get("authn", {})
    return stored(deploy, answers_file).get("authn"), section.get("enabled", False)


def errors(deploy: Path) -> set[str]:
    return {finding.code for finding in run_checks(Reading.load(deploy)) if finding.severity == "error"}


@pytest.mark.parametrize(
    "topology",
    drawn(
        ["helm", "docker", "standalone", "sidecar", "direct"], {"docker", "standalone", "sidecar", "direct"}
    ),
)
def test_two_updates_in_a_row_change_nothing(releases: InProcess, tmp_path: Path, topology: str) -> None:
    deploy = releases.copy(tmp_path / "deploy", BEFORE, ANSWERS[topology])
    before = stored(deploy)
    for version, more in ((NEXT, {}), (LATER, {}), (LATER, {"database_name": "other"})):
        releases.update_without_hooks(deploy, version, **more)
        assert authn(deploy) == ("none", False)
        assert {**before, **more}.items() <= stored(deploy).items()
        assert KEYS not in "".join(map(str, tree(deploy)))
        releases.home.commit(deploy)
    assert errors(deploy) == set()


def test_the_answer_turns_it_on_for_good(releases: InProcess, tmp_path: Path) -> None:
    deploy = releases.copy(tmp_path / "deploy", BEFORE, ANSWERS["standalone"])
    releases.update_without_hooks(deploy, NEXT, authn="preshared")
    assert authn(deploy) == ("preshared", True)
    releases.home.commit(deploy)
    releases.update_without_hooks(deploy, LATER)
    assert authn(deploy) == ("preshared", True)


def test_an_update_that_turns_it_off_says_so(releases: InProcess, tmp_path: Path) -> None:
    """The answer is lost, in a merge for example: the default of a deployment that exists is none."""
    deploy = releases.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    assert "authn" not in update_report(deploy, Reading.load(deploy))
    answers = deploy / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("authn: preshared\n", ""))
    releases.home.commit(deploy)
    releases.update_without_hooks(deploy, LATER)
    assert authn(deploy) == ("none", False)
    said = update_report(deploy, Reading.load(deploy))
    assert "Permify no longer asks its callers for a key" in said
    assert "--vcs-ref=:current: --data authn=preshared" in said


@pytest.mark.parametrize("more", [{}, pytest.param({"database_name": "other"}, marks=repeats)])
def test_a_new_deployment_asks_for_keys(releases: InProcess, tmp_path: Path, more: dict[str, Any]) -> None:
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "ours.md").write_text("that was there\n")
    deploy = releases.copy(folder, NEXT, {**ANSWERS["standalone"], **more})
    assert authn(deploy) == ("preshared", True)
    releases.update_without_hooks(deploy, LATER)
    assert authn(deploy) == ("preshared", True)


@pytest.mark.parametrize("name", drawn(["a[b]c", "[1]", "a*b?c", "a b", "ä"], {"[1]", "a*b?c", "a b"}))
def test_odd_names_of_folders(releases: InProcess, tmp_path: Path, name: str) -> None:
    """`fileglob` takes some of their characters for a pattern."""
    beside = tmp_path / "a1b2c"  # which such a pattern would find
    beside.mkdir()
    (beside / ".copier-answers.yml").write_text("")
    new = releases.copy(tmp_path / name / "new", NEXT, ANSWERS["standalone"])
    assert authn(new) == ("preshared", True)
    deploy = releases.copy(tmp_path / name / "deploy", BEFORE, ANSWERS["standalone"])
    releases.update_without_hooks(deploy, NEXT)
    assert authn(deploy) == ("none", False)


@pytest.mark.parametrize("later", drawn(["manifests", "helm"], {"manifests"}))
def test_a_permify_that_becomes_ours_answers_as_before(
    releases: InProcess, tmp_path: Path, later: str
) -> None:
    deploy = releases.copy(tmp_path / "deploy", BEFORE, {**ANSWERS["standalone"], "permify_install": "none"})
    releases.update_without_hooks(deploy, NEXT)
    assert authn(deploy) == (None, False)
    releases.home.commit(deploy)
    releases.update_without_hooks(deploy, LATER, permify_install=later)
    assert authn(deploy) == ("none", False)
    releases.home.commit(deploy)
    releases.update_without_hooks(deploy, LATER, database_name="other")
    assert authn(deploy) == ("none", False)


@repeats
def test_a_permify_that_others_deploy_forgets_the_answer(releases: InProcess, tmp_path: Path) -> None:
    deploy = releases.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    with pytest.raises(UserMessageError, match="authn: preshared is for a Permify of ours"):
        releases.update_without_hooks(deploy, LATER, permify_install="none", authn="preshared")
    assert releases.home.status(deploy) == ""
    run = releases.home.copier("update", "--trust", "--defaults", "--data=permify_install=none", str(deploy))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "--data authn=preshared" in run.stdout
    assert authn(deploy) == (None, False)


def test_a_recopy(releases: InProcess, tmp_path: Path) -> None:
    for version, expected in ((BEFORE, ("none", False)), (NEXT, ("preshared", True))):
        deploy = releases.copy(tmp_path / version, version, ANSWERS["standalone"])
        with releases.at_home():
            copier.run_recopy(
                deploy, vcs_ref=LATER, defaults=True, overwrite=True, quiet=True, skip_tasks=True
            )
        assert authn(deploy) == expected


@repeats
def test_by_path_with_another_answers_file(releases: InProcess, tmp_path: Path) -> None:
    home, ours = releases.home, "--answers-file=.copier-answers.ours.yml"
    deploy = tmp_path / "re[po]" / "deploy"
    data = [f"--data={key}={value}" for key, value in ANSWERS["standalone"].items()]
    run = home.copier("copy", "--trust", "--defaults", f"--vcs-ref={BEFORE}", ours, *data, URL, str(deploy))
    assert run.returncode == 0, run.stderr
    home.commit(tmp_path / "re[po]")
    for version in (NEXT, LATER):
        run = home.copier(
            "update", "--trust", "--defaults", f"--vcs-ref={version}", ours, "deploy", cwd=tmp_path / "re[po]"
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert authn(deploy, ".copier-answers.ours.yml") == ("none", False)
        home.commit(tmp_path / "re[po]")


@pytest.mark.parametrize(
    ("keys", "expected"), [("\r", "none"), pytest.param("\x1b[A\r", "preshared", marks=repeats)]
)
def test_at_the_prompt(releases: InProcess, tmp_path: Path, keys: str, expected: str) -> None:
    """What is proposed to a deployment that exists, and the choice above it."""
    deploy = releases.copy(tmp_path / "deploy", BEFORE, ANSWERS["standalone"])
    code, screen = releases.home.at_the_prompt(
        ("update", "--trust", "--skip-answered", str(deploy)), {"Who may call Permify?": keys}
    )
    assert code == 0, screen
    assert authn(deploy) == (expected, expected == "preshared")


def test_what_hands_wrote_stays(releases: InProcess, tmp_path: Path) -> None:
    """As docs/adopt.md of 1.0.0 says: the section and the variable, with a Secret of one's own."""
    deploy = releases.copy(tmp_path / "deploy", BEFORE, ANSWERS["standalone"])
    permify, pod = deploy / "permify/permify.yaml", deploy / "kubernetes/permify-deployment.yaml"
    permify.write_text(permify.read_text() + HAND_WRITTEN)
    text = pod.read_text()
    head, container, rest = text.partition("- name: permify\n          image:")
    variable = (
        f"            - name: {KEYS}\n              valueFrom:\n                secretKeyRef:\n"
        "                  name: permify-authn\n                  key: keys\n"
    )
    assert container
    pod.write_text(head + container + rest.replace("          ports:\n", f"{variable}          ports:\n", 1))
    releases.home.commit(deploy)
    assert errors(deploy) == set()

    for version in (NEXT, LATER):
        releases.update_without_hooks(deploy, version)
        assert stored(deploy)["authn"] == "none"
        assert permify.read_text().count(HAND_WRITTEN) == 1
        assert pod.read_text().count(variable) == 1
        assert run_checks(Reading.load(deploy)) == []
        releases.home.commit(deploy)

    releases.update_without_hooks(deploy, LATER, authn="preshared")
    assert permify.read_text().count("authn:") == 2, "nothing is lost"
    assert pod.read_text().count(KEYS) == 1, "the same on both sides is one"
    assert errors(deploy) == {"PS104"}, "and nothing doubled in silence"
