"""How the doctor finds its way, its passwords and its time limits."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases import DIRECT, DOCKER, HELM, SIDECAR, STANDALONE, edit, load, rendered
from pgcat_stack import cli
from pgcat_stack.doctor import postgres as postgres_module
from pgcat_stack.doctor import routes as reach_module
from pgcat_stack.doctor import trust as trust_module
from pgcat_stack.doctor.case import Answers, Case
from pgcat_stack.doctor.checks.page import MARK, with_checks
from pgcat_stack.doctor.commands import json_of, output_of
from pgcat_stack.doctor.credentials import Credentials, Password, read_credentials
from pgcat_stack.doctor.display import report
from pgcat_stack.doctor.expected import Facts, Login
from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.platforms import Place, Process, _container, _pod_processes
from pgcat_stack.doctor.postgres import Connector, ask_facts, first_line
from pgcat_stack.doctor.routes import Options, Target, open_reach, parse_mapping
from pgcat_stack.doctor.side_by_side import Failed, Trouble, cut_after, probe, resolve, together
from pgcat_stack.doctor.trust import Certificates, Trust, certificate_trouble
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Finding
from pgcat_stack.reading.deployment import DeploymentError
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY, render

LOOPBACK = "127.0.0.1"


def failure(run: Callable[[], object]) -> Trouble:
    with pytest.raises(Failed) as caught:
        run()
    return caught.value.trouble


# Mappings


@pytest.mark.parametrize(
    ("text", "name", "port", "place"),
    [
        ("pgcat=127.0.0.1:16432", "pgcat", None, Place("127.0.0.1", 16432)),
        ("pgcat:9930=localhost:1", "pgcat", 9930, Place("localhost", 1)),
        ("DB.example.com:5432=10.0.0.1:5432", "db.example.com", 5432, Place("10.0.0.1", 5432)),
        ("[fd00::1]:5432=[::1]:5433", "fd00::1", 5432, Place("::1", 5433)),
    ],
)
def test_a_mapping(text: str, name: str, port: int | None, place: Place) -> None:
    mapping = parse_mapping(text)
    assert (mapping.name, mapping.port, mapping.place) == (name, port, place)


@pytest.mark.parametrize(
    "text", ["pgcat", "pgcat=host", "=host:1", "pgcat=host:0", "pgcat=host:99999", "a=b=c:1"]
)
def test_what_is_no_mapping_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", ".", "--reach", text])
    assert caught.value.code == 2
    assert f"{text}: not NAME[:PORT]=HOST:PORT" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "601"])
def test_what_is_no_time_limit(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", ".", f"--timeout={text}"])
    assert "not a number of seconds" in capsys.readouterr().err


# Targets


def opened(answers: dict[str, Any], *mappings: str) -> Any:
    options = Options(mappings=tuple(map(parse_mapping, mappings)), docker=False, kubectl=False)
    with open_reach(Facts(load(rendered(answers))), options) as reach:
        return reach


def test_addresses_as_they_stand_in_the_files() -> None:
    reach = opened(STANDALONE)
    assert [target.places[6432] for target in reach.pgcats] == [(Place("pgcat", 6432),)]
    assert [target.places[3476] for target in reach.permifys] == [(Place("permify", 3476),)]
    assert reach.servers[Address("db1")].places == {5432: (Place("db1", 5432),)}


def test_a_sidecar_is_not_looked_for_on_this_machine() -> None:
    """It listens on its pod's loopback: who answers on ours is somebody else."""
    assert opened(SIDECAR).pgcats == ()


def test_permify_elsewhere_is_not_guessed() -> None:
    assert opened(HELM).permifys == ()
    assert opened(HELM, "permify=h:1").permifys[0].places == {3476: (Place("h", 1),)}


