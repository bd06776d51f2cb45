"""Findings as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pgcat_stack.findings import Finding

LONGEST_VALUE = 80
"""Longer values of a user are cut to this many characters in messages."""


def show(value: object) -> str:
    """A user's value for a message: quoted, control characters escaped, cut when long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def one_line(text: str) -> str:
    """`text` with line ends and control characters escaped: one line on every terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def text_line(finding: Finding) -> str:
    """`path:line: CODE message (fix)`, one line."""
    fix = f" ({finding.fix})" if finding.fix else ""
    return one_line(f"{finding.path}:{finding.line}: {finding.code} {finding.message}{fix}")


def text_report(findings: Iterable[Finding], files: int) -> str:
    """One line a finding, and a last line that counts. `files` is the number of files read."""
    lines = []
    counts = {"error": 0, "warning": 0}
    for finding in findings:
        counts[finding.severity] += 1
        lines.append(text_line(finding))
    errors, warnings = _count(counts["error"], "error"), _count(counts["warning"], "warning")
    lines.append(f"{errors}, {warnings} in {_count(files, 'file')}")
    return "\n".join(lines) + "\n"


def json_report(findings: Sequence[Finding]) -> str:
    """A JSON list of objects with code, severity, path, line, message and fix."""
    objects = [
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
    return json.dumps(objects, indent=2) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
