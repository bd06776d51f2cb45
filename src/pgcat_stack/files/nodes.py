"""What readers of a language make of a text: values with their lines, and problems with theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pgcat_stack.files.plain_data import Key

ProblemKind = Literal["unreadable", "link", "encoding", "syntax", "duplicate-key", "limit"]


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why a file, or a part of it, has no data. `line` counts from 1."""

    kind: ProblemKind
    line: int
    message: str


class Node:
    """A value with its position: plain data, first line, children, and size with aliases written out."""

    __slots__ = ("children", "key_lines", "line", "size", "value")

    def __init__(self, value: Any, line: int) -> None:
        self.value = value
        self.line = line
        self.size = 1
        self.children: dict[Key, Node] = {}
        self.key_lines: dict[Key, int] = {}

    def find_line(self, keys: Sequence[Key]) -> int:
        """The line of the key at this path below the node, or of the nearest parent that exists."""
        node, line = self, self.line
        for key in keys:
            child = node.children.get(key)
            if child is None:
                break
            line = node.key_lines.get(key, child.line)
            node = child
        return line
