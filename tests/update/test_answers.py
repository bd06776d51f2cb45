"""No answer changes silently: stored ones are kept, or the update is refused and changes nothing."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from copier.errors import UserMessageError
from jinja2 import DictLoader
from jinja2.sandbox import SandboxedEnvironment
from jinja2_ansible_filters import AnsibleCoreFiltersExtension
from packaging.version import Version

from live.repeats import drawn, repeats
from old_versions import NEXT, VERSIONS, InProcess, stored
from rendering import REPOSITORY
from versions import Home

MOST = {
    "topology": "standalone",
    "pooling": "pgcat",
    "primary_host": "10.0.0.5:65535",
    "replica_hosts": "10.0.0.6:1,10.0.0.7",
    "database_name": "_" + "a" * 62,
    "database_user": "permify-1",
    "postgres_max_connections": 262143,
    "other_connections": 3,
    "permify_replicas": 1000,
    "permify_max_replicas": 1000,
    "pgcat_replicas": 100,
    "pgcat_max_replicas": 100,
    "namespace": "n" * 63,
    "client_namespaces": "a,b-c, d",
    "database_cidrs": "10.0.0.0/24,fd00::/8",
    "secrets": "external-secrets",
    "secret_store": "vault",
    "permify_install": "none",
    "monitoring": "none",
    "advanced": True,
    "pool_mode": "transaction",
    "writer_pool_size": 0,
    "reader_pool_size": 0,
    "primary_reads": False,
    "permify_max_connections": 1000,
    "drain_seconds": 3600,
    "database_tls": "disable",
    "client_tls": "cert-manager",
    "client_tls_issuer": "private-ca",
    "ip_family": "ipv6",
    "network_policies": True,
    "database_policy": "cilium",
    "database_namespace": "postgres",
    "database_labels": "cnpg.io/cluster=db,role=primary",
    "dns_cidrs": "10.96.0.10/32",
    "otlp_endpoint": "collector.monitoring:4317",
    "pgcat_image": "ghcr.io/postgresml/pgcat@sha256:" + "0" * 64,
    "permify_image": "registry.example.com:5000/permify/permify:v1.7.3",
    "pgcat_cpu": "999.999",
    "pgcat_memory": "9999999k",
    "permify_cpu": "1m",
    "permify_memory": "1Ki",
    "priority_class": "high",
    "watch": True,
    "forge": "github",
}
SETS: dict[str, dict[str, Any]] = {
    "most": MOST,
    "pools": {
        **{
            key: MOST[key]
            for key in ("topology", "primary_host", "postgres_max_connections", "other_connections")
        },
        **{"advanced": True, "writer_pool_size": 10000, "reader_pool_size": 10000, "pgcat_replicas": 1},
        **{"permify_replicas": 1, "permify_max_replicas": 0, "pool_mode": "session", "watch": False},
        **{"monitoring": "prometheus-operator", "monitoring_namespace": "watchers", "secrets": "existing"},
        **{"primary_reads": True, "replica_hosts": "db-2", "permify_install": "helm"},
        **{"pgcat_max_replicas": 0, "client_tls": "none", "database_policy": "network"},
        **{"ip_family": "ipv4"},
        **{"postgres_metrics": True, "runbook_url": "https://git.example.com/deploy/README.md"},
        **{"authn": "preshared", "cors_allowed_origins": "https://app.example.com, http://localhost:3000"},
    },
    "sidecar": {
        **{"topology": "sidecar", "primary_host": "db", "advanced": True, "drain_seconds": 1},
        **{"permify_max_connections": 0, "network_policies": False, "distributed": True},
        **{"database_tls": "require", "monitoring": "prometheus", "permify_install": "manifests"},
        **{"permify_replicas": 2, "forge": "none", "postgres_metrics": False},
    },
    "direct": {
        **{"topology": "standalone", "pooling": "direct", "primary_host": "db", "advanced": True},
        **{"database_tls": "verify-full", "database_ca": "secret/db-ca", "distributed": False},
    },
    "watched": {
        **{"topology": "standalone", "primary_host": "db", "monitoring": "prometheus-operator"},
        **{"probe": True, "permify_install": "manifests"},
    },
    "not watched": {
        **{"topology": "standalone", "primary_host": "db", "monitoring": "prometheus-operator"},
        **{"probe": False, "permify_install": "manifests"},
    },
    "bundled": {
        "topology": "docker",
        "database": "bundled",
        "advanced": False,
        "permify_replicas": 1,
        "authn": "none",
    },
    "external": {"topology": "docker", "database": "external", "primary_host": "db", "monitoring": "none"},
}
NOT_ASKED = {
    ("0.1.0", "sidecar", "permify_install"),
    ("0.2.0", "sidecar", "permify_install"),
}
"""Questions that a version has, and does not ask with these answers."""
IMPOSSIBLE = {
    ("postgres_max_connections", 1): "the smallest deployment needs more",
    ("other_connections", 262143): "it would leave nothing",
    ("other_connections", 0): "PostgreSQL reserves 3 for superusers",
}


def rules(commit: str = "") -> Any:
    """The table of questions and `check`, of the working tree or of a commit: 1.0.0 has both in one file."""
    texts = {}
    for name in ("questions/table.jinja", "questions/answers.jinja"):
        show = ["git", "show", f"{commit}:{name}"] if commit else ["cat", name]
        done = subprocess.run(show, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode == 0:
            texts[name] = done.stdout
    environment = SandboxedEnvironment(
        loader=DictLoader(texts), extensions=[AnsibleCoreFiltersExtension], trim_blocks=True
    )
    modules = [environment.get_template(name).module for name in texts]
    return SimpleNamespace(**{key: value for module in modules for key, value in vars(module).items()})


def wanted() -> set[tuple[str, Any]]:
    """Every choice and limit, both booleans, and a text for each question that takes one."""
    now = rules()
    found = {(key, value) for key, values in now.choices.items() for value in values}
    found |= {(key, limit) for key, limits in now.numbers.items() for limit in limits}
    found |= {(key, value) for key in now.booleans for value in (True, False)}
    named = {key for answers in SETS.values() for key in answers}
    kinds = {now.questions[key]["text"]: value for key, value in reversed(MOST.items()) if key in now.texts}
    found |= {(key, kinds[now.questions[key]["text"]]) for key in now.texts if key not in named}
    return found - IMPOSSIBLE.keys()


for key, value in sorted(wanted() - {each for answers in SETS.values() for each in answers.items()}, key=str):
    SETS[f"{key}={value}"] = {"topology": "standalone", "primary_host": "db", "advanced": True, key: value}
"""What no set above has, such as the answers of a new question, gets a set of its own."""


def known_to(version: str, answers: dict[str, Any]) -> dict[str, Any]:
    keys = rules(VERSIONS[version]).keys
    return {key: value for key, value in answers.items() if key in keys}


def test_the_sets_hold_every_key_choice_and_limit() -> None:
    used = {each for answers in SETS.values() for each in answers.items()}
    assert wanted() <= used and len(wanted()) > 60
    assert {("pgcat_replicas", 1), ("permify_replicas", 1)} <= used
    assert set(rules().keys) == {key for key, _ in used}


@pytest.mark.parametrize("name", drawn(SETS, {"watched", "not watched", "pools", "external"}))
def test_stored_answers_stay(
    in_process: InProcess, tmp_path: Path, name: str, pytestconfig: pytest.Config
) -> None:
    versions = list(VERSIONS)
    if not pytestconfig.getoption("--every-combination"):
        versions = [versions[list(SETS).index(name) % len(versions)]]
    for old in versions:
        answers = known_to(old, SETS[name])
        deploy = in_process.copy(tmp_path / old, old, answers)
        before = stored(deploy)
        not_asked = {key for key in answers if (old, name, key) in NOT_ASKED}
        assert answers.keys() - before.keys() == not_asked
        assert all(before[key] == value for key, value in answers.items() if key not in not_asked)
        in_process.update_without_hooks(deploy)
        after = stored(deploy)
        assert before == {key: after.get(key) for key in before}


def test_the_table_says_which_version_brought_a_question(old: str) -> None:
    if Version(old) < Version("1.0.0"):
        pytest.skip("the history begins with 1.0.0")
    before = rules(VERSIONS[old]).keys
    brought = {key: Version(rule.get("since", "1.0.0")) for key, rule in rules().questions.items()}
    assert {key for key, since in brought.items() if since <= Version(old)} == set(before) & brought.keys()


def test_no_rule_for_a_single_answer_was_tightened(old: str) -> None:
    """What the old version took and this one does not would be refused in each update: let a gate say why."""
    before, now = rules(VERSIONS[old]), rules()
    samples: dict[str, set[Any]] = {}
    for answers in SETS.values():
        for key, value in answers.items():
            samples.setdefault(key, set()).add(value)
    for key in before.keys:
        assert key in now.keys, f"{key} is gone: docs/maintaining.md says how its answers are carried over"
        for value in samples[key] | set(before.choices.get(key, ())) | set(before.numbers.get(key, ())):
            if not str(before.check(key, value)).strip():
                assert not str(now.check(key, value)).strip(), f"{key}={value}"


def test_answers_that_no_longer_go_together_are_refused(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """An image by digest for Permify's chart: rendered by 0.1.0, refused since."""
    if "0.1.0" not in home.git(home.template, "tag"):
        pytest.skip("version 0.1.0 is not in this clone")
    image = "ghcr.io/permify/permify@sha256:" + "0" * 64
    answers = {"topology": "standalone", "primary_host": "db", "permify_install": "helm", "advanced": True}
    deploy = in_process.copy(tmp_path / "deploy", "0.1.0", {**answers, "permify_image": image})
    run = home.copier("update", "--trust", "--defaults", str(deploy))
    assert run.returncode == 1
    (line,) = (line for line in run.stderr.splitlines() if "pgcat-stack refuses" in line)
    assert "permify_image: Permify's chart writes the tag into a label" in line
    assert "Traceback" not in run.stderr
    assert home.status(deploy) == ""


