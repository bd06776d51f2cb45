"""What checks say: a problem at a place, and the finding that the runner makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a rendered file.

    `path` is relative to the deployment, with forward slashes. `line` counts from 1.
    """

    path: str
    line: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """What a check yields: where, what is wrong, and how to mend it there.

    `message` and `fix` are single sentences without a full stop. An empty `fix` means that the message says
    it all.
    """

    location: Location
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the code and the severity of the check that found it: one line of the report."""

    code: str
    severity: Severity
    path: str
    line: int
    message: str
    fix: str

    @property
    def order(self) -> tuple[str, int, str, str]:
        """The key by which reports are sorted: path, line, code, message."""
        return (self.path, self.line, self.code, self.message)
