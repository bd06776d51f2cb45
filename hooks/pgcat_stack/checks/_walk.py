"""Walks plain data."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.sources import Key


def strings(value: object, keys: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Every text in the value with its path."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*keys, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*keys, index))
