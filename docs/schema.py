"""JSON Schemas for editors: of answers, from the questions and their table; of budget.yaml, from its check.

`./dev python docs/schema.py > docs/answers.schema.json` writes the first, and
`./dev python docs/schema.py budget > docs/budget.schema.json` the second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import questions

from pgcat_stack.checks import budget_file


def answers_schema() -> dict[str, Any]:
    """What one answer may be. What answers may not be together, only the gate says."""
    helps = questions.helps()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answers of pgcat-stack",
        "description": "A file for `copier copy --data-file`, or the answers file of a deployment.",
        "type": "object",
        "properties": {
            key: {"description": helps[key], **_answer(rule)}
            for key, rule in questions.table().questions.items()
        },
        "patternProperties": {"^_|^rendered_from$": {"description": "Written by Copier."}},
        "additionalProperties": False,
    }


def budget_schema() -> dict[str, Any]:
    """What PS504 takes as budget.yaml, but that other_connections leaves something of max_connections."""

    def number(key: str) -> dict[str, Any]:
        low, high = budget_file.LIMITS[key]
        return {"type": "integer", "minimum": low, "maximum": high}

    fields = {"host": {"type": "string", "pattern": r"\S"}, "role": {"enum": list(budget_file.ROLES)}}
    server = {key: fields.get(key) or number(key) for key in budget_file.SERVER_KEYS}
    servers = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": server,
            "required": [key for key in server if key != "port"],
            "additionalProperties": False,
        },
    }
    top = {"rendered": {"description": "Written by Copier."}, "servers": servers}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "budget.yaml of pgcat-stack",
        "description": "The capacity of each PostgreSQL server.",
        "type": "object",
        "properties": {key: top.get(key) or number(key) for key in budget_file.TOP_KEYS},
        "required": ["servers"],
        "additionalProperties": False,
    }


def _answer(rule: Mapping[str, Any]) -> dict[str, Any]:
    if "choices" in rule:
        return {"enum": list(rule["choices"])}
    if "numbers" in rule:
        low, high = rule["numbers"]
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": "boolean" if "boolean" in rule else "string"}


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    schema = budget_schema() if sys.argv[1:] == ["budget"] else answers_schema()
    sys.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
