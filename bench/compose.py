"""How long Docker Compose's operations of day two leave Permify without answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import spread, table

from live.compose_support import UP, Stack, skip_without_docker, started
from live.load import Load
from rendering import render

ANSWERS: dict[str, Any] = {"monitoring": "none", "advanced": True}
STEADY_SECONDS = 2.0


@dataclass(frozen=True)
class Operation:
    name: str
    do: Callable[[], object]


@dataclass
class Bed:
    """One deployment on which the operations are done in turn."""

    folder: Path
    """Where other answers are rendered."""
    count: int = 0

    def answer(self, stack: Stack, answers: Mapping[str, Any]) -> None:
        """What `copier update` brings, without asking it."""
        self.count += 1
        rendered = render(self.folder / str(self.count), ANSWERS, **answers)
        shutil.copytree(rendered, stack.folder, dirs_exist_ok=True)

    def operations(self, stack: Stack) -> Iterator[Operation]:
        def follow(title: str, part: int = 0) -> Callable[[], object]:
            commands = stack.runbook(title, part)
            return lambda: stack.follow(commands)

        def up(*arguments: str) -> Callable[[], object]:
            return lambda: stack.compose(*UP, *arguments)

        yield Operation("`docker compose restart pgcat`", lambda: stack.compose("restart", "pgcat"))
        yield Operation("`docker compose restart permify`", lambda: stack.compose("restart", "permify"))
        yield Operation("`docker compose restart pgcat permify`", follow("Change the configuration."))
        yield Operation("password rotated, as the runbook has it", follow("Rotate the password."))
        yield Operation("`up --force-recreate --no-deps pgcat`", up("--force-recreate", "--no-deps", "pgcat"))
        self.answer(stack, {"reader_pool_size": 10})
        yield Operation("`up` after an answer that changes PgCat", up())
        self.answer(stack, {"permify_max_connections": 4})
        yield Operation("`up` after an answer that changes both", up())
        self.answer(stack, {})
        yield Operation("one after the other, as the runbook has it", follow("Change the configuration.", 1))
        moving = follow("Move to direct pooling, without PgCat.")
        self.answer(stack, {"pooling": "direct"})
        yield Operation("moved to direct, as the runbook has it", moving)
        moving = follow("Move to PgCat.")
        self.answer(stack, {})
        yield Operation("moved to PgCat, as the runbook has it", moving)


def compose(folder: Path, runs: int) -> str:
    """Outages of one deployment with the default answers, as minimum / median / maximum of the runs."""
    skip_without_docker()
    seen: dict[str, list[Load]] = {}
    with started(render(folder / "deploy", ANSWERS)) as stack:
        stack.prepare()
        bed = Bed(folder / "answers")
        for _ in range(runs):
            for operation in bed.operations(stack):
                with stack.load() as load:
                    time.sleep(STEADY_SECONDS)
                    operation.do()
                    time.sleep(STEADY_SECONDS)
                assert stack.lost(load) == set(), operation.name
                seen.setdefault(operation.name, []).append(load)
    rows = [
        (
            name,
            spread([max(load.outage_seconds(kind) for kind in ("check", "write")) for load in loads], 1),
            spread([max(request.seconds for request in load.requests()) for load in loads], 1),
            spread([len(load.failed()) for load in loads], 0),
            sum(len(load.acknowledged) for load in loads),
        )
        for name, loads in seen.items()
    ]
    head = (
        "operation",
        "outage, s",
        "slowest request, s",
        "failed requests",
        "acknowledged writes, none lost",
    )
    return table(head, rows)
