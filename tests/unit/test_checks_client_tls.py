"""TLS between Permify and PgCat: what is rendered, and each part of it broken once."""

from __future__ import annotations

import tomllib

import pytest
import yaml

from cases import DIRECT, DOCKER, STANDALONE, edit, findings, one, rendered

TLS = {**STANDALONE, "client_tls": "cert-manager", "client_tls_issuer": "private-ca"}
HELM = {**TLS, "permify_install": "helm"}
NONE = {**TLS, "permify_install": "none"}
CA = {**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/ca"}
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
VALUES = "permify/values.yaml"
CERTIFICATE = "kubernetes/pgcat-certificate.yaml"
PGCAT_DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
PERMIFY_DEPLOYMENT = "kubernetes/permify-deployment.yaml"


def codes(files):
    return {finding.code for finding in findings(files, "PS2", "PS4", "PS9")}


@pytest.mark.parametrize("secrets", ["existing", "external-secrets"])
@pytest.mark.parametrize("answers", [TLS, HELM, NONE, CA])
def test_the_checks_have_nothing_to_say(answers, secrets):
    assert codes(rendered(answers, secrets=secrets)) == set()


@pytest.mark.parametrize("answers", [TLS, HELM])
def test_the_key_is_pgcat_s_alone(answers):
    files = rendered(answers)
    assert "tls.key" in files[PGCAT]
    texts = [text for path, text in files.items() if "permify" in path]
    assert texts and not any("tls.key" in text for text in texts)
    if answers is TLS:
        pod = yaml.safe_load(files[PERMIFY_DEPLOYMENT])["spec"]["template"]["spec"]
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "pgcat-ca")
        assert volume["secret"] == {"secretName": "pgcat-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}]}


def test_reloader_rolls_permify_and_not_pgcat():
    """PgCat reads a renewed certificate for each new connection; Permify reads the CA when it starts."""
    files = rendered(TLS)
    annotation = "secret.reloader.stakater.com/reload: pgcat-tls"
    assert annotation in files[PERMIFY_DEPLOYMENT]
    assert "reloader" not in files[PGCAT_DEPLOYMENT]
    assert annotation in rendered(HELM)[VALUES]
    assert (
        "reload: permify-database,permify-authn,pgcat-tls"
        in rendered(TLS, secrets="external-secrets")[PERMIFY_DEPLOYMENT]
    )


def test_the_issuer_and_the_names_of_the_service():
    spec = yaml.safe_load(rendered(TLS, namespace="authz")[CERTIFICATE])["spec"]
    assert spec["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "private-ca"}
    assert spec["dnsNames"] == ["pgcat.authz.svc", "pgcat.authz.svc.cluster.local"]


def test_docker_and_direct_have_none():
    for answers in (DOCKER, DIRECT):
        files = rendered({**answers, "client_tls": "cert-manager", "client_tls_issuer": "x"})
        assert CERTIFICATE not in files
        assert PGCAT not in files or "tls_certificate" not in tomllib.loads(files[PGCAT])["general"]


@pytest.mark.parametrize(
    ("answers", "path", "old", "new", "expected"),
    [
        (TLS, PGCAT_DEPLOYMENT, "mountPath: /etc/pgcat-tls", "mountPath: /etc/pgcat-cert", {"PS414"}),
        (TLS, PGCAT, "pgcat-tls/tls.key", "pgcat-key/tls.key", {"PS414"}),
        (TLS, PERMIFY_DEPLOYMENT, "mountPath: /etc/pgcat-tls", "mountPath: /etc/pgcat-ca", {"PS414"}),
        (TLS, PERMIFY_DEPLOYMENT, "path: ca.crt", "path: ca.pem", {"PS414"}),
        (TLS, PERMIFY, "/etc/pgcat-tls/ca.crt", "/etc/pgcat-ca/ca.crt", {"PS414"}),
        (TLS, PERMIFY, "/etc/pgcat-tls/ca.crt", "/etc/ssl/certs/ca-certificates.crt", set()),
        (HELM, VALUES, "mountPath: /etc/pgcat-tls", "mountPath: /etc/pgcat-ca", {"PS414"}),
        (CA, PERMIFY_DEPLOYMENT, "mountPath: /etc/postgresql-ca", "mountPath: /etc/ca", {"PS414"}),
        (CA, "kubernetes/migration-job.yaml", "mountPath: /etc/postgresql-ca", "mountPath: /x", {"PS414"}),
        (TLS, CERTIFICATE, "    - pgcat.permify.svc\n", "", {"PS415"}),
        (TLS, CERTIFICATE, "    - pgcat.permify.svc.cluster.local\n", "", set()),
        (TLS, PERMIFY, "@pgcat.permify.svc:", "@pgcat.permify.svc.cluster.local:", set()),
        (TLS, PERMIFY, "@pgcat.permify.svc:", "@pgcat:", {"PS415"}),
        (TLS, CERTIFICATE, "secretName: pgcat-tls", "secretName: another", set()),  # somebody else's, then
        (TLS, PERMIFY, "sslmode=verify-full", "sslmode=disable", {"PS416"}),
        (TLS, PERMIFY, "sslmode=verify-full", "sslmode=prefer", {"PS416"}),
        (TLS, PERMIFY_DEPLOYMENT, "sslmode=verify-full", "sslmode=disable", {"PS416"}),
        (TLS, PGCAT, "(?m)^tls_certificate.*\ntls_private_key.*\n", "", {"PS408"}),
        (TLS, PGCAT, "(?m)^tls_private_key.*\n", "", {"PS213"}),
    ],
)
def test_a_change(answers, path, old, new, expected):
    assert codes(edit(rendered(answers), path, old, new)) == expected


def test_messages_name_the_file_and_the_host():
    files = edit(rendered(TLS), PERMIFY_DEPLOYMENT, "mountPath: /etc/pgcat-tls", "mountPath: /x")
    assert one(files, "PS414").message == (
        "container wait-for-migration of Deployment permify has nothing mounted at /etc/pgcat-tls/ca.crt, the"
        " sslrootcert of the URI of container wait-for-migration of Deployment permify"
    )
    files = edit(rendered(TLS), CERTIFICATE, "    - pgcat.permify.svc\n", "")
    assert (
        "Permify's writer URI calls pgcat.permify.svc, and the Certificate names pgcat.permify.svc.cluster"
        in one(files, "PS415").message
    )
