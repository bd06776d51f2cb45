"""Who may call Permify: what is rendered for preshared keys and for none, and what hands may make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases import (
    CHART_ENVIRONMENT,
    COMPOSE,
    COMPOSE_ENVIRONMENT,
    DIRECT,
    DOCKER,
    HELM,
    PERMIFY,
    PERMIFY_POD,
    POD_ENVIRONMENT,
    SIDECAR,
    STANDALONE,
    VALUES,
    edit,
    findings,
    one,
    rendered,
)
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import make_secrets
from rendering import render

NONE = {"authn": "none"}
CLOSED = {**NONE, "cors_allowed_origins": "https://app.example.com"}
ELSEWHERE = {"permify_install": "none"}
SECRETS = {"secrets": "external-secrets"}
CODES = ("PS319", "PS32", "PS44", "PS45", "PS7", "PS82")
POLICIES, SERVICE = "kubernetes/network-policies.yaml", "kubernetes/permify-service.yaml"
EXTERNAL = "kubernetes/external-secrets.yaml"
CLIENTS = r"(?<=    - from:\n)        - podSelector: \{\} # any pod of this namespace\n"
ORIGINS = r"    cors_allowed_origins: .*\n"
KEYS = (
    r" *- name: PERMIFY_AUTHN_PRESHARED_KEYS\n +valueFrom:\n +secretKeyRef:\n"
    r" +name: permify-authn\n +key: keys\n"
)
HAND_WRITTEN = (
    "- name: PERMIFY_AUTHN_PRESHARED_KEYS\n{0}  valueFrom: {{secretKeyRef: {{name: mine, key: keys}}}}\n"
)
ROUTE = """---
apiVersion: {0}
kind: {1}
metadata: {{name: shop, namespace: permify}}
spec: {2}
"""


def with_object(api: str, kind: str, spec: str) -> tuple[str, str, str]:
    return SERVICE, r"\Z", ROUTE.format(api, kind, spec)


@pytest.mark.parametrize(
    ("answers", "changes", "expected"),
    [
        *(({**answers}, [], set()) for answers in (STANDALONE, SIDECAR, DIRECT, HELM, DOCKER)),
        *(({**answers, **NONE}, [], {"PS321"}) for answers in (STANDALONE, SIDECAR, DIRECT, HELM, DOCKER)),
        *(({**answers, **CLOSED}, [], set()) for answers in (STANDALONE, SIDECAR, DIRECT, HELM, DOCKER)),
        # deployed elsewhere: only permify.yaml is there to judge, and its container may get keys of its own
        *(({**answers, **ELSEWHERE}, [], {"PS321"}) for answers in (STANDALONE, SIDECAR, DIRECT)),
        *(
            ({**answers, **ELSEWHERE, "cors_allowed_origins": "https://app.example.com"}, [], set())
            for answers in (STANDALONE, SIDECAR, DIRECT)
        ),
        ({**STANDALONE, **ELSEWHERE, "cors_allowed_origins": "*"}, [], {"PS321"}),
        (
            {**SIDECAR, **ELSEWHERE},
            [(PERMIFY, "^database:", "authn: {enabled: true, method: preshared}\ndatabase:")],
            set(),
        ),
        ({**DIRECT, **ELSEWHERE}, [(PERMIFY, "enabled: true\n    port", "enabled: false\n    port")], set()),
        ({**STANDALONE, "cors_allowed_origins": "*"}, [], set()),
        ({**HELM, **NONE, "cors_allowed_origins": "*"}, [], {"PS321"}),
        # the keys that are rendered
        (DOCKER, [(COMPOSE, r"    env_file: .*\n", "")], {"PS319"}),
        *(
            (DOCKER, [(COMPOSE, r"env_file: .*", f"env_file: {written}")], set())
            for written in (
                "./secrets/permify.env",
                "[{path: ./secrets/permify.env}]",
                "[{path: ./secrets/permify.env, required: true}]",
                "[{path: ./secrets/permify.env, required: true, format: raw}]",
            )
        ),
        (
            DOCKER,
            [(PERMIFY, "  enabled: true\n  method: preshared", "  method: preshared")],
            {"PS320"},
        ),
        (DOCKER, [(COMPOSE, r"secrets/permify\.env\]", "secrets/permify.env, ./more.env]")], {"PS450"}),
        (DOCKER, [(COMPOSE, r"\./secrets/permify\.env", "./keys.env")], {"PS450"}),
        (
            DOCKER,
            [(COMPOSE, COMPOSE_ENVIRONMENT, "      PERMIFY_AUTHN_PRESHARED_KEYS: ${KEYS:?}\n")],
            {"PS446"},
        ),
        (STANDALONE, [(PERMIFY_POD, KEYS, "")], {"PS319"}),
        (STANDALONE, [(PERMIFY_POD, r"name: permify-authn", "name: permify-database")], set()),
        (
            STANDALONE,
            [
                (
                    PERMIFY_POD,
                    r"name: permify-authn\n( +)key: keys",
                    "name: permify-database\n                  key: password",
                )
            ],
            {"PS445"},
        ),
        (
            STANDALONE,
            [(PERMIFY_POD, POD_ENVIRONMENT, "            " + HAND_WRITTEN.format(" " * 12))],
            {"PS446"},
        ),
        (HELM, [(VALUES, CHART_ENVIRONMENT, "  " + HAND_WRITTEN.format("  "))], {"PS446"}),
        (HELM, [(VALUES, KEYS, "")], {"PS319"}),
        (
            HELM,
            [(VALUES, "    enabled: true\n    method: preshared", "    method: preshared")],
            {"PS320"},
        ),
        (
            HELM,
            [(VALUES, "name: permify-authn\n +key: keys", "name: permify-database\n        key: password")],
            {"PS445"},
        ),
        ({**STANDALONE, **SECRETS}, [(EXTERNAL, "secretKey: keys", "secretKey: key")], {"PS444"}),
        (
            {**HELM, **SECRETS},
            [(EXTERNAL, "target:\n    name: permify-authn", "target:\n    name: x")],
            {"PS444"},
        ),
        (
            STANDALONE,
            [(PERMIFY_POD, r"valueFrom:\n +secretKeyRef:\n +name: permify-authn\n +key: keys", "value: abc")],
            {"PS703"},
        ),
        (DOCKER, [(".gitignore", "/secrets/", "/secret/")], {"PS705"}),
        (
            DOCKER,
            [(PERMIFY, "  method: preshared", "  method: preshared\n  preshared: {keys: [a]}")],
            {"PS706"},
        ),
        # origins
        (DOCKER, [(PERMIFY, ORIGINS, "    cors_allowed_origins: []\n")], {"PS323"}),
        (DOCKER, [(PERMIFY, ORIGINS, "    cors_allowed_origins: ''\n")], {"PS323"}),
        ({**DOCKER, **CLOSED}, [(PERMIFY, ORIGINS, "    cors_allowed_origins: []\n")], {"PS321", "PS323"}),
        (
            {**DOCKER, **CLOSED},
            [(PERMIFY, ORIGINS, "    cors_allowed_origins: ['*', 'https://a.b']\n")],
            {"PS321"},
        ),
        (
            {**DOCKER, **NONE},
            [(PERMIFY, "    enabled: true\n    port", "    enabled: false\n    port")],
            set(),
        ),
        (
            {**DOCKER, **NONE},
            [(COMPOSE, COMPOSE_ENVIRONMENT, "      PERMIFY_HTTP_CORS_ALLOWED_ORIGINS: https://a.b,x://c\n")],
            set(),
        ),
        (
            {**DOCKER, **CLOSED},
            [(COMPOSE, COMPOSE_ENVIRONMENT, "      PERMIFY_HTTP_CORS_ALLOWED_ORIGINS: '*'\n")],
            {"PS321"},
        ),
        (
            {**DOCKER, **NONE},
            [(COMPOSE, COMPOSE_ENVIRONMENT, "      PERMIFY_HTTP_CORS_ALLOWED_ORIGINS: ''\n")],
            {"PS321"},
        ),
        (
            {**DOCKER, **NONE},
            [(COMPOSE, COMPOSE_ENVIRONMENT, "      PERMIFY_HTTP_CORS_ALLOWED_ORIGINS: ${ORIGINS}\n")],
            set(),
        ),
        (
            DOCKER,
            [(PERMIFY, ORIGINS, "    cors_allowed_origins: [https://a.b/, a.b, 'http://[::1]:80']\n")],
            {"PS324"},
        ),
        (
            {**HELM, **NONE},
            [(VALUES, "^app:", "app:\n  server: {http: {cors_allowed_origins: []}}")],
            {"PS321"},
        ),
        (
            {**HELM, **NONE},
            [(VALUES, "^app:", "app:\n  server: {http: {cors_allowed_origins: [x://y]}}")],
            set(),
        ),
        # others that reach it
        ({**DOCKER, **CLOSED}, [(COMPOSE, "PERMIFY_BIND:-127.0.0.1", "PERMIFY_BIND:-10.0.0.1")], {"PS322"}),
        (
            {**DOCKER, **CLOSED},
            [(COMPOSE, r"\$\{PERMIFY_BIND:-127.0.0.1\}:3476", "3476")],
            {"PS322", "PS821"},
        ),
        ({**DOCKER, **CLOSED}, [(COMPOSE, r"\$\{PERMIFY_BIND:-127.0.0.1\}:3476", "[::1]:3476")], set()),
        (DOCKER, [(COMPOSE, "PERMIFY_BIND:-127.0.0.1", "PERMIFY_BIND:-10.0.0.1")], set()),
        ({**STANDALONE, **CLOSED, "network_policies": False}, [], {"PS322"}),
        ({**HELM, **CLOSED, "network_policies": False}, [], {"PS322"}),
        ({**STANDALONE, "network_policies": False}, [], set()),
        ({**STANDALONE, **CLOSED}, [(SERVICE, "^spec:", "spec:\n  type: LoadBalancer")], {"PS322"}),
        ({**SIDECAR, **CLOSED}, [(SERVICE, "^spec:", "spec:\n  type: NodePort")], {"PS322"}),
        ({**STANDALONE, **CLOSED}, [(SERVICE, "^spec:", "spec:\n  externalIPs: [10.0.0.1]")], {"PS322"}),
        ({**STANDALONE, **CLOSED}, [(SERVICE, "^spec:", "spec:\n  type: ClusterIP")], set()),
        (STANDALONE, [(SERVICE, "^spec:", "spec:\n  type: LoadBalancer")], set()),
        ({**HELM, **CLOSED}, [(VALUES, "^app:", "service: {type: LoadBalancer}\napp:")], {"PS322"}),
        ({**HELM, **CLOSED}, [(VALUES, "^app:", "ingress: {enabled: true}\napp:")], {"PS322"}),
        (
            {**STANDALONE, **CLOSED},
            [with_object("networking.k8s.io/v1", "Ingress", "{defaultBackend: {service: {name: permify}}}")],
            {"PS322"},
        ),
        (
            {**STANDALONE, **CLOSED},
            [with_object("networking.k8s.io/v1", "Ingress", "{defaultBackend: {service: {name: shop}}}")],
            set(),
        ),
        (
            {**STANDALONE, **CLOSED},
            [
                with_object(
                    "gateway.networking.k8s.io/v1",
                    "GRPCRoute",
                    "{rules: [{backendRefs: [{name: permify, port: 3478}]}]}",
                )
            ],
            {"PS322"},
        ),
        (
            {**STANDALONE, **CLOSED},
            [
                with_object(
                    "networking.istio.io/v1",
                    "VirtualService",
                    "{http: [{route: [{destination: {host: permify.permify.svc}}]}]}",
                )
            ],
            {"PS322"},
        ),
    ],
)
def test_who_may_call(answers, changes, expected):
    files = rendered(answers)
    for path, old, new in changes:
        files = edit(files, path, old, new)
    found = findings(files, *CODES)
    assert {finding.code for finding in found} == expected, found
    for finding in found:
        assert "\n" not in finding.message + finding.fix and finding.fix


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, HELM])
def test_a_policy_that_is_open_to_every_namespace(answers):
    files = edit(rendered(answers, **CLOSED), POLICIES, CLIENTS, "        - namespaceSelector: {}\n")
    assert "NetworkPolicy permify opens it to every namespace" in one(files, "PS322").message
    files = edit(rendered(answers), POLICIES, CLIENTS, "        - namespaceSelector: {}\n")
    assert not findings(files, "PS322")
    some = "        - namespaceSelector: {matchLabels: {team: shop}}\n"
    assert not findings(edit(rendered(answers, **CLOSED), POLICIES, CLIENTS, some), "PS322")


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, DIRECT])
def test_what_is_said_where_permify_is_deployed_elsewhere(answers):
    found = one(rendered(answers, **ELSEWHERE), "PS321")
    assert (found.severity, found.path) == ("warning", PERMIFY)
    for words in ("authn none", "CORS *", "deployed elsewhere", "its own environment"):
        assert words in found.message


def test_where_permify_bind_opens_it():
    files = {**rendered(DOCKER, **CLOSED), ".env": "# ours\nCOMPOSE_PROJECT_NAME=x\nPERMIFY_BIND=0.0.0.0\n"}
    found = one(files, "PS322")
    assert (found.path, found.line) == (".env", 3) and "0.0.0.0" in found.message
    for harmless in ("127.0.0.1", "localhost", "::1"):
        files[".env"] = f"PERMIFY_BIND={harmless}\n"
        assert not findings(files, "PS322")


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    deploy = render(tmp_path / "deploy")
    make_secrets(Reading.load(deploy))
    return deploy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("PERMIFY_AUTHN_PRESHARED_KEYS=\n", "empty key"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16},\n", "empty key"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}, {'b' * 16}\n", "no caller can send"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 15}é\n", "no caller can send"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}$HOME\n", "no caller can send"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16},{'b' * 15}\n", "can be guessed"),
        (
            f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}\nPERMIFY_DATABASE_URI=x\n",
            "sets another variable in line 2",
        ),
        (b"\xff", "not UTF-8"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}\n", ""),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16},{'b' * 40}==", ""),
        (f"# ours\nPERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}\n", "line 1"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS='{'a' * 16},{'b' * 16}'\n", "quotes"),
        (f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 16}\r\n", "carriage return"),
    ],
)
def test_what_the_file_of_keys_holds(content: str | bytes, words: str, docker: Path) -> None:
    file = docker / "secrets/permify.env"
    file.chmod(0o644)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(0o444)
    found = [finding for finding in run_checks(Reading.load(docker)) if finding.path.startswith("secrets/")]
    if words:
        (finding,) = found
        assert (finding.code, finding.path) == ("PS829", "secrets/permify.env")
        assert words in finding.message and finding.fix
        assert "aaa" not in finding.message + finding.fix
        assert finding.line == (2 if "line 2" in words else 1)
    else:
        assert found == []


def test_keys_in_a_file_that_is_committed(docker: Path) -> None:
    compose = docker / "compose.yaml"
    compose.write_text(compose.read_text().replace("./secrets/permify.env", "./keys.env"))
    (docker / "keys.env").write_text(f"PERMIFY_AUTHN_PRESHARED_KEYS={'a' * 32}\n")
    of_permify, of_the_probe = run_checks(Reading.load(docker))
    for finding in (of_permify, of_the_probe):
        assert finding.code == "PS705" and finding.message.startswith("keys.env is not in .gitignore")
    (docker / ".gitignore").write_text("/secrets/\n/*.env\n")
    assert run_checks(Reading.load(docker)) == []
