"""Numbers as the programs read them: Go durations, percentages of replicas, counts in text."""

from __future__ import annotations

import re
from typing import Any

_PERCENT = re.compile(r"(\d{1,6})%")
_WHOLE = re.compile(r"[-+]?\d{1,9}")
_VARIABLE = re.compile(r"\$\{\w+:?-([^}]*)\}")


def whole(value: Any) -> int | None:
    """A whole number as such (true and false are none), or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole_text(value: Any) -> int | None:
    """A whole number, also written as text, as the environment and Compose have it.

    Of a Compose variable with a default, `${REPLICAS:-2}`, the default counts.
    """
    if not isinstance(value, str):
        return whole(value)
    variable = _VARIABLE.fullmatch(value.strip())
    text = (variable[1] if variable else value).strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def duration_seconds(value: Any) -> float | None:
    """Seconds of a Go duration such as `1h30m`; None where it is none, or a number without a unit but 0."""
    if isinstance(value, str):
        from pgcat_stack.models.permify import go_duration_seconds

        return go_duration_seconds(value.strip())
    return 0.0 if whole(value) == 0 else None


def share_of(value: Any, total: int, *, up: bool) -> int | None:
    """Kubernetes' IntOrString: a number, or a percentage of `total` rounded up or down; None for another."""
    number = whole(value)
    if number is not None:
        return number if number >= 0 else None
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    percent = int(match[1])
    return -(-total * percent // 100) if up else total * percent // 100


def seconds_text(seconds: float) -> str:
    """Seconds for a message: `75 s`, `0.5 s`."""
    return f"{seconds:g} s"
