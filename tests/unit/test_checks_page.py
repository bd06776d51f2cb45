"""The page of checks is generated, and current."""

from __future__ import annotations

from pgcat_stack.checks.page import render_page
from rendering import REPOSITORY


def test_the_page_of_checks_is_current() -> None:
    page = (REPOSITORY / "docs" / "checks.md").read_text()
    assert page == render_page(), "run: ./dev python -m pgcat_stack.checks.page > docs/checks.md"