def test_each_mapping_of_pgcat_is_a_process() -> None:
    reach = opened(STANDALONE, "pgcat=a:1", "pgcat:9930=a:2", "pgcat=b:3", "pgcat:9930=b:4")
    assert [(t.name, t.places) for t in reach.pgcats] == [
        ("at a:1", {6432: (Place("a", 1),), 9930: (Place("a", 2),)}),
        ("at b:3", {6432: (Place("b", 3),), 9930: (Place("b", 4),)}),
    ]


def test_a_mapped_server() -> None:
    servers = opened(STANDALONE, "db1:5432=h:1").servers
    assert servers[Address("db1")].places == {5432: (Place("h", 1),)}
    assert servers[Address("db2")].places == {5432: (Place("db2", 5432),)}


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeploymentError, match="it has pgcat, permify, db1, db2"):
        opened(STANDALONE, "db3=h:1")
    with pytest.raises(DeploymentError, match="it has permify, db1, db2"):
        opened(DIRECT, "pgcat=h:1")


def test_a_bundled_server_is_reached_by_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {5432: (Place("172.18.0.2", 5432),)}
    running = [
        Process("postgres-primary", "p", "i", places=places),
        Process("pgcat", "c", "i", places={6432: (Place("172.18.0.3", 6432),)}),
        Process("pgcat", "old", "i", going=True),
    ]
    monkeypatch.setattr(reach_module, "docker_processes", lambda folder, ports, seconds: running)
    monkeypatch.setattr(reach_module.shutil, "which", lambda name: name)
    with open_reach(Facts(load(rendered(DOCKER))), Options()) as reach:
        assert reach.servers[Address("postgres-primary")].places == places
        assert reach.servers[Address("postgres-replica")].places == {5432: (Place("postgres-replica", 5432),)}
        assert [target.name for target in reach.pgcats] == ["c"]
        assert reach.permifys == ()


def test_a_server_without_functions_of_its_wal_is_asked_for_the_rest() -> None:
    asked = []

    def ask(statement: str) -> list[tuple[Any, ...]]:
        asked.append(statement)
        raise Failed("failed", "pg_last_wal_replay_lsn is not supported")

    assert failure(lambda: ask_facts(ask, direct=True)).kind == "failed"
    parts = [(part in statement) for statement in asked for part in ("pg_last_wal_replay_lsn", "pg_locks")]
    assert parts == [True, True, False, True, True, False, False, False]

    def mute(statement: str) -> list[tuple[Any, ...]]:
        asked.append(statement)
        raise Failed("mute", "no answer")

    asked.clear()
    assert failure(lambda: ask_facts(mute, direct=True)).kind == "mute" and len(asked) == 1


def test_the_first_place_that_takes_connections_is_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        target = Target("x", {1: (Place(LOOPBACK, free()), Place("localhost", port), Place(LOOPBACK, port))})
        place, address = target.open(1, 2)
        assert place == Place("localhost", port) and address in (LOOPBACK, "::1")
    trouble = failure(lambda: target.open(1, 2))
    assert trouble.kind == "unreachable" and "connection refused" in trouble.text
    assert failure(lambda: target.open(2, 2)).kind == "unreachable"


def free() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind((LOOPBACK, 0))
        return int(probe_socket.getsockname()[1])


# Platforms


def test_a_container() -> None:
    process = _container(
        {
            "Name": "/pgcat-stack-pgcat-1",
            "Config": {"Image": "i", "Labels": {"com.docker.compose.service": "pgcat"}},
            "State": {"Status": "running", "Health": {"Status": "healthy"}},
            "RestartCount": 2,
            "NetworkSettings": {
                "Networks": {"a": {"IPAddress": "172.18.0.3"}},
                "Ports": {"6432/tcp": [{"HostIp": "0.0.0.0", "HostPort": "16432"}], "9930/tcp": None},
            },
        },
        (6432, 9930),
    )
    assert (process.program, process.name, process.trouble, process.restarts) == (
        "pgcat",
        "pgcat-stack-pgcat-1",
        "",
        2,
    )
    assert process.places[6432] == (Place("172.18.0.3", 6432), Place(LOOPBACK, 16432))
    assert process.places[9930] == (Place("172.18.0.3", 9930),)


