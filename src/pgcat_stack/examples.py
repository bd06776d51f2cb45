"""Examples of what checks find: an edit of a rendered file that a check reports.

They stand in YAML beside the checks, one file a family, and are shown on the page of checks. The tests render
each deployment, make each edit and judge it, so no example can say what the check does not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Example:
    """An edit of one rendered file: `good` is what the template writes, `bad` stands in its place.

    Both are without the indentation that their lines share in the file. `bad` is empty where lines are
    removed.
    """

    file: str
    good: str
    bad: str
    deployment: str = "standalone"
    """Which deployment it is an edit of: standalone, sidecar, direct or docker."""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """What is answered beyond the hosts."""
    also: tuple[str, ...] = ()
    """Codes of other checks that report something else about the same edit."""

    def planted(self, text: str) -> str:
        """The text of the file with `bad` in the place of `good`, which it must hold exactly once."""
        first, *more = self.good.splitlines()
        lines = [re.escape(first), *(f"(?P=indent){re.escape(line)}" if line else "" for line in more)]
        found = list(re.finditer(r"^(?P<indent> *)" + "\n".join(lines) + r"\n", text, re.MULTILINE))
        if len(found) != 1:
            raise ValueError(f"{self.file} holds this {len(found)} times, not once:\n{self.good}")
        start, end, indent = found[0].start(), found[0].end(), found[0]["indent"]
        bad = "".join(f"{indent}{line}" if line.strip() else line for line in self.bad.splitlines(True))
        return text[:start] + bad + text[end:]

    def markdown(self) -> str:
        """The edit as a block of Markdown that shows what to write (+) in the place of what is wrong (-)."""
        lines = difflib.ndiff(self.bad.splitlines(), self.good.splitlines())
        shown = "\n".join(line.rstrip() for line in lines if not line.startswith("?"))
        return f"`{self.file}`:\n\n```diff\n{shown}\n```\n"


def examples(package: str) -> dict[str, Example]:
    """The examples of a package of checks, by code; none where it has no folder `examples`."""
    return dict(_read(package))


def _read(package: str) -> Iterator[tuple[str, Example]]:
    folder = resources.files(package) / "examples"
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for code, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            yield code, Example(**entry)
