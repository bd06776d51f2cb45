"""One rolling update under load, from the first process to the last, and what was seen of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from live.load import Load
from live.rollout import Deployment, Pod, Rules, deployment
from live.service import service
from live.stack import MAX_CONNECTIONS, Stack, pgcat_program
from live.support import Peaks, postgres_cluster
from pgcat_stack.budget import plan


@dataclass(frozen=True)
class Rollout:
    """What is rolled, from which answers, and what is different afterwards."""

    answers: dict[str, Any]
    rolled: str = "pgcat"
    change: dict[str, Any] = field(default_factory=dict)
    """Answers that are different in what replaces the pods."""
    edits: Sequence[Callable[[Path], None]] = ()
    """Of the rendered files, before anything starts."""
    pgcat: str = "pgcat"
    pause_seconds: float = 0.4
    """Between two requests of a client, of which there are five."""


@dataclass
class Seen:
    rules: Rules
    instances: int
    """How many the plan counts at most."""
    load: Load
    peaks: dict[str, int]
    allowed: dict[str, int]
    """What the plans before and after allow the pools, by server."""
    lost: set[str]


def allowed(stack: Stack) -> dict[str, int]:
    """The connections of all instances on each server, without the migration's."""
    return {row.server.role: row.demand - row.migration for row in plan(stack.deployment).rows}


def roll(rollout: Rollout) -> Seen:
    """Bring it up, roll it while clients check and write through a Service, and take it down."""
    with ExitStack() as running:
        enter = running.enter_context
        folder = Path(enter(tempfile.TemporaryDirectory(prefix="pgcat-stack-")))
        cluster = enter(postgres_cluster(MAX_CONNECTIONS, {}))
        direct = rollout.answers.get("pooling") == "direct"
        binary = None if direct else pgcat_program(rollout.pgcat)
        stack = Stack(cluster, rollout.answers, binary, folder / "before", folder / "live")
        for edit in rollout.edits:
            edit(stack.rendered)
        stack.reload()
        if direct:  # pools that are full from the start
            size = str(rollout.answers["permify_max_connections"])
            stack.environment["PERMIFY_DATABASE_MIN_CONNECTIONS"] = size
        stack.prepare()
        front = enter(service(folder / "permify"))
        rolled: Deployment
        if stack.sidecar or stack.direct:
            rolled = permify = enter(deployment(stack, front, "permify"))
        else:
            middle = enter(service(folder / "pgcat"))
            pgcat = enter(deployment(stack, middle, "pgcat"))
            permify = enter(deployment(stack, front, "permify", middle.port))
            rolled = pgcat if rollout.rolled == "pgcat" else permify
        first = permify.pods[0].permify
        assert first
        first.write(cluster)
        before = allowed(stack)
        if rollout.change:
            stack.change(folder / "after", **rollout.change)
        after = allowed(stack)
        with (
            Peaks(cluster, stack.user, 0.1) as peaks,
            Load([front.port], 4, 1, rollout.pause_seconds) as load,
        ):
            for pod in rolled.pods:
                fill(stack, pod)
            rolled.roll(lambda pod: fill(stack, pod))
        with stack.connect(cluster.primary.port, stack.database) as connection:
            lost = load.lost(connection)
        most = {role: max(before[role], after[role]) for role in before}
        instances = plan(stack.deployment).rows[0].uses[0].instances.count
        return Seen(
            rolled.rules,
            instances,
            load,
            {server.role: peaks[server] for server in cluster.servers},
            most,
            lost,
        )


def fill(stack: Stack, pod: Pod) -> None:
    """Let PgCat open every server connection that it may."""
    if pod.pgcat is None:
        return
    port = pod.pgcat.port
    row = plan(stack.deployment).rows[0]
    clients = 3 * max(use.size.value for use in row.uses)

    def sleep(pool: str) -> None:
        # On a busy machine some wait too long; those that were served have filled the pools.
        with suppress(psycopg.Error), stack.connect(port, pool) as connection:
            connection.execute("SELECT pg_sleep(0.3)")

    pools = ["permify_writer", "permify_reader"] * clients
    with ThreadPoolExecutor(len(pools)) as threads:
        list(threads.map(sleep, pools))