@pytest.mark.parametrize(
    ("state", "policy", "trouble", "going"),
    [
        ({"Status": "exited", "ExitCode": 0}, "no", "", True),
        ({"Status": "exited", "ExitCode": 1}, "no", "is exited with exit code 1", False),
        ({"Status": "exited", "ExitCode": 0}, "unless-stopped", "is exited with exit code 0", False),
        ({"Status": "restarting"}, "unless-stopped", "is restarting", False),
        ({"Status": "running", "Health": {"Status": "starting"}}, "unless-stopped", "", False),
    ],
)
def test_the_state_of_a_container(state: dict[str, Any], policy: str, trouble: str, going: bool) -> None:
    process = _container({"State": state, "HostConfig": {"RestartPolicy": {"Name": policy}}}, ())
    assert (process.trouble, process.going) == (trouble, going)


def pod(status: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", **more},
        "spec": {
            "initContainers": [{"name": "pgcat", "image": "i"}],
            "containers": [{"name": "permify", "image": "j"}],
        },
        "status": {"phase": "Running", **status},
    }


def test_a_sidecar_pod_is_two_processes() -> None:
    statuses = {
        "initContainerStatuses": [{"name": "pgcat", "ready": True, "restartCount": 0}],
        "containerStatuses": [
            {
                "name": "permify",
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "ImagePullBackOff"}},
            }
        ],
    }
    pgcat, permify = _pod_processes(pod(statuses))
    assert (pgcat.program, pgcat.trouble) == ("pgcat", "")
    assert (permify.program, permify.trouble, permify.restarts) == ("permify", "waits: ImagePullBackOff", 3)


def test_pods_that_end_or_have_ended() -> None:
    assert [p.going for p in _pod_processes(pod({}, deletionTimestamp="2026-01-01T00:00:00Z"))] == [
        True,
        True,
    ]
    assert list(_pod_processes(pod({"phase": "Succeeded"}))) == []


def test_a_pod_that_is_not_scheduled() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert [p.trouble for p in _pod_processes(pod({"conditions": [condition]}))] == [
        "is not scheduled: 0/3 nodes are available"
    ] * 2


# Commands


def test_a_command_that_fails_is_one_line(tmp_path: Path) -> None:
    trouble = failure(lambda: output_of(["sh", "-c", "echo one >&2; echo two >&2; exit 3"], tmp_path, 5))
    assert trouble.text.endswith("failed: two")
    assert failure(lambda: output_of(["no-such-program"], tmp_path, 5)).text.startswith(
        "no-such-program cannot be run"
    )
    assert "JSON" in failure(lambda: json_of(["echo", "hello"], tmp_path, 5)).text


def test_a_slow_command_ends_with_what_it_started(tmp_path: Path) -> None:
    begun = time.monotonic()
    trouble = failure(lambda: output_of(["sh", "-c", "sleep 61 & echo $! > pid; wait"], tmp_path, 0.5))
    assert trouble.kind == "mute" and time.monotonic() - begun < 5
    pid = (tmp_path / "pid").read_text().strip()
    done = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    assert done.stdout.strip()[:1] in ("", "Z")


# Credentials


def credentials(root: Path, environment: dict[str, str] | None = None, cluster: Any = None) -> Credentials:
    return read_credentials(Facts(Reading.load(root)), environment or {}, cluster)


def test_passwords_of_docker(tmp_path: Path) -> None:
    root = render(tmp_path / "deployment", DOCKER)
    assert credentials(root).database.missing == (
        "secrets/database_password is missing: set DATABASE_PASSWORD, or copy the file here"
    )
    (root / "secrets").mkdir(exist_ok=True)
    (root / "secrets/database_password").write_text("one\n")
    (root / "secrets/pgcat_admin_password").write_text("")
    found = credentials(root)
    assert found.database.value == "one" and "empty" in found.admin.missing
    assert credentials(root, {"DATABASE_PASSWORD": "two"}).database.value == "two"


