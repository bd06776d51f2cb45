"""Rolling updates under load: no request fails, and connections stay inside the plan.

Every rollout goes as a controller, kubelet and kube-proxy would do it, by the times in its manifests. They
mostly wait, so several run at once, each with PostgreSQL servers of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from live.repeats import asked_for, drawn
from live.rollout_under_load import DRAIN_WAIT, MIN_READY, Rollout, Seen, roll, without
from live.stack import EXTERNAL, require_programs
from live.support import program

pytestmark = pytest.mark.timeout(420)

STANDALONE = {"topology": "standalone", **EXTERNAL, "drain_seconds": 20}
SIDECAR = {"topology": "sidecar", **EXTERNAL, "drain_seconds": 20}
DIRECT = {**STANDALONE, "pooling": "direct", "permify_max_connections": 4}
SMALL = {"writer_pool_size": 2, "reader_pool_size": 3}
"""Pools that a test can fill."""


def hour_long_connections(folder: Path) -> None:
    """As the guide has them, where the drain contract needs short ones."""
    permify = folder / "permify" / "permify.yaml"
    text, count = re.subn(r"(max_connection_lifetime): \d+s", r"\1: 3600s", permify.read_text())
    assert count == 1
    permify.write_text(text)


ROLLOUTS = {
    "two PgCat, with other pools": Rollout(
        {**STANDALONE, **SMALL}, change={"writer_pool_size": 3, "reader_pool_size": 2}
    ),
    "two PgCat 1.3.0": Rollout({**STANDALONE, **SMALL}, pgcat="pgcat-1.3.0"),
    "three PgCat": Rollout({**STANDALONE, **SMALL, "pgcat_replicas": 3}),
    "session mode": Rollout({**STANDALONE, "pool_mode": "session"}),
    "Permify behind PgCat": Rollout(STANDALONE, rolled="permify"),
    "two sidecars": Rollout({**SIDECAR, **SMALL}, rolled="permify"),
    "Permify without PgCat": Rollout(DIRECT, rolled="permify"),
}
# In these, old pods need not be waited for: their requests fail, or their connections are too many, at once.
REQUESTS_FAIL = {
    "no drain wait": Rollout(STANDALONE, edits=[without(DRAIN_WAIT), without(MIN_READY)]),
    "no drain wait, sidecars": Rollout(
        SIDECAR, rolled="permify", edits=[without(DRAIN_WAIT, "permify"), without(MIN_READY, "permify")]
    ),
    "no drain wait, without PgCat": Rollout(
        DIRECT, rolled="permify", edits=[without(DRAIN_WAIT, "permify"), without(MIN_READY, "permify")]
    ),
    # Permify tries a connection that was idle for a second before it uses it, so they must be busy.
    "connections that live an hour": Rollout(
        STANDALONE, edits=[hour_long_connections, without(MIN_READY)], pause_seconds=0.05
    ),
}
TOO_MANY = {
    "no minReadySeconds": Rollout({**STANDALONE, **SMALL, "pgcat_replicas": 3}, edits=[without(MIN_READY)])
}


SIDE_BY_SIDE = 6
REPEATED = {
    "two PgCat 1.3.0",
    "three PgCat",
    "session mode",
    "Permify behind PgCat",
    "no drain wait, sidecars",
    "no drain wait, without PgCat",
}


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config) -> Iterator[Callable[[str], Seen]]:
    """All rollouts, under way."""
    require_programs()
    program("haproxy")
    every = {**ROLLOUTS, **REQUESTS_FAIL, **TOO_MANY}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        left_out = asked_for(pytestconfig, REPEATED)
        futures: dict[str, Future[Seen]] = {
            name: threads.submit(roll, each) for name, each in every.items() if name not in left_out
        }
        yield lambda name: futures[name].result()


@pytest.mark.parametrize("name", drawn(ROLLOUTS, REPEATED))
def test_no_request_fails_while_pods_are_replaced(outcomes: Callable[[str], Seen], name: str) -> None:
    load = outcomes(name).load
    assert len(load.requests("check")) > 300
    assert len(load.requests("write")) > 50
    assert list(load.errors()) == []


@pytest.mark.parametrize("name", drawn(ROLLOUTS, REPEATED))
def test_no_acknowledged_write_is_lost(outcomes: Callable[[str], Seen], name: str) -> None:
    assert outcomes(name).lost == set()


@pytest.mark.parametrize("name", drawn(ROLLOUTS, REPEATED))
def test_connections_stay_inside_the_plan(outcomes: Callable[[str], Seen], name: str) -> None:
    seen = outcomes(name)
    for role, peak in seen.peaks.items():
        assert 1 <= peak <= seen.allowed[role], role


@pytest.mark.parametrize(
    "name", drawn(["two PgCat 1.3.0", "three PgCat", "two sidecars", "Permify without PgCat"], REPEATED)
)
def test_surge_and_draining_pods_hold_their_connections_too(
    outcomes: Callable[[str], Seen], name: str
) -> None:
    """The plan's two beside the replicas are there: what is sampled is not the replicas alone."""
    seen = outcomes(name)
    assert seen.instances == seen.rules.replicas + 2
    for role, peak in seen.peaks.items():
        each = seen.allowed[role] / seen.instances
        assert peak > seen.rules.replicas * each, role


@pytest.mark.parametrize("name", drawn(REQUESTS_FAIL, REPEATED))
def test_without_the_drain_contract_requests_fail(outcomes: Callable[[str], Seen], name: str) -> None:
    seen = outcomes(name)
    assert seen.load.failed()
    assert seen.lost == set()


def test_without_min_ready_seconds_more_than_replicas_and_two_are_there(
    outcomes: Callable[[str], Seen],
) -> None:
    """As the validator says of that manifest: 2 × replicas + 1 instances."""
    seen = outcomes("no minReadySeconds")
    assert seen.instances == 2 * 3 + 1
    each = SMALL["writer_pool_size"] + SMALL["reader_pool_size"]
    assert seen.peaks["primary"] > (3 + 2) * each
    assert seen.peaks["primary"] <= seen.allowed["primary"]
