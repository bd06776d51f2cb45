"""One rolling update under load, from the first process to the last, and what was seen of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from live.controller import Deployment, Pod, Rules, deployment
from live.load import Load
from live.peers import IN_FILES, peers
from live.service import service
from live.stack import MAX_CONNECTIONS, Stack, pgcat_program
from live.support import KEY, NotReady, Peaks, postgres_cluster
from pgcat_stack.budget import plan


@dataclass(frozen=True)
class Rollout:
    """What is rolled, from which answers, and what is different afterwards."""

    answers: dict[str, Any]
    rolled: str = "pgcat"
    """Or `permify`, or `both` at once."""
    change: dict[str, Any] = field(default_factory=dict)
    """Answers that are different in what replaces the pods."""
    edits: Sequence[Callable[[Path], None]] = ()
    """Of the rendered files, before anything starts."""
    pgcat: str = "pgcat"
    pause_seconds: float = 0.4
    """Between two requests of a client, of which there are five."""
    before: Callable[[Stack], None] = lambda stack: None
    """Done under load, before the first new pod."""
    fill: bool = True
    """Let each PgCat open every server connection that it may."""
    key: str = KEY
    """What clients send; empty: nothing."""
    again: Callable[[Stack, Load], None] | None = None
    """Done under load when all have been replaced; then all are replaced once more."""
    stops: bool = False
    """The first new pod is never ready."""


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
    kept: int
    """Pods of those before that are still there."""


def without(lines: str, name: str = "pgcat") -> Callable[[Path], None]:
    """Takes the lines that match out of a Deployment's manifest."""

    def edit(folder: Path) -> None:
        manifest = folder / "kubernetes" / f"{name}-deployment.yaml"
        text, count = re.subn(lines, "", manifest.read_text(), flags=re.MULTILINE)
        assert count == 1
        manifest.write_text(text)

    return edit


DRAIN_WAIT = r"^ +lifecycle:\n +preStop:\n +sleep:\n +seconds:.*\n"
MIN_READY = r"^ +minReadySeconds:.*\n"


def allowed(stack: Stack) -> dict[str, int]:
    """The connections of all instances on each server, without the migration's."""
    return {row.server.role: row.demand - row.migration for row in plan(stack.deployment).rows}


def roll(rollout: Rollout) -> Seen:
    """Bring it up, roll it while clients check and write through a Service, and take it down."""
    with ExitStack() as running:
        enter = running.enter_context
        threads = enter(
            ThreadPoolExecutor(2)
        )  # to the end, for processes end with the thread that started them
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
        others = enter(peers(folder / "peers")) if rollout.answers.get("distributed") else None
        if others:
            stack.replaced[IN_FILES] = others.uri
        rolled: list[Deployment]
        if stack.sidecar or stack.direct:
            permify = enter(deployment(stack, front, "permify", peers=others))
            rolled = [permify]
        else:
            middle = enter(service(folder / "pgcat"))
            pgcat = enter(deployment(stack, middle, "pgcat"))
            permify = enter(deployment(stack, front, "permify", middle.port, others))
            rolled = {"pgcat": [pgcat], "permify": [permify], "both": [pgcat, permify]}[rollout.rolled]
        first = permify.pods[0].permify
        assert first
        first.write(cluster)
        before = allowed(stack)
        if rollout.change:
            stack.change(folder / "after", **rollout.change)
        after = allowed(stack)

        def started(pod: Pod) -> None:
            if rollout.fill:
                fill(stack, pod)

        with (
            Peaks(cluster, stack.user, 0.1) as peaks,
            Load([front.port], 4, 1, rollout.pause_seconds, key=rollout.key) as load,
        ):
            old = [pod for each in rolled for pod in each.pods]
            for pod in old:
                started(pod)
            rollout.before(stack)
            with suppress(NotReady) if rollout.stops else nullcontext():
                list(threads.map(lambda each: each.roll(started), rolled))
            if rollout.again:
                rollout.again(stack, load)
                list(threads.map(lambda each: each.roll(started), rolled))
        with stack.connect(cluster.primary.port, stack.database) as connection:
            lost = load.lost(connection)
        most = {role: max(before[role], after[role]) for role in before}
        instances = plan(stack.deployment).rows[0].uses[0].instances.count
        return Seen(
            rolled[0].rules,
            instances,
            load,
            {server.role: peaks[server] for server in cluster.servers},
            most,
            lost,
            sum(pod in each.pods for each in rolled for pod in old),
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
