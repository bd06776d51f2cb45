"""Text files as plain data that remember their lines.

A file is read once. What is wrong with it (bytes that are not text, syntax, duplicate keys, alias bombs)
becomes a `SourceProblem` on the `Source`, never an exception: the checks of the family PS1xx turn these into
findings.

YAML comes through PyYAML's binding of libyaml. Compose, kubectl and Permify parse with ports of that very
library, so a file means here what it means there; and it is some thirty times as fast as a parser in pure
Python, which alone would use up the half second that a whole validation may take. TOML comes through the
standard library; its lines are looked up only once somebody asks for one.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from pgcat_stack.findings import Location

Key = str | int
Language = Literal["yaml", "toml", "json", "text"]
ProblemKind = Literal["unreadable", "encoding", "syntax", "duplicate-key", "limit"]

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Larger files are not read: nothing that a deployment is made of comes near."""
MAX_DEPTH = 100
"""Deepest nesting of YAML and TOML that is read."""
MAX_VALUES = 200_000
"""Most values in one document once its aliases are written out."""

BYTE_ORDER_MARK = "\ufeff"
_MARKED = "the file begins with a byte order mark"

_LANGUAGES: Mapping[str, Language] = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


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


@dataclass(frozen=True, eq=False)
class Source:
    """One text file of the deployment.

    `path` is relative to the deployment, with forward slashes. `documents` holds plain data (dict, list, str,
    int, float, bool, None), one item per YAML document, one for TOML and JSON, none for other text or where
    the file does not parse. The data is shared between readers and must not be changed.
    """

    path: str
    text: str = ""
    language: Language = "text"
    documents: tuple[Any, ...] = ()
    problems: tuple[SourceProblem, ...] = ()
    nodes: tuple[Node, ...] = field(default=(), repr=False, compare=False)

    @property
    def data(self) -> Any:
        """The first document, or None."""
        return self.documents[0] if self.documents else None

    @property
    def mapping(self) -> dict[str, Any]:
        """The first document where it is a mapping, else an empty one."""
        return as_mapping(self.data)

    @property
    def parsed(self) -> bool:
        """Whether the file could be read and its syntax holds."""
        return not any(p.kind in ("unreadable", "encoding", "syntax", "limit") for p in self.problems)

    @property
    def broken(self) -> bool:
        """Whether a program that reads the file gets nothing, so that no other check may judge by it."""
        return not self.parsed or (self.language != "text" and bool(self.problems) and not self.documents)

    def line(self, *keys: Key, document: int = 0) -> int:
        """The 1-based line of the key at this path, or of the nearest known parent.

        A key is a name in a mapping or an index in a list: `line("pools", "permify_writer", "pool_mode")`.
        """
        nodes = self.nodes or self._toml_nodes
        return nodes[document].find_line(keys) if document < len(nodes) else 1

    def at(self, *keys: Key, document: int = 0) -> Location:
        """The location of the key at this path, see `line`."""
        return Location(self.path, self.line(*keys, document=document))

    def here(self, line: int = 1) -> Location:
        """The location of a line of this file."""
        return Location(self.path, line)

    @cached_property
    def _toml_nodes(self) -> tuple[Node, ...]:
        if self.language != "toml" or not self.documents:
            return ()
        from pgcat_stack.toml_lines import toml_node

        return (toml_node(self.text),)


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