@pytest.mark.parametrize(
    ("answers", "now"),
    [
        ({"topology": "docker", "other_connections": 0}, {}),
        pytest.param(
            {
                **{"topology": "standalone", "primary_host": "db", "other_connections": 1, "advanced": True},
                **{"writer_pool_size": 14, "reader_pool_size": 10},
            },
            {"writer_pool_size": 0, "reader_pool_size": 0},
            marks=repeats,
        ),
        pytest.param(
            {
                **{"topology": "docker", "database": "external", "primary_host": "db"},
                **{"other_connections": 1, "postgres_max_connections": 6},
            },
            {"postgres_max_connections": 8},
            marks=repeats,
        ),
    ],
    ids=["alone", "sizes", "max_connections"],
)
def test_fewer_connections_than_are_reserved_are_refused_with_the_command(
    home: Home, in_process: InProcess, tmp_path: Path, answers: dict[str, Any], now: dict[str, Any]
) -> None:
    """1.0.0 took them; PostgreSQL keeps three for superusers. The command in the refusal renders again."""
    deploy = in_process.copy(tmp_path / "deploy", "1.0.0", answers)
    budget = deploy / "budget.yaml"
    budget.write_text("# ours\n" + budget.read_text())
    home.commit(deploy, "edit")
    before = stored(deploy)
    run = home.copier("update", "--trust", "--defaults", cwd=deploy)
    assert run.returncode == 1
    (line,) = (line for line in run.stderr.splitlines() if "pgcat-stack refuses" in line)
    assert f"other_connections: {answers['other_connections']} is fewer than the 3 that PostgreSQL" in line
    assert "Traceback" not in run.stderr
    assert home.status(deploy) == ""

    program, *command = line.partition(": copier update")[2].rstrip("'").split()
    assert (program, command[:2]) == ("--trust", ["--defaults", "--data"])
    again = home.copier("update", program, *command, cwd=deploy)
    assert again.returncode == 0, again.stderr
    after = stored(deploy)
    assert {key: after[key] for key in before} == {**before, "other_connections": 3, **now}
    assert budget.read_text().startswith("# ours\n")
    home.commit(deploy, "updated")
    assert home.copier("update", "--trust", "--defaults", cwd=deploy).returncode == 0
    assert stored(deploy) == after


