"""The page of checks, made from the registry.

`python -m pgcat_stack.checks.page > docs/checks.md` writes it.
"""

from __future__ import annotations

import sys

from pgcat_stack.checks import FAMILIES, Check, all_checks


def render_page() -> str:
    """The page as Markdown, with a line end at its end."""
    checks = all_checks()
    parts = [
        "# Checks\n",
        "What `pgcat-stack validate` looks for. Codes are stable and never used again. This page is made\n"
        "from the checks themselves by `python -m pgcat_stack.checks.page > docs/checks.md`.\n",
        "| Code | Name | Severity |\n|---|---|---|\n"
        + "".join(f"| [{c.code}](#{c.code.lower()}-{c.name}) | {c.name} | {c.severity} |\n" for c in checks),
    ]
    for prefix, title in FAMILIES.items():
        family = [rule for rule in checks if rule.code.startswith(prefix)]
        if family:
            parts.append(f"## {title}\n")
            parts.extend(_section(rule) for rule in family)
    return "\n".join(parts)


def _section(rule: Check) -> str:
    return f"### {rule.code} {rule.name}\n\n*{rule.severity}*\n\n{rule.why}\n\n**To mend it:** {rule.mend}\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(render_page())
