"""The doctor finds a healthy stack clean, and each fault that is planted in a living one by its code.

Faults are planted in one stack and mended again; each is found by exactly the codes that it names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from live.doctor_faults import (
    FAULTS,
    Fault,
    a_replica_that_does_not_replay,
    a_role_without_limit,
    another_pgcat,
    patient_sql,
    pid_of,
    port_of,
)
from live.patient import Patient, shown
from live.platform_fakes import Fake, container, pod, secret
from live.repeats import drawn, repeats
from live.stack import EXTERNAL, IPV6, MAX_CONNECTIONS, Stack, pgcat_program
from live.support import LOOPBACK, Cluster, free_port, joined, postgres_cluster, program
from pages import code_blocks
from pgcat_stack.doctor import pgcat as pgcat_module
from pgcat_stack.doctor import postgres as postgres_module
from pgcat_stack.doctor.write_check import TENANT
from rendering import REPOSITORY

STANDALONE = {"topology": "standalone", **EXTERNAL}
DIRECT = {**STANDALONE, "pooling": "direct", "database_tls": "require"}

HEALTHY: dict[str, tuple[dict[str, Any], str]] = {
    "sidecar": ({"topology": "sidecar", **EXTERNAL}, "pgcat-1.3.0"),
    "session": ({**STANDALONE, "pool_mode": "session"}, "pgcat"),
    "IPv6": ({"topology": "standalone", **IPV6}, "pgcat"),
    "no replica": ({**STANDALONE, "replica_hosts": ""}, "pgcat-1.3.0"),
}


@contextlib.contextmanager
def standing(
    cluster: Cluster, folder: Path, answers: dict[str, Any], version: str = "pgcat"
) -> Iterator[Stack]:
    """A stack that has served for a moment."""
    answers = dict(answers)
    if version != "pgcat":
        answers["pgcat_image"] = "ghcr.io/postgresml/pgcat:main"
    binary = None if answers.get("pooling") == "direct" else pgcat_program(version)
    with Stack(cluster, answers, binary, folder / "deployment", folder / "live").up() as stack:
        stack.permifys[0].write(cluster)
        stack.load(0.2)
        yield stack


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with standing(cluster, tmp_path_factory.mktemp("standalone"), STANDALONE) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgcat_module, "SAMPLE_SECONDS", 0.1)


@pytest.fixture
def patient(stack: Stack, tmp_path: Path) -> Patient:
    stack.cluster.catch_up()
    return Patient(stack, tmp_path / "patient")


@pytest.mark.parametrize("fault", drawn(FAULTS, FAULTS[1::2]), ids=lambda fault: fault.name)
def test_a_fault_is_found_by_its_code(patient: Patient, fault: Fault) -> None:
    with fault.plant(patient) as reaches:
        found = patient.findings(reaches)
    assert {finding.code for finding in found} == set(fault.codes), shown(found)
    first = next(finding for finding in found if finding.code == fault.codes[0])
    text = f"{first.message} ({first.fix})"
    assert all(word in text for word in fault.words), text
    assert first.fix and (patient.root / first.path).is_file()
    assert 1 < first.line <= len((patient.root / first.path).read_text().splitlines())


def test_what_was_planted_is_mended(patient: Patient) -> None:
    found = patient.examined(write_check=True)
    assert patient.findings() == []
    applications = {group.application for _, facts in found.case.told for group in facts.groups}
    assert applications == {"pgcat"}, "the doctor counts itself"
    assert found.case.answers.write_check is not None
    assert all(
        answer.lag and answer.lag.caught_up
        for server, answer in found.case.servers
        if server.role != "primary"
    )


# By docker and kubectl, which are fakes that really forward


PGCAT_IMAGE, PERMIFY_IMAGE = "ghcr.io/postgresml/pgcat:v1.2.0", "ghcr.io/permify/permify:v1.7.3"


@pytest.fixture
def kubectl(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    stack = patient.stack
    pods = [pod(f"pgcat-{number}", {"pgcat": PGCAT_IMAGE}) for number, _ in enumerate(stack.pgcats)]
    pods += [pod(f"permify-{number}", {"permify": PERMIFY_IMAGE}) for number, _ in enumerate(stack.permifys)]
    forwards = {f"pgcat-{n}": {"6432": p.port, "9930": p.exporter} for n, p in enumerate(stack.pgcats)}
    forwards |= {f"permify-{n}": {"3476": permify.port} for n, permify in enumerate(stack.permifys)}
    pids = {f"pgcat-{number}": pgcat.process.popen.pid for number, pgcat in enumerate(stack.pgcats)}
    admin_password = (stack.secrets / "pgcat_admin_password").read_text().strip()
    state = {
        "context": "here",
        "namespace": "permify",
        "pods": pods,
        "forwards": forwards,
        "pids": pids,
        "secrets": {
            "permify-database": secret(password=stack.password),
            "pgcat-admin": secret(password=admin_password),
            "permify-authn": secret(keys=stack.keys),
        },
    }
    fake = Fake(tmp_path / "bin", "kubectl", state)
    monkeypatch.setenv("PATH", fake.path)
    patient.environment = {}  # the cluster's Secrets have the passwords
    patient.timeout_seconds = 5
    return fake


def test_kubernetes_by_port_forward(patient: Patient, kubectl: Fake) -> None:
    """Every PgCat and one Permify; PostgreSQL through PgCat alone. The forwards end with the doctor."""
    diagnosis = patient.examined([])
    found = patient.findings([])
    assert found == [], shown(found)
    case = diagnosis.case
    assert [pgcat.name for pgcat in case.answers.pgcats] == ["pgcat-0", "pgcat-1"]
    assert [permify.name for permify in case.answers.permifys] == ["permify-0"]
    assert len(list(case.told)) == 2
    assert len([note for note in diagnosis.notes if "was asked through PgCat" in note]) == 2
    forwarded = (kubectl.folder / "kubectl.json.forwarding").read_text().split()
    assert sorted(set(forwarded)) == ["pod/permify-0", "pod/pgcat-0", "pod/pgcat-1"]
    assert not processes_with(str(kubectl.folder / "kubectl"))


def processes_with(word: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            found += [line] if word in line else []
    return found


def test_a_pgcat_at_its_limit_of_open_files(patient: Patient, kubectl: Fake, tmp_path: Path) -> None:
    """One that was started without start.sh: nearly all are open, then it answers nobody."""
    patient.edit("kubernetes/pgcat-deployment.yaml", "replicas: 2", "replicas: 1")
    del kubectl.state["pods"][1]
    with (
        another_pgcat(patient, open_files=(200, 4096)) as reaches,
        contextlib.ExitStack() as held,
    ):
        port = port_of(reaches[0])
        kubectl.state["forwards"]["pgcat-0"] = {"6432": port, "9930": port_of(reaches[1])}
        kubectl.state["pids"]["pgcat-0"] = pid_of(port)
        kubectl.save()
        found = patient.findings([])
        (few,) = [finding for finding in found if finding.code != "PD312"]  # Permify is elsewhere
        assert few.code == "PD113" and "may open 200 files" in few.message and "start.sh" in few.fix
        files = Path(f"/proc/{kubectl.state['pids']['pgcat-0']}/fd")
        while len(list(files.iterdir())) < 182:
            held.enter_context(patient.stack.connect(port, "permify_writer"))
        found = patient.findings([])
        others = {finding.code for finding in found} - {"PD111", "PD312", "PD314"}  # Permify is elsewhere
        assert not others, shown(found)
        used_up = next(finding for finding in found if finding.code == "PD111")
        assert "of 200 files open" in used_up.message
        with contextlib.suppress(psycopg.OperationalError):
            for _ in range(30):
                held.enter_context(patient.stack.connect(port, "permify_writer", connect_timeout=2))
        patient.timeout_seconds = 2
        found = patient.findings([])
        assert "PD111" in {finding.code for finding in found}, shown(found)
        (silent,) = [finding for finding in found if finding.code == "PD102"]
        assert "limit of open files" in silent.fix


def test_open_files_that_may_not_be_seen(patient: Patient, kubectl: Fake) -> None:
    kubectl.state["pids"] = {}
    kubectl.save()
    notes = [note for note in patient.examined([]).notes if "open files" in note]
    assert len(notes) == 2 and all("were not seen: " in note and "forbidden" in note for note in notes)


def test_a_pod_is_missing(patient: Patient, kubectl: Fake) -> None:
    del kubectl.state["pods"][0]
    kubectl.save()
    found = patient.findings([])
    assert {finding.code for finding in found} == {"PD106"}, shown(found)
    assert "1 of 2 PgCat processes run" in found[0].message
    assert found[0].path == "kubernetes/pgcat-deployment.yaml"


def test_more_pods_than_planned(patient: Patient, kubectl: Fake) -> None:
    for number in range(2, 5):
        kubectl.state["pods"].append(pod(f"pgcat-{number}", {"pgcat": PGCAT_IMAGE}))
        kubectl.state["forwards"][f"pgcat-{number}"] = kubectl.state["forwards"]["pgcat-0"]
    kubectl.save()
    found = patient.findings([])
    assert {finding.code for finding in found} == {"PD107"}, shown(found)
    assert "5 PgCat processes run, and the budget counts 4" in found[0].message


def test_a_pod_that_is_going_counts_as_no_fault(patient: Patient, kubectl: Fake) -> None:
    going = pod("pgcat-9", {"pgcat": PGCAT_IMAGE}, ready=False, deletionTimestamp="2026-01-01T00:00:00Z")
    kubectl.state["pods"].append(going)
    kubectl.save()
    assert patient.findings([]) == []


def test_a_pod_that_crashes(patient: Patient, kubectl: Fake) -> None:
    status = kubectl.state["pods"][3]["status"]["containerStatuses"][0]
    status |= {"ready": False, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    kubectl.save()
    found = patient.findings([])
    assert {finding.code for finding in found} == {"PD108"}, shown(found)
    assert "permify-1 (permify) waits: CrashLoopBackOff" in found[0].message
    assert found[0].fix == "kubectl -n permify logs permify-1 -c permify"


def test_a_pod_with_another_image(patient: Patient, kubectl: Fake) -> None:
    kubectl.state["pods"][0]["spec"]["containers"][0]["image"] = "ghcr.io/postgresml/pgcat:main"
    kubectl.save()
    found = patient.findings([])
    assert {finding.code for finding in found} == {"PD109"}, shown(found)
    assert "kubectl apply -k ." in found[0].fix


def test_kubectl_that_is_refused(patient: Patient, kubectl: Fake) -> None:
    kubectl.state["complaint"] = "Unable to connect to the server: dial tcp: i/o timeout"
    kubectl.save()
    diagnosis = patient.examined([], context="here")
    assert any("Unable to connect to the server" in note for note in diagnosis.notes)
    assert not diagnosis.case.anybody


# The command


def doctor(patient: Patient, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "src"), **variables}
    command = [sys.executable, "-m", "pgcat_stack", "doctor", str(patient.root), "--no-docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def reached(patient: Patient) -> list[str]:
    return [word for reach in patient.reaches for word in ("--reach", reach)]


def test_the_command_on_a_healthy_stack(patient: Patient) -> None:
    done = doctor(patient, *reached(patient), **patient.environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *notes, last = done.stdout.splitlines()
    assert last == "0 errors, 0 warnings; asked 2 of 2 PostgreSQL servers, 2 PgCat, 2 Permify"
    text = re.sub(r"[\d.]+ ms", "N ms", re.sub(r"127\.0\.0\.1:\d+", "SERVER", "\n".join(notes)))
    assert text.splitlines() == [
        "note: round trip to SERVER: N ms from here, N ms from PgCat",
        "note: round trip to SERVER: N ms from here, N ms from PgCat",
        "note: the open files of PgCat were not looked at: only docker and kubectl show them",
        "note: reading with this deployment's key (a caller with another gets 401) shows nothing wrong;"
        " --write-check also writes and checks, in a tenant of its own",
    ]


def test_the_command_says_most_useful_first_and_no_password(patient: Patient) -> None:
    patient.edit("pgcat/pgcat.toml", "ban_time = 60", "ban_time = 30")
    reaches = [*reached(patient)[:-1], f"permify={LOOPBACK}:{free_port()}"]
    environment = {**patient.environment, "PGCAT_ADMIN_PASSWORD": "Sesame9", "PERMIFY_TOKEN": "Sesame8"}
    done = doctor(patient, *reaches, **environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"permify/permify\.yaml:\d+: PD103 Permify .* does not answer: .*\(.*\)", lines[0])
    findings = [line for line in lines[1:-1] if not line.startswith("note: ")]
    assert [line.split()[1] for line in findings] == ["PD301", "PD407"]
    assert lines[-1].startswith("3 errors, 0 warnings; asked 2 of 2 PostgreSQL servers, 0 PgCat, 1 Permify")
    assert not any(word in done.stdout + done.stderr for word in (patient.stack.password, "Sesame"))


def test_the_command_as_json_with_strict(patient: Patient) -> None:
    key = {"PERMIFY_TOKEN": patient.stack.keys}
    done = doctor(patient, *reached(patient), "--format", "json", "--strict", **key)
    assert done.returncode == 1
    objects = json.loads(done.stdout)
    assert [found["code"] for found in objects] == ["PD105", "PD105"]
    assert objects[0].keys() == {"code", "severity", "path", "line", "message", "fix"}
    assert doctor(patient, *reached(patient), "--format", "json", **key).returncode == 0


def test_nothing_can_be_asked(patient: Patient) -> None:
    done = doctor(patient, "--no-kubectl", **patient.environment)
    assert done.returncode == 2
    assert done.stderr == "pgcat-stack: nothing of this deployment could be asked\n"
    assert {line.split()[1] for line in done.stdout.splitlines()[:4]} == {"PD101", "PD102", "PD103"}


def test_a_name_that_the_deployment_does_not_have(patient: Patient) -> None:
    done = doctor(patient, "--reach", "pgct=127.0.0.1:6432")
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr
        == ("pgcat-stack: --reach pgct: the deployment has no such name; it has pgcat, permify, 127.0.0.1\n")
        or "it has pgcat, permify, 127.0.0.1" in done.stderr
    )


def test_a_mute_deployment_ends_in_time(patient: Patient) -> None:
    with socket.create_server((LOOPBACK, 0)) as mute:
        port = mute.getsockname()[1]
        reaches = [re.sub(r"=.*", f"={LOOPBACK}:{port}", reach) for reach in reached(patient)]
        begun = time.monotonic()
        done = doctor(patient, *reaches, "--timeout", "0.5", **patient.environment)
    assert time.monotonic() - begun < 15
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "did not answer within" in done.stdout


# What docs/doctor.md shows


def examples_of_the_page() -> list[str]:
    return code_blocks((REPOSITORY / "docs/doctor.md").read_text(), "console")


def alike(output: str) -> list[str]:
    """Its lines, ports and measured values aside; and notes, which go elsewhere, first."""
    text = re.sub(r"127\.0\.0\.1:\d{2,}", "127.0.0.1:PORT", output)
    text = re.sub(r"[\d.]+ (?:bytes|kB|MB)\b", "N bytes", text)
    text = re.sub(r"[\d.]+ (s|ms)\b", r"N \1", text)
    return sorted(text.splitlines(), key=lambda line: not line.startswith("note: "))


def test_the_page_shows_faults_as_they_are_said(patient: Patient) -> None:
    """Another PgCat that has other settings, a role without limit, and a replica that does not replay."""
    command, _, output = examples_of_the_page()[0].partition("\n")
    assert command == "$ pgcat-stack doctor ."
    patient.edit("pgcat/pgcat.toml", "ban_time = 60", "ban_time = 30")
    with a_role_without_limit(patient), a_replica_that_does_not_replay(patient):
        done = doctor(patient, "--no-kubectl", *reached(patient), **patient.environment)
    assert alike(done.stdout) == alike(output)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_page_shows_what_nobody_answers(patient: Patient) -> None:
    command, _, output = examples_of_the_page()[1].partition("\n")
    said = re.fullmatch(
        r"\$ pgcat-stack doctor \. (--no-kubectl --reach) 127\.0\.0\.1:\d+=127\.0\.0\.1:1", command
    )
    assert said
    primary = patient.stack.cluster.primary.port
    done = doctor(patient, *said[1].split(), f"{LOOPBACK}:{primary}={LOOPBACK}:1", **patient.environment)
    assert alike(done.stdout + done.stderr) == alike(output)


def test_the_page_shows_a_write_check(patient: Patient, kubectl: Fake) -> None:
    command, _, output = examples_of_the_page()[2].partition("\n")
    assert command == "$ pgcat-stack doctor . --write-check"
    done = doctor(patient, "--write-check", PATH=kubectl.path)
    assert done.returncode == 0
    lines = alike(re.sub(r"by Permify [\w-]+", "by Permify POD", done.stderr + done.stdout))
    assert lines == alike(re.sub(r"by Permify [\w-]+", "by Permify POD", output))


def test_the_database_is_only_read(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the doctor sends writes, and the server would refuse it."""
    server = patient.stack.cluster.primary
    begins = server.log_size()
    patient.findings()
    sent = re.findall(r"LOG:  statement: (.*)", server.log_since(begins))
    assert any("json_build_object" in line or line.startswith("SELECT") for line in sent)
    writes = re.compile(
        r"(?:BEGIN READ ONLY; )?\s*(INSERT|UPDATE|DELETE|ALTER|CREATE|DROP|TRUNCATE|GRANT)", re.IGNORECASE
    )
    assert not [line for line in sent if writes.match(line)]
    monkeypatch.setattr(postgres_module, "_SYSTEM", "CREATE TABLE scratch (i int)")
    patient.findings()
    log = server.log_since(begins)
    refused = log.count("ERROR:  cannot execute CREATE TABLE in a read-only transaction")
    assert refused == len(re.findall("LOG:  statement: .*CREATE TABLE", log)) >= 3  # here, and by two PgCat


