"""TLS between Permify and PgCat, from the rendered files, with a CA made here in the place of cert-manager.

Permify and psql call PgCat by the name that the files call, which a namespace of their own has in /etc/hosts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.repeats import LATEST, drawn, repeats
from live.stack import (
    CHECKS,
    EXTERNAL,
    MAX_CONNECTIONS,
    TLS_FOLDER,
    PgCat,
    Stack,
    pgcat_program,
    require_programs,
)
from live.support import LOOPBACK, Cluster, NotReady, postgres_cluster, program, run

pytestmark = pytest.mark.timeout(300)

ANSWERS = {
    "topology": "standalone",
    **EXTERNAL,
    "client_tls": "cert-manager",
    "client_tls_issuer": "private-ca",
    "writer_pool_size": 4,
    "reader_pool_size": 4,
}
NAME = "pgcat.permify.svc"
SOON_SECONDS = 8
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    require_programs()
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`permify` and `psql` for which the name of the Service is this machine."""
    unshare = [program("unshare"), "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{LOOPBACK} localhost {NAME}\n")
    folder = tmp_path / "by-name"
    folder.mkdir()
    for name in ("permify", "psql"):
        wrapper = folder / name
        inner = f'mount --bind {hosts} /etc/hosts && exec {program(name)} "$@"'
        wrapper.write_text(f"#!/bin/sh\nexec {' '.join(unshare)} sh -c '{inner}' sh \"$@\"\n")
        wrapper.chmod(0o755)
    try:
        run([str(folder / "psql"), "--version"])
    except AssertionError as error:
        pytest.skip(f"no mount namespaces here: {error}")
    monkeypatch.delenv("PERMIFY_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True)
class Issuer:
    """A CA that writes what cert-manager writes into the Secret."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, certificate: dict[str, Any], folder: Path, names: list[str] | None = None) -> None:
        """Key and certificate as the Certificate wants them, exchanged at once, as the kubelet does."""
        spec = certificate["spec"]
        assert spec["privateKey"] == {
            "algorithm": "ECDSA",
            "size": 256,
            "encoding": "PKCS8",
            "rotationPolicy": "Always",
        }
        data = folder.with_name(f"{folder.name}-{len(list(folder.parent.iterdir()))}")
        data.mkdir()
        names = [f"DNS:{name}" for name in names or spec["dnsNames"]]
        _certificate(
            data / "tls",
            *("-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"), "-subj", "/"),
            *("-addext", f"subjectAltName=critical,{','.join(names)}"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
        )
        shutil.copy(self.certificate, data / "ca.crt")
        link = data.with_name(f"{data.name}-link")
        link.symlink_to(data)
        link.rename(folder)


def _certificate(name: Path, *options: str) -> None:
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    request = [program("openssl"), "req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.crt"]
    run([*request, *options])
    assert "BEGIN PRIVATE KEY" in Path(f"{name}.key").read_text()  # PKCS8


@pytest.fixture
def issuer(tmp_path: Path) -> Callable[[str], Issuer]:
    def made(name: str) -> Issuer:
        folder = tmp_path / name
        folder.mkdir()
        _certificate(folder / "ca", "-subj", f"/CN={name}")
        return Issuer(folder)

    return made


@pytest.fixture
def ours(issuer: Callable[[str], Issuer]) -> Issuer:
    return issuer("ours")


@pytest.fixture(params=["pgcat", LATEST])
def stack(request: pytest.FixtureRequest, servers: Cluster, ours: Issuer, tmp_path: Path) -> Stack:
    """Migrated, with PgCat's certificate, and Permify told to trust the CA of it."""
    binary = pgcat_program(str(request.param))
    stack = Stack(servers, ANSWERS, binary, tmp_path / "deployment", tmp_path / "live")
    stack.pgcat_host = NAME
    stack.pgcat_tls = tmp_path / "secret" / "pgcat-tls"
    stack.pgcat_tls.parent.mkdir()
    ours.issue(certificate(stack), stack.pgcat_tls)
    trust(stack, ours)
    toml = stack.rendered / "pgcat" / "pgcat.toml"
    text = toml.read_text()
    assert "log_client_connections = false" in text
    toml.write_text(text.replace("log_client_connections = false", "log_client_connections = true"))
    stack.prepare()
    return stack


def certificate(stack: Stack) -> dict[str, Any]:
    text = (stack.rendered / "kubernetes" / "pgcat-certificate.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def trust(stack: Stack, issuer: Issuer) -> None:
    stack.ca_file = issuer.certificate  # read as root: what the tests make is nobody else's to read
    stack.replaced[f"{TLS_FOLDER}/ca.crt"] = str(issuer.certificate)


def presented(port: int, issuer: Issuer) -> bytes:
    """The certificate that PgCat shows to a new client."""
    context = ssl.create_default_context(cafile=str(issuer.certificate))
    with socket.create_connection((LOOPBACK, port), 5) as plain:
        plain.sendall(SSL_REQUEST)
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain, server_hostname=NAME) as encrypted:
            shown = encrypted.getpeercert(binary_form=True)
    assert shown
    return shown


def alerts(pgcat: PgCat) -> int:
    """How many clients have refused PgCat's certificate."""
    return len(re.findall("TLS negotiation failed: .*AlertReceived", pgcat.process.log.read_text()))


def test_permify_reaches_pgcat_over_tls_alone(stack: Stack, ours: Issuer) -> None:
    with stack.pgcat() as pgcat:
        with stack.started("wait-for-migration", pgcat.port) as wait:
            assert wait.wait(SOON_SECONDS) == 0, wait.log.read_text()
        with stack.permify(0, pgcat.port) as permify:
            permify.write(stack.cluster)
            assert all(permify.check(check) == check.allowed for check in CHECKS)
        log = pgcat.process.log.read_text()
        assert len(re.findall(r"connected \(TLS\)", log)) >= 4  # the probe, the wait, both pools
        assert "(plain)" not in log
        # Nobody can be made to ask for TLS.
        assert stack.connect(pgcat.port, "permify_writer").execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("wrong", drawn(["issuer", "name"], {"issuer"}))
def test_another_certificate_is_refused(
    stack: Stack, ours: Issuer, issuer: Callable[[str], Issuer], wrong: str
) -> None:
    assert stack.pgcat_tls
    if wrong == "issuer":
        trust(stack, issuer("foreign"))
    else:
        ours.issue(certificate(stack), stack.pgcat_tls, ["pgcat.elsewhere.svc"])
    with stack.pgcat(ready=False) as pgcat:
        if wrong == "name":
            done = stack.ready(pgcat.port)
            assert done.returncode == 1 and f'does not match host name "{NAME}"' in done.stderr
        with stack.started("wait-for-migration", pgcat.port) as wait:
            wait.wait_until(lambda: "certificate" in wait.log.read_text())
            assert not wait.ended
        refused = alerts(pgcat)
        with pytest.raises(NotReady), stack.permify(0, pgcat.port, seconds=SOON_SECONDS):
            pass
        assert alerts(pgcat) > refused  # Permify does not say why it waits


def test_a_renewed_certificate_is_shown_without_a_restart_or_a_signal(stack: Stack, ours: Issuer) -> None:
    assert stack.pgcat_tls
    with stack.pgcat() as pgcat, stack.permify(0, pgcat.port) as permify:
        permify.write(stack.cluster)
        before = presented(pgcat.port, ours)
        assert presented(pgcat.port, ours) == before
        ours.issue(certificate(stack), stack.pgcat_tls)
        assert presented(pgcat.port, ours) != before
        assert stack.ready(pgcat.port).returncode == 0
        assert all(permify.check(check) == check.allowed for check in CHECKS)
        opened = pgcat.process.log.read_text().count("(TLS)")
        with stack.permify(1, pgcat.port) as another:
            assert all(another.check(check) == check.allowed for check in CHECKS)
        assert pgcat.process.log.read_text().count("(TLS)") > opened
        assert permify.process.stop(signal.SIGTERM)[0] == 0


@repeats
def test_permify_trusts_another_ca_after_a_restart_alone(
    stack: Stack, issuer: Callable[[str], Issuer]
) -> None:
    assert stack.pgcat_tls
    with stack.pgcat() as pgcat:
        file = stack.folder / "mounted.crt"
        shutil.copy(stack.pgcat_tls / "ca.crt", file)
        stack.replaced[f"{TLS_FOLDER}/ca.crt"] = str(file)
        with stack.permify(0, pgcat.port) as permify:
            permify.write(stack.cluster)
            new = issuer("new")
            new.issue(certificate(stack), stack.pgcat_tls)
            shutil.copy(new.certificate, file)
            presented(pgcat.port, new)
            with stack.permify(1, pgcat.port) as another:
                assert all(another.check(check) == check.allowed for check in CHECKS)
            refused = alerts(pgcat)
            pgcat.process.wait_until(lambda: alerts(pgcat) > refused, 75)
            assert not permify.process.ended
