"""Markdown taken apart: headings and their anchors, links, tables, code, and the commands in it."""

from __future__ import annotations

import argparse
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pgcat_stack.cli import _parser

REPOSITORY = Path(__file__).resolve().parent.parent
BLOB = "https://github.com/org/pgcat-stack/blob/main/"
"""How a rendered deployment, which is elsewhere, names a page of this repository."""

FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_without_code(text: str) -> str:
    """The page without its blocks of code."""
    return FENCED.sub("", text)


def code_blocks(text: str, language: str = "bash") -> list[str]:
    return [textwrap.dedent(code) for _, found, code in FENCED.findall(text) if found == language]


def titles(text: str) -> list[str]:
    """The headings below the page's own."""
    return [title for level, title in HEADING.findall(text_without_code(text)) if 2 <= len(level) <= 3]


def anchor(title: str) -> str:
    """As GitHub makes it: of a link its text, lower case, punctuation dropped, spaces as hyphens."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    kept = [
        character
        for character in shown.lower()
        if character in " -_" or unicodedata.category(character)[0] in "LN"
    ]
    return "".join(kept).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The anchors of every heading; the second of one name gets -1, the third -2."""
    found: set[str] = set()
    count: dict[str, int] = {}
    for _, title in HEADING.findall(text_without_code(text)):
        name = anchor(title)
        number = count.get(name, 0)
        count[name] = number + 1
        found.add(f"{name}-{number}" if number else name)
    return found


def links(text: str) -> list[str]:
    """Where the page's links and pictures lead."""
    without_code = re.sub(r"`[^`\n]+`(?!\])", "", text_without_code(text))
    return LINK.findall(without_code)


def broken_links(page: Path) -> Iterator[str]:
    """The links of a page that lead to no file, or to no heading in it; other sites are not asked."""
    text = page.read_text()
    for link in links(text):
        path, _, part = link.partition("#")
        if link.startswith(BLOB):
            target = REPOSITORY / path.removeprefix(BLOB)
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            target = page.parent / path if path else page
        if not target.exists():
            yield f"{link}: no such file"
        elif part and part not in anchors(target.read_text()):
            yield f"{link}: no such heading"


def broken_tables(text: str) -> Iterator[str]:
    """Tables with no empty line before, without rows, or with rows of different widths."""
    lines = text_without_code(text).splitlines()
    tables: list[list[str]] = []
    for number, line in enumerate(lines):
        if line.startswith("|"):
            if number == 0 or not lines[number - 1].startswith("|"):
                if number and lines[number - 1] != "":
                    yield f"no empty line before {line}"
                tables.append([])
            tables[-1].append(line)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        if len(widths) != 1 or not all(line.endswith("|") for line in table):
            yield f"rows of different widths below {table[0]}"
        if len(table) < 3 or not re.fullmatch(r"[|: -]+", table[1]):
            yield f"no head or no row: {table[0]}"


def commands(text: str) -> Iterator[str]:
    """Each block of shell, and each `command` in a sentence or a cell."""
    yield from code_blocks(text)
    yield from re.findall(r"`([^`\n]+)`", text_without_code(text))


def called(text: str, program: str) -> Iterator[list[str]]:
    """The words after each call of a program, up to the end of its command."""
    for command in commands(text):
        for line in command.replace("\\\n", " ").splitlines():
            for found in re.finditer(rf"(?:^|[\s(;&|]){re.escape(program)} ([^|&;#>)]*)", line):
                yield shlex.split(found[1])


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The commands of pgcat-stack, by name."""
    (choices,) = [each.choices for each in _parser()._actions if isinstance(each.choices, dict)]
    return choices
