"""Measured figures as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`minimum / median / maximum`."""
    three = min(values), statistics.median(values), max(values)
    return " / ".join(f"{value:,.{digits}f}" for value in three)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column holds names, the others figures."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    assert all(len(line) == len(head) for line in lines), lines
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
