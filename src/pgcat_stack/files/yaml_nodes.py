"""YAML documents as nodes.

YAML comes through PyYAML's binding of libyaml. Compose, kubectl and Permify parse with ports of that very
library, so a file means here what it means there; and it is some thirty times as fast as a parser in pure
Python, which alone would use up the half second that a whole validation may take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pgcat_stack.files.nodes import Node, ProblemKind, SourceProblem
from pgcat_stack.files.plain_data import Key

MAX_DEPTH = 100
"""Deepest nesting that is read."""
MAX_VALUES = 200_000
"""Most values in one document once its aliases are written out."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class _StopError(Exception):
    def __init__(self, line: int, message: str, kind: ProblemKind = "limit") -> None:
        super().__init__(message)
        self.problem = SourceProblem(kind, line, message)


def yaml_nodes(text: str) -> tuple[list[Node], list[SourceProblem]]:
    """The documents, and keys that stand there twice; no documents and one problem where it is no YAML."""
    builder = _Builder()
    try:
        builder.run(text)
    except _StopError as error:
        return [], [error.problem]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        return [], [SourceProblem("syntax", mark.line + 1 if mark else 1, problem)]
    except yaml.YAMLError as error:  # characters that YAML does not allow
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        return [], [SourceProblem("syntax", line, getattr(error, "reason", None) or "not YAML")]
    except RecursionError:
        return [], [SourceProblem("limit", 1, "nested too deeply")]
    return builder.documents, builder.duplicates


class _Builder:
    """Builds documents from parser events, on a stack of its own that deep nesting cannot exhaust."""

    def __init__(self) -> None:
        self.documents: list[Node] = []
        self.duplicates: list[SourceProblem] = []
        self._stack: list[tuple[Node, list[Node], str | None]] = []
        self._anchors: dict[str, Node | None] = {}

    def run(self, text: str) -> None:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.ScalarEvent):
                value = _scalar(event)
                node = Node(value, _line(event))
                if event.anchor:
                    self._anchors[event.anchor] = node
                self._add(node)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                line = _line(event)
                if len(self._stack) >= MAX_DEPTH:
                    raise _StopError(line, f"nested deeper than {MAX_DEPTH} levels")
                if event.anchor:
                    self._anchors[event.anchor] = None  # not complete: an alias to it would be a loop
                empty: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._stack.append((Node(empty, line), [], event.anchor))
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                node, items, anchor = self._stack.pop()
                if isinstance(event, yaml.MappingEndEvent):
                    self._fill_mapping(node, items)
                else:
                    _fill_list(node, items)
                if node.size > MAX_VALUES:
                    raise _StopError(
                        node.line, f"more than {MAX_VALUES} values once its aliases are written out"
                    )
                if anchor:
                    self._anchors[anchor] = node
                self._add(node)
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._resolve(event.anchor or "", _line(event)))
            elif isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}

    def _resolve(self, anchor: str, line: int) -> Node:
        if anchor not in self._anchors:
            raise _StopError(line, f"alias *{anchor} has no anchor before it", "syntax")
        node = self._anchors[anchor]
        if node is None:
            raise _StopError(line, f"alias *{anchor} stands inside the value that it names", "syntax")
        return node

    def _add(self, node: Node) -> None:
        if self._stack:
            self._stack[-1][1].append(node)
        else:
            self.documents.append(node)

    def _fill_mapping(self, node: Node, items: list[Node]) -> None:
        merged: list[Node] = []
        for key_node, child in zip(items[::2], items[1::2], strict=True):
            key = key_node.value
            if isinstance(key, (dict, list)):
                raise _StopError(key_node.line, "a key is a mapping or a list", "syntax")
            if key == "<<":
                merged.extend(_merge_sources(child, key_node.line))
                continue
            if key in node.children:
                first = node.key_lines[key]
                message = f"duplicate key `{key}`: it also stands on line {first}"
                self.duplicates.append(SourceProblem("duplicate-key", key_node.line, message))
            _set(node, key, child, key_node.line)
        for source in merged:
            for key, child in source.children.items():
                if key not in node.children:
                    _set(node, key, child, source.key_lines.get(key, child.line))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _set(node: Node, key: Key, child: Node, line: int) -> None:
    node.value[key] = child.value
    node.children[key] = child
    node.key_lines[key] = line
    node.size += child.size


def _fill_list(node: Node, items: list[Node]) -> None:
    node.value.extend(child.value for child in items)
    node.children.update(enumerate(items))
    node.size += sum(child.size for child in items)


def _merge_sources(node: Node, line: int) -> Iterator[Node]:
    for source in list(node.children.values()) if isinstance(node.value, list) else [node]:
        if not isinstance(source.value, dict):
            raise _StopError(line, "the merge key << takes a mapping or a list of mappings", "syntax")
        yield source


_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_CONSTANTS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}
_NUMBER_STARTS = frozenset("0123456789+-.")
_LONGEST_NUMBER = 64


def plain_value(text: str) -> Any:
    """What an unquoted scalar means: YAML 1.2's core schema, and `0644` is octal as Go reads it."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS or len(text) > _LONGEST_NUMBER:
        return text
    if _INT.match(text):
        digits = text.replace("_", "")
        sign, digits = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            digits = "0o" + digits[1:]
        return int(sign + digits, 0)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text


def _scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar: by its tag where it has one, else by its style."""
    if event.tag is None or event.tag == "!":
        return plain_value(event.value) if event.implicit[0] else event.value
    if event.tag == _TAG + "str" or not event.tag.startswith(_TAG):
        return event.value
    return plain_value(event.value)
