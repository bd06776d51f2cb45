"""What the doctor sends to whom: a stranger in the place of any part gets nothing that opens a door."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live.impostor import Asks, Authority, HttpImpostor, Impostor
from live.platform_fakes import Fake, pod, secret
from live.stack import EXTERNAL, Stack, pgcat_program
from live.support import LOOPBACK, Cluster, listens, postgres_cluster
from pgcat_stack.doctor.checks import run_checks
from pgcat_stack.doctor.routes import Options, parse_mapping
from pgcat_stack.doctor.session import examine
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading
from rendering import render

NAME = "db-primary.example.com"
USER, DATABASE, PASSWORD = "permify", "permify", "not-for-strangers"
ONE = {"topology": "standalone", "primary_host": NAME, "pooling": "direct"}
VERIFIED = {**ONE, "database_tls": "verify-full", "database_ca": "configmap/db-ca"}
PUBLIC = {**ONE, "database_tls": "verify-full"}
REQUIRED = {**ONE, "database_tls": "require"}
PLAIN = {**ONE, "database_tls": "disable"}
POOLED = {"topology": "standalone", "primary_host": NAME}
TLS_POOLED = {**POOLED, "client_tls": "cert-manager", "client_tls_issuer": "ca"}
PGCAT_NAME = "pgcat.permify.svc"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours") / "ours")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers") / "strangers")


def examined(
    folder: Path, answers: dict[str, Any], *reaches: str, kubectl: bool = False, **environment: str
) -> tuple[int, list[Finding]]:
    """How many PostgreSQL servers told something, and the findings."""
    root = folder / "deployment"
    if not root.exists():
        render(root, answers)
    passwords = {"DATABASE_PASSWORD": PASSWORD, "PGCAT_ADMIN_PASSWORD": PASSWORD, "PERMIFY_TOKEN": PASSWORD}
    options = Options(
        timeout_seconds=2.0, mappings=tuple(map(parse_mapping, reaches)), docker=False, kubectl=kubectl
    )
    case = examine(Reading.load(root), options, {**passwords, **environment}).case
    return sum(1 for _ in case.told), run_checks(case)


def one(findings: list[Finding], code: str) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    assert "\n" not in found.message + found.fix
    return found


def secrets_of(salt: bytes = b"salt") -> list[bytes]:
    """What opens a door: the passwords, and their answers by MD5."""
    found = [PASSWORD.encode()]
    for user in (USER, "pgcat_admin"):
        inner = hashlib.md5(f"{PASSWORD}{user}".encode()).hexdigest()
        found += [inner.encode(), hashlib.md5(inner.encode() + salt).hexdigest().encode()]
    return found


def assert_nothing_secret(impostor: Impostor) -> None:
    assert not any(secret in impostor.got for secret in secrets_of()), bytes(impostor.got)


# PostgreSQL

WRONG = {
    "stranger": ("strangers", NAME, False, "self-signed certificate in certificate chain|unable to get"),
    "name": (
        "ours",
        "db-other.example.com",
        False,
        f"Hostname mismatch, certificate is not valid for '{NAME}'|does not match",
    ),
    "expired": ("ours", NAME, True, "certificate has expired"),
}


@pytest.mark.parametrize("asks", ["clear", "nothing"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_certificate_that_is_not_the_servers_ends_the_question(
    ours: Authority, strangers: Authority, tmp_path: Path, wrong: str, asks: Asks
) -> None:
    who, name, expired, words = WRONG[wrong]
    authority = {"ours": ours, "strangers": strangers}[who]
    impostor = Impostor(asks, authority.issue(name, expired=expired))
    with impostor.up() as port:
        told, findings = examined(
            tmp_path, VERIFIED, f"{NAME}={LOOPBACK}:{port}", DATABASE_CA_FILE=str(ours.certificate)
        )
    assert (told, impostor.logins, bytes(impostor.got)) == (0, 0, b"")
    found = one(findings, "PD112")
    assert found.severity == "error" and f"the primary {NAME}:5432 is not trusted" in found.message
    assert any(word in found.message for word in words.split("|")), found.message
    assert "DATABASE_CA_FILE" in found.fix
    assert found.path == "permify/permify.yaml" and found.line > 1
    assert "PD101" not in {finding.code for finding in findings}


@pytest.mark.parametrize("answers", [VERIFIED, REQUIRED], ids=["verified", "required"])
def test_a_server_that_refuses_tls_gets_no_login(ours: Authority, tmp_path: Path, answers: Any) -> None:
    impostor = Impostor("clear")
    with impostor.up() as port:
        _, findings = examined(
            tmp_path, answers, f"{NAME}={LOOPBACK}:{port}", DATABASE_CA_FILE=str(ours.certificate)
        )
    assert (impostor.logins, bytes(impostor.got)) == (0, b"")
    assert "refuses TLS" in one(findings, "PD112").message


@pytest.mark.parametrize("answers", [VERIFIED, REQUIRED, PLAIN], ids=["verified", "required", "plain"])
def test_nobody_gets_the_password_in_clear(ours: Authority, tmp_path: Path, answers: Any) -> None:
    impostor = Impostor("clear", None if answers == PLAIN else ours.issue(NAME))
    with impostor.up() as port:
        _, findings = examined(
            tmp_path, answers, f"{NAME}={LOOPBACK}:{port}", DATABASE_CA_FILE=str(ours.certificate)
        )
    assert impostor.logins == 1
    assert_nothing_secret(impostor)
    assert "asks for the password in clear" in one(findings, "PD112").message


@pytest.mark.parametrize("answers", [REQUIRED, PLAIN], ids=["required", "plain"])
def test_who_has_not_proven_itself_gets_no_login_by_md5(
    ours: Authority, tmp_path: Path, answers: Any
) -> None:
    impostor = Impostor("md5", None if answers == PLAIN else ours.issue(NAME))
    with impostor.up() as port:
        _, findings = examined(tmp_path, answers, f"{NAME}={LOOPBACK}:{port}")
    assert impostor.logins == 1
    assert_nothing_secret(impostor)
    assert one(findings, "PD227").severity == "warning"
    assert "PD101" not in {finding.code for finding in findings}


def test_the_strangers_of_these_tests_would_notice(ours: Authority, tmp_path: Path) -> None:
    """A server that is verified gets its login by MD5, and `assert_nothing_secret` sees that."""
    impostor = Impostor("md5", ours.issue(NAME))
    with impostor.up() as port:
        examined(tmp_path, VERIFIED, f"{NAME}={LOOPBACK}:{port}", DATABASE_CA_FILE=str(ours.certificate))
    with pytest.raises(AssertionError):
        assert_nothing_secret(impostor)


@pytest.fixture(scope="module")
def server(ours: Authority) -> Iterator[Cluster]:
    """PostgreSQL with a certificate of our CA for its name, and the role."""
    with postgres_cluster(50, {}) as cluster:
        primary = cluster.primary
        for source, name in zip(ours.issue(NAME), ("server.crt", "server.key"), strict=True):
            (primary.folder / name).write_bytes(source.read_bytes())
        primary.sql("SELECT pg_reload_conf()")
        primary.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        primary.sql(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        yield cluster


def test_a_verified_server_is_asked(server: Cluster, ours: Authority, tmp_path: Path) -> None:
    reach = f"{NAME}={LOOPBACK}:{server.primary.port}"
    told, findings = examined(tmp_path, VERIFIED, reach, DATABASE_CA_FILE=str(ours.certificate))
    assert told == 1 and not {"PD112", "PD226", "PD227"} & {finding.code for finding in findings}


def test_another_ca_refuses_the_same_server(server: Cluster, strangers: Authority, tmp_path: Path) -> None:
    reach = f"{NAME}={LOOPBACK}:{server.primary.port}"
    begun = server.primary.log_size()
    told, findings = examined(tmp_path, VERIFIED, reach, DATABASE_CA_FILE=str(strangers.certificate))
    assert told == 0 and "its certificate is refused: " in one(findings, "PD112").message
    assert "authorized" not in server.primary.log_since(begun)


def test_without_a_ca_the_public_roots_decide(
    server: Cluster, ours: Authority, strangers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = f"{NAME}={LOOPBACK}:{server.primary.port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.certificate))  # the public roots of this machine
    assert examined(tmp_path, PUBLIC, reach)[0] == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(strangers.certificate))
    told, findings = examined(tmp_path, PUBLIC, reach)
    assert told == 0 and one(findings, "PD112")


@pytest.mark.parametrize("kind", ["configmap", "secret"])
def test_the_ca_comes_from_the_cluster(
    server: Cluster,
    ours: Authority,
    strangers: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    answers = {**VERIFIED, "database_ca": f"{kind}/db-ca"}
    reach = f"{NAME}={LOOPBACK}:{server.primary.port}"
    for authority, expected in ((ours, 1), (strangers, 0)):
        data = {"ca.crt": authority.certificate.read_text()}
        kept = {"permify-database": secret(password=PASSWORD)}
        state: dict[str, Any] = {
            "context": "here",
            "namespace": "permify",
            "pods": [pod("permify-0", {"permify": "ghcr.io/permify/permify:v1.7.3"}, ready=False)],
            "forwards": {"permify-0": {"3476": 1}},
            "secrets": {**kept, **({"db-ca": secret(**data)} if kind == "secret" else {})},
            "configmaps": {"db-ca": data} if kind == "configmap" else {},
        }
        with monkeypatch.context() as patched:
            patched.setenv("PATH", Fake(tmp_path / "bin", "kubectl", state).path)
            told, findings = examined(tmp_path, answers, reach, kubectl=True)
        assert told == expected, findings
        assert ("PD112" in {finding.code for finding in findings}) != bool(expected)


def test_without_the_ca_nobody_is_asked(ours: Authority, tmp_path: Path) -> None:
    impostor = Impostor("clear", ours.issue(NAME))
    with impostor.up() as port:
        reach = f"{NAME}={LOOPBACK}:{port}"
        _, findings = examined(tmp_path, VERIFIED, reach)
        assert one(findings, "PD226").fix == "set DATABASE_CA_FILE"
        empty = tmp_path / "empty.crt"
        for content, words in (("", "holds no certificate"), (None, "cannot be read")):
            if content is not None:
                empty.write_text(content)
            else:
                empty.unlink()
            _, findings = examined(tmp_path, VERIFIED, reach, DATABASE_CA_FILE=str(empty))
            assert words in one(findings, "PD226").message
    assert (impostor.logins, bytes(impostor.got)) == (0, b"")


def test_one_stranger_does_not_cost_the_other_questions(
    server: Cluster, ours: Authority, strangers: Authority, tmp_path: Path
) -> None:
    replica = "db-replica.example.com"
    impostor = Impostor("clear", strangers.issue(replica))
    with impostor.up() as port:
        told, findings = examined(
            tmp_path,
            {**VERIFIED, "replica_hosts": replica},
            f"{NAME}={LOOPBACK}:{server.primary.port}",
            f"{replica}={LOOPBACK}:{port}",
            DATABASE_CA_FILE=str(ours.certificate),
        )
    assert told == 1 and impostor.logins == 0
    assert f"the replica {replica}:5432 is not trusted" in one(findings, "PD112").message


# PgCat


@pytest.mark.parametrize("asks", ["clear", "scram"])
def test_who_answers_in_pgcats_place_gets_no_password_in_clear(tmp_path: Path, asks: Asks) -> None:
    impostor = Impostor(asks)
    with impostor.up() as port:
        _, findings = examined(tmp_path, POOLED, f"pgcat={LOOPBACK}:{port}")
    assert impostor.logins
    assert_nothing_secret(impostor)
    if asks == "clear":
        assert "asks for the password in clear" in one(findings, "PD112").message


@pytest.mark.parametrize("certificate", ["none", "stranger", "name"])
def test_who_answers_in_pgcats_place_without_its_certificate_gets_no_login(
    ours: Authority, strangers: Authority, tmp_path: Path, certificate: str
) -> None:
    shown = {"none": None, "stranger": strangers.issue(PGCAT_NAME), "name": ours.issue("pgcat.other.svc")}
    impostor = Impostor("md5", shown[certificate])
    with impostor.up() as port:
        _, findings = examined(
            tmp_path, TLS_POOLED, f"pgcat={LOOPBACK}:{port}", PGCAT_CA_FILE=str(ours.certificate)
        )
    assert (impostor.logins, bytes(impostor.got)) == (0, b"")
    found = one(findings, "PD112")
    assert found.message.startswith(f"PgCat at {LOOPBACK}:{port} is not trusted and got no password: ")
    assert "PD301" not in {finding.code for finding in findings}


@pytest.mark.parametrize("source", ["variable", "cluster", "nowhere"])
def test_pgcat_with_its_certificate_is_asked(
    server: Cluster, ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    answers = {"topology": "standalone", **EXTERNAL, "client_tls": "cert-manager", "client_tls_issuer": "ca"}
    stack = Stack(server, answers, pgcat_program("pgcat"), tmp_path / "deployment", tmp_path / "live")
    stack.password = PASSWORD
    stack.pgcat_tls = tmp_path / "pgcat-tls"
    stack.pgcat_tls.mkdir()
    for file, name in zip(ours.issue(PGCAT_NAME), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(file, stack.pgcat_tls / name)
    shutil.copy(ours.certificate, stack.pgcat_tls / "ca.crt")
    (stack.secrets / "database_password").write_text(PASSWORD)
    (stack.secrets / "pgcat_admin_password").write_text(PASSWORD)
    more = {"PGCAT_CA_FILE": str(ours.certificate)} if source == "variable" else {}
    if source == "cluster":
        kept = {"pgcat-tls": secret(**{"ca.crt": ours.certificate.read_text()})}
        state = {"context": "here", "namespace": "permify", "pods": [], "forwards": {}, "secrets": kept}
        monkeypatch.setenv(
            "PATH", f"{Fake(tmp_path / 'bin', 'kubectl', state).path}{os.pathsep}{os.environ['PATH']}"
        )
    with stack.pgcat(ready=False) as pgcat:
        pgcat.process.wait_until(lambda: listens(pgcat.port))
        _, findings = examined(
            tmp_path, answers, f"pgcat={LOOPBACK}:{pgcat.port}", kubectl=source == "cluster", **more
        )
    codes = {finding.code for finding in findings}
    assert not {"PD102", "PD112", "PD301"} & codes, findings
    assert ("PD226" in codes) == (source == "nowhere")


# Permify


def test_permifys_key_follows_no_redirect(tmp_path: Path) -> None:
    other = HttpImpostor()
    with other.up() as elsewhere:
        permify = HttpImpostor(f"http://{LOOPBACK}:{elsewhere}/")
        with permify.up() as port:
            examined(tmp_path, POOLED, f"permify={LOOPBACK}:{port}")
    assert other.got == []
    assert ("/healthz", "") in permify.got
    assert any(authorization for path, authorization in permify.got if path != "/healthz")
