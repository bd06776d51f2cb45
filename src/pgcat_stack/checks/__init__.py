"""The checks of a deployment's files.

A check is a function from a reading of a deployment to problems:

    @check(code="PS201", name="pgcat-unknown-key", severity="error", needs=(PGCAT,), why="…", fix="…")
    def unknown_key(reading: Reading) -> Iterator[Problem]: ...

Every module of this package is one family, unless its name starts with an underscore. Codes are stable and
never used again. A check is not run where a file that it needs cannot be read.
"""

from __future__ import annotations

from pgcat_stack.findings import Finding
from pgcat_stack.paths import COMPOSE, KUSTOMIZATION, PERMIFY, PGCAT
from pgcat_stack.reading.reading import Reading
from pgcat_stack.registry import Registry, findings

registry: Registry[Reading] = Registry(
    __name__,
    {
        "PS1": "Syntax and style",
        "PS2": "pgcat.toml",
        "PS3": "Permify's configuration",
        "PS4": "Agreement between files",
        "PS5": "Connection budget",
        "PS6": "Drain, readiness and timeouts",
        "PS7": "Secrets",
        "PS8": "Images and containers",
        "PS9": "Kubernetes schemas",
    },
    unreadable=lambda needs, reading: not reading.unreadable.isdisjoint(needs),
)
check = registry.check

STACK = (COMPOSE, KUSTOMIZATION, PGCAT, PERMIFY)
"""Needed by what compares programs with each other: what runs, and how it is set."""


def run_checks(reading: Reading) -> list[Finding]:
    """Run every check on the deployment. Findings come sorted by path, line and code, each once."""
    return sorted(findings(registry.all_checks(), reading), key=lambda finding: finding.order)
