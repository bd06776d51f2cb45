from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgcat_stack import checks
from pgcat_stack.checks import FAMILIES, all_checks, check, run_checks
from pgcat_stack.checks.page import render_page
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Location, Problem


def test_codes_belong_to_a_family_and_explain_themselves() -> None:
    for rule in all_checks():
        assert rule.code[:3] in FAMILIES
        assert rule.why.endswith(".") and rule.mend.endswith("."), rule.code
        assert rule.severity in ("error", "warning")


def test_the_page_has_every_check() -> None:
    page = render_page()
    for rule in all_checks():
        assert f"### {rule.code} {rule.name}\n" in page
        assert rule.why in page and rule.mend in page


@pytest.fixture
def scratch_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_registry", {})
    monkeypatch.setattr(
        checks, "_NOT_FAMILIES", frozenset(m.name for m in checks.pkgutil.iter_modules(checks.__path__))
    )


@pytest.mark.usefixtures("scratch_registry")
def test_codes_and_names_are_taken_once() -> None:
    def nothing(deployment: Deployment) -> Iterator[Problem]:
        yield from ()

    check(code="PS101", name="one", severity="error", why="", mend="")(nothing)
    with pytest.raises(ValueError, match="twice"):
        check(code="PS101", name="two", severity="error", why="", mend="")
    with pytest.raises(ValueError, match="twice"):
        check(code="PS102", name="one", severity="error", why="", mend="")
    with pytest.raises(ValueError, match="malformed"):
        check(code="PS1", name="three", severity="error", why="", mend="")


@pytest.mark.usefixtures("scratch_registry")
def test_findings_are_sorted_and_a_failing_check_is_one(folder: Path) -> None:
    @check(code="PS102", name="fails", severity="warning", why="", mend="")
    def fails(deployment: Deployment) -> Iterator[Problem]:
        yield Problem(Location("b", 1), "before")
        raise KeyError("spec")

    @check(code="PS101", name="finds", severity="warning", why="", mend="")
    def finds(deployment: Deployment) -> Iterator[Problem]:
        yield Problem(Location("b", 2), "second")
        yield Problem(Location("b", 1), "first", "mend it")
        yield Problem(Location("b", 1), "first", "mend it")

    found = run_checks(Deployment.load(folder))
    assert [(f.code, f.path, f.line, f.severity) for f in found] == [
        ("PS102", ".", 1, "error"),
        ("PS101", "b", 1, "warning"),
        ("PS102", "b", 1, "warning"),
        ("PS101", "b", 2, "warning"),
    ]
    assert "KeyError" in found[0].message