def test_blanks_that_were_taken_are_refused_with_the_command(
    home: Home, in_process: InProcess, tmp_path: Path
) -> None:
    """1.0.0 took them, and networks of IPv4 in IPv6. The command names all, and the folder."""
    answers = {"topology": "standalone", "primary_host": " db\t", "priority_class": "high "}
    networks = {"database_cidrs": "10.1.0.0/16, ::ffff:a00:0/104 "}
    deploy = in_process.copy(tmp_path / "deploy", "1.0.0", {**answers, **networks})
    before = stored(deploy)
    assert before["primary_host"] == " db\t"
    run = home.copier(
        "update", "--trust", "--defaults", "--data", "permify_replicas=3", "deploy", cwd=tmp_path
    )
    assert run.returncode == 1
    (line,) = (line for line in run.stderr.splitlines() if "pgcat-stack refuses" in line)
    assert "begins or ends with a blank" in line and "Traceback" not in run.stderr
    assert home.status(deploy) == "" and stored(deploy) == before

    command = shlex.split("copier update" + line.partition(": copier update")[2].removesuffix("'"))
    again = home.copier(*command[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    now = {"primary_host": "db", "priority_class": "high", "permify_replicas": 3}
    assert {key: stored(deploy)[key] for key in before} == {
        **before,
        **now,
        "database_cidrs": "10.1.0.0/16,10.0.0.0/8",
    }


def test_a_rule_that_was_tightened_refuses_instead_of_forgetting(alone: InProcess, tmp_path: Path) -> None:
    text = (REPOSITORY / "questions/table.jinja").read_text()
    row = "'permify_replicas': {'answer': permify_replicas, 'numbers': [1, "
    tight = text.replace(row + "1000]", row + "3]")
    assert tight != text
    alone.home.release("1001.0.0", files={"questions/table.jinja": tight})
    deploy = alone.copy(tmp_path / "deploy", NEXT, {"permify_replicas": 4})
    with pytest.raises(UserMessageError, match="refuses permify_replicas: 4 is out of range; answer 1 to 3"):
        alone.update_without_hooks(deploy, to="1001.0.0")
    assert alone.home.status(deploy) == ""


def test_a_renamed_question_takes_the_old_answer(alone: InProcess, tmp_path: Path) -> None:
    """As docs/maintaining.md says: the old name in the default of the new one, and nothing else."""
    files = {}
    for path in (*REPOSITORY.glob("questions/*"), *REPOSITORY.glob("template/**/*")):
        if path.is_file() and "client_namespaces" in path.read_text():
            text = path.read_text().replace("client_namespaces", "callers")
            files[path.relative_to(REPOSITORY).as_posix()] = text
    question = files["questions/kubernetes.yml"]
    start = question.index("\ncallers:")
    usual = "{% from 'questions/table.jinja' import questions %}{{ questions.callers.default }}"
    assert usual in question
    renamed = question[start:].replace(usual, "{{ client_namespaces | default('') }}", 1)
    files["questions/kubernetes.yml"] = question[:start] + renamed
    alone.home.release("1002.0.0", files=files)

    answers = {"topology": "standalone", "primary_host": "db", "client_namespaces": "shop,billing"}
    deploy = alone.copy(tmp_path / "deploy", NEXT, answers)
    with pytest.raises(UserMessageError, match="refuses permify_replicas"):
        alone.update_without_hooks(deploy, to="1002.0.0", permify_replicas=0)
    assert alone.home.status(deploy) == "", "a refused update left a trace of the new name"

    alone.update_without_hooks(deploy, to="1002.0.0")
    now = stored(deploy)
    assert now["callers"] == "shop,billing"
    assert "client_namespaces" not in now
    changed = {line.split()[-1] for line in alone.home.status(deploy).splitlines()}
    assert changed == {".copier-answers.yml", "budget.yaml"}  # its digest of the answers

    alone.home.commit(deploy)
    alone.update_without_hooks(deploy, to="1002.0.0", callers="shop")
    assert stored(deploy)["callers"] == "shop"
    assert "billing" not in (deploy / "kubernetes/network-policies.yaml").read_text()