# Other deployments. Each takes the servers' place of the one before, so these come last.


@pytest.fixture(scope="module")
def direct(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with standing(cluster, tmp_path_factory.mktemp("direct"), DIRECT) as stack:
        yield stack


@pytest.fixture
def direct_patient(direct: Stack, tmp_path: Path) -> Patient:
    direct.cluster.catch_up()
    return Patient(direct, tmp_path / "patient")


def test_a_healthy_direct_deployment_is_clean(direct_patient: Patient) -> None:
    found = direct_patient.findings(write_check=True)
    assert found == [], shown(found)


def test_a_missing_database(direct_patient: Patient) -> None:
    for _ in range(2):
        direct_patient.edit("permify/permify.yaml", "/permify?", "/elsewhere?")
    found = direct_patient.findings()
    assert {finding.code for finding in found} == {"PS410"}, shown(found)
    direct_patient.edit("postgres/bootstrap.sql", 'CREATE DATABASE "permify"', 'CREATE DATABASE "elsewhere"')
    direct_patient.edit("kubernetes/migration-job.yaml", "/permify?", "/elsewhere?")
    found = direct_patient.findings()
    assert {finding.code for finding in found} == {"PD202"}, shown(found)
    assert "no database elsewhere" in found[0].message and "bootstrap.sql" in found[0].fix


def test_a_stale_read_is_seen_and_measured(direct_patient: Patient) -> None:
    """All reads of a direct deployment go to its replica, which is made to apply late."""
    replica = direct_patient.stack.cluster.replica
    replica.sql("ALTER SYSTEM SET recovery_min_apply_delay = '1200ms'")
    replica.sql("SELECT pg_reload_conf()")
    try:
        direct_patient.timeout_seconds = 6
        found = direct_patient.findings(write_check=True)
    finally:
        replica.sql("ALTER SYSTEM RESET recovery_min_apply_delay")
        replica.sql("SELECT pg_reload_conf()")
    stale = [finding for finding in found if finding.code == "PD405"]
    assert {finding.code for finding in found} - {"PD216"} == {"PD405"}, shown(found)
    assert 1 <= float(re.findall(r"for ([\d.]+) s", stale[0].message)[0]) < 6


def test_a_write_check_that_fails_names_the_step(direct_patient: Patient) -> None:
    """A schema that the readers never get. What was written is removed all the same."""
    replica = direct_patient.stack.cluster.replica
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        found = direct_patient.findings(write_check=True)
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")
    assert {finding.code for finding in found} - {"PD216"} == {"PD404"}, shown(found)
    assert "“write relationships” failed" in next(f for f in found if f.code == "PD404").message


def test_the_write_check_leaves_nothing(direct_patient: Patient) -> None:
    check = direct_patient.examined(write_check=True).case.answers.write_check
    assert check is not None and check.tenant.startswith(TENANT) and not check.leftover
    for table in ("tenants", "relation_tuples", "schema_definitions", "transactions"):
        column = "id" if table == "tenants" else "tenant_id"
        rows = patient_sql(direct_patient, f"SELECT count(*) FROM {table} WHERE {column} = '{check.tenant}'")
        assert rows == [(0,)], table


def test_docker_by_published_ports(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing(cluster, tmp_path, {}) as stack:
        patient = Patient(stack, tmp_path / "patient")
        pgcat, permify = stack.pgcats[0], stack.permifys[0]
        containers = {
            "a": container("pgcat", PGCAT_IMAGE, {6432: pgcat.port, 9930: pgcat.exporter}),
            "b": container("permify", PERMIFY_IMAGE, {3476: permify.port}),
            "c": container("migrate", PERMIFY_IMAGE, {}, Status="exited", ExitCode=0),
        }
        pids = {"pgcat-stack-pgcat-1": pgcat.process.popen.pid}
        containers["c"]["HostConfig"]["RestartPolicy"]["Name"] = "no"
        fake = Fake(tmp_path / "bin", "docker", {"containers": containers, "pids": pids})
        monkeypatch.setenv("PATH", fake.path)
        servers = [reach for reach in patient.reaches if reach.startswith(LOOPBACK)]
        # As the doctor runs by itself, with the passwords under secrets/.
        found = patient.findings(servers, docker=True)
        assert found == [], shown(found)
        (asked,) = patient.examined(servers, docker=True).case.answers.pgcats
        assert asked.files is not None and asked.files.used > 5
        fake.state["containers"]["c"]["State"]["ExitCode"] = 1
        fake.state["containers"]["a"]["State"]["Health"] = {"Status": "unhealthy"}
        fake.save()
        found = patient.findings(servers, docker=True)
        assert {finding.code for finding in found} == {"PD108"}, shown(found)
        assert {finding.message for finding in found} == {
            "pgcat-stack-migrate-1 (migrate) is exited with exit code 1",
            "pgcat-stack-pgcat-1 (pgcat) is unhealthy",
        }
        fake.state = {"complaint": "Cannot connect to the Docker daemon"}
        fake.save()
        assert any("Cannot connect" in note for note in patient.examined(servers, docker=True).notes)


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        pytest.param(*each, id=name, marks=repeats if name == "no replica" else ())
        for name, each in HEALTHY.items()
    ],
)
def test_a_healthy_deployment_is_clean(
    cluster: Cluster, tmp_path: Path, answers: dict[str, Any], version: str
) -> None:
    with standing(cluster, tmp_path, answers, version) as stack:
        patient = Patient(stack, tmp_path / "patient")
        found = patient.findings(write_check=True)
        assert found == [], shown(found)
        # and without a way to PostgreSQL itself
        primary = joined(stack.moved["primary"][1])
        host = primary.rpartition(":")[0]
        through = [reach for reach in patient.reaches if not reach.startswith(host)]
        away = patient.examined([*through, f"{primary}={host}:{free_port()}"])
        assert patient.findings(through) == []
        assert any("was asked through PgCat's pool permify_writer" in note for note in away.notes)


