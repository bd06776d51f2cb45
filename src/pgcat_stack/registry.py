"""Checks, registered by their stable codes; what they find; and the list of them in a page.

The validator and the doctor have a registry each: they judge other subjects, and the hook must not import
the doctor.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pgcat_stack.examples import Example, examples
from pgcat_stack.findings import Finding, Location, Problem, Severity

Subject = TypeVar("Subject")
"""What a check judges: a deployment's files, or those and what the living parts answered."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PAGE = "page"


@dataclass(frozen=True, slots=True)
class Check(Generic[Subject]):
    """One rule: stable code and name, why it matters, how to fix what it finds, the function that looks."""

    code: str
    name: str
    severity: Severity
    why: str
    fix: str
    needs: tuple[str, ...]
    """What must be readable for a judgement: files of the deployment."""
    run: Callable[[Subject], Iterator[Problem]]


@dataclass
class Registry(Generic[Subject]):
    """The checks of a package, in which every module is one family."""

    package: str
    """Its name. Modules are found by themselves, but for `page` and those that begin with an underscore."""
    families: Mapping[str, str]
    """What each family is about, by the beginning of its codes: two letters and a digit."""
    unreadable: Callable[[Collection[str], Subject], bool] = lambda needs, subject: False
    """Whether something of what a check needs cannot be read in a subject: then it is not run."""
    _checks: dict[str, Check[Subject]] = field(default_factory=dict)

    def check(
        self, *, code: str, name: str, severity: Severity, why: str, fix: str, needs: tuple[str, ...] = ()
    ) -> Callable[[Callable[[Subject], Iterator[Problem]]], Callable[[Subject], Iterator[Problem]]]:
        """Register the decorated function as a check.

        `code` is that of a family and two more digits, `name` is kebab-case, `why` and `fix` are whole
        sentences for the page of checks, `needs` names the files without which it cannot judge. Raises
        ValueError for a malformed or repeated code or name.
        """
        known = code[:3] in self.families and re.fullmatch(r"\d\d", code[3:])
        if not known or not _NAME.fullmatch(name):
            raise ValueError(f"malformed check: {code} {name}")
        if code in self._checks or any(other.name == name for other in self._checks.values()):
            raise ValueError(f"check registered twice: {code} {name}")

        def register(
            function: Callable[[Subject], Iterator[Problem]],
        ) -> Callable[[Subject], Iterator[Problem]]:
            def run(subject: Subject) -> Iterator[Problem]:
                if not (needs and self.unreadable(needs, subject)):
                    yield from function(subject)

            self._checks[code] = Check(code, name, severity, why, fix, needs, run)
            return function

        return register

    def all_checks(self) -> tuple[Check[Subject], ...]:
        """Every check, by code."""
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            if not module.name.startswith("_") and module.name != _PAGE:
                importlib.import_module(f"{self.package}.{module.name}")
        return tuple(self._checks[code] for code in sorted(self._checks))

    def markdown(self) -> str:
        """A table of all checks, and a section for each family that has any."""
        checks, shown = self.all_checks(), examples(self.package)
        rows = (f"| [{c.code}](#{c.code.lower()}-{c.name}) | {c.name} | {c.severity} |\n" for c in checks)
        parts = ["| Code | Name | Severity |\n|---|---|---|\n" + "".join(rows)]
        for beginning, title in self.families.items():
            family = [rule for rule in checks if rule.code.startswith(beginning)]
            if family:
                parts.append(f"## {title}\n")
                parts.extend(_section(rule, shown.get(rule.code)) for rule in family)
        return "\n".join(parts)


def _section(rule: Check[Subject], example: Example | None) -> str:
    text = f"### {rule.code} {rule.name}\n\n*{rule.severity}*\n\n{rule.why}\n\n**To fix it:** {rule.fix}\n"
    return f"{text}\n{example.markdown()}" if example else text


def findings(checks: Iterable[Check[Subject]], subject: Subject) -> set[Finding]:
    """What these checks find, each once.

    A check that fails itself becomes a finding with its own code, so that one bad rule neither hides the
    others nor passes what it has not judged.
    """
    found: set[Finding] = set()
    for rule in checks:
        try:
            for problem in rule.run(subject):
                found.add(_finding(rule, problem, rule.severity))
        except Exception as error:
            message = f"the check {rule.name} itself failed: {type(error).__name__}: {error}"
            broken = Problem(Location("."), message, "please report it with what it was reading")
            found.add(_finding(rule, broken, "error"))
    return found


def _finding(rule: Check[Subject], problem: Problem, severity: Severity) -> Finding:
    place = problem.location
    return Finding(rule.code, severity, place.path, place.line, problem.message, problem.fix)
