"""The page of questions is generated, and current; so is its history."""

from __future__ import annotations

import re
import sys

import pytest

from rendering import REPOSITORY

sys.path.append(str(REPOSITORY / "docs"))

import questions

PAGE = (REPOSITORY / "docs" / "questions.md").read_text()
KEYS = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)


def test_the_page_of_questions_is_current() -> None:
    assert questions.render_page() == PAGE, "run: ./dev python docs/questions.py > docs/questions.md"
    assert len(KEYS) > 50


def test_the_history_says_what_was_new_and_what_became_of_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "since", lambda: {"topology": "1.0.0", "callers": "1000.0.0"})
    monkeypatch.setitem(questions.GONE, "1000.1.0", {"callers": "now client_namespaces"})
    rows = "| 1000.0.0 | callers | – |\n| 1000.1.0 | – | callers: now client_namespaces |\n"
    assert rows in questions.history()
