"""Each check of the connection budget on a rendered deployment with one mistake in it."""

from __future__ import annotations

import pytest

from cases import (
    AUTOSCALED,
    AUTOSCALED_PGCAT,
    DIRECT,
    DOCKER,
    ELSEWHERE,
    HELM,
    SESSION,
    SIDECAR,
    STANDALONE,
    codes,
    edit,
    findings,
    one,
    rendered,
)

BUDGET = "budget.yaml"
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
PGCAT_DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
PERMIFY_DEPLOYMENT = "kubernetes/permify-deployment.yaml"
PGCAT_AUTOSCALER = "kubernetes/pgcat-autoscaler.yaml"
BOOTSTRAP = "postgres/bootstrap.sql"
DIRECT_DOCKER = {**DOCKER, "pooling": "direct", "permify_max_connections": 5}
SMALL_DIRECT = {**DIRECT, "permify_max_connections": 5}
ROOMY_PGCAT = {**AUTOSCALED_PGCAT, "writer_pool_size": 2, "reader_pool_size": 2}
ONE_SERVER = {**SESSION, "replica_hosts": ""}


@pytest.mark.parametrize(
    "answers",
    [
        DOCKER,
        DIRECT_DOCKER,
        STANDALONE,
        SIDECAR,
        AUTOSCALED,
        AUTOSCALED_PGCAT,
        DIRECT,
        SESSION,
        HELM,
        ELSEWHERE,
        {**AUTOSCALED, "pool_mode": "session"},
        {**DIRECT, "permify_max_replicas": 4},
        {**DIRECT, "permify_install": "helm", "permify_max_replicas": 4},
        {**SESSION, "permify_install": "none", "watch": True},
        {**STANDALONE, "primary_reads": False},
        {**STANDALONE, "replica_hosts": "", "primary_host": "DB1:6000"},
    ],
)
def test_what_is_rendered_is_within_budget(answers):
    assert codes(rendered(answers)) == set()


