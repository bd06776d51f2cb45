"""The registry of the doctor's checks, and the runner that turns their problems into findings.

A check is a pure function from a case, what the files say and what the living parts answered, to problems; it
asks nobody itself. Codes are stable and never used again: PD1xx reaching, PD2xx PostgreSQL, PD3xx PgCat,
PD4xx Permify.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgcat_stack.doctor.answers import Case
from pgcat_stack.findings import Finding, Location, Problem, Severity

CheckFunction = Callable[[Case], Iterator[Problem]]

FAMILIES = {"PD1": "Reaching", "PD2": "PostgreSQL", "PD3": "PgCat", "PD4": "Permify"}

_CODE = re.compile(r"PD[1-4][0-9]{2}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NOT_FAMILIES = frozenset({"page"})
_registry: dict[str, Check] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: stable code and name, why it matters, how to mend what it finds, the function that looks."""

    code: str
    name: str
    severity: Severity
    why: str
    mend: str
    run: CheckFunction


def check(
    *, code: str, name: str, severity: Severity, why: str, mend: str
) -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as a check.

    `code` is `PD` and three digits, `name` is kebab-case, `why` and `mend` are whole sentences for the page.
    Raises ValueError for a malformed or repeated code or name.
    """
    if not _CODE.fullmatch(code) or not _NAME.fullmatch(name):
        raise ValueError(f"malformed check: {code} {name}")
    if code in _registry or any(other.name == name for other in _registry.values()):
        raise ValueError(f"check registered twice: {code} {name}")

    def register(function: CheckFunction) -> CheckFunction:
        _registry[code] = Check(code, name, severity, why, mend, function)
        return function

    return register


def all_checks() -> tuple[Check, ...]:
    """Every check, by code."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in _NOT_FAMILIES:
            importlib.import_module(f"{__name__}.{module.name}")
    return tuple(_registry[code] for code in sorted(_registry))


def run_checks(case: Case) -> list[Finding]:
    """Run every check. Findings come with the most useful first: errors before warnings, then by code.

    A check that fails itself becomes a finding with its own code, so that one bad rule hides no other.
    """
    findings: set[Finding] = set()
    for rule in all_checks():
        try:
            for problem in rule.run(case):
                findings.add(_finding(rule, problem, rule.severity))
        except Exception as error:
            message = f"the check {rule.name} itself failed: {type(error).__name__}: {error}"
            findings.add(_finding(rule, Problem(Location("."), message, "please report it"), "error"))
    return sorted(findings, key=lambda found: (found.severity != "error", found.code, *found.order))


def _finding(rule: Check, problem: Problem, severity: Severity) -> Finding:
    place = problem.location
    return Finding(rule.code, severity, place.path, place.line, problem.message, problem.fix)
