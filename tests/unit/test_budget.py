"""The arithmetic of the connection budget, on rendered deployments and changes of them."""

from __future__ import annotations

import pytest

from cases import (
    AUTOSCALED,
    AUTOSCALED_PGCAT,
    DIRECT,
    DOCKER,
    ELSEWHERE,
    HELM,
    SIDECAR,
    STANDALONE,
    edit,
    load,
    rendered,
)
from pgcat_stack.budget import Row, largest_sizes, most_replicas_that_fit, peak, plan

DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
AUTOSCALER = "kubernetes/permify-autoscaler.yaml"
GENTLE = "{type: Pods, value: 1, periodSeconds: 85}"
POLICY = r"policies:(\n +.*)+"


def instances(files, program="pgcat"):
    return peak(load(files).topology.running(program)[0])


def rows(files) -> list[Row]:
    return list(plan(load(files)).rows)


@pytest.mark.parametrize(
    ("answers", "program", "count", "words"),
    [
        (STANDALONE, "pgcat", 4, "2 replicas + 1 surge + 1 draining"),
        (SIDECAR, "pgcat", 4, "2 replicas + 1 surge + 1 draining"),
        (AUTOSCALED, "pgcat", 8, "5 replicas + 1 surge + 1 draining + 1 scaled down"),
        (AUTOSCALED_PGCAT, "pgcat", 8, "5 replicas + 1 surge + 1 draining + 1 scaled down"),
        (AUTOSCALED_PGCAT, "permify", 4, "2 replicas + 1 surge + 1 draining"),
        (DIRECT, "permify", 4, "2 replicas + 1 surge + 1 draining"),
        (ELSEWHERE, "permify", 4, "2 replicas + 1 surge + 1 draining"),
        (DOCKER, "pgcat", 1, "1 replica"),
    ],
)
def test_instances_of_a_rendered_deployment(answers, program, count, words):
    found = instances(rendered(answers), program)
    assert (found.count, found.words, found.reasons) == (count, words, ())


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        ("maxSurge: 1", "maxSurge: 2", 9),
        ("maxSurge: 1", "maxSurge: 25%", 6),  # one of four pods
        ("maxSurge: 1", "maxSurge: 50%", 9),
        ("maxUnavailable: 0", "maxUnavailable: 1", 9),
        ("maxUnavailable: 0", "maxUnavailable: 20%", 6),  # rounded down to none
        ("minReadySeconds: 75", "minReadySeconds: 74", 9),
        ("minReadySeconds: 75", "minReadySeconds: 76", 6),
        ("terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 80", 9),
        (r"terminationGracePeriodSeconds: 75", "dnsPolicy: Default", 6),  # 30 by default
        (r"strategy:(\n    .*)+", "paused: false", 9),
        (r"type: RollingUpdate\n( {4,}.*\n){3}", "type: Recreate\n", 5),
        ("kind: Deployment", "kind: StatefulSet", 4),
    ],
)
def test_instances_follow_the_rollout(old, new, count):
    files = edit(rendered(STANDALONE, pgcat_replicas=4), DEPLOYMENT, old, new)
    assert instances(files).count == count


def test_one_replica_costs_the_same_either_way():
    files = edit(
        rendered(STANDALONE, pgcat_replicas=1), DEPLOYMENT, "minReadySeconds: 75", "minReadySeconds: 0"
    )
    assert instances(files).count == 3


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        ("policies: [{type: Pods, value: 1, periodSeconds: 85}]", 8),
        ("policies: [{type: Pods, value: 1, periodSeconds: 84}]", 11),
        ("policies: [{type: Pods, value: 2, periodSeconds: 85}]", 11),
        ("policies: [{type: Percent, value: 20, periodSeconds: 90}]", 8),
        ("policies: [{type: Percent, value: 21, periodSeconds: 90}]", 11),
        (
            f"policies: [{GENTLE}, {{type: Pods, value: 4, periodSeconds: 60}}]",
            11,
        ),
        (
            "selectPolicy: Min\n      policies:"
            " [{type: Pods, value: 1, periodSeconds: 85}, {type: Pods, value: 4, periodSeconds: 60}]",
            8,
        ),
        ("selectPolicy: Disabled", 8),
        ("selectPolicy: Max", 11),  # all pods in 15 seconds unless told otherwise
    ],
)
def test_instances_follow_the_scale_down(policy, count):
    files = edit(rendered(AUTOSCALED), AUTOSCALER, POLICY, policy)
    assert instances(files).count == count


