"""The README of a deployment, taken apart: the sections it must have, their commands and statements."""

from __future__ import annotations

import re
from pathlib import Path

from pages import FENCED, HEADING, code_blocks, text_without_code

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


def blocks(readme: Path, title: str | None = None) -> list[str]:
    """The commands of a section, block by block, or of all of them."""
    text = readme.read_text()
    if title is not None:
        text = section(text, title)
    return code_blocks(text)


def section(readme: str, title: str) -> str:
    """What stands below a heading, up to the next one."""
    _, found, rest = f"\n{readme}".partition(f"\n### {title}\n")
    if not found:
        _, found, rest = f"\n{readme}".partition(f"\n## {title}\n")
    assert found, f"no section {title}"
    hidden = FENCED.sub(lambda code: " " * len(code[0]), rest)  # a comment in code is no heading
    following = HEADING.search(hidden)
    return rest[: following.start()] if following else rest


def statements(readme: str) -> set[tuple[str, str]]:
    """Function and statement of every `ask_… "…"`, and of what stands alone in a cell, for the primary."""
    found = set(re.findall(r'\b(ask_(?:pgcat|primary|replicas)) "([^"]+)"', readme))
    cells = re.findall(r"`(SELECT [^`…]+)`", text_without_code(readme))
    return found | {("ask_replicas" if "wal_replay" in cell else "ask_primary", cell) for cell in cells}
