"""The README of each deployment holds as a runbook, as far as can be known without running its commands.

`tests/live/test_runbook.py` runs them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pages import (
    anchor,
    broken_links,
    broken_tables,
    called,
    commands,
    links,
    subcommands,
    titles,
)
from rendering import REPOSITORY, render
from runbook import (
    EVERYWHERE,
    SYMPTOMS,
    WITH_BOTH,
    WITH_KEYS,
    WITH_PGCAT,
    WITH_REPLICA,
    blocks,
    rows,
    section,
)

EXTERNAL = {"primary_host": "db-primary.example.com", "replica_hosts": "db-replica.example.com:5433"}
NO_REPLICA = {"replica_hosts": ""}
STANDALONE = {"topology": "standalone", **EXTERNAL}
SIDECAR = {"topology": "sidecar", **EXTERNAL}
DIRECT = {**STANDALONE, "pooling": "direct"}
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "docker": {},
    "docker, direct": {"pooling": "direct", "permify_replicas": 3},
    "docker, external": {"database": "external", **EXTERNAL, "watch": True},
    "docker, session": {"database": "external", **EXTERNAL, **NO_REPLICA, "pool_mode": "session"},
    "standalone": STANDALONE,
    "standalone, no replica": {**STANDALONE, **NO_REPLICA, "monitoring": "prometheus-operator"},
    "standalone, two replicas": {**STANDALONE, "replica_hosts": "r1,r2", "primary_reads": False},
    "standalone, session": {**STANDALONE, "pool_mode": "session", "secrets": "external-secrets"},
    "standalone, helm": {**STANDALONE, "permify_install": "helm", "permify_max_replicas": 3},
    "standalone, none": {**STANDALONE, "permify_install": "none", "network_policies": False},
    "sidecar": SIDECAR,
    "sidecar, session": {**SIDECAR, "pool_mode": "session", **NO_REPLICA, "monitoring": "none"},
    "component": {**SIDECAR, "permify_install": "none"},
    "direct": DIRECT,
    "direct, no replica": {**DIRECT, **NO_REPLICA, "distributed": True},
    "direct, private CA": {**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/postgresql-ca"},
    "direct, helm": {**DIRECT, "permify_install": "helm"},
}

DAY_TWO = ["Restart", "Change the configuration", "Rotate the password", "Scale", "Upgrade PostgreSQL"]
OF_EXTERNAL = ["Take a replica out, or add one", "Failover"]


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def deploy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("runbook") / "deploy", DEPLOYMENTS[request.param])


@pytest.fixture
def readme(deploy: Path) -> str:
    return (deploy / "README.md").read_text()


@pytest.fixture
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DEPLOYMENTS[request.node.callspec.params["deploy"]]


def test_every_block_is_read_by_bash(deploy: Path) -> None:
    found = blocks(deploy / "README.md")
    assert len(found) > 10
    for block in found:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def test_every_function_is_defined_before_it_is_used(deploy: Path) -> None:
    before: set[str] = set()
    for block in blocks(deploy / "README.md"):
        before |= set(re.findall(r"^(\w+)\(\) [{(]", block, re.MULTILINE))
        assert set(re.findall(r"\b(?:ask_\w+|complaints|sessions|from_pgcat)\b", block)) <= before, block
    text = (deploy / "README.md").read_text()
    used = {
        word
        for command in commands(text)
        for word in re.findall(r"\bask_[a-z]+\b|\bcomplaints\b|\bsessions\b|\bfrom_pgcat\b", command)
    }
    assert used <= before


def test_pgcat_stack_knows_its_commands(readme: str) -> None:
    known = subcommands()
    used = set()
    for words in called(readme, "pgcat-stack"):
        used.add(words[0])
        known[words[0]].parse_args(words[1:])
    assert used >= {"validate", "plan", "doctor"}


def test_every_answer_that_it_changes_is_a_question(readme: str) -> None:
    text = "".join(each.read_text() for each in (REPOSITORY / "questions").glob("*.yml"))
    questions = set(re.findall(r"^(\w+):$", text, re.MULTILINE))
    changed = {key for command in commands(readme) for key in re.findall(r"--data (\w+)=", command)}
    assert changed and changed <= questions


def test_every_link_leads_somewhere(deploy: Path, readme: str) -> None:
    assert len(links(readme)) > 15
    assert list(broken_links(deploy / "README.md")) == []


def test_every_file_that_it_names_is_there(deploy: Path, readme: str) -> None:
    named = set(
        re.findall(r"(?<![\w./-])(?:pgcat|permify|postgres|kubernetes|monitoring)/[\w-]+\.\w+", readme)
    )
    assert named
    assert [name for name in named if not (deploy / name).exists()] == []


def test_no_two_sections_have_one_anchor(readme: str) -> None:
    anchors = [anchor(title) for title in titles(readme)]
    assert len(anchors) == len(set(anchors))


def test_nothing_is_left_of_the_template(readme: str) -> None:
    assert not re.search(r"{{|{%|{#|%}|}}", readme)
    assert "\n\n\n" not in readme
    assert not re.search(r"[ \t]$", readme, re.MULTILINE)
    assert readme.endswith("\n") and not readme.endswith("\n\n")


def test_tables_are_whole(readme: str) -> None:
    assert readme.count("\n\n|") > 5
    assert list(broken_tables(readme)) == []


def expected(answers: dict[str, Any]) -> list[str]:
    direct = answers.get("pooling") == "direct"
    replica = answers.get("replica_hosts", "bundled") != ""
    keys = answers.get("authn") != "none" and answers.get("permify_install") != "none"
    return [
        *EVERYWHERE,
        *([] if direct else WITH_PGCAT),
        *(WITH_REPLICA if replica else []),
        *(WITH_BOTH if replica and not direct else []),
        *(WITH_KEYS if keys else []),
    ]


def test_each_symptom_that_can_be_has_its_section(readme: str, answers: dict[str, Any]) -> None:
    assert {title for title in titles(readme) if title in SYMPTOMS} == set(expected(answers))


def test_a_symptom_has_a_command_cases_and_an_end(readme: str, answers: dict[str, Any], deploy: Path) -> None:
    for title in expected(answers):
        text = section(readme, title)
        meaning = text.partition("```")[0].strip()
        assert 0 < meaning.count("\n") + 1 <= 3, title
        assert blocks(deploy / "README.md", title), title
        assert "| You see | It is | Do |" in text, title
        assert "\nFixed when " in text, title


ENDS = re.compile(
    r"pg_(?:terminate|cancel)_backend|RESUME|docker compose (?:restart|stop) postgres|down --volumes"
)
"""What ends a session, a server or data, or fails requests."""


def test_a_step_that_ends_something_says_what_it_costs(readme: str) -> None:
    """In its row, or in the paragraph above its block."""
    text = readme[readme.index("## When something is wrong") : readme.index("## Who may call Permify")]
    paragraphs = [
        part if part.startswith("|") else paragraph
        for paragraph in re.split(r"\n\n(?!```)", text)
        for part in (paragraph.splitlines() if paragraph.startswith("|") else [paragraph])
    ]
    found = [each for each in paragraphs if ENDS.search(each)]
    assert found
    assert [each for each in found if not re.search(r"[Cc]osts|request fails", each)] == []


def test_data_is_deleted_only_after_a_dump_of_it(readme: str) -> None:
    before, deletes, _ = readme.partition("down --volumes")
    assert not re.search(r"start afresh|docker volume rm|rm --volumes|DROP DATABASE", readme, re.IGNORECASE)
    if deletes:
        assert before.rpartition("\n### ")[2].startswith("Upgrade PostgreSQL\n")
        assert "pg_dump" in before.rpartition("\n### ")[2]
    assert readme.count("down --volumes") <= 1


def test_every_row_leads_to_one_cause(readme: str, answers: dict[str, Any]) -> None:
    """No two rows of a section show the same; a link to another section is to one of this page."""
    for title in expected(answers):
        seen = [row.see for row in rows(readme, title)]
        assert len(seen) == len(set(seen)) > 1, title


def test_what_these_answers_cannot_have_is_not_there(readme: str, answers: dict[str, Any]) -> None:
    if answers.get("pooling") == "direct":
        assert not re.search(r"ask_pgcat|SHOW POOLS|PAUSE|sv_active|pool_size", readme)
    assert ("Session mode" in readme) == (answers.get("pool_mode") == "session")
    assert ("ask_replicas" in readme) == (answers.get("replica_hosts", "bundled") != "")
    docker = answers.get("topology", "docker") == "docker"
    assert ("docker compose" in readme) == docker and ("kubectl" in readme) != docker


def test_day_two_is_there(readme: str, answers: dict[str, Any]) -> None:
    found = titles(readme)
    bundled = answers.get("topology", "docker") == "docker" and "primary_host" not in answers
    assert set(DAY_TWO) <= set(found)
    assert (set(OF_EXTERNAL) <= set(found)) is not bundled