def strings(value: Any, keys: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Every text in the value with its path."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*keys, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*keys, index))


def language_of(path: str) -> Language:
    """The language that a file is read as, by its suffix."""
    return _LANGUAGES.get(Path(path).suffix.lower(), "text")


def read_source(root: Path, path: str) -> Source:
    """Read `path` below `root`. Never raises for what the file is or holds."""
    file = root / path
    try:
        if file.is_dir():
            return _broken(path, "unreadable", 1, "a folder where a file is expected")
        if not file.is_file():
            return _broken(path, "unreadable", 1, "not a regular file")
        if file.stat().st_size > MAX_FILE_BYTES:
            return _broken(
                path, "unreadable", 1, f"larger than {MAX_FILE_BYTES // 1024 // 1024} MiB, so it was not read"
            )
        content = file.read_bytes()
    except OSError as error:
        return _broken(path, "unreadable", 1, f"cannot be read: {error.strerror or error}")
    return parse_source(path, content)


def parse_source(path: str, content: bytes) -> Source:
    """Make a source of the bytes of a file."""
    if b"\0" in content and language_of(path) == "text":
        return Source(path)  # a picture or another binary file, none of ours
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _broken(path, "encoding", line, f"byte {content[error.start]:#04x} is not UTF-8")
    language = language_of(path)
    if language == "yaml":
        return _parse_yaml(path, text)
    if language == "toml":
        return _parse_toml(path, text)
    if language == "json":
        return _parse_json(path, text)
    return Source(path, text)


def _broken(path: str, kind: ProblemKind, line: int, message: str, text: str = "") -> Source:
    return Source(path, text, language_of(path), problems=(SourceProblem(kind, line, message),))


# JSON and TOML


def _parse_json(path: str, text: str) -> Source:
    try:
        return Source(path, text, "json", (json.loads(text),))
    except json.JSONDecodeError as error:
        if text.startswith(BYTE_ORDER_MARK):
            return _broken(path, "syntax", 1, _MARKED, text)
        return _broken(path, "syntax", error.lineno, error.msg, text)
    except (RecursionError, ValueError):
        return _broken(path, "limit", 1, "nested too deeply, or a number too long to read", text)


_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_TOML_TWICE = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Duplicate inline table key")


def _parse_toml(path: str, text: str) -> Source:
    try:
        return Source(path, text, "toml", (tomllib.loads(text),))
    except tomllib.TOMLDecodeError as error:
        if text.startswith(BYTE_ORDER_MARK):
            return _broken(path, "syntax", 1, _MARKED, text)
        message = str(error)
        place = _TOML_PLACE.search(message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        kind: ProblemKind = "duplicate-key" if message.startswith(_TOML_TWICE) else "syntax"
        return _broken(path, kind, line, _TOML_PLACE.sub("", message), text)
    except (RecursionError, ValueError):
        return _broken(path, "limit", 1, "nested too deeply, or a number too long to read", text)


# YAML


class _YamlLimitError(Exception):
    def __init__(self, line: int, message: str, kind: ProblemKind = "limit") -> None:
        super().__init__(message)
        self.line, self.message, self.kind = line, message, kind


def _parse_yaml(path: str, text: str) -> Source:
    builder = _YamlBuilder()
    try:
        builder.run(text)
    except _YamlLimitError as error:
        return _broken(path, error.kind, error.line, error.message, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        return _broken(path, "syntax", mark.line + 1 if mark else 1, problem, text)
    except yaml.YAMLError as error:  # characters that YAML does not allow
        offset = getattr(error, "position", 0)
        line = text.count("\n", 0, offset) + 1
        return _broken(path, "syntax", line, getattr(error, "reason", None) or "not YAML", text)
    except RecursionError:
        return _broken(path, "limit", 1, "nested too deeply", text)
    documents = tuple(node.value for node in builder.documents)
    return Source(path, text, "yaml", documents, tuple(builder.duplicates), tuple(builder.documents))


class _YamlBuilder:
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
                    raise _YamlLimitError(line, f"nested deeper than {MAX_DEPTH} levels")
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
                    raise _YamlLimitError(
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
            raise _YamlLimitError(line, f"alias *{anchor} has no anchor before it", "syntax")
        node = self._anchors[anchor]
        if node is None:
            raise _YamlLimitError(line, f"alias *{anchor} stands inside the value that it names", "syntax")
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
                raise _YamlLimitError(key_node.line, "a key is a mapping or a list", "syntax")
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
            raise _YamlLimitError(line, "the merge key << takes a mapping or a list of mappings", "syntax")
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
