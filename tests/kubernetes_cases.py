"""Answers that between them render every manifest, for tests that judge what is applied."""

from __future__ import annotations

from typing import Any

STANDALONE = {"topology": "standalone", "primary_host": "db", "replica_hosts": "r"}
SIDECAR = {**STANDALONE, "topology": "sidecar"}
DIRECT = {**STANDALONE, "pooling": "direct"}
TOPOLOGIES: dict[str, dict[str, Any]] = {"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT}
FULL = {
    "permify_max_replicas": 4,
    "secrets": "external-secrets",
    "distributed": True,
    "watch": True,
    "otlp_endpoint": "collector.monitoring:4317",
    "priority_class": "important",
    "client_namespaces": "shop,desk",
}
OPERATOR = {"monitoring": "prometheus-operator", "monitoring_namespace": "monitoring"}
CASES: dict[str, dict[str, Any]] = {
    **TOPOLOGIES,
    "standalone-full": {
        **STANDALONE,
        **FULL,
        **OPERATOR,
        "database_namespace": "postgresql",
        "pgcat_max_replicas": 4,
        "client_tls": "cert-manager",
        "client_tls_issuer": "private-ca",
    },
    "sidecar-full": {**SIDECAR, **FULL, **OPERATOR, "database_labels": "cnpg.io/cluster=permify"},
    "sidecar-unmonitored": {**SIDECAR, "monitoring": "none"},
    "direct-full": {**DIRECT, **FULL, "database_tls": "verify-full", "database_ca": "configmap/ca"},
    "helm": {**STANDALONE, "permify_install": "helm"},
    "helm-direct": {**DIRECT, "permify_install": "helm"},
    "none": {**STANDALONE, "permify_install": "none", **OPERATOR},
}
COMPONENT = {**SIDECAR, "permify_install": "none", "permify_replicas": 3, **OPERATOR}
