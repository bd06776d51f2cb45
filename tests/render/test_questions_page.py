"""The page of questions and the schema of answers are generated, and current."""

from __future__ import annotations

import json
import re
import sys

import jsonschema
import pytest
import yaml

from rendering import REPOSITORY

sys.path.append(str(REPOSITORY / "docs"))

import questions
import schema

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


def test_the_schema_of_answers_is_current() -> None:
    file = REPOSITORY / "docs" / "answers.schema.json"
    assert json.loads(file.read_text()) == schema.answers_schema(), (
        "run: ./dev python docs/schema.py > docs/answers.schema.json"
    )


def test_the_schema_takes_the_answers_of_the_examples_and_no_mistake() -> None:
    judge = jsonschema.Draft202012Validator(schema.answers_schema())
    judge.check_schema(judge.schema)
    files = list((REPOSITORY / "examples").glob("*/deploy/.copier-answers.yml"))
    assert len(files) > 5
    for file in files:
        answers = yaml.safe_load(file.read_text())
        assert list(judge.iter_errors(answers)) == [], file
        for mistake in (
            {"topologie": "docker"},
            {"topology": "swarm"},
            {"permify_replicas": 0},
            {"advanced": "x"},
        ):
            assert list(judge.iter_errors({**answers, **mistake})), mistake
