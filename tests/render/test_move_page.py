"""What a deployment's README says of a move holds: its commands are accepted, old and new fit together."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier.errors import UserMessageError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from draws import examples
from live.repeats import drawn, repeats
from pgcat_stack.budget import plan
from pgcat_stack.reading.reading import Reading
from rendering import Refused, render
from runbook import section

STANDALONE = {
    "topology": "standalone",
    "primary_host": "db-1.example.com",
    "replica_hosts": "db-2.example.com",
}
SIDECAR = {**STANDALONE, "topology": "sidecar"}
DIRECT = {**STANDALONE, "pooling": "direct"}
NO_REPLICA = {"replica_hosts": ""}
SESSION = {"pool_mode": "session"}
TO_DIRECT = "Move to direct pooling, without PgCat"
TO_SIDECARS = "Move to sidecars"
TO_STANDALONE = "Move to PgCat in pods of its own"
TO_PGCAT = "Move to PgCat"
TITLES = (TO_DIRECT, TO_SIDECARS, TO_STANDALONE, TO_PGCAT)

Move = tuple[dict[str, Any], str]
FIT: dict[str, Move] = {
    "to direct": (STANDALONE, TO_DIRECT),
    "to sidecars": (STANDALONE, TO_SIDECARS),
    "to sidecars, no replica": ({**STANDALONE, **NO_REPLICA}, TO_SIDECARS),
    "to sidecars, session": ({**STANDALONE, **SESSION}, TO_SIDECARS),
    "to sidecars, chosen pools": (
        {**STANDALONE, "permify_max_replicas": 3, "writer_pool_size": 3, "reader_pool_size": 3},
        TO_SIDECARS,
    ),
    "from sidecars": (SIDECAR, TO_STANDALONE),
    "from sidecars, a short drain": ({**SIDECAR, "drain_seconds": 5}, TO_STANDALONE),
    "to PgCat": (DIRECT, TO_PGCAT),
    "to PgCat, connections chosen": ({**DIRECT, "permify_max_connections": 3}, TO_PGCAT),
}
SMALLER: dict[str, Move] = {
    "to direct": ({**STANDALONE, "permify_replicas": 10}, TO_DIRECT),
    "to direct, no replica": ({**STANDALONE, **NO_REPLICA, "permify_replicas": 10}, TO_DIRECT),
    "to sidecars": ({**STANDALONE, "permify_replicas": 10}, TO_SIDECARS),
    "to sidecars, an autoscaler": ({**STANDALONE, "permify_max_replicas": 12}, TO_SIDECARS),
    "to sidecars, one pool chosen": (
        {**STANDALONE, **NO_REPLICA, "permify_replicas": 8, "writer_pool_size": 10},
        TO_SIDECARS,
    ),
    "to sidecars, reads on replicas alone": (
        {**STANDALONE, "primary_reads": False, "permify_replicas": 8},
        TO_SIDECARS,
    ),
    "to sidecars, more room on the replica than a rollout leaves": (
        {
            **STANDALONE,
            **{"primary_reads": False, "permify_replicas": 16, "postgres_max_connections": 225},
            **{"reader_pool_size": 1},
        },
        TO_SIDECARS,
    ),
    "from sidecars": ({**SIDECAR, "permify_replicas": 9}, TO_STANDALONE),
    "from sidecars, an autoscaler": ({**SIDECAR, "permify_max_replicas": 4}, TO_STANDALONE),
    "from sidecars, session": ({**SIDECAR, **SESSION, "permify_replicas": 4}, TO_STANDALONE),
    "to PgCat": ({**DIRECT, "permify_replicas": 10}, TO_PGCAT),
    "to PgCat, verify-full": (
        {**DIRECT, "permify_replicas": 6, "database_tls": "verify-full", "database_ca": "configmap/ca"},
        TO_PGCAT,
    ),
}
ROOM_FIRST: dict[str, Move] = {
    "to direct": ({**STANDALONE, "permify_replicas": 50}, TO_DIRECT),
    "to direct, watch": ({**STANDALONE, "permify_replicas": 25, "watch": True}, TO_DIRECT),
    "to sidecars": ({**STANDALONE, "permify_replicas": 30}, TO_SIDECARS),
    "from sidecars, session": ({**SIDECAR, **SESSION, "permify_replicas": 6}, TO_STANDALONE),
}
REFUSED: dict[str, Move] = {
    "to direct, more pods than connections": ({**STANDALONE, "permify_replicas": 100}, TO_DIRECT),
    "to sidecars, a pool without a connection": ({**STANDALONE, "permify_replicas": 38}, TO_SIDECARS),
    "to direct, a drain too long": (
        {**STANDALONE, "drain_seconds": 1790, "permify_max_replicas": 3},
        TO_DIRECT,
    ),
}


LIKE_OTHERS = {
    *("to sidecars, no replica", "to direct, no replica", "from sidecars", "to sidecars, an autoscaler"),
    *("to PgCat", "to sidecars, session"),
    *("to sidecars, one pool chosen", "to sidecars, reads on replicas alone", "from sidecars, an autoscaler"),
    *("to direct, watch", "to sidecars, chosen pools", "from sidecars, a short drain"),
}


def page(deploy: Path, title: str) -> str:
    return section((deploy / "README.md").read_text(), title)


def told(text: str) -> tuple[int, int, int]:
    """The connections that the old pods keep, that the new ones add, and that all have together."""
    words = " ".join(text.split())
    found = re.search(r"keep up to (\d+) connections .* add up to (\d+)(?:, a migration 3)?: (\d+) of", words)
    assert found, words
    return int(found[1]), int(found[2]), int(found[3])


def updates(text: str) -> list[dict[str, str]]:
    """What each `copier update` of the section answers."""
    found = [line for line in text.splitlines() if line.startswith("copier update")]
    return [dict(re.findall(r"--data (\w+)=(\S+)", line)) for line in found]


def updated(deploy: Path, answers: dict[str, str]) -> Path:
    """By the stored answers and these, as an update does. Raises `Refused`."""
    try:
        copier.run_recopy(deploy, data=answers, defaults=True, overwrite=True, quiet=True, skip_tasks=True)
    except UserMessageError as error:
        raise Refused(str(error)) from None
    return deploy


def without_rollout(deploy: Path) -> dict[str, int]:
    """What the pods open on each server while none is replaced: the plan has two more for that."""
    return {
        str(row.server.address): sum(use.size.value * (use.instances.count - 2) for use in row.uses)
        for row in plan(Reading.load(deploy)).rows
    }


def side_by_side(before: dict[str, int], after: dict[str, int], deploy: Path) -> Iterator[tuple[int, int]]:
    """Of each server the connections of old and new pods together, the migration's, too, and its capacity."""
    for row in plan(Reading.load(deploy)).rows:
        assert row.server.capacity is not None
        yield (
            before[str(row.server.address)] + after[str(row.server.address)] + row.migration,
            row.server.capacity,
        )


