"""PS108: line ends that a shell takes for part of the command."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Problem
from pgcat_stack.reading.reading import Reading


@check(
    code="PS108",
    name="carriage-return",
    severity="error",
    why="sh reads the carriage return of a Windows line end as part of the command: PgCat never starts.",
    fix="Save the file with LF line ends, and keep .gitattributes, which makes git do so.",
)
def carriage_return(reading: Reading) -> Iterator[Problem]:
    """Shell scripts with carriage returns."""
    for path, source in reading.sources.items():
        if path.endswith(".sh") and "\r" in source.text:
            line = source.text.count("\n", 0, source.text.index("\r")) + 1
            text = "a carriage return, which sh reads as part of the command: the script fails"
            yield Problem(source.here(line), text, "save it with LF line ends, and keep .gitattributes")