def test_passwords_by_files(tmp_path: Path) -> None:
    root = render(tmp_path / "deployment", STANDALONE)
    (tmp_path / "file").write_text("three\n")
    found = credentials(
        root, {"DATABASE_PASSWORD_FILE": str(tmp_path / "file"), "PGCAT_ADMIN_PASSWORD_FILE": "/nowhere"}
    )
    assert found.database.value == "three"
    assert found.admin.missing == "PGCAT_ADMIN_PASSWORD_FILE names /nowhere, which is missing"


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, DIRECT], ids=["standalone", "sidecar", "direct"])
def test_passwords_of_the_cluster(tmp_path: Path, answers: dict[str, Any]) -> None:
    root = render(tmp_path / "deployment", answers)
    asked = []

    def secret(name: str, key: str) -> str:
        asked.append((name, key))
        if name == "pgcat-admin":
            raise Failed("failed", "no rights")
        return "four"

    found = credentials(root, cluster=secret)
    assert found.database.value == "four" and asked[0] == ("permify-database", "password")
    if "pooling" not in answers:
        assert found.admin.missing == "no rights: set PGCAT_ADMIN_PASSWORD or PGCAT_ADMIN_PASSWORD_FILE"


def test_the_key_of_callers(tmp_path: Path) -> None:
    root = render(tmp_path / "docker")
    assert credentials(root).no_token == (
        "secrets/permify.env cannot be read, no such file or directory: set PERMIFY_TOKEN or"
        " PERMIFY_TOKEN_FILE to a key"
    )
    (root / "secrets").mkdir()
    (root / "secrets/permify.env").write_text("PERMIFY_AUTHN_PRESHARED_KEYS=one,two\n")
    assert credentials(root).token == "one"
    (root / "secrets/permify.env").write_text("PERMIFY_AUTHN_PRESHARED_KEYS=\n")
    assert "secrets/permify.env: has an empty key" in credentials(root).no_token
    assert credentials(root, {"PERMIFY_TOKEN": "three"}).token == "three"
    (tmp_path / "file").write_text("four\n")
    assert credentials(root, {"PERMIFY_TOKEN_FILE": str(tmp_path / "file")}).token == "four"
    for number, answers in enumerate((STANDALONE, {**STANDALONE, "permify_install": "helm"})):
        found = credentials(
            render(tmp_path / str(number), answers), cluster=lambda name, key: f"{name},{key}"
        )
        assert found.token == "permify-authn"
    found = credentials(render(tmp_path / "none", STANDALONE, authn="none"), cluster=lambda *_: "x")
    assert (found.token, found.no_token[:17]) == ("", "set PERMIFY_TOKEN")


