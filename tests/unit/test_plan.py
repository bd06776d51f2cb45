"""The plan's arithmetic over random answers, against the formulas of the design; nothing is rendered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draws import examples
from rendering import environment

TABLE: Any = environment().get_template("questions/table.jinja").module


def plan(answers: dict[str, Any]) -> Any:
    """`questions/plan.jinja` with these answers, in about a millisecond."""
    return environment().get_template("questions/plan.jinja").make_module(answers)


answers = st.fixed_dictionaries(
    {
        "topology": st.sampled_from(["docker", "standalone", "sidecar"]),
        "database": st.just("external"),
        "primary_host": st.just("db"),
        "replica_hosts": st.sampled_from(["", "r1", "r1, r2:5433", "10.0.0.5,fd00::1"]),
    },
    optional={
        "pooling": st.sampled_from(["pgcat", "direct"]),
        "pool_mode": st.sampled_from(["transaction", "session"]),
        "permify_install": st.sampled_from(["manifests", "helm", "none"]),
        "postgres_max_connections": st.integers(1, 1000),
        "other_connections": st.integers(0, 100),
        "permify_replicas": st.integers(1, 20),
        "permify_max_replicas": st.integers(0, 30),
        "pgcat_replicas": st.integers(1, 5),
        "pgcat_max_replicas": st.integers(0, 8),
        "writer_pool_size": st.sampled_from([0, 0, 5]),
        "reader_pool_size": st.sampled_from([0, 0, 7]),
        "permify_max_connections": st.sampled_from([0, 0, 3]),
        "primary_reads": st.booleans(),
        "watch": st.booleans(),
        "distributed": st.booleans(),
        "drain_seconds": st.integers(1, 3600),
    },
)


def instances(given: dict[str, Any]) -> int:
    """How many processes may hold pools at once: the most there are, and those of a rollout beside them."""
    docker = given["topology"] == "docker"
    direct = given.get("pooling") == "direct"
    permify = given.get("permify_replicas", 1 if docker else 2)
    if docker:
        return permify if direct else 1
    if given["topology"] == "standalone" and not direct:
        least = given.get("pgcat_replicas", 2)
        most = given.get("pgcat_max_replicas", 0) or least
        return most + 2 + (most > least)
    most = given.get("permify_max_replicas", 0) or permify
    install = given.get("permify_install", "manifests")
    if install == "helm":
        return 2 * most + 1
    return most + 2 + (install == "manifests" and most > permify)


@settings(max_examples=examples(1500), deadline=None)
@given(answers)
def test_instances_and_demand(given: dict[str, Any]) -> None:
    found = plan(given)
    replicas = bool(given["replica_hosts"])
    capacity = given.get("postgres_max_connections", 100) - given.get("other_connections", 20)
    assert found.capacity == capacity
    assert found.instances == instances(given)
    if given.get("pooling") == "direct":
        primary = found.max_connections * (1 if replicas else 2)
        replica = found.max_connections
    else:
        shares = not replicas or given.get("primary_reads", True)
        primary = found.writer_size + (found.reader_size if shares else 0)
        replica = found.reader_size
    assert found.demand_on_primary == primary * found.instances + 3
    assert found.demand_on_replica == replica * found.instances


@settings(max_examples=examples(1500), deadline=None)
@given(answers)
def test_derived_sizes_fit_and_leave_little(given: dict[str, Any]) -> None:
    sizes = ("writer_pool_size", "reader_pool_size", "permify_max_connections")
    given = {key: value for key, value in given.items() if key not in sizes}
    found = plan(given)
    if (found.max_connections if found.direct else min(found.writer_size, found.reader_size)) < 1:
        return  # the gate refuses it
    assert found.demand_on_primary <= found.capacity
    if found.replicas:
        assert found.demand_on_replica <= found.capacity
    if found.direct:
        assert found.max_connections <= 20
    else:
        assert found.writer_size <= max(20, found.writer_least)
        assert found.reader_size <= max(20, found.reader_least)


@settings(max_examples=examples(1500), deadline=None)
@given(answers)
def test_the_drain_contract(given: dict[str, Any]) -> None:
    found = plan(given)
    drain = given.get("drain_seconds", 60)
    assert found.drain == drain
    assert drain + 10 < found.pgcat_grace
    programs = 2 if given["topology"] == "sidecar" and given.get("pooling") != "direct" else 1
    assert found.permify_wait + 10 * programs < found.permify_grace
    if found.standalone and drain >= 20:
        assert found.lifetime + found.lifetime_jitter + found.health_check_period <= drain - 10
        assert min(found.lifetime, found.lifetime_jitter, found.health_check_period) >= 1


@settings(max_examples=examples(300), deadline=None)
@given(answers)
def test_text_from_the_command_line_plans_the_same(given: dict[str, Any]) -> None:
    def exported(found: Any) -> dict[str, Any]:
        return {
            key: value for key, value in vars(found).items() if isinstance(value, int | str | list | dict)
        }

    texts = {key: str(value) for key, value in given.items()}
    assert exported(plan(texts)) == exported(plan(given))


@pytest.mark.parametrize("key", [key for key in TABLE.keys if key != "primary_host"])
def test_a_question_without_an_answer_has_its_default(key: str) -> None:
    default = TABLE.questions[key]["default"]
    if "list" in TABLE.questions[key]:
        default = []
    assert plan({}).answers[key] == default


def test_the_defaults_of_the_design() -> None:
    found = plan({"topology": "standalone", "primary_host": "db", "replica_hosts": "r"})
    assert (found.instances, found.writer_size + found.reader_size) == (4, 19)
