from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgcat_stack.printable import LONGEST, json_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain ü 日本 'quoted' \\n", "plain ü 日本 'quoted' \\n"),
        ("a\nb\r\tc\x00", "a\\nb\\r\\tc\\x00"),
        ("\x1b[31mred\x9b0m\x07", "\\x1b[31mred\\x9b0m\\x07"),
        ("a\u202eb\u2066c\u200ed", "a\\u202eb\\u2066c\\u200ed"),
        ("z\u200bero\u200d\ufeff\u00ad", "z\\u200bero\\u200d\\ufeff\\xad"),
        ("\u3164\u115f\ufe0f\u034f\U000e0101", "\\u3164\\u115f\\ufe0f\\u034f\\U000e0101"),
        ("a\u2028b\u2029c\x85d\xa0", "a\\u2028b\\u2029c\\x85d\\xa0"),
        ("not-\udcff-utf8", "not-\\xff-utf8"),
        ("\ud800", "\\ud800"),
        ("::error::x", "\\x3a:error::x"),
        ("  ::add-mask::x", "  \\x3a:add-mask::x"),
        ("a::b ## c", "a::b ## c"),
        ("x ##vso[task.setvariable]y ##[error]", "x \\x23#vso[task.setvariable]y \\x23#[error]"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=40))
def test_it_is_one_visible_line_and_a_second_pass_changes_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([], [shown])
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("char", ["x", "\n", "\u202e", "ü"])
def test_long_text_is_cut(char: str) -> None:
    shown = printable(char * 1_000_000)
    assert len(shown) == LONGEST and shown.endswith("…")
    assert len(printable(char * 50, 20)) == 20
    assert printable("x" * LONGEST) == "x" * LONGEST


def test_json_is_ascii_with_every_text_printable() -> None:
    data = {"a\n": ["ü\x1b", {"b": ("\udcff", 1, None, True, 0.5)}]}
    text = json_text(data)
    assert text.isascii()
    assert json.loads(text) == {"a\\n": ["ü\\x1b", {"b": ["\\xff", 1, None, True, 0.5]}]}
