"""Answers that cannot work end in one line that names the question and the remedy; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from live.repeats import repeats
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import REPOSITORY, Refused, environment, render

STANDALONE = {"topology": "standalone", "primary_host": "db"}
SIDECAR = {"topology": "sidecar", "primary_host": "db"}
EXTERNAL = {"database": "external", "primary_host": "db"}

TABLE: dict[str, dict[str, Any]] = environment().get_template("questions/table.jinja").module.questions  # type: ignore[attr-defined]

ONE_ANSWER: list[tuple[dict[str, Any], str]] = [
    ({"topology": "swarm"}, 'topology: "swarm" is not a choice; answer docker, standalone, sidecar'),
    ({"topology": "Docker"}, "is not a choice"),
    ({"topology": 7}, "is not a choice"),
    ({"pooling": None}, "pooling:"),
    ({"permify_replicas": "many"}, 'permify_replicas: "many" is not a whole number; answer 1 to 1000'),
    ({"permify_replicas": 1.9}, "is not a whole number"),
    ({"permify_replicas": True}, "is not a whole number"),
    ({"permify_replicas": "1_000"}, "is not a whole number"),
    ({"permify_replicas": "١"}, "is not a whole number"),
    ({"permify_replicas": ""}, "is not a whole number"),
    ({"permify_replicas": 0}, "permify_replicas: 0 is out of range; answer 1 to 1000"),
    ({"permify_replicas": -3}, "out of range"),
    ({"permify_replicas": "9" * 5000}, "(cut)"),
    ({"postgres_max_connections": 300000}, "out of range; answer 1 to 262143"),
    ({"watch": "maybe"}, 'watch: "maybe" is neither true nor false'),
    ({"watch": None}, "neither true nor false"),
    ({**EXTERNAL, "primary_host": ""}, "primary_host: is missing"),
    ({**EXTERNAL, "primary_host": "a,b"}, "more than one host"),
    (
        {**STANDALONE, "primary_host": "db_1"},
        "primary_host: db_1 has an underscore, which only topology docker takes",
    ),
    ({**SIDECAR, "replica_hosts": "r,db_1:5433"}, "replica_hosts: db_1 has an underscore"),
    ({**EXTERNAL, "primary_host": "db$1"}, "RFC 1123"),
    ({**EXTERNAL, "primary_host": "-db"}, "RFC 1123"),
    ({**EXTERNAL, "primary_host": "a" * 64}, "RFC 1123"),
    ({**EXTERNAL, "primary_host": "db\nevil"}, "write plain ASCII on one line"),
    ({**EXTERNAL, "primary_host": "postgresql://db/permify"}, "primary_host:"),
    ({**EXTERNAL, "primary_host": "256.1.1.1"}, "not an IPv4 address"),
    ({**EXTERNAL, "primary_host": "[::1]:5432"}, None),
    ({**EXTERNAL, "primary_host": "FD00:0::00:0010"}, None),
    ({**EXTERNAL, "primary_host": "[fd00::10]", "replica_hosts": "fd00::11, [fd00::10]:5433"}, None),
    ({**EXTERNAL, "primary_host": "64:ff9b::192.0.2.33"}, None),
    ({**EXTERNAL, "primary_host": "[fd00::10:5432]"}, None),
    ({**EXTERNAL, "primary_host": "fd00::10:5432"}, "write [fd00::10]:5432, or [fd00::10:5432] without one"),
    (
        {**EXTERNAL, "primary_host": "fd00::1:15432"},
        "not an IPv6 address; write it like fd00::10, or [fd00::10]:5432",
    ),
    ({**EXTERNAL, "primary_host": "fd00::1::2"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "fd00:1:2:3:4:5:6:7:8"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "[db]:5432"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "[10.0.0.1]"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "[fd00::1]5432"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "[fd00::1"}, "not an IPv6 address"),
    ({**EXTERNAL, "primary_host": "[fd00::1]:"}, "a port is 1 to 65535"),
    ({**EXTERNAL, "primary_host": "[fd00::1]:65536"}, "a port is 1 to 65535"),
    ({**EXTERNAL, "primary_host": "fe80::1%eth0"}, "interface of one machine after the %"),
    ({**EXTERNAL, "primary_host": "[fe80::1%25eth0]:5432"}, "interface of one machine after the %"),
    ({**EXTERNAL, "primary_host": "FEB0::1"}, "link-local"),
    ({**EXTERNAL, "primary_host": "ff02::1"}, "multicast"),
    ({**EXTERNAL, "primary_host": "::"}, ":: is no address of a server"),
    ({**EXTERNAL, "primary_host": "[::0]:5432"}, ":: is no address of a server"),
    ({**EXTERNAL, "primary_host": "::ffff:10.0.0.1"}, "is an IPv4 address in IPv6; write 10.0.0.1"),
    ({**EXTERNAL, "primary_host": "::ffff:a00:1"}, "is an IPv4 address in IPv6; write 10.0.0.1"),
    (
        {**EXTERNAL, "replica_hosts": "fd00::1,[FD00:0:0::1]:5432"},
        "replica_hosts: names [fd00::1]:5432 twice",
    ),
    (
        {**EXTERNAL, "primary_host": "fd00::1", "replica_hosts": "r,[fd00:0::0001]"},
        "replica_hosts: names the primary, [fd00::1]:5432",
    ),
    ({**EXTERNAL, "primary_host": "db:"}, "a port is 1 to 65535"),
    ({**EXTERNAL, "primary_host": "db:0"}, "a port is 1 to 65535"),
    ({**EXTERNAL, "primary_host": "db:65536"}, "a port is 1 to 65535"),
    ({**EXTERNAL, "primary_host": ["db"]}, "one comma-separated text"),
    ({**EXTERNAL, "replica_hosts": ["r1", "r2"]}, "replica_hosts:"),
    ({**EXTERNAL, "replica_hosts": "r1,,r2"}, "empty entry"),
    ({**EXTERNAL, "replica_hosts": "r1,R1:5432"}, "twice"),
    ({**EXTERNAL, "replica_hosts": "db"}, "replica_hosts: names the primary"),
    ({**EXTERNAL, "primary_host": "DB:5432", "replica_hosts": "r,db"}, "replica_hosts: names the primary"),
    ({"database_name": "my db"}, "identifier of PostgreSQL"),
    ({"database_name": 'x"; DROP TABLE t; --'}, "identifier of PostgreSQL"),
    ({"database_name": "a" * 64}, "identifier of PostgreSQL"),
    ({"database_name": "template1"}, "template"),
    ({"database_user": "postgres"}, "reserved"),
    ({"database_user": "pg_read"}, "reserved"),
    ({"database_user": "{{ 7 * 7 }}"}, "identifier of PostgreSQL"),
    ({**STANDALONE, "namespace": "Prod"}, "RFC 1123"),
    ({**STANDALONE, "namespace": "prod\n---\nkind: Secret"}, "on one line"),
    ({**STANDALONE, "client_namespaces": "web,web"}, "client_namespaces: names web twice"),
    ({**STANDALONE, "database_cidrs": "10.0.0.0"}, "did you mean 10.0.0.0/32?"),
    ({**STANDALONE, "database_cidrs": "10.0.0.5/24"}, "did you mean 10.0.0.0/24?"),
    ({**STANDALONE, "database_cidrs": "fd00:1::5/32"}, "did you mean fd00:1::/32?"),
    ({**STANDALONE, "database_cidrs": "10.0.0.0/33"}, "0 to 32"),
    ({**STANDALONE, "database_cidrs": "10.0.0.0/8,10.0.0.0/8"}, "twice"),
    ({**STANDALONE, "database_cidrs": "db.example.com/32"}, "is not a network"),
    ({**STANDALONE, "dns_cidrs": "10.96.0.10"}, "dns_cidrs: 10.96.0.10 has no prefix length"),
    ({**STANDALONE, "database_namespace": "Data"}, 'database_namespace: "Data" is not a name of Kubernetes'),
    (
        {**STANDALONE, "monitoring_namespace": "a,b"},
        'monitoring_namespace: "a,b" is not a name of Kubernetes',
    ),
    ({**STANDALONE, "priority_class": "very high"}, "is not a name of Kubernetes"),
    ({**STANDALONE, "database_labels": "cnpg.io/cluster"}, "is not a label; write key=value"),
    ({**STANDALONE, "database_labels": "app=a,app=b"}, "database_labels: names app twice"),
    ({**STANDALONE, "database_labels": "app=a,"}, "has an empty entry"),
    ({**STANDALONE, "database_labels": 'app="x"'}, "is not a label"),
    (
        {**STANDALONE, "postgres_metrics": "sometimes"},
        'postgres_metrics: "sometimes" is neither true nor false',
    ),
    ({**STANDALONE, "runbook_url": "README.md"}, 'runbook_url: "README.md" is not the address of a page'),
    ({**STANDALONE, "runbook_url": "https://x.com/README.md#start"}, "without #"),
    ({**STANDALONE, "runbook_url": "https://x.com/{{ $labels.pool }}"}, "is not the address of a page"),
    ({"authn": "oidc"}, 'authn: "oidc" is not a choice; answer preshared, none'),
    ({"cors_allowed_origins": "app.example.com"}, 'cors_allowed_origins: "app.example.com" has no scheme'),
    ({"cors_allowed_origins": "//app.example.com"}, "has no scheme"),
    ({"cors_allowed_origins": "https://app.example.com/"}, "has a path, which no origin has"),
    ({"cors_allowed_origins": "https://app.example.com?x=1"}, "has a path"),
    ({"cors_allowed_origins": "https://a.example,"}, "has an empty entry"),
    ({"cors_allowed_origins": "https://a.example, *"}, "* allows every origin; leave the others out"),
    ({"cors_allowed_origins": "https://a.example:0"}, "has no valid port"),
    ({"cors_allowed_origins": "https://a.example:"}, "has no valid port"),
    ({"cors_allowed_origins": "https://a.example:443"}, "browsers leave out; write https://a.example"),
    ({"cors_allowed_origins": "http://[fd00::1]:80"}, "browsers leave out; write http://[fd00::1]"),
    ({"cors_allowed_origins": "https://a.example:0443"}, "browsers leave out; write https://a.example"),
    ({"cors_allowed_origins": "http://a.example:080"}, "browsers leave out; write http://a.example"),
    ({"cors_allowed_origins": "https://a.example:08443"}, "did you mean https://a.example:8443?"),
    ({"cors_allowed_origins": "https://a.example:00"}, "has no valid port"),
    ({"cors_allowed_origins": "http://999.1.1.1"}, "has no valid IPv4 address"),
    ({"cors_allowed_origins": "http://10.0.0.05"}, "has no valid IPv4 address"),
    ({"cors_allowed_origins": "http://10.1:3000"}, "has no valid IPv4 address"),
    ({"cors_allowed_origins": "http://*.0.0.1"}, "has no valid IPv4 address"),
    ({"cors_allowed_origins": "http://[fd00:0:0::1]:3000"}, "did you mean http://[fd00::1]:3000?"),
    ({"cors_allowed_origins": "http://[0:0:0:0:0:0:0:1]"}, "did you mean http://[::1]?"),
    ({"cors_allowed_origins": "http://[::ffff:10.0.0.5]"}, "did you mean http://[::ffff:a00:5]?"),
    ({"cors_allowed_origins": "http://[fd00:0::1]:80"}, "browsers leave out; write http://[fd00::1]"),
    ({"cors_allowed_origins": "http://fd00::1"}, "is not an origin"),
    ({"cors_allowed_origins": "https://a_b.example"}, "is not an origin"),
    ({"cors_allowed_origins": "https://a*.example"}, "is not an origin"),
    ({"cors_allowed_origins": "null"}, "has no scheme"),
    ({"cors_allowed_origins": "https://A.example,https://a.example"}, "names https://a.example twice"),
    ({"cors_allowed_origins": ["https://a.example"]}, "is not text; write one comma-separated text"),
    ({**STANDALONE, "otlp_endpoint": "collector"}, "is not host:port"),
    ({**STANDALONE, "otlp_endpoint": "http://collector:4318"}, "has a scheme"),
    ({**STANDALONE, "otlp_endpoint": "collector:70000"}, "has no valid port"),
    ({**STANDALONE, "otlp_endpoint": "[FD00::5]:4317"}, None),
    (
        {**STANDALONE, "otlp_endpoint": "fd00::5"},
        "is not host:port; write it like collector.monitoring:4317, or [fd00::10]:4317",
    ),
    ({**STANDALONE, "otlp_endpoint": "[fd00::5]"}, "is not host:port"),
    ({**STANDALONE, "otlp_endpoint": "fd00::5:4317"}, "or [fd00::10]:4317"),
    ({**STANDALONE, "otlp_endpoint": "[fd00::5]:0"}, "has no valid port"),
    ({**STANDALONE, "otlp_endpoint": "[fe80::1%eth0]:4317"}, "interface of one machine"),
    ({**STANDALONE, "otlp_endpoint": "[::]:4317"}, ":: is no address of a server"),
    ({**STANDALONE, "runbook_url": "https://[fd00::7]:8443/README.md"}, None),
    ({**STANDALONE, "pooling": "direct", "database_ca": "ca.crt"}, "names no object; write configmap/NAME"),
    ({**STANDALONE, "distributed": "perhaps"}, "neither true nor false"),
    (
        {**STANDALONE, "client_tls": "cert-manager", "client_tls_issuer": "Private CA"},
        'client_tls_issuer: "Private CA" is not a name of Kubernetes',
    ),
    (
        {**STANDALONE, "database_policy": "calico"},
        'database_policy: "calico" is not a choice; answer network, ',
    ),
    ({"pgcat_image": "pgcat"}, "neither tag nor digest"),
    ({"pgcat_image": "ghcr.io/x/pgcat:v1\n  privileged: true"}, "write plain ASCII on one line"),
    ({**STANDALONE, "pgcat_memory": "lots"}, "amount of memory"),
    ({"pgcat_memory": "5Mi"}, "pgcat_memory: 5Mi is less than Docker allows; answer 6Mi or more"),
    ({"permify_memory": "1Ki"}, "permify_memory: 1Ki is less than Docker allows"),
    ({"pgcat_memory": "6Mi"}, None),
    ({**STANDALONE, "pgcat_memory": "5Mi"}, None),
    ({**STANDALONE, "permify_cpu": "0"}, "amount of CPU"),
    ({**STANDALONE, "drain_seconds": 0}, "out of range"),
    ({**STANDALONE, "pgcat_max_replicas": 101}, "pgcat_max_replicas: 101 is out of range; answer 0 to 100"),
    ({"primary_hots": "db"}, "did you mean primary_host or primary_reads?"),
    ({"xyz": "db"}, "the keys are topology"),
    ({**EXTERNAL, "primary_host": "postgres://db"}, "has a scheme"),
    (
        {**STANDALONE, "priority_class": "high "},
        'priority_class: "high " begins or ends with a blank; write "high"',
    ),
    ({**STANDALONE, "client_namespaces": " web, jobs"}, 'begins or ends with a blank; write "web, jobs"'),
    ({**STANDALONE, "priority_class": "a" * 8001}, "priority_class: has 8001 characters; write at most 8000"),
    (
        {**STANDALONE, "database_cidrs": "::ffff:10.0.0.0/104"},
        "::ffff:10.0.0.0/104 is a network of IPv4 in IPv6, which no NetworkPolicy matches; write 10.0.0.0/8",
    ),
    ({**STANDALONE, "dns_cidrs": "::FFFF:a60:a/128"}, "write 10.96.0.10/32"),
    ({**STANDALONE, "database_cidrs": "::ffff:10.0.0.7/104"}, "write 10.0.0.0/8"),
    ({"pgcat_image": "1:30"}, "is a time to parsers of YAML; write it with its registry"),
]

TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"topology": "standalone"}, "primary_host: is missing; add --data primary_host=HOST"),
    ({"database": "external"}, "primary_host: is missing"),
    ({**SIDECAR, "pooling": "direct"}, "pooling: direct means no PgCat"),
    ({**STANDALONE, "database": "bundled"}, "database: bundled is for topology docker only"),
    ({**SIDECAR, "permify_install": "helm"}, "permify_install: helm cannot carry a sidecar"),
    ({"monitoring": "prometheus-operator"}, "monitoring: prometheus-operator needs Kubernetes"),
    (
        {**STANDALONE, "monitoring": "prometheus", "probe": True},
        "probe: asks a Permify of ours for the Prometheus Operator",
    ),
    (
        {**STANDALONE, "monitoring": "prometheus-operator", "permify_install": "helm", "probe": True},
        "probe: asks a Permify of ours for the Prometheus Operator",
    ),
    ({**STANDALONE, "monitoring": "prometheus-operator", "probe": True}, None),
    ({**STANDALONE, "monitoring": "prometheus", "probe": False}, None),
    (
        {**STANDALONE, "monitoring": "none", "postgres_metrics": True},
        "postgres_metrics: adds alerts, and with monitoring=none none are rendered",
    ),
    (
        {**STANDALONE, "pooling": "direct", "postgres_metrics": True},
        "postgres_metrics: adds alerts, and without PgCat none are rendered",
    ),
    ({"database_tls": "require"}, "database_tls: require is not spoken by the bundled PostgreSQL"),
    ({**STANDALONE, "database_tls": "verify-full"}, "database_tls: verify-full is not kept by PgCat"),
    (
        {"other_connections": 2},
        "other_connections: 2 is fewer than the 3 that PostgreSQL reserves for superusers"
        " (superuser_reserved_connections), so the role cannot get them; answer at least 3",
    ),
    (
        {**STANDALONE, "other_connections": 0, "writer_pool_size": 12, "reader_pool_size": 12},
        "; answer other_connections=3, writer_pool_size=0, reader_pool_size=0",
    ),
    (
        {**EXTERNAL, "postgres_max_connections": 6, "other_connections": 1},
        "; answer other_connections=3, postgres_max_connections=8, with max_connections = 8 on each server",
    ),
    (
        {**STANDALONE, "primary_host": "fd00::1", "database_cidrs": "fd00:1::/64,10.0.0.0/8"},
        "database_cidrs: fd00::1 of primary_host is in none of fd00:1::/64, 10.0.0.0/8; add its network",
    ),
    (
        {"other_connections": 100},
        "other_connections: 100 leaves nothing of postgres_max_connections 100; answer at most 95, or p",
    ),
    (
        {**SIDECAR, "postgres_max_connections": 5, "other_connections": 1},
        "; answer other_connections=3, postgres_max_connections=14, with max_connections = 14 on each server",
    ),
    (
        {**SIDECAR, "postgres_max_connections": 5},
        "of postgres_max_connections 5; answer other_connections=3 and postgres_max_connections=14, or more",
    ),
    (
        {"other_connections": 0, "pool_mode": "session", "permify_replicas": 1000}
        | {"permify_max_connections": 1000, "writer_pool_size": 5},
        "answer 3 or more, which alone is not enough: session mode: the writer pool pins",
    ),
    (
        {**STANDALONE, "permify_replicas": 5, "permify_max_replicas": 3},
        "permify_max_replicas: 3 is fewer than permify_replicas 5",
    ),
    (
        {**STANDALONE, "pgcat_replicas": 3, "pgcat_max_replicas": 2},
        "pgcat_max_replicas: 2 is fewer than pgcat_replicas 3; answer 0 for the same, or at least 3",
    ),
    ({**STANDALONE, "pgcat_max_replicas": 3, "drain_seconds": 1786}, "answer 1785 or less, or pgcat_max"),
    (
        {**STANDALONE, "pgcat_max_replicas": 36},
        "leaves each of 36 + 3 PgCat instances writer_pool_size 0, reader_pool_size 1;"
        " try a lower pgcat_max_replicas, ",
    ),
    (
        {**STANDALONE, "database_ca": "secret/ca"},
        "database_ca: is checked with database_tls=verify-full alone",
    ),
    (
        {**STANDALONE, "permify_install": "helm", "distributed": True},
        "distributed: needs Permify's manifests, and permify_install is helm",
    ),
    ({**STANDALONE, "client_tls": "cert-manager"}, "client_tls_issuer: is missing; answer the name of a Cl"),
    (
        {**STANDALONE, "database_policy": "cilium"},
        "database_policy: cilium knows the full name that DNS is asked for, and db of primary_host is part",
    ),
    (
        {**STANDALONE, "primary_host": "db.example.com", "replica_hosts": "r.data.svc"}
        | {"database_policy": "cilium"},
        "cilium lets out of the cluster by name, and r.data.svc of replica_hosts is in it; answer database_l",
    ),
    (
        {**STANDALONE, "permify_install": "none", "authn": "preshared"},
        "authn: preshared is for a Permify of ours, and with permify_install=none you deploy it; answer",
    ),
    (
        {**STANDALONE, "topology": "sidecar", "permify_install": "none", "authn": "preshared"},
        "authn: preshared is for a Permify of ours",
    ),
    ({**STANDALONE, "distributed": True, "permify_replicas": 1}, "distributed: a single pod has no peers"),
    ({**STANDALONE, "drain_seconds": 19}, "drain_seconds: 19 is too short"),
    ({**SIDECAR, "permify_max_replicas": 3, "drain_seconds": 1776}, "answer 1775 or less"),
    ({**STANDALONE, "advanced": False, "drain_seconds": 90}, "drain_seconds: is an advanced answer"),
    ({**STANDALONE, "primary_host": "pgcat:6432"}, "primary_host: pgcat is the name of a service"),
    ({**STANDALONE, "replica_hosts": "permify"}, "replica_hosts: permify is the name of a service"),
    ({**EXTERNAL, "primary_host": "0.0.0.0"}, "no address of a server"),
    ({"database_user": "replicator"}, "database_user: replicator is the role of the bundled replica"),
    (
        {**STANDALONE, "primary_host": "10.1.2.3", "database_cidrs": "192.168.0.0/16,fd00::/8"},
        "database_cidrs: 10.1.2.3 of primary_host is in none of 192.168.0.0/16, fd00::/8",
    ),
    (
        {**STANDALONE, "permify_install": "helm", "permify_image": f"r.io:5000/permify@sha256:{'a' * 64}"},
        "permify_image: Permify's chart writes the tag into a label",
    ),
    (
        {**STANDALONE, "permify_install": "helm", "permify_image": f"r.io/p:v1@sha256:{'a' * 64}"},
        "takes no digest",
    ),
    (
        {**STANDALONE, "permify_install": "helm", "permify_image": f"r.io/p:{'a' * 63}"},
        "at most 62 characters",
    ),
    ({**STANDALONE, "permify_install": "helm", "permify_image": "r.io/p:v1-"}, "into a label"),
    ({"watch": True, "permify_max_connections": 1}, "watch: each stream holds"),
    (
        {
            **STANDALONE,
            "postgres_max_connections": 190,
            "pgcat_replicas": 3,
            "writer_pool_size": 20,
            "reader_pool_size": 20,
        },
        "(3 + 2 PgCat instances) × (writer 20 + reader 20) + 3 for the migration = 203 > 170 ="
        " postgres_max_connections 190 − other_connections 20; try writer_pool_size + reader_pool_size ≤ 33,",
    ),
    (
        {**STANDALONE, "replica_hosts": "r", "reader_pool_size": 21, "primary_reads": False},
        "budget of each replica: (2 + 2 PgCat instances) × reader 21 = 84 > 80",
    ),
    (
        {**STANDALONE, "pooling": "direct", "permify_max_connections": 10},
        "(2 + 2 Permify instances) × 2 × max_connections 10 + 3 for the migration = 83 > 80",
    ),
    ({**SIDECAR, "permify_replicas": 40}, "try topology=standalone"),
    (
        {**STANDALONE, "pool_mode": "session", "permify_replicas": 8},
        "session mode: the reader pool pins (permify_max_replicas 8 + 2) × permify_max_connections 1 = 10 >",
    ),
    (
        {**SIDECAR, "pool_mode": "session", "permify_max_connections": 4, "writer_pool_size": 3},
        "session mode: the writer pool pins permify_max_connections 4 > 3 = writer_pool_size",
    ),
]


@pytest.mark.parametrize(("answers", "line"), ONE_ANSWER + TOGETHER)
def test_refused(answers: dict[str, Any], line: str | None, tmp_path: Path) -> None:
    if line is None:
        render(tmp_path / "deploy", answers)
        return
    with pytest.raises(Refused) as refused:
        render(tmp_path / "deploy", answers)
    assert line in str(refused.value)
    assert "pgcat-stack refuses" in str(refused.value)
    assert "\n" not in str(refused.value)


def outside(rule: dict[str, Any]) -> Any:
    """An answer that a rule of the table refuses."""
    if "numbers" in rule:
        return rule["numbers"][1] + 1
    return " blanks around " if "text" in rule else "neither"


@pytest.mark.parametrize(("key", "rule"), TABLE.items())
def test_the_table_refuses_what_is_outside(key: str, rule: dict[str, Any], tmp_path: Path) -> None:
    answers = {"advanced": True, **STANDALONE, key: outside(rule)}
    with pytest.raises(Refused, match=rf"pgcat-stack refuses {key}: .*(answer|write|remove)"):
        render(tmp_path / "deploy", answers)
    assert not (tmp_path / "deploy").exists()


FITTING: list[dict[str, Any]] = [
    {**STANDALONE, "postgres_max_connections": 190, "pgcat_replicas": 3, "writer_pool_size": 13}
    | {"reader_pool_size": 20},
    {**STANDALONE, "drain_seconds": 20},
    {**STANDALONE, "pgcat_replicas": 3, "pgcat_max_replicas": 3},
    {**STANDALONE, "pgcat_max_replicas": 3, "drain_seconds": 1785},
    {**STANDALONE, "pgcat_max_replicas": 35},
    {**STANDALONE, "pool_mode": "session", "permify_replicas": 7},
    {**STANDALONE, "database_cidrs": "fd00::/8, 10.0.0.0/8,::/0 , 192.168.1.1/32"},
    {**STANDALONE, "namespace": "null", "client_namespaces": "true,1e3"},
    {"database_name": "authz-prod", "database_user": "Permify_App"},
    {"permify_replicas": "3", "watch": "no", "postgres_max_connections": " 200 "},
    {"other_connections": 3},
    {**SIDECAR, "postgres_max_connections": 14, "other_connections": 3},
    {"postgres_max_connections": 100, "other_connections": 95},
    {**STANDALONE, "database_cidrs": "0.0.0.0/1,::/1", "otlp_endpoint": "1:43"},
    {**STANDALONE, "replica_hosts": ",".join(f"replica-{number}" for number in range(30))},
    {**EXTERNAL, "primary_host": "postgres_primary", "replica_hosts": "_r_:5433"},
    {**EXTERNAL, "primary_host": "fd00::1", "ip_family": "ipv6"},
    {
        **STANDALONE,
        "primary_host": "fd00::1",
        "replica_hosts": "[FD00:0::2]:5433",
        "database_cidrs": "FD00::/64",
        "ip_family": "ipv6",
        "otlp_endpoint": "[fd00:1::5]:4317",
    },
    {**STANDALONE, "pooling": "direct", "primary_host": "fd00::1", "replica_hosts": "fd00::2,fd00::3"},
    {**SIDECAR, "primary_host": "fd00::1", "ip_family": "ipv6", "monitoring": "none"},
    {**SIDECAR, "permify_max_replicas": 3, "drain_seconds": 1775},
    {**STANDALONE, "primary_host": "10.1.2.3", "database_cidrs": "10.1.0.0/16"},
    {**STANDALONE, "permify_install": "helm", "permify_image": f"r.io:5000/p:{'a' * 62}"},
    {**STANDALONE, "permify_image": f"r.io:5000/p:v1@sha256:{'a' * 64}"},
    {"pgcat_image": "", "permify_image": ""},
    {
        **STANDALONE,
        "runbook_url": f"https://git.x.com:8443/a/-/{'b' * 400}?ref=main",
        "postgres_metrics": True,
    },
    {**STANDALONE, "pooling": "direct", "postgres_metrics": False, "runbook_url": ""},
    {**STANDALONE, "permify_install": "none", "authn": "none", "cors_allowed_origins": "*"},
    {
        "permify_install": "none",  # not asked in docker
        "authn": "preshared",
        "cors_allowed_origins": "https://App.example:8443, http://[::1]:3000,http://localhost:65535,"
        "https://*.example.com,capacitor://localhost, http://a.example:443, http://10.0.0.5:3000,"
        " https://[FD00::5],http://1.example,http://a1",
    },
    {**STANDALONE, "database_labels": "cnpg.io/cluster=permify-db, app=", "database_namespace": "data"},
    {**STANDALONE, "otlp_endpoint": "collector.monitoring.svc.cluster.local:4317", "distributed": True},
    {**STANDALONE, "pooling": "direct", "database_tls": "verify-full", "database_ca": "configmap/db.ca"},
    {**STANDALONE, "priority_class": "system-cluster-critical", "dns_cidrs": "10.96.0.10/32"},
    {**SIDECAR, "permify_install": "none"},
    {
        **STANDALONE,
        "primary_host": "db.example",
        "replica_hosts": "10.0.0.5",
        "database_policy": "cilium",
    },
    {**STANDALONE, "database_policy": "cilium", "database_labels": "app=postgres"},
    {**STANDALONE, "database_policy": "cilium", "network_policies": False},
    {**STANDALONE, "client_tls": "cert-manager", "client_tls_issuer": "private.ca-1"},
    {**SIDECAR, "client_tls": "cert-manager"},
    {"topology": "docker", "permify_max_replicas": 10, "pgcat_replicas": 5, "namespace": "unused"},
]
"""At the last value that is taken, or of an odd form."""


@pytest.mark.parametrize(
    "answers",
    [pytest.param(each, marks=repeats) if number % 2 else each for number, each in enumerate(FITTING)],
)
def test_the_last_answers_that_fit_are_taken(answers: dict[str, Any], tmp_path: Path) -> None:
    deployment = Reading.load(render(tmp_path / "deploy", answers))
    assert [finding for finding in run_checks(deployment) if finding.severity == "error"] == []


def test_a_given_advanced_answer_is_kept_for_updates(tmp_path: Path) -> None:
    stored = (render(tmp_path / "deploy", pool_mode="session") / ".copier-answers.yml").read_text()
    assert "pool_mode: session" in stored
    assert "advanced: true" in stored


def test_every_question_has_a_rule_and_every_rule_a_question() -> None:
    """The table of questions and the questions themselves name the same keys and the same choices."""
    from copier._template import load_template_config

    questions = {
        key: question
        for key, question in load_template_config(REPOSITORY / "copier.yml").items()
        if not key.startswith("_") and key not in ("given_answers", "deployment_exists", "answers_together")
    }
    rules: Any = environment().get_template("questions/table.jinja").module
    assert list(questions) == rules.keys
    for key, question in questions.items():
        choices = question.get("choices")
        if isinstance(choices, dict):
            assert sorted(choices.values()) == sorted(rules.choices[key])
        elif isinstance(choices, list):
            assert sorted(choices) == sorted(rules.choices[key])
        else:
            assert (choices is None) or key in rules.choices
        if question["type"] == "int":
            assert key in rules.numbers
        if question["type"] == "bool":
            assert key in rules.booleans
        elif choices is None:  # what is typed is judged at the prompt, too
            assert f"('{key}', {key})" in question.get("validator", ""), f"{key} has no validator"
    after_advanced = list(questions)[list(questions).index("advanced") + 1 :]
    assert after_advanced == rules.advanced_keys
