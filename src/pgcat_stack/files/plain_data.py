"""Plain data as parsers make it: walks that never fail where a hand-edited file has another shape."""

from __future__ import annotations

from typing import Any

Key = str | int
"""A name in a mapping, or an index in a list."""


def as_mapping(value: Any) -> dict[str, Any]:
    """`value` where it is a mapping, else an empty one: lets a check walk files whose shape is wrong."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """`value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """`value` where it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def text_mapping(value: Any) -> dict[str, str]:
    """The entries of a mapping whose names and values are text."""
    return {k: v for k, v in as_mapping(value).items() if isinstance(k, str) and isinstance(v, str)}


def dig(data: Any, *keys: Key) -> Any:
    """The value at a path of names and indexes, or None where any step of the path is missing."""
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and -len(data) <= key < len(data):
            data = data[key]
        else:
            return None
    return data


def put(data: Any, keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of a mapping, with the value at a path; what else is on the path and is no mapping goes."""
    key, *below = keys
    return {**as_mapping(data), key: put(dig(data, key), tuple(below), value) if below else value}


Texts = list[tuple[tuple[Key, ...], str]]
"""Texts in a value with their paths."""


def strings(value: Any, keys: tuple[Key, ...] = ()) -> Texts:
    """Every text in the value, which stands at the path `keys`, with its path."""
    found: Texts = []
    _add_strings(found, value, keys)
    return found


def _add_strings(found: Texts, value: Any, keys: tuple[Key, ...]) -> None:
    if isinstance(value, str):
        found.append((keys, value))
    elif isinstance(value, dict):
        for key, item in value.items():
            _add_strings(found, item, (*keys, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _add_strings(found, item, (*keys, index))
