"""A deployment moves from direct to PgCat, to sidecars and back, by `copier update`, under load.

As a cluster does it: what is new starts beside what is old, a new Permify becomes an endpoint before an old
one leaves. Only the waits are shorter.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from live.controller import Pod
from live.load import Load
from live.repeats import asked_for, drawn
from live.service import Service, service
from live.stack import CHECKS, EXTERNAL, Check, Stack, pgcat_program
from live.support import Cluster, Peaks, program
from live.updating import Template

# So few connections that the load would open more, were it let.
ANSWERS = {"topology": "standalone", **EXTERNAL, "other_connections": 80}
CAPACITY = 20
MOVES = {
    "from direct to PgCat": {"pooling": "pgcat"},
    "to sidecars": {"topology": "sidecar"},
    "from sidecars": {"topology": "standalone"},
    "to direct": {"pooling": "direct"},
}
"""One after the other, and what each answers."""
REPEATED = {"to sidecars", "from sidecars"}
KEEP_SECONDS = 1.0
"""How long a client keeps a connection to Permify; an old Permify waits longer before it stops."""
STALE_DEADLINE = re.compile(r'error="timeout: read tcp \S+: i/o timeout"')
"""In Permify's log where pgx read a query's answer against the deadline of an earlier, cancelled query.

That takes a starved machine (pgx speaks of it in `exitPotentialWriteReadDeadlock`) and says nothing of the
move: pgx sets deadlines only for what is cancelled; from a server that has gone comes an end of file.
"""
EDIT = "level: info", "level: warn # as our log collector wants it"


@dataclass
class Move:
    """What happened while a deployment moved."""

    began: float
    ended: float
    load: Load
    stale_deadlines: int
    lost: set[str]
    peaks: dict[str, int]
    """The most connections that each server had meanwhile."""
    planned: dict[str, int]
    """What the old plan and the new one allow the processes that ran side by side."""
    answers: dict[Check, bool]
    """Of every Permify that is new."""
    permify_yaml: str
    noted: str
    """The migration that Permify's pods wait for."""


def waited_for(manifest: Path) -> str:
    """The migration whose note Permify's init container waits for."""
    pod = yaml.safe_load(manifest.read_text())["spec"]["template"]["spec"]
    environment = pod["initContainers"][-1]["env"]
    return next(str(one["value"]) for one in environment if one["name"] == "MIGRATION")


def database(cluster: Cluster, name: str) -> psycopg.Connection[Any]:
    server = cluster.primary
    return psycopg.connect(host=str(server.folder), port=server.port, user="postgres", dbname=name)


def pods(stack: Stack, running: ExitStack) -> Iterator[Pod]:
    """Of Permify, as they start one by one; those of sidecars have their PgCat."""
    for number in range(stack.permify_count):
        if stack.sidecar:
            stack.pgcats.append(running.enter_context(stack.pgcat(number)))
        pgcat = stack.pgcats[number] if stack.pgcats else None
        permify = running.enter_context(stack.permify(number, pgcat.port if pgcat else None))
        yield Pod(permify, pgcat if stack.sidecar else None)


def roll(old: list[Pod], new: Iterator[Pod], endpoints: Service) -> list[Pod]:
    """One surge, none missing: as the rendered Deployment has it."""
    started = []
    for leaving in old:
        pod = next(new)
        started.append(pod)
        endpoints.add(pod.port)
        endpoints.remove(leaving.port)
        time.sleep(KEEP_SECONDS + 1.0)
        leaving.stop(within=10)
    return started


