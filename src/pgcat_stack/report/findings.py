"""Findings as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgcat_stack.findings import Finding
from pgcat_stack.printable import json_text, printable


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
