"""The JSON Schema of budget.yaml takes what PS504 takes, and refuses what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY, combinations, render

sys.path.append(str(REPOSITORY / "docs"))

import schema

JUDGE = jsonschema.Draft202012Validator(schema.budget_schema())
SERVER = {"host": "db", "port": 5432, "role": "primary", "max_connections": 100, "other_connections": 20}


def test_the_schema_is_current() -> None:
    file = REPOSITORY / "docs" / "budget.schema.json"
    run = "run: ./dev python docs/schema.py budget > docs/budget.schema.json"
    assert json.loads(file.read_text()) == schema.budget_schema(), run
    JUDGE.check_schema(JUDGE.schema)


@pytest.mark.parametrize("answers", combinations()[::25])
def test_it_takes_what_is_rendered(answers: dict[str, Any], tmp_path: Path) -> None:
    budget = (render(tmp_path / "deploy", answers) / "budget.yaml").read_text()
    assert list(JUDGE.iter_errors(yaml.safe_load(budget))) == []


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in SERVER.items() if name != key}


@pytest.mark.parametrize(
    ("budget", "taken"),
    [
        ({"servers": [SERVER]}, True),
        ({"servers": [without("port")], "permify_max_replicas": 1}, True),
        ({"servers": [{**SERVER, "port": 65_535, "max_connections": 262_143}]}, True),
        ([SERVER], False),
        ({}, False),
        ({"servers": []}, False),
        ({"servers": ["db"]}, False),
        ({"servers": [SERVER], "server": []}, False),
        ({"servers": [SERVER], "permify_max_replicas": 0}, False),
        *(({"servers": [without(key)]}, False) for key in SERVER if key != "port"),
        *(
            ({"servers": [{**SERVER, **wrong}]}, False)
            for wrong in (
                *({"host": ""}, {"host": 5}, {"role": "standby"}, {"port": 0}, {"port": 65_536}, {"prot": 1}),
                *({"max_connections": 0}, {"max_connections": 262_144}, {"max_connections": "x"}),
                *({"other_connections": -1}, {"other_connections": None}),
            )
        ),
    ],
)
def test_it_agrees_with_the_check(budget: Any, taken: bool, tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy")
    (deploy / "budget.yaml").write_text(yaml.safe_dump(budget))
    found = [finding for finding in run_checks(Reading.load(deploy)) if finding.code == "PS504"]
    assert (not found) is taken
    assert JUDGE.is_valid(budget) is taken
