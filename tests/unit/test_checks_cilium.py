"""CiliumNetworkPolicies: what is rendered for hosts by name, and what the checks say of changes to it."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml

from cases import DIRECT, SIDECAR, STANDALONE, edit, findings, one, rendered
from pgcat_stack.reading.policies import name_matches

CILIUM = "kubernetes/cilium-policies.yaml"
POLICIES = "kubernetes/network-policies.yaml"
NAMED = {
    "primary_host": "db1.example.com",
    "replica_hosts": "db2.example.com:5433",
    "database_policy": "cilium",
}
EVERY = {
    "standalone": {**STANDALONE, **NAMED},
    "sidecar": {**SIDECAR, **NAMED},
    "direct": {**DIRECT, **NAMED},
    "helm": {**STANDALONE, **NAMED, "permify_install": "helm"},
    "none": {**DIRECT, **NAMED, "permify_install": "none"},
    "component": {**SIDECAR, **NAMED, "permify_install": "none"},
    "one name, one address": {**STANDALONE, **NAMED, "replica_hosts": "10.0.0.7"},
    "an address, a name": {**STANDALONE, **NAMED, "primary_host": "10.0.0.7"},
    "a collector": {**SIDECAR, **NAMED, "otlp_endpoint": "collector.observability:4317"},
    "distributed": {**DIRECT, **NAMED, "distributed": True},
}
every = pytest.mark.parametrize("answers", EVERY.values(), ids=EVERY.keys())
OPEN = """    - to:
        - ipBlock: {cidr: 0.0.0.0/0}
        - ipBlock: {cidr: "::/0"}
      ports:
        - {protocol: TCP, port: PORT}
