"""The list of the doctor's checks in its page, made from the registry.

`python -m pgcat_stack.doctor.checks.page docs/doctor.md` writes it below the line that says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pgcat_stack.doctor.checks import FAMILIES, Check, all_checks

MARK = "<!-- The rest is made by `python -m pgcat_stack.doctor.checks.page docs/doctor.md`. -->\n"


def with_checks(page: str) -> str:
    """The page with its list of checks as the registry has them now. Raises ValueError without the mark."""
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page lacks the line {MARK.strip()}")
    return head + mark + "\n" + _checks()


def _checks() -> str:
    checks = all_checks()
    rows = (f"| [{c.code}](#{c.code.lower()}-{c.name}) | {c.name} | {c.severity} |\n" for c in checks)
    parts = ["## Checks\n", "| Code | Name | Severity |\n|---|---|---|\n" + "".join(rows)]
    for prefix, title in FAMILIES.items():
        parts.append(f"## {title}\n")
        parts.extend(_section(rule) for rule in checks if rule.code.startswith(prefix))
    return "\n".join(parts)


def _section(rule: Check) -> str:
    return f"### {rule.code} {rule.name}\n\n*{rule.severity}*\n\n{rule.why}\n\n**To mend it:** {rule.mend}\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_checks(file.read_text(encoding="utf-8")), encoding="utf-8")
