"""Every way of rendering gives a deployment that the validator has nothing to say about."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

import draws
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY, combinations, render, template

PARTS = 4


def _name(answers: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in answers.items())


@pytest.mark.parametrize("part", range(PARTS))
def test_every_combination_is_valid(part: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked = pytestconfig.getoption("--every-combination")
    every = combinations(asked)[:: 1 if asked else 9]  # neighbours differ in one answer
    assert len(every) >= 60
    faults = []
    for number, answers in enumerate(every[part::PARTS]):
        deployment = Reading.load(render(tmp_path / str(number), answers))
        faults += [
            f"{_name(answers)}: {finding.path}:{finding.line}: {finding.code} {finding.message}"
            for finding in run_checks(deployment)
            # Nothing here says who may call a Permify that is deployed elsewhere.
            if not (finding.code == "PS321" and answers.get("permify_install") == "none")
        ]
    assert not faults, "\n".join(faults)


def loaded(path: Path) -> Any:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_update_hook_knows_what_is_not_rendered(tmp_path: Path) -> None:
    """It reads the stored answers in an environment of its own, because Copier's takes long to make."""
    update = loaded(REPOSITORY / "hooks" / "update.py")
    files = {path.relative_to(template() / "template") for path in (template() / "template").rglob("*")}
    names = {str(path).removesuffix(".jinja") for path in files if (template() / "template" / path).is_file()}
    seen = set()
    for number, answers in enumerate(combinations()[:: 9 if draws.every else 45]):
        deploy = render(tmp_path / str(number), answers, advanced=True, forge=("none", "github")[number % 2])
        stored = yaml.safe_load((deploy / ".copier-answers.yml").read_text())
        left_out = set(update.excluded(stored).match_files(names))
        there = {str(path.relative_to(deploy)) for path in deploy.rglob("*") if path.is_file()}
        assert names - left_out == there - {".copier-answers.yml"} | {"{{ _copier_conf.answers_file }}"}
        seen |= left_out
    assert len(seen) > 25
