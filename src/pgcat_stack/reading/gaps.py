"""What stands in a file and could not be read: each part of a reading lists its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.plain_data import Key
from pgcat_stack.findings import Location

At = Callable[..., Location]
"""Where the key at a path stands: `Manifest.at`, `Source.at`, or either with the beginning of the path."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A value with another shape than its reader knows. It counts as absent."""

    location: Location
    text: str
    """What it is, for a message: `ports is not a list`."""


def list_gaps(value: Any, at: At, *keys: Key) -> list[Gap]:
    """A gap where something stands at this path, and it is not a list."""
    return _gaps(value, list, "a list", at, *keys)


def mapping_gaps(value: Any, at: At, *keys: Key) -> list[Gap]:
    """A gap where something stands at this path, and it is not a mapping."""
    return _gaps(value, dict, "a mapping", at, *keys)


def _gaps(value: Any, kind: type, called: str, at: At, *keys: Key) -> list[Gap]:
    if value is None or isinstance(value, kind):
        return []
    name = next((str(key) for key in reversed(keys) if isinstance(key, str)), "it")
    what = f"an entry of {name}" if keys and isinstance(keys[-1], int) else name
    return [Gap(at(*keys), f"{what} is not {called}")]
