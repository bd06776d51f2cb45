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
    known = value is None or isinstance(value, list)
    return [] if known else [Gap(at(*keys), f"{called(keys)} is not a list")]


def mapping_gaps(value: Any, at: At, *keys: Key, what: str = "") -> list[Gap]:
    """A gap where something stands at this path, and it is not a mapping. `what` names it, else its key."""
    known = value is None or isinstance(value, dict)
    return [] if known else [Gap(at(*keys), f"{what or called(keys)} is not a mapping")]


def called(keys: tuple[Key, ...]) -> str:
    """How a message names the value at a path: by its key, or as an entry of the list above it."""
    name = next((str(key) for key in reversed(keys) if isinstance(key, str)), "the file")
    return f"an entry of {name}" if keys and isinstance(keys[-1], int) else name
