"""Text files as plain data that remember their lines.

A file is read once. What is wrong with it (bytes that are not text, syntax, duplicate keys, alias bombs)
becomes a `SourceProblem` on the `Source`, never an exception: the checks of the family PS1xx turn these into
findings.

TOML comes through the standard library; its lines are looked up only once somebody asks for one.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pgcat_stack.files.folder import Folder, UnreadError
from pgcat_stack.files.nodes import Node, ProblemKind, SourceProblem
from pgcat_stack.files.plain_data import Key, as_mapping, strings
from pgcat_stack.files.toml_nodes import toml_node
from pgcat_stack.files.yaml_nodes import yaml_nodes
from pgcat_stack.findings import Location

Language = Literal["yaml", "toml", "json", "text"]

BYTE_ORDER_MARK = "\ufeff"
_MARKED = "the file begins with a byte order mark"

_LANGUAGES: Mapping[str, Language] = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}


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
        return not any(p.kind in ("unreadable", "link", "encoding", "syntax", "limit") for p in self.problems)

    @property
    def unread(self) -> bool:
        """Whether nothing of the file, or of the folder that stands in its place, was read."""
        return any(p.kind in ("unreadable", "link") for p in self.problems)

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
    def texts(self) -> tuple[tuple[tuple[tuple[Key, ...], str], ...], ...]:
        """Every text in each document, with its path."""
        return tuple(tuple(strings(document)) for document in self.documents)

    @cached_property
    def _toml_nodes(self) -> tuple[Node, ...]:
        if self.language != "toml" or not self.documents:
            return ()
        return (toml_node(self.text),)


def language_of(path: str) -> Language:
    """The language that a file is read as, by its suffix."""
    return _LANGUAGES.get(Path(path).suffix.lower(), "text")


def read_source(root: Path, path: str) -> Source:
    """Read `path` below `root`, see `source_in`."""
    try:
        with Folder(root) as folder:
            return source_in(folder, path)
    except OSError as error:
        return unread_source(path, "unreadable", f"cannot be read: {(error.strerror or str(error)).lower()}")


def source_in(folder: Folder, path: str, name: str = "") -> Source:
    """Read `path` below the folder, as the source `name` (default: `path`).

    Never raises for what the file is or holds. What a link leads to outside is not read.
    """
    try:
        content = folder.read(path)
    except UnreadError as unread:
        return unread_source(name or path, "link" if unread.why == "link" else "unreadable", str(unread))
    return parse_source(name or path, content)


def unread_source(path: str, kind: ProblemKind, message: str) -> Source:
    """A file, or a folder, that was not read."""
    return _broken(path, kind, 1, message)


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


def _parse_yaml(path: str, text: str) -> Source:
    documents, problems = yaml_nodes(text)
    values = tuple(document.value for document in documents)
    return Source(path, text, "yaml", values, tuple(problems), tuple(documents))


def unread_above(sources: Mapping[str, Source], path: str) -> Source | None:
    """The folder above a path that was not read: a link out of the deployment, or one without rights."""
    while path := posixpath.dirname(path):
        source = sources.get(path)
        if source is not None and source.unread:
            return source
    return None
