"""A primary that moves to another machine: its name follows, and clients write all the while.

The servers have addresses of their own and one port, so that what a name leads to decides where a client
arrives. A site of its own network and names: see `failing_over`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from live.faults import (
    LONGEST_SITE_SECONDS,
    SIDECAR,
    STANDALONE,
    Outcome,
    Settings,
    Site,
    calm,
    site,
    wait_until,
)
from live.names import Names, own_names
from live.network import in_own_network, packets_vanish
from live.service import Service, service
from live.stack import ADDRESSES, MAX_CONNECTIONS, SCHEMA, TENANT
from live.support import LOOPBACK, Cluster, Server, post, postgres_cluster

T = TypeVar("T")

DIRECT = {**STANDALONE, "pooling": "direct"}
SESSION = {**SIDECAR, "pool_mode": "session"}
TOPOLOGIES = {"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT, "session": SESSION}
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
"""Of the primary and of the replica, before anything moves."""
(WRITER, _), (READER, _) = ADDRESSES["external"]
"""The names that the deployment knows; the second leads to a replica."""
UNDERSCORE = "db_primary.example.com"
"""A name for the primary that PgCat's resolver refuses."""
TTL_SECONDS = 5
"""Of the names: what managed databases have."""
WRITERS = 6
"""So many that a sidecar has writes all the time: a connection is dropped after its next use. Two PgCat
behind a Service may get few, because Permify takes the connection that it used last."""
BEFORE_THE_MOVE_SECONDS = 4.0
"""For so long the name leads to the old primary when that is a standby already."""
WATCHED_SECONDS = 25.0
"""For so long clients go on after the name has moved."""


@dataclass
class FailoverSite:
    """A deployment that reaches its servers by name."""

    site: Site
    names: Names
    balancer: Service | None
    """In front of the primary, where the address of the primary stays."""

    @property
    def cluster(self) -> Cluster:
        return self.site.cluster

    def start(self) -> None:
        self.site.prepare()
        self.site.start()


