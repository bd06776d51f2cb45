from __future__ import annotations

from pathlib import Path

import pytest

from handmade import COMPOSE, PERMIFY, PGCAT, Change, Judge, edit, findings_of
from pgcat_stack.checks import kubernetes_schema
from pgcat_stack.findings import Finding


@pytest.fixture(autouse=True)
def schemas_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command turns the schemas on for its process, which is that of other tests here."""
    monkeypatch.setattr(kubernetes_schema, "ENABLED", kubernetes_schema.ENABLED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployment on docker without findings of the families PS1xx to PS3xx."""
    root = tmp_path / "deployment"
    for name, text in (
        ("pgcat/pgcat.toml", PGCAT),
        ("permify/permify.yaml", PERMIFY),
        ("compose.yaml", COMPOSE),
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def judge(folder: Path) -> Judge:
    """`judge(file, (old, new), …)` edits a file of the deployment and returns its findings."""

    def run(name: str, *changes: Change) -> list[Finding]:
        edit(folder, name, *changes)
        return findings_of(folder)

    return run