ODD_KEYS = ["zzz\nX-A: b", "日本", "zzz zzz", "zzz\x7f", "\udcff", "=", "zzz=zzz", " zzz", "zzz\r"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_that_is_no_bearer_token_is_not_sent(key: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(key.encode("utf-8", "surrogateescape"))
    root = render(tmp_path / "deployment", STANDALONE)
    sources: list[tuple[dict[str, str], str]] = [
        ({"PERMIFY_TOKEN": key}, "PERMIFY_TOKEN holds no bearer token"),
        ({}, "keys of Secret permify-authn holds no bearer token"),
        ({"PERMIFY_TOKEN_FILE": str(tmp_path / "file")}, ""),
    ]
    for environment, words in sources:
        found = credentials(root, environment, cluster=lambda *_: f"{key},second")
        if environment.get("PERMIFY_TOKEN_FILE") and key.endswith("\r"):
            assert found.token == "zzz"  # a line end, which a file may have
            continue
        assert found.token == "" and words in found.no_token
        assert found.no_token.isprintable() and "zzz" not in found.no_token and "日本" not in found.no_token
    if key == "zzz zzz":
        assert "PERMIFY_TOKEN_FILE holds no bearer token" in found.no_token


# Whom the doctor trusts


TLS_POOLED = {**STANDALONE, "client_tls": "cert-manager", "client_tls_issuer": "ca"}
CA = "/etc/postgresql-ca/ca.crt"


@pytest.mark.parametrize(
    ("answers", "mode", "root"),
    [
        (DOCKER, "disable", ""),
        (STANDALONE, "require", ""),
        ({**STANDALONE, "database_tls": "disable"}, "disable", ""),
        (DIRECT, "require", ""),
        ({**DIRECT, "database_tls": "disable"}, "disable", ""),
        ({**DIRECT, "database_tls": "verify-full"}, "verify-full", ""),
        ({**DIRECT, "database_tls": "verify-full", "database_ca": "secret/x"}, "verify-full", CA),
    ],
)
def test_tls_to_postgresql_is_that_of_the_files(answers: dict[str, Any], mode: str, root: str) -> None:
    facts = Facts(load(rendered(answers)))
    for server in facts.servers:
        found = facts.encryption(server.address)
        assert (found.mode, found.root_certificate, found.host) == (mode, root, server.address.host)


def test_a_pgcat_that_verifies_has_a_doctor_that_verifies() -> None:
    files = edit(
        rendered(STANDALONE),
        "pgcat/pgcat.toml",
        "^verify_server_certificate.*",
        "verify_server_certificate = true",
    )
    assert Facts(load(files)).encryption(Address("db1")).mode == "verify-full"


@pytest.mark.parametrize(
    ("one", "other", "mode"),
    [
        ("disable", "require", "require"),
        ("require", "allow", "require"),
        ("verify-ca", "require", "verify-ca"),
        ("no-mode", "allow", "prefer"),
    ],
)
def test_of_two_uris_the_stricter_counts(one: str, other: str, mode: str) -> None:
    files = rendered({**DIRECT, "replica_hosts": ""})
    before, first, between, second, *after = re.split("(sslmode=require)", files["permify/permify.yaml"])
    assert first == second
    files["permify/permify.yaml"] = "".join([before, f"sslmode={one}", between, f"sslmode={other}", *after])
    assert Facts(load(files)).encryption(Address("db1")).mode == mode


def test_tls_to_pgcat_is_that_of_permify() -> None:
    assert Facts(load(rendered(STANDALONE))).pgcat_encryption.mode == "prefer"
    found = Facts(load(rendered(TLS_POOLED))).pgcat_encryption
    assert (found.mode, found.host) == ("verify-full", "pgcat.permify.svc")
    assert found.root_certificate == "/etc/pgcat-tls/ca.crt"


def trust(answers: dict[str, Any], cluster: Any = None, **environment: str) -> tuple[Trust, str]:
    """Asked for twice, as by two connections; and the CA's text."""
    facts = Facts(load(rendered(answers)))
    pooled = facts.fronted
    encryption = facts.pgcat_encryption if pooled else facts.encryption(Address("db1"))
    with Certificates(facts, environment, cluster) as certificates:
        found = certificates.trust(encryption, pooled=pooled)
        assert certificates.trust(encryption, pooled=pooled) == found
        return found, found.ca.read_text() if found.ca else ""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "own.crt"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(tmp_path / "own.key"), "-out", str(file), "-subj", "/CN=own"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not on PATH")
    return file


@pytest.mark.parametrize(
    ("answers", "source"),
    [
        ({**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/db-ca"}, ("configmap", "db-ca")),
        ({**DIRECT, "database_tls": "verify-full", "database_ca": "secret/db-ca"}, ("secret", "db-ca")),
        (TLS_POOLED, ("secret", "pgcat-tls")),
    ],
)
def test_the_ca_is_what_the_pods_mount(ca: Path, answers: dict[str, Any], source: tuple[str, str]) -> None:
    asked = []

    def cluster(*what: str) -> str:
        asked.append(what)
        return ca.read_text()

    found, text = trust(answers, cluster)
    assert asked == [(*source, "ca.crt")] and text == ca.read_text()
    assert found.ca is not None and not found.ca.exists()
    assert found.options["sslmode"] == "verify-full" and found.options["sslrootcert"] == str(found.ca)


def test_a_ca_that_is_not_here_is_said(tmp_path: Path) -> None:
    answers = {**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/db-ca"}

    def refuse(*_: str) -> str:
        raise Failed("failed", "no rights")

    trouble = failure(lambda: trust(answers))
    assert trouble == Trouble("no-ca", "configmap db-ca of the cluster was not read: set DATABASE_CA_FILE")
    assert failure(lambda: trust(answers, refuse)).text == "no rights: set DATABASE_CA_FILE"
    assert "set PGCAT_CA_FILE" in failure(lambda: trust(TLS_POOLED)).text
    trouble = failure(lambda: trust(answers, lambda *_: "no certificate"))
    assert "holds no certificate" in trouble.text
    trouble = failure(lambda: trust(answers, DATABASE_CA_FILE=str(tmp_path / "none")))
    assert "cannot be read (no such file or directory): set DATABASE_CA_FILE" in trouble.text


def test_without_public_roots_nothing_is_verified_by_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(trust_module, "PUBLIC_ROOTS", (str(tmp_path / "neither"),))
    monkeypatch.setattr(
        trust_module.ssl, "get_default_verify_paths", lambda: type("Paths", (), {"cafile": None})
    )
    trouble = failure(lambda: trust({**DIRECT, "database_tls": "verify-full"}))
    assert trouble == Trouble("no-ca", "this machine has no file with the public roots: set DATABASE_CA_FILE")


@pytest.mark.parametrize(
    ("mode", "pooled", "logins"),
    [
        ("verify-full", False, "scram-sha-256,md5,none"),
        ("verify-ca", False, "scram-sha-256,none"),
        ("require", False, "scram-sha-256,none"),
        ("disable", False, "scram-sha-256,none"),
        ("prefer", True, "scram-sha-256,md5,none"),
    ],
)
def test_md5_is_for_pgcat_and_for_who_is_verified(mode: str, pooled: bool, logins: str) -> None:
    options = Trust(mode, pooled=pooled).options
    assert options == {"sslmode": mode, "require_auth": logins}


def test_a_ca_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(trust_module.tempfile, "mkstemp", refuse)
    trouble = failure(lambda: trust(TLS_POOLED, lambda *_: "certificate"))
    assert trouble.kind == "no-ca" and "no usable temporary directory" in trouble.text


def test_a_certificate_that_nobody_asked_to_verify_is_not_looked_at() -> None:
    """As where libpq finds a CA of the user's own in ~/.postgresql."""
    assert certificate_trouble(Trust("require"), "127.0.0.1", 1, "h", 1.0) == ""


def test_a_libpq_that_cannot_refuse_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module.psycopg.pq, "version", lambda: 150008)
    connector = Connector(Place("h", 1), "127.0.0.1", Trust("disable"), Login("u", "d"), "secret", 1.0)
    with pytest.raises(Failed, match="libpq 15 cannot refuse"), connector.connected():
        pass


def test_no_password_shows_in_a_text() -> None:
    shown = repr(Credentials(Password("hush-1"), Password("hush-2"), "hush-3"))
    assert "hush" not in shown


# Time


def test_jobs_run_side_by_side_and_late_ones_are_left_behind() -> None:
    stop = threading.Event()

    def refuse() -> int:
        raise Failed("refused", "no")

    begun = time.monotonic()
    found = together({"quick": lambda: 1, "late": lambda: stop.wait(20) and 2, "no": refuse}, 0.3)
    assert time.monotonic() - begun < 3
    assert found == {
        "quick": 1,
        "late": Trouble("mute", "no answer within 0.3 s"),
        "no": Trouble("refused", "no"),
    }
    stop.set()


def test_an_error_of_ours_is_a_trouble_and_costs_nothing_else() -> None:
    found = together({"x": lambda: 1 / 0, "y": lambda: 2}, 1)
    assert found == {"x": Trouble("broken", "ZeroDivisionError: division by zero"), "y": 2}


def test_a_silent_socket_is_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, cut_after(0.2, ours.fileno()) as cut:
        assert ours.recv(1) == b"" and cut()
    ours, theirs = socket.socketpair()
    with ours, theirs, cut_after(5, ours.fileno()) as cut:
        theirs.send(b"x")
        assert ours.recv(1) == b"x" and not cut()


def test_names_that_are_not_known() -> None:
    trouble = failure(lambda: resolve("nowhere.invalid", 1, 5))
    assert trouble == Trouble("unreachable", "the name nowhere.invalid is not known here")
    assert probe(LOOPBACK, listening := serve(b"")[0], 1) == LOOPBACK and listening


# HTTP


def serve(answer: bytes) -> tuple[int, socket.socket]:
    server = socket.create_server((LOOPBACK, 0))

    def run() -> None:
        while True:
            client, _ = server.accept()
            client.recv(65536)
            client.sendall(answer)
            client.close()

    threading.Thread(target=run, daemon=True).start()
    return server.getsockname()[1], server


def test_http_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # never asked
    port, _ = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert fetch(Place(LOOPBACK, port), "/", 2) == "hi"
    body = json.dumps({"code": 5, "message": "ERROR_CODE_SCHEMA_NOT_FOUND"}).encode()
    port, _ = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)) == Trouble(
        "refused", "status 404: ERROR_CODE_SCHEMA_NOT_FOUND"
    )
    port, _ = serve(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)).kind == "login"
    port, _ = serve(b"nonsense\r\n")
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)).kind == "unreachable"


