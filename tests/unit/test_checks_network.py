"""What NetworkPolicies of a rendered deployment allow beyond its needs, and what they block of them."""

from __future__ import annotations

import pytest

from cases import DIRECT, ELSEWHERE, HELM, SIDECAR, STANDALONE, edit, findings, one, rendered

POLICIES = "kubernetes/network-policies.yaml"
PERMIFY = "permify/permify.yaml"
PGCAT_INGRESS = (
    r"(?<=  ingress:\n    - from:\n)        - podSelector:\n.*\n.*permify\n(?=      ports:\n.*6432)"
)
NAMED_PERMIFY = "podSelector: {matchLabels: {app.kubernetes.io/name: permify}}"
ANY_NAMESPACE = "        - namespaceSelector: {}\n"
ISTIO = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: istio-system}}"
DENIES_BOTH = r"(?<=permify-migrate\]\n)  policyTypes: \[Ingress, Egress\]"
CLIENTS = r"(?<=    - from:\n)        - podSelector: \{\} # any pod of this namespace\n"
ADDRESSES = {**STANDALONE, "primary_host": "10.0.0.1", "replica_hosts": "10.0.0.2"}
NETWORKS = {**ADDRESSES, "database_cidrs": "10.0.0.0/16"}
SHARED = {**STANDALONE, "distributed": True}
PUSHING = {**STANDALONE, "otlp_endpoint": "collector.observability:4317"}
OWN_POLICY = """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: own
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: permify}}
  policyTypes: [Egress]
  egress:
"""
FOREIGN_POOL = """
[pools.shop]
pool_mode = "transaction"
[pools.shop.users.0]
username = "shop"
password = "${database_password}"
pool_size = 1
[pools.shop.shards.0]
database = "shop"
servers = [["db1", 5432, "primary"]]
"""


def codes(files):
    return {finding.code for finding in findings(files, "PS426", "PS47")}


@pytest.mark.parametrize("answers", [ADDRESSES, NETWORKS, SHARED, PUSHING, HELM, ELSEWHERE, SIDECAR])
def test_what_is_rendered_is_exact(answers):
    assert codes(rendered(answers)) == set()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("podSelector: {}", {"PS470"}),
        ("podSelector: {matchLabels: {app.kubernetes.io/part-of: pgcat-stack}}", {"PS470"}),
        ("podSelector: {matchLabels: {app: shop}}", {"PS426", "PS470"}),
        ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: permify}}", {"PS470"}),
        ("ipBlock: {cidr: 10.0.0.0/8}", {"PS426", "PS470"}),
        ("podSelector: {matchLabels: {app.kubernetes.io/component: authorization}}", set()),
    ],
)
def test_who_may_reach_pgcat(peer, expected):
    assert codes(edit(rendered(STANDALONE), POLICIES, PGCAT_INGRESS, f"        - {peer}\n")) == expected


def test_anybody_labelled_in_any_namespace_is_not_permify():
    peer = f"{ANY_NAMESPACE}          {NAMED_PERMIFY}\n"
    files = edit(rendered(STANDALONE), POLICIES, PGCAT_INGRESS, peer)
    assert codes(files) == {"PS470"}
    who = "pods with app.kubernetes.io/name=permify of any namespace"
    assert one(files, "PS470").message == f"{who} may reach Deployment pgcat on PgCat's port 6432"


def test_pgcat_that_others_use_may_be_open_to_labelled_pods():
    added = f"        - {NAMED_PERMIFY}\n        - podSelector: {{matchLabels: {{app: shop}}}}\n"
    files = edit(rendered(STANDALONE), POLICIES, PGCAT_INGRESS, added)
    assert codes(files) == {"PS470"}
    files["pgcat/pgcat.toml"] += FOREIGN_POOL
    assert codes(files) == set()
    assert codes(edit(files, POLICIES, "podSelector: {matchLabels: {app: shop}}", "podSelector: {}")) == {
        "PS470"
    }


