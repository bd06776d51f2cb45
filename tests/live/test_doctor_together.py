"""The doctor where more than one thing is wrong, and where servers die under load.

Whatever is planted: the cause is named, and any other finding points to it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import draws
from live.doctor_faults import FAULTS, Fault, sql, wait_until
from live.faults import with_settings
from live.load import Load
from live.patient import Patient, shown
from live.repeats import repeats
from live.stack import EXTERNAL, MAX_CONNECTIONS, Stack, pgcat_program, require_programs
from live.support import postgres_cluster
from pgcat_stack.doctor import pgcat as pgcat_module
from pgcat_stack.findings import Finding

pytestmark = pytest.mark.timeout(600)

SEED = os.environ.get("PGCAT_STACK_SEED") or (
    str(random.SystemRandom().randrange(10**6)) if draws.every else "1"
)
"""Of the pairs: the same ones in each usual run, others in each whole one. A failure prints it."""
PAIRS = 10
USUAL_PAIRS = 2
BAN_SECONDS = 4
"""Short, so that a server is asked again soon after it is back."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of its own, because its servers are stopped."""
    require_programs()
    folder = tmp_path_factory.mktemp("together")
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        answers = {"topology": "standalone", **EXTERNAL}
        stack = Stack(cluster, answers, pgcat_program("pgcat"), folder / "deployment", folder / "live")
        toml = stack.rendered / "pgcat" / "pgcat.toml"
        toml.write_text(with_settings(toml.read_text(), {("general", "ban_time"): BAN_SECONDS}))
        with stack.up():
            stack.permifys[0].write(cluster)
            stack.load(0.2)
            yield stack


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgcat_module, "SAMPLE_SECONDS", 0.1)


@pytest.fixture
def patient(stack: Stack, tmp_path: Path) -> Patient:
    """A stack that is well."""
    stack.cluster.catch_up()
    patient = Patient(stack, tmp_path / "patient")
    wait_until(lambda: patient.findings() == [], 90)
    return patient


def assert_only(found: list[Finding], causes: set[str], expected: set[str], said: str) -> None:
    """Every cause is named, and what else is found points to one of them."""
    codes = {finding.code for finding in found}
    assert causes <= codes, f"{said}: {causes - codes} missing:\n{shown(found)}"
    others = [finding for finding in found if finding.code not in expected]
    pointing = [f for f in others if set(re.findall(r"see (PD\d+)", f.fix)) & causes]
    assert others == pointing, f"{said}: nothing leads from these to {causes}:\n{shown(found)}"


def pairs() -> list[tuple[Fault, Fault]]:
    """The pairs of this run, each in the order in which they are planted."""
    fitting = [pair for pair in itertools.combinations(FAULTS, 2) if pair[0].fits(pair[1])]
    assert len(fitting) > 10 * PAIRS
    drawn = random.Random(SEED).sample(fitting, PAIRS)
    return [(min(pair, key=_turn), max(reversed(pair), key=_turn)) for pair in drawn]


def _turn(fault: Fault) -> int:
    return fault.turn


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n < USUAL_PAIRS else repeats) for n in range(PAIRS)]
)
def test_of_two_faults_both_are_named_and_nothing_else(patient: Patient, number: int) -> None:
    first, second = pairs()[number]
    said = f"PGCAT_STACK_SEED={SEED}, pair {number}: {first.name} and {second.name}"
    print(said)
    with first.plant(patient) as reaches, second.plant(patient) as more:
        found = patient.findings(more or reaches)
    assert_only(found, {first.codes[0], second.codes[0]}, {*first.codes, *second.codes}, said)


# Servers and passwords, under load


@contextlib.contextmanager
def the_replica_stopped(patient: Patient) -> Iterator[None]:
    patient.stack.cluster.replica.stop(signal.SIGINT)
    try:
        yield
    finally:
        patient.stack.cluster.replica.start()


@contextlib.contextmanager
def the_primary_stopped(patient: Patient) -> Iterator[None]:
    patient.stack.cluster.primary.stop(signal.SIGINT)
    try:
        yield
    finally:
        patient.stack.cluster.primary.start()
        patient.stack.cluster.catch_up()


@contextlib.contextmanager
def a_primary_that_takes_connections_and_is_silent(patient: Patient) -> Iterator[None]:
    """Its postmaster hangs: connections that are open go on."""
    server = patient.stack.cluster.primary
    server.process.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.popen.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def another_password_of_the_role(patient: Patient) -> Iterator[None]:
    """And its sessions ended."""
    stack = patient.stack
    server, user = stack.cluster.primary, stack.user
    ((hashed,),) = server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", user)
    sql(patient, f"ALTER ROLE {user} PASSWORD 'x'")
    for each in stack.servers:
        each.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user)
    try:
        yield
    finally:
        sql(patient, f"ALTER ROLE {user} PASSWORD '{hashed}'")


UNDER_LOAD: dict[str, tuple[Callable[[Patient], contextlib.AbstractContextManager[None]], str]] = {
    "replica stopped": (the_replica_stopped, "PD101"),
    "primary stopped": (the_primary_stopped, "PD101"),
    "primary silent": (a_primary_that_takes_connections_and_is_silent, "PD231"),
    "password": (another_password_of_the_role, "PD201"),
}
TIMES = 5


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        pytest.param(*case, id=name, marks=[repeats] if name.endswith(" stopped") else [])
        for name, case in UNDER_LOAD.items()
    ],
)
def test_under_load_the_cause_is_named_each_time(
    patient: Patient, plant: Callable[[Patient], contextlib.AbstractContextManager[None]], code: str
) -> None:
    """The doctor is asked at once, and again: connections end between its questions."""
    with Load([permify.port for permify in patient.stack.permifys], checkers=4, writers=1), plant(patient):
        for number in range(TIMES):
            found = patient.findings()
            also = {"PD216", "PD215", "PD316"}  # replicas lag and the machine is busy under this load
            assert_only(found, {code}, {code, *also}, f"the doctor for the {number + 1}. time")
            time.sleep(0.3)