@contextlib.contextmanager
def by_name(
    folder: Path,
    answers: Mapping[str, Any],
    pgcat: str = "pgcat",
    settings: Settings | None = None,
    cluster_settings: Mapping[str, str] | None = None,
    ttl_seconds: int = TTL_SECONDS,
    balanced: bool = False,
    takes_standby: bool = False,
) -> Iterator[FailoverSite]:
    """One of which nothing runs yet but PostgreSQL; for a thread in a network of its own.

    `balanced`: a balancer stands before the primary, and its name leads there. `takes_standby`: without
    target_session_attrs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make = functools.partial(postgres_cluster, MAX_CONNECTIONS, cluster_settings or {}, (FIRST, SECOND))
    with (
        own_names(folder, ttl_seconds) as names,
        site(folder / "site", answers, pgcat, settings, make) as here,
    ):
        names.point(WRITER, FIRST)
        names.point(READER, SECOND)
        port = here.cluster.primary.port
        here.stack.by = {"primary": (WRITER, port), "replica": (READER, port)}
        if takes_standby:
            permify = here.stack.rendered / "permify" / "permify.yaml"
            text, attributes = re.subn("&target_session_attrs=[a-z-]+", "", permify.read_text())
            assert attributes == 1
            permify.write_text(text)
        balancer = None
        if balanced:
            balancer = here.exits.enter_context(service(here.cluster.primary.folder / "balancer"))
            balancer.add(port, FIRST)
            names.point(WRITER, LOOPBACK)
            here.stack.by["primary"] = WRITER, balancer.port
        yield FailoverSite(here, names, balancer)


def failing_over(work: Callable[[FailoverSite], T], *arguments: Any, **options: Any) -> T:
    """What `work` says of a site that has started; the arguments are those of `by_name`."""

    def inside() -> T:
        with by_name(*arguments, **options) as here:
            here.start()
            return work(here)

    result: T = in_own_network(inside)
    return result


# Servers


def promoted(cluster: Cluster) -> None:
    """The replica is the primary from now on, and called so."""
    old, new = cluster.primary, cluster.replica
    assert new.sql("SELECT pg_promote()") == [(True,)]
    cluster.primary, cluster.replica = new, old
    old.role, new.role = new.role, old.role


def returned_as_standby(cluster: Cluster) -> None:
    """The old primary starts again and follows the new one."""
    primary, standby = cluster.primary, cluster.replica
    with (standby_next_time(standby) / "postgresql.auto.conf").open("a") as stream:
        stream.write(f"primary_conninfo = 'host={primary.host} port={primary.port} user=postgres'\n")
    standby.start()


def standby_next_time(server: Server) -> Path:
    """A stopped server starts as a standby, until it is promoted; returns its data folder."""
    data = Path(server.command[server.command.index("-D") + 1])
    signal_file = data / "standby.signal"
    signal_file.touch()
    if server.as_user:
        os.chown(signal_file, server.as_user["user"], server.as_user["group"])
    return data


def switched_over(cluster: Cluster) -> None:
    """The primary stops, having sent everything; the replica takes its place, and it returns as a standby."""
    cluster.primary.stop(signal.SIGINT)
    promoted(cluster)
    returned_as_standby(cluster)


def names_follow(here: FailoverSite) -> None:
    here.names.point(WRITER, here.cluster.primary.host)
    here.names.point(READER, here.cluster.replica.host)


# Faults


def moved(here: FailoverSite, watched_seconds: float = WATCHED_SECONDS, also: str = WRITER) -> Outcome:
    """The primary moves, and seconds later its name, or names; `mended` is when they moved."""
    with here.site.load(writers=WRITERS, pause_seconds=0.1) as load:
        calm(load)
        began = time.monotonic()
        switched_over(here.cluster)
        time.sleep(BEFORE_THE_MOVE_SECONDS)
        names_follow(here)
        here.names.point(also, here.cluster.primary.host)
        mended = time.monotonic()
        time.sleep(watched_seconds)
        return here.site.outcome(load, began, mended)


def schemas_written(here: FailoverSite, watched_seconds: float = WATCHED_SECONDS) -> Outcome:
    """As `moved`, but clients write schemas: single statements, where data is written in transactions.

    A transaction that may write does not even begin on a standby, and pgx closes its connection.
    """
    port = here.site.permifys[0].port

    def written() -> bool:
        with contextlib.suppress(AssertionError, OSError):
            post(port, f"{TENANT}/schemas/write", {"schema": SCHEMA})
            return True
        return False

    with here.site.load(writers=0) as load:
        assert written()
        began = time.monotonic()
        switched_over(here.cluster)
        end = time.monotonic() + BEFORE_THE_MOVE_SECONDS
        refused = 0
        while time.monotonic() < end:
            refused += not written()
            time.sleep(0.1)
        names_follow(here)
        mended = time.monotonic()
        wait_until(written, watched_seconds)
        seconds = time.monotonic() - mended
        return here.site.outcome(load, began, mended, refused=refused, written_seconds=seconds)


def moved_behind_an_address(here: FailoverSite, watched_seconds: float = WATCHED_SECONDS) -> Outcome:
    """As `moved`, but the name always leads to a balancer, and the balancer to another server."""
    assert here.balancer is not None
    with here.site.load(writers=WRITERS, pause_seconds=0.1) as load:
        calm(load)
        began = time.monotonic()
        old = here.cluster.primary
        switched_over(here.cluster)
        time.sleep(BEFORE_THE_MOVE_SECONDS)
        here.balancer.remove(old.port)
        here.balancer.add(here.cluster.primary.port, here.cluster.primary.host)
        mended = time.monotonic()
        time.sleep(watched_seconds)
        return here.site.outcome(load, began, mended)


def vanished(here: FailoverSite, watched_seconds: float = WATCHED_SECONDS) -> Outcome:
    """The primary's machine dies without a word to anybody; the replica, which has everything, takes over."""
    old = here.cluster.primary
    old.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    old.sql("SELECT pg_reload_conf()")
    with here.site.load(writers=WRITERS, pause_seconds=0.1) as load:
        calm(load)
        began = time.monotonic()
        with packets_vanish(old.port, old.host):
            time.sleep(BEFORE_THE_MOVE_SECONDS)
            promoted(here.cluster)
            for name in (WRITER, READER):
                here.names.point(name, here.cluster.primary.host)
            mended = time.monotonic()
            time.sleep(watched_seconds)
            seen = len([one for one in load.requests("write", since=mended) if not one.error])
        return here.site.outcome(load, began, mended, succeeded_while_gone=seen)


