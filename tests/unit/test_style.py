"""The checks that need no test of their own: formatting, lint, types, YAML style."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rendering import REPOSITORY


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["yamllint", "--strict", "."],
    ],
    ids=" ".join,
)
def test_style(command: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stdout + run.stderr + "\nmend it by: ./dev pre-commit run --all-files"
