"""Rolling updates at the default drain settings, under load."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from figures import spread, table

from live.rollout_under_load import Rollout, Seen, roll
from live.stack import EXTERNAL, require_programs
from live.support import program

STANDALONE = {"topology": "standalone", **EXTERNAL}
ROLLED = {
    "standalone, two PgCat": Rollout(STANDALONE),
    "standalone, three PgCat": Rollout({**STANDALONE, "pgcat_replicas": 3}),
    "standalone, two PgCat 1.3.0": Rollout(STANDALONE, pgcat="pgcat-1.3.0"),
    "standalone, two Permify": Rollout(STANDALONE, rolled="permify"),
    "sidecar, two pods": Rollout({"topology": "sidecar", **EXTERNAL}, rolled="permify"),
    "direct, two Permify": Rollout(
        {**STANDALONE, "pooling": "direct", "permify_max_connections": 8}, rolled="permify"
    ),
}


SIDE_BY_SIDE = 9
"""So many at a time, for they mostly wait."""


def rollouts(folder: Path, runs: int) -> str:
    require_programs()
    program("haproxy")
    jobs = [
        (name, replace(rollout, pause_seconds=0.3)) for _ in range(runs) for name, rollout in ROLLED.items()
    ]
    seen: dict[str, list[Seen]] = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        for name, future in [(name, threads.submit(roll, rollout)) for name, rollout in jobs]:
            try:
                seen.setdefault(name, []).append(future.result())
            except pytest.skip.Exception as missing:
                print(f"rollouts: {name}: left out: {missing}", file=sys.stderr)
    rows = []
    for name, each in seen.items():
        requests = [one.load.requests() for one in each]
        slowest = [1000 * max(request.seconds for request in some) for some in requests]
        peak = max(one.peaks["primary"] for one in each)
        rows.append(
            [
                name,
                spread([len(some) for some in requests], 0),
                spread([len(one.load.failed()) for one in each], 0),
                spread(slowest, 0),
                sum(len(one.lost) for one in each),
                f"{peak} of {each[0].allowed['primary']}",
            ]
        )
    head = [
        "rolled",
        "requests",
        "failed",
        "slowest, ms",
        "writes lost",
        "connections on the primary, of the plan",
    ]
    return f"{runs} runs of each, {SIDE_BY_SIDE} rollouts at a time.\n\n{table(head, rows)}"
