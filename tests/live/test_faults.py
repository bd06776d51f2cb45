"""Faults under load: few requests fail, no acknowledged write is lost, and all of it mends itself.

The sites run side by side, from the first test to the last; each test looks at what happened at one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from live.faults import MUTE_SECONDS, SITES, Lag, Outcome, visit
from live.load import Request
from live.repeats import asked_for, drawn, repeats
from live.stack import require_programs
from live.support import program

pytestmark = pytest.mark.timeout(600)

SETTINGS = {("general", "ban_time"): 6}
"""Seconds, so that a ban ends within a test."""
SIDE_BY_SIDE = 5
"""So many sites at a time, since they mostly wait."""
AT_ONCE = 16
"""Requests that may fail as something is lost: four clients, two PgCat, and another try of each."""
SOON_SECONDS = 15.0
"""Within which the last request has failed, on a busy machine."""
CHECKED_SECONDS = 1.0
"""healthcheck_delay: after it, every connection that was idle when its server ended is checked before use."""
NOTICED_SECONDS = (4.0, 16.0)
"""How long requests hang on a silent network: tcp_user_timeout is 5 s, twice that and more for one that only
waits for its answer; without it they hang for the 20 s of the silence, and until packets are sent again."""
MAIN = "standalone"

REPLICA_LOST = [
    (MAIN, "replica stopped"),
    (MAIN, "replica crashed"),
    (f"{MAIN}, PgCat 1.3.0", "replica stopped"),
    (f"{MAIN}, PgCat 1.3.0", "replica crashed"),
    ("sidecar", "replica stopped"),
]
PRIMARY_LOST = [
    (MAIN, "primary restarted"),
    (MAIN, "primary crashed"),
    (f"{MAIN}, PgCat 1.3.0", "primary restarted"),
    (f"{MAIN}, PgCat 1.3.0", "primary crashed"),
    (f"{MAIN}, no replica", "primary restarted"),
    (f"{MAIN}, no replica", "primary crashed"),
    ("sidecar", "primary restarted"),
]
PRIMARY_AWAY = [MAIN, f"{MAIN}, PgCat 1.3.0", "sidecar"]
REFUSED = 'ServerStartupError("error message"'
UNREADY = {
    (f"{MAIN}, started before PostgreSQL", "started before PostgreSQL"): "Connection refused",
    (f"{MAIN}, wrong password", "another password in the Secret"): REFUSED,
    (f"{MAIN}, database missing", "database missing"): REFUSED,
}
"""What PgCat's log says of each; why a server refuses, only the server's log says."""


REPEATED = {f"{MAIN}, PgCat 1.3.0", f"{MAIN}, database missing"}


def at_sites(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    """Sites with their faults, those that repeat others marked so."""
    return [pytest.param(*pair, marks=repeats) if pair[0] in REPEATED else pair for pair in pairs]


class Sites:
    """What happened at each site; asking waits for it, and skips where a program of the site is missing."""

    def __init__(self, visits: dict[str, Future[dict[str, Any]]]):
        self._visits = visits

    def outcome(self, site: str, fault: str) -> Outcome:
        outcome = self._visits[site].result()[fault]
        assert isinstance(outcome, Outcome)
        assert outcome.lost == set()
        return outcome

    def lag(self) -> Lag:
        lag = self._visits["standalone, parts"].result()["replica lags"]
        assert isinstance(lag, Lag)
        return lag


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Sites]:
    require_programs()
    program("haproxy")
    folder = tmp_path_factory.mktemp("faults")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        visits = {
            name: pool.submit(visit, name, folder / str(number), SETTINGS)
            for number, name in enumerate(SITES)
            if name not in asked_for(pytestconfig, REPEATED)
        }
        yield Sites(visits)
        for future in visits.values():
            future.cancel()


def assert_recovered(outcome: Outcome, failed_at_most: int, within_seconds: float = SOON_SECONDS) -> None:
    """Requests were answered well again by themselves, and to the end."""
    assert len(outcome.failed) <= failed_at_most, outcome.errors
    assert outcome.failed_until_seconds <= within_seconds, outcome.errors
    good = [request for request in outcome.requests if not request.error]
    latest = max(request.began for request in outcome.requests) - 2
    assert {request.kind for request in good if request.began > latest} == {"check", "write"}


def assert_later_ones_succeed(outcome: Outcome) -> None:
    """Those that begin once all is back, and connections to what was lost have been idle for long enough."""
    later = outcome.mended + 5 * CHECKED_SECONDS  # 2.6 s were seen after a crash
    assert not [request for request in outcome.failed if request.began > later], outcome.errors


@pytest.mark.parametrize(("site", "fault"), at_sites(REPLICA_LOST))
def test_lost_replica_costs_requests_under_way(sites: Sites, site: str, fault: str) -> None:
    """Reads go on at the primary, and come back to the replica when its ban has ended."""
    outcome = sites.outcome(site, fault)
    assert_recovered(outcome, AT_ONCE)
    assert outcome.seen["used_again"]


@pytest.mark.parametrize("site", drawn([MAIN, f"{MAIN}, PgCat 1.3.0"], REPEATED))
def test_replica_gone_for_bans_costs_a_wait_at_the_end_of_each(sites: Sites, site: str) -> None:
    """A request waits for the replica once more, then the primary answers it; Permify starts meanwhile."""
    outcome = sites.outcome(site, "replica gone for several bans")
    assert_recovered(outcome, AT_ONCE)
    # connect_timeout of the reader pool, twice where both statements of a check wait, and a busy machine
    assert outcome.slowest_seconds < 7
    assert outcome.seen["permify_starts_seconds"] < SOON_SECONDS


def test_all_starts_without_the_replica(sites: Sites) -> None:
    site = f"{MAIN}, started without the replica"
    outcome = sites.outcome(site, "started without the replica")
    # A standby answers before it has what was written meanwhile: until then, it is a replica that lags.
    stale = [
        request
        for request in outcome.failed
        if request.began < outcome.seen["caught_up"]
        and re.search("CHECK_RESULT_DENIED|SCHEMA_NOT_FOUND", request.error)
    ]
    assert_recovered(outcome, len(stale))
    assert outcome.seen["permifys_start_seconds"] < 2 * SOON_SECONDS
    assert outcome.seen["used_again"]


@pytest.mark.parametrize(("site", "fault"), at_sites(PRIMARY_LOST))
def test_restarted_primary_costs_requests_under_way(sites: Sites, site: str, fault: str) -> None:
    """And nothing that begins later fails: connections to the old one are checked before use."""
    outcome = sites.outcome(site, fault)
    assert_recovered(outcome, 2 * AT_ONCE)
    assert_later_ones_succeed(outcome)


def failed_checks_meanwhile(outcome: Outcome) -> list[Request]:
    """Those begun while the primary was away, and had been for long enough to be noticed."""
    begins = outcome.seen["gone"] + CHECKED_SECONDS
    return [
        request
        for request in outcome.failed
        if request.kind == "check" and begins < request.began < outcome.mended
    ]


@pytest.mark.parametrize("site", drawn(PRIMARY_AWAY, REPEATED))
def test_checks_outlive_the_primary(sites: Sites, site: str) -> None:
    outcome = sites.outcome(site, "primary away for 8 s")
    assert not failed_checks_meanwhile(outcome), outcome.errors
    assert_recovered(outcome, 2 * AT_ONCE)


def test_checks_fail_with_the_primary_when_there_is_no_replica(sites: Sites) -> None:
    outcome = sites.outcome(f"{MAIN}, no replica", "primary away for 8 s")
    assert [request for request in outcome.failed if request.kind == "check"]
    assert outcome.failed_until_seconds <= SOON_SECONDS


@pytest.mark.parametrize(
    ("site", "fault", "failed"),
    [(f"{MAIN}, parts", "one of two PgCat killed", 3 * AT_ONCE), ("sidecar", "PgCat killed", 300)],
)
def test_killed_pgcat_is_missed_until_it_is_back(sites: Sites, site: str, fault: str, failed: int) -> None:
    """As a sidecar, nobody takes over: its Permify fails every request until then."""
    assert_recovered(sites.outcome(site, fault), failed)


def test_taken_connections_stop_writes_until_they_are_free(sites: Sites) -> None:
    outcome = sites.outcome(f"{MAIN}, parts", "connections of the primary all taken")
    held = outcome.seen["held"]
    writes = [request for request in outcome.failed if request.kind == "write"]
    assert [request for request in writes if request.began + request.seconds >= held]
    assert outcome.failed_until_seconds <= SOON_SECONDS
    assert len([request for request in outcome.failed if request.kind == "check"]) <= AT_ONCE


@pytest.mark.parametrize(("site", "fault"), at_sites(UNREADY))
def test_what_starts_too_early_waits(sites: Sites, site: str, fault: str) -> None:
    """PgCat says what it misses, and neither it nor Permify is restarted when that comes."""
    outcome = sites.outcome(site, fault)
    assert UNREADY[site, fault] in outcome.seen["log"]
    assert outcome.seen["comes_seconds"] < 40  # Permify tries again less and less often
    assert_recovered(outcome, 0)


def test_new_password_of_the_role_alone_breaks_nothing(sites: Sites) -> None:
    """Connections that are open stay; with the new Secret in PgCat, Permify needs it, too."""
    site = f"{MAIN}, parts"
    before = sites.outcome(site, "password rotated, until Permify is restarted")
    assert before.seen["failed_before_pgcat"] == 0
    assert [request for request in before.failed if request.began > before.mended]  # PgCat has it
    assert_recovered(sites.outcome(site, "password rotated, after that"), 0)


@pytest.mark.parametrize("server", ["replica", "primary"])
def test_silent_network_is_noticed(sites: Sites, server: str) -> None:
    """By tcp_user_timeout: checks that were sent there fail then; later requests go elsewhere or wait."""
    outcome = sites.outcome(f"{MAIN}, vanished", f"packets to the {server} vanish")
    checks = [request for request in outcome.requests if request.kind == "check"]
    longest = max(request.seconds for request in checks if request.began < outcome.began + 5)
    at_least, at_most = NOTICED_SECONDS
    assert at_least < longest < at_most, outcome.errors
    assert outcome.seen["used_again"]
    assert_recovered(outcome, 4 * AT_ONCE, 20 + SOON_SECONDS)


@pytest.mark.parametrize("server", ["replica", "primary"])
def test_mute_server_holds_checks_for_the_statement_timeout_alone(sites: Sites, server: str) -> None:
    """Then the other server answers them, while the mute one is mute still."""
    outcome = sites.outcome(f"{MAIN}, mute", f"{server} does not answer")
    freed = [
        request
        for request in outcome.requests
        if request.kind == "check" and outcome.began + MUTE_SECONDS - 8 < request.began < outcome.mended
    ]
    assert len(freed) > 20
    assert [request.error for request in freed if request.error] == []
    assert_recovered(outcome, 4 * AT_ONCE)
    assert_later_ones_succeed(outcome)


def test_lagging_replica_denies_wrongly_until_the_next_write(sites: Sites) -> None:
    lag = sites.lag()
    assert 0 < lag.denied < lag.checks  # the primary answers the others
    assert lag.denied_after_write == 0
