"""Answers that change on update: what does not belong goes, what is the user's stays, the budget is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.repeats import drawn, repeats
from old_versions import ANSWERS, NEXT, InProcess, stored, tree
from pgcat_stack.reading.reading import Reading
from pgcat_stack.report.update import update_report
from versions import URL, Home

EXTERNAL = {"primary_host": "db-1", "replica_hosts": "db-2"}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "docker to standalone": ({}, {"topology": "standalone", **EXTERNAL}),
    "standalone to sidecar": (ANSWERS["standalone"], {"topology": "sidecar"}),
    "sidecar to standalone": (ANSWERS["sidecar"], {"topology": "standalone"}),
    "sidecar to docker": (
        {"topology": "sidecar", **EXTERNAL, "monitoring": "prometheus-operator"},
        {"topology": "docker", "monitoring": "prometheus"},
    ),
    "direct to pgcat": (ANSWERS["direct"], {"pooling": "pgcat"}),
    "direct with a private CA to pgcat": (
        {**ANSWERS["direct"], "advanced": True, "database_tls": "verify-full", "database_ca": "secret/ca"},
        {"pooling": "pgcat", "database_tls": "require", "writer_pool_size": 5, "reader_pool_size": 6},
    ),
    "pgcat to direct": (ANSWERS["standalone"], {"pooling": "direct"}),
    "session to transaction": (
        {**ANSWERS["standalone"], "advanced": True, "pool_mode": "session"},
        {"pool_mode": "transaction"},
    ),
    "transaction to session": (ANSWERS["standalone"], {"advanced": True, "pool_mode": "session"}),
    "replicas added": (ANSWERS["sidecar"], {"replica_hosts": "db-2,db-3"}),
    "replicas removed": (ANSWERS["standalone"], {"replica_hosts": ""}),
    "scaled": (
        ANSWERS["standalone"],
        {"permify_replicas": 5, "permify_max_replicas": 9, "pgcat_replicas": 3},
    ),
    "watched by the operator": (ANSWERS["standalone"], {"monitoring": "prometheus-operator"}),
    "not watched": (ANSWERS["sidecar"], {"monitoring": "none"}),
    "helm to manifests": (ANSWERS["helm"], {"permify_install": "manifests"}),
}


DRAWN = (
    "docker to standalone",
    "standalone to sidecar",
    "direct to pgcat",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "change" in metafunc.fixturenames:
        metafunc.parametrize("change", CHANGES if metafunc.config.getoption("--every-combination") else DRAWN)


def test_a_changed_deployment_equals_a_fresh_one(in_process: InProcess, tmp_path: Path, change: str) -> None:
    before, changed = CHANGES[change]
    deploy = in_process.copy(tmp_path / "deploy", NEXT, before)
    ours = {
        "kubernetes/ours.yaml": b"# ours\n",
        "monitoring/ours.yaml": b"# ours\n",
        "ours/notes.md": b"ours\n",
    }
    for path, content in ours.items():
        (deploy / path).parent.mkdir(exist_ok=True)
        (deploy / path).write_bytes(content)
    in_process.home.commit(deploy, "files of the user")
    in_process.update_without_hooks(deploy, **changed)
    after = stored(deploy)
    assert changed.items() <= after.items()
    assert tree(deploy) == {**in_process.render(tmp_path / "fresh", NEXT, after), **ours}


def edited_standalone(home: Home, in_process: InProcess, folder: Path) -> Path:
    """A deployment with an edit in a file that a sidecar has not, and one in a file that it has."""
    deploy = in_process.copy(folder, NEXT, ANSWERS["standalone"])
    for name in ("kubernetes/pgcat-deployment.yaml", "budget.yaml"):
        (deploy / name).write_text("# ours\n" + (deploy / name).read_text())
    home.commit(deploy, "edits")
    return deploy


def test_edits_that_would_go_stop_the_update(home: Home, in_process: InProcess, tmp_path: Path) -> None:
    deploy = edited_standalone(home, in_process, tmp_path / "deploy")
    update = ("update", "--trust", "--defaults", "--data", "topology=sidecar", str(deploy))
    run = home.copier(*update)
    assert run.returncode == 1
    said = next(line for line in run.stderr.splitlines() if line.startswith("pgcat-stack: "))
    assert "files that you have edited: kubernetes/pgcat-deployment.yaml; nothing was changed" in said
    assert home.status(deploy) == ""

    run = home.copier(*update, PGCAT_STACK_DISCARD_EDITS="1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not (deploy / "kubernetes/pgcat-deployment.yaml").exists()
    assert (deploy / "budget.yaml").read_text().startswith("# ours\n")
    (said,) = [line for line in run.stderr.splitlines() if line.startswith("pgcat-stack: ")]
    listed = "removed, as you asked, files that you had edited: kubernetes/pgcat-deployment.yaml; to get"
    assert listed in said
    home.commit(deploy, "updated")
    home.run("sh", "-c", said[said.index("git checkout") :], cwd=deploy)
    assert (deploy / "kubernetes/pgcat-deployment.yaml").read_text().startswith("# ours\n")


def test_a_number_that_removes_an_edited_file_stops_the_update(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """No other question is asked than before: what goes is told without rendering."""
    answers = {**ANSWERS["standalone"], "permify_replicas": 2, "permify_max_replicas": 4}
    deploy = in_process.copy(tmp_path / "deploy", NEXT, answers)
    file = deploy / "kubernetes/permify-autoscaler.yaml"
    file.write_text("# ours\n" + file.read_text())
    home.commit(deploy, "edits")
    run = home.copier("update", "--trust", "--defaults", "--data", "permify_max_replicas=0", str(deploy))
    assert run.returncode == 1
    assert "files that you have edited: kubernetes/permify-autoscaler.yaml; nothing" in run.stderr
    assert home.status(deploy) == ""


@repeats
def test_without_edits_that_go_none_are_listed(home: Home, in_process: InProcess, tmp_path: Path) -> None:
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    (deploy / "budget.yaml").write_text("# ours\n" + (deploy / "budget.yaml").read_text())
    (deploy / "kubernetes/ours.yaml").write_text("# ours\n")
    home.commit(deploy, "edits")
    update = ("update", "--trust", "--defaults", "--data", "topology=sidecar", str(deploy))
    run = home.copier(*update, PGCAT_STACK_DISCARD_EDITS="1")
    assert run.returncode == 0 and "edited" not in run.stderr, run.stderr


def test_a_file_that_a_new_version_lacks_is_looked_for(alone: InProcess, tmp_path: Path) -> None:
    """With the same answers and rules: only the names of the files tell."""
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    file = deploy / "postgres/bootstrap.sql"
    file.write_text("-- ours\n" + file.read_text())
    alone.home.commit(deploy)
    alone.home.release("1001.0.0", files={"template/postgres/bootstrap.sql.jinja": None})
    run = alone.home.copier("update", "--trust", "--defaults", str(deploy))
    assert run.returncode == 1
    assert "files that you have edited: postgres/bootstrap.sql; nothing" in run.stderr
    assert alone.home.status(deploy) == ""


@repeats
def test_a_file_that_new_rules_exclude_is_looked_for(alone: InProcess, tmp_path: Path) -> None:
    deploy = alone.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    file = deploy / "postgres/bootstrap.sql"
    file.write_text("-- ours\n" + file.read_text())
    alone.home.commit(deploy)
    rules = (alone.home.template / "questions/excluded.jinja").read_text()
    alone.home.release("1001.0.0", files={"questions/excluded.jinja": rules + "\n/postgres\n"})
    run = alone.home.copier("update", "--trust", "--defaults", str(deploy))
    assert run.returncode == 1
    assert "files that you have edited: postgres/bootstrap.sql; nothing" in run.stderr
    assert alone.home.status(deploy) == ""


@repeats
def test_edits_that_went_by_an_answer_at_the_prompt_are_reported(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """Before the update nobody knows what will be answered."""
    deploy = edited_standalone(home, in_process, tmp_path / "deploy")
    update = ("update", "--trust", "--skip-answered", "--ask=topology", str(deploy))
    code, screen = home.at_the_prompt(update, {"Where does PgCat run?": "\x1b[B\r"})
    assert "removed files that you had edited: kubernetes/pgcat-deployment.yaml" in screen.replace("\r\n", "")
    assert "-- kubernetes/pgcat-deployment.yaml" in screen.replace("\r\n", "")
    assert code == 1
    assert stored(deploy)["topology"] == "sidecar"


@pytest.mark.parametrize(
    ("key", "question", "typed", "remedy"),
    [
        ("pgcat_replicas", "How many PgCat pods?", "\x7f70\r", "try primary_reads=false, fewer "),
        pytest.param(
            *("other_connections", "Connections to keep free", "\x7f\x7f2\r", "answer at least 3: 2 "),
            marks=repeats,
        ),
        ("database_name", "Name of Permify", " \r", '"permify " begins or'),
    ],
)
def test_a_refusal_at_the_prompt_begins_with_the_remedy(
    home: Home, in_process: InProcess, tmp_path: Path, key: str, question: str, typed: str, remedy: str
) -> None:
    """It stands in one line, which ends where the terminal does."""
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    update = ("update", "--trust", "--skip-answered", f"--ask={key}", str(deploy))
    refused = f"Validation error for question '{key}'"
    code, screen = home.at_the_prompt(update, {question: typed, refused: "\x03"}, columns=80)
    assert f"{refused}: {remedy}" in screen
    assert code != 0
    assert home.status(deploy) == ""


def test_the_budget_is_shown_before_and_after(home: Home, in_process: InProcess, tmp_path: Path) -> None:
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    run = home.copier("update", "--trust", "--defaults", "--data", "pgcat_replicas=3", str(deploy))
    assert run.returncode == 0, run.stdout + run.stderr
    said = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert "The budget changed before now" in said
    assert "db-1:5432 permify_writer 9 x 4 = 36 7 x 5 = 35" in said
    assert "db-1:5432 all 79 of 80, 3 for the migration 78 of 80, 3 for the migration" in said
    assert "db-2:5432 all 40 of 80 40 of 80" in said
    assert update_report(deploy, Reading.load(deploy)) != ""
    home.commit(deploy)
    assert update_report(deploy, Reading.load(deploy)) == ""


SCALED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    # 3 × 19 + 2 × 15 + 3
    "more PgCat": (ANSWERS["standalone"], {"pgcat_replicas": 3}, 90),
    # 6 × 19 + 2 × 9 + 3
    "more sidecars": ({**ANSWERS["sidecar"], "permify_replicas": 2}, {"permify_replicas": 6}, 135),
    # 4 × 2 × 9 + 2 × 2 × 6 + 3
    "more direct pods": ({**ANSWERS["direct"], "permify_replicas": 2}, {"permify_replicas": 4}, 99),
    # 10 × 6 + 19 + 3
    "fewer sidecars": ({**ANSWERS["sidecar"], "permify_replicas": 10}, {"permify_replicas": 2}, 82),
    "fewer PgCat, more Permify, session": (
        {**ANSWERS["standalone"], "pool_mode": "session", "pgcat_replicas": 5, "permify_replicas": 2},
        {"pgcat_replicas": 1, "permify_replicas": 8},
        0,
    ),
    "more PgCat, fewer Permify, session": (
        {**ANSWERS["standalone"], "pool_mode": "session", "pgcat_replicas": 1, "permify_replicas": 8},
        {"pgcat_replicas": 6, "permify_replicas": 1},
        0,
    ),
    "more sidecars and a replica": (
        {**ANSWERS["sidecar"], "advanced": True},
        {"permify_replicas": 8, "replica_hosts": "db-2", "primary_reads": False},
        0,
    ),
    "more PgCat with sizes of one's own": (
        {**ANSWERS["standalone"], "writer_pool_size": 9, "reader_pool_size": 9},
        {"pgcat_replicas": 8, "writer_pool_size": 2, "reader_pool_size": 2},
        0,
    ),
    "to an autoscaler": (ANSWERS["sidecar"], {"permify_max_replicas": 6}, 0),
}


SCALED_LIKE_OTHERS = {
    "fewer PgCat, more Permify, session",
    "more sidecars",
    "fewer sidecars",
    "more sidecars and a replica",
    "more direct pods",
    "more PgCat, fewer Permify, session",
    "more PgCat with sizes of one's own",
    "to an autoscaler",
}


@pytest.mark.parametrize("name", drawn(SCALED, SCALED_LIKE_OTHERS))
def test_more_pods_with_smaller_pools_take_two_applies(
    in_process: InProcess, tmp_path: Path, name: str
) -> None:
    before, changed, reached = SCALED[name]
    deploy = in_process.copy(tmp_path / "deploy", NEXT, before)
    in_process.update_without_hooks(deploy, **changed)
    said = update_report(deploy, Reading.load(deploy))
    assert "Two applies, not one" in said
    assert not reached or f" {reached} of 80 connections to db-1:5432" in said
    at_once = tree(deploy)

    steps = re.findall(r"^  [13]\. (.*)$", said, re.MULTILINE)
    (undo,) = re.findall(r"from the last commit\n\(`(.*)`\)", said)
    subprocess.run(undo, shell=True, cwd=deploy, check=True)
    assert in_process.home.status(deploy) == ""
    for step in steps:
        answers = {key: yaml.safe_load(value) for key, value in re.findall(r"--data (\w+)=(\S+)", step)}
        again = changed if step.startswith("this update") else {}
        in_process.update_without_hooks(deploy, **{**again, **answers})
        assert "Two applies" not in update_report(deploy, Reading.load(deploy))
        in_process.home.commit(deploy)
    # The same, except that `advanced` stays on, with the answers that it has, and so in their digest.
    ended = tree(deploy)
    for files in (at_once, ended):
        files["budget.yaml"] = re.sub(rb"\n  answers: .*", b"", files["budget.yaml"])
    stayed = {path for path, text in ended.items() if at_once.get(path) != text}
    assert stayed <= {".copier-answers.yml"}


@repeats
def test_the_two_applies_by_the_real_command(home: Home, in_process: InProcess, tmp_path: Path) -> None:
    """In a deployment with another answers file, and a file that only the new number brings."""
    file = ".copier-answers.eu.yml"
    run = home.copier(
        *("copy", "--trust", "--defaults", f"--vcs-ref={NEXT}", f"--answers-file={file}"),
        *("--data=topology=sidecar", "--data=primary_host=db-1", "--data=permify_replicas=1"),
        *(URL, str(tmp_path / "deploy")),
    )
    assert run.returncode == 0, run.stderr
    deploy = tmp_path / "deploy"
    home.commit(deploy)
    update = f"copier update --trust --defaults --answers-file {file} --data permify_replicas=6"
    said = home.run("sh", "-c", f"{sys.executable} -m {update}", cwd=deploy).stdout
    first, third = re.findall(r"^  [13]\. (.*)$", said, re.MULTILINE)
    (undo,) = re.findall(r"from the last commit\n\(`(.*)`\)", said)
    first = first.replace("this update, but with", update)
    assert third.startswith("copier update") and f"--answers-file {file}" in third
    for command in (undo, first, third):
        command = command.replace("copier update", f"{sys.executable} -m copier update")
        run = home.run("sh", "-c", command, cwd=deploy)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Two applies" not in run.stdout
        home.commit(deploy)
    assert stored(deploy, file)["permify_replicas"] == 6


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        pytest.param(ANSWERS["docker"], {"permify_replicas": 3}, marks=repeats),
        pytest.param(ANSWERS["standalone"], {"permify_replicas": 9}, marks=repeats),
        ({**ANSWERS["standalone"], "pgcat_replicas": 3}, {"pgcat_replicas": 2}),
        (ANSWERS["standalone"], {"topology": "sidecar"}),
        pytest.param(ANSWERS["standalone"], {"advanced": True, "writer_pool_size": 3}, marks=repeats),
    ],
)
def test_other_changes_take_one(
    in_process: InProcess, tmp_path: Path, before: dict[str, Any], changed: dict[str, Any]
) -> None:
    deploy = in_process.copy(tmp_path / "deploy", NEXT, before)
    in_process.update_without_hooks(deploy, **changed)
    assert "Two applies" not in update_report(deploy, Reading.load(deploy))


@pytest.mark.parametrize(
    ("connections", "said"),
    [
        (
            200,
            "180 connections, before 80: run it again as an administrator, before the apply",
        ),
        pytest.param(
            90,
            "70 connections, before 80: run it again as an administrator, after the rollout",
            marks=repeats,
        ),
    ],
)
def test_a_changed_capacity_needs_an_administrator(
    in_process: InProcess, tmp_path: Path, connections: int, said: str
) -> None:
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    in_process.update_without_hooks(deploy, postgres_max_connections=connections)
    assert f"postgres/bootstrap.sql allows the role {said}.\n" in update_report(deploy, Reading.load(deploy))
    bundled = in_process.copy(tmp_path / "bundled", NEXT, ANSWERS["docker"])
    in_process.update_without_hooks(bundled, postgres_max_connections=connections)
    assert "administrator" not in update_report(bundled, Reading.load(bundled))


def test_a_key_that_an_update_would_not_propose_again_is_named(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """A new deployment asks callers for a key by default, and an update does not."""
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    assert stored(deploy)["authn"] == "preshared"
    run = home.copier("update", "--trust", "--defaults", "--data", "permify_install=none", str(deploy))
    assert run.returncode == 0, run.stdout + run.stderr
    (given,) = re.findall(r"^Forgotten, .*\n  (.*)$", run.stdout, re.MULTILINE)
    assert given == "--data authn=preshared"


def test_answers_that_are_no_longer_asked_for_are_named(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    answers = {**ANSWERS["standalone"], "pgcat_replicas": 3, "client_tls": "cert-manager"}
    deploy = in_process.copy(
        tmp_path / "deploy", NEXT, {**answers, "client_tls_issuer": "our-ca", "advanced": True}
    )
    run = home.copier("update", "--trust", "--defaults", "--data", "topology=sidecar", str(deploy))
    assert run.returncode == 0, run.stdout + run.stderr
    (given,) = re.findall(r"^Forgotten, .*\n  (.*)$", run.stdout, re.MULTILINE)
    assert set(re.findall(r"--data (\S+)", given)) == {
        "pgcat_replicas=3",
        "client_tls=cert-manager",
        "client_tls_issuer=our-ca",
    }
    home.commit(deploy)
    run = home.copier(
        "update", "--trust", "--defaults", "--data", "topology=standalone", *given.split(), str(deploy)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Forgotten" not in run.stdout
    assert stored(deploy)["client_tls_issuer"] == "our-ca"
