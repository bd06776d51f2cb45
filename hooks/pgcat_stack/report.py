"""Findings as text for people and as JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pgcat_stack.findings import Finding
from pgcat_stack.printable import json_text, printable

LONGEST_VALUE = 80
"""Longer values of a user are cut to this many characters in messages."""


def show(value: object) -> str:
    """A user's value for a message: quoted, control characters escaped, cut when long."""
    return printable(repr(value), LONGEST_VALUE)


_SECRET_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret|token|credential|authn$|preshared|private_?key|(?:^|_)keys?$",
    re.IGNORECASE,
)
_SECRETS_BELOW = frozenset({"stringData", "preshared", "headers", "env"})
_LOGIN = re.compile(r"://[^/\s]*@")


def show_at(keys: Iterable[object], value: object) -> str:
    """The value of a key for a message, or only its kind where it may hold a secret.

    Only its kind shows of a list or a table, of a value with a login in its address, and of one whose path in
    the file names a secret. `keys` is that path, or the name alone.
    """
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, bool):
        return show(value)
    names = [key for key in keys if isinstance(key, str)]
    hidden = names and (_SECRET_KEY.search(names[-1]) or not _SECRETS_BELOW.isdisjoint(names))
    if hidden or _LOGIN.search(str(value)):
        return "text" if isinstance(value, str) else "a number"
    return show(value)


def text_line(finding: Finding) -> str:
    """`path:line: CODE message (fix)`, one line."""
    fix = f" ({printable(finding.fix)})" if finding.fix else ""
    return f"{printable(finding.path)}:{finding.line}: {finding.code} {printable(finding.message)}{fix}"


def text_report(findings: Iterable[Finding], files: int) -> list[str]:
    """One line a finding, and a last line that counts. `files` is the number of files read."""
    lines = []
    counts = {"error": 0, "warning": 0}
    for finding in findings:
        counts[finding.severity] += 1
        lines.append(text_line(finding))
    errors, warnings = _count(counts["error"], "error"), _count(counts["warning"], "warning")
    lines.append(f"{errors}, {warnings} in {_count(files, 'file')}")
    return lines


def json_report(findings: Sequence[Finding]) -> str:
    """A JSON list of objects with code, severity, path, line, message and fix."""
    return json_text(
        [
            {
                "code": finding.code,
                "severity": finding.severity,
                "path": finding.path,
                "line": finding.line,
                "message": finding.message,
                "fix": finding.fix,
            }
            for finding in findings
        ]
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
