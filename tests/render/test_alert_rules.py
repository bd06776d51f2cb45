"""The alerts of every topology pass their own tests, which miss no alert and no mistake."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import draws
from live.repeats import drawn, repeats
from rendering import combinations, render

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on PATH")

STANDALONE = {"topology": "standalone", "primary_host": "db1.example.com", "replica_hosts": "db2.example.com"}
UNRELEASED = {"pgcat_image": f"ghcr.io/postgresml/pgcat:{'a' * 40}"}
EVERYTHING: dict[str, Any] = {
    **STANDALONE,
    **UNRELEASED,
    "replica_hosts": "db2.example.com,db3.example.com:5433",
    "postgres_metrics": True,
    "runbook_url": "https://git.example.com/team/deploy/-/blob/main/README.md",
    "namespace": "team-a",
    "database_name": "authz",
    "database_user": "authz",
    "pgcat_replicas": 3,
    "postgres_max_connections": 333,
}
CASES: dict[str, dict[str, Any]] = {
    "docker": {},
    "docker, PgCat 1.3.0": UNRELEASED,
    "docker, external": {"database": "external", "primary_host": "db1"},
    "docker, external, its exporters": {
        "database": "external",
        "primary_host": "db1",
        "replica_hosts": "db2:5433",
        "postgres_metrics": True,
        "permify_replicas": 3,
    },
    "standalone": STANDALONE,
    "standalone, everything": EVERYTHING,
    "standalone, one PgCat, one server": {**STANDALONE, "replica_hosts": "", "pgcat_replicas": 1},
    "standalone, one host": {**STANDALONE, "replica_hosts": "db1.example.com:5433,db1.example.com:5434"},
    "standalone, no reads on the primary": {**STANDALONE, "replica_hosts": "r1,r2", "primary_reads": False},
    "standalone, session": {**STANDALONE, "pool_mode": "session"},
    "standalone, operator": {**EVERYTHING, "monitoring": "prometheus-operator"},
    "standalone, operator, no probe": {**STANDALONE, "monitoring": "prometheus-operator", "probe": False},
    "sidecar": {**STANDALONE, "topology": "sidecar", "permify_max_replicas": 4},
    "sidecar, one, operator": {
        **STANDALONE,
        "topology": "sidecar",
        "permify_replicas": 1,
        "monitoring": "prometheus-operator",
    },
    "sidecar, component": {**STANDALONE, "topology": "sidecar", "permify_install": "none"},
}
OPTIONAL = {
    "PermifyAbsent",
    "PermifyNotProbed",
    "PermifyReadsFail",
    "PermifyRequestsFlaky",
    "PermifySlow",
    "PermifyWritesFail",
    "PgcatPaused",
    "PgcatQueriesHang",
    "PgcatMissing",
    "PgcatExporterDown",
    "PgcatReadsOnPrimary",
    "PgcatReplicaUnused",
    "PermifyPoolExhausted",
    "PostgresAbsent",
    "PostgresReadOnly",
    "PostgresConnectionsNearLimit",
    "PostgresOtherConnections",
    "PostgresMaxConnectionsBelowPlan",
    "PostgresRoleChanged",
    "PostgresStoresNothing",
    "PostgresReplicaLag",
    "PostgresReplicaNotStreaming",
}
WITH_PROBE = {alert for alert in OPTIONAL if alert.startswith("Permify")} - {"PermifyPoolExhausted"}
ALWAYS = {
    "PgcatAbsent",
    "PgcatRestarted",
    "PgcatNoReads",
    "PgcatNoServer",
    "PgcatPoolSilent",
    "PgcatQueriesSlow",
    "PgcatWaitTooLong",
    "PgcatClientsWait",
    "PgcatPoolBusy",
    "PgcatConnectionsAbovePlan",
    "PgcatConnectionChurn",
}
SECTIONS = {
    "no-pgcat-answers",
    "clients-wait-for-a-server-connection",
    "connect-spikes",
    "more-connections-than-planned",
    "reads-are-all-on-the-primary",
    "stale-reads",
    "requests-fail",
    "requests-hang",
    "requests-are-slow",
    "writes-fail",
    "a-permify-process-never-gets-ready",
}
"""Of the deployment's README, by their anchors."""


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def alerts(folder: Path) -> dict[str, dict[str, Any]]:
    """By name."""
    groups = yaml.safe_load((folder / "rules.yaml").read_text())["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found)
    return {rule["alert"]: rule for rule in found}


# A run of promtool takes seconds, and these have hardly a rule that none of the others has.
REPEATED = {
    "standalone, everything",
    "docker, PgCat 1.3.0",
    "docker, external",
    "standalone, one PgCat, one server",
    "standalone, one host",
    "standalone, no reads on the primary",
    "standalone, operator, no probe",
    "sidecar, component",
    "sidecar, one, operator",
    "docker, external, its exporters",
    "standalone, session",
    "sidecar",
}


@pytest.mark.parametrize("name", drawn(CASES, REPEATED))
def test_alerts_pass_their_own_tests_and_each_has_some(name: str, tmp_path: Path) -> None:
    folder = render(tmp_path / "deploy", CASES[name]) / "monitoring"
    for what in (("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")):
        done = promtool(folder, *what)
        assert done.returncode == 0, done.stdout + done.stderr

    cases = [
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in yaml.safe_load((folder / "rules-test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    found = alerts(folder)
    assert {name for name, fires in cases if fires} == found.keys()
    assert {name for name, fires in cases if not fires} == found.keys()
    assert ALWAYS <= found.keys() <= ALWAYS | OPTIONAL


def test_every_alert_is_rendered_somewhere(tmp_path: Path) -> None:
    found: set[str] = set()
    for number, name in enumerate(("docker", "standalone, everything", "standalone, operator")):
        found |= alerts(render(tmp_path / str(number), CASES[name]) / "monitoring").keys()
    assert found == ALWAYS | OPTIONAL


@pytest.mark.parametrize("answers", CASES.values(), ids=CASES)
def test_an_alert_says_what_is_wrong_what_to_do_and_where_to_read(
    answers: dict[str, Any], tmp_path: Path
) -> None:
    deploy = render(tmp_path / "deploy", answers)
    readme = answers.get("runbook_url", "README.md")
    for alert in alerts(deploy / "monitoring").values():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["labels"].get("namespace") == (
            None if (deploy / "compose.yaml").exists() else answers.get("namespace", "permify")
        )
        notes = alert["annotations"]
        assert notes.keys() == {"summary", "description", "runbook_url"}
        assert "First: " in notes["description"]
        page, _, section = notes["runbook_url"].partition("#")
        assert (page, section in SECTIONS) == (readme, True)


def test_thresholds_follow_the_answers(tmp_path: Path) -> None:
    more = {"writer_pool_size": 3, "reader_pool_size": 5, "permify_max_connections": 4, "permify_replicas": 3}
    folder = render(tmp_path / "deploy", {**STANDALONE, **more, "pgcat_replicas": 3}) / "monitoring"
    found = alerts(folder)
    assert "< 3\n" in found["PgcatMissing"]["expr"]
    planned = re.findall(r'host="(\S+)"}\) > (\d+)', found["PgcatConnectionsAbovePlan"]["expr"])
    assert planned == [("db1.example.com", "40"), ("db2.example.com", "25")]  # (3 + 2) × (3 + 5), (3 + 2) × 5
    assert ">= 12\n" in found["PermifyPoolExhausted"]["expr"]


def test_a_wait_is_measured_against_the_rendered_connect_timeout(tmp_path: Path) -> None:
    for replica_hosts, expected in (("db2", ["2.5", "1.0"]), ("", ["2.5"])):
        folder = render(tmp_path / f"deploy-{replica_hosts}", {**STANDALONE, "replica_hosts": replica_hosts})
        toml = (folder / "pgcat" / "pgcat.toml").read_text()
        timeouts = [int(number) for number in re.findall(r"(?m)^connect_timeout = (\d+)", toml)]
        thresholds = re.findall(
            r"> ([\d.]+)$", alerts(folder / "monitoring")["PgcatWaitTooLong"]["expr"], re.M
        )
        assert thresholds == expected == [str(timeout / 2000) for timeout in timeouts]


def test_the_operator_gets_the_rules_that_are_tested(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", CASES["standalone, operator"])
    rule = yaml.safe_load((deploy / "kubernetes" / "prometheus-rule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((deploy / "monitoring" / "rules.yaml").read_text())


NUMBER = re.compile(r"(?<=[<>=] )-?\d+(?:\.\d+)?")


def broken(expression: str) -> list[str]:
    """The expression with one threshold moved, one series renamed or one comparison turned, each in turn."""
    found = []
    for match in NUMBER.finditer(expression):
        for factor in (0, 1.5, 10):
            number = f"{float(match[0]) * factor + (5 if match[0] == '0' else 0):g}"
            if float(number) != float(match[0]):
                found.append(expression[: match.start()] + number + expression[match.end() :])
    for match in re.finditer(r"\b(?:pgcat|pg|probe|up)_?\w*(?=\{)", expression):
        found.append(expression[: match.start()] + "other" + expression[match.end() :])
    return found


def mutants(alert: dict[str, Any]) -> list[dict[str, Any]]:
    changes = [{"expr": expression} for expression in broken(alert["expr"])]
    changes += [{"for": "40m"}, {"labels": {"severity": "page"}}]
    return [{**alert, **change} for change in changes]


@pytest.mark.parametrize(
    ("name", "which"),
    [
        pytest.param("standalone, everything", (ALWAYS | OPTIONAL) - WITH_PROBE, marks=repeats),
        ("standalone, operator", {*WITH_PROBE, "PgcatPoolSilent"}),
        ("docker", {"PgcatRestarted", "PgcatExporterDown", "PgcatReadsOnPrimary", "PgcatPoolSilent"}),
        ("standalone, session", {"PgcatPoolBusy"}),
    ],
)
def test_the_tests_notice_a_mistake_in_any_alert(name: str, which: set[str], tmp_path: Path) -> None:
    """Each mistake in a rule file of its own, with the tests of that alert; one promtool runs them all."""
    folder = render(tmp_path / "deploy", CASES[name]) / "monitoring"
    found = {alert: rule for alert, rule in alerts(folder).items() if alert in which}
    tests = yaml.safe_load((folder / "rules-test.yaml").read_text())
    tried: dict[str, dict[str, Any]] = {}
    for alert, right in found.items():
        of_alert = [test for test in tests["tests"] if test["name"].startswith(f"{alert} ")]
        for number, rule in enumerate([right, *mutants(right)]):
            file = f"{alert}-{number}.yaml"
            groups = [{"name": "mistaken", "rules": [rule]}]
            (folder / f"rules-{file}").write_text(yaml.safe_dump({"groups": groups}))
            test = {**tests, "rule_files": [f"rules-{file}"], "tests": of_alert}
            (folder / file).write_text(yaml.safe_dump(test))
            tried[file] = rule

    output = promtool(folder, "test", "rules", *tried).stdout
    passed = set(re.findall(r"Unit Testing:  (\S+)\n  SUCCESS", output))
    assert output.count("Unit Testing: ") == len(tried)
    unnoticed = [tried[file]["expr"] for file in sorted(passed) if not file.endswith("-0.yaml")]
    assert not unnoticed, "\n".join(unnoticed)
    assert passed == {f"{alert}-0.yaml" for alert in found}


@repeats
def test_combinations_pass(tmp_path: Path) -> None:
    """A draw of all ways to render; the cases above are the ones with alerts of their own."""
    tried, step = 0, 25 if draws.every else 75
    for number, answers in enumerate(combinations()):
        if answers["pooling"] == "pgcat" and answers.get("monitoring") != "none" and number % step == 0:
            folder = render(tmp_path / str(number), answers) / "monitoring"
            done = promtool(folder, "test", "rules", "rules-test.yaml")
            assert done.returncode == 0, (answers, done.stdout + done.stderr)
            tried += 1
    assert tried >= 2
