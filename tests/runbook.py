"""The README of a deployment, taken apart: sections, commands, tables, links."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

EVERYWHERE = [
    "Clients wait for a server connection",
    "Connect spikes",
    "More connections than planned",
    "Requests fail",
    "The migration failed",
    "A Permify process never gets ready",
]
"""Symptoms that every deployment has a section for; alerts link to them."""
WITH_PGCAT = ["No PgCat answers", "No pool configured"]
WITH_REPLICA = ["Stale reads"]
WITH_BOTH = ["Reads are all on the primary"]
SYMPTOMS = [*EVERYWHERE, *WITH_PGCAT, *WITH_REPLICA, *WITH_BOTH]

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)


def text_without_code(readme: str) -> str:
    return FENCED.sub("", readme)


def blocks(readme: Path, title: str | None = None) -> list[str]:
    """The commands of a section, block by block, or of all of them."""
    text = readme.read_text()
    if title is not None:
        text = section(text, title)
    return [code for language, code in FENCED.findall(text) if language == "bash"]


def section(readme: str, title: str) -> str:
    """What stands below a heading, up to the next one."""
    _, found, rest = f"\n{readme}".partition(f"\n### {title}\n")
    if not found:
        _, found, rest = f"\n{readme}".partition(f"\n## {title}\n")
    assert found, f"no section {title}"
    hidden = FENCED.sub(lambda code: " " * len(code[0]), rest)  # a comment in code is no heading
    following = HEADING.search(hidden)
    return rest[: following.start()] if following else rest


def titles(readme: str) -> list[str]:
    return [title for _, title in HEADING.findall(text_without_code(readme))]


def anchor(title: str) -> str:
    """As GitHub makes it: lower case, punctuation dropped, spaces as hyphens."""
    kept = [
        character
        for character in title.lower()
        if character in " -_" or unicodedata.category(character)[0] in "LN"
    ]
    return "".join(kept).replace(" ", "-")


def statements(readme: str) -> set[tuple[str, str]]:
    """Function and statement of every `ask_… "…"`, and of what stands alone in a cell, for the primary."""
    found = set(re.findall(r'\b(ask_(?:pgcat|primary|replicas)) "([^"]+)"', readme))
    cells = re.findall(r"`(SELECT [^`…]+)`", text_without_code(readme))
    return found | {("ask_replicas" if "wal_replay" in cell else "ask_primary", cell) for cell in cells}
