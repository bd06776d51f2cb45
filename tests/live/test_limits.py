"""The limit of open files that a container starts with, and more clients than it allows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from live.pods import connect_clients
from live.repeats import LATEST
from live.stack import EXTERNAL, Stack, pgcat_program
from live.support import CONTAINER_OPEN_FILES, Cluster, NotReady, Process, open_files

CLIENTS = 1100
LOW_LIMIT = 256
"""The lowest hard limit that start.sh accepts."""
RAISES = re.compile(r"(?m)^for files in .*\n(?:.*\n)*?done\n")
QUIET_LOG_BYTES = 1_000_000
"""Much more than a PgCat writes whose clients only come and go, and less than a storm in a second."""


@pytest.fixture(params=["pgcat", LATEST])
def stack(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Stack]:
    """The default standalone deployment with its database; nothing of it runs."""
    folder = tmp_path / "dep", tmp_path / "live"
    stack = Stack(cluster, {"topology": "standalone", **EXTERNAL}, pgcat_program(request.param), *folder)
    stack.prepare()
    yield stack


def limits_of(process: Process) -> tuple[int, int]:
    """The soft and the hard limit of open files that a program runs with now."""
    text = Path(f"/proc/{process.popen.pid}/limits").read_text()
    found = re.search(r"(?m)^Max open files +(\d+) +(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


@dataclass
class Seen:
    """What a crowd of clients met at a PgCat."""

    connected: int
    log_bytes: int
    limits: tuple[int, int]


def storms(process: Process) -> bool:
    """Whether PgCat is at its limit of open files, and says so all the time."""
    return process.log.stat().st_size > QUIET_LOG_BYTES


def crowd(stack: Stack) -> Seen:
    """Start PgCat, let more clients connect than the soft limit allows, and end it before they leave."""
    with stack.pgcat() as pgcat:
        process = pgcat.process
        before = process.log.stat().st_size
        limits = limits_of(process)
        connected = connect_clients(
            pgcat.port, CLIENTS, stack.user, stack.password, process.kill, lambda: storms(process)
        )
        written = process.log.stat().st_size - before
        os.truncate(process.log, 0)  # pytest keeps folders, and a storm is hundreds of megabytes
        return Seen(connected, written, limits)


def test_a_program_starts_with_the_limit_of_a_container(cluster: Cluster) -> None:
    """Or the tests here would prove nothing."""
    assert limits_of(cluster.primary.process)[0] == CONTAINER_OPEN_FILES
    assert open_files()[1] > 2 * CLIENTS, "this machine allows too few open files"


def test_more_clients_than_the_soft_limit_allows(stack: Stack) -> None:
    seen = crowd(stack)
    hard = open_files()[1]
    assert seen.limits == (hard, hard)
    assert seen.connected == CLIENTS
    assert seen.log_bytes < QUIET_LOG_BYTES


def test_without_the_raised_limit_they_do_not_connect(stack: Stack) -> None:
    """And PgCat floods its log until it is ended, seconds later."""
    script = stack.rendered / "pgcat" / "start.sh"
    text, count = RAISES.subn("", script.read_text())
    assert count == 1
    script.write_text(text)
    seen = crowd(stack)
    assert seen.limits == open_files()
    assert 0 < seen.connected < CONTAINER_OPEN_FILES
    assert seen.log_bytes > QUIET_LOG_BYTES


def test_at_its_limit_pgcat_serves_who_is_connected_and_later_the_others(stack: Stack) -> None:
    stack.open_files = open_files(hard=LOW_LIMIT)

    def still_served() -> None:
        with pytest.raises(psycopg.OperationalError):
            stack.connect(pgcat.port, "permify_reader", connect_timeout=2)
        answers.append(early.execute("SELECT 1").fetchone())

    answers: list[object] = []
    with stack.pgcat() as pgcat, stack.connect(pgcat.port, "permify_reader") as early:
        connected = connect_clients(
            *(pgcat.port, 2 * LOW_LIMIT, stack.user, stack.password),
            still_served,
            lambda: storms(pgcat.process),
        )
        with stack.connect(pgcat.port, "permify_reader") as late:
            answers.append(late.execute("SELECT 1").fetchone())
        os.truncate(pgcat.process.log, 0)
    assert 0 < connected < LOW_LIMIT
    assert answers == [(1,), (1,)]


def test_a_hard_limit_that_is_low_is_said_once(stack: Stack) -> None:
    stack.open_files = open_files(hard=1024)
    with stack.pgcat() as pgcat:
        connected = connect_clients(pgcat.port, 500, stack.user, stack.password)
        log = pgcat.process.log.read_text()
    assert connected == 500
    assert log.count("start.sh: only 1024 files may be open") == 1
    assert len(log) < QUIET_LOG_BYTES


@pytest.mark.parametrize("hard", [20, 64])
def test_a_hard_limit_too_low_to_serve_ends_in_one_line(stack: Stack, hard: int) -> None:
    """Not in a PgCat that accepts nobody and says so a million times."""
    stack.open_files = open_files(hard=hard)
    with pytest.raises(NotReady, match=f"only {hard} files may be open"), stack.pgcat():
        pass
    (log,) = (text for path, text in stack.logs().items() if path.parent.name == "pgcat-0")
    assert len(log.splitlines()) == 1


def test_permify_raises_its_limit_by_itself(stack: Stack) -> None:
    """As Go programs do, to one below the hard limit, so nothing is rendered for it."""
    soft, hard = open_files()
    with stack.pgcat() as pgcat, stack.permify(0, pgcat.port) as permify:
        raised, _ = limits_of(permify.process)
    assert soft == CONTAINER_OPEN_FILES
    assert raised >= hard - 1
