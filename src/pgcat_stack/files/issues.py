"""What a model finds in a configuration, and how pydantic's errors become that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from pgcat_stack.files.plain_data import Key
from pgcat_stack.printable import show_at

UNKNOWN_KEY, WRONG_TYPE, MISSING_KEY = "unknown-key", "wrong-type", "missing-key"
OUT_OF_RANGE, UNKNOWN_VALUE = "out-of-range", "unknown-value"
DURATION = "duration"
MISREAD = frozenset({WRONG_TYPE, DURATION})
"""The kinds of what cannot be read as what its key takes, so that its value is not known."""


@dataclass(frozen=True, slots=True)
class Issue:
    """Something wrong in a configuration.

    `kind` names the rule, one per check. `keys` is the path of the key in the file. `message` and `fix` are
    like those of a `Problem`.
    """

    kind: str
    keys: tuple[Key, ...]
    message: str
    fix: str = ""


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false, without quotes",
    "string_type": "a string in quotes",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}


def issues_of(error: ValidationError) -> Iterator[Issue]:
    """The issues in a pydantic error, but for unknown keys, which the models look for themselves."""
    for item in error.errors(include_url=False):
        keys: tuple[Key, ...] = tuple(part for part in item["loc"] if not str(part).startswith("function-"))
        name, kind, context = _name(keys), item["type"], item.get("ctx", {})
        shown = show_at(keys, item["input"])
        if kind == "extra_forbidden":
            continue
        if kind == "missing":
            yield Issue(MISSING_KEY, keys, f"`{name}` is missing {place(keys[:-1])}", f"add {name}")
        elif kind in _TYPES:
            yield Issue(WRONG_TYPE, keys, f"`{name}` is {shown}", f"it must be {_TYPES[kind]}")
        elif kind in _LIMITS:
            field, word = _LIMITS[kind]
            fix = f"{word} {context.get(field, '')}"
            yield Issue(OUT_OF_RANGE, keys, f"`{name}` is {shown}", fix)
        elif kind == "literal_error":
            message = f"`{name}` is {shown}"
            yield Issue(UNKNOWN_VALUE, keys, message, f"one of {context['expected']}")
        elif kind.startswith("issue:"):
            message = f"`{name}`: {item['msg']}"
            yield Issue(kind.removeprefix("issue:"), keys, message, str(context.get("fix", "")))
        else:
            yield Issue(WRONG_TYPE, keys, f"`{name}`: {item['msg']}")


def section(keys: tuple[Key, ...]) -> str:
    """A table by its path, as TOML writes it."""
    return f"[{'.'.join(str(key) for key in keys)}]"


def place(keys: tuple[Key, ...]) -> str:
    """Where a key stands: `in [pools.writer]`, or `at the top level`."""
    return f"in {section(keys)}" if keys else "at the top level"


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that looks most like `key`, if any does."""
    found = get_close_matches(key.lower().replace("-", "_"), list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def _name(keys: tuple[Key, ...]) -> str:
    """The key, or list[index], at the end of a path."""
    names = [str(key) for key in keys]
    if len(keys) > 1 and isinstance(keys[-1], int):
        return f"{names[-2]}[{names[-1]}]"
    return names[-1] if names else "the file"


def without(data: Any, unknown: Iterable[tuple[Key, ...]]) -> Any:
    """A copy of plain data without the keys at these paths."""
    paths = list(unknown)
    if not paths:
        return data
    if isinstance(data, dict):
        dropped = {path[0] for path in paths if len(path) == 1}
        return {
            key: without(value, [path[1:] for path in paths if len(path) > 1 and path[0] == key])
            for key, value in data.items()
            if key not in dropped
        }
    if isinstance(data, list):
        return [
            without(value, [path[1:] for path in paths if len(path) > 1 and path[0] == index])
            for index, value in enumerate(data)
        ]
    return data
