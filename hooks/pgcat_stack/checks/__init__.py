"""The registry of checks, and the runner that turns their problems into findings.

A check is a function from a deployment to problems:

    @check(code="PS201", name="pgcat-unknown-key", severity="error", why="…", mend="…")
    def unknown_key(deployment: Deployment) -> Iterator[Problem]: ...

Every module of this package is one family and is found by itself, unless its name starts with an underscore.
Codes are stable and never used again: PS1xx syntax and style, PS2xx pgcat.toml, PS3xx Permify's
configuration, PS4xx agreement between files, PS5xx connection budget, PS6xx drain, readiness and timeouts,
PS7xx secrets, PS8xx images and containers, PS9xx Kubernetes schemas.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgcat_stack.checks._needs import silent
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Finding, Location, Problem, Severity

CheckFunction = Callable[[Deployment], Iterator[Problem]]

FAMILIES = {
    "PS1": "Syntax and style",
    "PS2": "pgcat.toml",
    "PS3": "Permify's configuration",
    "PS4": "Agreement between files",
    "PS5": "Connection budget",
    "PS6": "Drain, readiness and timeouts",
    "PS7": "Secrets",
    "PS8": "Images and containers",
    "PS9": "Kubernetes schemas",
}

_CODE = re.compile(r"PS[1-9][0-9]{2}")
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

    `code` is `PS` and three digits, `name` is kebab-case, `why` and `mend` are whole sentences for the page
    of checks. Where a file that it judges by cannot be read, it is not run. Raises ValueError for a malformed
    or repeated code or name.
    """
    if not _CODE.fullmatch(code) or not _NAME.fullmatch(name):
        raise ValueError(f"malformed check: {code} {name}")
    if code in _registry or any(other.name == name for other in _registry.values()):
        raise ValueError(f"check registered twice: {code} {name}")

    def register(function: CheckFunction) -> CheckFunction:
        def run(deployment: Deployment) -> Iterator[Problem]:
            if not silent(code, deployment):
                yield from function(deployment)

        _registry[code] = Check(code, name, severity, why, mend, run)
        return function

    return register


def all_checks() -> tuple[Check, ...]:
    """Every check, by code."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_") and module.name not in _NOT_FAMILIES:
            importlib.import_module(f"{__name__}.{module.name}")
    return tuple(_registry[code] for code in sorted(_registry))


def run_checks(deployment: Deployment) -> list[Finding]:
    """Run every check on the deployment. Findings come sorted by path, line and code, each once.

    A check that fails itself becomes a finding with its own code, so that one bad rule neither hides the
    others nor passes a deployment which it has not judged.
    """
    findings: set[Finding] = set()
    for rule in all_checks():
        try:
            for problem in rule.run(deployment):
                findings.add(_finding(rule, problem))
        except Exception as error:
            message = f"the check {rule.name} itself failed: {type(error).__name__}: {error}"
            broken = Problem(Location("."), message, "please report it with the file that it was reading")
            findings.add(_finding(rule, broken, "error"))
    return sorted(findings, key=lambda finding: finding.order)


def _finding(rule: Check, problem: Problem, severity: Severity | None = None) -> Finding:
    place = problem.location
    return Finding(rule.code, severity or rule.severity, place.path, place.line, problem.message, problem.fix)
