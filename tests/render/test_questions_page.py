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


def test_the_history_must_name_a_new_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(questions.NEW, "1.0.0", questions.NEW["1.0.0"][1:])
    with pytest.raises(questions.HistoryError, match="topology must stand in NEW"):
        questions.since(KEYS)


def test_the_history_must_say_what_became_of_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(questions.NEW, "1000.0.0", ("callers",))
    with pytest.raises(questions.HistoryError, match="callers must stand in GONE"):
        questions.since(KEYS)
    monkeypatch.setitem(questions.GONE, "1000.1.0", {"callers": "now client_namespaces"})
    assert questions.since(KEYS).keys() >= set(KEYS)
    rows = "| 1000.0.0 | callers | – |\n| 1000.1.0 | – | callers: now client_namespaces |\n"
    assert rows in questions.history()