CHANGES = [
    # the budget itself
    (STANDALONE, PGCAT, "pool_size = 9 ", "pool_size = 10 ", {"PS501"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "replicas: 2", "replicas: 3", {"PS501"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1", {"PS501"}),
    (STANDALONE, BUDGET, "max_connections: 100", "max_connections: 98", {"PS501", "PS509"}),
    (AUTOSCALED, "kubernetes/permify-autoscaler.yaml", "maxReplicas: 5", "maxReplicas: 6", {"PS501"}),
    (AUTOSCALED, "kubernetes/permify-autoscaler.yaml", "periodSeconds: 85", "periodSeconds: 15", {"PS501"}),
    (AUTOSCALED_PGCAT, PGCAT_AUTOSCALER, "maxReplicas: 5", "maxReplicas: 6", {"PS501"}),
    (AUTOSCALED_PGCAT, PGCAT_AUTOSCALER, "periodSeconds: 75", "periodSeconds: 60", {"PS501"}),
    (AUTOSCALED_PGCAT, PGCAT_AUTOSCALER, "value: 1", "value: 2", {"PS501"}),
    (AUTOSCALED_PGCAT, PGCAT_DEPLOYMENT, "minReadySeconds: 75", "minReadySeconds: 0", {"PS501"}),
    (ROOMY_PGCAT, PGCAT_AUTOSCALER, "periodSeconds: 75", "periodSeconds: 60", {"PS510"}),
    (SMALL_DIRECT, PERMIFY, "  max_connections: 5", "  max_connections: 20", {"PS501"}),
    (SMALL_DIRECT, PERMIFY_DEPLOYMENT, "replicas: 2", "replicas: 30", {"PS501"}),
    (DIRECT_DOCKER, "compose.yaml", "replicas: 1", "replicas: 16", {"PS501"}),
    (DOCKER, PGCAT, "pool_size = 20", "pool_size = 70", {"PS501"}),
    (ELSEWHERE, BUDGET, "permify_max_replicas: 2", "permify_max_replicas: 9", {"PS501"}),
    # servers
    (STANDALONE, PGCAT, '"db2", 5432', '"db3", 5432', {"PS502", "PS503"}),
    (SMALL_DIRECT, PERMIFY, "@db2:5432", "@db2:5433", {"PS502", "PS503"}),
    (SMALL_DIRECT, PERMIFY, "@db2:5432", "@DB2", set()),
    (STANDALONE, BUDGET, 'host: "db2"', 'host: "db2x"', {"PS502", "PS503"}),
    (STANDALONE, BUDGET, 'host: "db2"', 'host: "DB2."', set()),
    (STANDALONE, BUDGET, '  - host: "db2"\n    port: 5432', '  - host: "db2"', set()),
    # budget.yaml
    (STANDALONE, BUDGET, "max_connections: 100", "max_connections: '100'", {"PS504"}),
    (STANDALONE, BUDGET, "max_connections: 100", "max_conections: 100", {"PS504"}),
    (STANDALONE, BUDGET, "other_connections: 20", "other_connections: -1", {"PS504"}),
    (STANDALONE, BUDGET, "other_connections: 20", "other_connections: 2", {"PS516"}),
    (STANDALONE, BUDGET, "other_connections: 20", "other_connections: 3", set()),
    (STANDALONE, BUDGET, "other_connections: 20", "other_connections: 100", {"PS501", "PS504", "PS509"}),
    (STANDALONE, BUDGET, "    other_connections: 20\n", "", {"PS504"}),
    (STANDALONE, BUDGET, "port: 5432", "port: 70000", {"PS502", "PS503", "PS504"}),
    (STANDALONE, BUDGET, "role: replica", "role: standby", {"PS504"}),
    (STANDALONE, BUDGET, r"servers:\n(.*\n)+", "servers: []\n", {"PS502", "PS504"}),
    (STANDALONE, BUDGET, r"(.*\n)+", "- 1\n", {"PS502", "PS504"}),
    (STANDALONE, BUDGET, "role: replica", "role: primary", {"PS505"}),
    (STANDALONE, BUDGET, "role: primary", "role: replica", {"PS505"}),
    (STANDALONE, BUDGET, 'host: "db2"', 'host: "DB1"', {"PS502", "PS505"}),
    (HELM, BUDGET, "permify_max_replicas: 2", "permify_max_replicas: two", {"PS504"}),
    # pools
    (STANDALONE, PGCAT, "pool_size = 9 ", "pool_size = 1 ", {"PS507"}),
    (SMALL_DIRECT, PERMIFY, "  max_connections: 5", "  max_connections: 1", {"PS507"}),
    (STANDALONE, PERMIFY, "  max_connections: 8", "  max_connections: 1", set()),
    # session mode
    (SESSION, PERMIFY, "  max_connections: 1", "  max_connections: 3", {"PS508"}),
    (SESSION, PGCAT, "pool_size = 9 ", "pool_size = 3 ", {"PS508"}),
    (SESSION, PERMIFY_DEPLOYMENT, "replicas: 2", "replicas: 8", {"PS508"}),
    (SESSION, PERMIFY_DEPLOYMENT, "replicas: 2", "replicas: 7", set()),
    (ONE_SERVER, PERMIFY, "permify_reader", "permify_writer", set()),
    (
        {**SIDECAR, "pool_mode": "session"},
        PERMIFY,
        "  max_connections: 1",
        "  max_connections: 10",
        {"PS508"},
    ),
    (STANDALONE, PGCAT, "min_pool_size = 0", 'min_pool_size = 0\npool_mode = "session"', {"PS508"}),
    (
        {**SESSION, "permify_install": "none"},
        BUDGET,
        "permify_max_replicas: 2",
        "permify_max_replicas: 20",
        {"PS508"},
    ),
    # the role's limit
    (STANDALONE, BOOTSTRAP, "CONNECTION LIMIT 80", "CONNECTION LIMIT 100", {"PS509"}),
    (STANDALONE, BOOTSTRAP, "CONNECTION LIMIT 80", "CONNECTION LIMIT -1", {"PS509"}),
    (STANDALONE, BOOTSTRAP, " CONNECTION LIMIT 80", "", {"PS509"}),
    (STANDALONE, BOOTSTRAP, "CONNECTION LIMIT 80;", "; -- CONNECTION LIMIT 80", {"PS509"}),
    # rollouts that the budget bears
    (SMALL_DIRECT, PERMIFY_DEPLOYMENT, "maxSurge: 1", "maxSurge: 100%", {"PS510"}),
    (SMALL_DIRECT, PERMIFY_DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1", {"PS510"}),
    (SMALL_DIRECT, PERMIFY_DEPLOYMENT, r"minReadySeconds: \d+", "minReadySeconds: 10", {"PS510"}),
    (
        {**STANDALONE, "pgcat_replicas": 1},
        PGCAT_DEPLOYMENT,
        "minReadySeconds: 75",
        "minReadySeconds: 1",
        set(),
    ),
    # Permify elsewhere
    (ELSEWHERE, BUDGET, "permify_max_replicas: 2", "", {"PS511"}),
    ({**SESSION, "permify_install": "none"}, BUDGET, "permify_max_replicas: 2", "", {"PS511"}),
    ({**STANDALONE, "permify_install": "none"}, BUDGET, "permify_max_replicas: 2", "", set()),
    (HELM, "permify/values.yaml", "replicaCount: 2", "replicaCount: 3", {"PS514"}),
    # watch
    ({**SESSION, "watch": True}, PERMIFY, "  max_connections: 2", "  max_connections: 1", {"PS512"}),
    (SESSION, PERMIFY, r"(?<=watch:\n    enabled: )false", "true", {"PS512"}),
    # the bundled servers
    (DOCKER, "compose.yaml", "-cmax_connections=100", "-cmax_connections=200", {"PS513"}),
    (DOCKER, "compose.yaml", r"      - -cmax_connections=100\n", "", set()),  # PostgreSQL's own default
    (DOCKER, "compose.yaml", "- -cmax_connections=100", "- -c\n      - max_connections=90", {"PS513"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "kind: Deployment", "kind: DaemonSet", {"PS515"}),
]


@pytest.mark.parametrize(
    ("answers", "path", "old", "new", "expected"), CHANGES, ids=[f"{c[1]}: {c[3][:40]}" for c in CHANGES]
)
def test_one_change_is_found(answers, path, old, new, expected):
    assert codes(edit(rendered(answers), path, old, new)) == expected


def test_no_budget_file_is_one_finding():
    files = rendered(STANDALONE)
    del files[BUDGET]
    assert codes(files) == {"PS504"}


def test_a_broken_budget_file_is_left_to_the_checks_of_syntax():
    assert codes({**rendered(STANDALONE), BUDGET: "servers: ["}) == set()


def test_swapped_roles_are_found_where_the_primary_is_used():
    files = edit(rendered(STANDALONE), BUDGET, "role: primary", "role: swap")
    files = edit(edit(files, BUDGET, "role: replica", "role: primary"), BUDGET, "role: swap", "role: replica")
    assert codes(files) == {"PS506"}
    assert one(files, "PS506").path == PGCAT


def test_over_budget_shows_the_arithmetic_and_what_fits():
    files = edit(rendered(STANDALONE), PGCAT, "pool_size = 9 ", "pool_size = 19 ")
    found = one(files, "PS501")
    assert found.message == (
        "db1:5432 can be asked for permify_writer 19 × 4 + permify_reader 10 × 4 + 3 for the migration = 119"
        " connections and has 80 = max_connections 100 − other_connections 20; 4 = 2 replicas + 1 surge"
        " + 1 draining of PgCat"
    )
    assert found.fix == (
        "pool_size of permify_writer ≤ 9; or max_connections ≥ 139 on db1:5432 and in budget.yaml"
    )
    assert "pool_size = 19" in files[PGCAT].splitlines()[found.line - 1]


def test_where_one_smaller_pool_is_not_enough_all_are_named():
    files = edit(rendered(STANDALONE), PGCAT, "pool_size = 9 ", "pool_size = 30 ")
    files = edit(files, PGCAT, "pool_size = 10 ", "pool_size = 30 ")
    found = next(f for f in findings(files, "PS501") if "db1" in f.message)
    assert found.fix.startswith("pool_size of permify_writer ≤ 10 and permify_reader ≤ 9; or ")


def test_over_budget_names_fewer_replicas_and_the_rollout():
    files = edit(rendered(STANDALONE), PGCAT_DEPLOYMENT, "replicas: 2", "replicas: 6")
    files = edit(files, PGCAT_DEPLOYMENT, "minReadySeconds: 75", "minReadySeconds: 0")
    found = next(f for f in findings(files, "PS501") if "db1" in f.message)
    assert "at most 1 PgCat replica" in found.fix
    assert "set minReadySeconds: 75" in found.fix


def test_session_pinning_shows_the_arithmetic():
    files = edit(rendered(SESSION), PGCAT, "pool_size = 9 ", "pool_size = 3 ")
    found = one(files, "PS508")
    assert (
        "(2 + 2) Permify processes × max_connections 1 = 4 pin more than permify_writer has, pool_size 3"
        in (found.message)
    )
    assert "pool_size ≥ 4" in found.fix


def test_session_pinning_counts_both_pools_of_permify():
    files = edit(rendered(SESSION, permify_replicas=3), PERMIFY, "/permify_reader", "/permify_writer")
    assert "max_connections 1 × 2 of its pools = 10" in one(files, "PS508").message


def test_session_pinning_counts_a_rollout_that_piles_up():
    files = edit(
        rendered(SESSION, permify_replicas=5), PERMIFY_DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1"
    )
    assert "(2 × 5 + 1) Permify processes" in next(f.message for f in findings(files, "PS508"))


def test_readers_spread_over_the_servers_that_are_left():
    answers = {**SESSION, "replica_hosts": "db2,db3", "writer_pool_size": 12, "reader_pool_size": 6}
    files = edit(rendered(answers, permify_replicas=10), PGCAT, "pool_size = 6 ", "pool_size = 5 ")
    assert "pool_size 5 × 2 of 3 servers = 10" in one(files, "PS508").message


def test_a_costly_rollout_names_its_cost():
    files = edit(rendered(SMALL_DIRECT), PERMIFY_DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1")
    found = one(files, "PS510")
    assert (found.severity, found.fix) == ("warning", "set maxUnavailable: 0")
    assert found.message.endswith("2 × 2 replicas + 1, so 5 Permify processes count instead of 4")


def test_the_smallest_capacity_is_the_roles_limit():
    files = edit(
        rendered(STANDALONE),
        BUDGET,
        r"max_connections: 100\n.*\n\Z",
        "max_connections: 90\n    other_connections: 20\n",
    )
    assert one(files, "PS509").message == "CONNECTION LIMIT is 80, and the capacity in budget.yaml is 70"


def test_other_roles_have_limits_of_their_own():
    files = rendered(STANDALONE)
    files[BOOTSTRAP] += "\nALTER ROLE reporting CONNECTION LIMIT 5;\n"
    assert codes(files) == set()
