"""The checks of a deployment's files.

A check is a function from a reading of a deployment to problems:

    @check(code="PS201", name="pgcat-unknown-key", severity="error", why="…", mend="…")
    def unknown_key(reading: Reading) -> Iterator[Problem]: ...

Every module of this package is one family, unless its name starts with an underscore. Codes are stable and
never used again. Where a file that a check judges by cannot be read, it is not run.
"""

from __future__ import annotations

from pgcat_stack.checks._needs import silent
from pgcat_stack.findings import Finding
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
    silent,
)
check = registry.check


def run_checks(reading: Reading) -> list[Finding]:
    """Run every check on the deployment. Findings come sorted by path, line and code, each once."""
    return sorted(findings(registry.all_checks(), reading), key=lambda finding: finding.order)
