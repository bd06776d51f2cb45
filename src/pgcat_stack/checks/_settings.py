"""Checks that report the issues of a model, one for each kind of issue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from pgcat_stack.checks import check
from pgcat_stack.files.issues import Issue
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Problem, Severity
from pgcat_stack.reading.reading import Reading


class Settings(Protocol):
    """What a model makes of a file."""

    @property
    def issues(self) -> tuple[Issue, ...]:
        """What is wrong with it."""


class Rule(Protocol):
    """Registers the check for one kind of issue."""

    def __call__(self, code: str, kind: str, why: str, fix: str, severity: Severity = "error") -> None:
        """See `check`; the name is the family's prefix and the kind."""


def rules_for(
    prefix: str,
    source_of: Callable[[Reading], Source | None],
    settings_of: Callable[[Reading], Settings | None],
) -> Rule:
    """A function that registers checks on the file and the settings which these two find in a deployment."""

    def rule(code: str, kind: str, why: str, fix: str, severity: Severity = "error") -> None:
        def run(reading: Reading) -> Iterator[Problem]:
            source, settings = source_of(reading), settings_of(reading)
            if source is not None and settings is not None:
                for issue in settings.issues:
                    if issue.kind == kind:
                        yield Problem(source.at(*issue.keys), issue.message, issue.fix)

        check(code=code, name=f"{prefix}-{kind}", severity=severity, why=why, fix=fix)(run)

    return rule
