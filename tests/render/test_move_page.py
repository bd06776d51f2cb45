"""What a deployment's README says of a move holds: by the sizes in the files old and new fit side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pgcat_stack.budget import plan
from pgcat_stack.deployment import Deployment
from rendering import render
from runbook import section

STANDALONE = {
    "topology": "standalone",
    "primary_host": "db-1.example.com",
    "replica_hosts": "db-2.example.com",
}
SIDECAR = {**STANDALONE, "topology": "sidecar"}
DIRECT = {**STANDALONE, "pooling": "direct"}
NO_REPLICA = {"replica_hosts": ""}
TO_DIRECT = "Move to direct pooling, without PgCat"
TO_SIDECARS = "Move to sidecars"
TO_STANDALONE = "Move to PgCat in pods of its own"
TO_PGCAT = "Move to PgCat"
CAPACITY = 80
MIGRATION = 3

FIT: dict[str, tuple[dict[str, Any], str]] = {
    "to direct": (STANDALONE, TO_DIRECT),
    "to sidecars": (STANDALONE, TO_SIDECARS),
    "to sidecars, no replica": ({**STANDALONE, **NO_REPLICA}, TO_SIDECARS),
    "to sidecars, session": ({**STANDALONE, "pool_mode": "session"}, TO_SIDECARS),
    "from sidecars": (SIDECAR, TO_STANDALONE),
    "to PgCat": (DIRECT, TO_PGCAT),
}
SMALLER: dict[str, tuple[dict[str, Any], str]] = {
    "to direct": ({**STANDALONE, "permify_replicas": 10}, TO_DIRECT),
    "to direct, no replica": ({**STANDALONE, **NO_REPLICA, "permify_replicas": 10}, TO_DIRECT),
    "to sidecars": ({**STANDALONE, "permify_replicas": 10}, TO_SIDECARS),
    "to sidecars, an autoscaler": ({**STANDALONE, "permify_max_replicas": 12}, TO_SIDECARS),
    "to sidecars, reads on replicas alone": (
        {**STANDALONE, "advanced": True, "primary_reads": False, "permify_replicas": 8},
        TO_SIDECARS,
    ),
    "from sidecars": ({**SIDECAR, "permify_replicas": 9}, TO_STANDALONE),
    "from sidecars, an autoscaler": ({**SIDECAR, "permify_max_replicas": 4}, TO_STANDALONE),
    "from sidecars, session": ({**SIDECAR, "permify_replicas": 4, "pool_mode": "session"}, TO_STANDALONE),
    "to PgCat": ({**DIRECT, "permify_replicas": 10}, TO_PGCAT),
    "to PgCat, verify-full": ({**DIRECT, "permify_replicas": 6, "database_tls": "verify-full"}, TO_PGCAT),
}
ROOM_FIRST: dict[str, tuple[dict[str, Any], str]] = {
    "to direct": ({**STANDALONE, "permify_replicas": 50}, TO_DIRECT),
    "to sidecars": ({**STANDALONE, "permify_replicas": 30}, TO_SIDECARS),
}


def told(text: str) -> tuple[int, int, int]:
    """The connections that the old pods keep, that the new ones add, and that all have together."""
    words = " ".join(text.split())
    found = re.search(r"keep up to (\d+) connections .* add up to (\d+), .* That is (\d+) of 80", words)
    assert found, words
    return int(found[1]), int(found[2]), int(found[3])


def answered(text: str) -> dict[str, Any]:
    """What the first command of the section answers."""
    command = next(line for line in text.splitlines() if line.startswith("copier update"))
    answers = dict(re.findall(r"--data (\w+)=(\S+)", command))
    return {
        key: int(value) if value.isdigit() else value == "true" or value for key, value in answers.items()
    }


def without_rollout(deploy: Path, answers: dict[str, Any]) -> dict[str, int]:
    """What the pods of a rendered deployment open on each server while none is replaced, by its role."""
    permifys = max(answers.get("permify_replicas", 2), answers.get("permify_max_replicas", 0))
    alone = answers["topology"] == "standalone" and answers.get("pooling") != "direct"
    count = answers.get("pgcat_replicas", 2) if alone else permifys
    return {
        row.server.role: count * sum(use.size.value for use in row.uses)
        for row in plan(Deployment.load(deploy)).rows
    }


def rendered(folder: Path, answers: dict[str, Any]) -> tuple[Path, dict[str, int]]:
    deploy = render(folder, answers)
    return deploy, without_rollout(deploy, answers)


@pytest.mark.parametrize("name", FIT)
def test_as_they_are(name: str, tmp_path: Path) -> None:
    answers, title = FIT[name]
    deploy, before = rendered(tmp_path / "before", answers)
    text = section((deploy / "README.md").read_text(), title)
    _, after = rendered(tmp_path / "after", {**answers, **answered(text)})
    assert told(text) == (
        max(before.values()),
        max(after.values()),
        max(before.values()) + max(after.values()) + MIGRATION,
    )
    assert told(text)[2] <= CAPACITY
    assert "_pool_size=" not in text and "permify_max_connections=" not in text
    assert "quiet hour" not in text


@pytest.mark.parametrize("name", SMALLER)
def test_with_smaller_pools(name: str, tmp_path: Path) -> None:
    answers, title = SMALLER[name]
    deploy, before = rendered(tmp_path / "before", answers)
    text = section((deploy / "README.md").read_text(), title)
    kept, _, both = told(text)
    assert (kept, both > CAPACITY) == (max(before.values()), True)
    data = answered(text)
    _, after = rendered(tmp_path / "after", {**answers, **data})
    together = kept + max(after.values()) + MIGRATION
    more = max(answers.get("permify_replicas", 2), answers.get("permify_max_replicas", 0))
    assert CAPACITY - 2 * more < together <= CAPACITY, "more would not fit, less is not needed"
    # Afterwards they are derived again.
    sizes = {key for key in data if key.endswith(("_pool_size", "_connections"))}
    assert sizes
    assert all(f"{key}=0" in text.partition("What was answered")[2] for key in sizes)


@pytest.mark.parametrize("name", ROOM_FIRST)
def test_room_is_made_first(name: str, tmp_path: Path) -> None:
    """Then the section is another, and says how it goes on."""
    answers, title = ROOM_FIRST[name]
    deploy, before = rendered(tmp_path / "before", answers)
    text = section((deploy / "README.md").read_text(), title)
    assert told(text)[2] > CAPACITY
    assert "Make room first" in text and "kubectl -n permify delete" not in text

    smaller = {**answers, **answered(text)}
    assert smaller.get("pooling") == answers.get("pooling") and smaller["topology"] == answers["topology"]
    deploy, before = rendered(tmp_path / "smaller", smaller)
    text = section((deploy / "README.md").read_text(), title)
    assert "Make room first" not in text
    _, after = rendered(tmp_path / "after", {**smaller, **answered(text)})
    assert max(before.values()) + max(after.values()) + MIGRATION <= CAPACITY
    assert "What was answered for the move alone" in text or "pooling=direct" in text


def test_more_than_any_pools_could_have(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", {**STANDALONE, "permify_replicas": 60})
    text = section((deploy / "README.md").read_text(), TO_SIDECARS)
    assert "No pools are small enough: roll out fewer pods first" in text
    assert "```" not in text


def test_only_policies_that_would_lose_a_pod_are_copied(tmp_path: Path) -> None:
    """A policy that the new deployment does not overwrite stays as it is."""

    def copied(answers: dict[str, Any], title: str) -> list[str]:
        deploy = render(tmp_path / str(len(list(tmp_path.iterdir()))), answers)
        return re.findall(r"^copy_policy (\S+) &&$", section((deploy / "README.md").read_text(), title), re.M)

    both = ["permify", "pgcat-stack-dns"]
    assert copied(STANDALONE, TO_SIDECARS) == both
    assert copied(STANDALONE, TO_DIRECT) == both
    assert copied(SIDECAR, TO_STANDALONE) == ["permify"]
    assert copied(DIRECT, TO_PGCAT) == ["permify"]
    assert copied({**STANDALONE, "network_policies": False}, TO_SIDECARS) == []
    by_name = {"advanced": True, "database_policy": "cilium"}
    assert copied({**STANDALONE, **by_name}, TO_SIDECARS) == ["permify"]
