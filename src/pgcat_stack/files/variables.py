"""Variables in compose.yaml, as Compose fills them in."""

from __future__ import annotations

import re

from pgcat_stack.files.yaml_nodes import plain_value

# https://docs.docker.com/reference/compose-file/interpolation/
_INTERPOLATION = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?P<operator>:?[-?+])?(?P<word>[^{}]*)\})"
)


def interpolated(text: str | None) -> str | None:
    """`text` as Compose reads it where no variable is set; None where only the environment knows."""
    if text is None or "$" not in text:
        return text
    unknown = False

    def replace(match: re.Match[str]) -> str:
        nonlocal unknown
        if match["escaped"]:
            return "$"
        if (match["operator"] or "").endswith("-"):
            return match["word"]
        unknown = True
        return ""

    result = _INTERPOLATION.sub(replace, text)
    return None if unknown else result


def filled_in(value: object) -> object:
    """A value of compose.yaml where no variable is set; None where only the environment knows."""
    if not isinstance(value, str) or "$" not in value:
        return value
    text = interpolated(value)
    return plain_value(text) if text is not None else None
