"""The pages of checks and of metrics are generated, and current."""

from __future__ import annotations

import re

from pgcat_stack.checks.page import render_page
from pgcat_stack.pgcat import metrics
from rendering import REPOSITORY


def test_the_page_of_checks_is_current() -> None:
    page = (REPOSITORY / "docs" / "checks.md").read_text()
    assert page == render_page(), "run: ./dev python -m pgcat_stack.checks.page > docs/checks.md"


def test_the_page_of_metrics_is_current() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert page == metrics.render_page(), "run: ./dev python -m pgcat_stack.pgcat.metrics > docs/metrics.md"


def test_the_page_of_metrics_has_every_series_that_alerts_ask() -> None:
    template = (REPOSITORY / "template" / "monitoring" / "rules.yaml.jinja").read_text()
    expressions = re.sub(r"(?m)^ *#.*$", "", template)
    asked = set(re.findall(r"\b((?:pgcat|pg|probe)_\w+)\{", expressions))
    listed = {metric.series for metric in (*metrics.PGCAT, *metrics.POSTGRES, *metrics.PROBE)}
    assert len(asked) > 15 and asked <= listed
