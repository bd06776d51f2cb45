"""The JSON Schema of answers, for editors: made from the table of questions and their help texts.

`./dev python docs/schema.py > docs/answers.schema.json` writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import questions


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


def _answer(rule: Mapping[str, Any]) -> dict[str, Any]:
    if "choices" in rule:
        return {"enum": list(rule["choices"])}
    if "numbers" in rule:
        low, high = rule["numbers"]
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": "boolean" if "boolean" in rule else "string"}


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(json.dumps(answers_schema(), indent=2, ensure_ascii=False) + "\n")
