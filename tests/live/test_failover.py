"""A primary that moves, under steady writes: who follows it, how soon, and who does not.

Names lead where the test says (`live/names.py`). The sites run side by side; each test looks at one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from live.failover import (
    BEFORE_THE_MOVE_SECONDS,
    TOPOLOGIES,
    UNDERSCORE,
    WATCHED_SECONDS,
    failing_over,
    last_failed_write_seconds,
    moved,
    moved_behind_an_address,
    rotated,
    schemas_written,
    started_while_it_moves,
    unfollowed,
    vanished,
    writes_after,
)
from live.faults import Outcome, Settings
from live.repeats import asked_for, drawn
from live.stack import require_programs

pytestmark = pytest.mark.timeout(600)

SIDE_BY_SIDE = 3
"""So many sites at a time: each is a PostgreSQL cluster and up to five programs."""
HEALTHY_SECONDS = 10.0
"""Within which the last write has failed after the name has moved: the record's TTL, and PgCat's next try."""
SLOW_SECONDS = 1.0
"""A write that took longer has waited for a primary."""
AT_ONCE = 16
"""Checks that may fail as a server stops."""
ENOUGH = 20
"""Writes that have to succeed afterwards."""

NO_CACHE: Settings = {("general", "dns_cache_enabled"): False}
STANDBYS_TAKEN: Settings = {("pools.permify_writer.plugins.prewarmer", "enabled"): False}

Visit = Callable[[Path], Outcome]


def at(topology: str, work: Callable[..., Outcome], pgcat: str = "pgcat", **options: object) -> Visit:
    def visit(folder: Path) -> Outcome:
        return failing_over(work, folder, TOPOLOGIES[topology], pgcat, **options)

    return visit


FOLLOWED: dict[str, Visit] = {
    "standalone": at("standalone", moved),
    "standalone, PgCat 1.3.0": at("standalone", moved, "pgcat-1.3.0"),
    "sidecar": at("sidecar", moved),
    "sidecar, PgCat 1.3.0": at("sidecar", moved, "pgcat-1.3.0"),
    "direct": at("direct", moved),
    "session": at("session", moved),
    "no cache": at("standalone", moved, settings=NO_CACHE),
    "underscore": at("sidecar", unfollowed),
}
NOT_FOLLOWED: dict[str, Visit] = {
    "as 1.0.0": at("standalone", moved, settings={**NO_CACHE, **STANDBYS_TAKEN}),
    "as 1.0.0, PgCat 1.3.0": at("standalone", moved, "pgcat-1.3.0", settings={**NO_CACHE, **STANDBYS_TAKEN}),
}
ROTATED: dict[str, Visit] = {
    "rotated": at("standalone", rotated),
    "rotated, PgCat 1.3.0": at("standalone", rotated, "pgcat-1.3.0"),
}
BEHIND: dict[str, Visit] = {
    "behind an address": at("sidecar", moved_behind_an_address, balanced=True),
    "behind an address, direct": at("direct", moved_behind_an_address, balanced=True),
}
VANISHED: dict[str, Visit] = {
    "vanished": at("sidecar", vanished),
    "vanished, direct": at("direct", functools.partial(vanished, watched_seconds=40.0)),
}
SCHEMAS: dict[str, Visit] = {
    "schemas, direct": at("direct", schemas_written),
    "schemas, direct, a standby will do": at("direct", schemas_written, takes_standby=True),
}
STARTED: dict[str, Visit] = {"started, direct": at("direct", started_while_it_moves)}
SITES = {**FOLLOWED, **NOT_FOLLOWED, **ROTATED, **BEHIND, **VANISHED, **SCHEMAS, **STARTED}
REPEATED = SITES.keys() - {"standalone", "sidecar, PgCat 1.3.0", "direct", "rotated", "as 1.0.0"}
"""What runs with --every-combination: the rest has both versions and every topology."""

Ask = Callable[[str], Outcome]


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Ask]:
    """Waits for a site; skips where something is missing here. No acknowledged write is ever lost."""
    require_programs()
    folder = tmp_path_factory.mktemp("failover")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        visits: dict[str, Future[Outcome]] = {
            name: pool.submit(visit, folder / str(number))
            for number, (name, visit) in enumerate(SITES.items())
            if name not in asked_for(pytestconfig, REPEATED)
        }

        def ask(name: str) -> Outcome:
            outcome = visits[name].result()
            assert outcome.lost == set()
            return outcome

        yield ask
        for future in visits.values():
            future.cancel()


def disturbed_before_the_move(outcome: Outcome) -> int:
    """Writes that failed or waited while the name led to a standby: without any, nothing was tried."""
    start = outcome.mended - BEFORE_THE_MOVE_SECONDS
    writes = [one for one in outcome.requests if one.kind == "write"]
    during = [one for one in writes if one.began < outcome.mended and one.began + one.seconds > start]
    return len([one for one in during if one.error or one.seconds > SLOW_SECONDS])


def assert_checks_went_on(outcome: Outcome) -> None:
    assert len([one for one in outcome.failed if one.kind == "check"]) <= AT_ONCE, outcome.errors


@pytest.mark.parametrize("site", drawn(FOLLOWED, REPEATED))
def test_writes_follow_the_name(outcome_of: Ask, site: str) -> None:
    outcome = outcome_of(site)
    assert disturbed_before_the_move(outcome) > 0
    assert last_failed_write_seconds(outcome) <= HEALTHY_SECONDS, outcome.errors
    assert len(writes_after(outcome)) > ENOUGH
    assert_checks_went_on(outcome)
    if site == "underscore":
        assert "disallowed_by_std3_ascii_rules" in outcome.seen["log"]
        assert UNDERSCORE in outcome.seen["log"]


@pytest.mark.parametrize("site", drawn(NOT_FOLLOWED, REPEATED))
def test_without_the_settings_writes_fail_on(outcome_of: Ask, site: str) -> None:
    """What they are there for: a PgCat that takes standbys and does not look up names never recovers."""
    assert last_failed_write_seconds(outcome_of(site)) > WATCHED_SECONDS - 5


@pytest.mark.parametrize("site", drawn(ROTATED, REPEATED))
def test_a_name_that_rotates_costs_connections_and_no_request(outcome_of: Ask, site: str) -> None:
    """Over TLS. Nor does a DNS server that answers nothing for a while."""
    outcome = outcome_of(site)
    assert outcome.seen["dropped"] >= 2
    assert outcome.seen["failed_unanswered"] == 0
    assert outcome.failed == [], outcome.errors


@pytest.mark.parametrize("site", drawn(BEHIND, REPEATED))
def test_a_server_that_changes_behind_an_address_is_followed(outcome_of: Ask, site: str) -> None:
    """No connection to the standby was taken."""
    outcome = outcome_of(site)
    assert disturbed_before_the_move(outcome) > 0
    assert last_failed_write_seconds(outcome) <= HEALTHY_SECONDS, outcome.errors
    assert len(writes_after(outcome)) > ENOUGH


@pytest.mark.parametrize("site", drawn(VANISHED, REPEATED))
def test_a_primary_that_vanishes_without_a_reset(outcome_of: Ask, site: str) -> None:
    """PgCat's tcp_user_timeout notices. Permify alone does not: its connections hang, new ones write."""
    outcome = outcome_of(site)
    assert outcome.seen["succeeded_while_gone"] > ENOUGH
    if "direct" not in site:
        assert last_failed_write_seconds(outcome) <= 2 * HEALTHY_SECONDS, outcome.errors


@pytest.mark.parametrize("site", drawn(SCHEMAS, REPEATED))
def test_a_single_statement_needs_target_session_attrs(outcome_of: Ask, site: str) -> None:
    """Without it, the connection that Permify opened to the standby stays."""
    seen = outcome_of(site).seen
    assert seen["refused"] > 0
    if "standby will do" in site:
        assert seen["written_seconds"] > WATCHED_SECONDS - 1
    else:
        assert seen["written_seconds"] <= HEALTHY_SECONDS


@pytest.mark.parametrize("site", drawn(STARTED, REPEATED))
def test_a_permify_that_starts_meanwhile_waits_for_the_name(outcome_of: Ask, site: str) -> None:
    """It gets ready once the name has moved, not before."""
    outcome = outcome_of(site)
    assert outcome.seen["ready_before_the_move"] is False
    assert outcome.seen["ready_seconds"] < 40
