"""NetworkPolicies, and Cilium's as `_cilium` reads them: which pods they select, what they let through.

Policies add up: a pod that any policy selects for a direction may do there only what one of its rules allows.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks._cilium import name_matches
from pgcat_stack.checks._flows import Direction, Flow, address_of
from pgcat_stack.checks._selectors import NAMESPACE_LABEL, selects
from pgcat_stack.files.plain_data import as_list, as_mapping, dig, text_mapping
from pgcat_stack.files.quantities import is_int
from pgcat_stack.reading.containers import Pod

_LAST_PORT = 65535


def applies(policy: Manifest, pod: Pod, direction: Direction) -> bool:
    """Whether a policy selects a pod for a direction."""
    types = as_list(policy.get("spec", "policyTypes"))
    if not types:  # ingress always, egress where there are rules for it
        types = ["Ingress", *(["Egress"] if policy.get("spec", "egress") is not None else [])]
    same = policy.namespace == pod.manifest.namespace
    return same and direction in types and selects(policy.get("spec", "podSelector"), pod.labels)


def rules(policy: Manifest, direction: Direction) -> list[Any]:
    """The rules of a policy for a direction."""
    return as_list(policy.get("spec", direction.lower()))


def ports_of(rule: object) -> list[Any]:
    """The ports of a rule; none means every port."""
    return as_list(as_mapping(rule).get("ports"))


def peers_of(rule: object, direction: Direction) -> list[Any]:
    """The peers of a rule; none means any address."""
    return as_list(as_mapping(rule).get("from" if direction == "Ingress" else "to"))


def allows(rule: object, flow: Flow) -> bool:
    """Whether a rule lets a connection through."""
    ports, peers = ports_of(rule), peers_of(rule, flow.direction)
    if not isinstance(rule, dict) or (ports and not any(port_matches(port, flow) for port in ports)):
        return False
    return not peers or any(peer_matches(peer, flow) for peer in peers)


def port_matches(entry: object, flow: Flow) -> bool:
    """Whether an entry of `ports` is the port of a connection."""
    if (dig(entry, "protocol") or "TCP") != flow.protocol:
        return False
    span = port_span(entry)
    if span is not None:
        return span[0] <= flow.port <= span[1]
    port = dig(entry, "port")  # a name, of the receiving pod
    receiver = flow.pod if flow.direction == "Ingress" else flow.peer
    return isinstance(port, str) and isinstance(receiver, Pod) and receiver.port_number(port) == flow.port


def port_span(entry: object) -> tuple[int, int] | None:
    """The first and the last port of an entry of `ports`; None where it gives a name."""
    port, last = dig(entry, "port"), dig(entry, "endPort")
    if port is None:
        return (1, _LAST_PORT)
    if not is_int(port):
        return None
    return (port, last if is_int(last) else port)


def every_port(entry: object) -> bool:
    """Whether an entry of `ports` means all of them."""
    return port_span(entry) == (1, _LAST_PORT)


def peer_matches(peer: object, flow: Flow) -> bool:
    """Whether a peer of a rule may be the other end of a connection."""
    block, name = dig(peer, "ipBlock"), host_name(peer)
    if name is not None:
        return isinstance(flow.peer, str) and name_matches(name, flow.peer)
    if isinstance(flow.peer, Pod):
        return block is None and "entity" not in as_mapping(peer) and selects_peer(peer, flow.peer)
    if isinstance(block, dict) and isinstance(flow.peer, str):
        return _contains(block, flow.peer)
    return True  # pods that this deployment does not know


def selects_peer(peer: object, pod: Pod) -> bool:
    """Whether a peer without addresses selects a pod of the deployment."""
    if not _namespace_matches(as_mapping(peer), pod):
        return False
    return "podSelector" not in as_mapping(peer) or selects(dig(peer, "podSelector"), pod.labels)


def _namespace_matches(peer: Mapping[str, Any], pod: Pod) -> bool:
    if "namespaceSelector" not in peer:
        return True
    labels = text_mapping(dig(peer, "namespaceSelector", "matchLabels"))
    return labels.get(NAMESPACE_LABEL, pod.manifest.namespace) == pod.manifest.namespace


def network(cidr: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that a CIDR names."""
    try:
        return ipaddress.ip_network(cidr, strict=False) if isinstance(cidr, str) else None
    except ValueError:
        return None


def _contains(block: Mapping[str, Any], host: str) -> bool:
    """Whether an ipBlock lets an address through; a host name may have any address."""
    address = address_of(host)
    if address is None:
        return True
    outer = network(block.get("cidr"))
    inside = outer is not None and address in outer
    left_out = [network(part) for part in as_list(block.get("except"))]
    return inside and not any(part is not None and address in part for part in left_out)


def host_name(peer: object) -> str | None:
    """The name or pattern of the hosts that a peer is, where it is hosts by name: Cilium alone knows them."""
    name = dig(peer, "name")
    return name if isinstance(name, str) else None


def any_address(peer: object) -> bool:
    """Whether a peer is every address of IPv4 or IPv6."""
    found = network(dig(peer, "ipBlock", "cidr"))
    return found is not None and found.prefixlen == 0


def labelled(selector: object) -> bool:
    """Whether a label selector asks for anything at all."""
    return bool(as_mapping(dig(selector, "matchLabels")) or as_list(dig(selector, "matchExpressions")))


def every_namespace(peer: object) -> bool:
    """Whether a peer is pods of every namespace."""
    return "namespaceSelector" in as_mapping(peer) and not labelled(dig(peer, "namespaceSelector"))
