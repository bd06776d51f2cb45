"""`authn` of permify.yaml: PS319 finds just what ends Permify at its start."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubernetes_cases import STANDALONE
from live.support import LOOPBACK, clean_environment, free_port, listens, program, running
from pgcat_stack.checks import run_checks
from pgcat_stack.deployment import Deployment
from rendering import render


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("authn") / "deploy", STANDALONE)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The URL of an OpenID Connect provider."""

    class Provider(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            known = {"issuer": url, "jwks_uri": f"{url}/keys"} if "well-known" in self.path else {"keys": []}
            self.wfile.write(json.dumps(known).encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Provider) as server:
        url = f"http://{LOOPBACK}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield url
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("authn", "starts"),
    [
        ("enabled: false, method: preshared", True),
        ("enabled: true", False),
        ("enabled: true, method: preshared", False),
        ("enabled: true, method: preshared, preshared: {keys: []}", False),
        ("enabled: true, method: preshared, preshared: {keys: [a]}", True),
        ("enabled: true, method: oidc", False),
        ("enabled: true, method: oidc, oidc: {issuer: ISSUER}", False),
        ("enabled: true, method: oidc, oidc: {issuer: ISSUER, backoff_frequency: 5s}", True),
        (
            "enabled: true, method: oidc,"
            " oidc: {issuer: ISSUER, backoff_frequency: 5s, backoff_max_retries: 0}",
            False,
        ),
        (
            "enabled: true, method: oidc,"
            " oidc: {issuer: ISSUER, backoff_frequency: 5s, backoff_interval: 0s}",
            False,
        ),
    ],
)
def test_what_ends_permify_at_its_start(
    authn: str, starts: bool, issuer: str, rendered: Path, tmp_path: Path
) -> None:
    section = f"authn: {{{authn.replace('ISSUER', issuer)}}}\n"
    deploy = shutil.copytree(rendered, tmp_path / "deploy")
    with (deploy / "permify" / "permify.yaml").open("a") as file:
        file.write(section)
    assert starts != any(finding.code == "PS319" for finding in run_checks(Deployment.load(deploy)))

    port = free_port()
    listeners = f"server: {{http: {{enabled: false}}, grpc: {{port: {port}}}}}\n"
    (tmp_path / "permify.yaml").write_text(f"database: {{engine: memory}}\n{listeners}{section}")
    command = [program("permify"), "serve", "--config", str(tmp_path / "permify.yaml")]
    with running(command, tmp_path / "permify.log", clean_environment(HOME=str(tmp_path))) as permify:
        if starts:
            permify.wait_until(lambda: listens(port))
        else:
            permify.wait(within=30)
            assert not listens(port)