@pytest.mark.parametrize("name", drawn(FIT, LIKE_OTHERS))
def test_as_they_are(name: str, tmp_path: Path) -> None:
    answers, title = FIT[name]
    deploy = render(tmp_path / "deploy", answers)
    text, before = page(deploy, title), without_rollout(deploy)
    (answered,) = updates(text)
    after = without_rollout(updated(deploy, answered))
    both = list(side_by_side(before, after, deploy))
    assert told(text)[2] == max(together for together, _ in both) <= 80
    assert "quiet hour" not in text
    sizes = {key for key in answered if key.endswith(("_pool_size", "_connections"))}
    assert sizes == {key for key in answers if key.endswith(("_pool_size", "_connections"))}
    assert {answered[key] for key in sizes} <= {"0"}, "those were for the old processes"


@pytest.mark.parametrize("name", drawn(SMALLER, LIKE_OTHERS))
def test_with_smaller_pools(name: str, tmp_path: Path) -> None:
    answers, title = SMALLER[name]
    deploy = render(tmp_path / "deploy", answers)
    text, before = page(deploy, title), without_rollout(deploy)
    first, last = updates(text)
    assert told(text)[2] > 80
    after = without_rollout(updated(deploy, first))
    both = list(side_by_side(before, after, deploy))
    assert f"it is {max(together for together, _ in both)}. They carry less" in text
    assert all(together <= capacity for together, capacity in both)
    # Afterwards they are derived again.
    sizes = {key for key in first if key.endswith(("_pool_size", "_connections"))}
    assert last == dict.fromkeys(sizes, "0") and "0" not in {first[key] for key in sizes}
    updated(deploy, last)
    assert sum(without_rollout(deploy).values()) > sum(after.values())
    assert ("PS507" in text) == ("1" in {first[key] for key in sizes})