def test_a_server_that_reserves_more_than_the_budget_keeps(tmp_path: Path) -> None:
    """The role never gets them: it is refused before its limit and before what the budget counts."""
    program("psql")
    with postgres_cluster(MAX_CONNECTIONS, {"superuser_reserved_connections": "5"}) as cluster:
        answers = {**STANDALONE, "other_connections": 4}
        stack = Stack(cluster, answers, pgcat_program("pgcat"), tmp_path / "deployment", tmp_path / "live")
        stack.prepare()
        patient = Patient(stack, tmp_path / "patient")
        found = [finding for finding in patient.findings() if finding.code in ("PD206", "PD225")]
        assert [finding.code for finding in found] == ["PD225", "PD225"], shown(found)
        assert (
            "reserves 5 connections (superuser_reserved_connections 5), the budget keeps 4"
            in found[0].message
        )
        assert found[0].fix == "answer other_connections=5 or more"
        assert (found[0].path, found[0].line) == ("budget.yaml", 14)

        refused = ""
        with contextlib.ExitStack() as connections:
            opened = 0
            while not refused:
                try:
                    connections.enter_context(stack.connect(cluster.primary.port, stack.database))
                    opened += 1
                except psycopg.OperationalError as error:
                    refused = str(error)
        assert "remaining connection slots are reserved" in refused
        assert opened < MAX_CONNECTIONS - 4