# The report


def test_the_report_wraps_between_words_on_a_terminal() -> None:
    case = Case(Facts(load(rendered(STANDALONE))), Answers(), Credentials(Password("x"), Password("x")))
    finding = Finding("PD204", "error", "budget.yaml", 9, "word " * 20 + "end", "do a-b-c")
    plain = report([finding], ["n\x1b"], case, width=None)
    assert plain[0].startswith("budget.yaml:9: PD204 word") and "\x1b" not in "".join(plain)
    assert plain[-1] == "1 error, 0 warnings; asked 0 of 2 PostgreSQL servers, 0 PgCat, 0 Permify"
    narrow = report([finding], [], case, width=40)
    assert "\x1b[1;31mPD204\x1b[0m" in narrow[0]
    assert all(len(line) <= 40 for line in narrow[1:]) and narrow[1].startswith("  word")


def test_what_libpq_says_is_shortened() -> None:
    import psycopg

    text = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password '
    text += "authentication failed"
    assert first_line(psycopg.OperationalError(text)) == "password authentication failed"


def test_the_page_is_current() -> None:
    page = (REPOSITORY / "docs" / "doctor.md").read_text()
    assert page == with_checks(page), "run: ./dev python -m pgcat_stack.doctor.checks.page docs/doctor.md"
    assert page.count(MARK) == 1


def test_the_hook_does_not_import_the_doctor(tmp_path: Path) -> None:
    """It runs where psycopg is not."""
    root = render(tmp_path / "deployment", DOCKER)
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'src')!r}); from pathlib import Path\n"
        f"from pgcat_stack.cli import hook; hook(Path({str(root)!r}))\n"
        "absent = ('psycopg', 'pgcat_stack.doctor', 'rich')\n"
        "assert not [name for name in sys.modules if name.startswith(absent)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pgcat_toml_that_names_another_namespace() -> None:
    files = rendered(STANDALONE)
    assert Facts(load(files)).namespace == "permify"
    moved = edit(files, "kustomization.yaml", r"^namespace: \S+", "namespace: elsewhere")
    assert Facts(load(moved)).namespace == "elsewhere"