@pytest.mark.parametrize("name", drawn(ROOM_FIRST, LIKE_OTHERS))
def test_room_is_made_first(name: str, tmp_path: Path) -> None:
    """Then the section is another, and says how it goes on."""
    answers, title = ROOM_FIRST[name]
    deploy = render(tmp_path / "deploy", answers)
    text = page(deploy, title)
    assert "Make room first" in text and "copy_policy" not in text and " delete " not in text
    (first,) = updates(text)
    assert not {"topology", "pooling"} & first.keys()
    before = without_rollout(updated(deploy, first))
    text = page(deploy, title)
    assert "Make room first" not in text
    after = without_rollout(updated(deploy, updates(text)[0]))
    assert all(together <= capacity for together, capacity in side_by_side(before, after, deploy))
    answered = yaml.safe_load((deploy / ".copier-answers.yml").read_text())
    if "pooling=direct" not in text and len(updates(text)) == 1:
        assert answered["writer_pool_size"] == answered["reader_pool_size"] == 0, "room is no longer needed"


def test_more_than_any_pools_could_have(tmp_path: Path) -> None:
    text = page(
        render(tmp_path / "deploy", {**STANDALONE, "permify_replicas": 36, "pgcat_replicas": 3}), TO_SIDECARS
    )
    assert "No pools are small enough for that: roll out fewer pods of Permify first" in text
    assert "```" not in text


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_refused_is_said_before(name: str, tmp_path: Path) -> None:
    answers, title = REFUSED[name]
    deploy = render(tmp_path / "deploy", answers)
    text = page(deploy, title)
    assert "```" not in text
    said = text.partition("With these answers it is refused: ")[2].strip()
    move = {"pooling": "direct"} if title == TO_DIRECT else {"topology": "sidecar"}
    with pytest.raises(Refused, match=re.escape(said)):
        updated(deploy, move)


KINDS = [{"topology": "standalone"}, {"topology": "sidecar"}, {"topology": "standalone", "pooling": "direct"}]
OF_ALL: dict[str, st.SearchStrategy[Any]] = {
    "replica_hosts": st.sampled_from(["db-2.example.com", "db-2.example.com,db-3.example.com"]),
    "postgres_max_connections": st.integers(100, 400),
    "permify_max_replicas": st.sampled_from([0, 0, 40, 50]),
    "permify_max_connections": st.sampled_from([0, 2, 4, 12]),
    "drain_seconds": st.sampled_from([20, 300, 1790]),
    "database_policy": st.sampled_from(["network", "cilium"]),
    "network_policies": st.booleans(),
    "secrets": st.sampled_from(["existing", "external-secrets"]),
    "watch": st.booleans(),
}
OF_PGCAT: dict[str, st.SearchStrategy[Any]] = {
    "pool_mode": st.sampled_from(["transaction", "session"]),
    "writer_pool_size": st.sampled_from([0, 1, 4, 9]),
    "reader_pool_size": st.sampled_from([0, 1, 4, 9]),
    "primary_reads": st.booleans(),
    "monitoring": st.sampled_from(["none", "prometheus-operator"]),
}
OF_STANDALONE: dict[str, st.SearchStrategy[Any]] = {
    "pgcat_replicas": st.integers(1, 6),
    "pgcat_max_replicas": st.sampled_from([0, 0, 6, 8]),
}


