"""Rolling updates at the default drain settings, under load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import spread, table

from live.rolling import Rollout, roll
from live.stack import EXTERNAL, require_programs
from live.support import program

STANDALONE = {"topology": "standalone", **EXTERNAL}
ROLLED = {
    "standalone, two PgCat": Rollout(STANDALONE),
    "standalone, three PgCat": Rollout({**STANDALONE, "pgcat_replicas": 3}),
    "standalone, two PgCat 1.3.0": Rollout(STANDALONE, pgcat="pgcat-1.3.0"),
    "standalone, two Permify": Rollout(STANDALONE, rolled="permify"),
    "sidecar, two pods": Rollout({"topology": "sidecar", **EXTERNAL}, rolled="permify"),
    "direct, two Permify": Rollout({**STANDALONE, "pooling": "direct"}, rolled="permify"),
}


def rollouts(folder: Path, runs: int) -> str:
    """Each of them at the same time as the others, for they mostly wait."""
    require_programs()
    for name in ("haproxy", "pgcat-1.3.0"):
        program(name)
    rows = []
    with ThreadPoolExecutor(len(ROLLED)) as threads:
        every = [list(threads.map(roll, ROLLED.values())) for _ in range(runs)]
    for number, name in enumerate(ROLLED):
        seen = [run[number] for run in every]
        requests = [each.load.requests() for each in seen]
        peak = max(each.peaks["primary"] for each in seen)
        rows.append(
            [
                name,
                spread([len(each) for each in requests], 0),
                spread([len(each.load.failed()) for each in seen], 0),
                spread([1000 * max(request.seconds for request in each) for each in requests], 0),
                sum(len(each.lost) for each in seen),
                f"{peak} of {seen[0].allowed['primary']}",
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
    return table(head, rows)
