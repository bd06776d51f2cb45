"""Passwords written out: each place where one could stand, and the references that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases import DIRECT, DOCKER, HELM, STANDALONE, codes, edit, findings, rendered
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading

FAMILIES = ("PS4", "PS7", "PS8", "PS9")
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
VALUES = "permify/values.yaml"
COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
MIGRATION = "kubernetes/migration-job.yaml"
PERMIFY_POD = "kubernetes/permify-deployment.yaml"
PASSWORD = "hunter2-secret"

REFERENCE = r"valueFrom:\n( {10,}.*\n){3}"
ENVIRONMENT = r"(?<=environment:\n)      PGPASSFILE: .*"
CHANGES = [
    (STANDALONE, PGCAT, r"\$\{database_password\}", PASSWORD, {"PS701"}),
    (STANDALONE, PGCAT, r"\$\{pgcat_admin_password\}", PASSWORD, {"PS701"}),
    (
        STANDALONE,
        PGCAT,
        r"^statement_timeout",
        f'server_password = "{PASSWORD}"\nstatement_timeout',
        {"PS701"},
    ),
    (STANDALONE, PERMIFY, "permify@pgcat", f"permify:{PASSWORD}@pgcat", {"PS702"}),
    (DIRECT, PERMIFY, "permify@db1", f"permify:a/{PASSWORD}@db1", None),
    (STANDALONE, PERMIFY, "sslmode=disable", f"password={PASSWORD}&sslmode=disable", {"PS702"}),
    (HELM, VALUES, "permify@pgcat", f"permify:{PASSWORD}@pgcat", {"PS702"}),
    (DIRECT, MIGRATION, "permify@db1", f"permify:{PASSWORD}@db1", {"PS702"}),
    (DIRECT, MIGRATION, "permify@db1", "permify:$(PGPASSWORD)@db1", {"PS702"}),
    (DOCKER, COMPOSE, "permify@postgres-primary", f"permify:{PASSWORD}@postgres-primary", {"PS702"}),
    (DOCKER, COMPOSE, ENVIRONMENT, f"      PGPASSWORD: {PASSWORD}", {"PS703"}),
    (DOCKER, COMPOSE, ENVIRONMENT, "      PGPASSWORD: 12345", {"PS703"}),
    (DOCKER, COMPOSE, ENVIRONMENT, f"      - PGPASSWORD={PASSWORD}", {"PS703"}),
    (DOCKER, COMPOSE, ENVIRONMENT, f"      PGPASSWORD: ${{PGPASSWORD:-{PASSWORD}}}", {"PS703"}),
    (DOCKER, COMPOSE, ENVIRONMENT, "      PGPASSWORD: ${PGPASSWORD}", set()),
    (DOCKER, COMPOSE, ENVIRONMENT, "      PGPASSWORD: ${PGPASSWORD:?}", set()),
    (DOCKER, COMPOSE, ENVIRONMENT, "      - PGPASSWORD", set()),
    (STANDALONE, PERMIFY_POD, REFERENCE, f"value: {PASSWORD}\n", {"PS703"}),
    (HELM, VALUES, r"valueFrom:\n( {4,}.*\n){3}", f"value: {PASSWORD}\n", {"PS703"}),
    (STANDALONE, "kubernetes/namespace.yaml", r"\Z", "{secret}", {"PS704"}),
    (STANDALONE, KUSTOMIZATION, r"\Z", "secretGenerator:\n  - name: x\n    literals: [a=b]\n", {"PS704"}),
    (DOCKER, ".gitignore", "/secrets/", "/secret/", {"PS705"}),
    (DOCKER, ".gitignore", "/secrets/", "secrets", set()),
    (DOCKER, ".gitignore", "/secrets/", "secrets/*", set()),
    (DOCKER, ".gitignore", "/secrets/", "/secrets/*\n!/secrets/database_password", {"PS705"}),
    (DOCKER, COMPOSE, r"\./secrets/pgcat_admin_password", "./pgcat/start.sh", {"PS705"}),
    (STANDALONE, KUSTOMIZATION, r"\Z", f"  - name: x\n    literals: [PGPASSWORD={PASSWORD}]\n", {"PS706"}),
    (
        STANDALONE,
        PERMIFY,
        "^database:",
        f"authn:\n  preshared:\n    keys: [{PASSWORD}]\ndatabase:",
        {"PS706"},
    ),
    (STANDALONE, "kubernetes/namespace.yaml", r"\Z", "{config}", {"PS706"}),
    (STANDALONE, "postgres/bootstrap.sql", r"(?<= WITH LOGIN)", f" PASSWORD '{PASSWORD}'", {"PS707"}),
]
OBJECT = "---\napiVersion: v1\nmetadata: {name: x}\n"
OBJECTS = {
    "{secret}": f"{OBJECT}kind: Secret\nstringData: {{password: {PASSWORD}}}\n",
    "{config}": f"{OBJECT}kind: ConfigMap\ndata:\n  a.ini: 'password = {PASSWORD}'\n",
}


@pytest.mark.parametrize(("answers", "path", "old", "new", "expected"), CHANGES)
def test_a_change(answers, path, old, new, expected):
    files = edit(rendered(answers), path, old, OBJECTS.get(new, new))
    found = codes(files, *FAMILIES)
    assert "PS702" in found if expected is None else found == expected
    assert not any(PASSWORD in finding.message + finding.fix for finding in findings(files, *FAMILIES))


def test_a_missing_gitignore():
    files = rendered(DOCKER)
    del files[".gitignore"]
    assert codes(files, "PS7") == {"PS705"}


def test_an_encrypted_secret():
    text = OBJECTS["{secret}"].replace(PASSWORD, "ENC[x]") + "sops: {version: 3}\n"
    assert codes(edit(rendered(STANDALONE), "kubernetes/namespace.yaml", r"\Z", text), "PS7") == set()


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "count"),
    [(0o700, 0o444, 0), (0o755, 0o444, 1), (0o700, 0o400, 1), (0o700, 0o666, 1)],
)
def test_modes(tmp_path: Path, folder_mode: int, file_mode: int, count: int):
    for path, text in rendered(DOCKER).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    secret = tmp_path / "secrets" / "database_password"
    secret.parent.mkdir()
    secret.write_text("x")
    secret.chmod(file_mode)
    secret.parent.chmod(folder_mode)
    assert [f.code for f in run_checks(Reading.load(tmp_path)) if f.code[:3] == "PS7"] == ["PS708"] * count
