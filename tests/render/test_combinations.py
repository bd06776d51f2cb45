"""Every way of rendering gives a deployment that the validator has nothing to say about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgcat_stack.checks import run_checks
from pgcat_stack.deployment import Deployment
from rendering import combinations, render

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
        deployment = Deployment.load(render(tmp_path / str(number), answers))
        faults += [
            f"{_name(answers)}: {finding.path}:{finding.line}: {finding.code} {finding.message}"
            for finding in run_checks(deployment)
            # Nothing here says who may call a Permify that is deployed elsewhere.
            if not (finding.code == "PS321" and answers.get("permify_install") == "none")
        ]
    assert not faults, "\n".join(faults)
