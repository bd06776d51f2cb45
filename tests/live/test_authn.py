"""`authn` of permify.yaml: PS319 finds just what keeps the right clients out."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubernetes_cases import STANDALONE
from live.support import LOOPBACK, clean_environment, free_port, listens, program, running
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import render

REASON = re.compile(
    "must have at least one key|unknown authentication method|OIDC configuration|missing backoff"
)
KEY = "a"
AUDIENCE = "permify"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class Provider:
    """An OpenID Connect provider that signs by a shared key, which Permify takes unless told otherwise."""

    url: str = ""
    secret: bytes = field(default=b"0123456789abcdef0123456789abcdef", repr=False)

    def answer(self, path: str) -> dict[str, object]:
        if "well-known" in path:
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": [{"kty": "oct", "kid": "1", "alg": "HS256", "k": encoded(self.secret)}]}

    def token(self) -> str:
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "test", "exp": int(time.time()) + 600}
        parts = ({"alg": "HS256", "typ": "JWT", "kid": "1"}, claims)
        signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{encoded(hmac.digest(self.secret, signed.encode(), hashlib.sha256))}"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found.answer(self.path)).encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        found.url = f"http://{LOOPBACK}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("authn") / "deploy", STANDALONE, authn="none")


def is_let_in(port: int, bearer: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/tenants/list", "{}", headers)
        return connection.getresponse().status == 200


OIDC = "issuer: ISSUER, audience: permify, backoff_frequency: 5s"


@pytest.mark.parametrize(
    ("authn", "starts", "serves"),
    [
        ("enabled: false, method: preshared", True, True),
        ("enabled: true", False, False),
        ("enabled: true, method: preshared", False, False),
        ("enabled: true, method: preshared, preshared: {keys: []}", False, False),
        ("enabled: true, method: preshared, preshared: {keys: ''}", False, False),
        ("enabled: true, method: preshared, preshared: {keys: [a]}", True, True),
        ("enabled: true, method: preshared, preshared: {keys: 'b,a'}", True, True),
        ("enabled: true, method: oidc", False, False),
        (f"enabled: true, method: oidc, oidc: {{{OIDC}}}", True, True),
        (
            f"enabled: true, method: oidc, oidc: {{{OIDC.replace(', backoff_frequency: 5s', '')}}}",
            False,
            False,
        ),
        (f"enabled: true, method: oidc, oidc: {{{OIDC}, backoff_max_retries: 0}}", False, False),
        (f"enabled: true, method: oidc, oidc: {{{OIDC}, backoff_interval: 0s}}", False, False),
        (f"enabled: true, method: oidc, oidc: {{{OIDC.replace('audience: permify, ', '')}}}", True, False),
        (f"enabled: true, method: oidc, oidc: {{{OIDC}, valid_methods: []}}", True, False),
    ],
)
def test_what_keeps_the_right_clients_out(
    authn: str, starts: bool, serves: bool, provider: Provider, rendered: Path, tmp_path: Path
) -> None:
    section = f"authn: {{{authn.replace('ISSUER', provider.url)}}}\n"
    deploy = shutil.copytree(rendered, tmp_path / "deploy")
    with (deploy / "permify" / "permify.yaml").open("a") as file:
        file.write(section)
    assert serves != any(finding.code == "PS319" for finding in run_checks(Reading.load(deploy)))

    port, grpc_port = free_port(), free_port()
    listeners = f"server: {{http: {{port: {port}}}, grpc: {{port: {grpc_port}}}}}\n"
    (tmp_path / "permify.yaml").write_text(f"database: {{engine: memory}}\n{listeners}{section}")
    command = [program("permify"), "serve", "--config", str(tmp_path / "permify.yaml")]
    environment = clean_environment(HOME=str(tmp_path), PERMIFY_DISTRIBUTED_PORT=str(free_port()))
    with running(command, tmp_path / "permify.log", environment) as permify:
        if starts:
            permify.wait_until(lambda: listens(port))
            bearer = provider.token() if "oidc" in authn else KEY
            assert is_let_in(port, bearer) == serves
        else:
            permify.wait(within=30)
            assert REASON.search(permify.log.read_text())
