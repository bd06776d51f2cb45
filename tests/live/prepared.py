"""A rendered deployment whose Permify names its statements, and whose PgCat keeps them."""

from __future__ import annotations

import re
from pathlib import Path

CACHE_SIZE = 500
"""Of statements that PgCat keeps for each pool."""


def name_statements(rendered: Path) -> None:
    """Permify's mode is `cache_statement`, and PgCat has a cache where there is one."""
    edits = [("permify/permify.yaml", r"cache_describe", "cache_statement")]
    if (rendered / "pgcat").exists():
        size = "prepared_statements_cache_size"
        edits.append(("pgcat/pgcat.toml", rf"(?m)^{size} = \d+", f"{size} = {CACHE_SIZE}"))
    for name, pattern, new in edits:
        path = rendered / name
        text, count = re.subn(pattern, new, path.read_text())
        assert count, name
        path.write_text(text)
