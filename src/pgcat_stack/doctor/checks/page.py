"""The list of the doctor's checks in its page, made from the registry.

`python -m pgcat_stack.doctor.checks.page docs/doctor.md` writes it below the line that says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pgcat_stack.doctor.checks import registry

MARK = "<!-- The rest is made by `python -m pgcat_stack.doctor.checks.page docs/doctor.md`. -->\n"


def with_checks(page: str) -> str:
    """The page with its list of checks as the registry has them now. Raises ValueError without the mark."""
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page lacks the line {MARK.strip()}")
    return f"{head}{mark}\n## Checks\n\n{registry.markdown()}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_checks(file.read_text(encoding="utf-8")), encoding="utf-8")
