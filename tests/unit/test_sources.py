from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from pgcat_stack.files.nodes import Node
from pgcat_stack.files.sources import Source, parse_source, read_source
from pgcat_stack.files.toml_nodes import toml_node
from pgcat_stack.files.yaml_nodes import MAX_DEPTH, plain_value

MANIFEST = """\
# a comment
metadata:
  name: one
spec:
  items:
    - first
    - key: value
      other: 1
---
metadata:
  name: two
"""

TOML = '''\
# a comment
[general]
host = "x" # [not.a.table]
a.b = 1

[pools.writer]
text = """
[not.a.table]
x = 1
"""
raw = 'c:\\'
[pools.writer.shards.0]
servers = [
  # ["old", 1],
  ["one", 1],
  ["two",
   2],
]
inline = { k = [1, 2], "quoted.key" = 3 }

[[list]]
k = 1
[[list]]
k = 2
[list.below]
z = 3
'''


def yaml_source(text: str | bytes) -> Source:
    return parse_source("x.yaml", text if isinstance(text, bytes) else text.encode())


def toml_source(text: str | bytes) -> Source:
    return parse_source("x.toml", text if isinstance(text, bytes) else text.encode())


def kinds(source: Source) -> list[str]:
    return [problem.kind for problem in source.problems]


def test_yaml_lines_of_keys_and_items() -> None:
    source = yaml_source(MANIFEST)
    assert source.line("metadata", "name") == 3
    assert source.line("spec", "items", 1) == 7
    assert source.line("spec", "items", 1, "other") == 8
    assert source.line("metadata", "name", document=1) == 11


def test_a_missing_key_has_the_line_of_its_parent() -> None:
    source = yaml_source(MANIFEST)
    assert source.line("spec", "items", 7, "nothing") == 5
    assert source.line("nothing") == 2
    assert source.line("metadata", document=5) == 1


def test_yaml_documents_are_plain_data() -> None:
    source = yaml_source(MANIFEST)
    assert source.documents[1] == {"metadata": {"name": "two"}}
    assert source.data["spec"]["items"][1] == {"key": "value", "other": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0444", 0o444),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("089", 89.0),
        ("true", True),
        ("yes", "yes"),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("10s", "10s"),
        ("-", "-"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_mean_what_go_programs_read(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_quoted_and_tagged_scalars() -> None:
    assert yaml_source("a: '5'\nb: !!str 5\nc: !!int '5'\nd: !reset null\n").data == {
        "a": "5",
        "b": "5",
        "c": 5,
        "d": "null",
    }


def test_anchors_and_merge_keys() -> None:
    source = yaml_source("base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  y: 3\nlist: [*b]\n")
    assert source.data["use"] == {"x": 1, "y": 3}
    assert source.data["list"] == [{"x": 1, "y": 2}]
    assert source.line("use", "x") == 2
    assert source.line("use", "y") == 6


def test_duplicate_yaml_keys_are_reported_on_their_line() -> None:
    source = yaml_source("a: 1\nb: 2\na: 3\n")
    assert kinds(source) == ["duplicate-key"]
    assert source.problems[0].line == 3
    assert "line 1" in source.problems[0].message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a: [1", "syntax"),
        ("a: b: c", "syntax"),
        ("a: *nobody", "syntax"),
        ("a: &x {b: *x}", "syntax"),
        ("? [a]\n: b", "syntax"),
        ("a: {<<: 1}", "syntax"),
        ("a: \x01", "syntax"),
        ("[" * 10_000, "limit"),
        ("a: " + "{a: " * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "limit"),
        (b"a: \xff", "encoding"),
        (b"a: \x00", "syntax"),
    ],
)
def test_broken_yaml_is_a_problem_and_no_exception(text: str | bytes, kind: str) -> None:
    source = yaml_source(text)
    assert kinds(source) == [kind]
    assert source.documents == ()
    assert not source.parsed


def test_alias_bombs_are_refused() -> None:
    text = "a0: &a0 [" + "x," * 9 + "x]\n"
    text += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    assert kinds(yaml_source(text)) == ["limit"]


def test_empty_files() -> None:
    assert yaml_source("").data is None
    assert yaml_source("# nothing\n").documents == ()
    assert toml_source("").data == {}
    assert parse_source("x.json", b"").problems[0].kind == "syntax"


def test_toml_lines() -> None:
    source = toml_source(TOML)
    lines = TOML.splitlines()

    def at(*keys: str | int) -> str:
        return lines[source.line(*keys) - 1].strip()

    assert at("general") == "[general]"
    assert at("general", "a", "b") == "a.b = 1"
    assert at("pools", "writer", "text") == 'text = """'
    assert at("pools", "writer", "raw").startswith("raw")
    assert at("pools", "writer", "shards", "0") == "[pools.writer.shards.0]"
    assert at("pools", "writer", "shards", "0", "servers", 0) == '["one", 1],'
    assert at("pools", "writer", "shards", "0", "servers", 1, 1) == "2],"
    assert at("pools", "writer", "shards", "0", "inline", "quoted.key").startswith("inline")
    assert at("list", 1) == "[[list]]"
    assert at("list", 1, "k") == "k = 2"
    assert at("list", 1, "below", "z") == "z = 3"
    assert source.line("nothing", "at", "all") == 1


_KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
_SCALARS = st.one_of(
    st.integers(-(2**31), 2**31),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.floats(allow_nan=False, allow_infinity=False),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5), st.booleans())
def test_every_toml_key_has_a_position(data: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    parsed, root = tomllib.loads(text), toml_node(text)
    last = text.count("\n") + 1

    def compare(value: Any, node: Node) -> None:
        items: dict[Any, Any] = {}
        if isinstance(value, (dict, list)):
            items = value if isinstance(value, dict) else dict(enumerate(value))
        assert set(node.children) == set(items)
        for key, below in items.items():
            assert 1 <= node.key_lines[key] <= last
            compare(below, node.children[key])

    compare(parsed, root)


@given(st.binary(max_size=200), st.sampled_from(["x.yaml", "x.toml", "x.json", "x.sql"]))
def test_no_bytes_raise(content: bytes, path: str) -> None:
    parse_source(path, content).line("a", 0, "b")


@given(st.text(alphabet="ab:- []{}&*<>!?|'\"#\n\t,1", max_size=60))
def test_no_yaml_raises(text: str) -> None:
    yaml_source(text).line("a", 0)


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("a = 1\na = 2\n", "duplicate-key", 2),
        ("[a]\nx = 1\n[a]\n", "duplicate-key", 3),
        ("a = \n", "syntax", 1),
        ("a = 1\nb = [\n", "syntax", 3),
        ("a = " + "[" * 5000, "limit", 1),
        ("a = 1" + "0" * 6000, "limit", 1),
    ],
)
def test_broken_toml_is_a_problem_with_its_line(text: str, kind: str, line: int) -> None:
    source = toml_source(text)
    assert [(problem.kind, problem.line) for problem in source.problems] == [(kind, line)]


def test_a_folder_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    assert kinds(read_source(tmp_path, "x.yaml")) == ["unreadable"]


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    assert kinds(read_source(tmp_path, "x.yaml")) == ["unreadable"]


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.yaml").open("wb") as stream:
        stream.truncate(1 << 30)
    assert kinds(read_source(tmp_path, "x.yaml")) == ["unreadable"]


def test_binary_files_are_left_alone() -> None:
    source = parse_source("logo.png", b"\x89PNG\0\xff")
    assert source.problems == () and source.text == ""
