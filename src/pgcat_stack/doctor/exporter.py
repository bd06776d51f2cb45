"""What PgCat's exporter is asked, and its typed answer."""

from __future__ import annotations

import re

from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.side_by_side import Failed

_SIZE = re.compile(r"^pgcat_databases_pool_size\{([^}]*)\} (\d+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def ask_exporter(place: Place, seconds: float) -> dict[tuple[str, str], int]:
    """The size of each pool's servers, by pool and role. Raises `Failed`."""
    text = fetch(place, "/metrics", seconds)
    sizes = {}
    for labels, size in _SIZE.findall(text):
        found = dict(_LABEL.findall(labels))
        sizes[found.get("pool", ""), found.get("role", "")] = int(size)
    if not sizes:
        raise Failed("failed", f"{place} gives no figures of PgCat")
    return sizes
