"""What the doctor says in the end: errors of the files first, then the living parts, nothing twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgcat_stack.checks import run_checks as run_file_checks
from pgcat_stack.doctor.case import Case
from pgcat_stack.doctor.checks import run_checks
from pgcat_stack.doctor.side_by_side import in_words
from pgcat_stack.findings import Finding

_SERVES_NOT = frozenset({"PD306", "PD308", "PD309", "PD312", "PD314", "PD401", "PD403", "PD404"})
"""What comes of a pool that does not work, and of a Permify that uses it."""

EXPLAINED: Mapping[str, frozenset[str]] = {
    "PS401": _SERVES_NOT,
    "PS402": frozenset({"PD310", "PD404"}),
    "PS403": frozenset({"PD312", "PD314"}),
    "PS404": frozenset({"PD312", "PD314"}),
    "PS405": _SERVES_NOT,
    "PS406": _SERVES_NOT,
    "PS410": _SERVES_NOT | {"PD202", "PD218", "PD304"},
    "PS411": _SERVES_NOT | {"PD201", "PD304", "PD313"},
    "PS440": _SERVES_NOT | {"PD201", "PD313"},
    "PS441": _SERVES_NOT | {"PD201", "PD313"},
    "PS442": frozenset({"PD105", "PD407"}),
    "PS443": _SERVES_NOT | {"PD105", "PD201"},
    "PS506": frozenset({"PD212", "PD213", "PD310", "PD404"}),
    "PS509": frozenset({"PD207"}),
    "PS513": frozenset({"PD204", "PD205"}),
    "PS516": frozenset({"PD225"}),
}
"""By the code of an error in the files, what it lets the doctor find."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings, the most useful first, and what to note beside them."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


def verdict(case: Case, *, wrote: bool = False) -> Verdict:
    """Judge the files, then what was answered. `wrote` is whether the write check was asked for."""
    notes = []
    files: Sequence[Finding] = ()
    try:
        files = run_file_checks(case.facts.deployment)
    except Exception as error:
        notes.append(f"the files were not judged: {in_words(error)}")
    errors = [finding for finding in files if finding.severity == "error"]
    living = run_checks(case)
    left = [finding for finding in living if not _reason(finding, errors)]
    for code in dict.fromkeys(reason for finding in living if (reason := _reason(finding, errors))):
        gone = dict.fromkeys(finding.code for finding in living if _reason(finding, errors) == code)
        notes.append(f"{code} explains {', '.join(gone)}, which are not repeated: correct the file first")
    found = (*errors, *left)
    if not found and case.anybody and not wrote:
        key = ""
        if case.facts.asks_for_a_key:
            key = " with this deployment's key (a caller with another gets 401)"
        notes.append(
            f"reading{key} shows nothing wrong; --write-check also writes and checks, in a tenant of its own"
        )
    return Verdict(found, tuple(notes))


def _reason(finding: Finding, errors: Sequence[Finding]) -> str:
    """The code of the first error of the files that explains a finding; empty where none does."""
    return next((error.code for error in errors if finding.code in EXPLAINED.get(error.code, ())), "")
