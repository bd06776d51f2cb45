"""Values with their places, and numbers as the programs read them.

These are Go durations, percentages of replicas, and counts in text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location

_PERCENT = re.compile(r"(\d{1,6})%")
_WHOLE = re.compile(r"[-+]?\d{1,9}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number and where it stands, or where it would stand."""

    value: int
    location: Location


@dataclass(frozen=True, slots=True)
class Text:
    """A text and where it stands, or where it would stand."""

    value: str
    location: Location


@dataclass(frozen=True, slots=True)
class Flag:
    """Whether something holds, and where that is written, or would be."""

    value: bool
    location: Location


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time and where it stands, or where it would stand."""

    value: float
    location: Location


def is_int(value: object) -> TypeGuard[int]:
    """Whether the value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value: Any) -> int | None:
    """A whole number as such, or None."""
    return value if is_int(value) else None


def whole_text(value: Any) -> int | None:
    """A whole number, also written as text, as the environment and Compose have it.

    Of a Compose variable with a default, `${REPLICAS:-2}`, the default counts.
    """
    if not isinstance(value, str):
        return whole(value)
    text = (interpolated(value) or "").strip()
    return int(text) if _WHOLE.fullmatch(text) else None


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)


def size_bytes(value: Any) -> int | None:
    """A size as Docker reads it, in bytes: `512m`, `1.5g`, `256MiB`, a number; None for anything else.

    Every prefix is a power of 1024: https://pkg.go.dev/github.com/docker/go-units#RAMInBytes
    """
    match = _SIZE.fullmatch(str(value)) if isinstance(value, str) or is_int(value) else None
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " ")) if match else None


_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"[-+]?(?:0|(?:{_PART})+)", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")


def go_duration_seconds(text: str) -> float | None:
    """The seconds that a duration in Go's notation means, such as `1h2m3.5s`; None where it is none."""
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def duration_seconds(value: Any) -> float | None:
    """Seconds of a Go duration such as `1h30m`; None where it is none, or a number without a unit but 0."""
    if isinstance(value, str):
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
