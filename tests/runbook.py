"""The README of a deployment, taken apart: the sections it must have, their commands and statements."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pages import FENCED, HEADING, code_blocks, text_without_code

EVERYWHERE = [
    "Requests hang",
    "Clients wait for a server connection",
    "Requests are slow",
    "Connect spikes",
    "More connections than planned",
    "Writes fail",
    "Requests fail",
    "The migration failed",
    "A Permify process never gets ready",
]
"""Symptoms that every deployment has a section for; alerts link to them."""
WITH_PGCAT = ["No PgCat answers", "No pool configured"]
WITH_REPLICA = ["Stale reads"]
WITH_BOTH = ["Reads are all on the primary"]
WITH_KEYS = ["A caller is refused"]
SYMPTOMS = [*EVERYWHERE, *WITH_PGCAT, *WITH_REPLICA, *WITH_BOTH, *WITH_KEYS]


def blocks(readme: Path, title: str | None = None) -> list[str]:
    """The commands of a section, block by block, or of all of them."""
    text = readme.read_text()
    if title is not None:
        text = section(text, title)
    return code_blocks(text)


def section(readme: str, title: str) -> str:
    """What stands below a heading, up to the next one."""
    for level in ("###", "##", "####"):
        _, found, rest = f"\n{readme}".partition(f"\n{level} {title}\n")
        if found:
            break
    assert found, f"no section {title}"
    hidden = FENCED.sub(lambda code: " " * len(code[0]), rest)  # a comment in code is no heading
    following = HEADING.search(hidden)
    return rest[: following.start()] if following else rest


def statements(readme: str) -> set[tuple[str, str]]:
    """Function and statement of every `ask_… "…"`, and of what stands alone in a cell, for the primary."""
    asked = r"""\b(ask_(?:pgcat|primary|replicas)) (?:"([^"]+)"|'([^']+)')"""
    found = {(function, double or single) for function, double, single in re.findall(asked, readme)}
    cells = re.findall(r"`(SELECT [^`…]+)`", text_without_code(readme))
    return found | {("ask_primary", cell) for cell in cells}


@dataclass(frozen=True)
class Row:
    """What a section says of one cause."""

    see: str
    cause: str
    do: str


def rows(readme: str, title: str) -> list[Row]:
    """The table of a section."""
    lines = [line for line in section(readme, title).splitlines() if line.startswith("| ")]
    assert lines and lines[0] == "| You see | It is | Do |", title
    return [Row(*line.removeprefix("| ").removesuffix(" |").split(" | ")) for line in lines[1:]]


def row(readme: str, title: str, see: str) -> Row:
    """The one row that is chosen by some words of what one sees."""
    (found,) = [each for each in rows(readme, title) if see in each.see]
    return found


def written_commands(text: str) -> list[str]:
    """What stands between backticks and calls a function of the README."""
    return re.findall(r"`((?:ask_|sessions )[^`]+)`", text)