def rotated(here: FailoverSite, seconds: float = 15.0) -> Outcome:
    """The readers' name leads to the other server every 3 s; before that, no name resolves for a while."""
    with here.site.load() as load:
        calm(load)
        began = time.monotonic()
        here.names.fails = True
        time.sleep(3 * TTL_SECONDS)
        here.names.fails = False
        time.sleep(TTL_SECONDS)
        unanswered = len(load.failed(since=began))
        log = len(here.site.pgcat_log())
        here.names.ttl_seconds = 1
        here.names.follow(READER, lambda: ((FIRST, SECOND)[int(time.monotonic() / 3) % 2],))
        time.sleep(seconds)
        here.names.point(READER, SECOND)
        mended = time.monotonic()
        dropped = here.site.pgcat_log()[log:].count("Dropping server connection")
        return here.site.outcome(load, began, mended, dropped=dropped, failed_unanswered=unanswered)


def unfollowed(here: FailoverSite) -> Outcome:
    """As `moved`, with the primary under a name that contains an underscore."""
    here.names.point(UNDERSCORE, FIRST)
    port = here.cluster.primary.port
    here.site.stack.by["primary"] = UNDERSCORE, port
    for pgcat in list(here.site.pgcats):
        here.site.end_pgcat(pgcat)
    here.site.permifys.clear()
    for number in range(here.site.stack.permify_count):
        here.site.start_pgcat()
        here.site.start_permify(number)
    outcome = moved(here, also=UNDERSCORE)
    outcome.seen["log"] = here.site.pgcat_log()
    return outcome


def started_while_it_moves(here: FailoverSite) -> Outcome:
    """A Permify starts when the name leads to the old primary, now a standby."""
    with here.site.load() as load:
        calm(load)
        began = time.monotonic()
        switched_over(here.cluster)
        ready: list[float] = []
        over = threading.Event()

        def start() -> None:
            here.site.start_permify()
            ready.append(time.monotonic())
            over.wait(LONGEST_SITE_SECONDS)  # because what it started ends with this thread

        threading.Thread(target=start, daemon=True).start()
        here.site.exits.callback(over.set)
        time.sleep(3 * BEFORE_THE_MOVE_SECONDS)
        early = bool(ready)
        names_follow(here)
        mended = time.monotonic()
        wait_until(lambda: bool(ready), 60)
        seconds = ready[0] - mended if ready else math.inf
        return here.site.outcome(load, began, mended, ready_before_the_move=early, ready_seconds=seconds)


def last_failed_write_seconds(outcome: Outcome) -> float:
    """From the move of the name until the last write that failed has ended; 0 where none did after it."""
    ends = [one.began + one.seconds for one in outcome.failed if one.kind == "write"]
    return max([0.0, *(end - outcome.mended for end in ends)])


def writes_after(outcome: Outcome) -> list[Any]:
    """The writes that began after the last one that failed had ended."""
    end = outcome.mended + last_failed_write_seconds(outcome)
    return [one for one in outcome.requests if one.kind == "write" and one.began >= end]
