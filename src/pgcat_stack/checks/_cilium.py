"""CiliumNetworkPolicies, read as NetworkPolicies with two more kinds of peer: hosts by name, and entities.

Both kinds add up: a pod that one of them selects for a direction may do there what any of them allows. Not
read are denials, `specs`, Services, groups and clusterwide policies.
https://docs.cilium.io/en/stable/security/policy/language/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks._selectors import NAMESPACE_LABEL
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.reading.reading import Reading

CILIUM = "CiliumNetworkPolicy"
_SOURCE = re.compile(r"^(k8s|any):")
_NAMESPACE = "io.kubernetes.pod.namespace"
_ANY_ADDRESS = {"world": ("0.0.0.0/0", "::/0"), "world-ipv4": ("0.0.0.0/0",), "world-ipv6": ("::/0",)}
_PROTOCOLS = ("TCP", "UDP")


@lru_cache(maxsize=4)
def policies(reading: Reading) -> tuple[Manifest, ...]:
    """All policies as NetworkPolicies. Rules keep their index, for their places; what is not read is None."""
    cilium = [_read(manifest) for manifest in reading.of_kind(CILIUM)]
    known = [policy for policy in cilium if policy.get("spec", "policyTypes")]
    return (*reading.of_kind("NetworkPolicy"), *known)


def _read(manifest: Manifest) -> Manifest:
    spec: dict[str, Any] = {"podSelector": _selector(manifest.get("spec", "endpointSelector"))[0]}
    for direction, side in (("ingress", "from"), ("egress", "to")):
        rules = manifest.get("spec", direction)
        if isinstance(rules, list):
            spec[direction] = [_rule(rule, side) for rule in rules]
    spec["policyTypes"] = [way.capitalize() for way in ("ingress", "egress") if way in spec]
    return replace(manifest, data={**manifest.data, "spec": spec})


def _rule(rule: object, side: str) -> dict[str, Any] | None:
    """A rule as one of a NetworkPolicy; None where it allows no connection: an empty one, or ICMP."""
    known = as_mapping(rule)
    ports = [port for group in as_list(known.get("toPorts")) for port in _ports(group)]
    named = [key for key in known if key.startswith(side) and key != "toPorts"]
    if not named and "toPorts" not in known:
        return None
    found: dict[str, Any] = {"ports": ports, "names": _names_seen(known)}
    if named:
        found[side] = list(_peers(known, side)) or [{"entity": ", ".join(named)}]
    return found


def _names_seen(rule: dict[str, Any]) -> list[str]:
    """Patterns of the names whose addresses Cilium reads in the answers of DNS that a rule lets through."""
    entries = [
        entry for group in as_list(rule.get("toPorts")) for entry in as_list(dig(group, "rules", "dns"))
    ]
    return [_name(entry) for entry in entries]


def _name(entry: object) -> str:
    return as_text(dig(entry, "matchName")) or as_text(dig(entry, "matchPattern"))


def _ports(group: object) -> Iterator[dict[str, Any]]:
    for entry in as_list(dig(group, "ports")):
        port = dig(entry, "port")
        if isinstance(port, str) and port.isdecimal():
            port = int(port)
        protocol = as_text(dig(entry, "protocol")) or "ANY"
        for one in _PROTOCOLS if protocol == "ANY" else (protocol,):
            found = {"protocol": one, **({"port": port} if port else {})}
            yield {**found, "endPort": dig(entry, "endPort")} if dig(entry, "endPort") else found


def _peers(rule: dict[str, Any], side: str) -> Iterator[dict[str, Any]]:
    for selector in as_list(rule.get(f"{side}Endpoints")):
        pods, namespaces = _selector(selector)
        yield {"podSelector": pods, **({"namespaceSelector": namespaces} if namespaces else {})}
    for cidr in as_list(rule.get(f"{side}CIDR")):
        yield {"ipBlock": {"cidr": cidr}}
    for block in as_list(rule.get(f"{side}CIDRSet")):
        yield {"ipBlock": block}
    for entity in as_list(rule.get(f"{side}Entities")):
        if entity in ("all", "cluster"):
            yield {"namespaceSelector": {}}
        for cidr in _ANY_ADDRESS.get("world" if entity == "all" else as_text(entity), ()):
            yield {"ipBlock": {"cidr": cidr}}
        if entity not in ("all", "cluster", *_ANY_ADDRESS):
            yield {"entity": entity}
    for name in map(_name, as_list(rule.get("toFQDNs"))):
        if name == "*":
            yield from ({"ipBlock": {"cidr": cidr}} for cidr in _ANY_ADDRESS["world"])
        else:
            yield {"name": name}


def _selector(selector: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """A selector of endpoints as one of pods and one of namespaces; this is empty for the policy's own."""
    labels = {_SOURCE.sub("", key): value for key, value in as_mapping(dig(selector, "matchLabels")).items()}
    namespace = labels.pop(_NAMESPACE, None)
    expressions = [
        {**item, "key": _SOURCE.sub("", as_text(item.get("key")))}
        for item in as_list(dig(selector, "matchExpressions"))
        if isinstance(item, dict)
    ]
    pods = {
        **({"matchLabels": labels} if labels else {}),
        **({"matchExpressions": expressions} if expressions else {}),
    }
    return pods, {"matchLabels": {NAMESPACE_LABEL: namespace}} if namespace else {}


def name_matches(pattern: str, host: str) -> bool:
    """Whether a host has a name by `matchName` or `matchPattern`; a star is within a label, or alone all."""
    if pattern == "*":
        return True
    parts = [re.escape(part) for part in pattern.rstrip(".").lower().split("*")]
    return re.fullmatch("[-a-z0-9_]*".join(parts), host.rstrip(".").lower()) is not None
