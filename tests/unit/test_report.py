from __future__ import annotations

import json

from pgcat_stack.findings import Finding
from pgcat_stack.printable import show
from pgcat_stack.report.findings import json_report, text_line, text_report

FINDING = Finding("PS201", "error", "pgcat/pgcat.toml", 7, "unknown key", "did you mean `x`?")


def test_a_finding_is_one_line() -> None:
    assert text_line(FINDING) == "pgcat/pgcat.toml:7: PS201 unknown key (did you mean `x`?)"


def test_without_a_fix_there_are_no_parentheses() -> None:
    assert text_line(Finding("PS101", "error", "a", 1, "is a folder", "")) == "a:1: PS101 is a folder"


def test_control_characters_are_escaped() -> None:
    line = text_line(Finding("PS101", "error", "a\nb", 1, "x\x1b[31m\r\ny\u2028z", ""))
    assert line.splitlines() == [line]
    assert "\x1b" not in line and "a\\nb" in line


def test_long_values_are_cut() -> None:
    assert len(show("x" * 10_000)) == 80
    assert show("a\nb") == "'a\\nb'"


def test_the_last_line_counts() -> None:
    warning = Finding("PS107", "warning", "a", 1, "style", "")
    assert text_report([], 14) == ["0 errors, 0 warnings in 14 files"]
    assert text_report([FINDING, warning, warning], 1)[-1] == "1 error, 2 warnings in 1 file"


def test_json_has_every_field() -> None:
    assert json.loads(json_report([FINDING])) == [
        {
            "code": "PS201",
            "severity": "error",
            "path": "pgcat/pgcat.toml",
            "line": 7,
            "message": "unknown key",
            "fix": "did you mean `x`?",
        }
    ]
    assert json.loads(json_report([])) == []
