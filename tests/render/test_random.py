"""Random answers either render a deployment without errors or are refused in one line; they never crash."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from draws import examples
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import Refused, render

hosts = st.sampled_from(
    [
        *("db", "db-1.example.com", "db-1.example.com:6543", "10.0.0.5", "10.0.0.6:5433", "DB", "db_1"),
        *("fd00::10", "[FD00:0::0010]", "[fd00::11]:5433", "[fd00::12:5432]", "2001:db8:0:1:1:1:1:1"),
    ]
)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
networks = st.sampled_from(["10.0.0.0/24", "192.168.0.0/16", "fd00::/8", "FD00::/64", "0.0.0.0/0", "::/0"])

TYPED_KEYS = [
    *("primary_host", "replica_hosts", "database_name", "database_user", "namespace", "client_namespaces"),
    *("database_cidrs", "secret_store", "pgcat_image", "permify_image", "pgcat_memory", "permify_cpu"),
    *("database_labels", "otlp_endpoint", "database_ca", "priority_class", "dns_cidrs"),
    *("topology", "pooling", "ip_family", "watch", "permify_replicas", "drain_seconds", "advanced"),
    *("authn", "cors_allowed_origins"),
]

plausible = st.fixed_dictionaries(
    {
        "topology": st.sampled_from(["docker", "standalone", "sidecar"]),
        "database": st.just("external"),
        "primary_host": hosts,
    },
    optional={
        "pooling": st.sampled_from(["pgcat", "direct"]),
        "replica_hosts": st.lists(hosts, max_size=4).map(",".join),
        "database_name": names,
        "database_user": names,
        "postgres_max_connections": st.integers(1, 2000),
        "other_connections": st.integers(0, 200),
        "permify_replicas": st.integers(1, 40),
        "permify_max_replicas": st.integers(0, 60),
        "pgcat_replicas": st.integers(1, 10),
        "pgcat_max_replicas": st.integers(0, 12),
        "namespace": labels,
        "client_namespaces": st.lists(labels, max_size=3).map(",".join),
        "database_cidrs": st.lists(networks, max_size=3).map(",".join),
        "secrets": st.sampled_from(["existing", "external-secrets"]),
        "permify_install": st.sampled_from(["manifests", "helm", "none"]),
        "authn": st.sampled_from(["preshared", "none"]),
        "cors_allowed_origins": st.sampled_from(["", "*", "https://a.example", "http://[::1]:3000, x://y"]),
        "monitoring": st.sampled_from(["none", "prometheus", "prometheus-operator"]),
        "pool_mode": st.sampled_from(["transaction", "session"]),
        "writer_pool_size": st.integers(0, 30),
        "reader_pool_size": st.integers(0, 30),
        "primary_reads": st.booleans(),
        "permify_max_connections": st.integers(0, 24),
        "drain_seconds": st.integers(1, 900),
        "database_tls": st.sampled_from(["disable", "require", "verify-full"]),
        "network_policies": st.booleans(),
        "ip_family": st.sampled_from(["ipv4", "ipv6"]),
        "client_tls": st.sampled_from(["none", "cert-manager"]),
        "client_tls_issuer": st.sampled_from(["", "private-ca"]),
        "database_policy": st.sampled_from(["network", "cilium"]),
        "watch": st.booleans(),
        "database_ca": st.sampled_from(["", "configmap/roots", "secret/db-ca"]),
        "database_namespace": labels,
        "database_labels": st.sampled_from(["", "app=postgres", "cnpg.io/cluster=db,role=primary"]),
        "dns_cidrs": st.lists(networks, max_size=2).map(",".join),
        "monitoring_namespace": labels,
        "otlp_endpoint": st.sampled_from(
            ["", "collector:4317", "a.b:4317", "otel.example.com:443", "[fd00::5]:4317"]
        ),
        "postgres_metrics": st.booleans(),
        "probe": st.booleans(),
        "runbook_url": st.sampled_from(["", "https://git.example.com/team/deploy/-/blob/main/README.md"]),
        "distributed": st.booleans(),
        "priority_class": labels,
        "forge": st.sampled_from(["none", "github"]),
    },
)

anything = st.one_of(
    st.text(max_size=200),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(
        [
            "{{ 7 * 7 }}",
            "{% raw %}",
            "'; DROP ROLE permify; --",
            'x"]\n[general]\nhost = "evil',
            "a: b\nc: d",
            "${database_password}",
            "a" * 10_000,
            "naïve.example.com",
            *(
                "::",
                "[::1",
                "fe80::1%eth0",
                "fd00::10:5432",
                "::ffff:10.0.0.1",
                "[fd00::1]:5432,fd00::1",
                "[]:1",
            ),
            "db\u202eexample",
            "db\n",
            "-1",
            "1e3",
            "0x10",
            " 5 ",
            "null",
            "../../etc/passwd",
        ]
    ),
)


def _outcome(answers: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        deployment = Reading.load(render(folder / "deploy", answers))
    except Refused as refused:
        event("refused")
        line = str(refused)
        assert "\n" not in line
        assert re.search(r"refuses \S+?: |refuses (budget|session mode)", line), line
        assert len(line) < 1000, line
    else:
        event("rendered")
        errors = [finding for finding in run_checks(deployment) if finding.severity == "error"]
        assert not errors, errors
    finally:
        shutil.rmtree(folder)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plausible)
def test_plausible_answers_render_or_are_refused(answers: dict[str, Any]) -> None:
    _outcome(answers)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plausible,
    st.sampled_from(TYPED_KEYS),
    anything,
)
def test_any_value_renders_or_is_refused(answers: dict[str, Any], key: str, value: Any) -> None:
    _outcome({**answers, key: value})
