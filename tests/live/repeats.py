"""Tests that repeat others with another version or topology run with --every-combination, as in the workflow.

What is left has every behaviour once, and both versions of PgCat and every topology between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

repeats = pytest.mark.repeats
LATEST = pytest.param("pgcat-1.3.0", marks=repeats)
"""The unreleased PgCat, where the released one shows the same."""


def drawn(names: Iterable[Any], repeated: Collection[Any]) -> list[Any]:
    """Parameters of a test, those that repeat others marked so."""
    return [pytest.param(name, marks=repeats) if name in repeated else name for name in names]


def asked_for(config: pytest.Config, repeated: Collection[str]) -> Collection[str]:
    """What fixtures need not do for tests that do not run."""
    return () if config.getoption("--every-combination") else repeated
