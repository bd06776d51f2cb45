"""Each check of the drain contract on a rendered deployment with one mistake in it."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, ELSEWHERE, HELM, SIDECAR, STANDALONE, codes, edit, one, rendered

PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
PGCAT_DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
PERMIFY_DEPLOYMENT = "kubernetes/permify-deployment.yaml"
HOOK = r"          lifecycle:\n( {12,}.*\n){3}"
DIRECT_DOCKER = {**DOCKER, "pooling": "direct"}


def drain_codes(files):
    return codes(files, "PS6")


@pytest.mark.parametrize("seconds", [20, 60, 600, 3600])
@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, DIRECT, HELM, ELSEWHERE])
def test_what_is_rendered_drains(answers, seconds):
    assert drain_codes(rendered(answers, drain_seconds=seconds)) == set()


@pytest.mark.parametrize("answers", [DOCKER, DIRECT_DOCKER])
def test_what_is_rendered_stops_in_docker(answers):
    assert drain_codes(rendered(answers)) == set()


CHANGES = [
    # lifetimes against the drain
    (STANDALONE, PERMIFY, "lifetime: 30s", "lifetime: 31s", {"PS601"}),
    (STANDALONE, PERMIFY, "lifetime: 30s", "lifetime: 1h", {"PS601"}),
    (STANDALONE, PERMIFY, "jitter: 10s", "jitter: 0s", set()),  # a fifth of the lifetime: 6 s
    (STANDALONE, PERMIFY, "health_check_period: 10s", "health_check_period: 0s", {"PS601"}),
    (STANDALONE, PERMIFY, r"  health_check_period.*\n", "", {"PS601"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "seconds: 60", "seconds: 59", {"PS601"}),
    (STANDALONE, PGCAT_DEPLOYMENT, r"sleep:\n +seconds: 60.*", "exec: {command: [sleep, '60']}", set()),
    (STANDALONE, PGCAT_DEPLOYMENT, r"sleep:\n +seconds: 60.*", "exec: {command: [sleep, '50']}", {"PS601"}),
    (HELM, "permify/values.yaml", "max_connection_lifetime: 30s", "max_connection_lifetime: 300s", {"PS601"}),
    (ELSEWHERE, PERMIFY, "lifetime: 1800s", "lifetime: 24h", set()),
    (SIDECAR, PERMIFY, "lifetime: 3600s", "lifetime: 24h", set()),
    # waiting
    (STANDALONE, PGCAT_DEPLOYMENT, HOOK, "", {"PS602"}),
    (STANDALONE, PGCAT_DEPLOYMENT, r"sleep:\n +seconds: 60.*", "exec: {command: ['true']}", {"PS602"}),
    (STANDALONE, PERMIFY_DEPLOYMENT, HOOK, "", {"PS602"}),
    (SIDECAR, PERMIFY_DEPLOYMENT, HOOK, "", {"PS602"}),
    (DIRECT, PERMIFY_DEPLOYMENT, HOOK, "", {"PS602"}),
    (DIRECT, PERMIFY_DEPLOYMENT, r"sleep:\n +seconds: 60.*", "exec: {command: [sleep, '60']}", {"PS602"}),
    # grace
    (STANDALONE, PGCAT_DEPLOYMENT, "PeriodSeconds: 75", "PeriodSeconds: 70", {"PS603"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "PeriodSeconds: 75", "PeriodSeconds: 71", set()),
    (STANDALONE, PGCAT_DEPLOYMENT, r" +terminationGracePeriodSeconds: 75\n", "", {"PS603"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "seconds: 60", "seconds: 65", {"PS603"}),
    (STANDALONE, PGCAT, "shutdown_timeout = 10000", "shutdown_timeout = 15000", {"PS603"}),
    (STANDALONE, PGCAT, r"^shutdown_timeout.*\n", "", {"PS603"}),  # a minute by default
    (SIDECAR, PGCAT, "shutdown_timeout = 10000", "shutdown_timeout = 15000", {"PS603"}),
    (SIDECAR, PERMIFY_DEPLOYMENT, "PeriodSeconds: 85", "PeriodSeconds: 80", {"PS603"}),
    (DIRECT, PERMIFY_DEPLOYMENT, "PeriodSeconds: 75", "PeriodSeconds: 70", {"PS603"}),
    # signals
    (DOCKER, "compose.yaml", "stop_signal: SIGINT", "stop_signal: SIGTERM", {"PS604"}),
    (DOCKER, "compose.yaml", "stop_signal: SIGINT", "stop_signal: INT", set()),
    (DOCKER, "compose.yaml", r"^    stop_signal: SIGINT.*\n", "", {"PS604"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "lifecycle:", "lifecycle:\n            stopSignal: SIGTERM", {"PS604"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "lifecycle:", "lifecycle:\n            stopSignal: SIGINT", set()),
    # Compose
    (
        DOCKER,
        "compose.yaml",
        r"(?<=stop_signal: SIGINT)([^\n]*\n    stop_grace_period: )15s",
        "\n    stop_grace_period: 10s",
        {"PS605"},
    ),
    (DOCKER, PGCAT, "shutdown_timeout = 10000", "shutdown_timeout = 15000", {"PS605"}),
    (
        DIRECT_DOCKER,
        "compose.yaml",
        r"^    stop_grace_period: 15s\n(?=    depends_on:\n      migrate)",
        "",
        {"PS605"},
    ),
    # timeouts
    (STANDALONE, PGCAT, "^idle_timeout = 300000", "idle_timeout = 240000", {"PS606"}),
    (STANDALONE, PGCAT, "^idle_timeout = 300000", "idle_timeout = 300001", {"PS606"}),
    (STANDALONE, PGCAT, "^server_lifetime = 300000", "server_lifetime = 299999", {"PS606"}),
    (STANDALONE, PGCAT, "^pool_mode", "idle_timeout = 200000\npool_mode", {"PS606"}),
    (STANDALONE, PGCAT, "^min_pool_size", "server_lifetime = 1000\nmin_pool_size", {"PS606"}),
    (STANDALONE, PERMIFY, "idle_time: 240s", "idle_time: 10m", {"PS606"}),
    (DIRECT, PERMIFY, "idle_time: 240s", "idle_time: 24h", set()),
    # the deadline
    (STANDALONE, PGCAT_DEPLOYMENT, "DeadlineSeconds: 600", "DeadlineSeconds: 75", {"PS607"}),
    (STANDALONE, PERMIFY_DEPLOYMENT, "minReadySeconds: 30", "minReadySeconds: 2400", {"PS607"}),
    (STANDALONE, PERMIFY_DEPLOYMENT, r"^  progressDeadlineSeconds.*\n", "", set()),
    # lifetimes that end at once
    (HELM, "permify/values.yaml", "max_connection_lifetime: 30s", "max_connection_lifetime: 0s", {"PS608"}),
    (
        STANDALONE,
        PERMIFY_DEPLOYMENT,
        r"(?<=Secret does not have.\n)          env:",
        "          env:\n            - {name: PERMIFY_DATABASE_MAX_CONNECTION_LIFETIME, value: -1s}",
        {"PS608"},
    ),
    # sidecars
    (SIDECAR, PERMIFY_DEPLOYMENT, r"^ +restartPolicy: Always.*\n", "", {"PS609"}),
    # outages
    (STANDALONE, PGCAT_DEPLOYMENT, r"type: RollingUpdate\n( {4,}.*\n){3}", "type: Recreate\n", {"PS610"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 100%", {"PS610"}),
]


@pytest.mark.parametrize(
    ("answers", "path", "old", "new", "expected"), CHANGES, ids=[f"{c[1]}: {c[3][:40]}" for c in CHANGES]
)
def test_one_change_is_found(answers, path, old, new, expected):
    assert drain_codes(edit(rendered(answers), path, old, new)) == expected


def test_pgcat_as_an_ordinary_container_stops_too_early():
    files = edit(rendered(SIDECAR), PERMIFY_DEPLOYMENT, r"^      containers:\n", "")
    files = edit(files, PERMIFY_DEPLOYMENT, r"^      initContainers:", "      containers:")
    assert drain_codes(files) == {"PS609"}
    assert "both stop at once" in one(files, "PS609").message


def test_a_lifetime_beyond_the_drain_shows_the_arithmetic_and_times_that_fit():
    files = edit(rendered(STANDALONE), PERMIFY, "lifetime: 30s", "lifetime: 3600s")
    found = one(files, "PS601")
    assert found.message == (
        "Permify's connections stay for lifetime 3600 + jitter 10 + health check 10 = 3620 s, and PgCat's"
        " preStop wait 60 − 10 s to settle leaves 50 s"
    )
    assert found.fix.startswith(
        "max_connection_lifetime: 30s, max_connection_lifetime_jitter: 10s and health_check_period: 10s"
    )
    assert "3600s" in files[PERMIFY].splitlines()[found.line - 1]


def test_the_times_that_are_proposed_hold():
    files = edit(rendered(STANDALONE), PGCAT_DEPLOYMENT, "seconds: 60", "seconds: 33")
    assert (
        "lifetime: 15s, max_connection_lifetime_jitter: 4s and health_check_period: 4s"
        in one(files, "PS601").fix
    )


def test_a_short_grace_period_shows_its_parts():
    files = edit(rendered(SIDECAR), PERMIFY_DEPLOYMENT, "PeriodSeconds: 85", "PeriodSeconds: 80")
    assert one(files, "PS603").message == (
        "preStop wait 60 + Permify's shutdown 10 + PgCat's shutdown_timeout 10 = 80 s, and the grace period"
        " is 80 s"
    )


def test_a_timeout_of_the_process_is_reported_once_for_all_pools():
    files = edit(rendered(STANDALONE), PGCAT, "^idle_timeout = 300000", "idle_timeout = 240000")
    assert "idle_timeout = 240000" in files[PGCAT].splitlines()[one(files, "PS606").line - 1]
