"""Progress on a terminal while the doctor works, and its report."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from pgcat_stack.doctor.case import Case
from pgcat_stack.doctor.session import Progress
from pgcat_stack.findings import Finding
from pgcat_stack.printable import Line, printable
from pgcat_stack.report.findings import text_line


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """What is under way, on standard error where that is a terminal; nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("reading the files") as status:

        def show(what: str, done: int, total: int) -> None:
            status.update(f"{what}, {done} of {total} answered" if total else what)

        yield show


def report(findings: Sequence[Finding], notes: Iterable[str], case: Case, *, width: int | None) -> list[str]:
    """One line a finding, the most useful first; then notes, and a last line that counts.

    On a terminal, whose `width` is given, lines are wrapped between words, and the codes of errors are red,
    those of warnings yellow.
    """
    lines: list[str] = []
    for finding in findings:
        wrapped = _wrapped(text_line(finding), width)
        lines += wrapped if width is None else _coloured(wrapped, finding)
    for note in notes:
        lines += _wrapped(f"note: {printable(note)}", width)
    return lines + _wrapped(summary(findings, case), width)


def _wrapped(line: str, width: int | None) -> list[str]:
    if width is None:
        return [line]
    return textwrap.wrap(
        line, max(width, 20), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _coloured(lines: list[str], finding: Finding) -> list[str]:
    """The lines of a finding, with its code in colour."""
    colour = "31" if finding.severity == "error" else "33"
    for number, line in enumerate(lines):
        before, code, after = printable(line).partition(f" {finding.code}")
        if code:
            coloured = Line(f"{before} \x1b[1;{colour}m{finding.code}\x1b[0m{after}")
            return [*lines[:number], coloured, *lines[number + 1 :]]
    return lines


def summary(findings: Sequence[Finding], case: Case) -> str:
    """How many errors and warnings, and who was asked."""
    errors = sum(finding.severity == "error" for finding in findings)
    asked = [f"{sum(1 for _ in case.told)} of {_count(len(case.facts.servers), 'PostgreSQL server')}"]
    if case.facts.fronted:
        asked.append(f"{sum(pgcat.facts is not None for pgcat in case.answers.pgcats)} PgCat")
    asked.append(f"{sum(permify.place is not None for permify in case.answers.permifys)} Permify")
    counted = f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"
    return f"{counted}; asked {', '.join(asked)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