@pytest.fixture(scope="module")
def moves(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[dict[str, Move]]:
    """From direct to PgCat, to sidecars, and all the way back."""
    for name in ("git", "haproxy"):
        program(name)
    folder = tmp_path_factory.mktemp("move")
    (folder / "home").mkdir()
    template = Template(folder / "home")
    answers: dict[str, Any] = {**ANSWERS, "pooling": "direct"}
    deploy = template.copy(folder / "deploy", [f"{key}={value}" for key, value in answers.items()])
    edited = deploy / "permify" / "permify.yaml"
    edited.write_text(edited.read_text().replace(*EDIT))
    template.commit(deploy)
    with ExitStack() as running:
        sockets = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="pgcat-stack-")))
        endpoints = running.enter_context(service(sockets))
        old = running.enter_context(Stack(cluster, answers, None, deploy, folder / "direct").up())
        there = [Pod(permify, None) for permify in old.permifys]
        for pod in there:
            endpoints.add(pod.port)
        old.permifys[0].write(cluster)
        moved = {}
        left_out = asked_for(pytestconfig, REPEATED)
        for name, changed in MOVES.items():
            if name in left_out:
                continue
            answers = {**answers, **changed}
            before = old.planned(old.pgcat_count, old.permify_count)
            template.update(deploy, [f"{key}={value}" for key, value in changed.items()])
            load = Load([endpoints.port], checkers=10, writers=3, keep_seconds=KEEP_SECONDS)
            with Peaks(cluster, old.user) as peaks, load:
                time.sleep(1.5)
                began = time.monotonic()
                pgcat = None if answers["pooling"] == "direct" else pgcat_program("pgcat")
                new = Stack(cluster, answers, pgcat, deploy, folder / name.replace(" ", "-"))
                if not new.sidecar:
                    new.pgcats = [
                        running.enter_context(new.pgcat(number)) for number in range(new.pgcat_count)
                    ]
                there = roll(there, pods(new, running), endpoints)
                if not old.sidecar:  # whose PgCat went with their pods
                    for leaving in old.pgcats:
                        leaving.process.stop()
                ended = time.monotonic()
                time.sleep(1.5)
            after = new.planned(new.pgcat_count, new.permify_count)
            with database(cluster, old.database) as primary:
                lost = load.lost(primary)
            moved[name] = Move(
                began,
                ended,
                load,
                sum(len(STALE_DEADLINE.findall(log.read_text())) for log in folder.glob("*/permify-*/log"))
                - sum(each.stale_deadlines for each in moved.values()),
                lost,
                {server.role: peaks[server] for server in cluster.servers},
                {role: before[role] + after[role] for role in before},
                {check: pod.permify.check(check) for pod in there if pod.permify for check in CHECKS},
                edited.read_text(),
                waited_for(deploy / "kubernetes/permify-deployment.yaml"),
            )
            old = new
        yield moved


@pytest.fixture(params=drawn(MOVES, REPEATED))
def move(moves: dict[str, Move], request: pytest.FixtureRequest) -> Move:
    return moves[request.param]


def test_nothing_fails_while_it_moves(move: Move) -> None:
    failed = move.load.failed()
    stale = [request for request in failed if "ERROR_CODE_SCAN" in request.error][: move.stale_deadlines]
    assert [request for request in failed if request not in stale] == [], list(move.load.errors())


def test_it_answered_before_meanwhile_and_after(move: Move) -> None:
    for kind in ("check", "write"):
        assert move.load.requests(kind, until=move.began)
        assert move.load.requests(kind, move.began, move.ended)
        assert move.load.requests(kind, move.ended)


def test_what_was_written_before_is_there(move: Move) -> None:
    assert move.answers == {check: check.allowed for check in CHECKS}


def test_no_acknowledged_write_is_lost(move: Move) -> None:
    assert move.load.acknowledged
    assert move.lost == set()


def test_connections_stay_inside_both_plans_together(move: Move) -> None:
    """Each reserves connections for a rollout of its own; here the other one has them."""
    for role, peak in move.peaks.items():
        assert 1 <= peak <= move.planned[role] <= CAPACITY


def test_the_users_edit_is_kept(move: Move) -> None:
    assert EDIT[1] in move.permify_yaml


def test_nobody_waits_for_a_migration(moves: dict[str, Move]) -> None:
    """It is the one that has run, although the Job that notes it has another image of psql."""
    assert len({move.noted for move in moves.values()}) == 1


def test_many_direct_pods_and_pgcat_are_more_than_the_capacity(cluster: Cluster, tmp_path: Path) -> None:
    """Then the role's limit guards others; a smaller permify_max_connections before the move avoids it."""

    def side_by_side(**more: Any) -> int:
        both = 0
        for pooling in ("pgcat", "direct"):
            answers = {**ANSWERS, "other_connections": 20, "permify_replicas": 10, "pooling": pooling, **more}
            folder = tmp_path / f"{pooling}-{len(more)}"
            stack = Stack(cluster, answers, None, folder / "deploy", folder / "live")
            both += stack.planned(stack.pgcat_count, stack.permify_count)["primary"]
        return both

    assert side_by_side() > 80
    assert side_by_side(advanced=True, permify_max_connections=4) <= 80