"""


def codes(files):
    return {finding.code for finding in findings(files, "PS4", "PS9")}


def policies(files, path=CILIUM) -> dict[str, Any]:
    return {policy["metadata"]["name"]: policy["spec"] for policy in yaml.safe_load_all(files[path])}


@every
def test_the_checks_have_nothing_to_say(answers):
    assert codes(rendered(answers)) == set()


@every
def test_nothing_is_open_to_any_address(answers):
    files = rendered(answers)
    assert "0.0.0.0/0" not in files[POLICIES] + files[CILIUM]
    assert "::/0" not in files[POLICIES] + files[CILIUM]


@every
def test_the_structure_is_cilium_s(answers):
    """Of each rule one kind of peer, ports as text, names as names: else Cilium refuses the policy."""
    for spec in policies(rendered(answers)).values():
        assert spec.keys() == {"endpointSelector", "egress"}
        for rule in spec["egress"]:
            (peers,) = rule.keys() - {"toPorts"}
            assert peers in ("toEndpoints", "toCIDR", "toFQDNs") and rule[peers]
            (group,) = rule["toPorts"]
            assert all(isinstance(port["port"], str) for port in group["ports"])
            assert ("rules" in group) == (peers != "toFQDNs")
            for name in rule.get("toFQDNs", ()):
                assert name.keys() == {"matchName"} and "." in name["matchName"]
            for cidr in rule.get("toCIDR", ()):
                ipaddress.ip_network(cidr)


@every
def test_no_network_policy_lets_past_cilium_s_proxy(answers):
    """Each pod with names has DNS from Cilium alone, the others from the NetworkPolicy alone."""
    files = rendered(answers)
    found = policies(files, POLICIES)
    (closed,) = found["pgcat-stack-default-deny"]["podSelector"]["matchExpressions"]
    plain = set()
    if "pgcat-stack-dns" in found:
        (opened,) = found["pgcat-stack-dns"]["podSelector"]["matchExpressions"]
        plain = set(opened["values"])
    named = set(policies(files))
    assert named and plain | named == set(closed["values"]) and not plain & named


def test_where_networks_or_pods_are_known_cilium_has_nothing_to_do():
    for more in ({"database_cidrs": "10.0.0.0/24"}, {"database_labels": "app=postgres"}):
        files = rendered({**STANDALONE, **NAMED, **more})
        assert CILIUM not in files
        assert (
            files[POLICIES]
            == rendered({**STANDALONE, **NAMED, **more, "database_policy": "network"})[POLICIES]
        )


@pytest.mark.parametrize(
    ("answers", "old", "new", "expected"),
    [
        ("standalone", "db1.example.com", "db9.example.com", {"PS426", "PS471"}),
        ("standalone", 'matchName: "db2.example.com"', 'matchPattern: "*.example.com"', set()),
        ("standalone", 'matchName: "db2.example.com"', 'matchPattern: "*.com"', {"PS426", "PS471"}),
        ("standalone", 'matchName: "db2.example.com"', 'matchPattern: "*"', {"PS471"}),
        ("standalone", '"5433"', '"5434"', {"PS426", "PS471"}),
        ("standalone", '"5433"', "5433", {"PS902"}),
        ("standalone", r"          rules:\n            dns:\n.*\n", "", set()),  # one of two ways to DNS
        ("standalone", r"(?s)    - toEndpoints:.*?(?=    - toFQDNs)", "", {"PS426", "PS473"}),
        ("standalone", 'Pattern: "\\*"', 'Pattern: "*.example.org"', set()),  # the other way sees all
        ("standalone", "name: pgcat$(?=\n  egress)", "name: pgact", {"PS425", "PS426"}),
        ("direct", r"toFQDNs:\n.*", "toEntities: [world]", {"PS471"}),
        ("direct", r"toFQDNs:\n.*", "toEntities: [all]", {"PS471"}),
        ("direct", r"toFQDNs:\n.*", "toEntities: [cluster]", {"PS471"}),
        ("direct", r"(?s)toFQDNs:\n.*", "toEntities: [world]\n", {"PS426", "PS470"}),
        ("sidecar", "protocol: ANY", "protocol: UDP", set()),
        ("sidecar", "kube-system", "elsewhere", set()),  # where DNS runs no file says
        ("sidecar", r'"53", protocol: ANY', '"53", protocol: ANY}\n            - {port: "22"', {"PS471"}),
    ],
)
def test_a_change(answers, old, new, expected):
    assert codes(edit(rendered(EVERY[answers]), CILIUM, old, new)) == expected


def test_names_without_dns_are_found():
    files = rendered(EVERY["standalone"])
    files[CILIUM] = files[CILIUM].replace('matchPattern: "*"', 'matchPattern: "*.example.org"')
    found = [finding.message for finding in findings(files, "PS473")]
    assert len(found) == 3
    assert found[0] == (
        "Cilium does not read what DNS tells Deployment pgcat of db1.example.com: it lets out to no address"
    )


@pytest.mark.parametrize(("name", "port"), [("pgcat", 5432), ("pgcat", 5433), ("permify-migrate", 5432)])
def test_a_network_policy_that_is_open_beside_it_is_found(name, port):
    """What an update by hand may leave: the way out to any address that the names are there to close."""
    files = rendered(EVERY["standalone"])
    rule = f"  egress:\n{OPEN.replace('PORT', str(port))}"
    document = next(part for part in files[POLICIES].split("---\n") if f"  name: {name}\n" in part)
    files = {**files, POLICIES: files[POLICIES].replace(document, document + rule)}
    assert codes(files) == {"PS471"}
    assert "a CiliumNetworkPolicy lets out by name" in findings(files, "PS471")[0].message


def test_a_policy_of_cilium_alone_is_judged_like_others():
    files = rendered(EVERY["standalone"])
    files[CILIUM] += """---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: own
spec:
  endpointSelector:
    matchLabels:
      k8s:app.kubernetes.io/name: pgcat
  ingress:
    - fromEndpoints:
        - matchLabels: {k8s:io.kubernetes.pod.namespace: shop, app: shop}
      toPorts:
        - ports: [{port: "6432", protocol: TCP}]
"""
    finding = one(files, "PS470")
    assert (
        finding.message
        == "pods with app=shop of namespace shop may reach Deployment pgcat on PgCat's port 6432"
    )


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("db.example.com", "DB.example.com.", True),
        ("*.example.com", "db.example.com", True),
        ("*.example.com", "db.eu.example.com", False),
        ("db*.example.com", "db-2.example.com", True),
        ("*", "db.example.com", True),
        ("", "db.example.com", False),
        ("db.example.com", "db.example.community", False),
    ],
)
def test_names(pattern, host, expected):
    assert name_matches(pattern, host) is expected
