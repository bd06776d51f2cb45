from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handmade import edit
from pgcat_stack import checks
from pgcat_stack.doctor import checks as doctor
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BUDGET
from pgcat_stack.reading.reading import Reading
from pgcat_stack.registry import Registry, findings

REGISTRIES: dict[str, Registry[Any]] = {"validator": checks.registry, "doctor": doctor.registry}


@pytest.fixture(params=REGISTRIES)
def registry(request: pytest.FixtureRequest) -> Registry[Any]:
    return REGISTRIES[request.param]


@pytest.fixture
def scratch() -> Registry[str]:
    """Without checks of its own: the package has no module of a family."""
    families = {"PS1": "One", "PS2": "Two"}
    return Registry("pgcat_stack.permify", families, lambda needs, subject: subject in needs)


def nothing(subject: str) -> Iterator[Problem]:
    yield from ()


def test_checks_explain_themselves(registry: Registry[Any]) -> None:
    rules = registry.all_checks()
    assert len({rule.code for rule in rules}) == len({rule.name for rule in rules}) == len(rules) > 40
    for rule in rules:
        assert rule.why.endswith(".") and rule.fix.rstrip("`").endswith("."), rule.code
        assert rule.severity in ("error", "warning")


def test_what_checks_need_is_a_file_that_may_be_unreadable() -> None:
    needs = {path for rule in checks.registry.all_checks() for path in rule.needs}
    assert needs == {*checks.STACK, BUDGET}


def test_every_family_has_checks(registry: Registry[Any]) -> None:
    assert {rule.code[:3] for rule in registry.all_checks()} == registry.families.keys()


def test_the_page_has_every_check(registry: Registry[Any]) -> None:
    page = registry.markdown()
    for rule in registry.all_checks():
        assert f"### {rule.code} {rule.name}\n" in page
        assert rule.why in page and rule.fix in page


def test_codes_and_names_are_taken_once(scratch: Registry[str]) -> None:
    scratch.check(code="PS101", name="one", severity="error", why="", fix="")(nothing)
    for code, name, wrong in [
        ("PS101", "two", "twice"),
        ("PS102", "one", "twice"),
        ("PS1", "three", "malformed"),
        ("PS1001", "three", "malformed"),
        ("PD101", "three", "malformed"),
        ("PS301", "three", "malformed"),
        ("PS103", "Three", "malformed"),
    ]:
        with pytest.raises(ValueError, match=wrong):
            scratch.check(code=code, name=name, severity="error", why="", fix="")


def test_a_failing_check_is_a_finding(scratch: Registry[str]) -> None:
    @scratch.check(code="PS102", name="fails", severity="warning", why="", fix="", needs=("a file",))
    def fails(subject: str) -> Iterator[Problem]:
        yield Problem(Location("b", 1), "before")
        raise KeyError("spec")

    @scratch.check(code="PS101", name="finds", severity="warning", why="", fix="")
    def finds(subject: str) -> Iterator[Problem]:
        yield Problem(Location("b", 2), "second")
        yield Problem(Location("b", 1), "first", "mend it")
        yield Problem(Location("b", 1), "first", "mend it")

    found = findings(scratch.all_checks(), "subject")
    assert sorted((f.path, f.line, f.code, f.severity) for f in found) == [
        (".", 1, "PS102", "error"),
        ("b", 1, "PS101", "warning"),
        ("b", 1, "PS102", "warning"),
        ("b", 2, "PS101", "warning"),
    ]
    (broken,) = (each for each in found if each.severity == "error")
    assert broken.message == "the check fails itself failed: KeyError: 'spec'"

    assert {each.code for each in findings(scratch.all_checks(), "a file")} == {"PS101"}, "it cannot be read"


def test_findings_in_files_come_by_place(folder: Path) -> None:
    edit(folder, "permify/permify.yaml", ("max_connections", "max_conections"))
    edit(folder, "pgcat/pgcat.toml", ("pool_mode", "pol_mode"), ("pool_size", "pol_size"))
    found = checks.run_checks(Reading.load(folder))
    places = [(each.path, each.line) for each in found]
    assert places == sorted(places) and len(set(places)) >= 3
