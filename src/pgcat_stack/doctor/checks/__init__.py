"""The doctor's checks.

A check is a pure function from a case, what the files say and what the living parts answered, to problems; it
asks nobody itself. Codes are stable and never used again.
"""

from __future__ import annotations

from pgcat_stack.doctor.case import Case
from pgcat_stack.findings import Finding
from pgcat_stack.registry import Registry, findings

registry: Registry[Case] = Registry(
    __name__, {"PD1": "Reaching", "PD2": "PostgreSQL", "PD3": "PgCat", "PD4": "Permify"}
)
check = registry.check


def run_checks(case: Case) -> list[Finding]:
    """Run every check. Findings come with the most useful first: errors before warnings, then by code."""
    found = findings(registry.all_checks(), case)
    return sorted(found, key=lambda each: (each.severity != "error", each.code, *each.order))
