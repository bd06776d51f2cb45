"""How many examples a property test draws: a third in the usual run, all of them with --every-combination."""

from __future__ import annotations

every = False
"""Set by tests/conftest.py before any test module is imported, in each worker."""


def examples(number: int) -> int:
    """`number` with --every-combination, otherwise a third of it."""
    return number if every else max(number // 3, 3)
