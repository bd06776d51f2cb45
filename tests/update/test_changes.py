"""Answers that change on update: what does not belong goes, what is the user's stays, the budget is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from old_versions import ANSWERS, NEXT, InProcess, stored, tree
from pgcat_stack.budget_change import budget_change
from pgcat_stack.deployment import Deployment
from versions import Home

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
    "session to transaction",
    "scaled",
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
    assert "# ours" in home.git(deploy, "show", "HEAD:kubernetes/pgcat-deployment.yaml")


def test_edits_that_went_by_an_answer_at_the_prompt_are_reported(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """Before the update nobody knows what will be answered."""
    deploy = edited_standalone(home, in_process, tmp_path / "deploy")
    update = ("update", "--trust", "--skip-answered", "--ask=topology", str(deploy))
    code, screen = home.at_the_prompt(update, {"Where does PgCat run?": "\x1b[B\r"})
    assert "removed files that you had edited: kubernetes/pgcat-deployment.yaml" in screen.replace("\r\n", "")
    assert "git show HEAD:./kubernetes/pgcat-deployment.yaml" in screen.replace("\r\n", "")
    assert code == 1
    assert stored(deploy)["topology"] == "sidecar"


def test_a_refusal_at_the_prompt_begins_with_the_remedy(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """It stands in one line, which ends where the terminal does."""
    deploy = in_process.copy(tmp_path / "deploy", NEXT, ANSWERS["standalone"])
    update = ("update", "--trust", "--skip-answered", "--ask=pgcat_replicas", str(deploy))
    refused = "Validation error for question 'pgcat_replicas'"
    code, screen = home.at_the_prompt(
        update, {"How many PgCat pods?": "\x7f70\r", refused: "\x03"}, columns=80
    )
    assert f"{refused}: try primary_reads=false, fewer " in screen
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
    assert budget_change(deploy, Deployment.load(deploy)) != ""
    home.commit(deploy)
    assert budget_change(deploy, Deployment.load(deploy)) == ""
