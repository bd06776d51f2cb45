"""docs/alerts.yaml: what it says of each fault is what promtool sees of the rendered rules."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from live.repeats import repeats
from pgcat_stack.doctor.checks import registry
from rendering import REPOSITORY, render
from runbook import SYMPTOMS

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on PATH")
PAGE = Path(__file__).parents[2] / "docs" / "alerts.py"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("alerts_page", PAGE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = _module()


@pytest.fixture(scope="module", params=matrix.DEPLOYMENTS)
def monitoring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    answers = matrix.DEPLOYMENTS[request.param]
    return request.param, render(tmp_path_factory.mktemp("deploy") / "deploy", answers) / "monitoring"


def test_steady_load_fires_nothing(monitoring: tuple[str, Path]) -> None:
    name, folder = monitoring
    steady = matrix.series([], name == "docker")
    assert matrix.first_firing(folder, matrix.known(folder), steady) == {}


def faults() -> Iterator[Any]:
    """Each fault in each deployment; the usual run has each fault once, and each deployment several times."""
    shown = [row for row in matrix.faults() if row["shows"]]
    for (number, row), (other, name) in product(enumerate(shown), enumerate(matrix.DEPLOYMENTS)):
        marks = [repeats] if (number + other) % len(matrix.DEPLOYMENTS) else []
        yield pytest.param(name, row, id=f"{name}-{row['fault']}", marks=marks)


@pytest.mark.parametrize(("monitoring", "row"), list(faults()), indirect=["monitoring"])
def test_a_fault_pages_in_time(row: dict[str, object], monitoring: tuple[str, Path]) -> None:
    name, folder = monitoring
    wanted = row["bare" if name == "without" else "pages"]
    times = matrix.first_firing(folder, matrix.known(folder), matrix.series(row["shows"], name == "docker"))
    assert isinstance(wanted, list) and set(wanted) <= times.keys(), times
    assert min(times.values(), default=0) >= 0, "one fired before the fault"
    limit = matrix.LIMIT_SECONDS[row["kind"]]
    assert not wanted or min(times[alert] for alert in wanted) + 15 <= limit


def test_rows_name_what_there_is() -> None:
    codes = {check.code for check in registry.all_checks()}
    for row in matrix.faults():
        assert set(row["doctor"]) <= codes
        assert row["section"] in ("", *SYMPTOMS)


def test_every_fault_that_docs_faults_describes_has_one_row() -> None:
    _, _, below = (REPOSITORY / "docs" / "faults.md").read_text().partition("## Fault by fault\n\n")
    _, _, *rows = below.partition("\n\n")[0].splitlines()
    described = [
        row.split("|")[1].strip().removesuffix(" (*not tested*, seven trials by hand)") for row in rows
    ]
    assert len(described) >= 24
    assert sorted(name for row in matrix.faults() for name in row.get("found_as", ())) == sorted(described)
