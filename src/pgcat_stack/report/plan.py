"""The budget table of `pgcat-stack plan`, as text for people and as JSON for programs."""

from __future__ import annotations

from io import StringIO
from typing import Any

from pgcat_stack.budget import Plan, Row, Use
from pgcat_stack.printable import Line, json_text, printable


def plan_json(plan: Plan) -> str:
    """The budget as a JSON object. Its keys are stable; a later version may add some.

    - `holds`: whether everything is listed, could be counted, and is within its capacity.
    - `servers`: in the order of budget.yaml, objects with `host`, `port`, `role`, `max_connections`,
      `other_connections`, `capacity` (these three null where budget.yaml has no number), `pools`, `migration`
      (connections of the migration), `demand`, and `headroom` (null without capacity).
    - `pools` of a server: objects with `pool`, `program` (`pgcat` or `permify`), `size`, `instances`,
      `instances_in_words` and `demand`.
    - `missing`: servers that a pool or URI names and budget.yaml does not, objects with `host`, `port` and
      `pool`.
    """
    return json_text(_object(plan))


def _object(plan: Plan) -> dict[str, Any]:
    return {
        "holds": plan.holds,
        "servers": [
            {
                "host": row.server.address.host,
                "port": row.server.address.port,
                "role": row.server.role,
                "max_connections": row.server.max_connections,
                "other_connections": row.server.other_connections,
                "capacity": row.server.capacity,
                "pools": [_use_object(use) for use in row.uses],
                "migration": row.migration,
                "demand": row.demand,
                "headroom": row.headroom,
            }
            for row in plan.rows
        ],
        "missing": [
            {"host": server.address.host, "port": server.address.port, "pool": server.named_by}
            for server in plan.unlisted
        ],
    }


def _use_object(use: Use) -> dict[str, Any]:
    return {
        "pool": use.pool,
        "program": use.workload.program,
        "size": use.size.value,
        "instances": use.instances.count,
        "instances_in_words": use.instances.words,
        "demand": use.demand,
    }


def plan_text(plan: Plan, *, terminal: bool, width: int) -> list[str]:
    """The budget as a table, and a line for what it cannot show.

    On a terminal it has lines and colours and fits into `width` where its words and numbers allow; elsewhere
    it is plain, and as wide as it needs to be. Nothing is ever cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ROUNDED if terminal else box.ASCII, show_lines=False, header_style="bold")
    table.add_column("PostgreSQL server", overflow="fold")
    table.add_column("Pool", overflow="fold")
    for name in ("Size", "Instances"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("Counted as", overflow="fold")
    for name in ("Demand", "Capacity", "Headroom"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for row in plan.rows:
        name = printable(f"{row.server.address} ({row.server.role})")
        for use in row.uses:
            cells = (use.pool, use.size.value, use.instances.count, use.instances.words, use.demand)
            table.add_row(Text(name), *(Text(printable(str(cell))) for cell in cells))
            name = ""
        if row.migration:
            migration = ("migration", row.migration, 1, "once", row.migration)
            table.add_row(Text(name), *(Text(str(cell)) for cell in migration))
            name = ""
        table.add_row(Text(name), "all", "", "", "", *_totals(row), end_section=True)
    console = Console(
        file=StringIO(), force_terminal=terminal, color_system="standard" if terminal else None, width=10_000
    )
    needed = console.measure(table)
    console.width = max(min(needed.maximum, width), needed.minimum) if terminal else needed.maximum
    console.print(table)
    lines: list[str] = [
        f"{server.address}: named by {server.named_by}, but not in budget.yaml" for server in plan.unlisted
    ]
    if not plan.counted:
        lines.append("The number of Permify processes is not known: budget.yaml lacks permify_max_replicas")
    lines.append("The budget holds." if plan.holds else "The budget does not hold.")
    file = console.file
    assert isinstance(file, StringIO)
    as_it_is = Line if terminal else str  # its colours are ours, its cells are printable
    return [as_it_is(line) for line in file.getvalue().splitlines()] + lines


def _totals(row: Row) -> tuple[str, str, str]:
    capacity, headroom = row.server.capacity, row.headroom
    shown = "?" if headroom is None else f"[bold red]{headroom}[/]" if headroom < 0 else str(headroom)
    return str(row.demand), "?" if capacity is None else str(capacity), shown
