"""The page of checks, made from the registry.

`python -m pgcat_stack.checks.page > docs/checks.md` writes it.
"""

from __future__ import annotations

import sys

from pgcat_stack.checks import registry

HEAD = """\
# Checks

What `pgcat-stack validate` looks for. Codes are stable and never used again. This page is made
from the checks themselves by `python -m pgcat_stack.checks.page > docs/checks.md`. An example shows
lines that the check reports (-), and what the template writes in their place (+); the tests judge
each of them.

"""


def render_page() -> str:
    """The page as Markdown, with a line end at its end."""
    return HEAD + registry.markdown()


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(render_page())
