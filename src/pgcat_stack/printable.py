"""Any text as one printable line.

Files and programs of others give us names, keys, values and messages. A line end in one of them makes a
second line of ours. An escape sequence controls the terminal. A bidirectional override shows other words than
there are. Everything that the command prints passes through this module at its edge: `cli._print` and
`cli._complain` for text, `json_text` for JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 1000
"""Longer messages, names and values are cut to this many characters."""
LONGEST_LINE = 10_000
"""Longer lines are cut to this many characters: no part of a report comes near."""

# Unicode's Default_Ignorable_Code_Point, so far as Python calls it printable: these show as nothing.
# https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Lines that runners of GitHub and Azure take for commands:
# https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
_COMMAND = re.compile(r"\A(\s*):(?=:)|#(?=#(?:\[|vso\[))")


class Line(str):
    """A line that is printed as it is: printable text, and colours of ours for a terminal."""

    __slots__ = ()


def printable(text: str, longest: int = LONGEST) -> str:
    r"""`text` as one line that a terminal shows as it is, of at most `longest` characters.

    Control characters, line ends, bidirectional overrides and what shows as nothing become escapes: `\n`,
    `\x1b`, `\u202e`; a byte of a file's name that is no UTF-8 becomes `\xff`. What is printable stays, so a
    second pass changes nothing. A longer text ends in `…`.
    """
    text = _cut(text, longest)  # first, so that a huge text costs nothing
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            char if char.isprintable() and not _INVISIBLE.match(char) else _escaped(char) for char in text
        )
    if "::" in text or "##" in text:
        text = _COMMAND.sub(lambda match: f"{match[1] or ''}\\x{ord(match[0][-1]):02x}", text)
    return _cut(text, longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escaped(char: str) -> str:
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # how Python keeps a byte of a file's name that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def json_text(data: Any) -> str:
    """`data` as JSON in ASCII, with every text in it printable, and a line end."""
    return json.dumps(_printable_data(data), indent=2) + "\n"


def _printable_data(data: Any) -> Any:
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, dict):
        return {_printable_data(key): _printable_data(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_printable_data(item) for item in data]
    return data


LONGEST_VALUE = 80
"""Longer values of a user are cut to this many characters in messages."""


def show(value: object) -> str:
    """A user's value for a message: quoted, control characters escaped, cut when long."""
    return printable(repr(value), LONGEST_VALUE)


_SECRET_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret|token|credential|authn$|preshared|private_?key|(?:^|_)keys?$",
    re.IGNORECASE,
)
_SECRETS_BELOW = frozenset({"stringData", "preshared", "headers", "env"})
_LOGIN = re.compile(r"://[^/\s]*@")


def show_at(keys: Iterable[object], value: object) -> str:
    """The value of a key for a message, or only its kind where it may hold a secret.

    Only its kind shows of a list or a table, of a value with a login in its address, and of one whose path in
    the file names a secret. `keys` is that path, or the name alone.
    """
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, bool):
        return show(value)
    names = [key for key in keys if isinstance(key, str)]
    hidden = names and (_SECRET_KEY.search(names[-1]) or not _SECRETS_BELOW.isdisjoint(names))
    if hidden or _LOGIN.search(str(value)):
        return "text" if isinstance(value, str) else "a number"
    return show(value)
