"""Where the keys of a TOML document stand.

The standard library's parser keeps no positions, and editors of TOML that keep every character cost more to
import than the whole validation takes. This scanner reads only documents which the parser has accepted, so it
need not judge anything: it follows headers, keys, brackets and strings, and notes the line of each key and of
each value in an array.
"""

from __future__ import annotations

import json
import re

from pgcat_stack.files.nodes import Node
from pgcat_stack.files.plain_data import Key

_BLANK = re.compile(r"(?:[ \t]|\r?\n|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_BASIC_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LITERAL_LONG = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_OTHER_VALUE = re.compile(r"[^,\]}#\r\n]+")


def toml_node(text: str) -> Node:
    """The tree of positions of a valid TOML document. The nodes carry lines, not values."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lists: set[int] = set()

    def run(self) -> Node:
        root = table = Node(None, 1)
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return root
            if self.text[self.at] == "[":
                table = self._header(root)
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Move past what the pattern matches here, counting line ends."""
        match = pattern.match(self.text, self.at)
        found = match[0] if match else ""
        self.line += found.count("\n")
        self.at += len(found)
        return found

    def _header(self, root: Node) -> Node:
        """`[a.b]` opens a table, `[[a.b]]` a new item of a list of tables."""
        line = self.line
        is_list = self.text.startswith("[[", self.at)
        self.at += 2 if is_list else 1
        *parents, last = self._key()
        self.at += 2 if is_list else 1
        node = root
        for key in parents:
            node = self._newest_item(_child(node, key, line))
        node = _child(node, last, line)
        if is_list:
            self.lists.add(id(node))
            node = _child(node, len(node.children), line)
        return node

    def _newest_item(self, node: Node) -> Node:
        """A header below a list of tables means the list's last item."""
        return node.children[len(node.children) - 1] if id(node) in self.lists else node

    def _key(self) -> list[str]:
        """A key, dotted or not, up to the character after it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            quote = self.text[self.at]
            if quote == '"':
                parts.append(_unquote(self._skip(_BASIC)))
            elif quote == "'":
                parts.append(self._skip(_LITERAL)[1:-1])
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _pair(self, table: Node) -> None:
        line, node = self.line, table
        for key in self._key():
            node = _child(node, key, line)
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(node)

    def _value(self, node: Node) -> None:
        start = self.text[self.at]
        if start == "[":
            self._array(node)
        elif start == "{":
            self._inline_table(node)
        elif start == '"':
            self._skip(_BASIC_LONG if self.text.startswith('"""', self.at) else _BASIC)
        elif start == "'":
            self._skip(_LITERAL_LONG if self.text.startswith("'''", self.at) else _LITERAL)
        else:
            self._skip(_OTHER_VALUE)

    def _array(self, node: Node) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._value(_child(node, index, self.line))
            index += 1

    def _inline_table(self, node: Node) -> None:
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(node)


def _unquote(quoted: str) -> str:
    """The text of a basic string: JSON's escapes, and the eight-digit one which JSON does not have."""
    plain = re.sub(r"\\U([0-9A-Fa-f]{8})", lambda match: chr(int(match[1], 16)), quoted)
    return str(json.loads(plain, strict=False))


def _child(parent: Node, key: Key, line: int) -> Node:
    node = parent.children.get(key)
    if node is None:
        node = parent.children[key] = Node(None, line)
        parent.key_lines[key] = line
    return node