@pytest.mark.parametrize(
    ("answers", "old", "new", "expected"),
    [
        # PgCat on loopback, and on every address of Permify's pod
        (SIDECAR, "port: 3478}", "port: 3478}\n        - port: 6432", {"PS470"}),
        (
            {**SIDECAR, "monitoring": "none"},
            "port: 3478}",
            "port: 3478}\n        - port: 6432",
            {"PS471"},
        ),
        # clients
        (STANDALONE, CLIENTS, ANY_NAMESPACE, {"PS471"}),
        (
            STANDALONE,
            CLIENTS,
            f"{ANY_NAMESPACE}          podSelector: {{matchLabels: {{calls: permify}}}}\n",
            set(),
        ),
        (STANDALONE, CLIENTS, "        - ipBlock: {cidr: 10.0.0.0/8}\n", set()),
        (STANDALONE, CLIENTS, "        - ipBlock: {cidr: 0.0.0.0/0}\n", {"PS471"}),
        # servers
        (ADDRESSES, "10.0.0.2/32", "10.0.0.0/16", set()),
        (ADDRESSES, "10.0.0.2/32", "10.0.0.0/15", {"PS471"}),
        (
            ADDRESSES,
            '(?<=cidr: ")10.0.0.2/32"',
            '10.0.0.2/32"\n        - ipBlock:\n            cidr: "10.0.0.3/32"',
            {"PS471"},
        ),
        (STANDALONE, '(?<=cidr: ")::/0"', '::/0"\n        - ipBlock: {cidr: 10.0.0.0/8}', {"PS471"}),
        (STANDALONE, '(?<=cidr: ")0.0.0.0/0"', '10.0.0.0/8"', {"PS471"}),
        # DNS
        (STANDALONE, r"(?<=namespaceSelector:)(\n.*){7}node-local-dns\]", " {}", {"PS471"}),
        (STANDALONE, r"kube-dns, node-local-dns", "dns", set()),
        (
            STANDALONE,
            r"\n          podSelector:(\n.*){4}node-local-dns\]",
            "",
            set(),  # which pods of kube-system answer, no file says
        ),
        (
            STANDALONE,
            r"TCP, port: 53}\n",
            "TCP, port: 53}\n        - {port: 5353, protocol: UDP}\n",
            set(),
        ),
        (STANDALONE, r"        - {protocol: TCP, port: 53}\n", "", {"PS426"}),
        # Permify's own kind, a collector
        (SHARED, "port: 5000", "port: 5001", {"PS426", "PS471"}),
        (SHARED, r"enabled: true(?=\n  address)", "enabled: false", {"PS471"}),
        (PUSHING, "port: 4317", "port: 4318", {"PS426", "PS471"}),
        (PUSHING, "kubernetes.io/metadata.name: .observability.", "{}", {"PS471"}),
        # pods that no policy selects
        (STANDALONE, r"values: \[pgcat, permify, permify-migrate\]", "values: [pgcat, permify]", {"PS472"}),
        (STANDALONE, DENIES_BOTH, "  policyTypes: [Egress]", {"PS472"}),
    ],
)
def test_a_change(answers, old, new, expected):
    files = rendered(answers)
    path = PERMIFY if "address" in old else POLICIES
    assert codes(edit(files, path, old, new)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("    - {}\n", {"PS470"}),
        ("    - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]\n", {"PS470"}),
        ("    - ports: [{port: 1, endPort: 65535}]\n", {"PS470"}),
        ("    - to: [{podSelector: {}}]\n", {"PS471"}),
        ("    - ports: [{port: 443}]\n", {"PS471"}),
        (f"    - to: [{{{ISTIO}}}]\n      ports: [{{port: 15012}}]\n", {"PS471"}),
    ],
)
@pytest.mark.parametrize("answers", [STANDALONE, HELM, ELSEWHERE])
def test_a_rule_of_ones_own(answers, rule, expected):
    files = rendered(answers)
    files[POLICIES] += OWN_POLICY + rule
    assert codes(files) == expected


def test_pods_with_a_foreign_container_may_need_more():
    files = rendered(STANDALONE)
    files[POLICIES] += OWN_POLICY + "    - ports: [{port: 15012}]\n"
    assert codes(files) == {"PS471"}
    proxy = "      containers:\n        - name: istio-proxy\n          image: istio/proxyv2:1.27.0\n"
    assert codes(edit(files, "kubernetes/permify-deployment.yaml", "      containers:\n", proxy)) == set()


def test_messages_say_what_is_open_to_whom():
    files = rendered(STANDALONE)
    files[POLICIES] += OWN_POLICY + "    - ports: [{port: 443}]\n"
    finding = one(files, "PS471")
    assert finding.severity == "warning"
    assert (
        finding.message
        == "Deployment permify may reach any address on 443, and nothing of the stack needs that"
    )
    assert (
        finding.fix
        == "take the port out; if something else in the pods does, such as a service mesh, leave it"
    )
    open_to_all = one(
        edit(rendered(DIRECT), POLICIES, "(?s)  egress:\n    - to:.*", "  egress: [{}]\n"), "PS470"
    )
    assert open_to_all.severity == "error" and "may reach any address on every port" in open_to_all.message
    unselected = one(
        edit(
            files,
            POLICIES,
            DENIES_BOTH,
            "  policyTypes: [Egress]",
        ),
        "PS472",
    )
    assert unselected.severity == "warning" and "anybody may reach its ports" in unselected.message


@pytest.mark.parametrize("answers", [STANDALONE, DIRECT])
def test_the_wait_for_the_migration_needs_its_server(answers):
    files = edit(
        rendered(answers),
        "kubernetes/permify-deployment.yaml",
        r"(?<=value: postgresql://)permify@[a-z0-9]+:\d+",
        "permify@db9:6000",
    )
    found = [finding.message for finding in findings(files, "PS426")]
    assert found == ["no policy lets Deployment permify reach db9:6000"]