@pytest.mark.parametrize(
    ("old", "new", "fewest"),
    [
        ("minReplicas: 2", "minReplicas: 3", 3),
        ("  minReplicas: 2\n", "", 1),  # by default
        ("kind: Deployment\n    name: pgcat", "kind: StatefulSet\n    name: pgcat", 1),  # of the Deployment
    ],
)
def test_the_fewest_replicas_are_the_autoscaler_s(old, new, fewest):
    files = edit(rendered(AUTOSCALED_PGCAT), "kubernetes/pgcat-autoscaler.yaml", old, new)
    assert load(files).topology.running("pgcat")[0].fewest_replicas == fewest


def test_the_chart_scales_from_its_minimum():
    workload = load(rendered({**HELM, "permify_max_replicas": 4})).topology.running("permify")[0]
    assert (workload.fewest_replicas, workload.most_replicas) == (2, 4)


def test_an_autoscaler_of_another_target_does_not_count():
    files = edit(rendered(AUTOSCALED), AUTOSCALER, r"(?<=kind: Deployment\n    name: )permify", "other")
    assert instances(files).count == 3


def test_demand_on_primary_and_replica():
    primary, replica = rows(rendered(STANDALONE))
    assert [(use.pool, use.size.value, use.demand) for use in primary.uses] == [
        ("permify_writer", 9, 36),
        ("permify_reader", 10, 40),
    ]
    assert (primary.migration, primary.demand, primary.server.capacity, primary.headroom) == (3, 79, 80, 1)
    assert (replica.migration, replica.demand, replica.headroom) == (0, 40, 40)


def test_direct_counts_both_pools_on_one_server():
    (primary,) = rows(rendered(DIRECT, replica_hosts="", permify_max_connections=5))
    assert (primary.demand, [use.size.value for use in primary.uses]) == (2 * 5 * 4 + 3, [5, 5])


def test_direct_counts_every_server_of_a_uri_in_full():
    files = rendered(DIRECT, replica_hosts="db2,db3:5433", permify_max_connections=5)
    assert [row.demand for row in rows(files)] == [5 * 4 + 3, 20, 20]


def test_users_and_shards_count_each():
    text = """
[pools.p]
[pools.p.users.0]
username = "a"
pool_size = 2
[pools.p.users.1]
username = "b"
pool_size = 3
[pools.p.shards.0]
database = "x"
servers = [["db1", 5432, "primary"]]
[pools.p.shards.1]
database = "y"
servers = [["DB1", 5432, "primary"]]
mirrors = [["db2", 5432, 0]]
"""
    primary, replica = rows({**rendered(STANDALONE), "pgcat/pgcat.toml": text})
    assert primary.demand == (2 + 3) * 2 * 4 + 3
    assert replica.demand == (2 + 3) * 4
    assert {use.pool for use in primary.uses} == {"p (a)", "p (b)"}


def test_permify_beside_pgcat_that_goes_around_it_counts_too():
    files = edit(
        rendered(STANDALONE),
        "permify/permify.yaml",
        r"(?<=uri: )postgresql://.*permify_writer\S*",
        "postgres://permify@db1/permify",
    )
    primary, _ = rows(files)
    assert primary.demand == 79 + 8 * 4


def test_a_server_outside_the_budget():
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", '"db2", 5432', '"db2", 5433')
    found = plan(load(files))
    assert [str(server.address) for server in found.unlisted] == ["db2:5433"]
    assert not found.holds


def test_an_unknown_number_of_processes_does_not_hold():
    files = edit(rendered(ELSEWHERE), "budget.yaml", "permify_max_replicas: 2", "")
    found = plan(load(files))
    assert not found.counted
    assert not found.holds


def test_helm_counts_the_larger_of_values_and_budget():
    files = edit(rendered({**HELM, **DIRECT}), "permify/values.yaml", "replicaCount: 2", "replicaCount: 1")
    assert instances(files, "permify").count == 5


def test_the_largest_sizes_that_fit_do_fit_and_nothing_larger_does():
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", "pool_size = 9", "pool_size = 19")
    primary, _ = rows(files)
    sizes = largest_sizes(primary)
    assert sizes is not None
    assert sum(sizes.values()) == (80 - 3) // 4
    assert most_replicas_that_fit(primary) is None


def test_fewer_replicas_that_fit():
    files = edit(rendered(STANDALONE), DEPLOYMENT, "replicas: 2", "replicas: 5")
    assert most_replicas_that_fit(rows(files)[0]) == 2


@pytest.mark.parametrize("size", range(1, 120, 7))
def test_what_is_proposed_always_holds(size):
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", "pool_size = 9 ", f"pool_size = {size} ")
    primary, _ = rows(files)
    sizes = largest_sizes(primary)
    assert sizes is not None
    assert sum(sizes.values()) * 4 + 3 <= 80
    assert min(sizes.values()) >= 1