@st.composite
def answer_sets(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(KINDS))
    optional = dict(OF_ALL)
    if "pooling" in kind:
        optional["database_tls"] = st.sampled_from(["require", "verify-full"])
    else:
        optional |= OF_PGCAT | (OF_STANDALONE if kind["topology"] == "standalone" else {})
    if kind != KINDS[0]:
        optional["drain_seconds"] = st.sampled_from([1, 60, 1790])
    chosen = draw(st.fixed_dictionaries({"permify_replicas": st.integers(1, 40)}, optional=optional))
    return {**kind, "primary_host": "db-1.example.com", **chosen}


def follow(deploy: Path, title: str) -> str:
    """Every step of the section, as far as the files go; what kind of move it was."""
    text = page(deploy, title)
    if "refused" in text.partition("```")[0]:
        move = {TO_DIRECT: {"pooling": "direct"}, TO_PGCAT: {"pooling": "pgcat"}}
        topology = {"topology": "sidecar" if title == TO_SIDECARS else "standalone"}
        with pytest.raises(Refused):
            updated(deploy, move.get(title, topology))
        return "refused"
    if "No pools are small enough" in text:
        return "never"
    if "Make room first" in text:
        (first,) = updates(text)
        updated(deploy, first)
        text = page(deploy, title)
        assert "Make room first" not in text and "refused" not in text.partition("```")[0], text
        follow(deploy, title)
        return "room first"
    before = without_rollout(deploy)
    first, *last = updates(text)
    after = without_rollout(updated(deploy, first))
    for together, capacity in side_by_side(before, after, deploy):
        assert together <= capacity
    for each in last:
        updated(deploy, each)
    return "smaller" if last else "fits"


@repeats
@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answer_sets())
def test_any_move_fits_and_is_accepted(answers: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        try:
            render(folder / "before", answers)
        except Refused:
            event("refused at first")
            return
        readme = (folder / "before/README.md").read_text()
        for title in (title for title in TITLES if f"\n### {title}\n" in readme):
            deploy = folder / "deploy"
            shutil.copytree(folder / "before", deploy)
            event(follow(deploy, title))
            shutil.rmtree(deploy)
    finally:
        shutil.rmtree(folder)


def test_only_policies_that_would_lose_a_pod_are_copied(tmp_path: Path) -> None:
    """A policy that is not overwritten stays as it is, and Cilium's policies open DNS themselves."""

    def copied(answers: dict[str, Any], title: str) -> list[str]:
        deploy = render(tmp_path / str(len(list(tmp_path.iterdir()))), answers)
        return re.findall(r"^copy_policy (\S+) moving &&$", page(deploy, title), re.M)

    both = ["permify", "pgcat-stack-dns"]
    assert copied(STANDALONE, TO_SIDECARS) == both
    assert copied(STANDALONE, TO_DIRECT) == both
    assert copied(SIDECAR, TO_STANDALONE) == ["permify"]
    assert copied(DIRECT, TO_PGCAT) == ["permify"]
    assert copied({**STANDALONE, "network_policies": False}, TO_SIDECARS) == []
    by_name = {"database_policy": "cilium"}
    assert copied({**STANDALONE, **by_name}, TO_SIDECARS) == ["permify"]
    # The migration reaches an address: its DNS stays in the policy, Permify's does not.
    by_address = {**by_name, "primary_host": "10.0.0.5"}
    assert copied({**STANDALONE, **by_address}, TO_SIDECARS) == ["permify"]
